package luastate

import (
	"fmt"
	"strings"
)

// maxNesting bounds brackets inside brackets, because the compiler recurses. Lua's own limit is the same.
const maxNesting = 200

// checker reads a source only as far as it must to find what Lua 5.4 and 5.1 read differently: it
// knows comments, strings, numbers and names, and leaves the grammar to the parser.
type checker struct {
	src     string
	pos     int
	line    int
	nesting int
}

// check finds the first construct that would compile and then mean something else than its author
// thinks.
func check(name string, source []byte) *Error {
	c := &checker{src: string(source), line: 1}
	for c.pos < len(c.src) {
		if reason := c.next(); reason != "" {
			return &Error{File: name, Line: c.line, Reason: reason}
		}
	}
	return nil
}

// next consumes one token, white space or comment; a reason ends the check at the current line.
func (c *checker) next() (reason string) {
	ch := c.src[c.pos]
	switch {
	case ch == '\n':
		c.line++
		c.pos++
	case strings.HasPrefix(c.src[c.pos:], "--"):
		c.pos += 2
		if !c.longBracket() {
			c.skipTo('\n')
		}
	case ch == '"' || ch == '\'':
		return c.quoted(ch)
	case ch == '[':
		if c.longBracket() {
			return ""
		}
		return c.open()
	case ch == '(' || ch == '{':
		return c.open()
	case ch == ')' || ch == '}' || ch == ']':
		c.nesting--
		c.pos++
	case isNameByte(ch):
		return c.word()
	default:
		c.pos++
	}
	return ""
}

func (c *checker) open() string {
	c.pos++
	c.nesting++
	if c.nesting > maxNesting {
		return fmt.Sprintf("brackets are nested more than %d deep", maxNesting)
	}
	return ""
}

// word consumes a name or a number.
func (c *checker) word() string {
	start := c.pos
	for c.pos < len(c.src) && isNameByte(c.src[c.pos]) {
		c.pos++
	}
	word := c.src[start:c.pos]
	isField := start > 0 && (c.src[start-1] == '.' || c.src[start-1] == ':')
	switch {
	case word == "_ENV" && !isField:
		return "_ENV is unknown to Lua 5.1: use setfenv, or the fourth argument of load"
	case len(word) > 2 && word[:2] == "00" && !isField:
		// The parser drops one zero and reads what is left as octal.
		return "number " + word + " begins with more than one zero"
	}
	return ""
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
	c.line += strings.Count(rest[:end], "\n")
	c.pos += end
	return true
}

func (c *checker) skipTo(ch byte) {
	if n := strings.IndexByte(c.src[c.pos:], ch); n >= 0 {
		c.pos += n
	} else {
		c.pos = len(c.src)
	}
}

// quoted consumes a string in quotes. Lua 5.1 takes an escape that it does not know for the character
// itself, so '\x41' would be "x41".
func (c *checker) quoted(quote byte) string {
	for c.pos++; c.pos < len(c.src); c.pos++ {
		switch c.src[c.pos] {
		case quote:
			c.pos++
			return ""
		case '\n':
			return "" // unterminated: for the parser to say
		case '\\':
			if reason := c.escape(); reason != "" {
				return reason
			}
		}
	}
	return ""
}

// escape stands on the backslash and moves to the last byte of the escape.
func (c *checker) escape() string {
	c.pos++
	if c.pos == len(c.src) {
		return ""
	}
	switch ch := c.src[c.pos]; {
	case strings.IndexByte("abfnrtv\\\"'", ch) >= 0:
	case ch == '\n':
		c.line++
	case ch == '\r':
		if strings.HasPrefix(c.src[c.pos:], "\r\n") {
			c.pos++
		}
		c.line++
	case isDigit(ch):
		return c.decimalEscape()
	case ch == 'x':
		return `escape \x in a string is not available in Lua 5.1: write the byte in decimal, '\065' for '\x41'`
	case ch == 'u':
		return `escape \u{...} in a string is not available in Lua 5.1: use utf8.char, or write the character itself`
	case ch == 'z':
		return `escape \z in a string is not available in Lua 5.1: join the parts with ..`
	default:
		return fmt.Sprintf(`unknown escape %q in a string: a backslash itself is '\\'`, c.src[c.pos-1:c.pos+1])
	}
	return ""
}

func (c *checker) decimalEscape() string {
	start, value := c.pos, 0
	for c.pos < len(c.src) && c.pos < start+3 && isDigit(c.src[c.pos]) {
		value = value*10 + int(c.src[c.pos]-'0')
		c.pos++
	}
	digits := c.src[start:c.pos]
	c.pos--
	if value > 255 {
		return `escape \` + digits + " in a string is above 255"
	}
	return ""
}

func isDigit(ch byte) bool { return '0' <= ch && ch <= '9' }

func isNameByte(ch byte) bool {
	return ch == '_' || isDigit(ch) || 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z'
}

// hint says what a syntax error near token may be about, for those who write Lua 5.4.
func hint(line, token string) string {
	code, _, _ := strings.Cut(line, "--")
	switch {
	case token == "/" && strings.Contains(code, "//"):
		return "Lua 5.1 has no //: use math.floor(a / b)"
	case token == "<" && (strings.Contains(code, "<const>") || strings.Contains(code, "<close>")):
		return "Lua 5.1 has no <const> and no <close>"
	case token == "&" || token == "|" || token == "~",
		token == ">" && strings.Contains(code, ">>"), token == "<" && strings.Contains(code, "<<"):
		return "Lua 5.1 has no operators on bits"
	}
	return ""
}
