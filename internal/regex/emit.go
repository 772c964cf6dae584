package regex

import (
	"regexp"
	"strconv"
	"strings"
)

// emit writes a regular expression so that package regexp reads it as it is meant here.
func emit(out *strings.Builder, n *node) {
	switch n.op {
	case opSet:
		if r, ok := n.set.single(); ok {
			out.WriteString(regexp.QuoteMeta(string(r)))
		} else {
			out.WriteString(classSource(n.set.ranges))
		}
	case opCat:
		for _, sub := range n.subs {
			emitIn(out, sub, sub.op == opAlt)
		}
	case opAlt:
		for i, sub := range n.subs {
			if i > 0 {
				out.WriteByte('|')
			}
			emit(out, sub)
		}
	case opRepeat:
		emitIn(out, n.subs[0], n.subs[0].op != opSet && n.subs[0].op != opGroup)
		out.WriteString(quantifierSource(n))
	case opGroup:
		out.WriteByte('(')
		emit(out, n.subs[0])
		out.WriteByte(')')
	case opAssert:
		out.WriteString([...]string{
			textStart: `\A`, textEnd: `\z`, lineStart: `(?m:^)`, lineEnd: `(?m:$)`, wordBoundary: `\b`, noWordBoundary: `\B`,
		}[n.assert])
	}
}

func emitIn(out *strings.Builder, n *node, group bool) {
	if group {
		out.WriteString("(?:")
	}
	emit(out, n)
	if group {
		out.WriteByte(')')
	}
}

func quantifierSource(n *node) string {
	source := ""
	switch {
	case n.min == 0 && n.max < 0:
		source = "*"
	case n.min == 1 && n.max < 0:
		source = "+"
	case n.min == 0 && n.max == 1:
		source = "?"
	case n.max < 0:
		source = "{" + strconv.Itoa(n.min) + ",}"
	default:
		source = "{" + strconv.Itoa(n.min) + "," + strconv.Itoa(n.max) + "}"
	}
	if n.lazy {
		source += "?"
	}
	return source
}
