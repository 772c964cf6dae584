package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// filter is what stands after a "|".
type filter struct {
	arity
	// soft filters take an attribute of an undefined value as undefined.
	soft bool
	call func(c call, v value) (value, error)
}

// filters are those whose meaning is the same here as in minijinja, except that
// lists and maps are refused where minijinja takes their printed form, and that
// split gives a list, as the method of that name does, and no iterator.
var filters = map[string]filter{
	"lower":      ofText(lower),
	"upper":      ofText(upper),
	"title":      ofText(title),
	"capitalize": ofText(capitalize),
	"string":     ofText(func(s string) string { return s }),
	"safe":       ofText(func(s string) string { return s }),
	"trim":       {arity: arity{0, 1}, call: trimFilter},
	"replace":    {arity: arity{2, 2}, call: replaceFilter},
	"split":      {arity: arity{0, 2}, call: splitFilter},
	"default":    {arity: arity{0, 2}, soft: true, call: defaultFilter},
	"d":          {arity: arity{0, 2}, soft: true, call: defaultFilter},
	"first":      {call: firstFilter},
	"last":       {call: lastFilter},
	"length":     {call: lengthFilter},
	"count":      {call: lengthFilter},
	"reverse":    {call: reverseFilter},
	"join":       {arity: arity{0, 1}, call: joinFilter},
	"list":       {call: listFilter},
	"bool":       {call: func(_ call, v value) (value, error) { return boolValue(v.truth()), nil }},
	"int":        {call: intFilter},
	"float":      {call: floatFilter},
	"abs":        {call: absFilter},
	"round":      {arity: arity{0, 1}, call: roundFilter},
}

// ofText makes a filter of a function on text.
func ofText(f func(string) string) filter {
	return filter{call: func(c call, v value) (value, error) {
		s, err := c.text(v)
		if err != nil {
			return value{}, err
		}
		return stringValue(f(s)).hollowIf(v.leaves()), nil
	}}
}

func trimFilter(c call, v value) (value, error) {
	s, err := c.text(v)
	if err != nil {
		return value{}, err
	}
	if !c.has(0) {
		return stringValue(strings.TrimSpace(s)).hollowIf(v.leaves()), nil
	}
	set, err := c.text(c.args[0])
	if err != nil {
		return value{}, err
	}
	return stringValue(strings.TrimFunc(s, oneOf(set))).hollowIf(c.hollow(v)), nil
}

// oneOf tells whether a character is one of a set, however large that is: strings.Trim would search it for every
// character.
func oneOf(set string) func(rune) bool {
	members := make(map[rune]bool)
	for _, r := range set {
		members[r] = true
	}
	return func(r rune) bool { return members[r] }
}

func trimLeft(s string) string  { return strings.TrimLeftFunc(s, unicode.IsSpace) }
func trimRight(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }

func replaceFilter(c call, v value) (value, error) {
	var texts [3]string
	for i, x := range []value{v, c.args[0], c.args[1]} {
		var err error
		if texts[i], err = c.text(x); err != nil {
			return value{}, err
		}
	}
	s, err := c.replaced(texts[0], texts[1], texts[2], -1)
	return stringValue(s).hollowIf(c.hollow(v)), err
}

func splitFilter(c call, v value) (value, error) {
	if v.kind != kindString {
		return value{}, c.fail("cannot split %s", describe(v))
	}
	return c.parts(v, v.str)
}

func defaultFilter(c call, v value) (value, error) {
	lax := false
	if c.has(1) {
		if c.args[1].kind != kindBool {
			return value{}, c.fail("the second argument of default has to be true or false")
		}
		lax = c.args[1].truth()
	}
	switch {
	case v.kind != kindUndefined && (!lax || v.truth()):
		return v, nil
	case len(c.args) == 0:
		return stringValue(""), nil
	}
	return c.args[0], nil
}

func firstFilter(c call, v value) (value, error) {
	if v.kind == kindString || v.kind == kindList {
		return v.at(0), nil
	}
	return value{}, c.fail("%s has no first item", describe(v))
}

func lastFilter(c call, v value) (value, error) {
	if v.kind == kindString || v.kind == kindList {
		return v.at(-1), c.run.count(c.at, v)
	}
	return value{}, c.fail("%s has no last item", describe(v))
}

func lengthFilter(c call, v value) (value, error) {
	n := v.length()
	if n < 0 {
		return value{}, c.fail("%s has no length", describe(v))
	}
	return intValue(int64(n)), c.run.count(c.at, v)
}

