package smtpclient

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestReplies(t *testing.T) {
	tests := []struct {
		in, want string // want is the reply's parts, and behind them what is odd; or an error
	}{
		{"250\r\n", "250 {} "},
		{"250 \r\n", "250 {} "},
		{"250 ok\r\n", "250 {} ok"},
		{"250-a\r\n250-b\r\n250 c\r\n", "250 {} a\nb\nc"},
		{"250-a\r\n250\r\n", "250 {} a\n"},
		{"250 2.1.0 ok\r\n", "250 {2.1.0} ok"},
		{"250 2.1.0\r\n", "250 {2.1.0} "},
		{"250 2.1.0 \r\n", "250 {2.1.0} "},
		{"550-5.1.1 a\r\n550 5.1.1 b\r\n", "550 {5.1.1} a\nb"},
		{"550-5.1.1 a\r\n550 5.7.1 b\r\n", "550 {5.1.1} a\n5.7.1 b"},
		{"550-a\r\n550 5.7.1 b\r\n", "550 {5.7.1} a\nb"},
		{"550 5.7.100 b\r\n", "550 {5.7.100} b"},
		{"550 5.7.1000 b\r\n", "550 {} 5.7.1000 b"},
		{"550 3.7.1 b\r\n", "550 {} 3.7.1 b"},
		{"550 5.7.1.2 b\r\n", "550 {} 5.7.1.2 b"},
		{"550 5.7.1x b\r\n", "550 {} 5.7.1x b"},
		{"550 5.7\r\n", "550 {} 5.7"},
		{"550  5.7.1 b\r\n", "550 {}  5.7.1 b"},
		{"250 a\rb\r\n", `250 {} a\x0db`},
		{"250 \xff\xc3\xa4\u2028\r\n", `250 {} \xffä\u{2028}`},
		{"250 ok\n", "250 {} ok; a line ends in LF without CR"},
		{"250\n", "250 {} ; a line ends in LF without CR"},
		{"550-5.1.1 a\r\n550-b\n550 c\r\n", "550 {5.1.1} a\nb\nc; a line ends in LF without CR"},
		{"250 a\r\r\n", `250 {} a\x0d`},
		{"\n", "a line does not begin with a reply code"},
		{"250-a\n\n250 b\n", "a line does not begin with a reply code"},
		{"\r\n", "a line does not begin with a reply code"},
		{"25\r\n", "a line does not begin with a reply code"},
		{"150 ok\r\n", "a line does not begin with a reply code"},
		{"650 ok\r\n", "a line does not begin with a reply code"},
		{"2x0 ok\r\n", "a line does not begin with a reply code"},
		{"250ok\r\n", "a line does not begin with a reply code"},
		{"250\tok\r\n", "a line does not begin with a reply code"},
		{"250 o\x00k\r\n", `250 {} o\x00k; a line holds NUL`},
		{"\x00250 ok\r\n", "a line does not begin with a reply code"},
		{"250-a\r\n251 b\r\n", "250 {} a\nb; its codes differ"},
		{"550-a\r\n554 b\r\n", "550 {} a\nb; its codes differ"},
		{"250-a\r\n550 b\r\n", "its lines have different codes"},
		{"250-a\n350 b\n", "its lines have different codes"},
		{"250 " + strings.Repeat("x", 4090) + "\r\n", "250 {} " + strings.Repeat("x", 4090)},
		{"250 " + strings.Repeat("x", 4091) + "\r\n", "a line is longer than 4096 octets"},
		{strings.Repeat("250-\r\n", 127) + "250 \r\n", "250 {} " + strings.Repeat("\n", 127)},
		{strings.Repeat("250-\r\n", 128) + "250 \r\n", "more than 128 lines"},
		{strings.Repeat("250-"+strings.Repeat("x", 4000)+"\r\n", 17), "more than 64 KiB"},
		{"250 ok", "EOF"},
		{"", "EOF"},
	}
	for _, test := range tests {
		for _, size := range []int{1, 3, 1 << 20} {
			r, odd, err := readFrom([]byte(test.in), size)
			got := fmt.Sprintf("%d {%v} %s", r.Code, r.Enhanced, r.Text)
			if odd != nil {
				got += "; " + odd.Error()
			}
			if err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%.100q in pieces of %d: got %.100q, want %.100q", test.in, size, got, test.want)
			}
		}
	}
}

func TestReplyString(t *testing.T) {
	r := Reply{550, Enhanced{5, 1, 1}, "no\nsuch"}
	if got := r.String(); got != "550 5.1.1 no such" {
		t.Error(got)
	}
	if got := (Reply{Code: 250}).String(); got != "250" {
		t.Error(got)
	}
}

func TestReplyTextIsBounded(t *testing.T) {
	for _, text := range []string{"x", "\xff", "ä"} {
		in := strings.Repeat("550-"+strings.Repeat(text, 1000)+"\r\n", 30) + "550 end\r\n"
		r, _, err := readFrom([]byte(in), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Text); n < maxReplyText || n > maxReplyText+10 || !strings.HasSuffix(r.Text, "...") {
			t.Errorf("%q: %d bytes are kept, ending in %q", text, n, r.Text[n-5:])
		}
	}
}

// piecesConn is a connection that yields its input in pieces.
type piecesConn struct {
	net.Conn
	in   []byte
	size int
}

func (c *piecesConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in[:min(c.size, len(c.in))])
	c.in = c.in[n:]
	return n, nil
}

