package jinja

import "strings"

// test is what stands after "is".
type test struct {
	arity
	soft  bool // as of a filter
	holds func(c call, v value) (bool, error)
}

var tests = map[string]test{
	"defined":     {soft: true, holds: not(isKind(kindUndefined))},
	"undefined":   {soft: true, holds: isKind(kindUndefined)},
	"none":        {holds: isKind(kindNone)},
	"string":      {holds: isKind(kindString)},
	"boolean":     {holds: isKind(kindBool)},
	"integer":     {holds: isKind(kindInt)},
	"int":         {holds: isKind(kindInt)},
	"float":       {holds: isKind(kindFloat)},
	"number":      {holds: isKind(kindInt, kindFloat)},
	"sequence":    {holds: isKind(kindList)},
	"iterable":    {holds: isKind(kindList, kindMap, kindString, kindNone, kindUndefined)},
	"mapping":     {holds: isKind(kindMap)},
	"true":        {holds: func(_ call, v value) (bool, error) { return v.kind == kindBool && v.num == 1, nil }},
	"false":       {holds: func(_ call, v value) (bool, error) { return v.kind == kindBool && v.num == 0, nil }},
	"odd":         {holds: func(_ call, v value) (bool, error) { return v.integral() && v.num%2 != 0, nil }},
	"even":        {holds: func(_ call, v value) (bool, error) { return v.integral() && v.num%2 == 0, nil }},
	"divisibleby": {arity: arity{1, 1}, holds: divisibleTest},
	"in":          comparing("in"),
	"eq":          comparing("=="),
	"equalto":     comparing("=="),
	"ne":          comparing("!="),
	"lt":          comparing("<"),
	"lessthan":    comparing("<"),
	"le":          comparing("<="),
	"gt":          comparing(">"),
	"greaterthan": comparing(">"),
	"ge":          comparing(">="),

	"startingwith": affixTest(strings.HasPrefix),
	"endingwith":   affixTest(strings.HasSuffix),
}

// integral tells whether a value is an integer or a boolean, which counts as 0
// or 1.
func (v value) integral() bool { return v.kind == kindInt || v.kind == kindBool }

func isKind(kinds ...kind) func(call, value) (bool, error) {
	return func(_ call, v value) (bool, error) {
		for _, k := range kinds {
			if v.kind == k {
				return true, nil
			}
		}
		return false, nil
	}
}

func not(holds func(call, value) (bool, error)) func(call, value) (bool, error) {
	return func(c call, v value) (bool, error) {
		yes, err := holds(c, v)
		return !yes, err
	}
}

// comparing makes a test of an operator: x is gt 3.
func comparing(op string) test {
	return test{arity: arity{1, 1}, holds: func(c call, v value) (bool, error) {
		return c.run.compare(c.at, op, v, c.args[0])
	}}
}

func divisibleTest(c call, v value) (bool, error) {
	n := c.args[0]
	if v.kind != kindInt || n.kind != kindInt {
		return false, c.fail("cannot divide %s by %s", describe(v), describe(n))
	}
	if n.num == 0 {
		return false, c.fail("division by zero")
	}
	return v.num%n.num == 0, nil
}

func affixTest(has func(s, affix string) bool) test {
	return test{arity: arity{1, 1}, holds: func(c call, v value) (bool, error) {
		s, err := c.text(v)
		if err != nil {
			return false, err
		}
		affix, err := c.text(c.args[0])
		return err == nil && has(s, affix), err
	}}
}
