package kumo

import (
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

const joined = `
local s = require 'kumo.string'
local nbsp = '\194\160'
local function join(list) return '<' .. table.concat(list, '|') .. '>' end`

func TestStrings(t *testing.T) {
	checkExpressions(t, stubs(), joined, []expression{
		{`s.replace('hello world', 'o', '0')`, "hell0 w0rld", ""},
		{`s.replace('aaa', 'aa', 'b')`, "ba", ""},
		{`s.replace('héé', '', '-')`, "-h-é-é-", ""},
		{`s.replace('x', 'y', 'z')`, "x", ""},
		{`s.replacen('aaa', 'a', 'b', 2)`, "bba", ""},
		{`s.replacen('aaa', 'a', 'b', 0)`, "aaa", ""},
		{`s.replacen('aaa', 'a', 'b', -1)`, "", "bad argument #4 to replacen (want a whole number that is not negative)"},
		{`s.replacen('aaa', 'a', 'b', 1.5)`, "", "want a whole number"},
		{`s.replacen('aaa', 'a', 'b')`, "", "bad argument #4"},
		{`s.replacen('aaa', 'a', 'b', 0/0)`, "", "want a whole number"},
		{`s.replacen('aaa', 'a', 'b', 1e300)`, "", "want a whole number"},
		{`s.replace(('a'):rep(10000), 'a', ('b'):rep(10000))`, "", "string.replace: the result is longer than 16777216 bytes"},
		{`s.replace(nil, 'a', 'b')`, "", "bad argument #1 to replace (string expected, got nil)"},
		{`join(s.split('a,b,,c,', ','))`, "<a|b||c|>", ""},
		{`join(s.split('', ','))`, "<>", ""},
		{`#s.split('', ',') .. #s.split('', '')`, "12", ""},
		{`join(s.split('aéb', ''))`, "<|a|é|b|>", ""},
		{`join(s.split('aaa', 'aa'))`, "<|a>", ""},
		{`join(s.splitn('a,b,c', 2, ','))`, "<a|b,c>", ""},
		{`join(s.splitn('a,b,c', 9, ','))`, "<a|b|c>", ""},
		{`join(s.splitn('abc', 2, ''))`, "<|abc>", ""},
		{`join(s.splitn('a,b,c', 1, ','))`, "<a,b,c>", ""},
		{`#s.splitn('a,b,c', 0, ',')`, "0", ""},
		{`s.splitn('a,b,c', ',', 2)`, "", "bad argument #2 to splitn (number expected, got string)"},
		{`join(s.rsplit('a,b,c', ','))`, "<c|b|a>", ""},
		{`join(s.rsplit('aaa', 'aa'))`, "<|a>", ""},
		{`join(s.rsplit('aéb', ''))`, "<|b|é|a|>", ""},
		{`join(s.rsplitn('a,b,c', 2, ','))`, "<c|a,b>", ""},
		{`join(s.rsplitn('abc', 3, ''))`, "<|c|ab>", ""},
		{`#s.rsplitn('a', 0, ',')`, "0", ""},
		{`join(s.split_whitespace(' a\tb\n' .. nbsp .. 'c\vd '))`, "<a|b|c|d>", ""},
		{`join(s.split_ascii_whitespace(' a\tb\n' .. nbsp .. 'c\vd '))`, "<a|b|\u00a0c\vd>", ""},
		{`#s.split_whitespace ''`, "0", ""},
		{`'<' .. s.trim(nbsp .. ' x y\r\n') .. '>'`, "<x y>", ""},
		{`'<' .. s.trim_start ' x ' .. '>'`, "<x >", ""},
		{`'<' .. s.trim_end ' x ' .. '>'`, "< x>", ""},
		{`s.trim '\255 ' == '\255'`, "true", ""},
		{`s.starts_with('hello', 'he')`, "true", ""},
		{`s.starts_with('hello', 'ello')`, "false", ""},
		{`s.ends_with('hello', 'lo')`, "true", ""},
		{`s.ends_with('hello', '')`, "true", ""},
		{`s.split(('a'):rep(600000), '')`, "", "string.split: there are more than 524288 parts"},
		{`s.nonsense`, "nil", ""},
	})
}

func TestWrap(t *testing.T) {
	checkExpressions(t, stubs(), joined, []expression{
		{`s.wrap 'hello'`, "hello", ""},
		{`s.wrap('hello world', 10, 15)`, "hello\r\n\tworld", ""},
		{`s.wrap('hello world foo bar baz woot woot', 10, 15)`, "hello\r\n\tworld foo\r\n\tbar baz\r\n\twoot woot", ""},
		{`s.wrap('hi there breakmepleaseIamtoolong', 10, 15)`, "hi there\r\n\tbreakmepleaseIa\r\n\tmtoolong", ""},
		{`s.wrap(('A'):rep(200), 75, 100) == ('A'):rep(100) .. '\r\n\t' .. ('A'):rep(100)`, "true", ""},
		{`s.wrap((' hello there'):rep(10), 75, 100)`, "hello there hello there hello there hello there hello there hello there\r\n\thello there hello there hello there hello there", ""},
		{`s.wrap 'a  b\r\nc  '`, "a  b  c", ""},
		{`s.wrap('ééé', 1, 3)`, "é\r\n\té\r\n\té", ""},
		{`s.wrap('éé', 1, 1)`, "\xc3\r\n\t\xa9\r\n\t\xc3\r\n\t\xa9", ""},
		{`s.wrap('a b', 0, 5)`, "a\r\n\tb", ""},
		{`s.wrap('x', 5, 0)`, "", "bad argument #3 to wrap (want at least 1)"},
		{`s.wrap('x', -1)`, "", "bad argument #2 to wrap"},
		{`s.wrap ''`, "", ""},
		{`s.wrap(('x'):rep(5e6), 1, 1)`, "", "string.wrap: the result is longer than 16777216 bytes"},
	})
}

func TestPublicSuffix(t *testing.T) {
	checkExpressions(t, stubs(), joined, []expression{
		{`s.psl_domain 'www.example.com'`, "example.com", ""},
		{`s.psl_domain 'a.b.example.co.uk'`, "example.co.uk", ""},
		{`s.psl_domain 'Mail.Example.COM.'`, "Example.COM.", ""},
		{`s.psl_domain 'example.com'`, "example.com", ""},
		{`s.psl_domain 'com'`, "nil", ""},
		{`s.psl_domain 'com.'`, "nil", ""},
		{`s.psl_domain 'user.github.io'`, "user.github.io", ""},
		{`s.psl_domain 'github.io'`, "nil", ""},
		{`s.psl_domain 'www.食狮.公司.cn'`, "食狮.公司.cn", ""},
		{`s.psl_domain 'domain.invalid'`, "domain.invalid", ""},
		{`s.psl_domain '10.0.0.1'`, "nil", ""},
		{`s.psl_domain '[10.0.0.1]'`, "nil", ""},
		{`s.psl_domain ''`, "nil", ""},
		{`s.psl_domain '.com'`, "nil", ""},
		{`s.psl_domain 'a..com'`, "nil", ""},
		{`s.psl_domain(('a.'):rep(1000))`, "nil", ""},
		{`s.psl_suffix 'www.example.com'`, "com", ""},
		{`s.psl_suffix 'www.example.CO.UK.'`, "CO.UK.", ""},
		{`s.psl_suffix 'com'`, "com", ""},
		{`s.psl_suffix 'x.公司.cn'`, "公司.cn", ""},
		{`s.psl_suffix 'domain.invalid'`, "invalid", ""},
		{`s.psl_suffix ''`, "nil", ""},
		{`s.psl_domain_is_known 'www.example.com'`, "true", ""},
		{`s.psl_domain_is_known 'domain.invalid'`, "false", ""},
		{`s.psl_domain_is_known 'com'`, "false", ""},
		{`s.psl_suffix_is_known 'www.example.com'`, "true", ""},
		{`s.psl_suffix_is_known 'user.github.io'`, "true", ""},
		{`s.psl_suffix_is_known 'domain.invalid'`, "false", ""},
		{`s.psl_suffix_is_known ''`, "false", ""},
	})
}

func TestNormalizeReply(t *testing.T) {
	for text, want := range map[string]string{
		"":      "",
		"hello": "hello",
		"retry again at 2025-11-06T17:11:34.261306612Z": "retry again at {timestamp}",
		"a uuid 10aa5da5-3f3b-4176-beb9-32875830f082":   "a uuid {uuid}",
		"aGVsbG8uCg==":                               "{base64}",
		"hello aGVsbG8K":                             "hello {base64}",
		"421 4.1.0 10.0.0.1 throttled try later":     "421 4.1.0 {ipaddr} throttled try later",
		"421 4.1.0 ::1 throttled  try later":         "421 4.1.0 {ipaddr} throttled try later",
		"Accepting connection from 42.69.10.20:25":   "Accepting connection from {ipaddr}",
		"duration 00:10:34":                          "duration 00:10:34",
		"rejecting mail for some.body@gmail.com":     "rejecting mail for {email}",
		"550 <Some.Body@a.example>: unknown":         "550 <{email}>: unknown",
		"host mx.a.example[10.0.0.1] said x":         "host mx.a.example[10.0.0.1] said x",
		"for user@[10.0.0.1], sorry":                 "for {email}, sorry",
		"OK ids=8a5475ccbbc611eda12250ebf67f93bd":    "OK ids={uuid}",
		"OK a=b=1f2e3d4c5b6a":                        "OK a=b={hash}",
		"queued as 4fXyz12345 (in 5h 30m)":           "queued as {hash} in {duration}",
		"Next due in 11s 999ms 990us 55ns at 7":      "Next due in {duration} at 7",
		"Next due in 11s 5":                          "Next due in {duration} 5",
		"P23DT23H P4Y P1Y2M3DT4H5M6S P":              "{duration} {duration} {duration} P",
		"P1Y2M3DT4H5M6Shello":                        "{hash}",
		"abc11s 999ms 2yearhello 3day PT":            "abc11s {duration} 2yearhello {duration} PT",
		"USER_UNKNOWN Authentication-Results header": "USER_UNKNOWN Authentication-Results header",
		"550 Mail is rejected by recipients [aGVsbG8uCg== IP: 10.10.10.10]. https://service.mail.qq.example/detail/0/92.":               "550 Mail is rejected by recipients {base64} IP: {ipaddr} https://service.mail.qq.example/detail/0/92.",
		"550 5.1.1 does not exist. https://support.google.example/mail/?p=NoSuchUser 41be03b00d2f7-b93bf44f0c0si6882731a12.803 - gsmtp": "550 5.1.1 does not exist. https://support.google.example/mail/?p=NoSuchUser {hash} - gsmtp",
	} {
		got, err := eval(t, stubs(), "function run(text) return kumo.string.normalize_smtp_response(text) end", lua.LString(text))
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestEvalTemplate(t *testing.T) {
	checkExpressions(t, stubs(), joined, []expression{
		{`s.eval_template('x.json', '{{ name }}', {name = 'John'})`, `"John"`, ""},
		{`s.eval_template('x.json', '{{ n }} {{ list }} {{ none }} {{ nope }}', {n = 5, list = {1, 2.5, {a = true}}})`, `5 [1,2.5,{"a":true}] null null`, ""},
		{`s.eval_template('x.html', '<b>{{ name }}</b>', {name = 'John & <Co>'})`, `<b>John &amp; &lt;Co&gt;</b>`, ""},
		{`s.eval_template('x.html.j2', '{{ "\'" }}', {})`, `&#x27;`, ""},
		{`s.eval_template('x.html', '{{ name | safe }}', {name = ''})`, "", "string.eval_template: x.html: the filter safe is not available"},
		{`s.eval_template('x.txt', '{{ name }}', {name = 'John & Co'})`, `John & Co`, ""},
		{`s.eval_template('x.txt', '{{ name }}', {name = 'John & Co'}, 'Jinja')`, `John & Co`, ""},
		{`s.eval_template('x', '{{ n }} {{ f }} {{ t }}', {n = 5, f = 2.5, t = true})`, `5 2.5 true`, ""},
		{`s.eval_template('x', 'a{{ nope }}b{{ "c" ~ nope }}{{ none }}', {})`, `abcnone`, ""},
		{`s.eval_template('x', 'a{{ nope }}')`, `a`, ""},
		{`s.eval_template('x', 'a{{ nope.further }}', {})`, "", "string.eval_template: x: "},
		{`s.eval_template('x', '{% for v in list %}{{ loop.index }}{{ v.a }},{% endfor %}', {list = {{a = 'x'}, {a = 'y'}}})`, `1x,2y,`, ""},
		{`s.eval_template('x', '{{ list }}', {list = {1}})`, "", "a list or a table cannot be printed"},
		{`s.eval_template('x', '{{ name | upper | replace("J", "K") }}', {name = 'John'})`, `KOHN`, ""},
		{`s.eval_template('x', 'a\n{{ name | nonsense }}', {name = ''})`, "", "x: line 2, column "},
		{`s.eval_template('x', '{{ name', {})`, "", "x: line 1"},
		{`s.eval_template('x', '{{ name }}', {name = print})`, "", "the context: name: a function cannot stand here"},
		{`s.eval_template('x', '{{ name }}', {1, 2})`, "", "want a table with the names of variables"},
		{`s.eval_template('x', '{{ name }}', {name = 1}, 'Static')`, "{{ name }}", ""},
		{`s.eval_template('x', '{{ name }}', {name = 1}, 'Handlebars')`, "", "Handlebars are not available"},
		{`s.eval_template('x', '{{ name }}', {name = 1}, 'jinja')`, "", "the dialects are Jinja, Static, Handlebars, not jinja"},
		{`s.eval_template('x', ('x'):rep(70000), {})`, "", "the template is longer than 65536 bytes"},
		{`s.eval_template('x', '{% for a in l %}{{ t }}{% endfor %}', {l = {1, 2, 3}, t = ('x'):rep(30000)})`, "", "longer than 65536 bytes"},
	})
}

func FuzzSplit(f *testing.F) {
	f.Add("a,b,,c", ",", 2)
	f.Add("aaéa", "", 3)
	s := newState(f, stubs(), `
		local s = require 'kumo.string'
		local function reverse(list)
			local out = {}
			for i = #list, 1, -1 do out[#out + 1] = list[i] end
			return out
		end
		function run(text, pattern, n)
			assert(table.concat(s.split(text, pattern), pattern) == text)
			assert(table.concat(reverse(s.rsplit(text, pattern)), pattern) == text)
			local some = s.splitn(text, n, pattern)
			assert(#some <= n and table.concat(some, pattern) == text)
			some = s.rsplitn(text, n, pattern)
			assert(#some <= n and table.concat(reverse(some), pattern) == text)
			assert(s.replace(text, pattern, pattern) == text)
			assert(s.replacen(text, pattern, '', n):len() <= #text)
			assert(s.trim(text) == s.trim_start(s.trim_end(text)))
			assert(table.concat(s.split_whitespace(text)) == table.concat(s.split_whitespace(s.trim(text))))
			local wrapped = s.wrap(text, n, n)
			return wrapped
		end`)
	f.Fuzz(func(t *testing.T, text, pattern string, n int) {
		if n < 1 || n > 1000 {
			return
		}
		got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), lua.LString(text), lua.LString(pattern), lua.LNumber(n))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(lua.LVAsString(got[0]), "\r\n") {
			if len(strings.TrimPrefix(line, "\t")) > n+1 {
				t.Errorf("%q in %d: a line of %d bytes", text, n, len(line))
			}
		}
	})
}

func FuzzNormalizeReply(f *testing.F) {
	f.Add("550 <a@b.example> [10.0.0.1] x=5h 3ms aGVsbG8uCg==")
	f.Fuzz(func(t *testing.T, text string) {
		once, err := normalizeReply(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(once, "  ") || strings.HasPrefix(once, " ") || strings.HasSuffix(once, " ") {
			t.Errorf("%q became %q", text, once)
		}
	})
}
