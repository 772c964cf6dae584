//go:build interop && linux

package interop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// luaPrelude bounds what the programs do, and prints what is the same in every Lua: no addresses, no positions, and none
// of the virtual machine's own texts. A program yields only where ours can: not within pcall or a metamethod.
const luaPrelude = `
local steps, held = 0, {}
local function one(v)
	local kind = type(v)
	if kind == 'table' or kind == 'function' or kind == 'thread' then return kind end
	local text = tostring(v)
	while text:find('^[^:]+:%d+: ') do text = text:gsub('^[^:]+:%d+: ', '') end
	return (text:gsub('^attempt to.*', 'fault'):gsub('^cannot perform.*', 'fault'):gsub('^__%a+ undefined', 'fault'))
end
local function show(...) local out = {} for i = 1, select('#', ...) do out[i] = one((select(i, ...))) end return table.concat(out, ' ') end
local function say(...) print(show(...)) end
local function step() steps = steps + 1 if steps > 300 then error('too many steps', 0) end end
local function leave(co, ...) held[co] = held[co] - 1 return ... end
local function hold(f) return function(...) local co = coroutine.running() held[co] = (held[co] or 0) + 1 return leave(co, f(...)) end end
local function can() return coroutine.isyieldable() and (held[coroutine.running()] or 0) == 0 end
local pcall, xpcall = hold(pcall), hold(xpcall)
local function num(v) return type(v) == 'number' and v > -1e9 and v < 1e9 and v or 0 end
local function str(v) return type(v) == 'string' and (#v < 100 and v or 'long') or type(v) == 'number' and v or type(v) end
local function get(t, k) step() if type(t) == 'table' and k ~= nil then return t[k] end end
local function list() return {1, 2} end
local function call(f, ...) step() if type(f) == 'function' then return f(...) end return 'no function' end
`

// luaPrograms makes programs of closures, coroutines, protected calls, metatables and assignments.
type luaPrograms struct {
	*rand.Rand
	depth, named int
	vars         []string
}

func (p *luaPrograms) pick(all ...string) string { return all[p.IntN(len(all))] }

func (p *luaPrograms) name() string {
	p.named++
	return fmt.Sprint("v", p.named)
}

// scope makes something in which more variables are known.
func (p *luaPrograms) scope(inner func() string, more ...string) string {
	before := len(p.vars)
	p.vars = append(p.vars, more...)
	defer func() { p.vars = p.vars[:before] }()
	return inner()
}

func (p *luaPrograms) variable() string {
	if len(p.vars) == 0 {
		return "nil"
	}
	return p.pick(p.vars...)
}

func (p *luaPrograms) exprs(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = p.expr()
	}
	return strings.Join(all, ", ")
}

func (p *luaPrograms) expr() string {
	if p.depth > 5 {
		return p.pick("1", "2", "'a'", "nil", "true", p.variable())
	}
	p.depth++
	defer func() { p.depth-- }()
	switch p.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		return p.variable()
	case 6:
		return fmt.Sprintf("num(%s) %s num(%s)", p.expr(), p.pick("+", "-", "*"), p.expr())
	case 7, 8:
		return fmt.Sprintf("str(%s) .. str(%s)", p.expr(), p.expr())
	case 9:
		return fmt.Sprintf("(%s %s %s)", p.expr(), p.pick("and", "or", "==", "~="), p.expr())
	case 10:
		return fmt.Sprintf("{%s}", p.exprs(p.IntN(3)))
	case 11:
		return fmt.Sprintf("{x = %s, [1] = %s}", p.expr(), p.expr())
	case 12:
		return fmt.Sprintf("get(%s, %s)", p.expr(), p.pick("1", "'x'", p.expr()))
	case 13:
		return p.function()
	case 14:
		return fmt.Sprintf("(call(%s))", p.exprs(2))
	case 15:
		return fmt.Sprintf("(num(%s) %s num(%s))", p.expr(), p.pick("<", "<=", ">", ">="), p.expr())
	}
	return p.pick("1", "2", "10", "'a'", "'5'", "nil", "true", "false", "not "+p.variable())
}

// results are what a function returns, or a call gets: the last may be any number of values.
func (p *luaPrograms) results() string {
	return p.exprs(1+p.IntN(2)) + p.pick("", "", ", call("+p.exprs(2)+")")
}

func (p *luaPrograms) function() string {
	params := []string{p.name(), p.name()}[:p.IntN(3)]
	vararg := ""
	if p.IntN(3) == 0 {
		vararg = ", ..."
	}
	return p.scope(func() string {
		body := p.block(1 + p.IntN(3))
		if vararg != "" {
			body = "local " + p.name() + " = ... " + body
		}
		return fmt.Sprintf("function(%s) step() %s%s end", strings.TrimPrefix(strings.Join(params, ", ")+vararg, ", "), body, p.pick("", " return "+p.results()))
	}, params...)
}

func (p *luaPrograms) block(n int) string {
	return p.scope(func() string {
		stmts := make([]string, n)
		for i := range stmts {
			stmts[i] = p.stmt()
		}
		return strings.Join(stmts, " ")
	})
}

