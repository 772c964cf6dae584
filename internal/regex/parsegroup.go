package regex

import "strings"

// group reads what begins with a bracket.
func (p *parser) group() (*node, error) {
	at := p.pos
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf(at, "nested too deeply")
	}
	defer func() { p.depth-- }()
	outer := p.flags
	n, err := p.opening(at)
	if err != nil {
		return nil, err
	}
	if n == nil { // flags for the rest of the group that we are in, or a comment
		return &node{op: opEmpty}, nil
	}
	if n.op == opBackref {
		return n, nil
	}
	sub, err := p.alternatives()
	if err != nil {
		return nil, err
	}
	if !p.accept(")") {
		return nil, p.errorf(at, "the group is not closed")
	}
	p.flags = outer
	n.subs = []*node{sub}
	if low, high := sub.width(); n.behind && high > maxBehind {
		return nil, p.errorf(at, "a look-behind of %d to more than %d characters", low, maxBehind)
	}
	return n, nil
}

// opening reads up to the first thing in the group; the node is nil if there can be none.
func (p *parser) opening(at int) (*node, error) {
	p.pos++
	switch {
	case !p.accept("?"):
		return p.capture("", at)
	case p.accept("="):
		return &node{op: opLook}, nil
	case p.accept("!"):
		return &node{op: opLook, negative: true}, nil
	case p.accept("<="):
		return &node{op: opLook, behind: true}, nil
	case p.accept("<!"):
		return &node{op: opLook, behind: true, negative: true}, nil
	case p.accept(">"):
		return &node{op: opAtomic}, nil
	case p.accept("#"):
		end := strings.IndexByte(p.src[p.pos:], ')')
		if end < 0 {
			return nil, p.errorf(at, "the comment is not closed")
		}
		p.pos += end + 1
		return nil, nil
	case p.accept("P="):
		return p.namedReference(at)
	case p.accept("P<"), p.accept("<"):
		name, ok := p.until('>')
		if !ok || !isName(name) {
			return nil, p.errorf(at, "the name of a group is letters, digits and underscores, and no digit first")
		}
		return p.capture(name, at)
	}
	return p.flagGroup(at)
}

func (p *parser) capture(name string, at int) (*node, error) {
	if name != "" && groupNamed(p.names, name) > 0 {
		return nil, p.errorf(at, "two groups of the name %q", name)
	}
	p.names = append(p.names, name)
	return &node{op: opGroup, group: len(p.names) - 1}, nil
}

// namedReference is (?P=name), to its end.
func (p *parser) namedReference(at int) (*node, error) {
	name, ok := p.until(')')
	if !ok || !isName(name) {
		return nil, p.errorf(at, "the name of a group is missing")
	}
	return p.reference(0, name, at), nil
}

func (p *parser) reference(group int, name string, at int) *node {
	n := &node{op: opBackref, group: group, fold: p.flags.fold}
	p.refs = append(p.refs, &reference{n, name, at})
	return n
}

// until reads up to the character, and the character.
func (p *parser) until(end byte) (text string, ok bool) {
	n := strings.IndexByte(p.src[p.pos:], end)
	if n < 0 {
		return "", false
	}
	text = p.src[p.pos : p.pos+n]
	p.pos += n + 1
	return text, true
}

func isName(name string) bool {
	if name == "" || '0' <= name[0] && name[0] <= '9' || len(name) > 255 {
		return false
	}
	for _, r := range name {
		if !isWord(r) {
			return false
		}
	}
	return true
}

// flagGroup reads (?flags) and (?flags:...).
func (p *parser) flagGroup(at int) (*node, error) {
	on := true
	for p.more() {
		c := p.peek()
		p.pos++
		switch c {
		case 'i':
			p.flags.fold = on
		case 'm':
			p.flags.multiline = on
		case 's':
			p.flags.dotAll = on
		case 'U':
			p.flags.swap = on
		case 'x':
			p.flags.extended = on
		case 'u':
			if !on {
				return nil, p.errorf(at, "the flag -u is not available")
			}
		case '-':
			if !on {
				return nil, p.errorf(at, "one - too many")
			}
			on = false
		case ')':
			return nil, nil
		case ':':
			return &node{op: opCat}, nil
		default:
			return nil, p.errorf(at, "a group of the kind (?%c is not available", c)
		}
	}
	return nil, p.errorf(at, "the group is not closed")
}
