//go:build unix

package maildrop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// withUmask sets the umask of the whole process: tests that use it do not run in parallel.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func wantMode(t *testing.T, path string, want uint32) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if got := uint32(st.Mode) & 0o7777; got != want {
		t.Errorf("%s has mode %#o, want %#o", path, got, want)
	}
}

func TestModes(t *testing.T) {
	mode := func(m uint32) *uint32 { return &m }
	for _, tt := range []struct {
		name              string
		umask             int
		dirMode, fileMode *uint32
		wantDir, wantFile uint32
	}{
		{"umask alone", 0o027, nil, nil, 0o750, 0o640},
		{"no umask", 0, nil, nil, 0o777, 0o666},
		{"modes under 077", 0o077, mode(0o775), mode(0o664), 0o775, 0o664},
		{"modes under 0", 0, mode(0o750), mode(0o640), 0o750, 0o640},
		{"setgid", 0o077, mode(0o2775), mode(0o660), 0o2775, 0o660},
		{"all bits", 0o022, mode(0o7777), mode(0o7777), 0o7777, 0o7777},
		{"directories only", 0o077, mode(0o711), nil, 0o711, 0o600},
		{"file only", 0o077, nil, mode(0o644), 0o700, 0o644},
		{"file without rights", 0o022, mode(0o700), mode(0), 0o700, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			withUmask(t, tt.umask)
			var d Drop
			dir := filepath.Join(root, "a", "b", "user")
			name, err := d.Store(t.Context(), Maildir{Root: dir, DirMode: tt.dirMode, FileMode: tt.fileMode}, text("hello"))
			if err != nil {
				t.Fatal(err)
			}
			for _, made := range []string{"a", "a/b", "a/b/user", "a/b/user/cur", "a/b/user/new", "a/b/user/tmp"} {
				wantMode(t, filepath.Join(root, made), tt.wantDir)
			}
			wantMode(t, filepath.Join(dir, "new", name), tt.wantFile)
		})
	}
}

// TestNeverWiderThanAsked: the umask of 0 does not open a file or directory to others even for the
// moment before its mode is set.
func TestNeverWiderThanAsked(t *testing.T) {
	withUmask(t, 0)
	root := t.TempDir()
	dirMode, fileMode := uint32(0o700), uint32(0o600)
	disk := &scriptedDisk{after: func(op, path string, err error) error {
		switch op {
		case "mkdir":
			wantMode(t, path, dirMode)
		case "create":
			wantMode(t, path, fileMode)
		}
		return err
	}}
	d := Drop{disk: disk}
	to := Maildir{Root: filepath.Join(root, "m", "u"), DirMode: &dirMode, FileMode: &fileMode}
	if _, err := d.Store(t.Context(), to, text("hello")); err != nil {
		t.Fatal(err)
	}
}

