package luastate

import (
	"strings"
)

// checker reads a source only as far as it must to find what Lua 5.4 and 5.1 read differently, and what
// would take the compiler too long or too deep: it knows comments, strings, numbers, names and operators,
// and leaves the grammar to the parser.
type checker struct {
	src  string
	pos  int
	line int
	last token // before the one at pos
	expressionMeter
}

// token is what kind of token came last.
type token uint8

const (
	tokenOther   token = iota
	tokenOperand       // something that ends an operand: a name, a literal, a closing bracket, end
	tokenDot           // a dot or colon, before the name of a field
	tokenBreak
)

// check finds the first construct that would compile and then mean something else than its author
// thinks.
func check(name string, source []byte) *Error {
	c := &checker{src: string(source), line: 1}
	for c.pos < len(c.src) {
		line := c.line
		reason := c.next()
		if reason == "" {
			if reason = c.excess(); reason == "" {
				continue
			}
			c.line = line
		}
		return &Error{File: name, Line: c.line, Reason: reason}
	}
	return nil
}

// next consumes one token, white space or comment; a reason ends the check at the current line.
func (c *checker) next() (reason string) {
	ch := c.src[c.pos]
	rest := c.src[c.pos:]
	switch {
	case ch == '\n' || ch == '\r':
		c.newline()
	case ch == ' ' || ch == '\t':
		c.pos++
	case strings.HasPrefix(rest, "--"):
		return c.comment()
	case c.last == tokenBreak && ch != ';' && !isNameByte(ch):
		return breakNotLast
	case ch == '"' || ch == '\'':
		reason = c.quoted(ch)
		c.operand()
	case ch == '[' && c.longBracket():
		c.operand()
	case strings.IndexByte("([{", ch) >= 0:
		c.pos++
		c.last = tokenOther
		c.open()
	case strings.IndexByte(")]}", ch) >= 0:
		c.pos++
		c.last = tokenOperand
		c.close()
	case isDigit(ch) || ch == '.' && len(rest) > 1 && isDigit(rest[1]):
		reason = c.number()
		c.operand()
	case isNameByte(ch):
		return c.word()
	default:
		return c.operator()
	}
	return reason
}

// newline consumes the end of a line, which may be CR, LF or both in either order.
func (c *checker) newline() {
	c.pos += lineEnd(c.src[c.pos:])
	c.line++
}

// lineEnd is the length of the end of a line that s begins with, zero if it does not.
func lineEnd(s string) int {
	switch {
	case s == "" || s[0] != '\n' && s[0] != '\r':
		return 0
	case len(s) > 1 && (s[1] == '\n' || s[1] == '\r') && s[1] != s[0]:
		return 2
	}
	return 1
}

func (c *checker) comment() string {
	c.pos += 2
	switch {
	case c.longBracket():
	case strings.HasPrefix(c.src[c.pos:], "[="):
		return "a comment that begins with --[= is taken for a long one: put a blank behind --"
	default:
		for c.pos < len(c.src) && c.src[c.pos] != '\n' && c.src[c.pos] != '\r' {
			c.pos++
		}
	}
	return ""
}

// word consumes a name or a keyword.
func (c *checker) word() string {
	start := c.pos
	for c.pos < len(c.src) && isNameByte(c.src[c.pos]) {
		c.pos++
	}
	word := c.src[start:c.pos]
	if c.last == tokenDot { // a field may be called as it likes
		c.operand()
		return ""
	}
	if c.last == tokenBreak && !endsBlock(word) {
		return breakNotLast
	}
	if word == "_ENV" {
		return "_ENV is unknown to Lua 5.1: use setfenv, or the fourth argument of load"
	}
	c.keyword(word)
	return ""
}

const breakNotLast = "break is not the last statement of its block, as Lua 5.1 wants it: write do break end"

func endsBlock(word string) bool {
	return word == "end" || word == "else" || word == "elseif" || word == "until"
}

