package luapattern

import (
	"fmt"
	"strings"
	"testing"
)

// naive is a matcher without any cleverness: it reads the text of the pattern as it goes and says with a
// function what is to come after an item.
type naive struct {
	subject, pattern string
	captures         []naiveCapture
	steps            int
}

type naiveCapture struct{ start, end int } // end: -1 open, -2 a position

type naiveError string

const naiveLimit = 200_000

func (n *naive) match(s, p int, done func(end int) bool) bool {
	if n.steps++; n.steps > naiveLimit {
		panic(naiveError("too long"))
	}
	if p == len(n.pattern) {
		for _, c := range n.captures {
			if c.end == -1 {
				panic(naiveError("unfinished capture"))
			}
		}
		return done(s)
	}
	rest := n.pattern[p:]
	switch {
	case rest == "$":
		return s == len(n.subject) && n.match(s, p+1, done)
	case strings.HasPrefix(rest, "()"):
		return n.capture(naiveCapture{s, -2}, func() bool { return n.match(s, p+2, done) })
	case rest[0] == '(':
		return n.capture(naiveCapture{s, -1}, func() bool { return n.match(s, p+1, done) })
	case rest[0] == ')':
		for i := len(n.captures) - 1; i >= 0; i-- {
			if n.captures[i].end == -1 {
				n.captures[i].end = s
				if n.match(s, p+1, done) {
					return true
				}
				n.captures[i].end = -1
				return false
			}
		}
		panic(naiveError("invalid pattern capture"))
	case strings.HasPrefix(rest, "%b"):
		if len(rest) < 4 {
			panic(naiveError("missing arguments"))
		}
		depth := 0
		for i := s; i < len(n.subject); i++ {
			switch c := n.subject[i]; {
			case i > s && c == rest[3]:
				depth--
			case c == rest[2]:
				depth++
			}
			if depth == 0 {
				return i > s && n.match(i+1, p+4, done)
			}
		}
		return false
	case strings.HasPrefix(rest, "%f"):
		if len(rest) < 3 || rest[2] != '[' {
			panic(naiveError("missing '['"))
		}
		end := n.setEnd(p + 2)
		padded := "\x00" + n.subject + "\x00"
		return !n.inSet(padded[s], p+2, end) && n.inSet(padded[s+1], p+2, end) && n.match(s, end, done)
	case len(rest) > 1 && rest[0] == '%' && '0' <= rest[1] && rest[1] <= '9':
		i := int(rest[1]) - '1'
		if i < 0 || i >= len(n.captures) || n.captures[i].end == -1 {
			panic(naiveError("invalid capture index"))
		}
		c := n.captures[i]
		if c.end == -2 || !strings.HasPrefix(n.subject[s:], n.subject[c.start:c.end]) {
			return false
		}
		return n.match(s+c.end-c.start, p+2, done)
	}
	return n.repeated(s, p, done)
}

func (n *naive) capture(c naiveCapture, then func() bool) bool {
	if len(n.captures) == maxCaptures {
		panic(naiveError("too many captures"))
	}
	n.captures = append(n.captures, c)
	if then() {
		return true
	}
	n.captures = n.captures[:len(n.captures)-1]
	return false
}

func (n *naive) repeated(s, p int, done func(int) bool) bool {
	end := p + 1
	switch {
	case n.pattern[p] == '[':
		end = n.setEnd(p)
	case n.pattern[p] == '%':
		if end++; end > len(n.pattern) {
			panic(naiveError("ends with %"))
		}
	}
	one := func(s int) bool { return s < len(n.subject) && n.is(n.subject[s], p, end) }
	sign := byte(0)
	if end < len(n.pattern) {
		sign = n.pattern[end]
	}
	switch sign {
	case '?':
		return one(s) && n.match(s+1, end+1, done) || n.match(s, end+1, done)
	case '*':
		return n.greedy(one, s, end+1, done)
	case '+':
		return one(s) && n.greedy(one, s+1, end+1, done)
	case '-':
		for !n.match(s, end+1, done) {
			if !one(s) {
				return false
			}
			s++
		}
		return true
	}
	return one(s) && n.match(s+1, end, done)
}

func (n *naive) greedy(one func(int) bool, s, p int, done func(int) bool) bool {
	last := s
	for one(last) {
		last++
	}
	for ; last >= s; last-- {
		if n.match(last, p, done) {
			return true
		}
	}
	return false
}

