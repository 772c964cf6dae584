package smtpclient

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a reply. RFC 5321 section 4.5.3.1.5 asks for 512 octets a line; the rest keeps a hostile
// peer from filling memory.
const (
	maxReplyLine  = 4096 // octets with CRLF
	maxReplyLines = 128
	maxReplySize  = 64 << 10 // octets of all lines
	maxReplyText  = 8 << 10  // octets kept of the text of a Reply
)

// Enhanced is an enhanced status code (RFC 3463). The zero value means that there was none.
type Enhanced [3]int

// String returns "5.1.1", and "" for the zero value.
func (e Enhanced) String() string {
	if e == (Enhanced{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2])
}

// Reply is what a peer answered.
type Reply struct {
	Code     int // 200 to 599
	Enhanced Enhanced
	// Text holds the lines joined by "\n", without code and enhanced code. It is valid UTF-8 without
	// control characters: whatever else a peer sent stands as \xNN or \u{NNNN}. At most 8 KiB are kept.
	Text string
}

// String returns the reply on one line.
func (r Reply) String() string {
	s := strconv.Itoa(r.Code)
	if e := r.Enhanced.String(); e != "" {
		s += " " + e
	}
	if r.Text != "" {
		s += " " + strings.ReplaceAll(r.Text, "\n", " ")
	}
	return s
}

// reply is a reply as it lies in the session's buffer: its text is valid until the next one is read.
type reply struct {
	code     int
	enhanced Enhanced
	text     []byte // bytes of the peer, lines joined by "\n"
	// odd says what is wrong with a reply whose verdict is certain all the same; nil if nothing is.
	odd error
}

func (r *reply) class() int { return r.code / 100 }

// keep copies the reply out of the buffer and makes its text safe.
func (r *reply) keep() Reply {
	return Reply{Code: r.code, Enhanced: r.enhanced, Text: safeText(r.text, maxReplyText)}
}

// errMalformed is the root of what is wrong with replies.
type errMalformed string

func (e errMalformed) Error() string { return string(e) }

const (
	errLineTooLong  = errMalformed("a line is longer than 4096 octets")
	errTooManyLines = errMalformed("more than 128 lines")
	errTooLong      = errMalformed("more than 64 KiB")
	errBareLF       = errMalformed("a line ends in LF without CR")
	errNUL          = errMalformed("a line holds NUL")
	errNoCode       = errMalformed("a line does not begin with a reply code")
	errMixedCodes   = errMalformed("its codes differ")
	errMixedClasses = errMalformed("its lines have different codes")
	errUnasked      = errMalformed("the peer said more than it was asked")
	errOutOfStep    = errMalformed("the peer is out of step")
	errEarlyVerdict = errMalformed("the peer accepted content that had not ended")
)

// replyParser takes a reply line by line. What makes its verdict uncertain is an error: no code, codes
// of different classes, more than the bounds allow. What does not is kept in odd: to call a refusal of
// the content no reply at all would have the message sent again and again, by a peer's one constant bug.
type replyParser struct {
	reply
	lines, size int
}

// add takes a line, with its line end up to the LF cut off. done reports whether it was the last one.
func (p *replyParser) add(line []byte) (done bool, err error) {
	p.lines++
	p.size += len(line) + len("\n")
	switch {
	case p.lines > maxReplyLines:
		return false, errTooManyLines
	case p.size > maxReplySize:
		return false, errTooLong
	}
	line, crlf := bytes.CutSuffix(line, []byte("\r"))
	code, done, text, ok := cutCode(line)
	switch {
	case !ok:
		return false, errNoCode
	case p.lines == 1:
		p.code = code
	case code/100 != p.code/100:
		return false, errMixedClasses
	default:
		p.text = append(p.text, '\n')
	}
	switch {
	case !crlf:
		p.odd = errBareLF
	case bytes.IndexByte(line, 0) >= 0:
		p.odd = errNUL
	case code != p.code:
		p.odd = errMixedCodes
	}
	p.text = append(p.text, p.cutEnhanced(text)...)
	return done, nil
}

// cutCode reads "250 text", "250-text" and "250". Only first digits that RFC 5321 section 4.2.1 knows
// make a code: what a peer means by another one is anybody's guess.
func cutCode(line []byte) (code int, last bool, text []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	switch {
	case len(line) == 3:
		return code, true, nil, true
	case line[3] == ' ' || line[3] == '-':
		return code, line[3] == ' ', line[4:], true
	}
	return 0, false, nil, false
}

// cutEnhanced removes the reply's enhanced code from the beginning of a line. The first line that has
// one decides which it is.
func (p *replyParser) cutEnhanced(text []byte) []byte {
	e, rest, ok := cutEnhanced(text)
	if !ok {
		return text
	}
	if p.enhanced == (Enhanced{}) {
		p.enhanced = e
	}
	if e != p.enhanced {
		return text
	}
	return rest
}

func cutEnhanced(text []byte) (e Enhanced, rest []byte, ok bool) {
	rest = text
	for i := range e {
		digits := 0
		for digits < len(rest) && digits < 3 && isDigit(rest[digits]) {
			e[i] = e[i]*10 + int(rest[digits]-'0')
			digits++
		}
		rest = rest[digits:]
		end := byte('.')
		if i == len(e)-1 {
			end = ' '
		}
		switch {
		case digits == 0:
			return Enhanced{}, nil, false
		case len(rest) > 0 && rest[0] == end:
			rest = rest[1:]
		case len(rest) > 0 || end == '.':
			return Enhanced{}, nil, false
		}
	}
	if e[0] != 2 && e[0] != 4 && e[0] != 5 {
		return Enhanced{}, nil, false
	}
	return e, rest, true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// safeText makes bytes of a peer fit for logs, results and scripts, and no longer than limit.
func safeText(b []byte, limit int) string {
	if len(b) <= limit && isPlain(b) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		if s.Len() >= limit {
			s.WriteString("...")
			break
		}
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\t':
			s.WriteByte(' ')
		case r == utf8.RuneError && n == 1, r < utf8.RuneSelf && r != '\n' && unicode.IsControl(r):
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case r != '\n' && !unicode.IsGraphic(r):
			fmt.Fprintf(&s, `\u{%x}`, r)
		default:
			s.WriteRune(r)
		}
		b = b[n:]
	}
	return s.String()
}

func isPlain(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\n' {
			return false
		}
	}
	return true
}

// isMalformed reports whether err says that a reply was malformed.
func isMalformed(err error) bool {
	var m errMalformed
	return errors.As(err, &m)
}

// firstLine is the first line of what may be a reply, safe to print.
func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return safeText(bytes.TrimSuffix(line, []byte("\r")), maxReplyText)
}
