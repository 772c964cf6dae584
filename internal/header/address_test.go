package header

import (
	"strings"
	"testing"
)

// show is a list in one line: name<user|domain|email>, groups in braces.
func show(entries []Entry) string {
	var parts []string
	for _, e := range entries {
		var members []string
		for _, m := range e.Members {
			members = append(members, m.Name+"<"+m.User+"|"+m.Domain+"|"+m.Email()+">")
		}
		text := strings.Join(members, " ")
		if e.IsGroup {
			text = e.Name + "{" + text + "}"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ value, want string }{
		{"a@b.example", "<a|b.example|a@b.example>"},
		{"<a@b.example>", "<a|b.example|a@b.example>"},
		{"Jane Q. Doe <jane@b.example>", "Jane Q. Doe<jane|b.example|jane@b.example>"},
		{`"Doe, Jane" <jane@b.example>`, "Doe, Jane<jane|b.example|jane@b.example>"},
		{`"a\"b, <x@y>" <jane@b.example>`, `a"b, <x@y><jane|b.example|jane@b.example>`},
		{"jane@b.example (Jane, of B)", "Jane, of B<jane|b.example|jane@b.example>"},
		{"=?utf-8?q?Jos=C3=A9?= =?iso-8859-1?q?_=E9?= <j@b.example>", "José é<j|b.example|j@b.example>"},
		{"=?klingon?q?x=E9?= <j@b.example>", "x\uFFFD<j|b.example|j@b.example>"},
		{"Jos\u00e9 <j@b.example>", "José<j|b.example|j@b.example>"},
		{"Jos\xe9 <j@b.example>", "Jos\uFFFD<j|b.example|j@b.example>"},
		{`"info@"@b.example`, `<info@|b.example|"info@"@b.example>`},
		{`"a b"@[192.0.2.1]`, `<a b|[192.0.2.1]|"a b"@[192.0.2.1]>`},
		{"a@[192.0.2.1], c@d", "<a|[192.0.2.1]|a@[192.0.2.1]>; <c|d|c@d>"},
		{"a@b,\r\n C <c@d>,\t, e@f ,", "<a|b|a@b>; C<c|d|c@d>; <e|f|e@f>"},
		{"Friends: a@b, C <c@d>;", "Friends{<a|b|a@b> C<c|d|c@d>}"},
		{"undisclosed-recipients:;", "undisclosed-recipients{}"},
		{"\"A: group\":a@b;, x@y", "A: group{<a|b|a@b>}; <x|y|x@y>"},
		{":a@b;", "{<a|b|a@b>}"},
		{"", ""},
		{" , ,", ""},

		{"a@b c@d", "error: expected single address"},
		{"Doe, Jane <jane@b.example>", "error: missing '@'"},
		{"nobody", "error: missing '@'"},
		{"<>", "error: "},
		{"<a@b", "error: unclosed angle-addr"},
		{`"a <a@b>`, "error: missing word in phrase: mail: unclosed quoted-string"},
		{"a@b (c", "error: misformatted"},
		{"a@", "error: missing '@'"},
		{"@b", "error: "},
		{"jos\xe9@b.example", "error: an address is not UTF-8"},
		{"A: a@b", "error: a group does not end"},
		{"A: B: a@b;", "error: a group is inside another"},
		{"a@b;", "error: a semicolon ends a group that did not begin"},
		{strings.Repeat("(", maxMailbox) + "a@b", "error: an address is longer"},
		{strings.Repeat("x", maxMailbox+1) + ":;", "error: a name is longer"},
	} {
		b := Parse([]byte("To: " + test.value + "\r\n\r\n"))
		entries, err := b.Fields()[0].Addresses()
		got := show(entries)
		if err != nil {
			got = "error: " + strings.TrimPrefix(err.Error(), "the header To has no list of addresses: ")
		}
		if got != test.want && !(err != nil && test.want != "" && strings.HasPrefix(got, test.want)) {
			t.Errorf("%.60q:\n%s, want\n%s", test.value, got, test.want)
		}
	}
}

func TestManyAddresses(t *testing.T) {
	const n = 20000
	b := Parse([]byte("To: " + strings.Repeat("Jane Doe <jane@b.example>,\r\n ", n) + "\r\n\r\n"))
	entries, err := b.Fields()[0].Addresses()
	if err != nil || len(entries) != n {
		t.Error(len(entries), err)
	}
}

// Of what looks like addresses a header of MaxBlock has half a million.
func TestTooManyAddresses(t *testing.T) {
	for _, element := range []string{"a@b,", ":;", "a:b@c;"} {
		for _, test := range []struct {
			n  int
			ok bool
		}{{maxAddresses / 2, true}, {maxAddresses + 1, false}} {
			_, err := Parse([]byte("To: " + strings.Repeat(element, test.n) + "\r\n\r\n")).Fields()[0].Addresses()
			if (err == nil) != test.ok || err != nil && !strings.Contains(err.Error(), "more than 65536 addresses") {
				t.Errorf("%d of %s: %v", test.n, element, err)
			}
		}
	}
	if _, err := Parse([]byte("To: " + strings.Repeat(" , ", maxAddresses+1) + "\r\n\r\n")).Fields()[0].Addresses(); err != nil {
		t.Error("empty elements are none:", err)
	}
}

func FuzzAddresses(f *testing.F) {
	for _, seed := range []string{"a@b", "A <a@b>, B: c@d, \"e f\"@[1.2.3.4];", "a@b (c \\) d)", "\"x\\\"y\"@z", "=?utf-8?q?a?= <b@c>", ":;"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		field := Field{name: []byte("To"), value: []byte(value)}
		entries, err := field.Addresses()
		if err != nil {
			return
		}
		for _, e := range entries {
			if !e.IsGroup && len(e.Members) != 1 {
				t.Fatalf("%q: %+v", value, e)
			}
			for _, m := range e.Members {
				// White space in a field is one space, unless it is quoted one by one.
				email := strings.ReplaceAll(m.Email(), " ", `\ `)
				again, err := Field{value: []byte("<" + email + ">")}.Addresses()
				if err != nil || len(again) != 1 || again[0].Members[0].User != m.User || again[0].Members[0].Domain != m.Domain {
					t.Fatalf("%q has %q, which reads as %+v, %v", value, m.Email(), again, err)
				}
			}
		}
	})
}
