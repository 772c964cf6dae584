package jinja

import (
	"fmt"
	"unicode/utf8"
)

// position is a place in the source, counted from 1, columns in characters.
type position struct{ line, column int }

func (at position) errorf(format string, args ...any) *Error {
	return &Error{Line: at.line, Column: at.column, Reason: fmt.Sprintf(format, args...)}
}

// cursor turns byte offsets into positions. It only moves forward, so that a
// whole template costs one pass.
type cursor struct {
	source string
	offset int
	at     position
}

func newCursor(source string) cursor {
	return cursor{source: source, at: position{1, 1}}
}

// position returns the place of a byte offset not before that of the last call.
func (c *cursor) position(offset int) position {
	for c.offset < offset {
		if c.source[c.offset] == '\n' {
			c.at.line++
			c.at.column = 1
			c.offset++
			continue
		}
		_, size := utf8.DecodeRuneInString(c.source[c.offset:])
		c.offset += size
		c.at.column++
	}
	return c.at
}
