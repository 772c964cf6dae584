package luapattern

import (
	"fmt"
	"strings"
)

// What Lua's own library allows in one pattern.
const (
	maxCaptures = 32
	maxDepth    = 200
)

// op is what an item asks of the subject.
type op uint8

const (
	opByte     op = iota // the byte a
	opAny                // any byte
	opSet                // a byte of the set
	opBalance            // %bab
	opFrontier           // %f[set]
	opOpen               // the capture begins
	opClose              // the capture ends
	opPosition           // ()
	opBack               // %1: what the capture holds, once more
	opNever              // nothing: %1 of a position
	opEnd                // $
	opMatch              // the end of the pattern
	opError              // where the pattern is wrong
)

// item is one step of a pattern.
type item struct {
	op     op
	repeat byte // '*', '+', '-', '?', or 0; of opByte, opAny and opSet
	a, b   byte
	// ahead is the byte that must come right after the item for the match to go on, -1 if that is not
	// so simple.
	ahead int16
	// ref is the index of a set or a capture.
	ref int32
}

// Pattern is a compiled pattern. What an ordinary one needs is in it, so that it can live and die on the
// stack.
type Pattern struct {
	text     string
	anchored bool
	literal  bool // the pattern is its own only match

	count int // of all items
	few   [16]item
	more  []item

	setCount int
	fewSets  [4]set
	moreSets []set

	captures     [maxCaptures]captureKind
	captureCount int
	repeats      int    // items that the matcher may have to come back to
	failure      string // what an opError, of which there is at most one, means
}

type captureKind uint8

const (
	kindOpen captureKind = iota
	kindClosed
	kindPosition
)

// Compile compiles a pattern into p, which must be new. With anchors a "^" in front binds it to where
// matching begins; without, as Lua's gmatch has it, it is a byte as any other. A wrong pattern compiles,
// and is an error where a match comes to what is wrong.
func (p *Pattern) Compile(text string, anchors bool) {
	p.text = text
	if Literal(text) && strings.IndexByte(text, ')') < 0 {
		p.literal = true
		return
	}
	at := 0
	if anchors && text != "" && text[0] == '^' {
		p.anchored, at = true, 1
	}
	for at < len(text) {
		next, ok := p.compileItem(at)
		if !ok {
			p.look()
			return
		}
		at = next
	}
	if p.unfinished() {
		p.fail("unfinished capture")
	} else {
		p.add(item{op: opMatch})
	}
	p.look()
}

// Literal reports whether a text has none of the bytes that mean something in a pattern, as string.find
// sees it: there ")" alone is a byte as any other.
func Literal(text string) bool {
	for i := range len(text) {
		if special.has(text[i]) {
			return false
		}
	}
	return true
}

// Captures is how many captures the pattern has.
func (p *Pattern) Captures() int { return p.captureCount }

func (p *Pattern) unfinished() bool {
	for _, kind := range p.captures[:p.captureCount] {
		if kind == kindOpen {
			return true
		}
	}
	return false
}

func (p *Pattern) add(it item) {
	if p.count < len(p.few) {
		p.few[p.count] = it
	} else {
		p.more = append(p.more, it)
	}
	p.count++
}

func (p *Pattern) item(i int) *item {
	if i < len(p.few) {
		return &p.few[i]
	}
	return &p.more[i-len(p.few)]
}

func (p *Pattern) addSet(op op, s *set) item {
	if p.setCount < len(p.fewSets) {
		p.fewSets[p.setCount] = *s
	} else {
		p.moreSets = append(p.moreSets, *s)
	}
	p.setCount++
	return item{op: op, ref: int32(p.setCount - 1)}
}

func (p *Pattern) set(it *item) *set {
	if i := int(it.ref); i < len(p.fewSets) {
		return &p.fewSets[i]
	}
	return &p.moreSets[int(it.ref)-len(p.fewSets)]
}

// fail ends the pattern with an error for the match that comes this far.
func (p *Pattern) fail(reason string) bool {
	p.add(item{op: opError})
	p.failure = reason
	return false
}

// compileItem compiles what begins at one position and says where the next begins; ok is false if the
// pattern is wrong there.
func (p *Pattern) compileItem(at int) (next int, ok bool) {
	switch c := p.text[at]; c {
	case '(':
		return p.open(at)
	case ')':
		return at + 1, p.close()
	case '$':
		if at == len(p.text)-1 {
			p.add(item{op: opEnd})
			return at + 1, true
		}
	case '%':
		if at+1 == len(p.text) {
			return 0, p.fail("malformed pattern (ends with '%')")
		}
		switch c := p.text[at+1]; {
		case c == 'b':
			return p.balance(at + 2)
		case c == 'f':
			return p.frontier(at + 2)
		case '0' <= c && c <= '9':
			return at + 2, p.back(c)
		}
	}
	it, next, ok := p.single(at)
	if !ok {
		return 0, false
	}
	if next < len(p.text) && strings.IndexByte("*+-?", p.text[next]) >= 0 {
		it.repeat = p.text[next]
		next++
		if p.repeats++; p.repeats == maxDepth {
			return 0, p.fail("pattern too complex")
		}
	}
	p.add(it)
	return next, true
}