func reverseFilter(c call, v value) (value, error) {
	switch v.kind {
	case kindUndefined, kindNone:
		return v, nil
	case kindString:
		if err := c.run.spend(c.at, len(v.str)); err != nil {
			return value{}, err
		}
		parts := characters(v.str)
		slices.Reverse(parts)
		return stringValue(strings.Join(parts, "")).hollowIf(v.hollow), nil
	case kindList:
		if err := c.run.spend(c.at, v.length()); err != nil {
			return value{}, err
		}
		items := make([]value, v.length())
		for i := range items {
			items[len(items)-1-i] = v.item(i)
		}
		return listValue(items).hollowIf(v.hollow), nil
	}
	return value{}, c.fail("cannot reverse %s", describe(v))
}

func joinFilter(c call, v value) (value, error) {
	sep := ""
	if c.has(0) {
		var err error
		if sep, err = c.text(c.args[0]); err != nil {
			return value{}, err
		}
	}
	return c.join(v, sep)
}

// join puts the text of every item after the other. One absent item makes the
// whole hollow.
func (c call) join(v value, sep string) (value, error) {
	items, err := c.run.listOf(c.at, v)
	if err != nil {
		return value{}, err
	}
	hollow := c.hollow(v)
	n := items.length()
	if err := c.run.spend(c.at, n*(1+len(sep))); err != nil {
		return value{}, err
	}
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(sep)
		}
		item := items.item(i)
		text, err := c.text(item)
		if err != nil {
			return value{}, err
		}
		hollow = hollow || item.leaves()
		b.WriteString(text)
	}
	return stringValue(b.String()).hollowIf(hollow), nil
}

func listFilter(c call, v value) (value, error) {
	items, err := c.run.listOf(c.at, v)
	return items.hollowIf(v.leaves()), err
}

func intFilter(c call, v value) (value, error) {
	switch v.kind {
	case kindUndefined, kindNone, kindBool:
		return intValue(v.num).hollowIf(v.leaves()), nil
	case kindInt:
		return v, nil
	case kindFloat:
		return c.truncated(v, v.float())
	case kindString:
		if err := c.run.spend(c.at, len(v.str)); err != nil {
			return value{}, err
		}
		if n, err := strconv.ParseInt(v.str, 10, 64); err == nil {
			return intValue(n).hollowIf(v.hollow), nil
		}
		f, ok := parseFloat(v.str)
		if !ok {
			return value{}, c.noNumber("this string is no number")
		}
		return c.truncated(v, f)
	}
	return value{}, c.fail("cannot make a number of %s", describe(v))
}

func (c call) truncated(v value, f float64) (value, error) {
	if math.IsNaN(f) || f < -1<<63 || f >= 1<<63 {
		return value{}, c.noNumber("the number is too large for an integer")
	}
	return intValue(int64(f)).hollowIf(v.hollow), nil
}

// parseFloat reads a decimal number, without the names, bases and underscores
// that package strconv also takes.
func parseFloat(s string) (float64, bool) {
	if strings.Trim(s, "0123456789+-.eE") != "" || strings.ContainsAny(s, "xXpP_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func floatFilter(c call, v value) (value, error) {
	switch v.kind {
	case kindUndefined, kindNone:
		return floatValue(0).hollowIf(true), nil
	case kindBool, kindInt:
		return floatValue(float64(v.num)).hollowIf(v.hollow), nil
	case kindFloat:
		return v, nil
	case kindString:
		if err := c.run.spend(c.at, len(v.str)); err != nil {
			return value{}, err
		}
		if f, ok := parseFloat(v.str); ok {
			return floatValue(f).hollowIf(v.hollow), nil
		}
		return value{}, c.noNumber("this string is no number")
	}
	return value{}, c.fail("cannot make a number of %s", describe(v))
}

func absFilter(c call, v value) (value, error) {
	switch {
	case v.kind == kindFloat:
		return floatValue(math.Abs(v.float())).hollowIf(v.hollow), nil
	case v.kind == kindInt && v.num >= 0:
		return v, nil
	case v.kind == kindInt && v.num != math.MinInt64:
		return intValue(-v.num).hollowIf(v.hollow), nil
	}
	return value{}, c.fail("%s has no absolute value", describe(v))
}

// maxPrecision is how many digits round can keep; a float has no more.
const maxPrecision = 15

func roundFilter(c call, v value) (value, error) {
	digits := 0
	if c.has(0) {
		var err error
		if digits, err = c.whole(0); err != nil {
			return value{}, err
		}
		if digits < -maxPrecision || digits > maxPrecision {
			return value{}, c.fail("cannot round to %d digits", digits)
		}
	}
	switch v.kind {
	case kindInt:
		return v, nil
	case kindFloat:
		scale := math.Pow10(digits)
		return floatValue(math.Round(scale*v.float()) / scale).hollowIf(v.hollow), nil
	}
	return value{}, c.fail("cannot round %s", describe(v))
}
