package kumo

import (
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

func TestDomainMap(t *testing.T) {
	checkExpressions(t, stubs(), `
local f = function() end
local m = kumo.domain_map.new {
	['*.example.com'] = 42, ['example.com'] = 24, ['omg.wtf.woot.example.com'] = 128,
	['*.woot.com'] = {1, 2}, foo = f, ['*.Upper.example'] = 'u', [''] = 'empty',
}
m['*.example.com'] = 43
m['explicit.example.com'] = 'explicit'
m['gone.example.com'] = nil`, []expression{
		{`m['foo.com']`, "nil", ""},
		{`m['example.com']`, "24", ""},
		{`m['lemon.example.com']`, "43", ""},
		{`m['lemon.cake.EXAMPLE.com']`, "43", ""},
		{`m['woot.example.com']`, "nil", ""},
		{`m['wtf.woot.example.com']`, "nil", ""},
		{`m['x.woot.example.com']`, "nil", ""},
		{`m['omg.wtf.woot.example.com']`, "128", ""},
		{`m['explicit.example.com']`, "explicit", ""},
		{`m['gone.example.com']`, "nil", ""},
		{`m['a.b.woot.com'][2]`, "2", ""},
		{`m['woot.com']`, "nil", ""},
		{`m.foo == f`, "true", ""},
		{`m['x.upper.example']`, "u", ""},
		{`m['']`, "empty", ""},
		{`kumo.domain_map.new()['x']`, "nil", ""},
		{`m[1]`, "", "domain_map.new: a key is a string, not a number"},
		{`m[nil]`, "", "a key is a string, not a nil"},
		{`m[('a.'):rep(600)]`, "nil", ""},
		{`(function() m[('a.'):rep(600)] = 1 end)()`, "", "is longer than 1024 bytes"},
		{`kumo.domain_map.new {1, 2}`, "", "domain_map.new: a key is a string, not a number"},
		{`kumo.domain_map.new 'x'`, "", "table expected"},
		{`kumo.json_encode(kumo.domain_map.new {['*.b'] = {1}, a = 'x'})`, `{"*.b":[1],"a":"x"}`, ""},
		{`kumo.json_encode {m}`, "", "foo: a function cannot stand here"},
	})
}

func TestCIDRMap(t *testing.T) {
	checkExpressions(t, stubs(), `
local m = kumo.cidr.make_map {
	['127.0.0.1'] = 'v4', ['::1'] = 'v6', ['192.168.0.0/16'] = 'wide', ['192.168.3.0/28'] = '.3', ['192.168.3.2'] = '.3.2',
	['2001:db8::/32'] = 'doc', ['[10.0.0.7]:25'] = 'seven',
}
local any = kumo.cidr.make_map { any = 'all' }
m['10.0.0.0/24'] = '10. block'`, []expression{
		{`m['127.0.0.1']`, "v4", ""},
		{`m['127.0.0.2']`, "nil", ""},
		{`m['::1']`, "v6", ""},
		{`m['192.168.3.1']`, ".3", ""},
		{`m['192.168.3.2']`, ".3.2", ""},
		{`m['192.168.3.16']`, "wide", ""},
		{`m['192.168.3.0/30']`, ".3", ""},
		{`m['192.168.3.0/24']`, "wide", ""},
		{`m['192.0.0.0/8']`, "nil", ""},
		{`m['10.0.0.42:25']`, "10. block", ""},
		{`m['[10.0.0.42]']`, "10. block", ""},
		{`m['[10.0.0.42]:25']`, "10. block", ""},
		{`m['10.0.0.7']`, "seven", ""},
		{`m['[::1]:25']`, "v6", ""},
		{`m['[IPv6:2001:db8::5]']`, "doc", ""},
		{`m['2001:db8::5%eth0']`, "doc", ""},
		{`m['::ffff:10.0.0.42']`, "10. block", ""},
		{`m['not.set']`, "nil", ""},
		{`m['']`, "nil", ""},
		{`any['1.2.3.4'] .. any['::5']`, "allall", ""},
		{`kumo.cidr.make_map()['::1']`, "nil", ""},
		{`(function() m['10.0.0.1/24'] = 1 end)()`, "", "cidr.make_map: 10.0.0.1/24 is not a valid CIDR: host part of address was not zero. Did you mean 10.0.0.0/24?"},
		{`kumo.cidr.make_map { ['not.set'] = 1 }`, "", "cidr.make_map: not.set is not a valid CIDR"},
		{`kumo.cidr.make_map { ['10.0.0.0/33'] = 1 }`, "", "is not a valid CIDR"},
		{`kumo.json_encode(kumo.cidr.make_map { ['10.0.0.0/8'] = 1, ['::1'] = 2, ['::ffff:10.0.0.0/120'] = 3 })`, `{"10.0.0.0/24":3,"10.0.0.0/8":1,"::1":2}`, ""},
	})
}

func TestRegexSetMap(t *testing.T) {
	checkExpressions(t, stubs(), `
local m = kumo.regex_set_map.new { hello = 'hello', bye = 'bye', later = 'bye', ['Good day'] = 'hello', ['^(?!x).*z$'] = {1} }`, []expression{
		{`m['hello there']`, "hello", ""},
		{`m['goodbye']`, "bye", ""},
		{`m['see you later']`, "bye", ""},
		{`m['Good day, hello']`, "hello", ""},
		{`m['yz'][1]`, "1", ""},
		{`m['not.set']`, "nil", ""},
		{`(function() m.x = 1 end)()`, "", "regex_set_map.new: nothing can be added to this map"},
		{`kumo.regex_set_map.new { ['('] = 1 }`, "", `regex_set_map.new: "(": at byte 1: the group is not closed`},
		{`kumo.regex_set_map.new()['x']`, "nil", ""},
		{`kumo.regex_set_map.new { ['(?:a|b)*(?!c)$'] = 1 }[('ab'):rep(6e5)]`, "", `"(?:a|b)*(?!c)$": the expression tries too many ways`},
		{`kumo.json_encode(kumo.regex_set_map.new { ['a+'] = 1 })`, `{"a+":1}`, ""},
	})
}

// What is memoized of a map is the same in all states, and one of them can change only what is its own.
func TestMapsAreKept(t *testing.T) {
	o := stubs()
	const source = `
made = 0
local get = kumo.memoize(function(kind)
	made = made + 1
	if kind == 'domain' then
		return kumo.domain_map.new { ['*.example'] = {1, 2}, id = kumo.uuid.parse '69994630-3e27-11ef-91fc-cc28aa0a5c5a' }
	elseif kind == 'cidr' then
		return kumo.cidr.make_map { ['10.0.0.0/8'] = kumo.digest.crc32 'x' }
	elseif kind == 'regex' then
		return kumo.regex_set_map.new { ['a+'] = kumo.domain_map.new { x = 'y' } }
	elseif kind == 'itself' then
		local m = kumo.domain_map.new()
		m.x = m
		return m
	end
	return kumo.domain_map.new { f = print }
end, {name = 'maps', ttl = '5 minutes', capacity = 10})
function run(kind, key) local v = get(kind)[key] return v end
function write(kind, key) local m = get(kind) m[key] = 'mine' return m[key] end`
	states := []string{"one", "two"}
	for range states {
		s := newState(t, o, source)
		for _, test := range []struct{ kind, key, want string }{
			{"domain", "a.example", "table"}, {"domain", "id", "69994630-3e27-11ef-91fc-cc28aa0a5c5a"},
			{"cidr", "10.1.2.3", "8cdc1683"}, {"regex", "baa", "userdata"}, {"regex", "b", "nil"},
		} {
			for range 2 {
				got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), lua.LString(test.kind), lua.LString(test.key))
				if err != nil || !strings.HasPrefix(s.L.ToStringMeta(got[0]).String(), test.want) {
					t.Errorf("%v: %v, %v", test, got, err)
				}
				got, err = s.Call(t.Context(), 1, s.L.GetGlobal("write"), lua.LString(test.kind), lua.LString("10.1.2.3"))
				if test.kind == "regex" {
					if err == nil || !strings.Contains(err.Error(), "nothing can be added") {
						t.Error(got, err)
					}
				} else if err != nil || got[0] != lua.LString("mine") {
					t.Errorf("%v: %v, %v", test, got, err)
				}
			}
		}
	}
	s := newState(t, o, source)
	for kind, want := range map[string]string{"function": `domain_map.new["f"]: a function cannot be kept`, "itself": "nested more than 64 deep"} {
		if got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), lua.LString(kind), lua.LString("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", kind, got, err)
		}
	}
	got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), lua.LString("domain"), lua.LString("10.1.2.3"))
	if err != nil || got[0] != lua.LNil {
		t.Error("the change of another state is seen", got, err)
	}
	if made := s.L.GetGlobal("made"); made != lua.LNumber(2) { // the two that cannot be kept
		t.Error(made)
	}
}

// A map that holds itself, or others that hold each other many times, is no tree.
func TestMapInMap(t *testing.T) {
	checkExpressions(t, stubs(), `
local m = kumo.domain_map.new { x = 1 }
local outer = kumo.domain_map.new { m = m, list = {m} }
m.self = m`, []expression{
		{`kumo.json_encode(m)`, "", "a map in a map cannot be written as data"},
		{`kumo.json_encode(outer)`, "", "a map in a map"},
		{`kumo.json_encode(kumo.domain_map.new { x = 1 })`, `{"x":1}`, ""},
	})
}
