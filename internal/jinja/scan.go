package jinja

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSource bounds a template's source, and with it the work of compiling it.
const maxSource = 64 << 10

// item is one part of a template's source: text, an expression or a tag.
type item struct {
	kind itemKind
	at   position
	text string // of itemText
	// tokens of itemOutput and itemTag; the last one is tokenEnd
	tokens []token
}

type itemKind uint8

const (
	itemText itemKind = iota
	itemOutput
	itemTag
)

var (
	rawTag    = regexp.MustCompile(`^\{%[-+]?[ \t\n\f\r]*raw[ \t\n\f\r]*[-+]?%\}`)
	endRawTag = regexp.MustCompile(`\{%[-+]?[ \t\n\f\r]*endraw[ \t\n\f\r]*[-+]?%\}`)
)

// scanner splits a source into items. Comments vanish here, raw blocks become
// text, and whitespace control is applied.
type scanner struct {
	source string
	places cursor
	offset int
	// trimNext is set by a closing "-}}" and concerns only what follows at once.
	trimNext bool
	items    []item
}

func scan(source string) ([]item, error) {
	s := &scanner{source: source, places: newCursor(source)}
	if len(source) > maxSource {
		return nil, position{1, 1}.errorf("the template is %d bytes long, more than %d", len(source), maxSource)
	}
	if !utf8.ValidString(source) {
		return nil, s.places.position(invalidByte(source)).errorf("the template is not valid UTF-8")
	}
	s.source = withoutFinalNewline(source)
	for s.offset < len(s.source) {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	return s.items, nil
}

func invalidByte(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return len(s)
}

// withoutFinalNewline drops one newline, LF or CRLF or CR, as minijinja does.
func withoutFinalNewline(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// next scans the text up to the next opening marker, and what that opens.
func (s *scanner) next() error {
	start, end := s.offset, nextMarker(s.source, s.offset)
	text := s.source[start:end]
	if i := strayCloser(text); i >= 0 {
		return s.places.position(start+i).errorf("%q closes nothing; write {{ %q }} to print it", text[i:i+2], text[i:i+2])
	}
	s.addText(start, end, s.trimNext, end+2 < len(s.source) && s.source[end+2] == '-')
	s.trimNext = false
	s.offset = end
	if end == len(s.source) {
		return nil
	}
	switch {
	case s.source[end+1] == '#':
		return s.comment()
	case rawTag.MatchString(s.source[end:]):
		return s.raw()
	case s.source[end+1] == '{':
		return s.code(itemOutput, "}}")
	default:
		return s.code(itemTag, "%}")
	}
}

// nextMarker returns the offset of the next {{, {% or {#, or the end.
func nextMarker(source string, from int) int {
	for i := from; i+1 < len(source); i++ {
		if source[i] == '{' && (source[i+1] == '{' || source[i+1] == '%' || source[i+1] == '#') {
			return i
		}
	}
	return len(source)
}

// strayCloser finds a closing marker that nothing opened. minijinja prints it;
// in a template it is a slip that would change every output.
func strayCloser(text string) int {
	for i := 0; i+1 < len(text); i++ {
		if text[i+1] == '}' && (text[i] == '}' || text[i] == '%' || text[i] == '#') {
			return i
		}
	}
	return -1
}

func (s *scanner) addText(start, end int, trimLeft, trimRight bool) {
	text := s.source[start:end]
	if trimLeft {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
		start = end - len(text)
	}
	if trimRight {
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	}
	if text == "" {
		return
	}
	s.items = append(s.items, item{kind: itemText, at: s.places.position(start), text: text})
}

func (s *scanner) comment() error {
	body := s.offset + 2
	if body < len(s.source) && (s.source[body] == '-' || s.source[body] == '+') {
		body++
	}
	n := strings.Index(s.source[body:], "#}")
	if n < 0 {
		return s.places.position(s.offset).errorf("comment {# is never closed")
	}
	s.trimNext = n > 0 && s.source[body+n-1] == '-'
	s.offset = body + n + 2
	return nil
}

func (s *scanner) raw() error {
	begin := s.offset + len(rawTag.FindString(s.source[s.offset:]))
	span := endRawTag.FindStringIndex(s.source[begin:])
	if span == nil {
		return s.places.position(s.offset).errorf("{%% raw %%} without {%% endraw %%}")
	}
	end, after := begin+span[0], begin+span[1]
	s.addText(begin, end, s.source[begin-3] == '-', s.source[end+2] == '-')
	s.trimNext = s.source[after-3] == '-'
	s.offset = after
	return nil
}

// code scans an expression or a tag up to its closing marker.
func (s *scanner) code(kind itemKind, closer string) error {
	l := lexer{source: s.source, offset: s.offset + 2, places: &s.places, closer: closer}
	open := s.places.position(s.offset)
	if l.offset < len(s.source) && (s.source[l.offset] == '-' || s.source[l.offset] == '+') {
		l.offset++
	}
	for {
		t, err := l.next()
		if err != nil {
			return err
		}
		if t.kind == tokenNothing {
			return open.errorf("%q is never closed by %q", s.source[s.offset:s.offset+2], closer)
		}
		l.tokens = append(l.tokens, t)
		if t.kind == tokenEnd {
			break
		}
	}
	s.items = append(s.items, item{kind: kind, at: open, tokens: l.tokens})
	s.offset = l.offset
	s.trimNext = l.trim
	return nil
}