// keyword tells the meter what a word begins or ends.
func (c *checker) keyword(word string) {
	last := c.last
	c.last = tokenOther
	switch word {
	case "break":
		c.begin()
		c.last = tokenBreak
	case "function", "do", "if", "repeat":
		c.open()
	case "end", "until":
		c.close()
		if word == "end" {
			c.last = tokenOperand
		}
	case "elseif":
		c.begin()
		c.alternative()
	case "and", "or", "not":
		c.operation()
	case "nil", "true", "false":
		c.operand()
	case "else", "for", "goto", "in", "local", "return", "then", "while":
		c.begin()
	default:
		if last == tokenOperand {
			c.begin() // two operands side by side: a statement ends between them
		}
		c.operand()
	}
}

func (c *checker) operand() {
	c.last = tokenOperand
	c.step()
}

// noSuchOperator says what stands in Lua 5.1 instead of an operator that came later.
var noSuchOperator = []struct{ operator, instead string }{
	{"//", "Lua 5.1 has no //: use math.floor(a / b)"},
	{"<<", "Lua 5.1 has no operators on bits"},
	{">>", "Lua 5.1 has no operators on bits"},
	{"&", "Lua 5.1 has no operators on bits"},
	{"|", "Lua 5.1 has no operators on bits"},
	{"!=", "Lua has no !=: it is ~="},
}

// operator consumes an operator, or any other byte.
func (c *checker) operator() string {
	rest := c.src[c.pos:]
	for _, missing := range noSuchOperator {
		if strings.HasPrefix(rest, missing.operator) {
			return missing.instead
		}
	}
	c.pos++
	last := c.last
	c.last = tokenOther
	switch ch := rest[0]; ch {
	case '~':
		if !strings.HasPrefix(rest, "~=") {
			return "Lua 5.1 has no operators on bits"
		}
		c.pos++
		c.operation()
	case '=', '<', '>':
		if strings.HasPrefix(rest[1:], "=") {
			c.pos++
			c.operation()
		} else if ch == '=' {
			c.begin()
		} else {
			c.operation()
		}
	case '.':
		c.dots()
	case ':':
		if strings.HasPrefix(rest, "::") {
			c.pos++
		} else {
			c.last = tokenDot
		}
	case ',', ';':
		c.begin()
		if last == tokenBreak {
			c.last = last
		}
	default:
		c.operation()
	}
	return ""
}

// dots has consumed one dot, and consumes those that belong to it.
func (c *checker) dots() {
	n := 1
	for n < 3 && c.pos < len(c.src) && c.src[c.pos] == '.' {
		c.pos++
		n++
	}
	switch n {
	case 1:
		c.last = tokenDot
	case 2:
		c.operation()
	case 3:
		c.operand()
	}
}

// longBracket consumes [[ ... ]] or [==[ ... ]==] if one begins here.
func (c *checker) longBracket() bool {
	rest := c.src[c.pos:]
	if rest == "" || rest[0] != '[' {
		return false
	}
	level := 1
	for level < len(rest) && rest[level] == '=' {
		level++
	}
	if level == len(rest) || rest[level] != '[' {
		return false
	}
	closing := "]" + rest[1:level] + "]"
	end := strings.Index(rest, closing)
	if end < 0 {
		end = len(rest) // the parser says what is missing
	} else {
		end += len(closing)
	}
	c.line += countLines(rest[:end])
	c.pos += end
	return true
}

func countLines(s string) (n int) {
	for i := 0; i < len(s); i++ {
		if width := lineEnd(s[i:]); width > 0 {
			n++
			i += width - 1
		}
	}
	return n
}

func isDigit(ch byte) bool { return '0' <= ch && ch <= '9' }

func isNameByte(ch byte) bool {
	return ch == '_' || isDigit(ch) || 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z'
}

// hint says what a syntax error near token may be about, for those who write Lua 5.4.
func hint(line, token string) string {
	code, _, _ := strings.Cut(line, "--")
	if token == "<" && (strings.Contains(code, "<const>") || strings.Contains(code, "<close>")) {
		return "Lua 5.1 has no <const> and no <close>"
	}
	return ""
}
