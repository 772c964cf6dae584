package jinja

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

type token struct {
	kind tokenKind
	at   position
	text string // as written; of a string, its value
	num  int64
	flt  float64
}

type tokenKind uint8

const (
	tokenNothing tokenKind = iota // the source ended
	tokenEnd                      // the closing marker
	tokenName
	tokenString
	tokenInt
	tokenFloat
	tokenOp
)

// is tells whether t is the operator or the word text.
func (t token) is(text string) bool {
	return (t.kind == tokenOp || t.kind == tokenName) && t.text == text
}

// lexer cuts the inside of one expression or tag into tokens.
type lexer struct {
	source string
	offset int
	places *cursor
	closer string
	// braces counts open map literals: inside one, "}}" is two closing braces.
	braces int
	trim   bool // the closing marker said "-"
	tokens []token
}

func (l *lexer) next() (token, error) {
	for l.offset < len(l.source) && strings.IndexByte(" \t\n\f\r", l.source[l.offset]) >= 0 {
		l.offset++
	}
	if l.offset == len(l.source) {
		return token{}, nil
	}
	at := l.places.position(l.offset)
	if t, ok := l.end(at); ok {
		return t, nil
	}
	c := l.source[l.offset]
	switch {
	case isNameStart(c):
		return l.name(at), nil
	case isDigit(c):
		return l.number(at)
	case c == '"' || c == '\'':
		return l.string(at, c)
	}
	return l.operator(at)
}

// end recognises the closing marker, with its whitespace control.
func (l *lexer) end(at position) (token, bool) {
	rest := l.source[l.offset:]
	mark := ""
	if rest[0] == '-' || rest[0] == '+' {
		mark, rest = rest[:1], rest[1:]
	}
	if !strings.HasPrefix(rest, l.closer) || l.closer == "}}" && l.braces > 0 {
		return token{}, false
	}
	l.trim = mark == "-"
	l.offset += len(mark) + 2
	return token{kind: tokenEnd, at: at, text: l.closer}, true
}

func isNameStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isName(s string) bool {
	if s == "" || !isNameStart(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isNameStart(s[i]) && !isDigit(s[i]) {
			return false
		}
	}
	return true
}

func (l *lexer) name(at position) token {
	start := l.offset
	for l.offset < len(l.source) && (isNameStart(l.source[l.offset]) || isDigit(l.source[l.offset])) {
		l.offset++
	}
	return token{kind: tokenName, at: at, text: l.source[start:l.offset]}
}

func (l *lexer) digits() {
	for l.offset < len(l.source) && isDigit(l.source[l.offset]) {
		l.offset++
	}
}

// peek returns the byte n places on, or 0.
func (l *lexer) peek(n int) byte {
	if l.offset+n < len(l.source) {
		return l.source[l.offset+n]
	}
	return 0
}

// number reads 12, 1.5 and 1e3. Other bases and underscores are refused.
func (l *lexer) number(at position) (token, error) {
	start := l.offset
	l.digits()
	t := token{kind: tokenInt, at: at}
	if l.peek(0) == '.' && isDigit(l.peek(1)) {
		t.kind = tokenFloat
		l.offset++
		l.digits()
	}
	if c := l.peek(0); c == 'e' || c == 'E' {
		sign := 0
		if s := l.peek(1); s == '+' || s == '-' {
			sign = 1
		}
		if isDigit(l.peek(1 + sign)) {
			t.kind = tokenFloat
			l.offset += 1 + sign
			l.digits()
		}
	}
	t.text = l.source[start:l.offset]
	if c := l.peek(0); isNameStart(c) || c == '.' {
		return token{}, at.errorf("malformed number %q", t.text+string(c))
	}
	var err error
	if t.kind == tokenFloat {
		t.flt, err = strconv.ParseFloat(t.text, 64)
	} else {
		t.num, err = strconv.ParseInt(t.text, 10, 64)
	}
	if err != nil {
		return token{}, at.errorf("number %s is too large", t.text)
	}
	return t, nil
}

