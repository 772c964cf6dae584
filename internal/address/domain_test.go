package address

import (
	"errors"
	"strings"
	"testing"
)

func TestToASCII(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	domain253 := label63 + "." + label63 + "." + label63 + "." + label63[:61]
	for _, tt := range []struct{ in, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com", "example.com"},
		{"example.com.", "example.com"},
		{"localhost", "localhost"},
		{"10.0.0.1", "10.0.0.1"}, // without brackets it is a name
		{"_dmarc.example.com", "_dmarc.example.com"},
		{"under_score.example", "under_score.example"},
		{"r3---sn-apo3qvuoxuxbt-j5pe.example", "r3---sn-apo3qvuoxuxbt-j5pe.example"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"bu\u0308cher.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.EXAMPLE", "xn--bcher-kva.example"},
		{"straße.example", "xn--strae-oqa.example"},
		{"例子。广告", "xn--fsqu00a.xn--4rr70v"},
		{"bücher.example。", "xn--bcher-kva.example"},
		{"bücher.example．", "xn--bcher-kva.example"},
		{"bücher.example｡", "xn--bcher-kva.example"},
		{"ＥＸＡＭＰＬＥ．com", "example.com"},
		{"مثال.إختبار", "xn--mgbh0fb.xn--kgbechtv"},
		{label63 + ".example", label63 + ".example"},
		{domain253, domain253},
		{domain253 + ".", domain253},
		{"[192.0.2.1]", "[192.0.2.1]"},
		{"[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"},
		{"[ipv6:2001:DB8::1]", "[ipv6:2001:DB8::1]"},
		{"[IPv6:::ffff:192.0.2.1]", "[IPv6:::ffff:192.0.2.1]"},
	} {
		got, err := ToASCII(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ToASCII(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestToASCIIRefuses(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for _, tt := range []struct{ in, reason string }{
		{"", "empty"},
		{".", "empty"},
		{"..", "empty label"},
		{".example.com", "empty label"},
		{"a..example", "empty label"},
		{"example.com..", "empty label"},
		{"bücher..example", "empty label"},
		{"bücher.example。.", "empty label"},
		{label63 + "a.example", "longer than 63 octets"},
		{strings.Repeat("ü", 60) + ".example", "longer than 63 octets"},
		{strings.Repeat("a.", 126) + "aa", "longer than 253 octets"},
		{strings.Repeat("ü", 1<<20), "longer than 253 octets"},
		{"exa mple.com", `' '`},
		{"example.com\r\n", `'\r'`},
		{"example\x00.com", `'\x00'`},
		{"a@b", `'@'`},
		{"a/b", `'/'`},
		{"a／b.example", `'/'`}, // U+FF0F becomes a slash
		{"..／etc", "empty label"},
		{"a:25", `':'`},
		{"a<b", `'<'`},
		{"a\u3000b", `' '`},
		{"-a.example", "hyphen"},
		{"a-.example", "hyphen"},
		{"a.-.example", "hyphen"},
		{"a\xff.example", "not UTF-8"},
		{"xn--a.example", "internationalised"},
		{"xn--.example", "empty label"},
		{"example.com.xn--", "empty label"},
		{"xn--", "empty"},
		{"xn--example-.com", "internationalised"},
		{"a\u200bא1b.example", "internationalised"}, // against the Bidi rule
		{"\ufffd.example", "internationalised"},
		{"［192.0.2.1］", `'['`},
		{"[192.0.2.1", "no closing bracket"},
		{"[", "no closing bracket"},
		{"[]", "no IP address"},
		{"[example.com]", "no IP address"},
		{"[192.0.2]", "no IP address"},
		{"[192.0.2.1]]", "no IP address"},
		{"[192.0.2.1]:25", "no closing bracket"},
		{"[192.0.2.1] x=[y]", "no IP address"},
		{"[IPv6:]", "no IP address"},
		{"[IPv6:192.0.2.1]", "no IPv6 address"},
		{"[IPv6:fe80::1%eth0]", "no IP address"},
		{"[IPv6:fe80::1%\r\n]", "no IP address"},
		{"[2001:db8::1]", "lacks IPv6:"},
	} {
		got, err := ToASCII(tt.in)
		var refusal *Error
		if !errors.As(err, &refusal) {
			t.Errorf("ToASCII(%.40q) = %q, %v; want an *Error", tt.in, got, err)
			continue
		}
		if got != "" || refusal.Address != tt.in || !strings.Contains(refusal.Reason, tt.reason) {
			t.Errorf("ToASCII(%.40q) = %q, %q; want the reason %q", tt.in, got, refusal.Reason, tt.reason)
		}
	}
}

// FuzzToASCII: what is accepted is a name of the DNS or a literal, is its own A-label form, and for
// ASCII is what UTS-46 says.
func FuzzToASCII(f *testing.F) {
	for _, seed := range []string{
		"example.com", "BÜCHER.example.", "例子。广告", "xn--bcher-kva.example", "xn--abc-.x", "a_b-c.x",
		"[192.0.2.1]", "[IPv6:2001:db8::1]", "ﬀ.ſ.ß.ς", "a\u00adb.example", "\u200d.example", "1.א",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := ToASCII(in)
		if err != nil {
			return
		}
		if again, err := ToASCII(got); err != nil || again != got {
			t.Fatalf("ToASCII(%q) = %q, ToASCII of that = %q, %v", in, got, again, err)
		}
		if got[0] == '[' {
			if got != in || strings.IndexFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
				t.Fatalf("ToASCII(%q) = %q", in, got)
			}
			return
		}
		if reason := unfitName(got); reason != "" || strings.ToLower(got) != got {
			t.Fatalf("ToASCII(%q) = %q: %s", in, got, reason)
		}
		if isASCII(in) {
			whole, err := uts46.ToASCII(in)
			if err != nil || trimDot(whole) != got {
				t.Fatalf("ToASCII(%q) = %q, UTS-46 says %q, %v", in, got, whole, err)
			}
		}
	})
}

func TestSameName(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"mx.example", "MX.Example", true}, {"mx.example", "mx.example.", false}, {"", "", false},
		{"k.example", "\u212a.example", false}, {"a.example", "b.example", false}, {"[", "{", false},
	} {
		if SameName(test.a, test.b) != test.same || SameName(test.b, test.a) != test.same {
			t.Errorf("%q and %q: want %v", test.a, test.b, test.same)
		}
	}
}
