package luastate

import (
	"fmt"
	"strings"
)

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
