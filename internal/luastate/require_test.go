package luastate

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

func TestRequire(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one.lua", "return {n = 1}")
	write("pack/two.lua", "return {n = require('one').n + 1}")
	write("pack/init.lua", "return {n = 3}")
	write("loop.lua", "require 'loop'")
	write("fails.lua", "error 'not today'")
	write("bad.lua", "\nlocal a = '\\x41'")
	setup := func(L *lua.LState) error {
		SearchIn(L, folder)
		return nil
	}
	p, err := Compile("policy.lua", []byte("n = require('pack.two').n + require('pack').n"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := p.NewState(t.Context(), Options{Limits: patient, Setup: setup})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.L.GetGlobal("n"); n != lua.LNumber(5) {
			t.Error(n)
		}
		s.Close()
		write("one.lua", "return {n = 100}") // an old program keeps its old modules
	}
	for source, want := range map[string]string{
		"require 'bad'":                           "bad.lua:2: escape \\x",
		"\nrequire 'a.b.c'":                       "policy.lua:2: module 'a.b.c' not found, no field package.preload['a.b.c'], no file '" + filepath.Join(folder, "a/b/c.lua") + "', no file",
		"require 'loop'":                          "loop.lua:1: module 'loop' requires itself",
		"pcall(require, 'fails') require 'fails'": "fails.lua:1: not today",
		"package.preload.p = function(n) return n end x = require 'p' error(x, 0)":            "p",
		"package.preload.p = function(n) package.loaded[n] = 'own' end error(require 'p', 0)": "own",
		"package.preload.p = function() end error(tostring(require 'p'), 0)":                  "true",
		"package.path = 1 require 'p'": "package.path must be a string",
	} {
		p, err := Compile("policy.lua", []byte(source))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.NewState(t.Context(), Options{Limits: patient, Setup: setup}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// Names and paths are the program's: a hundred thousand question marks and as long a name are 10 GB.
func TestRequireIsBounded(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"marks":     {"package.path = ('?'):rep(1e5) require(('x'):rep(1e5))", "package.path"},
		"paths":     {"package.path = ('?;'):rep(1e5) require('x')", "package.path"},
		"searchers": {"for i = 1, 1e4 do package.loaders[i] = tostring end require(('x'):rep(1e6))", tooLarge},
	} {
		s := newStateWith(t, "function f() "+test.body+" end", Options{Limits: patient})
		if _, err := call(t, s, "f"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

// TestModulesThatCallsRequire: a script can write any file, and nothing ends a compilation.
func TestModulesThatCallsRequire(t *testing.T) {
	folder := t.TempDir()
	big := "return 'big' --" + strings.Repeat("x", maxLateSource)
	for name, text := range map[string]string{"early.lua": big, "late.lua": big, "small.lua": "return 'small'"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Compile("policy.lua", []byte(`
early = require 'early'
function again() return require 'early' end
function late() return require 'late' end
function aliases() for i = 1, 100 do package.path = package.path:gsub('%?', './?') package.loaded.small = nil require 'small' end end`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.NewState(t.Context(), Options{Limits: patient, Setup: func(L *lua.LState) error {
		SearchIn(L, folder)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := call(t, s, "again"); err != nil || got[0] != lua.LString("big") {
		t.Error(got, err)
	}
	if _, err := call(t, s, "late"); err == nil || !strings.Contains(err.Error(), "late.lua: the file is longer than 131072 bytes") {
		t.Error(err)
	}
	if _, err := call(t, s, "aliases"); err != nil || len(p.modules) != 2 {
		t.Errorf("%d modules, %v", len(p.modules), err)
	}
	for i := range maxModules {
		p.modules[strconv.Itoa(i)] = nil
	}
	delete(p.modules, filepath.Join(folder, "small.lua"))
	for len(p.modules) > maxModules {
		delete(p.modules, strconv.Itoa(len(p.modules)-maxModules))
	}
	if _, err := call(t, s, "aliases"); err == nil || !strings.Contains(err.Error(), "there are 1024 modules already") {
		t.Error(err)
	}
}