func (c *piecesConn) SetDeadline(time.Time) error { return nil }

func readFrom(in []byte, size int) (r Reply, odd, err error) {
	c := &piecesConn{in: in, size: size}
	w := &wire{raw: c, conn: c}
	w.borrowIn()
	defer w.giveBackIn()
	got, err := w.readReply(time.Second)
	if err != nil {
		return Reply{}, nil, err
	}
	return got.keep(), got.odd, nil
}

// FuzzReply: how the bytes are cut into pieces changes nothing; what is accepted has the class that each
// of its lines begins with, and a text that is safe and bounded; what comes behind a reply is left for
// the next; a reply is odd exactly where it departs from the grammar.
func FuzzReply(f *testing.F) {
	f.Add([]byte("250-2.1.0 a\r\n250 2.1.0 b\r\n"), uint8(3))
	f.Add([]byte("250\r\n550 x\r\n"), uint8(1))
	f.Add([]byte("550 \xff\x1b[31m\r\n"), uint8(2))
	f.Add([]byte("250-a\n250 b\r\n"), uint8(5))
	f.Add([]byte("550-a\x00\r\n554 b\n250 c\r\r\n"), uint8(5))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		c := &piecesConn{in: in, size: int(size) + 1}
		w := &wire{raw: c, conn: c}
		w.borrowIn()
		defer w.giveBackIn()
		rest := in
		for {
			r, err := w.readReply(time.Second)
			whole, wholeOdd, wholeErr := readFrom(rest, 1<<20)
			if fmt.Sprint(err) != fmt.Sprint(wholeErr) {
				t.Fatalf("in pieces: %v, at once: %v", err, wholeErr)
			}
			if err != nil {
				return
			}
			kept := r.keep()
			if kept != whole || r.odd != wholeOdd {
				t.Fatalf("in pieces: %+v (%v), at once: %+v (%v)", kept, r.odd, whole, wholeOdd)
			}
			if kept.Code < 200 || kept.Code > 599 || cap(r.text) > 2*maxReplySize {
				t.Fatalf("%+v in %d bytes", kept, cap(r.text))
			}
			checkSafe(t, kept.Text)
			rest = rest[checkLines(t, rest, &kept, r.odd):]
		}
	})
}

// checkLines takes the lines of a reply off b in the plainest way, and returns how many bytes they have.
func checkLines(t *testing.T, b []byte, r *Reply, odd error) (used int) {
	t.Helper()
	regular := true
	for {
		n := bytes.IndexByte(b[used:], '\n') + 1
		line := string(b[used : used+n])
		used += n
		if line[0] != byte('0'+r.Code/100) {
			t.Fatalf("%d was made of %q", r.Code, line)
		}
		text, crlf := strings.CutSuffix(line, "\r\n")
		regular = regular && crlf && line[:3] == fmt.Sprint(r.Code) && !strings.Contains(text, "\x00")
		if text = strings.TrimRight(text, "\n"); len(text) < 4 || text[3] == ' ' {
			if regular != (odd == nil) {
				t.Fatalf("%q is odd: %v", b[:used], odd)
			}
			return used
		}
	}
}

func checkSafe(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) || len(s) > maxReplyText+10 {
		t.Fatalf("unsafe: %q", s)
	}
	for _, r := range s {
		if r != '\n' && unicode.IsControl(r) {
			t.Fatalf("control character in %q", s)
		}
	}
}

// TestSafeText: whatever a peer puts into a text is shown and does nothing.
func TestSafeText(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"plain text\nof lines":          "plain text\nof lines",
		"\xc4\xe3\xba\xc3":              `\xc4\xe3\xba\xc3`, // GBK
		"Käse 你好":                       "Käse 你好",
		"\x1b[2J\x1b]0;x\a":             `\x1b[2J\x1b]0;x\x07`,
		"a\u202eb\u2066c\u200fd\ufeffe": `a\u{202e}b\u{2066}c\u{200f}d\u{feff}e`,
		"a\u0085b\u2028c\x7f":           `a\u{85}b\u{2028}c\x7f`,
		"tab\tCR\rNUL\x00":              `tab CR\x0dNUL\x00`,
		"\xe2\x28\xa1 \xed\xa0\x80":     `\xe2(\xa1 \xed\xa0\x80`,
	} {
		if got := safeText([]byte(in), maxReplyText); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestTranscript(t *testing.T) {
	var log transcript
	log.limit = 3
	for _, line := range []string{"one", "two", "three\x00", "four", "five is a longer line"} {
		log.sent([]byte(line))
	}
	if got, want := strings.Join(log.lines(), "|"), `C: three\x00|C: four|C: five is a longer line`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { log.received([]byte("short\n")) }); n > 0 {
		t.Errorf("%v allocations for a line of a full transcript", n)
	}
	var none transcript
	none.limit = -1
	none.sent([]byte("x"))
	if len(none.lines()) > 0 {
		t.Error("a transcript without lines kept one")
	}
}

func TestTimeoutError(t *testing.T) {
	w := &wire{}
	err := w.readFailure("MAIL", 5*time.Minute, os.ErrDeadlineExceeded)
	if err.Kind != Timeout || err.Error() != "Timed Out waiting 5m for response to MAIL" {
		t.Errorf("%v: %v", err.Kind, err)
	}
	if !isTimeout(err) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("not a timeout to net.Error, or to os.ErrDeadlineExceeded")
	}
}
