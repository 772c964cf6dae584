package luastate

import (
	"embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

//go:embed testdata/*.lua
var checks embed.FS

func check54(t *testing.T, name string) {
	t.Helper()
	tools, err := checks.ReadFile("testdata/check.lua")
	if err != nil {
		t.Fatal(err)
	}
	source, err := checks.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	newState(t, string(source), func(L *lua.LState) error {
		if err := boxes(L); err != nil {
			return err
		}
		return L.DoString(string(tools))
	})
}

func TestPatterns(t *testing.T) { check54(t, "pattern.lua") }

func TestStrings(t *testing.T) { check54(t, "string.lua") }

func TestLanguage(t *testing.T) { check54(t, "language.lua") }

func TestLibrary(t *testing.T) { check54(t, "library.lua") }

func TestReadInPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12\nline\n"+strings.Repeat("x", 200_000)), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newState(t, `
		function read(path)
			local f = assert(io.open(path))
			local n, rest, line, all, none = f:read('n', 'l', '*l', 'a', 'l')
			assert(n == 12 and rest == '' and line == 'line' and #all == 200000 and none == nil)
			assert(f:read('a') == '' and f:read('l') == nil and f:read(0) == nil)
			assert(f:seek('set') == 0 and f:read(2) == '12' and f:read() == '')
			io.input(path)
			assert(#io.read('a') == 200008)
		end`, nil)
	if _, err := call(t, s, "read", lua.LString(path)); err != nil {
		t.Error(err)
	}
}

func TestWarn(t *testing.T) {
	var w writes
	newState(t, "warn('unheard') warn('@on') warn('heard', 1) warn('@x') warn('@off') warn('unheard') warn('a', '@on')", func(L *lua.LState) error {
		PrintTo(L, &w)
		return nil
	})
	if len(w) != 1 || w[0] != "Lua warning: heard1\n" {
		t.Errorf("%q", w)
	}
}
