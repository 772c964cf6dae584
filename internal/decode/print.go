package decode

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// JSON prints a struct, or a pointer to one, in its canonical text: the keys in
// the order of the fields, those of a map sorted, no white space, no field that
// was not given, but for a bool with a default, whose false says as much. [ParseJSON] and [Decode] of the text yield an equal value if
// [Defaults] has filled src in and [Check] accepts it, but for nil inside a
// slice or map, which counts as empty or absent.
func JSON(src any) ([]byte, error) {
	v := reflect.ValueOf(src)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		bug("%T is neither a struct nor a pointer to one", src)
	}
	text, err := schema{}.printStruct(nil, addressable(v))
	if err != nil {
		return nil, err
	}
	// A struct built in Go may be nested deeper than a text may be.
	if _, err := ParseJSON(text); err != nil {
		return nil, err
	}
	return text, nil
}

// Tree is the tree of what [JSON] prints.
func Tree(src any) (any, error) {
	text, err := JSON(src)
	if err != nil {
		return nil, err
	}
	return ParseJSON(text)
}

// print appends the JSON of a variable.
func (s schema) print(text []byte, v reflect.Value) ([]byte, error) {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil, Errorf("", "is nil")
		}
		return s.print(text, v.Elem())
	}
	switch {
	case isAny(t):
		tree := v.Interface()
		return appendTree(text, tree, "", nil), checkTree(tree, 0)
	case has(t, jsonMarshalerType):
		return printOwn(text, v.Addr().Interface().(json.Marshaler))
	case t == addrType:
		return printAddr(text, v.Interface().(netip.Addr))
	case t == prefixType:
		return printPrefix(text, v.Interface().(netip.Prefix))
	case has(t, textMarshalerType):
		own, err := v.Addr().Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return nil, In("", err)
		}
		return printString(text, string(own))
	case isDuration(t):
		if v.Int() < 0 {
			return nil, Errorf("", "a duration cannot be negative")
		}
		return printString(text, FormatDuration(time.Duration(v.Int())))
	}
	return s.printKind(text, v)
}

// printKind appends a value whose type has no syntax of its own.
func (s schema) printKind(text []byte, v reflect.Value) ([]byte, error) {
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(text, v.Bool()), nil
	case reflect.String:
		return printString(text, v.String())
	case reflect.Float32, reflect.Float64:
		return appendFloat(text, v.Float(), v.Type().Bits()), checkTree(v.Float(), 0)
	case reflect.Struct:
		return s.printStruct(text, v)
	case reflect.Slice:
		return s.printSlice(text, v)
	case reflect.Map:
		return s.printMap(text, v)
	}
	switch {
	case v.CanInt():
		return strconv.AppendInt(text, v.Int(), 10), nil
	case v.CanUint() && v.Uint() <= math.MaxInt64:
		return strconv.AppendUint(text, v.Uint(), 10), nil
	case v.CanUint():
		// It would be read as a float.
		return nil, Errorf("", "%d is out of range (0 to %d)", v.Uint(), int64(math.MaxInt64))
	}
	bug("fields of type %v are not supported", v.Type())
	return nil, nil
}

func (s schema) printStruct(text []byte, v reflect.Value) ([]byte, error) {
	text = append(text, '{')
	start := len(text)
	text, err := s.printFields(text, v)
	if err != nil {
		return nil, err
	}
	if len(text) > start {
		text = text[:len(text)-1] // the last comma
	}
	return append(text, '}'), nil
}

// printFields appends the fields that were given, each with a comma after it.
func (s schema) printFields(text []byte, v reflect.Value) ([]byte, error) {
	for _, f := range s.of(v.Type()).fields {
		fv := v.Field(f.index)
		var err error
		switch {
		case f.inline && fv.Kind() == reflect.Struct:
			text, err = s.printFields(text, fv)
		case isZero(fv) && !(f.hasDefault && fv.Kind() == reflect.Bool):
		case f.inline:
			text, err = s.printFields(text, fv.Elem())
		default:
			text, err = s.printField(text, f, fv)
		}
		if err != nil {
			return nil, In(f.path(), err)
		}
	}
	return text, nil
}

func (s schema) printField(text []byte, f *field, v reflect.Value) ([]byte, error) {
	before := len(text)
	text = append(appendString(text, f.key), ':')
	start := len(text)
	text, err := s.print(text, v)
	if err != nil {
		return nil, err
	}
	if own := string(text[start:]); own == "null" || own == "{}" && isPlainStruct(f.typ) {
		return text[:before], nil
	}
	return append(text, ','), nil
}

func (s schema) printSlice(text []byte, v reflect.Value) ([]byte, error) {
	text = append(text, '[')
	for i := range v.Len() {
		if i > 0 {
			text = append(text, ',')
		}
		var err error
		if text, err = s.print(text, v.Index(i)); err != nil {
			return nil, In(indexPath(i), err)
		}
	}
	return append(text, ']'), nil
}

func (s schema) printMap(text []byte, v reflect.Value) ([]byte, error) {
	text = append(text, '{')
	start := len(text)
	for _, key := range sortedMapKeys(v) {
		value := addressable(v.MapIndex(key))
		if k := value.Kind(); (k == reflect.Interface || k == reflect.Pointer) && value.IsNil() {
			continue
		}
		if len(text) > start {
			text = append(text, ',')
		}
		err := checkUTF8(key.String())
		if err == nil {
			text, err = s.print(append(appendString(text, key.String()), ':'), value)
		}
		if err != nil {
			return nil, In(keyPath(key.String()), err)
		}
	}
	return append(text, '}'), nil
}

func sortedMapKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	return keys
}

func printString(text []byte, s string) ([]byte, error) {
	return appendString(text, s), checkUTF8(s)
}

// printOwn appends what a type's own method prints, without white space.
func printOwn(text []byte, m json.Marshaler) ([]byte, error) {
	own, err := m.MarshalJSON()
	if err != nil {
		return nil, In("", err)
	}
	if _, err := ParseJSON(own); err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, own); err != nil {
		return nil, In("", err)
	}
	return append(text, compact.Bytes()...), nil
}

func printAddr(text []byte, addr netip.Addr) ([]byte, error) {
	if !addr.IsValid() {
		return nil, Errorf("", "is not a valid IP address")
	}
	return printString(text, addr.String())
}

func printPrefix(text []byte, prefix netip.Prefix) ([]byte, error) {
	if !prefix.IsValid() {
		return nil, Errorf("", "is not a valid IP network")
	}
	if prefix.IsSingleIP() {
		return printString(text, prefix.Addr().String())
	}
	return printString(text, prefix.String())
}
