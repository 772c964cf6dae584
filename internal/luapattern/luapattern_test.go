package luapattern

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

type meter func(steps int)

func (m meter) Step(steps int) { m(steps) }

// free counts nothing.
type free struct{}

func (free) Step(int) {}

// find is what one search finds, written as "from-to" in Lua's positions with the captures behind it.
func find(t testing.TB, subject, pattern string, start int) string {
	t.Helper()
	m := Matcher{Subject: subject, Meter: free{}}
	m.Compile(pattern, true)
	from, to, ok, err := m.Find(start)
	if err != nil {
		return "error: " + err.Error()
	}
	if !ok {
		return "nil"
	}
	found := fmt.Sprintf("%d-%d", from+1, to)
	for i := range m.Captures() {
		start, end, position := m.Capture(i)
		if position {
			found += fmt.Sprintf(" @%d", start+1)
		} else {
			found += " " + subject[start:end]
		}
	}
	return found
}

func TestFind(t *testing.T) {
	for _, test := range []struct{ subject, pattern, want string }{
		{"", "", "1-0"},
		{"alo", "", "1-0"},
		{"a\x00o a\x00o a\x00o", "a", "1-1"},
		{"a\x00o a\x00o", "\x00", "2-2"},
		{"a\x00o a\x00o", "\x00%s*o", "2-3"},
		{"a\x00a\x00b", "\x00b", "4-5"},
		{"alo123alo", "12", "4-5"},
		{"alo123alo", "^12", "nil"},
		{"alo", "^alo$", "1-3"},
		{"aaab", "a*", "1-3"},
		{"aaa", "^.*$", "1-3"},
		{"aaa", "b*", "1-0"},
		{"aaa", "ab*a", "1-2"},
		{"aba", "ab*a", "1-3"},
		{"aaab", "a+", "1-3"},
		{"aaab", "^.+$", "1-4"},
		{"aaa", "b+", "nil"},
		{"aaa", "ab+a", "nil"},
		{"aba", "ab+a", "1-3"},
		{"a$a", ".$", "3-3"},
		{"a$a", ".%$", "1-2"},
		{"a$a", ".$.", "1-3"},
		{"a$a", "$$", "nil"},
		{"a$b", "a$", "nil"},
		{"a$a", "$", "4-3"},
		{"", "b*", "1-0"},
		{"aaa", "bb*", "nil"},
		{"aaab", "a-", "1-0"},
		{"aaa", "^.-$", "1-3"},
		{"aabaaabaaabaaaba", "b.*b", "3-15"},
		{"aabaaabaaabaaaba", "b.-b", "3-7"},
		{"alo xo", ".o$", "5-6"},
		{" \n isto é assim", "%S%S*", "4-7"},
		{" \n isto é assim", "%S*$", "12-16"},
		{" \n isto é assim", "[a-z]*$", "12-16"},
		{"um caracter ? extra", "[^%sa-z]", "13-13"},
		{"", "a?", "1-0"},
		{"ábl", "á?b?l?", "1-4"},
		{"aa", "^aa?a?a", "1-2"},
		{"]]]áb", "[^]]", "4-4"},
		{"0alo alo", "%x*", "1-2"},
		{"alo alo", "%C+", "1-7"},
		{"\x7f!~ ", "%g+", "2-3"},
		{"]-x", "[]%-]+", "1-2"},
		{"a-z", "[a-]+", "1-2"},
		{"a-z", "[%a-z]+", "1-3"},
		{"a%z", "[a-%z]+", "3-3"},
		{"xz-", "[%w-]+", "1-3"},
		{"\xff\x00", "[\x80-\xff]%z", "1-2"},
		{"a.b", "%.", "2-2"},
		{"key = value", "^(%w+)%s*=%s*(%w+)$", "1-11 key value"},
		{"key = value", "()=()", "5-5 @5 @6"},
		{"hello", "(h)(.(l))(())", "1-3 h el l  @4"},
		{"=====", "^(=*)=%1$", "1-5 =="},
		{"=======", "^(=*)=%1$", "1-7 ==="},
		{"==", "^(=*)=%1$", "nil"},
		{"\"it's\" x", "([\"'])(.-)%1", "1-6 \" it's"},
		{"()%1", "()%1", "nil"},
		{"f(a(b)c) d", "%b()", "2-8"},
		{"((a)", "%b()", "2-4"},
		{"'a''b'", "%b''", "1-3"},
		{"THE (quick) fox", "%f[%a]%a+%f[%A]", "1-3"},
		{"THE (quick) fox", "%((%a+%))", "5-11 quick)"},
		{"[[]] [][] [[[[", "%f[[].", "1-1"},
		{"foo", "%f[\x00]", "4-3"},
		{"aba", "%f[%z]", "4-3"},
		{"a*", "(a)*", "1-2 a"},
		{"+a", "+a", "1-2"},
		{"a^b", "a^b", "1-3"},
		{"x]y", "x]y", "1-3"},
		{"%y", "%y", "2-2"},
		{"a%", "%%", "2-2"},
		{strings.Repeat("a", 12), strings.Repeat("a?", 12) + strings.Repeat("a", 12), "1-12"},
		{strings.Repeat("a", 300000), "^a*.?$", "1-300000"},
		{strings.Repeat("a", 300000), "^a-.?$", "1-300000"},
		{strings.Repeat("a", 300000) + "b", ".-b", "1-300001"},
		{strings.Repeat("a", 30), strings.Repeat("(a)", 32), "nil"},
	} {
		if got := find(t, test.subject, test.pattern, 0); got != test.want {
			t.Errorf("find(%.40q, %.40q) = %s, want %s", test.subject, test.pattern, got, test.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct{ subject, pattern, want string }{
		{"a", "%", "malformed pattern (ends with '%')"},
		{"a", ".%", "malformed pattern (ends with '%')"},
		{"a", "[a", "malformed pattern (missing ']')"},
		{"a", "[]", "malformed pattern (missing ']')"},
		{"a", "[^]", "malformed pattern (missing ']')"},
		{"a", "[a%]", "malformed pattern (missing ']')"},
		{"a", "[a%", "malformed pattern (missing ']')"},
		{"a", "[", "malformed pattern (missing ']')"},
		{"a", "%b", "malformed pattern (missing arguments to '%b')"},
		{"a", "%ba", "malformed pattern (missing arguments to '%b')"},
		{"a", "%f", "missing '[' after '%f' in pattern"},
		{"a", "%fa", "missing '[' after '%f' in pattern"},
		{"a", "%f[a", "malformed pattern (missing ']')"},
		{"a", "(.", "unfinished capture"},
		{"a", ".)", "invalid pattern capture"},
		{"a", "(())(a))", "invalid pattern capture"},
		{"a", "(%0)", "invalid capture index %0"},
		{"a", "(%1)", "invalid capture index %1"},
		{"a", "(a)%2", "invalid capture index %2"},
		{"a", strings.Repeat("()", 33), "too many captures"},
		{"a", strings.Repeat("a?", 200), "pattern too complex"},
	} {
		if got, want := find(t, test.subject, test.pattern, 0), "error: "+test.want; got != want {
			t.Errorf("%.40q: %s, want %s", test.pattern, got, want)
		}
	}
	// Lua sees what is wrong only when it comes there.
	for _, pattern := range []string{"x%", "x[", "x%b", "(x", "x)", "x%1", "x" + strings.Repeat("()", 33)} {
		if got := find(t, "a", pattern, 0); got != "nil" {
			t.Errorf("%.40q: %s", pattern, got)
		}
	}
	m := Matcher{Subject: "a"}
	m.Compile("%", true)
	if _, _, _, err := m.Find(0); !errors.As(err, new(Error)) {
		t.Errorf("%T", err)
	}
}

func TestWithoutAnchors(t *testing.T) {
	m := Matcher{Subject: "b^a"}
	m.Compile("^a", false)
	if from, to, ok, err := m.Find(0); from != 1 || to != 3 || !ok || err != nil {
		t.Error(from, to, ok, err)
	}
}

// However bad the pattern, the Meter is told soon and as much as was done.
func TestMeter(t *testing.T) {
	const enough = 1 << 20
	a := strings.Repeat("a", 1000)
	for _, test := range []struct{ subject, pattern string }{
		{a, "a-a-a-a-b"},
		{a, "a*a*a*a*b"},
		{a, ".-.-.-.-%d"},
		{a, strings.Repeat("a?", 100) + strings.Repeat("a", 1000)},
		{a, "(.-)(.-)(.-)(.-)%4b"},
		{strings.Repeat("(", 1<<14), "%b()"},
		{strings.Repeat("a", 1<<14), ".*b"},
		{strings.Repeat("a", 1<<14), ".-b"},
		{strings.Repeat("ab", 1<<14), "(.*)%1%1x"},
	} {
		total, calls := 0, 0
		m := Matcher{Subject: test.subject, Meter: meter(func(steps int) {
			calls++
			if steps < stepsAtOnce || steps > stepsAtOnce+len(test.subject) {
				t.Errorf("%q: %d steps at once", test.pattern, steps)
			}
			if total += steps; total >= enough {
				panic("enough")
			}
		})}
		m.Compile(test.pattern, true)
		func() {
			defer func() {
				if recover() != "enough" {
					t.Errorf("%q ends after %d steps", test.pattern, total)
				}
			}()
			_, _, _, _ = m.Find(0)
		}()
		if calls > enough/stepsAtOnce {
			t.Errorf("%q: Step was called %d times for %d steps", test.pattern, calls, total)
		}
	}
}

func TestMatchingNeedsNoHeap(t *testing.T) {
	for _, pattern := range []string{"(%w+)=(%w+)", "needle", "^(.-):%s*([^,;]+)", "%b()", "%f[%w]x"} {
		n := testing.AllocsPerRun(100, func() {
			m := Matcher{Subject: "some key=value (text)", Meter: free{}}
			m.Compile(pattern, true)
			if _, _, _, err := m.Find(0); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("%q: %v allocations", pattern, n)
		}
	}
}
