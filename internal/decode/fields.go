package decode

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"
)

// schema remembers, for the length of one call, the struct types whose tags are
// being read: a type may lead back to itself.
type schema map[reflect.Type]*layout

// layouts are those of all types that were met, as *layout by reflect.Type. What
// tags say does not change.
var layouts sync.Map

// layout is what the tags of one struct type say.
type layout struct {
	fields []*field
	// keys are the keys of all fields, those of inlined structs included.
	keys []string
}

// field is one tagged field of a struct.
type field struct {
	key      string
	index    int
	typ      reflect.Type
	inline   bool
	required bool
	// text is the default in its textual form; with hasDefault it may be "".
	text       string
	hasDefault bool
	// scalar is the default, where it refers to nothing that could be changed.
	scalar reflect.Value
	// min and max are invalid where there is no bound.
	min, max reflect.Value
	enum     []string
}

var (
	jsonUnmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	jsonMarshalerType   = reflect.TypeFor[json.Marshaler]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	textMarshalerType   = reflect.TypeFor[encoding.TextMarshaler]()
	durationType        = reflect.TypeFor[time.Duration]()
	addrType            = reflect.TypeFor[netip.Addr]()
	prefixType          = reflect.TypeFor[netip.Prefix]()
)

// has reports whether a variable of type t has the methods of an interface,
// be it with a value or a pointer receiver.
func has(t, methods reflect.Type) bool {
	return reflect.PointerTo(t).Implements(methods)
}

// isDuration reports whether t holds a duration. The name tells a duration type
// from another int64: nothing else does, once it has a name of its own.
func isDuration(t reflect.Type) bool {
	return t == durationType || t.Kind() == reflect.Int64 && strings.HasSuffix(t.Name(), "Duration")
}

func isAny(t reflect.Type) bool { return t.Kind() == reflect.Interface && t.NumMethod() == 0 }

// bug reports a mistake in the program's own tags or arguments.
func bug(format string, args ...any) {
	panic("decode: BUG: " + fmt.Sprintf(format, args...))
}

// of returns the layout of a struct type.
func (s schema) of(t reflect.Type) *layout {
	if l, ok := layouts.Load(t); ok {
		return l.(*layout)
	}
	if l, ok := s[t]; ok {
		return l
	}
	l := &layout{}
	s[t] = l
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("config")
		if !ok {
			continue
		}
		f := s.field(t, sf, tag)
		f.index = i
		l.fields = append(l.fields, f)
		if f.inline {
			l.keys = append(l.keys, s.of(f.valueType()).keys...)
		} else {
			l.keys = append(l.keys, f.key)
		}
	}
	seen := map[string]bool{}
	for _, key := range l.keys {
		if seen[key] {
			bug("%v has the key %q twice", t, key)
		}
		seen[key] = true
	}
	layouts.Store(t, l)
	return l
}

func (s schema) field(t reflect.Type, sf reflect.StructField, tag string) *field {
	wrong := func(format string, args ...any) {
		bug("%v.%s: %s", t, sf.Name, fmt.Sprintf(format, args...))
	}
	f := &field{key: tag, typ: sf.Type}
	if !sf.IsExported() {
		wrong("has a config tag but is not exported")
	}
	if tag == ",inline" {
		f.key, f.inline = "", true
		if f.valueType().Kind() != reflect.Struct {
			wrong("only a struct or a pointer to one can be inlined")
		}
		if sf.Anonymous && f.typ.Kind() == reflect.Pointer {
			// Its methods would be the parent's too, and be called on nil.
			wrong("an inlined pointer needs a field name")
		}
		return f
	}
	if tag == "" || strings.Contains(tag, ",") {
		wrong("bad config tag %q", tag)
	}
	f.required = sf.Tag.Get("required") == "true"
	kind := f.valueType().Kind()
	if f.required && kind == reflect.Bool && f.typ == f.valueType() {
		wrong("a required bool could not be false")
	}

	bound := func(name string) reflect.Value {
		text, ok := sf.Tag.Lookup(name)
		if !ok {
			return reflect.Value{}
		}
		v, err := s.parseText(text, f.valueType())
		if err != nil {
			wrong("%s:%q: %v", name, text, err)
		}
		if !v.CanInt() && !v.CanUint() && !v.CanFloat() {
			wrong("%s is for numbers and durations", name)
		}
		return v
	}
	f.min, f.max = bound("min"), bound("max")

	if choices, ok := sf.Tag.Lookup("enum"); ok {
		f.enum = strings.Split(choices, ",")
		if kind != reflect.String {
			wrong("enum is for strings")
		}
	}
	if f.text, f.hasDefault = sf.Tag.Lookup("default"); f.hasDefault {
		v, err := s.parseText(f.text, f.typ)
		if err == nil {
			err = f.checkTags(v)
		}
		if err != nil {
			wrong("default:%q: %v", f.text, err)
		}
		if f.typ.Kind() == reflect.Bool && !has(f.typ, jsonUnmarshalerType) && !isZero(v) {
			wrong("a bool with the default true could not be false")
		}
		if isScalar(v.Kind()) {
			f.scalar = v
		}
	}
	return f
}

// valueType is the field's type without its pointer.
func (f *field) valueType() reflect.Type {
	if f.typ.Kind() == reflect.Pointer {
		return f.typ.Elem()
	}
	return f.typ
}

// parseText reads the text of a tag as a value of type t.
func (s schema) parseText(text string, t reflect.Type) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	base := t
	for base.Kind() == reflect.Pointer {
		base = base.Elem()
	}
	own := has(base, jsonUnmarshalerType)
	if !own && (base.Kind() == reflect.String || isDuration(base) || has(base, textUnmarshalerType)) {
		return v, s.value(text, v)
	}
	tree, err := ParseJSON([]byte(text))
	if err == nil {
		err = s.value(tree, v)
	}
	if err != nil && own {
		// Its own syntax is a JSON string more often than not.
		err = s.value(text, v)
	}
	return v, err
}

// isPlainStruct reports whether a type is a struct of fields with keys, which
// is always there, and not a value with a syntax of its own, which may be
// absent.
func isPlainStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !has(t, jsonUnmarshalerType) && !has(t, textUnmarshalerType)
}

// path is the step that the field adds to the path of its struct.
func (f *field) path() string {
	if f.inline {
		return ""
	}
	return keyPath(f.key)
}

// isInteger reports whether the field holds an integer of Go's own syntax.
func (f *field) isInteger() bool {
	t := f.valueType()
	v := reflect.Zero(t)
	return (v.CanInt() || v.CanUint()) && !isDuration(t) && !has(t, jsonUnmarshalerType) && !has(t, textUnmarshalerType)
}

func isScalar(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Float64 || k == reflect.String
}

// defaultOf returns a fresh copy of the default.
func (s schema) defaultOf(f *field) reflect.Value {
	if f.scalar.IsValid() {
		return f.scalar
	}
	v, err := s.parseText(f.text, f.typ)
	if err != nil {
		bug("default:%q: %v", f.text, err)
	}
	return v
}

// isZero reports whether a value means "not given".
func isZero(v reflect.Value) bool {
	if v.Kind() == reflect.Pointer {
		return v.IsNil()
	}
	type zeroer interface{ IsZero() bool }
	if v.CanAddr() {
		if z, ok := v.Addr().Interface().(zeroer); ok {
			return z.IsZero()
		}
	}
	return v.IsZero()
}

// addressable returns v, or a copy of it, as a variable, so that methods with
// pointer receivers can be called.
func addressable(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v
	}
	variable := reflect.New(v.Type()).Elem()
	variable.Set(v)
	return variable
}