func (l *lexer) string(at position, quote byte) (token, error) {
	var b strings.Builder
	for i := l.offset + 1; i < len(l.source); i++ {
		switch c := l.source[i]; c {
		case quote:
			l.offset = i + 1
			return token{kind: tokenString, at: at, text: b.String()}, nil
		case '\\':
			s, size := unescape(l.source[i+1:])
			if size == 0 {
				if i+1 == len(l.source) {
					continue
				}
				r, _ := utf8.DecodeRuneInString(l.source[i+1:])
				return token{}, l.places.position(i).errorf("unknown escape \\%c in a string; a backslash is written \\\\", r)
			}
			b.WriteString(s)
			i += size
		default:
			b.WriteByte(c)
		}
	}
	return token{}, at.errorf("string is never closed by %c", quote)
}

// unescape reads what follows a backslash. It returns a size of 0 if that is no
// escape that all versions of minijinja read alike.
func unescape(s string) (text string, size int) {
	if s == "" {
		return "", 0
	}
	switch s[0] {
	case '\\', '/', '\'', '"':
		return s[:1], 1
	case 'n':
		return "\n", 1
	case 'r':
		return "\r", 1
	case 't':
		return "\t", 1
	case 'b':
		return "\b", 1
	case 'f':
		return "\f", 1
	case 'x':
		if r, ok := hexRune(s[1:], 2); ok {
			return string(r), 3
		}
	case 'u':
		return unescapeUnicode(s)
	}
	return "", 0
}

// unescapeUnicode reads \uXXXX; beyond the basic plane, a pair of them.
func unescapeUnicode(s string) (string, int) {
	r, ok := hexRune(s[1:], 4)
	if !ok || 0xDC00 <= r && r <= 0xDFFF {
		return "", 0
	}
	if r < 0xD800 || r > 0xDFFF {
		return string(r), 5
	}
	if len(s) < 11 || s[5] != '\\' || s[6] != 'u' {
		return "", 0
	}
	low, ok := hexRune(s[7:], 4)
	if !ok || low < 0xDC00 || low > 0xDFFF {
		return "", 0
	}
	return string((r-0xD800)<<10 + (low - 0xDC00) + 0x10000), 11
}

func hexRune(s string, digits int) (rune, bool) {
	if len(s) < digits {
		return 0, false
	}
	for i := range digits {
		c := s[i]
		if !isDigit(c) && (c|0x20 < 'a' || 'f' < c|0x20) {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s[:digits], 16, 32)
	return rune(n), err == nil
}

// otherLanguages are operators that pongo2 and C know and Jinja does not.
var otherLanguages = map[string]string{"&&": "and", "||": "or", "<>": "!="}

func (l *lexer) operator(at position) (token, error) {
	rest := l.source[l.offset:]
	if len(rest) >= 2 {
		switch two := rest[:2]; two {
		case "%}", "}}":
			if l.braces == 0 { // the marker that closes the other kind
				return token{}, at.errorf("unexpected %q, expected %q", two, l.closer)
			}
		case "==", "!=", "<=", ">=", "//":
			l.offset += 2
			return token{kind: tokenOp, at: at, text: two}, nil
		case "&&", "||", "<>":
			return token{}, at.errorf("%q is not an operator of Jinja; write %q", two, otherLanguages[two])
		case "**":
			return token{}, at.errorf("operator \"**\" is not supported")
		}
	}
	switch c := rest[0]; c {
	case '{':
		l.braces++
	case '}':
		if l.braces == 0 {
			return token{}, at.errorf("unexpected \"}\", expected %q", l.closer)
		}
		l.braces--
	case '+', '-', '*', '/', '%', '<', '>', '(', ')', '[', ']', ',', '.', ':', '|', '~', '=':
	case '!':
		return token{}, at.errorf("\"!\" is not an operator of Jinja; write \"not\"")
	default:
		r, _ := utf8.DecodeRuneInString(rest)
		return token{}, at.errorf("unexpected character %q", r)
	}
	l.offset++
	return token{kind: tokenOp, at: at, text: rest[:1]}, nil
}
