package regex

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// class reads a class in brackets: characters, ranges, escapes, classes in it, and && -- ~~ between.
func (p *parser) class() ([]rune, error) {
	at := p.pos
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf(at, "nested too deeply")
	}
	defer func() { p.depth-- }()
	p.pos++
	negative := p.accept("^")
	var all, part []rune
	operator, begins := "", true
	for {
		p.skipSpace()
		if !p.more() {
			return nil, p.errorf(at, "the class is not closed")
		}
		if p.peek() == ']' && !begins {
			p.pos++
			break
		}
		if next := p.operator(); next != "" && !begins {
			p.pos += 2
			all, part = combine(operator, all, part), nil
			operator = next
			continue
		}
		begins = false
		item, err := p.classItem()
		if err != nil {
			return nil, err
		}
		part = append(part, item...)
		if len(part) > 1<<16 {
			part = union(part)
		}
	}
	all = combine(operator, all, part)
	if p.flags.fold {
		all = fold(all)
	}
	if negative {
		all = negate(all)
	}
	return all, nil
}

// operator is the one between classes that is next, empty if none is.
func (p *parser) operator() string {
	for _, operator := range []string{"&&", "--", "~~"} {
		if strings.HasPrefix(p.src[p.pos:], operator) {
			return operator
		}
	}
	return ""
}

func combine(operator string, a, b []rune) []rune {
	b = union(b)
	switch operator {
	case "&&":
		return intersect(a, b)
	case "--":
		return intersect(a, negate(b))
	case "~~":
		return union(intersect(a, negate(b)), intersect(b, negate(a)))
	}
	return b
}

// classItem reads a range, or what stands for a set by itself.
func (p *parser) classItem() ([]rune, error) {
	at := p.pos
	if p.accept("[:") {
		name, ok := p.until(':')
		if !ok || !p.accept("]") {
			return nil, p.errorf(at, "the name of a class is not closed")
		}
		ranges, err := parseClass("[[:"+name+":]]", 0)
		if err != nil {
			return nil, p.errorf(at, "there is no class [:%s:]", name)
		}
		return ranges, nil
	}
	if p.peek() == '[' {
		return p.class()
	}
	low, set, err := p.classCharacter()
	if err != nil || set != nil {
		return set, err
	}
	rest := p.src[p.pos:]
	if !strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "-]") || strings.HasPrefix(rest, "--") || rest == "-" {
		return []rune{low, low}, nil
	}
	p.pos++
	high, set, err := p.classCharacter()
	switch {
	case err != nil:
		return nil, err
	case set != nil || high < low:
		return nil, p.errorf(at, "this is no range of characters")
	}
	return []rune{low, high}, nil
}

// classCharacter reads one character, or the escape of a set.
func (p *parser) classCharacter() (r rune, set []rune, err error) {
	if p.peek() != '\\' {
		return p.rune(), nil, nil
	}
	at := p.pos
	p.pos++
	if !p.more() {
		return 0, nil, p.errorf(at, "a backslash at the end")
	}
	if p.peek() == 'b' {
		p.pos++
		return '\b', nil, nil
	}
	if set, err := p.setEscape(at); set != nil || err != nil {
		return 0, set, err
	}
	r, err = p.characterEscape(at)
	return r, nil, err
}

// escape reads what begins with a backslash outside a class.
func (p *parser) escape() (*node, error) {
	at := p.pos
	p.pos++
	if !p.more() {
		return nil, p.errorf(at, "a backslash at the end")
	}
	if set, err := p.setEscape(at); set != nil || err != nil {
		return p.set(set), err
	}
	if n, err := p.specialEscape(at); n != nil || err != nil {
		return n, err
	}
	r, err := p.characterEscape(at)
	return p.literal(r), err
}

// setEscape reads \d and the like, nil if it is none.
func (p *parser) setEscape(at int) ([]rune, error) {
	var ranges []rune
	c := p.peek()
	switch c {
	case 'd', 'D':
		ranges = digits()
	case 's', 'S':
		ranges = spaces()
	case 'w', 'W':
		ranges = words()
	case 'h', 'H':
		ranges = hexDigits()
	case 'p', 'P':
		return p.property(at)
	default:
		return nil, nil
	}
	p.pos++
	if unicode.IsUpper(rune(c)) {
		ranges = negate(ranges)
	}
	return ranges, nil
}

// property reads \pL, \p{Greek}, \p{^Greek} and \P.
func (p *parser) property(at int) ([]rune, error) {
	negative := p.peek() == 'P'
	p.pos++
	var name string
	if p.accept("{") {
		var ok bool
		if name, ok = p.until('}'); !ok {
			return nil, p.errorf(at, "the name of a property is not closed")
		}
	} else if p.more() {
		name = string(p.rune())
	}
	if rest, ok := strings.CutPrefix(name, "^"); ok {
		negative, name = !negative, rest
	}
	if _, value, ok := strings.Cut(name, "="); ok { // Script=Greek, gc=Lu
		name = value
	}
	ranges, err := parseClass(`\p{`+name+`}`, 0)
	if err != nil {
		return nil, p.errorf(at, "there is no property %q", name)
	}
	if p.flags.fold {
		ranges = fold(ranges)
	}
	if negative {
		ranges = negate(ranges)
	}
	return ranges, nil
}

// specialEscape reads assertions and references, nil if it is none.
func (p *parser) specialEscape(at int) (*node, error) {
	assertions := map[byte]assertion{
		'A': textStart, 'z': textEnd, 'Z': textEndNewlines, 'b': wordBoundary, 'B': noWordBoundary, '<': wordStart,
		'>': wordEnd, 'G': searchStart,
	}
	c := p.peek()
	if a, ok := assertions[c]; ok {
		p.pos++
		switch {
		case c == 'b' && p.accept("{start}"):
			a = wordStart
		case c == 'b' && p.accept("{end}"):
			a = wordEnd
		}
		return &node{op: opAssert, assert: a}, nil
	}
	switch {
	case c == 'K':
		p.pos++
		return &node{op: opKeep}, nil
	case '1' <= c && c <= '9':
		group, _ := p.number()
		return p.reference(group, "", at), nil
	case p.accept("k<"):
		if name, ok := p.until('>'); ok && isName(name) {
			return p.reference(0, name, at), nil
		}
		return nil, p.errorf(at, "the name of a group is missing")
	}
	return nil, nil
}

// characterEscape reads the escape of one character.
func (p *parser) characterEscape(at int) (rune, error) {
	r := p.rune()
	switch r {
	case 'a':
		return '\a', nil
	case 'e':
		return 0x1B, nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'v':
		return '\v', nil
	case 'x':
		return p.hexadecimal(at, 2)
	case 'u':
		return p.hexadecimal(at, 4)
	case 'U':
		return p.hexadecimal(at, 8)
	}
	if r < utf8.RuneSelf && (isWord(r) && r != '_') {
		return 0, p.errorf(at, `there is no escape \%c`, r)
	}
	return r, nil
}

// hexadecimal reads so many digits, or any number of them in braces.
func (p *parser) hexadecimal(at, digits int) (rune, error) {
	var text string
	if p.accept("{") {
		text, _ = p.until('}')
	} else if p.pos+digits <= len(p.src) {
		text = p.src[p.pos : p.pos+digits]
		p.pos += digits
	}
	n, err := strconv.ParseUint(text, 16, 32)
	if err != nil || n > unicode.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, p.errorf(at, "there is no such character")
	}
	return rune(n), nil
}
