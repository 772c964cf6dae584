package jinja

import "slices"

// maxDepth bounds how deep expressions and blocks may nest.
const maxDepth = 100

// expressions parses the tokens of one expression or tag, by precedence from
// the loosest to the tightest: if-else, or, and, not, comparisons, + and -, ~,
// * / // and %, minus sign, then filters and tests.
type expressions struct {
	parser *parser
	tokens []token // the last is tokenEnd
	depth  int
}

func (x *expressions) current() token { return x.tokens[0] }

func (x *expressions) advance() token {
	t := x.tokens[0]
	if t.kind != tokenEnd {
		x.tokens = x.tokens[1:]
	}
	return t
}

// skip advances over the operator or word text and tells whether it was there.
func (x *expressions) skip(text string) bool {
	if x.current().kind == tokenString || !x.current().is(text) {
		return false
	}
	x.advance()
	return true
}

func (x *expressions) expect(text string) error {
	if !x.skip(text) {
		return x.unexpected("%q", text)
	}
	return nil
}

// end makes sure that nothing follows.
func (x *expressions) end() error {
	if t := x.current(); t.kind != tokenEnd {
		return x.trailing(t)
	}
	return nil
}

// trailing explains what stands where the expression should have ended, with a
// hint where it would have been right in another dialect.
func (x *expressions) trailing(t token) error {
	switch {
	case t.is(":"):
		return t.at.errorf("unexpected \":\"; arguments stand in parentheses, as in default('x')")
	case t.is("["), t.is("."):
		return t.at.errorf("unexpected %q after a filter or test; put what stands before it in parentheses", t.text)
	case t.is("="):
		return t.at.errorf("unexpected \"=\"; a comparison is written \"==\"")
	}
	return x.unexpected("%q", x.tokens[len(x.tokens)-1].text)
}

func (x *expressions) unexpected(format string, args ...any) error {
	t := x.current()
	expected := position{}.errorf(format, args...).Reason
	switch t.kind {
	case tokenString:
		return t.at.errorf("unexpected string, expected %s", expected)
	default:
		return t.at.errorf("unexpected %q, expected %s", t.text, expected)
	}
}

// enter guards against nesting that would exhaust the stack.
func (x *expressions) enter() error {
	x.depth++
	if x.depth > maxDepth {
		return x.current().at.errorf("the expression nests too deeply")
	}
	return nil
}

func (x *expressions) leave() { x.depth-- }

// expression parses a whole expression: a if c else b, or less.
func (x *expressions) expression() (expr, error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	defer x.leave()
	e, err := x.or()
	if err != nil {
		return nil, err
	}
	for x.skip("if") {
		choose := &chooseExpr{yes: e}
		if choose.condition, err = x.or(); err != nil {
			return nil, err
		}
		if x.skip("else") {
			if choose.no, err = x.expression(); err != nil {
				return nil, err
			}
		}
		e = choose
	}
	return e, nil
}

func (x *expressions) or() (expr, error) {
	left, err := x.and()
	for err == nil && x.skip("or") {
		var right expr
		right, err = x.and()
		left = &logicExpr{or: true, left: left, right: right}
	}
	return left, err
}

func (x *expressions) and() (expr, error) {
	left, err := x.not()
	for err == nil && x.skip("and") {
		var right expr
		right, err = x.not()
		left = &logicExpr{left: left, right: right}
	}
	return left, err
}

func (x *expressions) not() (expr, error) {
	if !x.skip("not") {
		return x.compare()
	}
	if err := x.enter(); err != nil {
		return nil, err
	}
	defer x.leave()
	e, err := x.not()
	return &notExpr{base: e}, err
}

// comparison reads a comparing operator, or returns "".
func (x *expressions) comparison() (token, error) {
	t := x.current()
	switch {
	case t.kind == tokenOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.text):
		x.advance()
	case t.is("in"):
		x.advance()
	case t.is("not"):
		x.advance()
		if err := x.expect("in"); err != nil {
			return token{}, err
		}
		t.text = "not in"
	default:
		return token{}, nil
	}
	return t, nil
}

func (x *expressions) compare() (expr, error) {
	left, err := x.sum()
	if err != nil {
		return nil, err
	}
	t, err := x.comparison()
	if err != nil || t.kind == tokenNothing {
		return left, err
	}
	right, err := x.sum()
	if err != nil {
		return nil, err
	}
	// a < b < c has changed its meaning between versions of minijinja.
	if next, err := x.comparison(); err != nil || next.kind != tokenNothing {
		if err == nil {
			err = next.at.errorf("comparisons in a chain are not supported; write a < b and b < c")
		}
		return nil, err
	}
	return &compareExpr{at: t.at, op: t.text, left: left, right: right}, nil
}

// infix parses left-associative operators between operands of the next level.
func (x *expressions) infix(operand func() (expr, error), ops ...string) (expr, error) {
	left, err := operand()
	for err == nil && x.current().kind == tokenOp && slices.Contains(ops, x.current().text) {
		t := x.advance()
		var right expr
		right, err = operand()
		left = &mathExpr{at: t.at, op: t.text, left: left, right: right}
	}
	return left, err
}

func (x *expressions) sum() (expr, error)     { return x.infix(x.concat, "+", "-") }
func (x *expressions) concat() (expr, error)  { return x.infix(x.product, "~") }
func (x *expressions) product() (expr, error) { return x.infix(x.unary, "*", "/", "//", "%") }

