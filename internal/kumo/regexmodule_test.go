package kumo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/regex"
)

func TestRegex(t *testing.T) {
	checkExpressions(t, stubs(), `
local function re(x) return kumo.regex.compile(x) end
local function join(list) return '<' .. table.concat(list, '|') .. '>' end
local movie = re "'(?<title>[^']+)'\\s+\\((?<year>\\d{4})\\)(x)?"
local cap = movie:captures "Not my favorite movie: 'Citizen Kane' (1941)."`, []expression{
		{`cap[0]`, "'Citizen Kane' (1941)", ""},
		{`cap[1] .. cap[2] .. cap.title .. cap.year`, "Citizen Kane1941Citizen Kane1941", ""},
		{`cap[3]`, "nil", ""},
		{`movie:captures 'x'`, "nil", ""},
		{`re 'oo':is_match 'foo'`, "true", ""},
		{`re 'oo':is_match 'fo'`, "false", ""},
		{`re '(?<=f)o(?!f)':is_match 'foo'`, "true", ""},
		{`re 'o+':find 'food'`, "oo", ""},
		{`re 'o+':find 'bar'`, "nil", ""},
		{`join(re '\\b\\w{13}\\b':find_all 'Retroactively relinquishing remunerations is reprehensible.')`,
			"<Retroactively|relinquishing|remunerations|reprehensible>", ""},
		{`#re 'x':find_all 'abc'`, "0", ""},
		{`re '[^01]+':replace('1078910', '')`, "1010", ""},
		{`re '(?P<last>[^,\\s]+),\\s+(?P<first>\\S+)':replace('Springsteen, Bruce', '$first $last')`, "Bruce Springsteen", ""},
		{`re 'a':replace('aaa', 'b')`, "baa", ""},
		{`re 'a':replace_all('aaa', 'b$$')`, "b$b$b$", ""},
		{`re 'a':replacen('aaa', 2, 'b')`, "bba", ""},
		{`re 'a':replacen('aaa', 0, 'b')`, "bbb", ""},
		{`re 'a':replacen('aaa', -1, 'b')`, "", "want a whole number"},
		{`join(re '[ \\t]+':split 'a b \t  c\td    e')`, "<a|b|c|d|e>", ""},
		{`join(re ',':split ',a,')`, "<|a|>", ""},
		{`join(re ',':split '')`, "<>", ""},
		{`join(re '':split 'ab')`, "<|a|b|>", ""},
		{`kumo.regex.escape 'a.b*c-d#é'`, `a\.b\*c\-d\#é`, ""},
		{`re(kumo.regex.escape '$1|(x)'):find 'a$1|(x)b'`, "$1|(x)", ""},
		{`re '('`, "", `regex.compile: "(": at byte 1: the group is not closed`},
		{`re(nil)`, "", "bad argument #1"},
		{`re 'a'.find('a')`, "", "regex expected: call its methods with a colon"},
		{`re 'a':find()`, "", "bad argument #2 to find (string expected, got nil)"},
		{`re 'a':replace_all(('a'):rep(1e5), ('b'):rep(1000))`, "", "regex:replace_all: the result is longer than 16777216 bytes"},
		{`re '':find_all(('a'):rep(6e5))`, "", "regex:find_all: there are more than 524288 parts"},
		{`re '(?:a|b)*(?!c)$':is_match(('ab'):rep(6e5))`, "", `regex:is_match: "(?:a|b)*(?!c)$": the expression tries too many ways`},
		{`kumo.json_encode {re 'a+'}`, `["a+"]`, ""},
		{`kumo.memoize(function() return re 'a+' end, {name = 'x', ttl = 5, capacity = 1})():find 'baa'`, "aa", ""},
	})
}

// All states share what is compiled, and what nobody has used for long goes.
func TestExpressions(t *testing.T) {
	o := stubs()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for n := range 2 * maxExpressions {
				if _, err := o.expressions.compile(fmt.Sprintf("%d(?=x)", n%(maxExpressions+50))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := o.expressions.recent.Len(); n != maxExpressions || len(o.expressions.known) != n {
		t.Errorf("%d expressions, %d known", n, len(o.expressions.known))
	}
	first, err := o.expressions.compile("a(?=b)")
	if again, _ := o.expressions.compile("a(?=b)"); err != nil || again != first {
		t.Error("it was compiled again", err)
	}
	for n := range 50 {
		if _, err := o.expressions.compile(fmt.Sprintf(`\b(?:a{900}b){90}%d`, n)); err != nil {
			t.Fatal(err)
		}
	}
	size := 0
	for e := o.expressions.recent.Front(); e != nil; e = e.Next() {
		size += e.Value.(*regex.Regexp).Size()
	}
	if size != o.expressions.size || size > maxExpressionSize {
		t.Errorf("%d bytes, counted %d", size, o.expressions.size)
	}
}

// A text that a stranger wrote holds no state up.
func TestRegexNeverHangs(t *testing.T) {
	s := newState(t, stubs(), `
		local expression = kumo.regex.compile '^(?=.*b)(\\w+\\s?)*$'
		function run(text) return expression:is_match(text) end`)
	ctx := &weary{t.Context(), 50}
	_, err := s.Call(ctx, 1, s.L.GetGlobal("run"), lua.LString(strings.Repeat("a", 50)+"b!"))
	if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Error(err)
	}
}
