package smtpclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// slowFacts finds the facts byte by byte. normal is what the content becomes.
func slowFacts(in, normal []byte) facts {
	f := facts{wireSize: int64(len(normal))}
	for i, c := range in {
		f.has8Bit = f.has8Bit || c >= 0x80
		f.hasNUL = f.hasNUL || c == 0
		if c == '\r' && (i+1 == len(in) || in[i+1] != '\n') || c == '\n' && (i == 0 || in[i-1] != '\r') {
			f.stray = true
		}
	}
	length := 0
	for i, c := range normal {
		if c == '.' && (i == 0 || normal[i-1] == '\n') {
			f.dots = true
		}
		length++
		if c == '\n' {
			f.longLines = f.longLines || length > 998+2
			length = 0
		}
	}
	return f
}

// checkFacts holds what Inspect finds against what slowFacts does.
func checkFacts(t *testing.T, what string, c *Content, in []byte) {
	t.Helper()
	if err := c.Inspect(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := slowFacts(in, normal(in))
	if c.facts != want {
		t.Fatalf("%s: %s has %+v, want %+v", what, short(in), c.facts, want)
	}
	if c.Has8Bit() != want.has8Bit || c.HasNUL() != want.hasNUL || c.HasLongLines() != want.longLines ||
		c.HasStray() != want.stray || c.Changed() != want.stray || c.WireSize() != want.wireSize {
		t.Fatalf("%s: the methods do not say what the facts %+v do", what, want)
	}
	sizes := []int64{dotted: want.wireSize, chunked: want.wireSize, verbatim: int64(len(in))}
	for kind, size := range sizes {
		if got := c.sizeAs(encoding(kind)); got != size {
			t.Fatalf("%s: %s encoded as %d has %d octets, want %d", what, short(in), kind, got, size)
		}
	}
}

// short is how a content is shown: its end, where what matters usually stands.
func short(in []byte) string {
	if len(in) <= 200 {
		return fmt.Sprintf("%q", in)
	}
	return fmt.Sprintf("(%d bytes) %q", len(in), in[len(in)-200:])
}

func TestInspect(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		in   string
		want facts
	}{
		{"", facts{}},
		{"a", facts{wireSize: 3}},
		{"a\r\n", facts{wireSize: 3}},
		{"a\r", facts{wireSize: 4, stray: true}},
		{"a\n", facts{wireSize: 3, stray: true}},
		{"\r", facts{wireSize: 3, stray: true}},
		{"\n\r", facts{wireSize: 5, stray: true}},
		{"a\r\r\n", facts{wireSize: 4, stray: true}},
		{"a\r\nb\nc\r\n", facts{wireSize: 9, stray: true}},
		{".", facts{wireSize: 3, dots: true}},
		{"a.\r\n", facts{wireSize: 4}},
		{"a\n.b\n", facts{wireSize: 7, stray: true, dots: true}},
		{"a\r\n.", facts{wireSize: 6, dots: true}},
		{"a\r.\r\n", facts{wireSize: 5, stray: true}},
		{"\x7f", facts{wireSize: 3}},
		{"\x80", facts{wireSize: 3, has8Bit: true}},
		{x(200) + "\xff" + x(9), facts{wireSize: 212, has8Bit: true}},
		{x(200) + "\x00" + x(9), facts{wireSize: 212, hasNUL: true}},
		{x(998) + "\r\n", facts{wireSize: 1000}},
		{x(999) + "\r\n", facts{wireSize: 1001, longLines: true}},
		{x(998) + "\n", facts{wireSize: 1000, stray: true}},
		{x(999) + "\n", facts{wireSize: 1001, stray: true, longLines: true}},
		{x(998), facts{wireSize: 1000}},
		{x(999), facts{wireSize: 1001, longLines: true}},
		{x(997) + "\r", facts{wireSize: 1000, stray: true}},
		{x(998) + "\r", facts{wireSize: 1001, stray: true, longLines: true}},
		{x(998) + "\r\r\n", facts{wireSize: 1001, stray: true, longLines: true}},
		{x(600) + "\r" + x(600) + "\r\n", facts{wireSize: 1203, stray: true, longLines: true}},
		{"." + x(997) + "\r\n", facts{wireSize: 1000, dots: true}},
		{"a\r\n" + x(5*scanSize) + "\r\n", facts{wireSize: 5*scanSize + 5, longLines: true}},
		// A line that begins in one block and ends in the next.
		{x(scanSize-500) + "\r\n" + x(998) + "\r\na\r\n", facts{wireSize: scanSize + 505, longLines: true}},
		{strings.Repeat("a\r\n", scanSize/3-200) + x(998) + "\r\na\r\n", facts{wireSize: (scanSize/3-200)*3 + 1003}},
		{strings.Repeat("a\r\n", scanSize/3-200) + x(999) + "\r\na\r\n", facts{wireSize: (scanSize/3-200)*3 + 1004, longLines: true}},
		// The next line end stands where the last line's length puts it, and another one before.
		{x(10) + "\r\nabc\r\n.bcde\r\n", facts{wireSize: 24, dots: true}},
		{x(10) + "\r\nabc\ndefgh\r\r\n", facts{wireSize: 25, stray: true}},
	}
	for _, test := range tests {
		c := BytesContent([]byte(test.in))
		checkFacts(t, "the table's", c, []byte(test.in)) // what the fuzzer trusts, against the table
		if c.facts != test.want {
			t.Errorf("%s: %+v, want %+v", short([]byte(test.in)), c.facts, test.want)
		}
		for _, size := range []int{1, 7, scanSize} {
			checkFacts(t, "a stream's", piecesContent([]byte(test.in), []int{size}), []byte(test.in))
		}
	}
}

