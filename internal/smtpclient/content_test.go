package smtpclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// encodeIn encodes in pieces of a size.
func encodeIn(in []byte, size int) []byte {
	var e encoder
	var out []byte
	for len(in) > 0 {
		n := min(size, len(in))
		out = e.add(out, in[:n])
		in = in[n:]
	}
	return e.end(out)
}

func TestEncode(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ".\r\n"},
		{"a\r\n", "a\r\n.\r\n"},
		{"a", "a\r\n.\r\n"},
		{"a\r", "a \r\n.\r\n"},
		{"\r", " \r\n.\r\n"},
		{"\n", "\r\n.\r\n"},
		{"a\nb", "a\r\nb\r\n.\r\n"},
		{"a\rb\r\n", "a b\r\n.\r\n"},
		{"a\r\r\n", "a \r\n.\r\n"},
		{"a\r\n\r", "a\r\n \r\n.\r\n"},
		{".", "..\r\n.\r\n"},
		{".\r\n", "..\r\n.\r\n"},
		{"a.\r\n..\r\n", "a.\r\n...\r\n.\r\n"},
		{"a\n.\n", "a\r\n..\r\n.\r\n"},
		{"a\r.\r\n", "a .\r\n.\r\n"},
		{"a\r.\r", "a . \r\n.\r\n"},
		{"a\r\n.\rb", "a\r\n.. b\r\n.\r\n"},
	}
	for _, test := range tests {
		for _, size := range []int{1, 2, 100} {
			if got := encodeIn([]byte(test.in), size); string(got) != test.want {
				t.Errorf("%q in pieces of %d: got %q, want %q", test.in, size, got, test.want)
			}
		}
	}
}

