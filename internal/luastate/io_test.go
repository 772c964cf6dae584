package luastate

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// inFolder runs a script with an empty folder as the global dir.
func inFolder(t *testing.T, script string, o Options) (dir string, s *State) {
	t.Helper()
	dir = t.TempDir()
	if o.Limits == (Limits{}) {
		o.Limits = patient
	}
	o.Setup = func(L *lua.LState) error {
		L.SetGlobal("dir", lua.LString(dir+"/"))
		return nil
	}
	return dir, newStateWith(t, `
function same(got, want) if got ~= want then error('got ' .. tostring(got) .. ', want ' .. tostring(want), 2) end end
function fails(want, f, ...) local ok, e = pcall(f, ...) if ok or not tostring(e):find(want, 1, true) then error('got ' .. tostring(e) .. ', want ' .. want, 2) end end
`+script, o)
}

func TestIO(t *testing.T) {
	inFolder(t, `
local path = dir .. 'file'
local none, text, code = io.open(path)
same(none, nil) same(text, path .. ': No such file or directory') same(code, 2)
fails('invalid mode', io.open, path, 'x')
fails('No such file', io.lines, path)

local f = assert(io.open(path, 'w'))
same(io.type(f), 'file') same(io.type(1), nil)
same(f:write('one\n', 2, '\n', 'three'), f)
same(f:flush(), f) same(f:setvbuf('full'), true)
same(select(3, f:read()) ~= 0, true)
same(f:close(), true)
same(io.type(f), 'closed file') same(tostring(f), 'file (closed)')
fails('attempt to use a closed file', f.write, f, 'x')
fails('attempt to use a closed file', f.close, f)

f = assert(io.open(path, 'rb'))
same(f:read(), 'one') same(f:read('L'), '2\n') same(f:read('*l'), 'three') same(f:read('l'), nil)
same(f:read('a'), '') same(f:read('a'), '')
same(f:seek('set', 1), 1) same(f:read(2), 'ne') same(f:seek(), 3) same(f:read(0), '')
same(f:seek('end', -2), 9) same(f:read(100), 'ee') same(f:read(0), nil) same(f:read(1), nil)
fails('invalid option', f.seek, f, 'x') fails('invalid format', f.read, f, 'z') fails('size out of range', f.read, f, -1)
f:seek('set')
local a, b, c, d = f:read('l', 'n', 'l', 1)
same(a, 'one') same(b, 2) same(c, '') same(d, 't')
same(select('#', f:read('l', 'l', 'l')), 2) -- the rest, and nil where it ends
f:close()

f = assert(io.open(path, 'r+'))
same(f:read(3), 'one') f:write('ONE') same(f:seek(), 6) f:seek('set') same(f:read('a'), 'oneONEthree') f:close()
f = assert(io.open(path, 'a')) f:write('!') f:close()
f = assert(io.open(path, 'a+')) f:write('?') f:seek('set') same(f:read('a'), 'oneONEthree!?') f:close()
f = assert(io.open(path, 'w+')) f:write('x') f:seek('set') same(f:read('a'), 'x') f:close()

f = assert(io.open(path, 'w')) f:write('1 -2.5\t0x1F 0x.8p1 1e2 nan 7') f:close()
f = assert(io.open(path))
same(f:read('n'), 1) same(f:read('n'), -2.5) same(f:read('n'), 31) same(f:read('n'), 1) same(f:read('n'), 100) same(f:read('n'), nil)
same(f:read('a'), 'nan 7') f:close()

f = assert(io.open(path, 'w')) f:write('a\nb\n\nc') f:close()
local seen = '' for line in io.lines(path) do seen = seen .. '<' .. line .. '>' end same(seen, '<a><b><><c>')
seen = '' for line in io.lines(path, 'L') do seen = seen .. line end same(seen, 'a\nb\n\nc')
seen = '' for x, y in io.lines(path, 1, 2) do seen = seen .. x .. '-' .. tostring(y) .. ';' end same(seen, 'a-\nb;\n-\nc;')
f = io.open(path) seen = '' for line in f:lines() do seen = seen .. line end same(seen, 'abc') same(io.type(f), 'file') f:close()
local next_line = io.open(path):lines() same(next_line(), 'a')

io.output(dir .. 'out') io.write('x', 1) same(io.output(), io.output()) io.close() fails('closed file', io.write, 'y')
io.output(io.stdout)
io.input(dir .. 'out') same(io.read('a'), 'x1') io.close(io.input())
io.input(io.stdin) same(io.read(), nil) for line in io.lines() do error('the input is empty') end
same(select(2, io.stdout:close()), 'cannot close standard file') same(io.type(io.stdout), 'file')
same(select(2, io.stdin:write('x')) ~= nil, true)
fails('string expected', io.stdout.write, io.stdout, {})

f = io.tmpfile() f:write('x') f:seek('set') same(f:read('a'), 'x') f:close()
same(io.open(dir), nil)
fails('FILE* expected', f.read, 1)
same(getmetatable(f), false)
`, Options{})
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

func TestFilesAreBounded(t *testing.T) {
	before := openFiles(t)
	_, s := inFolder(t, `
function keep() local t = {} while true do t[#t + 1] = assert(io.open(dir .. 'x', 'w')) end end
function lose() for i = 1, 300 do io.open(dir .. 'x', 'w'):write('x') end end
function closing() for i = 1, 300 do io.open(dir .. 'x', 'w'):close() end end
function hold() held = {} for i = 1, 20 do held[i] = io.open(dir .. 'x', 'w') end end`, Options{Limits: Limits{Running: -1}})
	if _, err := call(t, s, "keep"); err == nil || !strings.Contains(err.Error(), "too many open files: a state may have 64") {
		t.Error(err)
	}
	for _, name := range []string{"closing", "lose", "hold"} {
		if _, err := call(t, s, name); err != nil {
			t.Error(name, err)
		}
	}
	s.Close()
	for range 100 { // the collector closes those that were lost
		if openFiles(t) <= before {
			return
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d files, %d before", openFiles(t), before)
}

func TestStandardOutput(t *testing.T) {
	var out bytes.Buffer
	s := newState(t, "function f() print('a', 1) io.write('b', 2, '\\n') io.stdout:write('c\\n') end", func(L *lua.LState) error {
		PrintTo(L, &out)
		return nil
	})
	if _, err := call(t, s, "f"); err != nil || out.String() != "a\t1\nb2\nc\n" {
		t.Errorf("%q %v", out.String(), err)
	}
}

func TestPrograms(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are those of a shell of Unix")
	}
	allow := []string{"os.execute", "io.popen"}
	dir, _ := inFolder(t, `
same(os.execute(), true)
local ok, how, code = os.execute('exit 3') same(ok, nil) same(how, 'exit') same(code, 3)
same(os.execute('true'), true)
local p = assert(io.popen('echo one; echo two; exit 4'))
same(p:read(), 'one') same(p:read('a'), 'two\n')
ok, how, code = p:close() same(ok, nil) same(how, 'exit') same(code, 4)
p = io.popen('cat > ' .. dir .. 'out', 'w') p:write('written') same(p:close(), true)
same(io.open(dir .. 'out'):read('a'), 'written')
fails('invalid mode', io.popen, 'true', 'x')
`, Options{Allow: allow})
	if text, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(text) != "written" {
		t.Errorf("%q %v", text, err)
	}
	// A call ends with its context, whatever the programs do.
	for _, body := range []string{"os.execute('sleep 60')", "io.popen('sleep 60'):read()", "io.popen('sleep 60'):close()", "for l in io.popen('sleep 60'):lines() do end"} {
		_, s := inFolder(t, "function f() "+body+" return 'done' end", Options{Allow: allow})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := s.Call(ctx, 1, s.L.GetGlobal("f")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", body, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s took %s", body, took)
		}
		s.Close()
	}
}

// Many texts that are written at once cost what they are together, and not each all of those before it.
func TestWriteIsChargedOnce(t *testing.T) {
	_, s := inFolder(t, `function f()
	local texts, out = {}, io.open(dir .. 'out', 'w')
	for i = 1, 1e5 do texts[i] = ('x'):rep(60) end
	out:write(unpack(texts)) out:close()
	return #io.open(dir .. 'out'):read('a')
end`, Options{Limits: Limits{Running: -1, Memory: -1}})
	got, err := call(t, s, "f")
	if err != nil || got[0] != lua.LNumber(6e6) || s.memory.made > 64<<20 {
		t.Error(got, err, s.memory.made)
	}
}