// What survey calls clean is what is fast: it must know the usual contents, and where their lines end.
func TestSurvey(t *testing.T) {
	base64 := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 40)
	tests := []struct {
		in          string
		dotsMatter  bool
		first, last int
		clean       bool
	}{
		{"", true, -1, -1, true},
		{"a", true, -1, -1, true},
		{base64, true, 77, len(base64) - 1, true},
		{base64 + "xyz\r\n" + base64 + "a", true, 77, 2*len(base64) + 4, true},
		{"a\r\n\r\nabc\r\n", true, 2, 9, true},
		{"a\r\n.\r\n", false, 2, 5, true},
		{"a\r\n.\r\n", true, 0, 0, false},
		{base64 + "." + base64, true, 0, 0, false},
		{base64 + "\n", false, 0, 0, false},
		{base64 + "\r", false, 0, 0, false},
		{"\n", false, 0, 0, false},
		{"a\rb\n", false, 0, 0, false},
		{"a\r\nb\nc\r", false, 0, 0, false},
		{base64 + strings.Repeat("x", 998) + "\r\n", true, 77, len(base64) + 999, true},
		{base64 + strings.Repeat("x", 999) + "\r\n", true, 0, 0, false},
	}
	for _, test := range tests {
		first, last, clean := survey([]byte(test.in), test.dotsMatter)
		if clean != test.clean || clean && (first != test.first || last != test.last) {
			t.Errorf("%s, dots matter: %v: %d, %d, %v", short([]byte(test.in)), test.dotsMatter, first, last, clean)
		}
	}
}

// A content held in memory is inspected and encoded without an allocation.
func TestContentAllocates(t *testing.T) {
	in := bytes.Repeat([]byte("a line\r\n.dots\nand \r strays\r\n"), 100)
	out := make([]byte, 0, 2*len(in)+16)
	if n := testing.AllocsPerRun(20, func() {
		c := BytesContent(in)
		if err := c.Inspect(t.Context()); err != nil {
			t.Error(err)
		}
		for kind := dotted; kind <= verbatim; kind++ {
			e := encoder{kind: kind}
			out = e.end(e.add(out[:0], in))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// piecesContent is a stream whose reader yields pieces of the sizes, over and over.
func piecesContent(in []byte, sizes []int) *Content {
	return StreamContent(int64(len(in)), func() (io.ReadCloser, error) {
		return io.NopCloser(&piecesReader{in, pieces(sizes)}), nil
	})
}

type piecesReader struct {
	in   []byte
	next func() int
}

func (r *piecesReader) Read(b []byte) (int, error) {
	if len(r.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.in[:min(r.next(), len(r.in))])
	r.in = r.in[n:]
	return n, nil
}

// pieces gives the sizes in turn, over and over.
func pieces(sizes []int) func() int {
	i := -1
	return func() int {
		i++
		return max(sizes[i%len(sizes)], 1)
	}
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
		{"an impossible count", 2, body(boastful{}), "the body's reader returned an impossible count", nil},
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

// A content is read once to be inspected, however often that is asked for.
func TestInspectOnce(t *testing.T) {
	opened := 0
	c := StreamContent(1, func() (io.ReadCloser, error) {
		opened++
		if opened == 1 {
			return nil, errors.New("not yet")
		}
		return io.NopCloser(strings.NewReader("a")), nil
	})
	if err := c.Inspect(t.Context()); err == nil {
		t.Error("no error")
	}
	for range 3 {
		if err := c.Inspect(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if opened != 2 {
		t.Errorf("opened %d times", opened)
	}
}

type boastful struct{}

func (boastful) Read(b []byte) (int, error) { return len(b) + 1, nil }

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }
