//go:build unix

package luastate

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// TestFilesThatDoNotEnd: nothing that a program can open keeps its host waiting, or fills its memory.
func TestFilesThatDoNotEnd(t *testing.T) {
	dir, s := inFolder(t, `function f(code) return load(code)() end`, Options{})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]string{
		"return select(2, io.open(dir .. 'pipe'))":             "Not a regular file",
		"return select(2, io.open(dir .. 'pipe', 'r+'))":       "Not a regular file",
		"return select(2, io.open(dir .. 'pipe', 'w'))":        "No such device or address",
		"return select(2, io.open('/dev/tty'))":                "/dev/tty",
		"return io.open('/dev/zero'):read('l')":                "resulting string too large",
		"return io.open('/dev/zero'):read('a')":                "resulting string too large",
		"return io.open('/dev/zero'):read('n')":                "nil",
		"return #io.open('/dev/urandom'):read(16)":             "16",
		"return io.open('/dev/null'):read('a') == ''":          "true",
		"return io.open('/dev/null', 'w'):write('x') ~= nil":   "true",
		"package.path = '/dev/?' return require 'zero'":        "not a regular file",
		"package.path = dir .. '?' return require 'pipe'":      "not a regular file",
		"return io.read('a')":                                  "nil",
		"return io.stdin:read(1)":                              "nil",
		"for line in io.stdin:lines() do end return 'nothing'": "nothing",
	} {
		if want == "not a regular file" && strings.Contains(code, "zero") {
			want = "longer than"
		}
		got, err := call(t, s, "f", lua.LString(code))
		text := ""
		switch {
		case err != nil:
			text = err.Error()
		case len(got) > 0:
			text = got[0].String()
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s: %.200q, want %q", code, text, want)
		}
	}
}
