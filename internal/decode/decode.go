package decode

import (
	"encoding"
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Decode sets the fields of the struct that dst points to from a tree, fills in
// the defaults and checks the whole, as [Defaults] and [Check] do. A field whose
// key is absent keeps the value that it has; one whose key is present is
// replaced as a whole. Every error is an [*Error] with the path of the bad
// field. After an error dst holds some of the fields and should not be used.
func Decode(tree any, dst any) error {
	v := structPointer(dst)
	if err := checkTree(tree, 0); err != nil {
		return err
	}
	s := schema{}
	if err := s.structure(tree, v); err != nil {
		return err
	}
	s.fill(v)
	return s.check(v)
}

// structPointer returns the struct that dst points to.
func structPointer(dst any) reflect.Value {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		bug("%T is not a pointer to a struct", dst)
	}
	return v.Elem()
}

// structure sets a struct from a tree.
func (s schema) structure(tree any, v reflect.Value) error {
	var m map[string]any
	switch t := tree.(type) {
	case map[string]any:
		m = t
	case Empty:
	default:
		return expected("a map", tree)
	}
	if err := checkKeys(m, s.of(v.Type()).keys); err != nil {
		return err
	}
	return s.fields(m, v)
}

// checkKeys refuses the first key in m, by name, that is not known.
func checkKeys(m map[string]any, known []string) error {
	var unknown []string
	for key := range m {
		if !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	key := slices.Min(unknown)
	if near := nearest(key, known); near != "" {
		return Errorf(keyPath(key), "unknown field (did you mean %q?)", near)
	}
	return Errorf(keyPath(key), "unknown field")
}

func (s schema) fields(m map[string]any, v reflect.Value) error {
	for _, f := range s.of(v.Type()).fields {
		fv := v.Field(f.index)
		if f.inline {
			if err := s.inlined(m, f, fv); err != nil {
				return err
			}
			continue
		}
		if m[f.key] == nil {
			continue
		}
		value, err := s.given(f, m[f.key])
		if err != nil {
			return In(f.path(), err)
		}
		fv.Set(value)
	}
	return nil
}

func (s schema) inlined(m map[string]any, f *field, v reflect.Value) error {
	if f.typ.Kind() != reflect.Pointer {
		return s.fields(m, v)
	}
	given := func(key string) bool { return m[key] != nil }
	if !slices.ContainsFunc(s.of(f.typ.Elem()).keys, given) {
		return nil
	}
	if v.IsNil() {
		v.Set(reflect.New(f.typ.Elem()))
	}
	return s.fields(m, v.Elem())
}

// given reads the value of a field that somebody wrote. Its bounds are checked
// here and not only once the defaults are in, for then a zero is out of sight.
func (s schema) given(f *field, tree any) (reflect.Value, error) {
	v := reflect.New(f.typ).Elem()
	if n, ok := integer(tree); ok && f.isInteger() {
		// Before a small integer type overflows, whose own bounds are wider.
		if err := f.checkBounds(reflect.ValueOf(n)); err != nil {
			return v, err
		}
	}
	if err := s.value(tree, v); err != nil {
		return v, err
	}
	if err := f.checkTags(v); err != nil {
		return v, err
	}
	return v, s.checkGiven(f, v)
}

// checkGiven refuses a zero that somebody wrote where it would be taken for
// "not given".
func (s schema) checkGiven(f *field, v reflect.Value) error {
	if !isZero(v) {
		return nil
	}
	if f.hasDefault && !isZero(s.defaultOf(f)) {
		return Errorf("", "%s is not accepted (leave the field out for the default, %s)", zeroText(v), f.text)
	}
	if f.required {
		return Errorf("", "%s is not accepted", zeroText(v))
	}
	return nil
}

func zeroText(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.String:
		return "an empty string"
	case v.CanInt(), v.CanUint(), v.CanFloat():
		return "zero"
	}
	return "an empty value"
}

// value sets v from a tree.
func (s schema) value(tree any, v reflect.Value) error {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		p := reflect.New(t.Elem())
		if err := s.value(tree, p.Elem()); err != nil {
			return err
		}
		v.Set(p)
		return nil
	}
	switch {
	case isAny(t):
		if tree != nil {
			v.Set(reflect.ValueOf(plain(tree)))
		}
		return nil
	case tree == nil:
		return Errorf("", "is null")
	case has(t, jsonUnmarshalerType):
		u, err := unmarshalJSON(tree, func() json.Unmarshaler { return reflect.New(t).Interface().(json.Unmarshaler) })
		if err != nil {
			return In("", err)
		}
		v.Set(reflect.ValueOf(u).Elem())
		return nil
	case isDuration(t):
		return setDuration(tree, v)
	case t == addrType:
		return setAddr(tree, v)
	case t == prefixType:
		return setPrefix(tree, v)
	case has(t, textUnmarshalerType):
		return setText(tree, v)
	}
	return s.kind(tree, v)
}

