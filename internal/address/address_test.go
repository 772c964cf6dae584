package address

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		in, local, domain, wire string
	}{
		{"user@example.com", "user", "example.com", "user@example.com"},
		{"User.Name+tag@Example.COM", "User.Name+tag", "example.com", "User.Name+tag@example.com"},
		{"!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com", "!#$%&'*+-/=?^_`{|}~@example.com"},
		{"../../etc/passwd@example.com", "../../etc/passwd", "example.com", `"../../etc/passwd"@example.com`},
		{"-rf@example.com", "-rf", "example.com", "-rf@example.com"},
		{"prvs=0123456789=user=example.org@example.com", "prvs=0123456789=user=example.org", "example.com", "prvs=0123456789=user=example.org@example.com"},
		{long + long + "@example.com", long + long, "example.com", long + long + "@example.com"},

		// Quoted: what is in the quotes counts, and how it was quoted does not.
		{`"user"@example.com`, "user", "example.com", "user@example.com"},
		{`"u\s\er"@example.com`, "user", "example.com", "user@example.com"},
		{`"info@"@example.com`, "info@", "example.com", `"info@"@example.com`},
		{`"a b"@example.com`, "a b", "example.com", `"a b"@example.com`},
		{`" "@example.com`, " ", "example.com", `" "@example.com`},
		{`"a\ b"@example.com`, "a b", "example.com", `"a b"@example.com`},
		{`"a\"b\\c"@example.com`, `a"b\c`, "example.com", `"a\"b\\c"@example.com`},
		{`"<script>"@example.com`, "<script>", "example.com", `"<script>"@example.com`},
		{`"a@b"@example.com`, "a@b", "example.com", `"a@b"@example.com`},
		{`"../x"@example.com`, "../x", "example.com", `"../x"@example.com`},
		{`"x> SIZE=1 Y="@example.com`, "x> SIZE=1 Y=", "example.com", `"x> SIZE=1 Y="@example.com`},
		{"\"a\u00a0b\"@example.com", "a\u00a0b", "example.com", "\"a\u00a0b\"@example.com"},
		{`"\é"@example.com`, "é", "example.com", "é@example.com"},

		// Raw: the quotes were removed by a server.
		{"a@b@example.com", "a@b", "example.com", `"a@b"@example.com`},
		{"@@example.com", "@", "example.com", `"@"@example.com`},
		{"a..b@example.com", "a..b", "example.com", `"a..b"@example.com`},
		{".a@example.com", ".a", "example.com", `".a"@example.com`},
		{"a.@example.com", "a.", "example.com", `"a."@example.com`},
		{"a,b;c:d@example.com", "a,b;c:d", "example.com", `"a,b;c:d"@example.com`},
		{"a(b)[c]@example.com", "a(b)[c]", "example.com", `"a(b)[c]"@example.com`},
		{`a\b@example.com`, `a\b`, "example.com", `"a\\b"@example.com`},
		{`a"b@example.com`, `a"b`, "example.com", `"a\"b"@example.com`},
		{`"a@example.com`, `"a`, "example.com", `"\"a"@example.com`},
		{`"a\"@example.com`, `"a\"`, "example.com", `"\"a\\\""@example.com`},
		{`"a"b"@example.com`, `"a"b"`, "example.com", `"\"a\"b\""@example.com`},

		// Internationalised.
		{"用户@例子.广告", "用户", "xn--fsqu00a.xn--4rr70v", "用户@xn--fsqu00a.xn--4rr70v"},
		{"user@BÜCHER.example", "user", "xn--bcher-kva.example", "user@xn--bcher-kva.example"},
		{"user@xn--BCHER-kva.example", "user", "xn--bcher-kva.example", "user@xn--bcher-kva.example"},
		{"é@example.com", "é", "example.com", "é@example.com"},
		{`"é b"@example.com`, "é b", "example.com", `"é b"@example.com`},

		// No domain, literals, source routes.
		{"Postmaster", "postmaster", "", "Postmaster"},
		{"POSTMASTER", "postmaster", "", "Postmaster"},
		{"Postmaster@example.com", "Postmaster", "example.com", "Postmaster@example.com"},
		{"user@[192.0.2.1]", "user", "[192.0.2.1]", "user@[192.0.2.1]"},
		{"user@[IPv6:2001:db8::1]", "user", "[IPv6:2001:db8::1]", "user@[IPv6:2001:db8::1]"},
		{"@a.example:user@example.com", "user", "example.com", "user@example.com"},
		{"@a.example,@b.example:user@example.com", "user", "example.com", "user@example.com"},
		{"@[192.0.2.1],@[IPv6:::1]:user@example.com", "user", "example.com", "user@example.com"},
		{`@a.example:"a b"@example.com`, "a b", "example.com", `"a b"@example.com`},
		{"@a.example@example.com", "@a.example", "example.com", `"@a.example"@example.com`},
		{"@a.example,b.example:user@example.com", "@a.example,b.example:user", "example.com", `"@a.example,b.example:user"@example.com`},
		{"@a.example:@b.example:user@example.com", "@a.example:@b.example:user", "example.com", `"@a.example:@b.example:user"@example.com`},
		{"@[192.0.2.1]@example.com", "@[192.0.2.1]", "example.com", `"@[192.0.2.1]"@example.com`},
	} {
		a, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if want := (Address{tt.local, tt.domain}); a != want {
			t.Errorf("Parse(%q) = %q, want %q", tt.in, a, want)
		}
		if got := a.String(); got != tt.wire {
			t.Errorf("Parse(%q).String() = %q, want %q", tt.in, got, tt.wire)
		}
		if again, err := Parse(a.String()); again != a || err != nil {
			t.Errorf("Parse(%q) = %q, %v; want %q again", a.String(), again, err, a)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ in, reason string }{
		{"", "empty"},
		{"<>", "no @"},
		{"user", "no @"},
		{"user@", "domain is empty"},
		{"user@.", "domain is empty"},
		{"@", "local part is empty"},
		{"@example.com", "local part is empty"},
		{`""@example.com`, "local part is empty"},
		{"@a.example:user", "no @"},
		{"@[192.0.2.1]", "local part is empty"},
		{"@[192.0.2.1", "local part is empty"},
		{"a b@example.com", "space outside quotes"},
		{" a@example.com", "space outside quotes"},
		{"a @example.com", "space outside quotes"},
		{`"a" @example.com`, "space outside quotes"},
		{`"a b"c@example.com`, "space outside quotes"},
		{`"a b\"@example.com`, "space outside quotes"},
		{"a\u00a0b@example.com", "space outside quotes"},
		{"a\u2028b@example.com", "space outside quotes"},
		{"<user@example.com>", "angle bracket"},
		{"us<er@example.com", "angle bracket"},
		{"a> SIZE=1 X=@example.com", "angle bracket"},
		{"user@example.com>", `domain holds '>'`},
		{"user@example.com> SIZE=1", `domain holds '>'`},
		{"user@example.com NOTIFY=NEVER", `domain holds ' '`},
		{"user@exa mple.com", `domain holds ' '`},
		{"user@example.com:25", `domain holds ':'`},
		{`"a@example.com"`, `domain holds '"'`},
		{"user\r\nRCPT TO:<x@example.com", "control character U+000D"},
		{"\"a\nb\"@example.com", "control character U+000A"},
		{"\"a\\\nb\"@example.com", "control character U+000A"},
		{"a\x00b@example.com", "control character U+0000"},
		{"\"a\tb\"@example.com", "control character U+0009"},
		{"a\x7fb@example.com", "control character U+007F"},
		{"a\u0085b@example.com", "control character U+0085"},
		{"user@example\n.com", "control character U+000A"},
		{"us\xffer@example.com", "not UTF-8"},
		{"user@ex\xffample.com", "not UTF-8"},
		{"user@a..example", "empty label"},
		{strings.Repeat("a", 1000) + "@example.com", "longer than 1000 octets"},
		{strings.Repeat("\"", 500) + "@example.com", "longer than 1000 octets"},
	} {
		a, err := Parse(tt.in)
		var refusal *Error
		if !errors.As(err, &refusal) {
			t.Errorf("Parse(%q) = %q, %v; want an *Error", tt.in, a, err)
			continue
		}
		if a != (Address{}) || refusal.Address != tt.in || !strings.Contains(refusal.Reason, tt.reason) {
			t.Errorf("Parse(%q) = %q, %+v; want the reason %q", tt.in, a, refusal, tt.reason)
		}
	}
}

