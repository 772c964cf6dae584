package jinja

import (
	"strings"
	"unicode"
)

// call is one call of a filter, test or method.
type call struct {
	run  *run
	at   position
	args []value
}

func (c call) fail(format string, args ...any) error { return c.run.fail(c.at, format, args...) }

// noNumber is the error of a text that is none, or none that fits.
func (c call) noNumber(reason string) error {
	return &RuntimeError{Line: c.at.line, Column: c.at.column, Content: true, Reason: reason}
}

// has tells whether an optional argument was given and is not none.
func (c call) has(n int) bool { return n < len(c.args) && c.args[n].kind != kindNone }

// text returns a value as text and accounts for its length.
func (c call) text(v value) (string, error) {
	s, err := c.run.text(c.at, v)
	if err != nil {
		return "", err
	}
	return s, c.run.spend(c.at, len(s))
}

// str returns an argument that has to be a string.
func (c call) str(n int) (string, error) {
	if c.args[n].kind != kindString {
		return "", c.fail("the argument has to be a string, not %s", describe(c.args[n]))
	}
	return c.args[n].str, nil
}

// whole returns an argument that has to be a whole number.
func (c call) whole(n int) (int, error) {
	i, ok := wholeNumber(c.args[n])
	if !ok {
		return 0, c.fail("the argument has to be a whole number, not %s", describe(c.args[n]))
	}
	return i, nil
}

// hollow tells whether the operand or an argument stands for an absent value.
func (c call) hollow(v value) bool {
	for _, arg := range c.args {
		if arg.leaves() {
			return true
		}
	}
	return v.leaves()
}

// replaced replaces the first count occurrences, all if count is negative.
func (c call) replaced(s, old, by string, count int) (string, error) {
	n := strings.Count(s, old)
	if count >= 0 {
		n = min(n, count)
	}
	if err := c.run.spend(c.at, len(s)+n*len(by)); err != nil {
		return "", err
	}
	return strings.Replace(s, old, by, count), nil
}

// parts splits s at sep, or at white space without one, into at most limit+1
// parts; a negative limit is none.
func (c call) parts(v value, s string) (value, error) {
	limit := -1
	if c.has(1) {
		n, err := c.whole(1)
		if err != nil {
			return value{}, err
		}
		limit = min(n, len(s))
	}
	if err := c.run.spend(c.at, len(s)); err != nil {
		return value{}, err
	}
	if !c.has(0) {
		return stringList(fields(s, limit), v.leaves()), nil
	}
	sep, err := c.str(0)
	if err != nil {
		return value{}, err
	}
	if sep == "" {
		return value{}, c.fail("cannot split by an empty string")
	}
	if limit < 0 {
		return stringList(strings.Split(s, sep), c.hollow(v)), nil
	}
	return stringList(strings.SplitN(s, sep, limit+1), c.hollow(v)), nil
}

// fields splits at white space; what is left after limit parts stays whole.
func fields(s string, limit int) []string {
	if limit < 0 {
		return strings.Fields(s)
	}
	var parts []string
	for s = trimLeft(s); s != ""; s = trimLeft(s) {
		if len(parts) == limit {
			return append(parts, s)
		}
		end := strings.IndexFunc(s, unicode.IsSpace)
		if end < 0 {
			end = len(s)
		}
		parts = append(parts, s[:end])
		s = s[end:]
	}
	return parts
}