// unary parses an operand with its sign, subscripts, filters and tests.
func (x *expressions) unary() (expr, error) {
	var e expr
	var err error
	if x.current().is("-") {
		e, err = x.negation()
	} else if e, err = x.primary(); err == nil {
		e, err = x.postfix(e)
	}
	if err != nil {
		return nil, err
	}
	return x.filters(e)
}

// negation parses a minus sign and its operand. The sign binds more tightly
// than a subscript, which surprises, so that the two together are refused.
func (x *expressions) negation() (expr, error) {
	minus := x.advance()
	e, err := x.primary()
	if err != nil {
		return nil, err
	}
	if t := x.current(); t.kind == tokenOp && (t.text == "." || t.text == "[") {
		return nil, minus.at.errorf("put what the minus sign stands for in parentheses")
	}
	if literal, ok := e.(*literalExpr); ok {
		switch literal.value.kind {
		case kindInt:
			return &literalExpr{intValue(-literal.value.num)}, nil
		case kindFloat:
			return &literalExpr{floatValue(-literal.value.float())}, nil
		}
	}
	return &negateExpr{at: minus.at, base: e}, nil
}

func (x *expressions) primary() (expr, error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	defer x.leave()
	t := x.current()
	switch t.kind {
	case tokenName:
		return x.name()
	case tokenString:
		x.advance()
		text := t.text
		for x.current().kind == tokenString { // 'a' 'b' is 'ab'
			text += x.advance().text
		}
		return &literalExpr{stringValue(text)}, nil
	case tokenInt:
		x.advance()
		return &literalExpr{intValue(t.num)}, nil
	case tokenFloat:
		x.advance()
		return &literalExpr{floatValue(t.flt)}, nil
	}
	switch {
	case x.skip("("):
		return x.parenthesis()
	case x.skip("["):
		items, err := x.list("]")
		return &listExpr{items: items}, err
	case x.skip("{"):
		return x.mapping()
	}
	return nil, x.unexpected("an expression")
}

// name parses a word that stands where a value is expected.
func (x *expressions) name() (expr, error) {
	t := x.current()
	switch t.text {
	case "true", "True":
		x.advance()
		return &literalExpr{boolValue(true)}, nil
	case "false", "False":
		x.advance()
		return &literalExpr{boolValue(false)}, nil
	case "none", "None":
		x.advance()
		return &literalExpr{value{kind: kindNone}}, nil
	case "and", "or", "not", "in", "is", "if", "else":
		return nil, x.unexpected("an expression")
	}
	x.advance()
	if x.current().is("(") {
		return nil, t.at.errorf("function %q is not supported", t.text)
	}
	if t.text == "loop" {
		return x.loop(t)
	}
	return x.parser.resolve(t)
}

// loopFields are what {% for %} tells about itself.
var loopFields = []string{"index", "index0", "revindex", "revindex0", "first", "last", "length"}

func (x *expressions) loop(t token) (expr, error) {
	loop, ok := x.parser.innermostLoop()
	if !ok {
		return nil, t.at.errorf("\"loop\" stands outside {%% for %%}")
	}
	if err := x.expect("."); err != nil {
		return nil, err
	}
	field := x.current()
	if field.kind != tokenName {
		return nil, x.unexpected("a name")
	}
	if !slices.Contains(loopFields, field.text) {
		return nil, field.at.errorf("\"loop.%s\" is not supported%s", field.text, didYouMean(field.text, loopFields))
	}
	x.advance()
	return &loopExpr{loop: loop, field: field.text}, nil
}

// parenthesis parses (e), or (a, b), which is a list.
func (x *expressions) parenthesis() (expr, error) {
	if x.skip(")") {
		return &listExpr{}, nil
	}
	e, err := x.expression()
	if err != nil || x.skip(")") {
		return e, err
	}
	if !x.skip(",") {
		return nil, x.unexpected("\")\"")
	}
	items, err := x.list(")")
	return &listExpr{items: append([]expr{e}, items...)}, err
}

// list parses expressions and commas up to the closing bracket.
func (x *expressions) list(closer string) ([]expr, error) {
	var items []expr
	for !x.skip(closer) {
		if x.current().is("*") {
			return nil, x.current().at.errorf("\"*\" before an argument is not supported")
		}
		if t := x.current(); t.kind == tokenName && x.tokens[1].is("=") {
			return nil, t.at.errorf("argument %q: arguments with names are not supported", t.text)
		}
		e, err := x.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, e)
		if !x.skip(",") && !x.current().is(closer) {
			return nil, x.unexpected("\",\" or %q", closer)
		}
	}
	return items, nil
}

func (x *expressions) mapping() (expr, error) {
	m := &mapExpr{}
	for !x.skip("}") {
		key := x.current()
		if key.kind != tokenString {
			return nil, key.at.errorf("a key in a map has to be a string literal")
		}
		x.advance()
		if err := x.expect(":"); err != nil {
			return nil, err
		}
		e, err := x.expression()
		if err != nil {
			return nil, err
		}
		m.keys, m.values = append(m.keys, key.text), append(m.values, e)
		if !x.skip(",") && !x.current().is("}") {
			return nil, x.unexpected("\",\" or \"}\"")
		}
	}
	return m, nil
}
