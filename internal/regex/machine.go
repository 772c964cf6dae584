package regex

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of one search with a machine.
const (
	// maxSteps are the steps that every search may take, and stepsPerByte those that a long text adds.
	maxSteps     = 20_000_000
	stepsPerByte = 100
	// maxFrames bounds the choices that may be open at once.
	maxFrames = 1 << 20
)

// ErrTooHard is what a search returns that takes more steps, or more memory, than it may.
var ErrTooHard = errors.New("the expression tries too many ways to match this text")

// machine matches by trying one way after the other. It serves one goroutine.
type machine struct {
	ctx     context.Context
	program *program
	text    string
	from    int // where the search began
	slots   []int
	frames  []frame
	steps   int
	target  int // where a look-behind has to end
}

// frame is what to do when the way that was taken leads nowhere.
type frame struct {
	kind frameKind
	at   int32 // an instruction or a slot
	pos  int   // where to go on, or what the slot held
	low  int   // of a loop: the shortest it may be; of a lazy one: how many it has
}

type frameKind uint8

const (
	tryOther   frameKind = iota // go on at the instruction
	setSlot                     // put the slot back and look for the next frame
	tryFewer                    // a loop gives one character back
	tryFurther                  // a lazy loop takes one more
)

func newMachine(ctx context.Context, p *program, text string) *machine {
	return &machine{ctx: ctx, program: p, text: text, slots: make([]int, p.slots)}
}

// find gives the slots of the first match that begins at from or later, nil if there is none.
func (m *machine) find(from int) ([]int, error) {
	m.from, m.steps = from, 0
	for start := from; start <= len(m.text); {
		if m.program.prefix != "" {
			n := strings.Index(m.text[start:], m.program.prefix)
			if n < 0 {
				return nil, nil
			}
			start += n
		}
		for i := range m.slots {
			m.slots[i] = -1
		}
		m.slots[0] = start
		end, ok, err := m.run(0, start)
		m.frames = m.frames[:0]
		if err != nil {
			return nil, err
		}
		if ok {
			// A \K in a look-around may be anywhere.
			m.slots[0], m.slots[1] = min(max(m.slots[0], start), end), end
			return m.slots, nil
		}
		if m.program.anchored {
			return nil, nil
		}
		_, size := utf8.DecodeRuneInString(m.text[start:])
		start += max(size, 1)
	}
	return nil, nil
}

// spend counts steps, and now and then looks at the context.
func (m *machine) spend(n int) error {
	before := m.steps
	m.steps += n
	if before>>12 == m.steps>>12 {
		return nil
	}
	if m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	if m.steps > maxSteps+stepsPerByte*len(m.text) {
		return ErrTooHard
	}
	return nil
}

func (m *machine) push(f frame) error {
	if len(m.frames) == maxFrames {
		return ErrTooHard
	}
	m.frames = append(m.frames, f)
	return nil
}

// save sets a slot until the way that was taken is given up.
func (m *machine) save(slot int32, pos int) error {
	err := m.push(frame{kind: setSlot, at: slot, pos: m.slots[slot]})
	m.slots[slot] = pos
	return err
}

// run runs from an instruction to the end that belongs to it. What it leaves on the stack above where it began are
// the ways that were not tried.
func (m *machine) run(at int32, pos int) (end int, ok bool, err error) {
	base := len(m.frames)
	for {
		if err := m.spend(1); err != nil {
			return 0, false, err
		}
		i := &m.program.code[at]
		ok := true
		switch i.do {
		case doMatch, doEnd:
			return pos, true, nil
		case doEndBehind:
			if ok = pos == m.target; ok {
				return pos, true, nil
			}
		case doSet:
			r, size := utf8.DecodeRuneInString(m.text[pos:])
			ok = size > 0 && i.set.has(r)
			pos += size
		case doText:
			ok = strings.HasPrefix(m.text[pos:], i.text)
			pos += len(i.text)
		case doLoop:
			pos, ok, err = m.loop(at, i, pos)
		case doSplit:
			err = m.push(frame{at: i.y, pos: pos})
			at = i.x - 1
		case doJump:
			at = i.x - 1
		case doSave:
			err = m.save(i.x, pos)
		case doProgress:
			ok = pos != m.slots[i.x]
		case doAssert:
			ok = m.holds(i.assert, pos)
		case doBackref:
			pos, ok, err = m.again(i, pos)
		case doAtomic:
			pos, ok, err = m.inner(at+1, pos, true)
			at = i.x - 1
		case doLook:
			ok, err = m.look(at, i, pos)
			at = i.x - 1
		}
		if err != nil {
			return 0, false, err
		}
		at++
		if !ok {
			if at, pos, ok = m.back(base); !ok {
				return 0, false, nil
			}
		}
	}
}

