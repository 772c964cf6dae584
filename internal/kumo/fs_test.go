package kumo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// tree makes files, and folders by names that end in a slash.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		full := filepath.Join(root, name)
		folder, isFolder := strings.CutSuffix(name, "/")
		if isFolder {
			full = filepath.Join(root, folder)
		} else {
			folder = filepath.Dir(name)
		}
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if !isFolder {
			if err := os.WriteFile(full, []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestGlob(t *testing.T) {
	root := tree(t, "a.toml", "b.toml", "c.json", ".hidden.toml", "d/e.toml", "d/f/g.toml", "d/.x/h.toml", "empty/")
	if err := os.Symlink(root, filepath.Join(root, "d", "loop")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ pattern, base, want string }{
		{root + "/*.toml", ".", root + "/a.toml " + root + "/b.toml"},
		{"*.toml", root, "a.toml b.toml"},
		{root + "/*.toml", root, "a.toml b.toml"},
		{"[bc].*", root, "b.toml c.json"},
		{"?.json", root, "c.json"},
		{".*", root, ".hidden.toml"},
		{"a.toml", root, "a.toml"},
		{"nothing", root, ""},
		{"*/*.toml", root, "d/e.toml"},
		{"d/*/*.toml", root, "d/f/g.toml d/loop/a.toml d/loop/b.toml"},
		{"**/*.toml", root, "a.toml b.toml d/e.toml d/f/g.toml"},
		{"d/**", root, "d/e.toml d/f d/f/g.toml d/loop"},
		{"**/**/g.toml", root, "d/f/g.toml"},
		{"./d/./e.toml", root, "d/e.toml"},
		{"a.toml/*", root, ""},
		{"*", root + "/nowhere", ""},
		{"*", root + "/empty", ""},
	} {
		got, err := glob(t.Context(), test.pattern, test.base)
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%s in %s: %q, %v", test.pattern, test.base, got, err)
		}
	}
	if _, err := glob(t.Context(), "[", "."); err == nil {
		t.Error("a bad pattern is taken")
	}
	if _, err := glob(t.Context(), strings.Repeat("x", 5000), "."); err == nil {
		t.Error("a long pattern is taken")
	}
	errGone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errGone)
	if _, err := glob(ctx, "**", root); !errors.Is(err, errGone) {
		t.Error(err)
	}
	// Each ** multiplies what is looked at.
	if _, err := glob(t.Context(), strings.Repeat("**/", 200)+"x", root); err == nil || !strings.Contains(err.Error(), "entries to look at") {
		t.Error(err)
	}
}

func TestGlobIsKept(t *testing.T) {
	root := tree(t, "a")
	synctest.Test(t, func(t *testing.T) {
		o := stubs()
		count := func(expr string) string {
			got, err := eval(t, o, "function run() return #kumo."+expr+" end")
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := count("fs.glob('*', '" + root + "', 90)"); got != "1" {
			t.Error(got)
		}
		if err := os.WriteFile(root+"/b", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := count("glob('*', '"+root+"')") + count("uncached_glob('*', '"+root+"')") + count("fs.uncached_glob('"+root+"/*')"); got != "122" {
			t.Error(got)
		}
		time.Sleep(90 * time.Second)
		if got := count("glob('*', '" + root + "')"); got != "2" {
			t.Error(got)
		}
		for range 3 * maxGlobs {
			root += "/."
			count("glob('*', '" + root + "')")
		}
		if len(o.globs.known) > maxGlobs {
			t.Error(len(o.globs.known))
		}
	})
}

func TestFS(t *testing.T) {
	root := tree(t, "a", "d/b")
	if err := os.Symlink(root+"/a", root+"/link"); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(root, "long")
	if err := os.WriteFile(long, make([]byte, maxText+1), 0o644); err != nil {
		t.Fatal(err)
	}
	checkExpressions(t, stubs(), "local root, fs = '"+root+"', require 'kumo.fs' local f = fs.open(root .. '/d/b')", []expression{
		{`table.concat(fs.read_dir(root .. '/d'), ' ')`, root + "/d/b", ""},
		{`#kumo.read_dir(root)`, "4", ""},
		{`fs.read_dir(root .. '/a')`, "", "read_dir: " + root + "/a: is not a directory"},
		{`fs.read_dir(root .. '/none')`, "", "no such file"},
		{`fs.metadata_for_path(root .. '/link').len`, "1", ""},
		{`tostring(fs.metadata_for_path(root .. '/link').is_file) .. tostring(fs.metadata_for_path(root).is_dir)`, "truetrue", ""},
		{`tostring(fs.symlink_metadata_for_path(root .. '/link').is_symlink)`, "true", ""},
		{`fs.metadata_for_path(root .. '/a').mtime.year > 2000`, "true", ""},
		{`fs.metadata_for_path(root .. '/a').readonly`, "false", ""},
		{`fs.metadata_for_path '/none'`, "", "metadata_for_path: /none: no such file"},
		{`f:read()`, "d/b", ""},
		{`f:read(2) .. f:read(100) .. f:read()`, "d/b", ""},
		{`f:seek 'end'`, "3", ""},
		{`f:seek('set', 1) .. f:read()`, "1/b", ""},
		{`f:read(1) .. f:seek(1) .. f:read()`, "d2b", ""},
		{`f:seek('cur', -4)`, "", "file:seek"},
		{`f:seek 'bogus'`, "", "invalid whence/offset"},
		{`f:seek(1.5)`, "", "want a whole number"},
		{`f:read(-1)`, "", "want a number of bytes"},
		{`f:flush()`, "", ""},
		{`f:write 'x'`, "", "is open for reading only"},
		{`f.read()`, "", "call its methods with a colon"},
		{`(function() f:close() f:close() return f:read() end)()`, "", "attempt to read a closed file handle"},
		{`kumo.glob('*', ('x'):rep(5000))`, "", "the folder that the pattern is relative to is longer than 4096 bytes"},
		{`fs.open(root .. '/a', 'w')`, "", "files can only be read"},
		{`fs.open(root .. '/a', 'x')`, "", "unsupported file mode `x`"},
		{`fs.open(root .. '/none')`, "", "failed to open " + root + "/none with mode r: " + root + "/none: no such file"},
		{`fs.open(root)`, "", "is a directory"},
		{`fs.open '/dev/zero'`, "", "is not a plain file"},
		{`fs.open('` + long + `'):read()`, "", "there are more than 16777216 bytes"},
		{`#fs.open('` + long + `'):read(1e12)`, "16777216", ""},
		{`(function() for i = 1, 300 do fs.open(root .. '/a'):close() end return 'ok' end)()`, "ok", ""},
		{`(function() for i = 1, 300 do fs.open(root .. '/a') end return 'ok' end)()`, "ok", ""}, // closed by the collector
		{`(function() local all = {} for i = 1, 300 do all[i] = fs.open(root .. '/a') end end)()`, "", "too many open files: a state may have 64"},
	})
}

// A file that Lua forgets is closed with the state.
func TestForgottenFiles(t *testing.T) {
	s := newState(t, stubs(), "kept = kumo.fs.open('"+write(t, "a", "a")+"')")
	file := s.L.GetGlobal("kept").(*lua.LUserData).Value.(*policyFile)
	if !file.Open() {
		t.Error("the file is closed at once")
	}
	s.Close()
	if file.Open() {
		t.Error("the file is open after the end of the state")
	}
}