// kind sets v, whose type has no syntax of its own, by its kind.
func (s schema) kind(tree any, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		b, ok := tree.(bool)
		if !ok {
			return expected("a boolean", tree)
		}
		v.SetBool(b)
	case reflect.String:
		text, ok := tree.(string)
		if !ok {
			return expected("a string", tree)
		}
		v.SetString(text)
	case reflect.Struct:
		return s.structure(tree, v)
	case reflect.Slice:
		return s.slice(tree, v)
	case reflect.Map:
		return s.mapping(tree, v)
	default:
		return setNumber(tree, v)
	}
	return nil
}

func (s schema) slice(tree any, v reflect.Value) error {
	var items []any
	switch t := tree.(type) {
	case []any:
		items = t
	case Empty:
	default:
		return expected("a list", tree)
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := s.value(item, list.Index(i)); err != nil {
			return In(indexPath(i), err)
		}
	}
	v.Set(list)
	return nil
}

func (s schema) mapping(tree any, v reflect.Value) error {
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		bug("%v: the keys of a map must be strings", t)
	}
	var entries map[string]any
	switch m := tree.(type) {
	case map[string]any:
		entries = m
	case Empty:
	default:
		return expected("a map", tree)
	}
	m := reflect.MakeMapWithSize(t, len(entries))
	for _, key := range sortedKeys(entries) {
		if entries[key] == nil {
			continue
		}
		value := reflect.New(t.Elem()).Elem()
		if err := s.value(entries[key], value); err != nil {
			return In(keyPath(key), err)
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), value)
	}
	v.Set(m)
	return nil
}

func setDuration(tree any, v reflect.Value) error {
	if _, ok := tree.(string); ok && has(v.Type(), textUnmarshalerType) {
		return setText(tree, v)
	}
	d, err := Duration(tree)
	if err != nil {
		return In("", err)
	}
	v.SetInt(int64(d))
	return nil
}

func setText(tree any, v reflect.Value) error {
	text, ok := tree.(string)
	if !ok {
		return expected("a string", tree)
	}
	return In("", v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)))
}

func setAddr(tree any, v reflect.Value) error {
	text, ok := tree.(string)
	if !ok {
		return expected("an IP address as a string", tree)
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return Errorf("", "%s is not an IP address", quote(text))
	}
	v.Set(reflect.ValueOf(addr))
	return nil
}

func setPrefix(tree any, v reflect.Value) error {
	text, ok := tree.(string)
	if !ok {
		return expected("an IP network as a string", tree)
	}
	prefix, err := netip.ParsePrefix(text)
	if !strings.Contains(text, "/") {
		var addr netip.Addr
		// A network has no zone, and PrefixFrom would drop it.
		if addr, err = netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	if err != nil || !prefix.IsValid() {
		return Errorf("", "%s is not an IP network, such as 10.0.0.0/8, or an IP address without a zone", quote(text))
	}
	v.Set(reflect.ValueOf(prefix))
	return nil
}

// setNumber sets an integer or a float.
func setNumber(tree any, v reflect.Value) error {
	if v.CanFloat() {
		return setFloat(tree, v)
	}
	if !v.CanInt() && !v.CanUint() {
		bug("fields of type %v are not supported", v.Type())
	}
	n, ok := integer(tree)
	if f, isFloat := tree.(float64); isFloat && !ok {
		if f != math.Trunc(f) {
			return Errorf("", "%v is not an integer", f)
		}
		return Errorf("", "%v is too large to be an exact integer", f)
	}
	if !ok {
		return expected("an integer", tree)
	}
	return setInteger(n, v)
}

// integer returns the integer that a number of a tree is.
func integer(tree any) (int64, bool) {
	switch n := tree.(type) {
	case int64:
		return n, true
	case float64:
		// Beyond 1<<53 a float skips integers: it may not be what was written.
		if math.Abs(n) <= 1<<53 {
			return exactInt(n)
		}
	}
	return 0, false
}

func setInteger(n int64, v reflect.Value) error {
	bits := v.Type().Bits()
	if v.CanInt() {
		if v.OverflowInt(n) {
			return Errorf("", "%d is out of range (%d to %d)", n, int64(-1)<<(bits-1), int64(1)<<(bits-1)-1)
		}
		v.SetInt(n)
		return nil
	}
	if n < 0 || v.OverflowUint(uint64(n)) {
		return Errorf("", "%d is out of range (0 to %d)", n, uint64(math.MaxUint64)>>(64-bits))
	}
	v.SetUint(uint64(n))
	return nil
}

func setFloat(tree any, v reflect.Value) error {
	var f float64
	switch n := tree.(type) {
	case int64:
		f = float64(n)
	case float64:
		f = n
	default:
		return expected("a number", tree)
	}
	if v.OverflowFloat(f) {
		return Errorf("", "%v is out of range", f)
	}
	if f == 0 {
		f = 0 // minus zero is not the zero value
	}
	v.SetFloat(f)
	return nil
}