// back goes to the last choice above base that has a way left.
func (m *machine) back(base int) (at int32, pos int, ok bool) {
	for len(m.frames) > base {
		last := len(m.frames) - 1
		f := &m.frames[last]
		switch f.kind {
		case setSlot:
			m.slots[f.at] = f.pos
		case tryOther:
			at, pos = f.at, f.pos
			m.frames = m.frames[:last]
			return at, pos, true
		case tryFewer:
			_, size := utf8.DecodeLastRuneInString(m.text[:f.pos])
			f.pos -= size
			at, pos = f.at, f.pos
			if f.pos <= f.low {
				m.frames = m.frames[:last]
			}
			return at, pos, true
		case tryFurther:
			i := &m.program.code[f.at-1]
			r, size := utf8.DecodeRuneInString(m.text[f.pos:])
			if size > 0 && i.set.has(r) {
				f.pos, f.low = f.pos+size, f.low+1
				at, pos = f.at, f.pos
				if f.low == i.max {
					m.frames = m.frames[:last]
				}
				return at, pos, true
			}
		}
		m.frames = m.frames[:last]
	}
	return 0, 0, false
}

// loop takes characters of a set: as many as it can, or as few.
func (m *machine) loop(at int32, i *instruction, pos int) (int, bool, error) {
	low, count := pos, 0
	limit := i.max
	if i.flag {
		limit = i.min
	}
	for limit < 0 || count < limit {
		r, size := utf8.DecodeRuneInString(m.text[pos:])
		if size == 0 || !i.set.has(r) {
			break
		}
		pos += size
		if count++; count == i.min {
			low = pos
		}
		if err := m.spend(1); err != nil {
			return 0, false, err
		}
	}
	switch {
	case count < i.min:
		return pos, false, nil
	case i.flag && i.max != i.min:
		return pos, true, m.push(frame{kind: tryFurther, at: at + 1, pos: pos, low: count})
	case pos > low:
		return pos, true, m.push(frame{kind: tryFewer, at: at + 1, pos: pos, low: low})
	}
	return pos, true, nil
}

// inner runs a part of the program whose choices are closed once it has matched. What it saved stays, until the
// way that was taken is given up, if keep says so.
func (m *machine) inner(at int32, pos int, keep bool) (end int, ok bool, err error) {
	base := len(m.frames)
	end, ok, err = m.run(at, pos)
	if err != nil || !ok {
		return end, ok, err
	}
	if keep {
		kept := m.frames[:base]
		for _, f := range m.frames[base:] {
			if f.kind == setSlot {
				kept = append(kept, f)
			}
		}
		m.frames = kept
		return end, true, nil
	}
	for n := len(m.frames) - 1; n >= base; n-- {
		if f := m.frames[n]; f.kind == setSlot {
			m.slots[f.at] = f.pos
		}
	}
	m.frames = m.frames[:base]
	return end, true, nil
}

func (m *machine) look(at int32, i *instruction, pos int) (bool, error) {
	if !i.behind {
		_, ok, err := m.inner(at+1, pos, !i.flag)
		return ok != i.flag, err
	}
	target := m.target
	m.target = pos
	defer func() { m.target = target }()
	start := pos
	for back := 0; back <= i.max; back++ {
		if back >= i.min {
			if _, ok, err := m.inner(at+1, start, !i.flag); ok || err != nil {
				return !i.flag, err
			}
		}
		_, size := utf8.DecodeLastRuneInString(m.text[:start])
		if size == 0 {
			break
		}
		start -= size
	}
	return i.flag, nil
}

// again matches the text of a group once more; that of a group that has matched nothing is nowhere.
func (m *machine) again(i *instruction, pos int) (int, bool, error) {
	start, end := m.slots[2*i.x], m.slots[2*i.x+1]
	if start < 0 || end < start {
		return pos, false, nil
	}
	text := m.text[start:end]
	if !i.flag {
		return pos + len(text), strings.HasPrefix(m.text[pos:], text), m.spend(len(text) / 16)
	}
	for _, want := range text {
		r, size := utf8.DecodeRuneInString(m.text[pos:])
		if size == 0 || !sameLetter(r, want) {
			return pos, false, nil
		}
		pos += size
		if err := m.spend(1); err != nil {
			return pos, false, err
		}
	}
	return pos, true, nil
}

func sameLetter(a, b rune) bool {
	if a == b {
		return true
	}
	for f := unicode.SimpleFold(a); f != a; f = unicode.SimpleFold(f) {
		if f == b {
			return true
		}
	}
	return false
}

// holds is whether the place is what the assertion says.
func (m *machine) holds(a assertion, pos int) bool {
	text := m.text
	switch a {
	case textStart:
		return pos == 0
	case textEnd:
		return pos == len(text)
	case textEndNewlines:
		return strings.TrimRight(text[pos:min(len(text), pos+1)], "\n") == "" && strings.Trim(text[pos:], "\n") == ""
	case lineStart:
		return pos == 0 || text[pos-1] == '\n'
	case lineEnd:
		return pos == len(text) || text[pos] == '\n'
	case searchStart:
		return pos == m.from
	}
	before, _ := utf8.DecodeLastRuneInString(text[:pos])
	after, _ := utf8.DecodeRuneInString(text[pos:])
	left, right := pos > 0 && isWord(before), pos < len(text) && isWord(after)
	switch a {
	case wordBoundary:
		return left != right
	case noWordBoundary:
		return left == right
	case wordStart:
		return !left && right
	default:
		return left && !right
	}
}