func (n *naive) is(c byte, p, end int) bool {
	switch n.pattern[p] {
	case '.':
		return true
	case '%':
		return naiveClass(c, n.pattern[p+1])
	case '[':
		return n.inSet(c, p, end)
	}
	return n.pattern[p] == c
}

// setEnd is behind the "]" of the set that begins at p.
func (n *naive) setEnd(p int) int {
	if p++; p < len(n.pattern) && n.pattern[p] == '^' {
		p++
	}
	for first := true; ; first = false {
		switch {
		case p >= len(n.pattern):
			panic(naiveError("missing ']'"))
		case n.pattern[p] == ']' && !first:
			return p + 1
		case n.pattern[p] == '%':
			p += 2
		default:
			p++
		}
	}
}

func (n *naive) inSet(c byte, p, end int) bool {
	content := n.pattern[p+1 : end-1]
	inverted := content[0] == '^'
	if inverted {
		content = content[1:]
	}
	in := false
	for content != "" {
		switch {
		case content[0] == '%' && len(content) > 1:
			in = in || naiveClass(c, content[1])
			content = content[2:]
		case len(content) > 2 && content[1] == '-':
			in = in || content[0] <= c && c <= content[2]
			content = content[3:]
		default:
			in = in || c == content[0]
			content = content[1:]
		}
	}
	return in != inverted
}

func naiveClass(c, letter byte) bool {
	isOneOf := func(bytes string) bool { return strings.IndexByte(bytes, c) >= 0 }
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	graphic := c > ' ' && c < 0x7f
	var in bool
	switch strings.ToLower(string(rune(letter))) {
	case "a":
		in = isOneOf(lower + upper)
	case "c":
		in = c < ' ' || c == 0x7f
	case "d":
		in = isOneOf(digits)
	case "g":
		in = graphic
	case "l":
		in = isOneOf(lower)
	case "p":
		in = graphic && !isOneOf(digits+lower+upper)
	case "s":
		in = isOneOf(" \t\n\v\f\r")
	case "u":
		in = isOneOf(upper)
	case "w":
		in = isOneOf(digits + lower + upper)
	case "x":
		in = isOneOf(digits + "abcdefABCDEF")
	case "z":
		in = c == 0
	default:
		return c == letter
	}
	return in != ('A' <= letter && letter <= 'Z')
}

func naiveFind(subject, pattern string) (found string) {
	defer func() {
		if p := recover(); p != nil {
			found = "error: " + string(p.(naiveError))
		}
	}()
	start := 0
	if strings.HasPrefix(pattern, "^") {
		start = 1
	}
	n := &naive{subject: subject, pattern: pattern}
	for s := 0; s <= len(subject); s++ {
		n.captures = nil
		end := 0
		if n.match(s, start, func(e int) bool { end = e; return true }) {
			found := fmt.Sprintf("%d-%d", s+1, end)
			for _, c := range n.captures {
				if c.end == -2 {
					found += fmt.Sprintf(" @%d", c.start+1)
				} else {
					found += " " + subject[c.start:c.end]
				}
			}
			return found
		}
		if start == 1 {
			break
		}
	}
	return "nil"
}

// What the matcher finds is what one without any cleverness finds.
func FuzzFind(f *testing.F) {
	for _, seed := range [][2]string{
		{"key = value", "^(%w+)%s*=%s*(.-)%s*$"}, {"aXb", "%u"}, {"f(a(b))", "%b()"}, {"THE (quick) fox", "%f[%a]%a+%f[%A]"},
		{"'x' \"y\"", "([\"'])(.-)%1"}, {"a]b-c^d", "[]^-]+"}, {"a-z", "[%a-z]-$"}, {"\x00\xff", "[^%z]%Z?()"}, {"aaa", "(a*(.)a?)%2$"},
		{"x", "[a-%]]"}, {"", "%f[%z]$"}, {"((", "%b(("}, {"abcabc", "(((a)b)c)%1"}, {"a+b", "a++b"}, {"ab", "a)"}, {"ab", "(a%1"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, subject, pattern string) {
		if len(subject) > 60 || len(pattern) > 40 {
			return
		}
		want := naiveFind(subject, pattern)
		if want == "error: too long" {
			return
		}
		got := find(t, subject, pattern, 0)
		if strings.HasPrefix(want, "error: ") && strings.HasPrefix(got, "error: ") {
			return
		}
		if got != want {
			t.Errorf("find(%q, %q) = %s, want %s", subject, pattern, got, want)
		}
	})
}
