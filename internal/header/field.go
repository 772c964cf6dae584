package header

import (
	"bytes"
	"strings"
)

// Field is one field of a block: name, colon, value. It is part of the block and lives as long.
type Field struct {
	raw   []byte // all of it, with the line ends
	name  []byte
	value []byte
}

// parseField takes the first field off text, which is not empty and does not begin with a line end.
//
// What is no field by the grammar becomes one all the same, so that it can be told apart and kept: a line
// without a colon is all name, and continuation lines with nothing above them are all value.
func parseField(text []byte) Field {
	line, end := cutLine(text)
	for end < len(text) && isBlank(text[end]) {
		_, next := cutLine(text[end:])
		end += next
	}
	f := Field{raw: text[:end:end]}
	colon := bytes.IndexByte(line, ':')
	switch {
	case isBlank(text[0]):
		f.value = trim(f.raw)
	case colon < 0:
		f.name = trim(line)
		f.value = trim(f.raw[len(line):])
	default:
		// RFC 5322 section 4.5: obsolete fields have space before the colon.
		f.name = trim(line[:colon])
		f.value = trim(f.raw[colon+1:])
	}
	return f
}

// cutLine is the first line of text, without its end, and where the next begins.
func cutLine(text []byte) (line []byte, next int) {
	n := bytes.IndexByte(text, '\n')
	if n < 0 {
		return text, len(text)
	}
	return text[:n], n + 1
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// trim takes white space and line ends off both ends of text.
func trim(text []byte) []byte {
	for len(text) > 0 && isSpace(text[0]) {
		text = text[1:]
	}
	for len(text) > 0 && isSpace(text[len(text)-1]) {
		text = text[:len(text)-1]
	}
	return text
}

func isSpace(c byte) bool { return isBlank(c) || c == '\r' || c == '\n' }

// Name is the name as it is written.
func (f Field) Name() string { return string(f.name) }

// Is reports whether a field has a name, whatever the case of its letters.
func (f Field) Is(name string) bool { return len(f.name) == len(name) && f.HasPrefix(name) }

// HasPrefix reports whether the name begins with prefix, whatever the case of its letters.
func (f Field) HasPrefix(prefix string) bool {
	if len(f.name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if a, b := f.name[i], prefix[i]; a != b && lower(a) != lower(b) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Text is the value on one line: unfolded, each stretch of white space a single space, and encoded words
// (RFC 2047) decoded. A value with an encoded word in a charset that is not known stays encoded. What is
// 8-bit in the message is so here, unless there are encoded words beside it: these make it UTF-8.
func (f Field) Text() string {
	text := unfold(f.value)
	if !strings.Contains(text, "=?") || len(text) > maxDecoded {
		return text
	}
	if decoded, err := strict.DecodeHeader(text); err == nil {
		return strings.ToValidUTF8(decoded, "\uFFFD")
	}
	return text
}

// unfold makes each stretch of white space, with the line ends of folding among it, one space.
func unfold(value []byte) string {
	if isUnfolded(value) { // as most are
		return string(value)
	}
	var b strings.Builder
	b.Grow(len(value))
	space := false
	for _, c := range value {
		if isSpace(c) {
			space = true
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isUnfolded(value []byte) bool {
	space := false
	for _, c := range value {
		if isSpace(c) {
			if space || c != ' ' {
				return false
			}
			space = true
			continue
		}
		space = false
	}
	return true
}
