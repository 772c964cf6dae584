package luastate

import (
	"bytes"
	_ "embed"
	"os"
	"path/filepath"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

//go:embed testdata/shim.lua
var shimChecks string

// boxes are userdata with and without metamethods.
func boxes(L *lua.LState) error {
	box := L.NewUserData()
	mt := L.NewTable()
	text := L.NewFunction(func(L *lua.LState) int {
		L.Push(lua.LString("a box"))
		return 1
	})
	mt.RawSetString("__tostring", text)
	mt.RawSetString("__concat", text)
	mt.RawSetString("__len", L.NewFunction(func(L *lua.LState) int {
		L.Push(lua.LNumber(2))
		return 1
	}))
	mt.RawSetString("__pairs", L.NewFunction(func(L *lua.LState) int {
		content := L.NewTable()
		content.RawSetString("a", lua.LNumber(1))
		L.Push(L.GetGlobal("next"))
		L.Push(content)
		return 2
	}))
	box.Metatable = mt
	L.SetGlobal("box", box)
	L.SetGlobal("plainbox", L.NewUserData())
	return nil
}

func TestShim(t *testing.T) {
	newState(t, shimChecks, boxes)
}

// A host's own state has the libraries that the host chose; what is closed stays closed.
func TestShimInHostState(t *testing.T) {
	L := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer L.Close()
	L.Push(L.NewFunction(lua.OpenBase))
	L.Call(0, 0)
	Shim(L)
	if L.GetGlobal("os") != lua.LNil || L.GetGlobal("string") != lua.LNil {
		t.Error("a library was opened")
	}
	if err := L.DoString("for _, v in ipairs({1}) do assert(v == 1) end"); err != nil {
		t.Error(err)
	}
}

type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestPrintTo(t *testing.T) {
	var w writes
	newState(t, "print('a', 1, nil, box) print()", func(L *lua.LState) error {
		PrintTo(L, &w)
		return boxes(L)
	})
	if len(w) != 2 || w[0] != "a\t1\tnil\ta box\n" || w[1] != "\n" {
		t.Errorf("%q", w)
	}
}

func TestStringsAreBytes(t *testing.T) {
	var every [256]byte
	for i := range every {
		every[i] = byte(i)
	}
	s := newState(t, "function same(b) return b, #b, string.format('%s', b), table.concat({b}) end", nil)
	got, err := call(t, s, "same", lua.LString(every[:]))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2, 3} {
		if !bytes.Equal([]byte(got[i].String()), every[:]) {
			t.Errorf("result %d is %q", i, got[i].String())
		}
	}
	if got[1] != lua.LNumber(256) {
		t.Error(got[1])
	}
}

func TestFiles(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"good.lua": "#!/usr/bin/lua\nreturn a, ...", "bad.lua": "\nreturn '\\x41'", "fails.lua": "error 'no'"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := newStateWith(t, `
a = 'global'
function run(folder)
	assert(loadfile(folder .. '/good.lua')(1) == 'global')
	assert(loadfile(folder .. '/good.lua', 't', {a = 'own'})() == 'own')
	assert(dofile(folder .. '/good.lua') == 'global')
	assert(select(2, loadfile(folder .. '/bad.lua')):find('bad.lua:2: escape', 1, true))
	assert(select(2, loadfile(folder .. '/absent.lua')):find('no such file', 1, true))
	assert(tostring(select(2, pcall(dofile, folder .. '/absent.lua'))):find('no such file', 1, true))
	dofile(folder .. '/' .. 'bad.lua')
end
function fails(folder) dofile(folder .. '/fails.lua') end`, Options{Limits: patient, Allow: []string{"loadfile", "dofile"}})
	_, err := call(t, s, "run", lua.LString(folder))
	if want := filepath.Join(folder, "bad.lua"); err == nil || errorOf(err).File != want || errorOf(err).Line != 2 {
		t.Error(err)
	}
	if _, err := call(t, s, "fails", lua.LString(folder)); err == nil || errorOf(err).File != filepath.Join(folder, "fails.lua") {
		t.Error(err)
	}
}

func TestWhatScriptsOfLua54Write(t *testing.T) {
	dir := t.TempDir()
	program, err := Compile("test.lua", []byte(`
		assert(select('#', ('x'):match('y')) == 1 and ('x'):match('y') == nil)
		assert(tonumber(('x'):match('%d')) == nil and tostring(('x'):match('y')) == 'nil')
		local a, b = ('k=v'):match('(%w)=(%w)')
		assert(a == 'k' and b == 'v')
		local f = assert(io.open(name, 'w'))
		f:write('12\nline\nrest\nof it')
		f:close()
		f = assert(io.open(name))
		assert(f:read('n') == 12)
		f:read('l')
		assert(f:read('l') == 'line')
		assert(f:read('*l') == 'rest')
		assert(f:read('a') == 'of it')
		f:close()
		assert(not coroutine.isyieldable())
		assert(coroutine.wrap(function() return coroutine.isyieldable() end)())`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := program.NewState(t.Context(), Options{Limits: patient, Setup: func(L *lua.LState) error {
		L.SetGlobal("name", lua.LString(filepath.Join(dir, "file")))
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