func TestExistingDirectoriesKeepTheirMode(t *testing.T) {
	withUmask(t, 0o022)
	root := t.TempDir()
	dir := filepath.Join(root, "a", "user")
	had := map[string]uint32{"a": 0o711, "a/user": 0o701, "a/user/new": 0o1710}
	if err := os.MkdirAll(filepath.Join(dir, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, mode := range had {
		if err := syscall.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	mode := uint32(0o2775)
	var d Drop
	for range 2 {
		if _, err := d.Store(t.Context(), Maildir{Root: dir, DirMode: &mode}, text("hello")); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range had {
		wantMode(t, filepath.Join(root, path), want)
	}
	wantMode(t, filepath.Join(dir, "cur"), mode)
	wantMode(t, filepath.Join(dir, "tmp"), mode)
}

// TestLostRace: a directory that another made between our look and our mkdir is that other's.
func TestLostRace(t *testing.T) {
	withUmask(t, 0o022)
	root := t.TempDir()
	mode := uint32(0o2775)
	d := Drop{disk: &scriptedDisk{before: func(_ int, op, path string) error {
		if op == "mkdir" {
			return os.Mkdir(path, 0o700)
		}
		return nil
	}}}
	dir := filepath.Join(root, "a", "user")
	name, err := d.Store(t.Context(), Maildir{Root: dir, DirMode: &mode}, text("hello"))
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, dir, name, "hello")
	for _, path := range []string{"a", "a/user", "a/user/cur", "a/user/new", "a/user/tmp"} {
		wantMode(t, filepath.Join(root, path), 0o700)
	}
}

func TestSymbolicLinks(t *testing.T) {
	root := t.TempDir()
	real := filepath.Join(root, "real")
	for _, dir := range []string{"real", "real/elsewhere", "users"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"parent": real, "users/u": real + "/elsewhere", "loop": "loop", "dangling": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	var d Drop
	for dir, there := range map[string]string{"parent/x/u": "real/x/u", "users/u": "real/elsewhere"} {
		name, err := d.Store(t.Context(), Maildir{Root: filepath.Join(root, dir)}, text("hello"))
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		wantOne(t, filepath.Join(root, there), name, "hello")
	}
	for dir, want := range map[string]error{"loop/u": syscall.ELOOP, "dangling": syscall.ENOENT, "dangling/u": syscall.ENOENT} {
		if _, err := d.Store(t.Context(), Maildir{Root: filepath.Join(root, dir)}, text("hello")); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", dir, err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made the target of a dangling link: %v", err)
	}
}

func TestWhatIsInTheWay(t *testing.T) {
	for _, tt := range []struct {
		name, file, dir string // file is in the way of dir
		want            error
	}{
		{"file as the Maildir", "u", "u", syscall.ENOTDIR},
		{"file as a parent", "a", "a/b/u", syscall.ENOTDIR},
		{"file as cur", "u/cur", "u", syscall.ENOTDIR},
		{"file as new", "u/new", "u", syscall.ENOTDIR},
		{"file as tmp", "u/tmp", "u", syscall.ENOTDIR},
		{"name too long", "x", strings.Repeat("n", 300), syscall.ENAMETOOLONG},
		{"path too long", "x", strings.Repeat("n/", 4096) + "u", syscall.ENAMETOOLONG},
		{"NUL", "x", "a\x00b", syscall.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, tt.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("in the way"), 0o600); err != nil {
				t.Fatal(err)
			}
			var d Drop
			_, err := d.Store(t.Context(), Maildir{Root: filepath.Join(root, tt.dir)}, text("hello"))
			var failure *Error
			if !errors.As(err, &failure) || !errors.Is(err, tt.want) || !strings.HasPrefix(failure.Path, root) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if got, err := os.ReadFile(file); string(got) != "in the way" {
				t.Errorf("the file is now %q, %v", got, err)
			}
		})
	}
}

// TestConfinement: below the root no symbolic link leads out of it, and in the Maildir none out of the
// Maildir.
func TestConfinement(t *testing.T) {
	for _, tt := range []struct {
		name, link, target string // the link is below the root; "OUTSIDE" and "ROOT" stand for paths
		rel, there         string // there is where it is delivered to, below the root, or "" if it fails
	}{
		{"no link", "x", "a", "a/u", "a/u"},
		{"relative, inside", "b", "a", "b/u", "a/u"},
		{"relative, inside, deep", "a/x", "../c", "a/x/u", "c/u"},
		{"the Maildir, inside", "b/u", "../a/v", "b/u", "a/v"},
		{"absolute, outside", "b", "OUTSIDE", "b/u", ""},
		{"absolute, inside", "b", "ROOT/a", "b/u", ""},
		{"climbing out", "b", "../outside", "b/u", ""},
		{"climbing out and back", "b", "../root/a", "b/u", ""},
		{"the Maildir, outside", "a/u", "../../outside", "a/u", ""},
		{"new, outside", "a/u/new", "OUTSIDE", "a/u", ""},
		{"tmp, outside", "a/u/tmp", "OUTSIDE", "a/u", ""},
		{"cur, outside", "a/u/cur", "OUTSIDE", "a/u", ""},
		{"new, beside the Maildir", "a/u/new", "../v", "a/u", ""},
		{"dangling, outside", "b", "../outside/more", "b/u", ""},
		{"loop", "b", "b", "b/u", ""},
	} {
		for _, named := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, named %v", tt.name, named), func(t *testing.T) {
				top := t.TempDir()
				root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
				link := filepath.Join(root, tt.link)
				for _, dir := range []string{root, outside, filepath.Join(root, "a", "v"), filepath.Join(root, "c"), filepath.Dir(link)} {
					if err := os.MkdirAll(dir, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Symlink(strings.NewReplacer("OUTSIDE", outside, "ROOT", root).Replace(tt.target), link); err != nil {
					t.Fatal(err)
				}
				var d Drop
				d.named.Store(named)
				for _, known := range []bool{false, true} { // the Maildir is there the second time
					name, err := d.Store(t.Context(), Maildir{Root: root, Rel: tt.rel}, text("hello"))
					if (err == nil) != (tt.there != "") {
						t.Fatalf("known %v: %v", known, err)
					}
					if err != nil {
						continue
					}
					if got := files(t, filepath.Join(root, tt.there, "new")); got[name] != "hello" {
						t.Errorf("%s holds %q", tt.there, got)
					}
				}
				wantNames(t, top, "outside", "root")
				wantNames(t, outside)
				if err := d.Clean(t.Context(), Maildir{Root: root, Rel: tt.rel}); tt.there != "" && err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestPipeInTheWay: a pipe under a directory's name makes nobody wait for its other end.
func TestPipeInTheWay(t *testing.T) {
	for _, at := range []string{"pipe", "u/new", "u/tmp", "u/cur"} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "u"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(filepath.Join(root, at), 0o600); err != nil {
			t.Skip(err)
		}
		var d Drop
		for _, rel := range []string{"u", "pipe", "pipe/u"} {
			if at != "pipe" && rel != "u" || at == "pipe" && rel == "u" {
				continue
			}
			if _, err := d.Store(t.Context(), Maildir{Root: root, Rel: rel}, text("x")); !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("%s into %s: %v", at, rel, err)
			}
			if at == "pipe" {
				if _, err := d.Store(t.Context(), Maildir{Root: filepath.Join(root, rel)}, text("x")); !errors.Is(err, syscall.ENOTDIR) {
					t.Errorf("%s as the root: %v", rel, err)
				}
			}
		}
	}
}
