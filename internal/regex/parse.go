package regex

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of an expression.
const (
	maxSource = 64 << 10
	maxDepth  = 250
	maxSize   = 100_000
	maxRepeat = 100_000
	// maxRanges bounds the sets of characters, by the first and last ones of their ranges.
	maxRanges = 1 << 20
	// maxBehind is how many characters a look-behind may be wide.
	maxBehind = 255
)

type flags struct{ fold, multiline, dotAll, swap, extended bool }

type parser struct {
	src   string
	pos   int
	depth int
	flags flags
	// names are those of the groups by number; 0 is the whole match.
	names  []string
	ranges int // of all sets so far
	// refs are the groups that are referred to.
	refs []*reference
}

// reference is a use of a group that may only be opened later on.
type reference struct {
	node *node
	name string
	at   int
}

func parse(src string) (*node, []string, error) {
	if len(src) > maxSource {
		return nil, nil, fmt.Errorf("the expression is longer than %d bytes", maxSource)
	}
	if !utf8.ValidString(src) {
		return nil, nil, fmt.Errorf("the expression is not UTF-8")
	}
	p := &parser{src: src, names: []string{""}}
	n, err := p.alternatives()
	if err == nil && p.pos < len(src) {
		err = p.errorf(p.pos, "unexpected )")
	}
	if err == nil {
		err = p.resolve()
	}
	if err == nil && n.size() > maxSize {
		err = fmt.Errorf("the expression is too large")
	}
	return n, p.names, err
}

func (p *parser) errorf(at int, format string, args ...any) error {
	return fmt.Errorf("at byte %d: %s", at+1, fmt.Sprintf(format, args...))
}

// resolve finds the groups that references mean.
func (p *parser) resolve() error {
	for _, ref := range p.refs {
		if ref.name != "" {
			ref.node.group = groupNamed(p.names, ref.name)
		}
		if ref.node.group <= 0 || ref.node.group >= len(p.names) {
			return p.errorf(ref.at, "there is no such group")
		}
	}
	return nil
}

// groupNamed is the number of a group, 0 if there is none of that name.
func groupNamed(names []string, name string) int {
	for i, n := range names {
		if n == name && i > 0 {
			return i
		}
	}
	return 0
}

func (p *parser) more() bool { return p.pos < len(p.src) }

func (p *parser) peek() byte {
	if p.more() {
		return p.src[p.pos]
	}
	return 0
}

func (p *parser) rune() rune {
	r, size := utf8.DecodeRuneInString(p.src[p.pos:])
	p.pos += size
	return r
}

// accept reads the text if it is next.
func (p *parser) accept(text string) bool {
	if strings.HasPrefix(p.src[p.pos:], text) {
		p.pos += len(text)
		return true
	}
	return false
}

// skipSpace skips what the flag x makes meaningless.
func (p *parser) skipSpace() {
	for p.flags.extended && p.more() {
		r, size := utf8.DecodeRuneInString(p.src[p.pos:])
		switch {
		case r == '#':
			end := strings.IndexByte(p.src[p.pos:], '\n')
			if end < 0 {
				end = len(p.src) - p.pos
			}
			p.pos += end
		case unicode.IsSpace(r):
			p.pos += size
		default:
			return
		}
	}
}

func (p *parser) alternatives() (*node, error) {
	var subs []*node
	for {
		sub, err := p.sequence()
		if err != nil {
			return nil, err
		}
		subs = append(subs, sub)
		if !p.accept("|") {
			break
		}
	}
	if len(subs) == 1 {
		return subs[0], nil
	}
	return &node{op: opAlt, subs: subs}, nil
}

func (p *parser) sequence() (*node, error) {
	var subs []*node
	for {
		p.skipSpace()
		if !p.more() || p.peek() == '|' || p.peek() == ')' {
			break
		}
		sub, err := p.atom()
		if p.ranges > maxRanges {
			err = fmt.Errorf("the expression is too large")
		}
		if err == nil {
			sub, err = p.quantifiers(sub)
		}
		if err != nil {
			return nil, err
		}
		subs = append(subs, sub)
	}
	switch len(subs) {
	case 0:
		return &node{op: opEmpty}, nil
	case 1:
		return subs[0], nil
	}
	return &node{op: opCat, subs: subs}, nil
}

func (p *parser) atom() (*node, error) {
	at := p.pos
	switch p.peek() {
	case '(':
		return p.group()
	case '[':
		ranges, err := p.class()
		return p.set(ranges), err
	case '\\':
		return p.escape()
	case '*', '+', '?':
		return nil, p.errorf(at, "there is nothing to repeat")
	case '.':
		p.pos++
		if p.flags.dotAll {
			return p.set([]rune{0, unicode.MaxRune}), nil
		}
		return p.set(notLF()), nil
	case '^':
		p.pos++
		return p.either(lineStart, textStart), nil
	case '$':
		p.pos++
		return p.either(lineEnd, textEnd), nil
	}
	return p.literal(p.rune()), nil
}

func (p *parser) either(multiline, single assertion) *node {
	if p.flags.multiline {
		return &node{op: opAssert, assert: multiline}
	}
	return &node{op: opAssert, assert: single}
}

func (p *parser) literal(r rune) *node {
	ranges := []rune{r, r}
	if p.flags.fold {
		ranges = orbit(r)
	}
	return p.set(ranges)
}

func (p *parser) set(ranges []rune) *node {
	p.ranges += len(ranges)
	return &node{op: opSet, set: newCharset(ranges)}
}

func (p *parser) quantifiers(n *node) (*node, error) {
	for wraps := 0; ; wraps++ {
		p.skipSpace()
		at := p.pos
		low, high, ok := p.quantifier()
		if !ok {
			return n, nil
		}
		switch {
		case high >= 0 && low > high:
			return nil, p.errorf(at, "the repetition counts down")
		case low > maxRepeat || high > maxRepeat:
			return nil, p.errorf(at, "more than %d repetitions", maxRepeat)
		case wraps+p.depth > maxDepth:
			return nil, p.errorf(at, "nested too deeply")
		}
		n = &node{op: opRepeat, subs: []*node{n}, min: low, max: high, lazy: p.flags.swap}
		if p.accept("?") {
			n.lazy = !n.lazy
		} else if p.accept("+") {
			n = &node{op: opAtomic, subs: []*node{n}}
		}
	}
}

// quantifier reads *, +, ?, {n}, {n,}, {n,m} or {,m}; other braces are characters.
func (p *parser) quantifier() (low, high int, ok bool) {
	switch {
	case p.accept("*"):
		return 0, -1, true
	case p.accept("+"):
		return 1, -1, true
	case p.accept("?"):
		return 0, 1, true
	}
	start := p.pos
	if p.accept("{") {
		low, some := p.number()
		high = low
		if p.accept(",") {
			var limited bool
			if high, limited = p.number(); !limited {
				high = -1
			}
			some = some || limited
		}
		if some && p.accept("}") {
			return low, high, true
		}
	}
	p.pos = start
	return 0, 0, false
}

// number reads decimal digits; large numbers are all the same.
func (p *parser) number() (n int, ok bool) {
	for p.more() && '0' <= p.peek() && p.peek() <= '9' {
		n = min(n*10+int(p.peek()-'0'), maxRepeat+1)
		p.pos++
		ok = true
	}
	return n, ok
}
