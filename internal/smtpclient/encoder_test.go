package smtpclient

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// encodeIn encodes in pieces of the sizes, over and over, and checks what the encoder promises of each.
func encodeIn(t *testing.T, kind encoding, in []byte, sizes ...int) []byte {
	t.Helper()
	e := encoder{kind: kind}
	const before = "what is there\r stays." // as commands are, but for the CR
	out := []byte(before)
	next := pieces(sizes)
	for rest := in; len(rest) > 0; {
		n := min(next(), len(rest))
		held := len(out)
		out = e.add(out, rest[:n])
		if grown := len(out) - held; grown > 2*n+1 {
			t.Fatalf("%d bytes became %d", n, grown)
		}
		rest = rest[n:]
	}
	held := len(out)
	out = e.end(out)
	if grown := len(out) - held; grown > 6 {
		t.Fatalf("the end has %d bytes", grown)
	}
	want := int64(len(in))
	if kind != verbatim {
		want = int64(len(normal(in)))
	}
	if e.written != want {
		t.Fatalf("%s: %d octets were counted, want %d", short(in), e.written, want)
	}
	out, kept := bytes.CutPrefix(out, []byte(before))
	if !kept {
		t.Fatal("what was there was changed")
	}
	return out
}

func TestEncode(t *testing.T) {
	tests := []struct{ in, dotted, chunked string }{
		{"", ".\r\n", ""},
		{"a\r\n", "a\r\n.\r\n", "a\r\n"},
		{"a", "a\r\n.\r\n", "a\r\n"},
		{"a\r", "a \r\n.\r\n", "a \r\n"},
		{"\r", " \r\n.\r\n", " \r\n"},
		{"\n", "\r\n.\r\n", "\r\n"},
		{"a\nb", "a\r\nb\r\n.\r\n", "a\r\nb\r\n"},
		{"a\rb\r\n", "a b\r\n.\r\n", "a b\r\n"},
		{"a\r\r\n", "a \r\n.\r\n", "a \r\n"},
		{"a\r\r", "a  \r\n.\r\n", "a  \r\n"},
		{"a\r\n\r", "a\r\n \r\n.\r\n", "a\r\n \r\n"},
		{".", "..\r\n.\r\n", ".\r\n"},
		{".\r\n", "..\r\n.\r\n", ".\r\n"},
		{"a.\r\n..\r\n", "a.\r\n...\r\n.\r\n", "a.\r\n..\r\n"},
		{"a\n.\n", "a\r\n..\r\n.\r\n", "a\r\n.\r\n"},
		{"a\r.\r\n", "a .\r\n.\r\n", "a .\r\n"},
		{"a\r.\r", "a . \r\n.\r\n", "a . \r\n"},
		{"a\r\n.\rb", "a\r\n.. b\r\n.\r\n", "a\r\n. b\r\n"},
	}
	for _, test := range tests {
		for _, size := range []int{1, 2, 100} {
			for kind, want := range []string{dotted: test.dotted, chunked: test.chunked, verbatim: test.in} {
				if got := encodeIn(t, encoding(kind), []byte(test.in), size); string(got) != want {
					t.Errorf("%q as %d in pieces of %d: got %q, want %q", test.in, kind, size, got, want)
				}
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

// stuffed is what goes out after DATA for a content that is normal already: written the slow way.
func stuffed(normal []byte) []byte {
	var out []byte
	for i, c := range normal {
		if c == '.' && (i == 0 || normal[i-1] == '\n') {
			out = append(out, '.')
		}
		out = append(out, c)
	}
	return append(out, ".\r\n"...)
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
	"any of CR, LF and CRLF": func(b []byte, i int) int {
		switch {
		case bytes.HasPrefix(b[i:], []byte("\r\n")):
			return 2
		case i < len(b) && (b[i] == '\r' || b[i] == '\n'):
			return 1
		}
		return 0
	},
}

// checkWire checks all that is promised of what goes out for a content, cut into pieces of the sizes.
func checkWire(t *testing.T, in []byte, sizes ...int) {
	t.Helper()
	content := normal(in)
	want := [][]byte{dotted: stuffed(content), chunked: content, verbatim: in}
	for kind, want := range want {
		if got := encodeIn(t, encoding(kind), in, sizes...); !bytes.Equal(got, want) {
			t.Fatalf("%s as %d in %v became %s, want %s", short(in), kind, sizes, short(got), short(want))
		}
	}
	// The references are right, so that what equals them is.
	for i, c := range want[dotted] {
		if bare := c == '\r' && want[dotted][i+1] != '\n' || c == '\n' && want[dotted][i-1] != '\r'; bare {
			t.Fatalf("%s: a bare CR or LF at %d goes out", short(in), i)
		}
	}
	for name, isEnd := range lineEnds {
		got, rest, ok := unstuff(want[dotted], isEnd)
		if !ok || len(rest) > 0 || !bytes.Equal(got, content) {
			t.Fatalf("%s: %s becomes %s and %s is left", name, short(in), short(got), short(rest))
		}
	}

	held := BytesContent(in)
	if held.asIs(dotted) {
		t.Fatal("a content that nobody has looked at is trusted")
	}
	checkFacts(t, "in memory", held, in)
	stream := piecesContent(in, sizes)
	checkFacts(t, "a stream", stream, in)
	ends := [][]string{dotted: {".\r\n", "\r\n.\r\n"}, chunked: {"", "\r\n"}, verbatim: {""}}
	for kind := dotted; kind <= verbatim; kind++ {
		if stream.asIs(kind) {
			t.Fatal("a stream is trusted to read the same again")
		}
		// It is said of all that it is true of: that the content is sent, and an end.
		possible := slices.ContainsFunc(ends[kind], func(end string) bool {
			return string(want[kind]) == string(in)+end
		})
		if held.asIs(kind) != possible {
			t.Fatalf("%s as %d: as it is is %v", short(in), kind, held.asIs(kind))
		}
		if held.asIs(kind) {
			e := encoder{kind: kind}
			e.pass(in[:len(in)/2])
			e.pass(in[len(in)/2:])
			e.pass(nil)
			got := e.end(bytes.Clone(in))
			if !bytes.Equal(got, want[kind]) || e.written != held.sizeAs(kind) {
				t.Fatalf("%s as it is as %d: %d octets, %s", short(in), kind, e.written, short(got))
			}
		}
	}
}

// smuggled are ways to write an end of data that some server has taken for one, and others like them.
var smuggled = []string{
	"\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n",
	"\r\r\n.\r\r\n", "\r\n.\r\r\n", "\r\r\n.\r\n", "\n\n.\r\n", "\n\r.\n\r", "\r\n\r.\r\n", "\r\n\x00.\r\n",
	"\r\n.\x00\r\n", "\r\n..\r\n", "\n..\n", "\r\n.\r\n.\r\n", "\n.\n.\n", "\r\r.\r\r", "\x85.\x85", "\r\n .\r\n",
}

// Whatever a content holds to look like its end is one message to every server, and the commands behind
// it are its text. It is tried at the beginning, in the middle, at the end, and over the scanner's blocks.
func TestSmuggling(t *testing.T) {
	const commands = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
	line := strings.Repeat("x", 76) + "\r\n"
	for _, s := range smuggled {
		for _, in := range []string{s, "a" + s, s + commands, "a" + s + commands, "a" + s + commands + s, "a" + s + s} {
			for _, size := range []int{1, 2, 3, 1000} {
				checkWire(t, []byte(in), size)
			}
		}
		for before := scanSize - len(s) - 1; before <= scanSize+1; before++ {
			pad := strings.Repeat(line, scanSize/len(line)+1)[:before-2] + "\r\n"
			checkWire(t, []byte(pad+s+commands), 3*scanSize)
			checkWire(t, []byte(pad+s+commands), before, 1)
		}
	}
}

// Large contents of many kinds, in pieces of many sizes; the seed makes them the same each time.
func TestEncodeLarge(t *testing.T) {
	alphabets := []string{"\r\n.a", "abcdefghijk.\n", "abcdefghijklmnopqrstuvwxyz\r", "\r\n", ".\n", "a\x00\xff"}
	ends := []string{"\r\n", "\n", "\r", "\r\r\n", "\r\n."}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		var in []byte
		for len(in) < 3*scanSize {
			length := r.IntN(100)
			if r.IntN(3) > 0 {
				length = 20 // so that a jump may hit a line end that is not the next one
			}
			end := ends[0]
			if r.IntN(30) == 0 {
				end = ends[r.IntN(len(ends))]
			}
			line := strings.Repeat("x", length)
			if r.IntN(40) == 0 {
				alphabet := alphabets[r.IntN(len(alphabets))]
				b := make([]byte, length)
				for i := range b {
					b[i] = alphabet[r.IntN(len(alphabet))]
				}
				line = string(b)
			}
			in = append(in, line+end...)
		}
		checkWire(t, in, len(in))
		checkWire(t, in, 1+r.IntN(100), 1+r.IntN(9000))
	}
}

// FuzzContent: whatever a content holds and however it is cut, what goes out is what the slow way gives:
// without a bare CR or LF, one message to every server, of the size that was declared; and what is found
// in it is what the slow way finds. pad puts lines before it, to reach the end of the scanner's blocks.
func FuzzContent(f *testing.F) {
	for _, s := range append(smuggled, "", ".", "\r", "\n", ".\r\n", "\x00\xff", "a\r\n\r\n") {
		f.Add([]byte(s), uint16(0), []byte{1})
		f.Add([]byte(s), uint16(scanSize-2), []byte{255, 3})
	}
	f.Fuzz(func(t *testing.T, in []byte, pad uint16, cuts []byte) {
		pad %= 2 * scanSize
		sizes := []int{len(in) + int(pad)}
		for _, c := range cuts {
			sizes = append(sizes, int(c))
		}
		line := []byte(strings.Repeat("x", 76) + "\r\n")
		padding := bytes.Repeat(line, int(pad)/len(line)+1)[:pad]
		checkWire(t, append(padding, in...), sizes[len(sizes)-1:]...)
		checkWire(t, append(padding, in...), sizes...)
	})
}
