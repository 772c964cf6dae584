package jinja

import (
	"maps"
	"slices"
	"strings"
)

// parser builds the statements of a template from its items, and resolves
// every name.
type parser struct {
	items []item
	known []string
	uses  nameSet // what Template.Names returns
	slots int
	loops int
	scope scope
	depth int
	// conditional counts the open branches of {% if %}: what is set in one may
	// never be set.
	conditional int
}

// scope is what set and for bind. It is copied where a loop begins.
type scope struct {
	bound map[string]binding
	loop  int // state of the innermost loop, plus 1
}

type binding struct {
	slot  int
	sure  bool     // it is bound wherever the name can be used
	names []string // the variables it was made from
}

// tags are the tags that this package knows; the others of Jinja are refused.
var tags = []string{"if", "elif", "else", "endif", "for", "endfor", "set", "raw", "endraw"}

func (p *parser) parse() ([]node, error) {
	p.scope.bound = map[string]binding{}
	nodes, closing, err := p.block()
	if err != nil {
		return nil, err
	}
	if closing != nil {
		return nil, closing.at.errorf("{%% %s %%} without its beginning", closing.tokens[0].text)
	}
	return nodes, nil
}

// block parses statements up to a tag that only its opener can judge (elif,
// else, endif, endfor), which it takes and returns; nil at the end.
func (p *parser) block() ([]node, *item, error) {
	var nodes []node
	for len(p.items) > 0 {
		it := p.items[0]
		p.items = p.items[1:]
		var n node
		var err error
		switch it.kind {
		case itemText:
			n = &textNode{at: it.at, text: it.text}
		case itemOutput:
			n, err = p.output(it)
		case itemTag:
			switch it.tokens[0].text {
			case "elif", "else", "endif", "endfor":
				return nodes, &it, nil
			}
			n, err = p.tag(it)
		}
		if err != nil {
			return nil, nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil, nil
}

func (p *parser) output(it item) (node, error) {
	e, err := p.expression(it.at, it.tokens)
	return &outputNode{e}, err
}

// expression parses tokens that have to be one expression.
func (p *parser) expression(at position, tokens []token) (whole, error) {
	x := &expressions{parser: p, tokens: tokens}
	e, err := x.expression()
	if err == nil {
		err = x.end()
	}
	if err != nil {
		return whole{}, err
	}
	return p.note(at, e, len(tokens))
}

// note makes an expression that of a statement, and remembers its names.
func (p *parser) note(at position, e expr, cost int) (whole, error) {
	names := namesOf(e)
	for _, name := range names {
		p.uses.add(name)
	}
	if len(p.uses.list) > maxNames {
		return whole{}, at.errorf("the template uses more than %d variables", maxNames)
	}
	return whole{at: at, expr: e, names: names, cost: cost}, nil
}

// maxNames bounds the variables of a template: each of its statements may have been made from all of them.
const maxNames = 500

func (p *parser) tag(it item) (node, error) {
	word := it.tokens[0]
	if word.kind == tokenEnd {
		return nil, it.at.errorf("the tag is empty")
	}
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, it.at.errorf("the tags nest too deeply")
	}
	switch {
	case word.kind != tokenName:
		return nil, word.at.errorf("unexpected %q, expected the name of a tag", word.text)
	case word.text == "if":
		return p.ifTag(it)
	case word.text == "for":
		return p.forTag(it)
	case word.text == "set":
		return p.setTag(it)
	case word.text == "raw":
		return nil, word.at.errorf("{%% raw %%} takes no arguments")
	case word.text == "endraw":
		return nil, word.at.errorf("{%% endraw %%} without {%% raw %%}")
	}
	return nil, word.at.errorf("tag %q is not supported%s", word.text, didYouMean(word.text, tags))
}

// alone makes sure that a tag such as endif has no arguments.
func alone(it *item) error {
	if t := it.tokens[1]; t.kind != tokenEnd {
		return t.at.errorf("unexpected %q after %q", t.text, it.tokens[0].text)
	}
	return nil
}

func (p *parser) ifTag(it item) (node, error) {
	n := &ifNode{}
	p.conditional++
	defer func() { p.conditional-- }()
	for at := it; ; {
		condition, err := p.expression(at.at, at.tokens[1:])
		if err != nil {
			return nil, err
		}
		body, closing, err := p.branch(it, "if", "endif")
		if err != nil {
			return nil, err
		}
		n.branches = append(n.branches, branch{whole: condition, body: body})
		switch closing.tokens[0].text {
		case "elif":
			at = *closing
			continue
		case "else":
			if err := alone(closing); err != nil {
				return nil, err
			}
			n.otherwise, closing, err = p.branch(it, "if", "endif")
			if err != nil {
				return nil, err
			}
		}
		return n, p.close(closing, "endif")
	}
}

// branch parses a block that must not end with the template.
func (p *parser) branch(opener item, name, end string) ([]node, *item, error) {
	body, closing, err := p.block()
	if err == nil && closing == nil {
		err = opener.at.errorf("{%% %s %%} without {%% %s %%}", name, end)
	}
	return body, closing, err
}

// close makes sure that a block ends with its own tag.
func (p *parser) close(closing *item, end string) error {
	if word := closing.tokens[0]; word.text != end {
		return word.at.errorf("unexpected %q, expected %q", word.text, end)
	}
	return alone(closing)
}

func (p *parser) forTag(it item) (node, error) {
	x := &expressions{parser: p, tokens: it.tokens[1:]}
	name, err := p.target(x)
	if err != nil {
		return nil, err
	}
	if t := x.current(); t.is(",") {
		return nil, t.at.errorf("more than one variable in {%% for %%} is not supported")
	}
	if err := x.expect("in"); err != nil {
		return nil, err
	}
	e, err := x.or() // as in minijinja, an "if" here is no part of the list
	if err != nil {
		return nil, err
	}
	if t := x.current(); t.is("if") {
		return nil, t.at.errorf("a condition in {%% for %%} is not supported; write {%% if %%} inside")
	}
	if err := x.end(); err != nil {
		return nil, err
	}
	list, err := p.note(it.at, e, len(it.tokens))
	if err != nil {
		return nil, err
	}
	n := &forNode{whole: list, loop: p.loops, slot: p.slots}
	p.loops++
	p.slots++

	outside := p.scope
	p.scope = scope{bound: maps.Clone(outside.bound), loop: n.loop + 1}
	p.scope.bound[name.text] = binding{slot: n.slot, sure: true, names: n.names}
	var closing *item
	n.body, closing, err = p.branch(it, "for", "endfor")
	p.scope = outside
	if err != nil {
		return nil, err
	}
	if closing.tokens[0].text == "else" {
		if err := alone(closing); err != nil {
			return nil, err
		}
		p.conditional++
		n.otherwise, closing, err = p.branch(it, "for", "endfor")
		p.conditional--
		if err != nil {
			return nil, err
		}
	}
	return n, p.close(closing, "endfor")
}

// target parses the name that for or set binds.
func (p *parser) target(x *expressions) (token, error) {
	t := x.current()
	if t.kind != tokenName {
		return t, x.unexpected("the name of a variable")
	}
	switch t.text {
	case "true", "True", "false", "False", "none", "None", "loop", "self",
		"and", "or", "not", "in", "is", "if", "else":
		return t, t.at.errorf("%q is reserved", t.text)
	}
	x.advance()
	return t, nil
}

func (p *parser) setTag(it item) (node, error) {
	x := &expressions{parser: p, tokens: it.tokens[1:]}
	name, err := p.target(x)
	if err != nil {
		return nil, err
	}
	switch t := x.current(); {
	case t.kind == tokenEnd:
		return nil, it.at.errorf("{%% set %%} as a block is not supported")
	case t.is("."), t.is(","):
		return nil, t.at.errorf("{%% set %%} of anything but one variable is not supported")
	}
	if err := x.expect("="); err != nil {
		return nil, err
	}
	// Whether a variable that is set in a loop survives a round is a matter on
	// which implementations differ.
	if p.scope.loop > 0 {
		return nil, it.at.errorf("{%% set %%} inside {%% for %%} is not supported")
	}
	e, err := p.expression(it.at, x.tokens)
	if err != nil {
		return nil, err
	}
	return &setNode{whole: e, slot: p.bind(name.text, e.names)}, nil
}

// bind notes that a variable is set from here on, and returns its slot.
func (p *parser) bind(name string, names []string) int {
	b, again := p.scope.bound[name]
	if !again {
		b.slot = p.slots
		p.slots++
	}
	b.sure = b.sure || p.conditional == 0
	b.names = union(b.names, names)
	p.scope.bound[name] = b
	return b.slot
}

// union returns a and what of b is not in it.
func union(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	var all nameSet
	for _, name := range slices.Concat(a, b) {
		all.add(name)
	}
	return all.list
}

func (p *parser) innermostLoop() (int, bool) { return p.scope.loop - 1, p.scope.loop > 0 }

// resolve finds the variable that a name means.
func (p *parser) resolve(t token) (expr, error) {
	known := slices.Contains(p.known, t.text)
	b, bound := p.scope.bound[t.text]
	switch {
	case bound:
		return &nameExpr{at: t.at, name: t.text, slot: b.slot, outer: known && !b.sure, names: b.names}, nil
	case known:
		return &nameExpr{at: t.at, name: t.text, slot: -1, outer: true}, nil
	}
	candidates := append(slices.Sorted(maps.Keys(p.scope.bound)), p.known...)
	return nil, t.at.errorf("unknown variable %q%s", t.text, didYouMean(t.text, candidates))
}

// leadingText is the text before the first expression or tag.
func leadingText(nodes []node) string {
	var b strings.Builder
	for _, n := range nodes {
		text, ok := n.(*textNode)
		if !ok {
			break
		}
		b.WriteString(text.text)
	}
	return b.String()
}

// onlyText returns the output of a template that is nothing but text, or nil.
func onlyText(nodes []node) []Piece {
	pieces := []Piece{}
	for _, n := range nodes {
		text, ok := n.(*textNode)
		if !ok {
			return nil
		}
		pieces = append(pieces, Piece{Text: text.text, Line: text.at.line, Column: text.at.column})
	}
	return pieces
}
