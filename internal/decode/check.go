package decode

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Defaults fills the zero-valued fields that have a default, in the struct that
// dst points to and in the structs, pointers, slices and maps inside it. What
// those refer to is copied first: dst may share it with others.
func Defaults(dst any) { schema{}.fill(structPointer(dst)) }

func (s schema) fill(v reflect.Value) {
	if !holdsStruct(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			own := reflect.New(v.Type().Elem())
			own.Elem().Set(v.Elem())
			s.fill(own.Elem())
			v.Set(own)
		}
	case reflect.Struct:
		for _, f := range s.of(v.Type()).fields {
			fv := v.Field(f.index)
			if f.hasDefault && isZero(fv) {
				fv.Set(s.defaultOf(f))
			}
			if f.inline || isPlainStruct(f.typ) || !isZero(fv) {
				s.fill(fv)
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(own, v)
		for i := range own.Len() {
			s.fill(own.Index(i))
		}
		v.Set(own)
	case reflect.Map:
		if v.IsNil() {
			return
		}
		own := reflect.MakeMapWithSize(v.Type(), v.Len())
		for _, key := range v.MapKeys() {
			value := addressable(v.MapIndex(key))
			s.fill(value)
			own.SetMapIndex(key, value)
		}
		v.Set(own)
	}
}

// holdsStruct spares walking through lists of scalars.
func holdsStruct(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return holdsStruct(t.Elem())
	}
	return false
}

// Check checks a struct, or a pointer to one, that was built in Go: the
// min, max, enum and required tags, and what the Validate methods say. It fills
// in no defaults: call [Defaults] first. Every error is an [*Error] with the
// path of the bad field.
func Check(src any) error {
	v := reflect.ValueOf(src)
	if v.Kind() != reflect.Pointer {
		return schema{}.check(addressable(v))
	}
	return schema{}.check(structPointer(src))
}

// check checks v and all in it, the inner values first.
func (s schema) check(v reflect.Value) error {
	if err := s.checkInside(v); err != nil {
		return err
	}
	if validator, ok := v.Addr().Interface().(interface{ Validate() error }); ok {
		return In("", validator.Validate())
	}
	return nil
}

func (s schema) checkInside(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		return checkUTF8(v.String())
	case reflect.Float32, reflect.Float64:
		return checkTree(v.Float(), 0)
	case reflect.Int64:
		if isDuration(v.Type()) && v.Int() < 0 {
			return Errorf("", "a duration cannot be negative")
		}
	case reflect.Interface:
		if isAny(v.Type()) {
			return checkTree(v.Interface(), 0)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return s.check(v.Elem())
		}
	case reflect.Struct:
		for _, f := range s.of(v.Type()).fields {
			if err := s.checkField(f, v.Field(f.index)); err != nil {
				return In(f.path(), err)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := s.check(v.Index(i)); err != nil {
				return In(indexPath(i), err)
			}
		}
	case reflect.Map:
		return s.checkMap(v)
	}
	return nil
}

func (s schema) checkMap(v reflect.Value) error {
	for _, key := range sortedMapKeys(v) {
		err := checkUTF8(key.String())
		if err == nil {
			err = s.check(addressable(v.MapIndex(key)))
		}
		if err != nil {
			return In(keyPath(key.String()), err)
		}
	}
	return nil
}

func (s schema) checkField(f *field, v reflect.Value) error {
	if isZero(v) {
		switch {
		case f.required:
			return Errorf("", "is required")
		case !f.inline && !isPlainStruct(f.typ):
			return nil // not given: a zero that was written went through given
		}
		return s.check(v)
	}
	if err := s.check(v); err != nil {
		return err
	}
	return f.checkTags(v)
}

// checkTags checks the bounds and the choices of a value that was given.
func (f *field) checkTags(v reflect.Value) error {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if f.enum != nil && !slices.Contains(f.enum, v.String()) {
		return Errorf("", "%s is not one of %s", quote(v.String()), strings.Join(f.enum, ", "))
	}
	return f.checkBounds(v)
}

func (f *field) checkBounds(v reflect.Value) error {
	low := f.min.IsValid() && compare(v, f.min) < 0
	high := f.max.IsValid() && compare(v, f.max) > 0
	switch {
	case !low && !high:
		return nil
	case f.min.IsValid() && f.max.IsValid():
		return Errorf("", "%s is out of range (%s to %s)", numberText(v), numberText(f.min), numberText(f.max))
	case low:
		return Errorf("", "%s is less than %s", numberText(v), numberText(f.min))
	}
	return Errorf("", "%s is more than %s", numberText(v), numberText(f.max))
}

// compare compares two numbers; NaN, which checkInside refuses, is less than
// all others.
func compare(a, b reflect.Value) int {
	switch {
	case a.CanFloat():
		return cmp.Compare(a.Float(), b.Float())
	case a.CanInt() && b.CanInt():
		return cmp.Compare(a.Int(), b.Int())
	case a.CanInt():
		if a.Int() < 0 || b.Uint() > math.MaxInt64 {
			return -1
		}
		return cmp.Compare(uint64(a.Int()), b.Uint())
	}
	return cmp.Compare(a.Uint(), b.Uint())
}

// numberText prints a number as it would be written in a configuration.
func numberText(v reflect.Value) string {
	text, err := schema{}.print(nil, addressable(v))
	if err != nil {
		return fmt.Sprint(v.Interface()) // JSON cannot hold it
	}
	return strings.Trim(string(text), `"`)
}