func TestLengthIsOfTheWireForm(t *testing.T) {
	const domain = "@example.com"
	for _, tt := range []struct {
		local string
		ok    bool
	}{
		{strings.Repeat("a", maxLength-len(domain)), true},
		{strings.Repeat("a", maxLength-len(domain)+1), false},
		{`"` + strings.Repeat("a", maxLength-len(domain)+1) + `"`, false},
		{strings.Repeat("a", maxLength-len(domain)-3) + ".", true}, // quotes take two
		{strings.Repeat("a", maxLength-len(domain)-2) + ".", false},
		{"x" + strings.Repeat(`"`, (maxLength-len(domain)-4)/2), true}, // each takes a backslash
		{"xx" + strings.Repeat(`"`, (maxLength-len(domain)-4)/2+1), false},
	} {
		a, err := Parse(tt.local + domain)
		if (err == nil) != tt.ok {
			t.Errorf("%d octets, quoted %d: %v", len(tt.local+domain), len(a.String()), err)
		}
	}
}

func TestParseSender(t *testing.T) {
	for _, in := range []string{"", "<>"} {
		a, err := ParseSender(in)
		if err != nil || !a.IsNull() || a.String() != "" || a.LocalString() != "" || !a.ASCIILocal() {
			t.Errorf("ParseSender(%q) = %q, %v; want the null sender", in, a, err)
		}
	}
	if a, err := ParseSender("user@example.com"); err != nil || a.IsNull() || a.String() != "user@example.com" {
		t.Errorf("ParseSender of an address = %q, %v", a, err)
	}
	for _, in := range []string{" ", "< >", "<user@example.com>", "@"} {
		if a, err := ParseSender(in); err == nil {
			t.Errorf("ParseSender(%q) = %q, want an error", in, a)
		}
	}
}

