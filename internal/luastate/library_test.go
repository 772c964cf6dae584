package luastate

import (
	"embed"
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

func TestLibrary(t *testing.T) { check54(t, "library.lua") }
