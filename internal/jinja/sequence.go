package jinja

import (
	"math"
	"strings"
	"unicode/utf8"
)

const maxInt = math.MaxInt

// wholeNumber returns a number without a fraction, as subscripts need it.
func wholeNumber(v value) (int, bool) {
	switch v.kind {
	case kindInt:
		return int(v.num), true
	case kindFloat:
		f := v.float()
		return int(f), f == math.Trunc(f) && math.Abs(f) < 1<<53
	}
	return 0, false
}

// size is what a value costs to make.
func (v value) size() int {
	switch v.kind {
	case kindString:
		return len(v.str)
	case kindList:
		return v.length()
	}
	return 1
}

// at returns an item of a list or a character of a string, from the end if n is
// negative, or undefined.
func (v value) at(n int) value {
	if n < 0 {
		n += v.length()
	}
	if n < 0 {
		return undefinedValue
	}
	if v.kind == kindList {
		if n < v.length() {
			return v.item(n).hollowIf(v.hollow)
		}
		return undefinedValue
	}
	start := skipCharacters(v.str, n)
	if start == len(v.str) {
		return undefinedValue
	}
	_, size := utf8.DecodeRuneInString(v.str[start:])
	return stringValue(v.str[start : start+size]).hollowIf(v.hollow)
}

// skipCharacters returns the byte offset of the nth character, or the length.
func skipCharacters(s string, n int) int {
	offset := 0
	for ; n > 0 && offset < len(s); n-- {
		_, size := utf8.DecodeRuneInString(s[offset:])
		offset += size
	}
	return offset
}

// slice returns the part from start to before stop, negative ends counting from
// the end, ends beyond the value meaning its ends.
func (v value) slice(start, stop int) value {
	length := v.length()
	start, stop = clamp(start, length), clamp(stop, length)
	stop = max(start, stop)
	if v.kind == kindString {
		from := skipCharacters(v.str, start)
		to := from + skipCharacters(v.str[from:], stop-start)
		return stringValue(v.str[from:to]).hollowIf(v.hollow)
	}
	part := value{kind: kindList, hollow: v.hollow}
	if items, ok := v.ref.([]any); ok {
		part.ref = items[start:stop]
	} else {
		part.ref = v.ref.([]value)[start:stop]
	}
	return part
}

func clamp(n, length int) int {
	if n < 0 {
		n += length
	}
	return min(max(n, 0), length)
}

// characters splits a string into its characters. Bytes that are not UTF-8 stay
// as they are.
func characters(s string) []string { return strings.Split(s, "") }

// listOf returns what a loop or the filter list makes of a value: the items of
// a list, the characters of a string, nothing of an absent value.
func (r *run) listOf(at position, v value) (value, error) {
	switch v.kind {
	case kindList:
		return v, nil
	case kindUndefined, kindNone:
		return listValue(nil), nil
	case kindString:
		if err := r.spend(at, len(v.str)); err != nil {
			return value{}, err
		}
		return stringList(characters(v.str), v.hollow), nil
	}
	return value{}, r.fail(at, "%s is not a list", describe(v))
}

func stringList(parts []string, hollow bool) value {
	items := make([]value, len(parts))
	for i, s := range parts {
		items[i] = stringValue(s).hollowIf(hollow)
	}
	return listValue(items)
}
