package header

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParse(t *testing.T) {
	type pair struct{ name, text string }
	for _, test := range []struct {
		about, block string
		ended        bool
		want         []pair
	}{
		{"plain", "From: a@b\r\nSubject: hi\r\n\r\nbody: no\r\n", true, []pair{{"From", "a@b"}, {"Subject", "hi"}}},
		{"LF", "From: a@b\nSubject: hi\n\nbody", true, []pair{{"From", "a@b"}, {"Subject", "hi"}}},
		{"no empty line", "From: a@b\r\nSubject: hi", false, []pair{{"From", "a@b"}, {"Subject", "hi"}}},
		{"nothing", "", false, nil},
		{"no header", "\r\nbody", true, nil},
		{"folded", "Subject: one\r\n two\r\n\t  three\r\nTo:\r\n a@b\r\n\r\n", true, []pair{{"Subject", "one two three"}, {"To", "a@b"}}},
		{"fold of blanks only", "A: 1\r\n \r\nB: 2\r\n\r\n", true, []pair{{"A", "1"}, {"B", "2"}}},
		{"space before the colon", "Subject \t: hi\r\n\r\n", true, []pair{{"Subject", "hi"}}},
		{"no space after it", "Subject:hi\r\n\r\n", true, []pair{{"Subject", "hi"}}},
		{"empty value", "Subject:\r\nTo: \r\n\r\n", true, []pair{{"Subject", ""}, {"To", ""}}},
		{"empty name", ": value\r\nA: 1\r\n\r\n", true, []pair{{"", "value"}, {"A", "1"}}},
		{"no colon", "what is this\r\nA: 1\r\n\r\n", true, []pair{{"what is this", ""}, {"A", "1"}}},
		{"mailbox separator", "From a@b Mon Jan  1 12:00:00 2026\r\nFrom: c@d\r\n\r\n", true, []pair{{"From a@b Mon Jan  1 12", "00:00 2026"}, {"From", "c@d"}}},
		{"continuation of nothing", " lost\r\nA: 1\r\n\r\n", true, []pair{{"", "lost"}, {"A", "1"}}},
		{"CR in a value", "A: 1\r2\r\nB: 2\r\n\r\n", true, []pair{{"A", "1 2"}, {"B", "2"}}},
		{"8-bit", "Subject: caf\xe9\r\nTo: jos\u00e9@b\r\n\r\n", true, []pair{{"Subject", "caf\xe9"}, {"To", "jos\u00e9@b"}}},
		{"encoded", "Subject: =?utf-8?q?caf=C3=A9?= =?UTF-8?B?w6k=?= x\r\n\r\n", true, []pair{{"Subject", "caféé x"}}},
		{"a character in two words", "Subject: =?utf-8?q?caf=C3?=\r\n =?utf-8?q?=A9?=\r\n\r\n", true, []pair{{"Subject", "café"}}},
		{"latin", "Subject: =?iso-8859-15?q?=A4?= =?windows-1252?q?=80?= =?ISO-8859-1?q?=E9?=\r\n\r\n", true, []pair{{"Subject", "€€é"}}},
		{"japanese", "Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\r\n\r\n", true, []pair{{"Subject", "日本"}}},
		{"language", "Subject: =?utf-8*en?q?caf=C3=A9?=\r\n\r\n", true, []pair{{"Subject", "café"}}},
		{"unknown charset", "Subject: =?klingon?q?=E9?= and\r\n =?utf-8?q?=C3=A9?=\r\n\r\n", true, []pair{{"Subject", "=?klingon?q?=E9?= and =?utf-8?q?=C3=A9?="}}},
		{"broken word", "Subject: =?utf-8?b?###?= =?utf-8?q?=C3=A9?=\r\n\r\n", true, []pair{{"Subject", "=?utf-8?b?###?= é"}}},
		{"not UTF-8 in a word", "Subject: =?utf-8?q?=E9?=\r\n\r\n", true, []pair{{"Subject", "\uFFFD"}}},
	} {
		t.Run(test.about, func(t *testing.T) {
			b := Parse([]byte(test.block))
			var got []pair
			for _, f := range b.Fields() {
				got = append(got, pair{f.Name(), f.Text()})
			}
			if len(got) != len(test.want) || b.ended != test.ended {
				t.Fatalf("%q, ended %v", got, b.ended)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("field %d: %q, want %q", i, got[i], test.want[i])
				}
			}
			n, ended := Length([]byte(test.block))
			if ended != test.ended || string(b.Bytes()) != test.block[:n] {
				t.Errorf("the block is %q, its length %d, %v", b.Bytes(), n, ended)
			}
			for _, r := range []io.Reader{strings.NewReader(test.block), iotest.OneByteReader(strings.NewReader(test.block))} {
				if read, err := Read(r); err != nil || string(read) != test.block[:n] {
					t.Errorf("Read: %q, %v", read, err)
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	b := Parse([]byte("X-One: 1\r\nx-one: 2\r\nX-ONE-MORE: 3\r\nK: 4\r\n\r\n"))
	if f, found := b.First("x-ONE"); !found || f.Text() != "1" {
		t.Error(f, found)
	}
	if _, found := b.First("x-on"); found {
		t.Error("a part of a name is no name")
	}
	if _, found := b.First("\u212a"); found { // KELVIN SIGN folds to k in Unicode
		t.Error("names are ASCII")
	}
	if f := b.Fields()[2]; !f.HasPrefix("x-one-") || f.HasPrefix("x-one-more-") {
		t.Error(f.Name())
	}
}

func TestRead(t *testing.T) {
	long := strings.Repeat("X: "+strings.Repeat("x", 70)+"\r\n", 1000)
	if got, err := Read(strings.NewReader(long + "\r\nbody")); err != nil || string(got) != long+"\r\n" {
		t.Error(len(got), err)
	}
	// It reads not much more than the block.
	r := strings.NewReader(long + "\r\n" + strings.Repeat("body\r\n", 1<<20))
	if _, err := Read(r); err != nil || r.Size()-int64(r.Len()) > int64(5*len(long)) {
		t.Error(r.Size()-int64(r.Len()), err)
	}
	for _, text := range []string{
		strings.Repeat(long, 100),
		strings.Repeat(long, 100) + "\r\n\r\n",
		strings.Repeat("x", MaxBlock) + "\r\n\r\n",
	} {
		if _, err := Read(strings.NewReader(text)); !errors.Is(err, ErrTooLong) {
			t.Error(err)
		}
	}
	exactly := "X: " + strings.Repeat("x", MaxBlock-7) + "\r\n\r\n"
	if got, err := Read(strings.NewReader(exactly + "body")); err != nil || len(got) != MaxBlock {
		t.Error(len(got), err)
	}
	cause := errors.New("the disk is gone")
	if _, err := Read(io.MultiReader(strings.NewReader("A: 1\r\n"), iotest.ErrReader(cause))); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestEdit(t *testing.T) {
	const crlf = "From: a@b\r\nX-A: 1\r\n fold\r\nx-a: 2\r\n\r\n"
	named := func(name string) func(Field) bool { return func(f Field) bool { return f.Is(name) } }
	prepend := func(b *Block) (*Block, error) { return b.Prepend("N", "v", false) }
	appendTo := func(b *Block) (*Block, error) { return b.Append("N", "v", false) }
	remove := func(name string) func(*Block) (*Block, error) {
		return func(b *Block) (*Block, error) { return b.Remove(named(name)), nil }
	}
	for _, test := range []struct {
		block string
		edit  func(*Block) (*Block, error)
		want  string // or an error
	}{
		{crlf, prepend, "N: v\r\n" + crlf},
		{crlf, appendTo, "From: a@b\r\nX-A: 1\r\n fold\r\nx-a: 2\r\nN: v\r\n\r\n"},
		{crlf, remove("X-a"), "From: a@b\r\n\r\n"},
		{crlf, remove("from"), "X-A: 1\r\n fold\r\nx-a: 2\r\n\r\n"},
		{crlf, remove("other"), crlf},
		{"A: 1\n\n", prepend, "N: v\nA: 1\n\n"},
		{"A: 1\n\n", appendTo, "A: 1\nN: v\n\n"},
		{"A: 1\r\nB: 2", remove("b"), "A: 1\r\n"},
		{"A: 1\r\nB: 2", remove("a"), "B: 2"},
		{"A: 1\r\nB: 2", prepend, "N: v\r\nA: 1\r\nB: 2"},
		{"A: 1\r\nB: 2", appendTo, ErrNoEnd.Error()},
		{"A: 1\r\n", appendTo, ErrNoEnd.Error()},
		{"", appendTo, ErrNoEnd.Error()},
		{"", prepend, "N: v\r\n"},
		{"\r\n", appendTo, "N: v\r\n\r\n"},
		{"\n", prepend, "N: v\n\n"},
		{"\r\n", prepend, "N: v\r\n\r\n"},
		{" lost\r\nA: 1\r\n\r\n", prepend, "begins with the continuation"},
		{" lost\r\nA: 1\r\n\r\n", remove("a"), " lost\r\n\r\n"},
		{" lost\r\nA: 1\r\n\r\n", appendTo, " lost\r\nA: 1\r\nN: v\r\n\r\n"},
		{"X: " + strings.Repeat("x", MaxBlock-8) + "\r\n\r\n", prepend, ErrTooLong.Error()},
	} {
		before := Parse([]byte(test.block))
		after, err := test.edit(before)
		if err != nil {
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%.60q: %v, want %s", test.block, err, test.want)
			}
			continue
		}
		if string(after.Bytes()) != test.want {
			t.Errorf("%.60q: %q, want %q", test.block, after.Bytes(), test.want)
		}
		if string(before.Bytes()) != test.block {
			t.Errorf("%.60q: changed to %q", test.block, before.Bytes())
		}
	}
}

func TestNewField(t *testing.T) {
	long := strings.Repeat("word ", 40)
	for _, test := range []struct {
		name, value string
		encode      bool
		want        string // or an error
	}{
		{"X-A", "plain", false, "X-A: plain\r\n"},
		{"X-A", "", false, "X-A: \r\n"},
		{"X-A", "ends in CRLF\r\n", false, "X-A: ends in CRLF\r\n"},
		{"X-A", "is\r\n\tfolded\r\n twice", false, "X-A: is\r\n\tfolded\r\n twice\r\n"},
		{"X-A", "caf\u00e9", false, "X-A: caf\u00e9\r\n"},
		{"X-A", "caf\xe9", false, "X-A: caf\xe9\r\n"},
		{"X-A", long, false, "X-A: " + long + "\r\n"},

		{"X-A", "1\r\nBcc: me", false, "line break without a space"},
		{"X-A", "1\r\n\r\nbody", false, "line break without a space"},
		{"X-A", "1\r\n\r\n", false, "line break without a space"},
		{"X-A", "1\nBcc: me", false, "not CRLF"},
		{"X-A", "1\n", false, "not CRLF"},
		{"X-A", "1\rBcc: me", false, "not CRLF"},
		{"X-A", "1\r", false, "not CRLF"},
		{"X-A", "1\r\n \r\n 2", false, "an empty line"},
		{"X-A", "1\r\n \t", false, "an empty line"},
		{"X-A", "1\x002", false, "a NUL"},
		{"X-A", strings.Repeat("x", MaxBlock+1), false, ErrTooLong.Error()},

		{"", "v", false, "is empty"},
		{"X A", "v", false, "holds ' '"},
		{"X:A", "v", false, "holds ':'"},
		{"X\r\nA", "v", false, `holds '\r'`},
		{"X-\u00e9", "v", false, "holds"},
		{strings.Repeat("x", 901), "v", false, "longer than 900"},

		{"X-A", "plain", true, "X-A: plain\r\n"},
		{"X-A", " two  words ", true, "X-A: two words\r\n"},
		{"X-A", "caf\u00e9", true, "X-A: =?utf-8?q?caf=C3=A9?=\r\n"},
		{"X-A", "au caf\u00e9 \u00e9 la", true, "X-A: au =?utf-8?q?caf=C3=A9_=C3=A9?= la\r\n"},
		{"X-A", "=?utf-8?q?x?=", true, "X-A: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=\r\n"},
		{"From", "Jos\u00e9 (x) <j@b.example>", true, "From: =?utf-8?q?Jos=C3=A9?= (x) <j@b.example>\r\n"},
		{"X-A", long, true, "X-A: word word word word word word word word word word word word word word\r\n word word word word word word word word word word word word word word word\r\n word word word word word word word word word word word\r\n"},
		{"X-A", strings.Repeat("x", 1000), true, "X-A: " + strings.Repeat("x", 895) + "\r\n " + strings.Repeat("x", 105) + "\r\n"},
		{"X-A", strings.Repeat("\u00e9", 25), true, "X-A: =?utf-8?q?" + strings.Repeat("=C3=A9", 10) + "?=\r\n =?utf-8?q?" + strings.Repeat("=C3=A9", 10) + "?=\r\n =?utf-8?q?" + strings.Repeat("=C3=A9", 5) + "?=\r\n"},
		{"X-A", "caf\xe9", true, "is not UTF-8"},
		{"X-A", "1\r\n 2", true, `holds '\r'`},
		{"X-A", "1\n", true, `holds '\n'`},
		{"X-A", "\x00", true, `holds '\x00'`},
	} {
		got, err := NewField(test.name, test.value, "\r\n", test.encode)
		if err != nil && !strings.Contains(err.Error(), test.want) || err == nil && string(got) != test.want {
			t.Errorf("%.40q: %.40q, encode %v:\n%q, %v, want\n%q", test.name, test.value, test.encode, got, err, test.want)
		}
	}
}

// The search for encoded words must not be made to take long.
func TestDecodeBounded(t *testing.T) {
	value := strings.Repeat("=?a?b?x", MaxBlock/8)
	f := Parse([]byte("A: " + value + "?=\r\n\r\n")).Fields()[0]
	if got := f.Text(); got != value+"?=" {
		t.Error(len(got))
	}
}

// Nor must their decoding be made to take much.
func TestDecodeIsFrugal(t *testing.T) {
	const word, most = "=?gbk?q?=B0=A1?= ", 200 // times its size
	f := Parse([]byte("A: " + strings.Repeat(word, maxDecoded/len(word)) + "\r\n\r\n")).Fields()[0]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	text := f.Text()
	runtime.ReadMemStats(&after)
	if want := strings.Repeat("啊", maxDecoded/len(word)); text != want {
		t.Errorf("%d bytes, want %d", len(text), len(want))
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > most*maxDecoded {
		t.Errorf("it took %d bytes", took)
	}
}

func FuzzBlock(f *testing.F) {
	for _, seed := range []string{
		"From: a@b\r\nX-A: 1\r\n fold\r\nx-a: 2\r\n\r\nbody", "A: 1\n\n", "", "\r\n", " lost\nA: 1", ":\r\n\r\n", "A\r\r\n\r\n", "a:\r\n\t\r\n\r\n",
		"X: =?utf-8?q?=C3=A9?= =?iso-8859-1?b?6Q==?=\r\n\r\n",
	} {
		f.Add([]byte(seed), "X-New", "value\r\n folded", false)
		f.Add([]byte(seed), "x-a", "caf\u00e9 au =?utf-8?q?x?= lait", true)
	}
	f.Fuzz(func(t *testing.T, message []byte, name, value string, encode bool) {
		b := Parse(message)
		n, ended := Length(message)
		if !bytes.Equal(b.Bytes(), message[:n]) || ended != b.ended {
			t.Fatalf("%q became %q", message, b.Bytes())
		}
		if read, err := Read(bytes.NewReader(message)); n <= MaxBlock && (err != nil || !bytes.Equal(read, message[:n])) {
			t.Fatalf("Read of %q: %q, %v", message, read, err)
		}
		var joined []byte
		for _, field := range b.Fields() {
			joined = append(joined, field.raw...)
			_ = field.Text()
		}
		if string(joined)+string(b.data[b.end:]) != string(message[:n]) {
			t.Fatalf("the fields of %q are %q", message, joined)
		}

		same := b.Remove(func(Field) bool { return false })
		if same != b {
			t.Fatal("removing nothing makes another block")
		}
		rest := b.Remove(func(field Field) bool { return field.Is(name) })
		var kept []Field
		for _, field := range b.Fields() {
			if !field.Is(name) {
				kept = append(kept, field)
			}
		}
		compare(t, kept, rest.Fields())

		if more, err := b.Prepend(name, value, encode); err == nil {
			added(t, more.Fields()[0], name, value, encode)
			compare(t, b.Fields(), more.Fields()[1:])
			if !bytes.HasSuffix(more.Bytes(), b.Bytes()) {
				t.Fatalf("%q in front of %q", more.Bytes(), b.Bytes())
			}
		}
		if more, err := b.Append(name, value, encode); err == nil {
			last := len(more.Fields()) - 1
			added(t, more.Fields()[last], name, value, encode)
			compare(t, b.Fields(), more.Fields()[:last])
			if !bytes.HasPrefix(more.Bytes(), b.Bytes()[:b.end]) || !bytes.HasSuffix(more.Bytes(), b.Bytes()[b.end:]) {
				t.Fatalf("%q after %q", more.Bytes(), b.Bytes())
			}
		}
	})
}

// added checks that a new field holds what was asked for and nothing else.
func added(t *testing.T, f Field, name, value string, encode bool) {
	if f.Name() != name {
		t.Fatalf("the name of %q is %q", f.raw, f.Name())
	}
	want := unfold(trim([]byte(value)))
	if !encode {
		if got := unfold(f.value); got != want {
			t.Fatalf("the value of %q is %q, want %q", f.raw, got, want)
		}
		return
	}
	for line := range bytes.Lines(f.raw) {
		if len(line) > 998 {
			t.Fatalf("a line has %d bytes", len(line))
		}
		for _, c := range line {
			if c >= 0x80 {
				t.Fatalf("%q is not ASCII", line)
			}
		}
	}
	if len(value) < hardLength/4 {
		if got := f.Text(); got != want {
			t.Fatalf("%q was encoded as %q and decoded as %q", value, f.raw, got)
		}
	}
}

func compare(t *testing.T, want, got []Field) {
	if len(want) != len(got) {
		t.Fatalf("%d fields, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(want[i].raw, got[i].raw) {
			t.Fatalf("field %d is %q, was %q", i, got[i].raw, want[i].raw)
		}
	}
}
