package decode

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// ParseJSON reads one JSON value as a tree. Beyond what RFC 8259 calls an
// error, a key that is given twice, text after the value, text that is not
// UTF-8, half of a surrogate pair, a number beyond a float64 and nesting deeper
// than 64 are errors. An error is an [*Error] with the path, where one is known,
// and with line and column, both from 1, in its reason.
func ParseJSON(data []byte) (any, error) {
	p := jsonParser{data: data}
	p.skipSpace()
	tree, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.skipSpace()
	if p.pos < len(p.data) {
		return nil, p.unexpected("the end of the text")
	}
	return tree, nil
}

type jsonParser struct {
	data []byte
	pos  int
}

// failAt makes an error about the byte at pos.
func (p *jsonParser) failAt(pos int, format string, args ...any) error {
	line, start := 1, 0
	for i, c := range p.data[:pos] {
		if c == '\n' {
			line, start = line+1, i+1
		}
	}
	column := utf8.RuneCount(p.data[start:pos]) + 1
	return Errorf("", "line %d, column %d: %s", line, column, fmt.Sprintf(format, args...))
}

func (p *jsonParser) unexpected(want string) error {
	if p.pos >= len(p.data) {
		return p.failAt(len(p.data), "unexpected end of the text, expected %s", want)
	}
	r, size := utf8.DecodeRune(p.data[p.pos:])
	if r == utf8.RuneError && size == 1 {
		return p.failAt(p.pos, "byte 0x%02x is not valid UTF-8", p.data[p.pos])
	}
	return p.failAt(p.pos, "unexpected %q, expected %s", r, want)
}

func (p *jsonParser) skipSpace() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// next returns the byte at the position, or 0 at the end. A NUL in the text is
// as unexpected as the end is.
func (p *jsonParser) next() byte {
	if p.pos < len(p.data) {
		return p.data[p.pos]
	}
	return 0
}

func (p *jsonParser) value(depth int) (any, error) {
	switch c := p.next(); {
	case depth == maxDepth && (c == '{' || c == '['):
		return nil, p.failAt(p.pos, "nested more than %d deep", maxDepth)
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.list(depth)
	case c == '"':
		return p.str()
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == 't':
		return true, p.word("true")
	case c == 'f':
		return false, p.word("false")
	case c == 'n':
		return nil, p.word("null")
	}
	return nil, p.unexpected("a value")
}

func (p *jsonParser) word(word string) error {
	for i := range len(word) {
		if p.next() != word[i] {
			return p.unexpected(word)
		}
		p.pos++
	}
	return nil
}

func (p *jsonParser) object(depth int) (any, error) {
	p.pos++
	object := map[string]any{}
	p.skipSpace()
	if p.next() == '}' {
		p.pos++
		return object, nil
	}
	for {
		if p.next() != '"' {
			return nil, p.unexpected("a key in double quotes")
		}
		start := p.pos
		key, err := p.str()
		if err != nil {
			return nil, err
		}
		if _, twice := object[key]; twice {
			return nil, In(keyPath(key), p.failAt(start, "given twice"))
		}
		p.skipSpace()
		if p.next() != ':' {
			return nil, In(keyPath(key), p.unexpected("':'"))
		}
		p.pos++
		p.skipSpace()
		if object[key], err = p.value(depth + 1); err != nil {
			return nil, In(keyPath(key), err)
		}
		p.skipSpace()
		if p.next() == '}' {
			p.pos++
			return object, nil
		}
		if p.next() != ',' {
			return nil, p.unexpected("',' or '}'")
		}
		p.pos++
		p.skipSpace()
	}
}

func (p *jsonParser) list(depth int) (any, error) {
	p.pos++
	list := []any{}
	p.skipSpace()
	if p.next() == ']' {
		p.pos++
		return list, nil
	}
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, In(indexPath(len(list)), err)
		}
		list = append(list, item)
		p.skipSpace()
		if p.next() == ']' {
			p.pos++
			return list, nil
		}
		if p.next() != ',' {
			return nil, p.unexpected("',' or ']'")
		}
		p.pos++
		p.skipSpace()
	}
}

func (p *jsonParser) number() (any, error) {
	start, integral := p.pos, true
	if p.next() == '-' {
		p.pos++
	}
	if p.next() == '0' {
		p.pos++
	} else if err := p.digits(); err != nil {
		return nil, err
	}
	if p.next() == '.' {
		integral = false
		p.pos++
		if err := p.digits(); err != nil {
			return nil, err
		}
	}
	if c := p.next(); c == 'e' || c == 'E' {
		integral = false
		p.pos++
		if c := p.next(); c == '+' || c == '-' {
			p.pos++
		}
		if err := p.digits(); err != nil {
			return nil, err
		}
	}
	text := string(p.data[start:p.pos])
	if integral {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, p.failAt(start, "the number is out of range")
	}
	return f, nil
}

func (p *jsonParser) digits() error {
	start := p.pos
	for c := p.next(); '0' <= c && c <= '9'; c = p.next() {
		p.pos++
	}
	if p.pos == start {
		return p.unexpected("a digit")
	}
	return nil
}

func (p *jsonParser) str() (string, error) {
	open := p.pos
	p.pos++
	var text []byte
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; {
		case c == '"':
			p.pos++
			return string(text), nil
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			text = utf8.AppendRune(text, r)
		case c < ' ':
			return "", p.failAt(p.pos, "the control character %q must be written as an escape", c)
		case c < utf8.RuneSelf:
			text = append(text, c)
			p.pos++
		default:
			r, size := utf8.DecodeRune(p.data[p.pos:])
			if r == utf8.RuneError && size == 1 {
				return "", p.failAt(p.pos, "byte 0x%02x is not valid UTF-8", c)
			}
			text = append(text, p.data[p.pos:p.pos+size]...)
			p.pos += size
		}
	}
	return "", p.failAt(open, "the string has no closing quote")
}

func (p *jsonParser) escape() (rune, error) {
	start := p.pos
	p.pos++
	c := p.next()
	if c == 'u' {
		return p.unicodeEscape(start)
	}
	p.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	}
	return 0, p.failAt(start, "unknown escape after the backslash")
}

// unicodeEscape reads \uXXXX, or two of them that are one character (RFC 8259
// section 7). The position is at the u.
func (p *jsonParser) unicodeEscape(start int) (rune, error) {
	r, err := p.hex4(start)
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.next() == '\\' {
		p.pos++
		if p.next() == 'u' {
			low, err := p.hex4(start)
			if err != nil {
				return 0, err
			}
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				return r, nil
			}
		}
	}
	return 0, p.failAt(start, "half of a surrogate pair")
}

func (p *jsonParser) hex4(start int) (rune, error) {
	p.pos++
	if len(p.data)-p.pos >= 4 {
		// ParseUint takes no sign and, with the base given, no prefix or underscore.
		if n, err := strconv.ParseUint(string(p.data[p.pos:p.pos+4]), 16, 16); err == nil {
			p.pos += 4
			return rune(n), nil
		}
	}
	return 0, p.failAt(start, "an escape with \\u needs four hexadecimal digits")
}
