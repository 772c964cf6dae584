package jinja

import "fmt"

// postfix parses what follows an operand: attributes, subscripts, methods.
func (x *expressions) postfix(e expr) (expr, error) {
	for links := 0; ; links++ {
		t := x.current()
		err := chainLimit(t, links)
		switch {
		case err != nil:
		case x.skip("."):
			e, err = x.attribute(e)
		case x.skip("["):
			e, err = x.subscript(e, t.at)
		case t.is("("):
			err = t.at.errorf("only methods can be called")
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// chainLimit guards against a.b.c… and a|b|c… of a length nobody writes.
func chainLimit(t token, links int) error {
	if links > maxDepth {
		return t.at.errorf("the expression is too long")
	}
	return nil
}

func (x *expressions) attribute(base expr) (expr, error) {
	name := x.current()
	if name.kind != tokenName {
		if name.kind == tokenInt {
			return nil, name.at.errorf("a number after \".\" is not supported; write [%s]", name.text)
		}
		return nil, x.unexpected("a name")
	}
	x.advance()
	if !x.skip("(") {
		return &attrExpr{at: name.at, base: base, name: name.text}, nil
	}
	m, ok := methods[name.text]
	if !ok {
		return nil, name.at.errorf("method %q is not supported%s", name.text, didYouMean(name.text, keys(methods)))
	}
	args, err := x.list(")")
	if err != nil {
		return nil, err
	}
	if err := m.checkArity(name, "method", len(args)); err != nil {
		return nil, err
	}
	return &callExpr{at: name.at, base: base, name: name.text, method: m, args: args}, nil
}

func (x *expressions) subscript(base expr, at position) (expr, error) {
	var start, stop expr
	var err error
	if !x.current().is(":") {
		if start, err = x.expression(); err != nil {
			return nil, err
		}
	}
	if !x.skip(":") {
		return &indexExpr{at: at, base: base, key: start}, x.expect("]")
	}
	if t := x.current(); !t.is("]") && !t.is(":") {
		if stop, err = x.expression(); err != nil {
			return nil, err
		}
	}
	if t := x.current(); t.is(":") {
		return nil, t.at.errorf("a slice with a step is not supported")
	}
	return &sliceExpr{at: at, base: base, start: start, stop: stop}, x.expect("]")
}

// filters parses the filters and tests after an operand.
func (x *expressions) filters(e expr) (expr, error) {
	for links := 0; ; links++ {
		err := chainLimit(x.current(), links)
		switch {
		case err != nil:
		case x.skip("|"):
			e, err = x.filter(e)
		case x.skip("is"):
			e, err = x.test(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (x *expressions) filter(base expr) (expr, error) {
	name := x.current()
	if name.kind != tokenName {
		return nil, x.unexpected("the name of a filter")
	}
	f, ok := filters[name.text]
	if !ok {
		return nil, name.at.errorf("filter %q is not supported%s", name.text, didYouMean(name.text, keys(filters)))
	}
	x.advance()
	var args []expr
	if x.skip("(") {
		var err error
		if args, err = x.list(")"); err != nil {
			return nil, err
		}
	}
	if err := f.checkArity(name, "filter", len(args)); err != nil {
		return nil, err
	}
	return &filterExpr{at: name.at, base: base, filter: f, args: args}, nil
}

func (x *expressions) test(base expr) (expr, error) {
	negated := x.skip("not")
	name := x.current()
	if name.kind != tokenName {
		return nil, x.unexpected("the name of a test")
	}
	t, ok := tests[name.text]
	if !ok {
		return nil, name.at.errorf("test %q is not supported%s", name.text, didYouMean(name.text, keys(tests)))
	}
	x.advance()
	args, err := x.testArguments(t)
	if err != nil {
		return nil, err
	}
	if err := t.checkArity(name, "test", len(args)); err != nil {
		return nil, err
	}
	var e expr = &testExpr{at: name.at, base: base, test: t, args: args}
	if negated {
		e = &notExpr{base: e}
	}
	return e, nil
}

// testArguments parses (arguments), or one argument without parentheses for a
// test that takes one: x is divisibleby 2.
func (x *expressions) testArguments(t test) ([]expr, error) {
	if x.current().is("(") && (t.max > 0 || x.tokens[1].is(")")) {
		x.advance()
		return x.list(")")
	}
	if t.min == 0 {
		return nil, nil
	}
	if x.current().is("-") {
		e, err := x.negation()
		return []expr{e}, err
	}
	e, err := x.primary()
	if err != nil {
		return nil, err
	}
	e, err = x.postfix(e)
	return []expr{e}, err
}

// arity is how many arguments a filter, test or method takes.
type arity struct{ min, max int }

func (a arity) checkArity(name token, what string, n int) error {
	if a.min <= n && n <= a.max {
		return nil
	}
	takes := fmt.Sprintf("%d", a.min)
	if a.max > a.min {
		takes = fmt.Sprintf("%d to %d", a.min, a.max)
	}
	return name.at.errorf("%s %q takes %s arguments, not %d", what, name.text, takes, n)
}
