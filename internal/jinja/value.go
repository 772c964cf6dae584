package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value is what an expression yields.
type value struct {
	kind kind
	// hollow marks what was made from none or from an undefined value: "none"
	// lowered, 0 from none. It takes part in comparisons as minijinja has it,
	// but it is not printed.
	hollow bool
	// silent marks the undefined value of an if without else, which the author
	// wrote on purpose: it is printed as nothing.
	silent bool
	str    string
	num    int64 // an integer, a boolean as 0 or 1, or the bits of a float
	ref    any   // []value, []any, map[string]value, map[string]any
}

type kind uint8

const (
	kindUnset kind = iota // a slot that no set has filled
	kindUndefined
	kindNone
	kindBool
	kindInt
	kindFloat
	kindString
	kindList
	kindMap
	kindForeign // a Go type that no template can handle; str names it
)

func (k kind) String() string {
	return [...]string{"unset", "undefined", "none", "a boolean", "a number", "a number",
		"a string", "a list", "a map", "a foreign value"}[k]
}

var undefinedValue = value{kind: kindUndefined}

func stringValue(s string) value      { return value{kind: kindString, str: s} }
func intValue(n int64) value          { return value{kind: kindInt, num: n} }
func floatValue(f float64) value      { return value{kind: kindFloat, num: int64(math.Float64bits(f))} }
func listValue(items []value) value   { return value{kind: kindList, ref: items} }
func (v value) float() float64        { return math.Float64frombits(uint64(v.num)) }
func (v value) absent() bool          { return v.kind == kindUndefined || v.kind == kindNone }
func (v value) number() bool          { return v.kind == kindInt || v.kind == kindFloat }
func (v value) hollowIf(h bool) value { v.hollow = v.hollow || h; return v }

func boolValue(b bool) value {
	if b {
		return value{kind: kindBool, num: 1}
	}
	return value{kind: kindBool}
}

// valueOf makes a value of what the caller passed.
func valueOf(x any) value {
	switch x := x.(type) {
	case nil:
		return value{kind: kindNone}
	case string:
		return stringValue(x)
	case bool:
		return boolValue(x)
	case int:
		return intValue(int64(x))
	case int64:
		return intValue(x)
	case float64:
		return floatValue(x)
	case []any:
		return value{kind: kindList, ref: x}
	case map[string]any:
		return value{kind: kindMap, ref: x}
	}
	return value{kind: kindForeign, str: typeName(x)}
}

func (v value) truth() bool {
	switch v.kind {
	case kindBool, kindInt:
		return v.num != 0
	case kindFloat:
		return v.float() != 0
	case kindString:
		return v.str != ""
	case kindList, kindMap:
		return v.length() > 0
	}
	return false
}

// length is the number of characters, items or entries; -1 for other kinds.
func (v value) length() int {
	switch v.kind {
	case kindString:
		return utf8.RuneCountInString(v.str)
	case kindList:
		if items, ok := v.ref.([]any); ok {
			return len(items)
		}
		return len(v.ref.([]value))
	case kindMap:
		if entries, ok := v.ref.(map[string]any); ok {
			return len(entries)
		}
		return len(v.ref.(map[string]value))
	}
	return -1
}

// item returns the element of a list.
func (v value) item(i int) value {
	if items, ok := v.ref.([]any); ok {
		return valueOf(items[i])
	}
	return v.ref.([]value)[i]
}

// entry returns the value of a key of a map.
func (v value) entry(key string) (value, bool) {
	if entries, ok := v.ref.(map[string]any); ok {
		x, ok := entries[key]
		return valueOf(x), ok
	}
	x, ok := v.ref.(map[string]value)[key]
	return x, ok
}

func (v value) keys() []string {
	if entries, ok := v.ref.(map[string]any); ok {
		return keys(entries)
	}
	return keys(v.ref.(map[string]value))
}

// text returns a value as it is printed; ok is false for lists, maps and what
// is no number. The text of an absent value makes what it becomes hollow.
func (v value) text() (text string, ok bool) {
	switch v.kind {
	case kindString:
		return v.str, true
	case kindUndefined:
		return "", true
	case kindNone:
		return "none", true
	case kindBool:
		return strconv.FormatBool(v.num != 0), true
	case kindInt:
		return strconv.FormatInt(v.num, 10), true
	case kindFloat:
		return formatFloat(v.float())
	}
	return "", false
}

// formatFloat writes a float without an exponent and always with a point.
func formatFloat(f float64) (string, bool) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return "", false
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s, true
}