func (p *luaPrograms) stmt() string {
	if p.depth > 5 {
		return "step()"
	}
	p.depth++
	defer func() { p.depth-- }()
	name := p.name()
	declare := func(value string) string {
		p.vars = append(p.vars, name)
		return fmt.Sprintf("local %s = %s", name, value)
	}
	switch p.IntN(23) {
	case 0, 1:
		return declare(p.results())
	case 2, 3:
		return fmt.Sprintf("%s, %s = %s", p.target(), p.target(), p.results())
	case 4:
		return fmt.Sprintf("%s = %s", p.target(), p.expr())
	case 5, 6:
		return fmt.Sprintf("say(%s)", p.results())
	case 7:
		return fmt.Sprintf("if %s then %s elseif %s then %s else %s end", p.expr(), p.block(1), p.expr(), p.block(1), p.block(1))
	case 8:
		return fmt.Sprintf("for %s = %s do step() %s end", name, p.pick("1, 3", "3, 1, -1", "1, 0"), p.scope(func() string { return p.block(2) }, name))
	case 9:
		return fmt.Sprintf("for _, %s in ipairs({%s}) do step() %s end", name, p.exprs(3), p.scope(func() string { return p.block(2) }, name))
	case 10:
		return fmt.Sprintf("do local n = 0 repeat step() n = n + 1 local %s = n %s until n > 2 or %[1]s and %[3]s end",
			name, p.scope(func() string { return p.block(1) }, name), p.expr())
	case 11:
		return fmt.Sprintf("do local all = {} for i = 1, 3 do local %s = i all[i] = function() step() %[1]s = num(%[1]s) + 1 %[2]s return %[1]s, i end end "+
			"for i = 1, 3 do say(all[i]()) say(all[i]()) end end", name, p.scope(func() string { return p.block(1) }, name))
	case 12:
		return fmt.Sprintf("do local n = 0 while n < 3 do step() n = n + 1 if %s then goto continue end do %s end ::continue:: end end", p.expr(), p.block(2))
	case 13, 14:
		return fmt.Sprintf("say('pcall', pcall(%s, %s))", p.function(), p.exprs(1))
	case 15:
		return fmt.Sprintf("say('xpcall', xpcall(%s, %s))", p.function(), p.pick("function(e) return 'handled' end", "show", "function(e) say(e) return e end"))
	case 16:
		return fmt.Sprintf("if %s then error(%s) end", p.expr(), p.pick("'raised'", "nil", "5", "{}"))
	case 17, 18:
		resume := fmt.Sprintf("say('resumed', coroutine.resume(%s%s)) say(coroutine.status(%[1]s)) ", name, p.pick("", ", "+p.exprs(1)))
		return fmt.Sprintf("local %s = coroutine.create(%s) ", name, p.function()) + strings.Repeat(resume, 1+p.IntN(3))
	case 19:
		return declare("coroutine.wrap(" + p.function() + ")")
	case 20, 21:
		yield := "coroutine.yield(" + p.results() + ")"
		return "if can() then " + p.pick("say('yielded', "+yield+")", "do return "+yield+" end", p.target()+" = "+yield, "say({"+yield+"}, (coroutine.yield()))") + " end"
	}
	return declare(fmt.Sprintf("setmetatable({x = 1}, {%s = hold(%s)})", p.pick("__index", "__newindex", "__call", "__concat", "__add", "__tostring", "__lt"), p.function()))
}

func (p *luaPrograms) target() string {
	if len(p.vars) == 0 {
		return "global"
	}
	return p.pick(p.variable(), p.variable(), "global", "list().x", fmt.Sprintf("list()[num(%s)]", p.expr()))
}

// TestProgramsMeanTheSame runs programs as Lua 5.4 does, which is what policies were written for.
func TestProgramsMeanTheSame(t *testing.T) {
	const files, perFile = 8, 100
	for seed := range uint64(files) {
		p := luaPrograms{Rand: rand.New(rand.NewPCG(seed, 54))}
		programs := make([]string, perFile)
		var source strings.Builder
		source.WriteString(luaPrelude)
		for i := range programs {
			p.vars, p.named = []string{"g1", "g2"}, 0
			programs[i] = fmt.Sprintf("steps = 0 say('end of %d', pcall(function(...) local g1, g2 = ... %s end, 1, 'z'))\n", i, p.block(3+p.IntN(6)))
			source.WriteString(programs[i])
		}
		want, got := printedByLua(t, source.String()), printedByOurs(t, source.String())
		for i, j := 0, 0; i < len(want); i++ {
			if i >= len(got) || got[i] != want[i] {
				t.Errorf("seed %d, line %d: %q, want %q, in the program\n%s", seed, i, append(got, "nothing")[min(i, len(got))], want[i], programs[j])
				break
			}
			if strings.HasPrefix(want[i], fmt.Sprintf("end of %d ", j)) {
				j++
			}
		}
	}
}

func printedByLua(t *testing.T, source string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program.lua")
	if err := writeFile(file, source); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "lua5.4", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(string(out), "\n")
}

func printedByOurs(t *testing.T, source string) []string {
	t.Helper()
	program, err := luastate.Compile("program.lua", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	state, err := program.NewState(t.Context(), luastate.Options{Limits: luastate.Limits{Running: -1}, Setup: func(L *lua.LState) error {
		luastate.PrintTo(L, &out)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	state.Close()
	return strings.Split(out.String(), "\n")
}