// single reads an item of one byte: a byte, a dot, a class, a set.
func (p *Pattern) single(at int) (it item, next int, ok bool) {
	switch c := p.text[at]; c {
	case '.':
		return item{op: opAny}, at + 1, true
	case '%':
		letter := p.text[at+1]
		if s, ok := class(letter); ok {
			return p.addSet(opSet, &s), at + 2, true
		}
		return item{op: opByte, a: letter}, at + 2, true
	case '[':
		s, next, ok := p.readSet(at)
		if !ok {
			return it, 0, false
		}
		return p.addSet(opSet, &s), next, true
	default:
		return item{op: opByte, a: c}, at + 1, true
	}
}

// readSet reads a set in brackets. Its end is looked for first: "]" as the first byte is one of the set, and
// what follows a "%" is too.
func (p *Pattern) readSet(at int) (s set, next int, ok bool) {
	first := at + 1
	inverted := first < len(p.text) && p.text[first] == '^'
	if inverted {
		first++
	}
	end := first
	for {
		if end < len(p.text) && p.text[end] == '%' {
			end++
		}
		end++
		if end >= len(p.text) {
			return s, 0, p.fail("malformed pattern (missing ']')")
		}
		if p.text[end] == ']' {
			break
		}
	}
	for i := first; i < end; i++ {
		switch c := p.text[i]; {
		case c == '%' && i+1 < end:
			i++
			if named, ok := class(p.text[i]); ok {
				s.addAll(&named)
			} else {
				s.add(p.text[i])
			}
		case i+2 < end && p.text[i+1] == '-':
			s.addRange(c, p.text[i+2])
			i += 2
		default:
			s.add(c)
		}
	}
	if inverted {
		s.invert()
	}
	return s, end + 1, true
}

func (p *Pattern) balance(at int) (next int, ok bool) {
	if at+1 >= len(p.text) {
		return 0, p.fail("malformed pattern (missing arguments to '%b')")
	}
	p.add(item{op: opBalance, a: p.text[at], b: p.text[at+1]})
	return at + 2, true
}

func (p *Pattern) frontier(at int) (next int, ok bool) {
	if at == len(p.text) || p.text[at] != '[' {
		return 0, p.fail("missing '[' after '%f' in pattern")
	}
	s, next, ok := p.readSet(at)
	if ok {
		p.add(p.addSet(opFrontier, &s))
	}
	return next, ok
}

func (p *Pattern) open(at int) (next int, ok bool) {
	if p.captureCount == maxCaptures {
		return 0, p.fail("too many captures")
	}
	it := item{op: opOpen, ref: int32(p.captureCount)}
	kind := kindOpen
	next = at + 1
	if next < len(p.text) && p.text[next] == ')' {
		it.op, kind = opPosition, kindPosition
		next++
	}
	p.captures[p.captureCount] = kind
	p.captureCount++
	p.add(it)
	return next, true
}

func (p *Pattern) close() bool {
	for i := p.captureCount - 1; i >= 0; i-- {
		if p.captures[i] == kindOpen {
			p.captures[i] = kindClosed
			p.add(item{op: opClose, ref: int32(i)})
			return true
		}
	}
	return p.fail("invalid pattern capture")
}

func (p *Pattern) back(digit byte) bool {
	i := int(digit) - '1'
	switch {
	case i < 0 || i >= p.captureCount || p.captures[i] == kindOpen:
		return p.fail(fmt.Sprintf("invalid capture index %%%d", i+1))
	case p.captures[i] == kindPosition:
		p.add(item{op: opNever})
	default:
		p.add(item{op: opBack, ref: int32(i)})
	}
	return true
}

// look finds for every repeated item the byte that must follow it. What captures do in between does not
// read the subject.
func (p *Pattern) look() {
	ahead := int16(-1)
	for i := p.count - 1; i >= 0; i-- {
		it := p.item(i)
		it.ahead = ahead
		switch it.op {
		case opOpen, opClose, opPosition:
		case opByte:
			if it.repeat == 0 || it.repeat == '+' {
				ahead = int16(it.a)
			} else {
				ahead = -1
			}
		default:
			ahead = -1
		}
	}
}