func TestASCIILocal(t *testing.T) {
	for in, want := range map[string]bool{
		"user@example.com":     true,
		"user@bücher.example":  true, // the domain goes as A-labels
		"usér@example.com":     false,
		`"us ér"@example.com`:  false,
		"Postmaster":           true,
		`"a b"@[IPv6:2001::1]`: true,
	} {
		a, err := Parse(in)
		if err != nil || a.ASCIILocal() != want {
			t.Errorf("Parse(%q).ASCIILocal() = %v, %v; want %v", in, a.ASCIILocal(), err, want)
		}
	}
}

func TestErrorIsSafeToLog(t *testing.T) {
	for _, in := range []string{
		"a\r\nb\x1b[31m@example.com",
		"a\u202eb c@example.com",
		strings.Repeat("x", 1<<20),
		strings.Repeat("é ", 1<<20) + "@example.com",
		strings.Repeat("\xff", 1<<20),
		"a@" + strings.Repeat("é", 1<<20),
	} {
		_, err := Parse(in)
		if err == nil {
			t.Errorf("Parse(%.20q...) accepts", in)
			continue
		}
		text := err.Error()
		if len(text) > 1000 || strings.ContainsAny(text, "\r\n\x1b\u202e") || !utf8.ValidString(text) {
			t.Errorf("%d octets: %.100q", len(text), text)
		}
	}
}

// FuzzParse: what is accepted goes on the wire as one word that cannot end the path, and comes back
// as the same address.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"user@example.com", `"a b"@example.com`, "a@b@example.com", `"a\"b\\c"@[192.0.2.1]`, "Postmaster",
		"@a.example,@[IPv6:::1]:user@example.com", "用户@例子.广告", "a..b@x", "us\xffer@example.com",
		`"x> SIZE=1"@example.com`, "a@xn--bcher-kva.example.", "ſ@ﬀ.example", "\"a\u2028\"@x", `"a`, "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		a, err := Parse(in)
		if sender, senderErr := ParseSender(in); in != "" && in != "<>" && (sender != a || (senderErr == nil) != (err == nil)) {
			t.Fatalf("ParseSender(%q) = %q, %v; Parse says %q, %v", in, sender, senderErr, a, err)
		}
		if err != nil {
			if a != (Address{}) {
				t.Fatalf("Parse(%q) = %q with an error", in, a)
			}
			return
		}
		if slow, reason := parseAny(in); slow != a || reason != "" {
			t.Fatalf("Parse(%q) = %q at one look, %q (%s) at a closer one", in, a, slow, reason)
		}
		if a.IsNull() || a.Local == "" || !utf8.ValidString(a.Local) {
			t.Fatalf("Parse(%q) = %q", in, a)
		}
		wire := a.String()
		if len(wire) > maxLength {
			t.Fatalf("Parse(%q).String() has %d octets", in, len(wire))
		}
		if i := dangerous(wire); i >= 0 {
			t.Fatalf("Parse(%q).String() = %q: dangerous at %d", in, wire, i)
		}
		if again, err := Parse(wire); err != nil || again != a || again.String() != wire {
			t.Fatalf("Parse(%q) = %q, Parse(%q) = %q, %v", in, a, wire, again, err)
		}
	})
}

// dangerous reads the wire form as a server would and returns the index of the first octet that
// could end the path or the line, or -1.
func dangerous(wire string) int {
	quoted := false
	for i := 0; i < len(wire); i++ {
		switch c := wire[i]; {
		case c < ' ' || c == 0x7f:
			return i
		case quoted && c == '\\':
			i++
			if i == len(wire) || wire[i] < ' ' || wire[i] == 0x7f {
				return i - 1
			}
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(" <>", c) >= 0:
			return i
		}
	}
	if quoted {
		return len(wire)
	}
	return -1
}

func TestTextIsString(t *testing.T) {
	for _, text := range []string{"a@x.example", "A@x.example", "a@X.example", `"a b"@x.example`, `"a"@x.example`, "a b@x.example", "Postmaster",
		"postmaster", "ü@x.example", "a@ü.example", `"a@b"@x.example`, "a@b@x.example", "a@[192.0.2.1]", "<a@x.example>"} {
		a, err := Parse(text)
		if err != nil {
			continue
		}
		if got := a.Text(text); got != a.String() {
			t.Errorf("%s: Text is %q, String %q", text, got, a.String())
		}
	}
	a, _ := Parse("user@x.example")
	text := "user@x.example"
	if n := testing.AllocsPerRun(100, func() { a.Text(text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
