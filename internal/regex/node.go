package regex

// node is a piece of a parsed expression.
type node struct {
	op   op
	subs []*node
	set  *charset // of opSet

	min, max int  // of opRepeat; max is unlimited if it is below zero
	lazy     bool // of opRepeat

	group int // of opGroup and opBackref
	fold  bool

	behind, negative bool // of opLook

	assert assertion
}

type op uint8

const (
	opEmpty   op = iota
	opSet        // one character
	opCat        // one after the other
	opAlt        // one of several, the first that fits
	opRepeat     // min to max times
	opGroup      // a group whose text is kept
	opAtomic     // a group that is not entered again once it has matched
	opLook       // what is ahead or behind
	opBackref    // the text of a group once more
	opAssert     // a place between characters
	opKeep       // the match begins here
)

type assertion uint8

const (
	textStart assertion = iota
	textEnd
	textEndNewlines // at the end of the text, or in front of line ends there
	lineStart
	lineEnd
	wordBoundary
	noWordBoundary
	wordStart
	wordEnd
	searchStart
)

// regular is whether package regexp can match it in its own way, which takes time in proportion to the text.
func (n *node) regular() bool {
	switch n.op {
	case opAtomic, opLook, opBackref, opKeep:
		return false
	case opAssert:
		return n.assert <= noWordBoundary && n.assert != textEndNewlines
	}
	for _, sub := range n.subs {
		if !sub.regular() {
			return false
		}
	}
	return true
}

// asserts is whether one of the assertions stands somewhere in it.
func (n *node) asserts(any ...assertion) bool {
	if n.op == opAssert {
		for _, a := range any {
			if n.assert == a {
				return true
			}
		}
	}
	for _, sub := range n.subs {
		if sub.asserts(any...) {
			return true
		}
	}
	return false
}

// maxWidth stands for every width that is larger.
const maxWidth = 1 << 20

// width is how many characters it matches, at least and at most.
func (n *node) width() (low, high int) {
	switch n.op {
	case opSet:
		return 1, 1
	case opBackref:
		return 0, maxWidth
	case opCat, opGroup, opAtomic:
		for _, sub := range n.subs {
			l, h := sub.width()
			low, high = min(low+l, maxWidth), min(high+h, maxWidth)
		}
	case opAlt:
		low = maxWidth
		for _, sub := range n.subs {
			l, h := sub.width()
			low, high = min(low, l), max(high, h)
		}
	case opRepeat:
		l, h := n.subs[0].width()
		low, high = times(l, n.min), times(h, n.max)
	}
	return low, high
}

// times is a width n times, n below zero being without limit.
func times(width, n int) int {
	switch {
	case width == 0:
		return 0
	case n < 0 || n > maxWidth/width:
		return maxWidth
	}
	return width * n
}

// size is about how many instructions it takes.
func (n *node) size() int {
	size := 1
	for _, sub := range n.subs {
		size = min(size+sub.size(), 2*maxSize)
	}
	if n.op == opRepeat && n.subs[0].op != opSet {
		size = min(size, 2*maxSize) * max(n.min+1, n.max)
	} else if n.op == opRepeat {
		size += max(n.min, n.max) / 8
	}
	return min(size, 2*maxSize)
}
