package regex

import (
	"strings"
	"unicode/utf8"
)

// program is what the machine runs. Instructions of one character run on to the next one.
type program struct {
	code []instruction
	// slots are two for each group, then those that loops use.
	slots int
	// prefix is what every match begins with.
	prefix string
	// anchored says that a match can only be where the search starts at the start of the text.
	anchored bool
}

type instruction struct {
	do       instr
	x, y     int32 // targets or a slot
	set      *charset
	text     string
	min, max int
	flag     bool // lazy, negative, or without case
	behind   bool
	assert   assertion
}

type instr uint8

const (
	doSet     instr = iota
	doText          // several characters
	doLoop          // min to max characters of a set
	doSplit         // x; if that fails, y
	doJump          // x
	doSave          // the position into slot x
	doAssert        // a place
	doBackref       // the text of group x
	doLook          // what follows up to doEnd matches ahead or behind; then x
	doAtomic        // what follows up to doEnd matches once; then x
	doEnd
	doEndBehind // as doEnd, if the look-behind has come back to its place
	doProgress  // fails if nothing has been matched since slot x was saved
	doMatch
)

type builder struct{ program }

// build makes the program for an expression with so many groups, the whole one included.
func build(n *node, groups int) *program {
	b := &builder{program{slots: 2 * groups}}
	b.node(n)
	b.add(instruction{do: doMatch})
	if first := b.code[0]; first.do == doText {
		b.prefix = first.text
	} else if first.do == doAssert && first.assert == textStart {
		b.anchored = true
	}
	return &b.program
}

func (b *builder) add(i instruction) int {
	b.code = append(b.code, i)
	return len(b.code) - 1
}

func (b *builder) here() int32 { return int32(len(b.code)) }

func (b *builder) node(n *node) {
	switch n.op {
	case opSet:
		b.single(n)
	case opCat:
		b.sequence(n.subs)
	case opAlt:
		b.alternatives(n.subs)
	case opRepeat:
		b.repeat(n)
	case opGroup:
		b.add(instruction{do: doSave, x: int32(2 * n.group)})
		b.node(n.subs[0])
		b.add(instruction{do: doSave, x: int32(2*n.group + 1)})
	case opAtomic:
		at := b.add(instruction{do: doAtomic})
		b.node(n.subs[0])
		b.add(instruction{do: doEnd})
		b.code[at].x = b.here()
	case opLook:
		b.look(n)
	case opBackref:
		b.add(instruction{do: doBackref, x: int32(n.group), flag: n.fold})
	case opAssert:
		b.add(instruction{do: doAssert, assert: n.assert})
	case opKeep:
		b.add(instruction{do: doSave, x: 0})
	}
}

// sequence makes one text of characters that follow each other.
func (b *builder) sequence(subs []*node) {
	var text strings.Builder
	for i, sub := range subs {
		r, ok := sub.character()
		if ok {
			text.WriteRune(r)
			if i+1 < len(subs) {
				if _, ok := subs[i+1].character(); ok {
					continue
				}
			}
			b.add(instruction{do: doText, text: text.String()})
			text.Reset()
			continue
		}
		b.node(sub)
	}
}

// character is the only one that the node matches. U+FFFD stands for bytes that are no UTF-8, too.
func (n *node) character() (rune, bool) {
	if n.op != opSet {
		return 0, false
	}
	r, ok := n.set.single()
	return r, ok && r != utf8.RuneError
}

func (b *builder) single(n *node) {
	if r, ok := n.character(); ok {
		b.add(instruction{do: doText, text: string(r)})
	} else {
		b.add(instruction{do: doSet, set: n.set})
	}
}

func (b *builder) alternatives(subs []*node) {
	var ends []int
	for i, sub := range subs {
		if i == len(subs)-1 {
			b.node(sub)
			break
		}
		split := b.add(instruction{do: doSplit, x: b.here() + 1})
		b.node(sub)
		ends = append(ends, b.add(instruction{do: doJump}))
		b.code[split].y = b.here()
	}
	for _, end := range ends {
		b.code[end].x = b.here()
	}
}

func (b *builder) look(n *node) {
	i := instruction{do: doLook, flag: n.negative, behind: n.behind}
	end := doEnd
	if n.behind {
		i.min, i.max = n.subs[0].width()
		end = doEndBehind
	}
	at := b.add(i)
	b.node(n.subs[0])
	b.add(instruction{do: end})
	b.code[at].x = b.here()
}

func (b *builder) repeat(n *node) {
	sub := n.subs[0]
	if sub.op == opSet {
		b.add(instruction{do: doLoop, set: sub.set, min: n.min, max: n.max, flag: n.lazy})
		return
	}
	for range n.min {
		b.node(sub)
	}
	if n.max < 0 {
		b.endless(sub, n.lazy)
		return
	}
	var skips []int
	for range n.max - n.min {
		skips = append(skips, b.choice(n.lazy))
		b.node(sub)
	}
	for _, skip := range skips {
		b.leave(skip, n.lazy)
	}
}

// endless repeats as often as it can, as long as there is progress.
func (b *builder) endless(sub *node, lazy bool) {
	low, _ := sub.width()
	again := b.here()
	skip := b.choice(lazy)
	slot := int32(b.slots)
	if low == 0 {
		b.slots++
		b.add(instruction{do: doSave, x: slot})
	}
	b.node(sub)
	if low == 0 {
		b.add(instruction{do: doProgress, x: slot})
	}
	b.add(instruction{do: doJump, x: again})
	b.leave(skip, lazy)
}

// choice goes on, or leaves for what leave sets; the lazy one leaves first.
func (b *builder) choice(lazy bool) int {
	i := instruction{do: doSplit, x: b.here() + 1}
	if lazy {
		i = instruction{do: doSplit, y: b.here() + 1}
	}
	return b.add(i)
}

func (b *builder) leave(choice int, lazy bool) {
	if lazy {
		b.code[choice].x = b.here()
	} else {
		b.code[choice].y = b.here()
	}
}
