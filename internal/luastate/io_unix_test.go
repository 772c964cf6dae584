//go:build unix

package luastate

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

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

// TestProcessesThatNobodyCloses: what a program has started and forgotten stays neither as a process nor as a dead one.
func TestProcessesThatNobodyCloses(t *testing.T) {
	_, s := inFolder(t, `
function ended() return io.popen('echo $$'):read('n') end
function waiting() return io.popen('echo $$; exec sleep 600'):read('n') end`, Options{Allow: []string{"io.popen"}})
	for _, name := range []string{"ended", "waiting"} {
		got, err := call(t, s, name)
		if err != nil {
			t.Fatal(err)
		}
		call(t, s, "ended") // which leaves nothing of the first on the stack
		pid := int(got[0].(lua.LNumber))
		for tries := 0; !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); tries++ {
			if tries == 5000 {
				t.Fatal(name)
			}
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
}