// normal is the content as it should arrive: written the slow way.
func normal(in []byte) []byte {
	var out []byte
	for i, c := range in {
		switch {
		case c == '\r' && (i+1 == len(in) || in[i+1] != '\n'):
			out = append(out, ' ')
		case c == '\r':
		case c == '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, c)
		}
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

// unstuff reads data as the laxest server might: any of the line ends that servers have been known to
// take ends a line, and a lone dot between any two of them ends the data. It returns what came before.
func unstuff(wire []byte, isEnd func(b []byte, i int) int) (content []byte, rest []byte, ok bool) {
	lineStart := true
	for i := 0; i < len(wire); {
		if lineStart && wire[i] == '.' {
			if n := isEnd(wire, i+1); n > 0 {
				return content, wire[i+1+n:], true
			}
			i++
			lineStart = false
			continue
		}
		if n := isEnd(wire, i); n > 0 {
			content = append(content, wire[i:i+n]...)
			i += n
			lineStart = true
			continue
		}
		lineStart = false
		content = append(content, wire[i])
		i++
	}
	return content, nil, false
}

var lineEnds = map[string]func(b []byte, i int) int{
	"CRLF": func(b []byte, i int) int {
		if bytes.HasPrefix(b[i:], []byte("\r\n")) {
			return 2
		}
		return 0
	},
	"LF": func(b []byte, i int) int {
		switch {
		case bytes.HasPrefix(b[i:], []byte("\r\n")):
			return 2
		case bytes.HasPrefix(b[i:], []byte("\n")):
			return 1
		}
		return 0
	},
	"CR": func(b []byte, i int) int {
		switch {
		case bytes.HasPrefix(b[i:], []byte("\r\n")):
			return 2
		case bytes.HasPrefix(b[i:], []byte("\r")):
			return 1
		}
		return 0
	},
	"CR*LF": func(b []byte, i int) int {
		n := i
		for n < len(b) && b[n] == '\r' {
			n++
		}
		if n < len(b) && b[n] == '\n' {
			return n + 1 - i
		}
		return 0
	},
}

// FuzzContent: whatever a content holds and however it is cut, what goes out holds no bare CR or LF and
// is one message to every server, the same normalised one, of the size that was declared.
func FuzzContent(f *testing.F) {
	for _, s := range []string{"", ".", "\r", "\n", ".\r\n", "a\r\n.\r\nb", "a\n.\nMAIL FROM:<>\r\n", "a\r.\r", "a\r\r\n.\r\r\n", "\x00\xff", "a\r\n\r\n"} {
		f.Add([]byte(s), uint16(1))
		f.Add([]byte(s), uint16(0x302))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		size := int(cut)%len(append(in, 0)) + 1
		wire := encodeIn(in, size)
		want := normal(in)
		for i, c := range wire {
			if c == '\r' && (i+1 == len(wire) || wire[i+1] != '\n') || c == '\n' && (i == 0 || wire[i-1] != '\r') {
				t.Fatalf("a bare CR or LF at %d of %q", i, wire)
			}
		}
		for name, isEnd := range lineEnds {
			got, rest, ok := unstuff(wire, isEnd)
			if !ok || len(rest) > 0 || !bytes.Equal(got, want) {
				t.Fatalf("%s: %q becomes %q and %q is left, want %q", name, wire, got, rest, want)
			}
		}
		checkFacts(t, BytesContent(in), in, want)
		checkFacts(t, StreamContent(int64(len(in)), func() (io.ReadCloser, error) {
			return io.NopCloser(&piecesReader{in, size}), nil
		}), in, want)
	})
}

func checkFacts(t *testing.T, c *Content, in, want []byte) {
	t.Helper()
	if err := c.Inspect(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c.WireSize() != int64(len(want)) {
		t.Fatalf("the size of %q is %d, want %d", in, c.WireSize(), len(want))
	}
	if changed := !bytes.Equal(want, in) && !bytes.Equal(want, append(bytes.Clone(in), "\r\n"...)); c.Changed() != changed {
		t.Fatalf("changed is %v for %q", c.Changed(), in)
	}
	if high := bytes.ContainsFunc(in, func(r rune) bool { return r > 127 }); c.Has8Bit() != high {
		t.Fatalf("8-bit is %v for %q", c.Has8Bit(), in)
	}
	if c.hasNUL != (bytes.IndexByte(in, 0) >= 0) {
		t.Fatalf("NUL is %v for %q", c.hasNUL, in)
	}
	if c.asIs && !bytes.Equal(encodeIn(in, 1), append(bytes.Clone(in), ".\r\n"...)) {
		t.Fatalf("%q cannot be sent as it is", in)
	}
}

type piecesReader struct {
	in   []byte
	size int
}

func (r *piecesReader) Read(b []byte) (int, error) {
	if len(r.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.in[:min(r.size, len(r.in))])
	r.in = r.in[n:]
	return n, nil
}

func TestInspectErrors(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name string
		size int64
		open func() (io.ReadCloser, error)
		want string
		is   error
	}{
		{"opening fails", 1, func() (io.ReadCloser, error) { return nil, boom }, "opening the body: boom", boom},
		{"reading fails", 9, body(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(boom))), "reading the body: boom", boom},
		{"too short", 4, body(strings.NewReader("abc")), "the body holds 3 bytes instead of 4: unexpected EOF", io.ErrUnexpectedEOF},
		{"too long", 2, body(strings.NewReader("abc")), "the body holds more than the 2 bytes it should", nil},
		{"empty and not", 0, body(strings.NewReader("a")), "the body holds more than the 0 bytes it should", nil},
		{"no progress", 2, body(stuck{}), "reading the body: multiple Read calls return no data or error", io.ErrNoProgress},
	}
	for _, test := range tests {
		err := StreamContent(test.size, test.open).Inspect(context.Background())
		if err == nil || err.Error() != test.want || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(boom)
	if err := StreamContent(3, body(strings.NewReader("abc"))).Inspect(ctx); !errors.Is(err, boom) {
		t.Errorf("cancelled: %v", err)
	}
	if err := StreamContent(3, body(iotest.DataErrReader(strings.NewReader("abc")))).Inspect(context.Background()); err != nil {
		t.Errorf("data with EOF: %v", err)
	}
}

func body(r io.Reader) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(r), nil }
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }
