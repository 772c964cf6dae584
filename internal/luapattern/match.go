package luapattern

import "strings"

// stepsAtOnce is how much is done before a Meter hears of it.
const stepsAtOnce = 4096

// Meter counts the work of matching.
type Meter interface {
	// Step is told how much work was done since it was last called: about one for every byte looked at.
	// It is called every few thousand steps, and may panic to end the match.
	Step(steps int)
}

// Error is what is wrong with a pattern, in Lua's words.
type Error string

func (e Error) Error() string { return string(e) }

// Matcher matches its pattern, which is compiled first, against a subject. It is used by one goroutine at
// a time, and needs nothing on the heap.
type Matcher struct {
	Pattern
	Subject string
	Meter   Meter

	steps int // done and not yet told
	spans [maxCaptures]span
}

type span struct{ start, end int }

const (
	noMatch = -1
	wrong   = -2 // the pattern is, and its failure says why
)

// Find finds the first match that begins at start or later. ok is false where there is none. The error
// is an Error.
func (m *Matcher) Find(start int) (from, to int, ok bool, err error) {
	if m.literal {
		return m.findLiteral(start)
	}
	first, byFirst := m.firstByte()
	for from = start; from <= len(m.Subject); from++ {
		if byFirst {
			skip := strings.IndexByte(m.Subject[from:], first)
			if skip < 0 {
				m.spend(len(m.Subject) - from)
				return 0, 0, false, nil
			}
			m.spend(skip)
			from += skip
		}
		if to, ok, err = m.At(from); ok || err != nil {
			return from, to, ok, err
		}
		if m.anchored {
			break
		}
	}
	return 0, 0, false, nil
}

func (m *Matcher) findLiteral(start int) (from, to int, ok bool, err error) {
	from = strings.Index(m.Subject[start:], m.text)
	if from < 0 {
		m.spend(len(m.Subject) - start)
		return 0, 0, false, nil
	}
	m.spend(from)
	from += start
	return from, from + len(m.text), true, nil
}

// firstByte is the byte that every match begins with, if there is one and the match may begin anywhere.
func (p *Pattern) firstByte() (byte, bool) {
	if p.anchored {
		return 0, false
	}
	for i := range p.count {
		switch it := p.item(i); it.op {
		case opOpen, opPosition:
		case opByte:
			return it.a, it.repeat == 0 || it.repeat == '+'
		default:
			return 0, false
		}
	}
	return 0, false
}

// At matches at one position, and there alone.
func (m *Matcher) At(start int) (end int, ok bool, err error) {
	if m.literal {
		m.spend(1)
		return start + len(m.text), strings.HasPrefix(m.Subject[start:], m.text), nil
	}
	end = m.match(start, 0)
	if end == wrong {
		return 0, false, Error(m.failure)
	}
	return end, end != noMatch, nil
}

// Capture is the i-th capture of the last match, counted from zero. One that is a position has no end: it
// is the position of the byte start.
func (m *Matcher) Capture(i int) (start, end int, position bool) {
	s := m.spans[i]
	return s.start, s.end, m.captures[i] == kindPosition
}

func (m *Matcher) spend(steps int) {
	if m.steps += steps; m.steps >= stepsAtOnce {
		m.report()
	}
}

// report stands apart so that spend costs next to nothing.
func (m *Matcher) report() {
	steps := m.steps
	m.steps = 0
	m.Meter.Step(steps)
}

// match matches the items from next on at s and returns the end of the match, noMatch or wrong. It calls
// itself only for a repeated item, with what comes after it. Captures need not be put back on the way
// back: whoever reads one has passed its item again.
func (m *Matcher) match(s, next int) int {
	subject := m.Subject
	for {
		m.spend(1)
		it := m.item(next)
		next++
		switch it.op {
		case opByte, opAny, opSet:
			switch it.repeat {
			case 0:
				if s == len(subject) || !m.one(it, subject[s]) {
					return noMatch
				}
				s++
			case '?':
				if s < len(subject) && m.one(it, subject[s]) {
					if end := m.match(s+1, next); end != noMatch {
						return end
					}
				}
			case '-':
				return m.shortest(it, s, next)
			default:
				least := 0
				if it.repeat == '+' {
					least = 1
				}
				longest := m.span(it, s)
				if longest < least {
					return noMatch
				}
				end, tail := m.longest(it, s+least, s+longest, next)
				if tail < 0 {
					return end
				}
				s = tail
			}
		case opOpen:
			m.spans[it.ref].start = s
		case opClose:
			m.spans[it.ref].end = s
		case opPosition:
			m.spans[it.ref] = span{s, s}
		case opBack:
			held := m.spans[it.ref]
			m.spend(held.end - held.start)
			if !strings.HasPrefix(subject[s:], subject[held.start:held.end]) {
				return noMatch
			}
			s += held.end - held.start
		case opBalance:
			if s = m.balanced(it, s); s == noMatch {
				return noMatch
			}
		case opFrontier:
			if !m.atFrontier(it, s) {
				return noMatch
			}
		case opEnd:
			if s < len(subject) {
				return noMatch
			}
		case opMatch:
			return s
		case opNever:
			return noMatch
		case opError:
			return wrong
		}
	}
}

func (m *Matcher) one(it *item, c byte) bool {
	switch it.op {
	case opByte:
		return it.a == c
	case opSet:
		return m.set(it).has(c)
	}
	return true
}

// span is how many bytes from s on belong to the item.
func (m *Matcher) span(it *item, s int) int {
	rest := m.Subject[s:]
	n := 0
	switch it.op {
	case opAny:
		return len(rest)
	case opByte:
		for n < len(rest) && rest[n] == it.a {
			n++
		}
	default:
		in := m.set(it)
		for n < len(rest) && in.has(rest[n]) {
			n++
		}
	}
	m.spend(n)
	return n
}

// longest goes back from the longest repetition to the least. For the least one it calls nobody but says
// with tail that the caller may go on there; tail is negative if the match is decided.
func (m *Matcher) longest(it *item, least, s, next int) (end, tail int) {
	if m.item(next).op == opMatch {
		return s, noMatch
	}
	ahead := it.ahead
	for ; s > least; s-- {
		m.spend(1)
		if ahead >= 0 && (s == len(m.Subject) || int16(m.Subject[s]) != ahead) {
			continue
		}
		if end := m.match(s, next); end != noMatch {
			return end, noMatch
		}
	}
	return 0, least
}

// shortest goes from no repetition at all to the longest.
func (m *Matcher) shortest(it *item, s, next int) int {
	for ; ; s++ {
		m.spend(1)
		if it.ahead < 0 || s < len(m.Subject) && int16(m.Subject[s]) == it.ahead {
			if end := m.match(s, next); end != noMatch {
				return end
			}
		}
		if s == len(m.Subject) || !m.one(it, m.Subject[s]) {
			return noMatch
		}
	}
}

// balanced is the end of what begins with the item's first byte at s and has as many of its second.
func (m *Matcher) balanced(it *item, s int) int {
	if s == len(m.Subject) || m.Subject[s] != it.a {
		return noMatch
	}
	open := 1
	for i := s + 1; i < len(m.Subject); i++ {
		switch c := m.Subject[i]; {
		case c == it.b: // first: in %b'' both are the same
			if open--; open == 0 {
				m.spend(i - s)
				return i + 1
			}
		case c == it.a:
			open++
		}
	}
	m.spend(len(m.Subject) - s)
	return noMatch
}

// atFrontier reports whether the set begins at s; before and after the subject stands a zero.
func (m *Matcher) atFrontier(it *item, s int) bool {
	var before, here byte
	if s > 0 {
		before = m.Subject[s-1]
	}
	if s < len(m.Subject) {
		here = m.Subject[s]
	}
	in := m.set(it)
	return !in.has(before) && in.has(here)
}
