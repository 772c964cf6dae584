package regex

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// texts are what the groups of all matches have matched: "whole,1,2;whole,1,2", "-" being a group without part.
func texts(t testing.TB, re *Regexp, text string) string {
	t.Helper()
	var matches []string
	for match, err := range re.All(t.Context(), text) {
		if err != nil {
			t.Fatalf("%s: %v", re, err)
		}
		var groups []string
		for i := 0; i < len(match); i += 2 {
			if match[i] < 0 {
				groups = append(groups, "-")
			} else {
				groups = append(groups, text[match[i]:match[i+1]])
			}
		}
		matches = append(matches, strings.Join(groups, ","))
	}
	return strings.Join(matches, ";")
}

// both are the expression as it is and one that the machine matches, whatever it is.
func both(t testing.TB, source string) []*Regexp {
	t.Helper()
	re, err := Compile(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	forced := *re
	n, names, err := parse(source)
	if err != nil {
		t.Fatal(err)
	}
	forced.whole, forced.program = nil, build(n, len(names))
	return []*Regexp{re, &forced}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct{ source, text, want string }{
		{`a`, "banana", "a;a;a"},
		{`a*`, "baac", ";aa;"},
		{``, "ab", ";;"},
		{`(a)|(b)`, "ab", "a,a,-;b,-,b"},
		{`(\d+)-(?<unit>\w+)`, "12-km 7-mi", "12-km,12,km;7-mi,7,mi"},
		{`(?P<a>x)(?<b>y)`, "xy", "xy,x,y"},
		{`a|ab`, "ab", "a"},
		{`a+?b*?`, "aab", "a;a"},
		{`(?i)STRASSE|ß`, "Strasse ẞ", "Strasse;ẞ"},
		{`(?i:a)b`, "AbAB", "Ab"},
		{`(?i)k`, "\u212a", "\u212a"},
		{`^a$`, "a\n", ""},
		{`(?m)^.$`, "a\nb", "a;b"},
		{`a\Z`, "ba\n\n", "a"},
		{`a.c`, "a\nc abc", "abc"},
		{`(?s)a.c`, "a\nc", "a\nc"},
		{`(?s:a.)c`, "a\nc", "a\nc"},
		{`(?U)a+`, "aa", "a;a"},
		{`(?U)a+?`, "aa", "aa"},
		{"(?x) a b # comment\n c", "abc", "abc"},
		{`(?x)[a b]\ `, "a b ", "a ;b "},
		{`a(?#a comment)b`, "ab", "ab"},
		{`\w+`, "naïve Straße_1", "naïve;Straße_1"},
		{`\d`, "٣4", "٣;4"},
		{`a\sb`, "a\u00a0b", "a\u00a0b"},
		{`\bé\b`, "é né éa", "é"},
		{`\bb`, "éb b", "b"},
		{`\B.`, "ab", "b"},
		{`\<\w|\w\>`, "ab cd", "a;b;c;d"},
		{`\b{start}\w`, "ab cd", "a;c"},
		{`[[:alpha:]]+`, "a1b", "a;b"},
		{`[a-z&&[^aeiou]]+`, "hello", "h;ll"},
		{`[a-z--aeiou]+`, "hello", "h;ll"},
		{`[a-c~~b-d]+`, "abcd", "a;d"},
		{`[a[0-9]b]+`, "a1bc", "a1b"},
		{`[\w.-]+@[\w-]+`, "x a.b-c@d-e.f", "a.b-c@d-e"},
		{`[]a]+[^]b]`, "]a]c", "]a]c"},
		{`[^\W\d]+`, "a1é", "a;é"},
		{`[-a]+|[b-]+`, "-a-b", "-a-;b"},
		{`[\]\-\\]+`, `x]-\`, `]-\`},
		{`[+--]+`, "+,-", "+"},
		{`\x41\x{e9}\u0062\u{1F600}\U0001F600`, "Aéb😀😀", "Aéb😀😀"},
		{`\p{Greek}+|\pN|\P{ASCII}`, "αβ1", "αβ;1"},
		{`\h+\H`, "c0ffeeg", "c0ffeeg"},
		{`\.\*\/\_\"`, `.*/_"`, `.*/_"`},
		{`a{2}|b{1,}|c{,2}d|{x}`, "aabbbccd{x}", "aa;bbb;ccd;{x}"},
		{`(?:ab){2,3}`, "abababab", "ababab"},
		{`(?:a*)*`, "aab", "aa;"},
		{`(a|b)*c`, "abc", "abc,b"},
		{`(?:a|b)+?c`, "abc", "abc"},
		{`x{1001}`, strings.Repeat("x", 1001), strings.Repeat("x", 1001)},
		{"\xef\xbf\xbd", "a\xffb", "\xff"},
		{`.`, "\xff\xc3", "\xff;\xc3"},
		// What package regexp has not.
		{`a(?=b)`, "acab", "a"},
		{`a(?!b)`, "abac", "a"},
		{`(?<=\$)\d+`, "1 $20", "20"},
		{`(?<!\$)\b\d+`, "1 $20", "1"},
		{`(?<=a|bc)d`, "ad bcd cd", "d;d"},
		{`(?<=é{1,2})x`, "éx", "x"},
		{`(?<=(a)(b))c`, "abc", "c,a,b"},
		{`(?=(\w+))\1:`, "abc:", "abc:,abc"},
		{`(\w)\1`, "hello", "ll,l"},
		{`(?<q>['"]).*?\k<q>`, `'a"' "b'"`, `'a"',';"b'","`},
		{`(?P<c>\w)(?P=c)`, "aab", "aa,a"},
		{`(?i)(a)\1`, "aA", "aA,a"},
		{`(a)?b\1`, "bb aba", "aba,a"},
		{`(?>a+)ab`, "aaab", ""},
		{`a++b|a*+a|b?+`, "aab", "aab"},
		{`a\Kb`, "ab b", "b"},
		{`(?<=\Ka)`, "aa", ";"},
		{`\Ga`, "aab a", "a;a"},
		{`^(?!.*bad).*$`, "good", "good"},
		{`^(?!.*bad).*$`, "a bad one", ""},
		{`(?!x)*a`, "a", "a"},
		{`(?=a)*b`, "b", "b"},
		{`((?!b)\w)+`, "aacb", "aac,c"},
		{`(?<![\w.])@(\w+)`, "a@b @c", "@c,c"},
	} {
		for i, re := range both(t, test.source) {
			if got := texts(t, re, test.text); got != test.want {
				t.Errorf("%q in %q (%d): %q, want %q", test.source, test.text, i, got, test.want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for source, want := range map[string]string{
		`(`: "at byte 1: the group is not closed", `a)`: "at byte 2: unexpected )", `*`: "at byte 1: there is nothing to repeat",
		`a|*`: "at byte 3", `[a`: "at byte 1: the class is not closed", `[b-a]`: "no range", `[a-\d]`: "no range",
		`\`: "a backslash at the end", `[\`: "a backslash at the end", `\y`: `there is no escape \y`, `\0`: `no escape \0`, `a{3,2}`: "counts down",
		`a{200000}`: "more than 100000 repetitions", `(?:(?:a{1000}b){1000}){1000}`: "too large", `\1`: "no such group", `(a)\2`: "at byte 4: there is no such group",
		`\k<x>`: "no such group", `(?<x>a)(?<x>b)`: `two groups of the name "x"`, `(?<1>a)`: "the name of a group", `(?<a`: "the name",
		`(?z)`: "(?z is not available", `(?-u)`: "-u is not available", `(?(1)a|b)`: "not available", `(?i`: "not closed", `(?#a`: "the comment is not closed",
		`(?<=a*)b`: "look-behind", `(?<=(a)\1)b`: "look-behind", `[[:nope:]]`: "no class [:nope:]", `\p{Nope}`: `no property "Nope"`, `\p{`: "not closed",
		`\xZZ`: "no such character", `\x{110000}`: "no such character", `\u{}`: "no such character", `\u{d800}`: "no such character", `\x4`: "no such character",
		"a\xff": "not UTF-8", strings.Repeat("(", 300): "nested too deeply", strings.Repeat("[", 300): "nested too deeply",
		"a" + strings.Repeat("*", 300): "nested too deeply", strings.Repeat("a", 70000): "longer than", strings.Repeat(`[\w\d]`, 3000): "too large",
	} {
		if _, err := Compile(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", source, err, want)
		}
	}
}

func TestReplace(t *testing.T) {
	for _, test := range []struct {
		source, text, replacement string
		limit                     int
		want                      string
	}{
		{`[^01]+`, "1078910", "", 1, "1010"},
		{`(?P<last>[^,\s]+),\s+(?P<first>\S+)`, "Springsteen, Bruce", "$first $last", 0, "Bruce Springsteen"},
		{`(a)(b)?`, "ab a", "<$1$2>", 0, "<ab> <a>"},
		{`a`, "aaa", "b", 2, "bba"},
		{`a`, "aaa", "${0}$$0$", 0, "a$0$a$0$a$0$"},
		{`(a)`, "a", "$1x|${1}x|$nope|$9|${|$-", 0, "|ax|||${|$-"},
		{`x`, "aaa", "b", 0, "aaa"},
		{``, "ab", "-", 0, "-a-b-"},
		{`(?<=a)b`, "ab b", "${0}c", 0, "abc b"},
		{`a\Kb`, "ab", "c", 0, "ac"},
	} {
		for _, re := range both(t, test.source) {
			if got, err := re.Replace(t.Context(), test.text, test.replacement, test.limit, 100); got != test.want || err != nil {
				t.Errorf("%s: %q, %v", test.source, got, err)
			}
		}
	}
	re, err := Compile("a")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := re.Replace(t.Context(), "aaaa", "12345", 0, 19); err == nil || !strings.Contains(err.Error(), "longer than 19 bytes") {
		t.Error(got, err)
	}
	if got, err := re.Replace(t.Context(), "bbbb", "", 0, 3); err == nil {
		t.Error(got)
	}
}

func TestEscape(t *testing.T) {
	for r := range rune(256) {
		re, err := Compile("^" + Escape(string(r)) + "$")
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := re.IsMatch(t.Context(), string(r)); !ok || err != nil {
			t.Errorf("%q: %v %v", r, ok, err)
		}
	}
}

// weary ends when it has been looked at so many times.
type weary struct {
	context.Context
	looks int
}

func newWeary(looks int) *weary {
	return &weary{context.Background(), looks}
}

func (w *weary) Err() error {
	if w.looks--; w.looks < 0 {
		return context.Canceled
	}
	return nil
}

// Whatever an expression tries, it hears of the end of its context, or gives up.
func TestCatastrophe(t *testing.T) {
	long := strings.Repeat("a", 1<<20)
	for _, test := range []struct{ source, text string }{
		{`(?=x|a)(a+)+$`, strings.Repeat("a", 60) + "b"},
		{`(a|a)*\1$`, strings.Repeat("a", 60) + "b"},
		{`(?:a?){60}(?!a)b`, strings.Repeat("a", 60)},
		{`(?:(?:a*)*)*(?!a)b`, strings.Repeat("a", 60)},
		{`(?<=a{1,200})(?!a)b`, long},
		{`(?!b).*?.*?.*?.*?b`, strings.Repeat("a", 4000)},
		{`(a*)\1b`, strings.Repeat("a", 100000)},
		{`(?:a|b|(?!))*c`, long},
		{`\b(?:\w+\s?)+$`, strings.Repeat("é", 60) + "!"},
		{`(?:\w{0,900}x){0,3}y`, long},
		{`(?i)(?:.{0,500}[xy]){2}`, long},
	} {
		re, err := Compile(test.source)
		if err != nil {
			t.Fatal(err)
		}
		if match, err := re.Find(newWeary(20), test.text); !errors.Is(err, context.Canceled) || match != nil {
			t.Errorf("%s: %v, %v", test.source, match, err)
		}
	}
	re, err := Compile(`(?=a)(a+)+$`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := re.Find(t.Context(), strings.Repeat("a", 40)+"b"); !errors.Is(err, ErrTooHard) {
		t.Error(err)
	}
	re, err = Compile(`(?:a|b)*(?!c)$`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := re.Find(t.Context(), strings.Repeat("ab", 1<<20)); !errors.Is(err, ErrTooHard) {
		t.Error(err)
	}
}

// The matches in a long text, which is read rune by rune, are those that package regexp finds at once.
func TestLongText(t *testing.T) {
	text := strings.Repeat("The quick, brown fox \xff. \n", 2000)
	for _, source := range []string{`\w+`, `(?m)^T(h)?`, `quick`, `(?m)$`, `\bq(u)`, `\AThe`, `n\b`, `x?`, `.{0,40}x`} {
		re, err := Compile(source)
		if err != nil {
			t.Fatal(err)
		}
		re.asciiOnly = false // the letters are
		var got [][]int
		for match, err := range re.All(t.Context(), text) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, slices.Clone(match))
		}
		if want := re.whole.FindAllStringSubmatchIndex(text, -1); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: %d matches, want %d", source, len(got), len(want))
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, source := range []string{`(?i)[a-z&&[^b]]+\k<x>(?<x>a)`, `(?<=a|b)c++(?>x*)`, `\p{Greek}{1,3}?(?#x)`, `(?x) a #b`, `[^\W[:alpha:]--\x{41}]`} {
		f.Add(source, "abc abc")
	}
	f.Fuzz(func(t *testing.T, source, text string) {
		re, err := Compile(source)
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(source, "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		last := 0
		for match, err := range re.All(newWeary(50), text) {
			if err != nil {
				return
			}
			if match[0] > match[1] || match[0] < last || match[1] > len(text) {
				t.Errorf("%q in %q: %v", source, text, match)
			}
			last = match[1]
		}
	})
}

// What package regexp and the machine both can match, they match alike.
func FuzzAlike(f *testing.F) {
	for _, source := range []string{`(a|b)*?c`, `(?i)a+b{1,2}`, `(?m)^a|b$`, `(?:a|ab)(c|bcd)(d*)`, `[^a]+\b`, `(a?)(ab)?`} {
		f.Add(source, "abcab\nABC d")
	}
	f.Fuzz(func(t *testing.T, source, text string) {
		n, names, err := parse(source)
		if err != nil || !n.regular() || len(source) > 50 || len(text) > 50 || loopsOnNothing(n) {
			return
		}
		re, err := Compile(source)
		if err != nil || re.whole == nil || re.asciiOnly && !isASCII(text) {
			return
		}
		machine := &Regexp{source: source, names: names, program: build(n, len(names))}
		var a, b [][]int
		for match, err := range re.All(t.Context(), text) {
			if err != nil {
				t.Fatal(err)
			}
			a = append(a, slices.Clone(match))
		}
		for match, err := range machine.All(newWeary(500), text) {
			if err != nil {
				return // it takes too long
			}
			b = append(b, slices.Clone(match))
		}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%q in %q: %v, the machine: %v", source, text, a, b)
		}
		// All takes the matches one by one; package regexp would give the same.
		all := re.whole.FindAllStringSubmatchIndex(text, -1)
		if fmt.Sprint(a) != fmt.Sprint(all) {
			t.Errorf("%q in %q: %v, all at once: %v", source, text, a, all)
		}
	})
}

// loopsOnNothing is whether something is repeated that may be empty: what its groups have then is a matter of taste.
func loopsOnNothing(n *node) bool {
	if n.op == opRepeat {
		if low, _ := n.subs[0].width(); low == 0 {
			return true
		}
	}
	return slices.ContainsFunc(n.subs, loopsOnNothing)
}

// The subset that policies share with package regexp means the same there.
func TestLikeRegexp(t *testing.T) {
	const text = "250 2.0.0 OK id=4A-b <user@a.example> [10.0.0.1]"
	for _, source := range []string{`^(\d{3})[ -](\d\.\d\.\d)?`, `<([^>]*)>`, `\[(.*?)\]`, `id=(\S+)`, `(?i)ok|ID`, `[^ ]+$`} {
		want := fmt.Sprint(regexp.MustCompile(source).FindAllStringSubmatch(text, -1))
		for _, re := range both(t, source) {
			var got [][]string
			for match, err := range re.All(t.Context(), text) {
				if err != nil {
					t.Fatal(err)
				}
				var groups []string
				for i := 0; i < len(match); i += 2 {
					if match[i] < 0 {
						groups = append(groups, "")
						continue
					}
					groups = append(groups, text[match[i]:match[i+1]])
				}
				got = append(got, groups)
			}
			if fmt.Sprint(got) != want {
				t.Errorf("%s: %v, want %s", source, got, want)
			}
		}
	}
}
