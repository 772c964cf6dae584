package jinja

import (
	"strings"
	"unicode"
)

// method is what can be called on a value: name.method(arguments).
type method struct {
	arity
	on   kind
	call func(c call, v value) (value, error)
}

// methods are those of Python that minijinja offers and that mean the same
// here. find and rfind are left out: their result counts bytes, and a slice
// counts characters.
var methods = map[string]method{
	"get":        {arity: arity{1, 2}, on: kindMap, call: getMethod},
	"lower":      onString(lower),
	"upper":      onString(upper),
	"title":      onString(title),
	"capitalize": onString(capitalize),
	"strip":      stripMethod(strings.TrimSpace, strings.TrimFunc),
	"lstrip":     stripMethod(trimLeft, strings.TrimLeftFunc),
	"rstrip":     stripMethod(trimRight, strings.TrimRightFunc),
	"replace":    {arity: arity{2, 3}, on: kindString, call: replaceMethod},
	"split":      {arity: arity{0, 2}, on: kindString, call: splitFilter},
	"join":       {arity: arity{1, 1}, on: kindString, call: joinMethod},
	"count":      {arity: arity{1, 1}, on: kindString, call: countMethod},
	"startswith": affixMethod(strings.HasPrefix),
	"endswith":   affixMethod(strings.HasSuffix),
	"isalnum":    classMethod(alphanumeric),
	"isalpha":    classMethod(alphabetic),
	"isascii":    classMethod(ascii),
	"isdigit":    classMethod(unicode.IsNumber),
	"isnumeric":  classMethod(unicode.IsNumber),
	"islower":    classMethod(lowercase),
	"isupper":    classMethod(uppercase),
	"isspace":    classMethod(unicode.IsSpace),
}

func onString(f func(string) string) method {
	return method{on: kindString, call: ofText(f).call}
}

func getMethod(c call, v value) (value, error) {
	if c.args[0].kind == kindString {
		if x, ok := v.entry(c.args[0].str); ok {
			return x, nil
		}
	}
	if len(c.args) == 2 {
		return c.args[1], nil
	}
	return value{kind: kindNone}, nil
}

func stripMethod(space func(string) string, cut func(s string, of func(rune) bool) string) method {
	return method{arity: arity{0, 1}, on: kindString, call: func(c call, v value) (value, error) {
		if err := c.run.spend(c.at, len(v.str)); err != nil {
			return value{}, err
		}
		if !c.has(0) {
			return stringValue(space(v.str)).hollowIf(v.hollow), nil
		}
		set, err := c.str(0)
		if err != nil {
			return value{}, err
		}
		return stringValue(cut(v.str, oneOf(set))).hollowIf(c.hollow(v)), c.run.spend(c.at, len(set))
	}}
}

func replaceMethod(c call, v value) (value, error) {
	old, err := c.str(0)
	if err != nil {
		return value{}, err
	}
	by, err := c.str(1)
	if err != nil {
		return value{}, err
	}
	count := -1
	if c.has(2) {
		if count, err = c.whole(2); err != nil {
			return value{}, err
		}
	}
	s, err := c.replaced(v.str, old, by, count)
	return stringValue(s).hollowIf(c.hollow(v)), err
}

func joinMethod(c call, v value) (value, error) {
	items := c.args[0]
	c.args = nil
	joined, err := c.join(items, v.str)
	return joined.hollowIf(v.hollow), err
}

func countMethod(c call, v value) (value, error) {
	what, err := c.str(0)
	if err != nil {
		return value{}, err
	}
	if what == "" {
		return value{}, c.fail("cannot count an empty string")
	}
	return intValue(int64(strings.Count(v.str, what))), c.run.spend(c.at, len(v.str))
}

// affixMethod makes a method that tries one string, or each of a list.
func affixMethod(has func(s, affix string) bool) method {
	return method{arity: arity{1, 1}, on: kindString, call: func(c call, v value) (value, error) {
		choices := c.args[0]
		if choices.kind != kindList {
			affix, err := c.str(0)
			if err != nil {
				return value{}, err
			}
			return boolValue(has(v.str, affix)), c.run.spend(c.at, min(len(v.str), len(affix)))
		}
		for i := range choices.length() {
			affix := choices.item(i)
			if affix.kind != kindString {
				return value{}, c.fail("the list has to hold strings, not %s", describe(affix))
			}
			if err := c.run.spend(c.at, 1+min(len(v.str), len(affix.str))); err != nil {
				return value{}, err
			}
			if has(v.str, affix.str) {
				return boolValue(true), nil
			}
		}
		return boolValue(false), nil
	}}
}

func classMethod(class func(rune) bool) method {
	return method{on: kindString, call: func(c call, v value) (value, error) {
		return boolValue(all(v.str, class)), c.run.spend(c.at, len(v.str))
	}}
}
