package header

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxName bounds the name of a new field: with the colon it must fit on one line of 998 octets (RFC 5322
// section 2.1.1).
const maxName = 900

// NewField makes a field, line end included. The name must be one by RFC 5322 section 2.2. The value may be
// folded, that is, have CRLF before white space, and may end in one CRLF, which is not doubled; any other
// CR, LF or NUL is an error, because it would end the field and begin something else.
//
// With encode the value is a text, in UTF-8 and without line breaks: what is not ASCII becomes encoded
// words (RFC 2047), and long lines are folded where there is space. Without, it goes in as it is.
func NewField(name, value, eol string, encode bool) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if len(value) > MaxBlock {
		return nil, ErrTooLong
	}
	check := checkFolded
	if encode {
		check = checkText
	} else {
		value = strings.TrimSuffix(value, "\r\n")
	}
	if err := check(value); err != nil {
		return nil, fmt.Errorf("the value of the header %s %w", name, err)
	}
	if encode {
		value = fold(words(value), len(name)+2, eol)
	}
	field := make([]byte, 0, len(name)+len(value)+4)
	field = append(field, name...)
	field = append(field, ": "...)
	field = append(field, value...)
	return append(field, eol...), nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name of a header is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name of a header is longer than %d bytes", maxName)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == ':' {
			return fmt.Errorf("the header name %q holds %q", name, c)
		}
	}
	return nil
}

// checkFolded refuses a line break that is no folding, that is, not followed by a blank or followed by
// nothing but blanks: RFC 5322 section 3.2.2 has no such line, and some take it for the end of the header.
func checkFolded(value string) error {
	if strings.IndexByte(value, 0) >= 0 {
		return errors.New("holds a NUL")
	}
	lines := strings.Split(value, "\r\n")
	for i, line := range lines {
		switch {
		case strings.ContainsAny(line, "\r\n"):
			return errors.New("holds a line break that is not CRLF")
		case i > 0 && (line == "" || !isBlank(line[0])):
			return errors.New("holds a line break without a space or tab after it")
		case i > 0 && strings.Trim(line, " \t") == "":
			return errors.New("holds an empty line")
		}
	}
	return nil
}

func checkText(value string) error {
	if !utf8.ValidString(value) {
		return errors.New("is not UTF-8")
	}
	if i := strings.IndexAny(value, "\r\n\x00"); i >= 0 {
		return fmt.Errorf("holds %q", value[i])
	}
	return nil
}

// words are the words of a text as they go on the wire: those that cannot stay as they are become encoded
// words. What lies between two encoded words is lost when they are decoded (RFC 2047 section 6.2), so
// words that need encoding and stand side by side are encoded as one text, with the space in it.
func words(text string) []string {
	var all, run []string
	flush := func() {
		if len(run) > 0 {
			all = appendEncoded(all, strings.Join(run, " "))
			run = nil
		}
	}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' }) {
		if needsEncoding(word) {
			run = append(run, word)
			continue
		}
		flush()
		all = append(all, word)
	}
	flush()
	return all
}

// needsEncoding holds for what is not printable ASCII and for what would be decoded without having been
// encoded.
func needsEncoding(word string) bool {
	for i := range len(word) {
		if word[i] <= ' ' || word[i] > '~' {
			return true
		}
	}
	return strings.Contains(word, "=?")
}

// maxEncoded is the most that an encoded word may have (RFC 2047 section 2).
const maxEncoded = 75

// appendEncoded appends text as encoded words in the Q encoding. No character is split between two of them
// (RFC 2047 section 5).
func appendEncoded(all []string, text string) []string {
	const begin, end, hex = "=?utf-8?q?", "?=", "0123456789ABCDEF"
	word := []byte(begin)
	for text != "" {
		_, width := utf8.DecodeRuneInString(text)
		var encoded []byte
		for _, c := range []byte(text[:width]) {
			switch {
			case c == ' ':
				encoded = append(encoded, '_')
			case isLiteral(c):
				encoded = append(encoded, c)
			default:
				encoded = append(encoded, '=', hex[c>>4], hex[c&15])
			}
		}
		if len(word)+len(encoded)+len(end) > maxEncoded {
			all = append(all, string(word)+end)
			word = word[:len(begin)]
		}
		word = append(word, encoded...)
		text = text[width:]
	}
	return append(all, string(word)+end)
}

// isLiteral holds for what may stand for itself even in the name of a mailbox (RFC 2047 section 5).
func isLiteral(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!*+-/", c) >= 0
}

// lineLength is where lines are folded if they can be: RFC 5322 section 2.1.1, with some room. A word
// longer than hardLength is broken all the same, because no line may have more than 998 octets. One that
// would be because the name before it is so long begins on a line of its own.
const (
	lineLength = 75
	hardLength = 900
)

// fold puts words on lines. The first line has used some columns already.
func fold(words []string, used int, eol string) string {
	var b strings.Builder
	for i, word := range words {
		if behindLongName := i == 0 && used+len(word) > hardLength && len(word) < hardLength; i > 0 || behindLongName {
			if used+1+len(word) > lineLength {
				b.WriteString(eol)
				used = 0
			}
			b.WriteByte(' ')
			used++
		}
		for used+len(word) > hardLength {
			room := hardLength - used
			b.WriteString(word[:room])
			b.WriteString(eol + " ")
			word, used = word[room:], 1
		}
		b.WriteString(word)
		used += len(word)
	}
	return b.String()
}
