package luastate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// programs makes programs of what the rewriter changes and of what may stand around it.
type programs struct {
	*rand.Rand
	depth int
}

func (p *programs) pick(all ...string) string { return all[p.IntN(len(all))] }

// expr is an expression; say tells the order in which its parts are looked at.
func (p *programs) expr() string {
	if p.depth > 4 {
		return p.pick("'x'", "1", "2.5", "a", "b", "''", "say('s')", "say(7)")
	}
	p.depth++
	defer func() { p.depth-- }()
	switch p.IntN(16) {
	case 0, 1, 2:
		return p.expr() + " .. " + p.expr()
	case 3:
		return "(" + p.expr() + " .. " + p.expr() + ") .. " + p.expr()
	case 4:
		return "say(" + p.expr() + ")"
	case 5:
		return "two(" + p.expr() + ")"
	case 6:
		return "t:method(" + p.expr() + ", " + p.expr() + ")"
	case 7:
		return "t[" + p.expr() + "]"
	case 8:
		return "({[" + p.expr() + "] = " + p.expr() + ", " + p.expr() + "})[1]"
	case 9:
		return "(function(...) return " + p.expr() + " .. ... end)(" + p.expr() + ", 'more')"
	case 10:
		return "#(" + p.expr() + ")"
	case 11:
		return "(" + p.expr() + " and " + p.expr() + " or " + p.expr() + ")"
	case 12:
		return "tostring(" + p.expr() + " == " + p.expr() + ")"
	case 13:
		return "joined"
	case 14:
		return "select('#', " + p.expr() + ", two(" + p.expr() + "))"
	}
	return p.pick("'x'", "1", "a", "say('s')", "nil", "1e15", "-0.5")
}

func (p *programs) key() string {
	return p.pick("#t + 1", "#t + 2", "1", "'k'", "say('k')", "two('k')", "4097", "300000", "70000000", "-1", "0.5", "true", p.expr())
}

func (p *programs) stmt() string {
	if p.depth > 4 {
		return "say('deep')"
	}
	p.depth++
	defer func() { p.depth-- }()
	switch p.IntN(13) {
	case 11:
		return "say((function(a, b) b = " + p.expr() + " " + p.stmt() + " a = " + p.expr() + " return a .. show(b) end)(" + p.expr() + ", " + p.expr() + "))"
	case 0, 1:
		return "t[" + p.key() + "] = " + p.expr()
	case 2:
		return "t[" + p.key() + "], t[" + p.key() + "] = " + p.expr() + ", two(" + p.expr() + ")"
	case 3:
		return "say(t).field[" + p.key() + "] = " + p.expr()
	case 4:
		return "local a, b = " + p.expr() + ", two(" + p.expr() + ")\n" + p.stmt()
	case 5:
		return "for i = 1, 3 do t[i] = i .. " + p.expr() + " if i == 2 then break end end"
	case 6:
		return "if " + p.expr() + " then " + p.stmt() + " else " + p.stmt() + " end"
	case 7:
		return "local n = 0 while n < 2 do n = n + 1 " + p.stmt() + " end"
	case 8:
		return "local n = 0 repeat local m = n .. '' n = n + 1 " + p.stmt() + " until m .. '' == '1'"
	case 9:
		return "local function f(...) return " + p.expr() + ", ... end\nsay((f(" + p.expr() + ")))"
	case 10:
		return "function t.g(x) return x .. " + p.expr() + " end say(t.g('g'))"
	}
	return "say(" + p.expr() + ")"
}

const surroundings = `
local log = {}
local function show(v) return (type(v) == 'table' or type(v) == 'function') and type(v) or tostring(v) end
function say(v) log[#log + 1] = show(v) return v end
function two(v) return v, 'second' end
a, b = 'A', 2
joined = setmetatable({}, {__concat = function(l, r) log[#log + 1] = 'join' return show(l) .. '+' .. show(r) end})
t = setmetatable({field = {}}, {__index = {method = function(self, x, y) return x end}, __newindex = function(t, k, v) log[#log + 1] = show(k) .. '=' .. show(v) rawset(t, k, v) end})
local ok, e = pcall(function()
`

// TestRewritingMeansTheSame runs programs as they are and rewritten: what they do, in which order, and where they fail
// is the same.
func TestRewritingMeansTheSame(t *testing.T) {
	run := func(s *State, proto *lua.FunctionProto) string {
		got, err := s.Call(t.Context(), 1, s.L.NewFunctionFromProto(proto))
		if err != nil {
			return err.Error()
		}
		return got[0].String()
	}
	const programsToTry = 400
	compared := 0
	for seed := range uint64(programsToTry) {
		p := programs{Rand: rand.New(rand.NewPCG(seed, 1))}
		var body strings.Builder
		for range 1 + p.IntN(4) {
			fmt.Fprintln(&body, "do "+p.stmt()+" end")
		}
		source := surroundings + body.String() + "end)\nreturn table.concat(log, ' ') .. ' | ' .. (ok and '' or show(e))"
		rewritten, err := compile("x", []byte(source))
		if err != nil {
			continue // too much for the compiler
		}
		compared++
		chunk, err := parse.Parse(bytes.NewReader([]byte(source)), "x")
		if err != nil {
			t.Fatal(err)
		}
		plain, err := lua.Compile(chunk, "x")
		if err != nil {
			t.Fatal(err)
		}
		s := newState(t, "", nil)
		want, got := run(s, plain), run(s, rewritten)
		if at := strings.Index(want, "cannot perform concat operation"); at >= 0 {
			// The same error in other words.
			if text := "attempt to concatenate a "; len(got) < at+len(text) || got[:at] != want[:at] || !strings.HasPrefix(got[at:], text) {
				t.Errorf("seed %d: %q, want %q\n%s", seed, got, want, body.String())
			}
		} else if got != want {
			t.Errorf("seed %d: %q, want %q\n%s", seed, got, want, body.String())
		}
		s.Close()
		if t.Failed() {
			return
		}
	}
	if compared < programsToTry/2 {
		t.Errorf("only %d programs of %d could be compiled", compared, programsToTry)
	}
}

// What stands for a function while a program is compiled is no text that the program could have.
func TestTextsLikeMarks(t *testing.T) {
	s := newStateWith(t, `function f() local t, k = {}, 'k' t[k] = '\0..' .. '\000[]' .. '\0\0..' .. '\0\0\0[]' return t.k, '\0..', '\0[]', '\0\0..', '\0\0[]' end`, Options{Limits: patient})
	got, err := call(t, s, "f")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"\x00..\x00[]\x00\x00..\x00\x00\x00[]", "\x00..", "\x00[]", "\x00\x00..", "\x00\x00[]"} {
		if got[i] != lua.LString(want) {
			t.Errorf("%q: want %q", got[i], want)
		}
	}
}
