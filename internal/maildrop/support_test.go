package maildrop

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// scriptedDisk is the real disk with a look at, and a hand in, every operation.
type scriptedDisk struct {
	osDisk
	root string // cut from the paths in log

	mu  sync.Mutex
	log []string // "link new", "write tmp", "sync .": the operation and the directory it is in

	// before is asked ahead of the operation with its index in log; an error is the operation's.
	before func(index int, op, path string) error
	// after may replace the result of an operation that was done.
	after func(op, path string, err error) error
}

func (d *scriptedDisk) do(op, path string, operation func() error) error {
	place := strings.TrimPrefix(filepath.Dir(path), d.root)
	if op == "mkdir" || op == "chmod" || op == "sync" || op == "stat" {
		place = strings.TrimPrefix(path, d.root)
	}
	d.mu.Lock()
	index := len(d.log)
	d.log = append(d.log, op+" "+place)
	d.mu.Unlock()
	if d.before != nil {
		if err := d.before(index, op, path); err != nil {
			return err
		}
	}
	err := operation()
	if d.after != nil {
		err = d.after(op, path, err)
	}
	return err
}

func (d *scriptedDisk) stat(path string) (info fs.FileInfo, err error) {
	err = d.do("stat", path, func() (err error) { info, err = d.osDisk.stat(path); return err })
	return info, err
}

func (d *scriptedDisk) mkdir(path string, perm fs.FileMode) error {
	return d.do("mkdir", path, func() error { return d.osDisk.mkdir(path, perm) })
}

func (d *scriptedDisk) chmod(path string, mode fs.FileMode) error {
	return d.do("chmod", path, func() error { return d.osDisk.chmod(path, mode) })
}

func (d *scriptedDisk) create(path string, perm fs.FileMode) (f file, err error) {
	err = d.do("create", path, func() (err error) { f, err = d.osDisk.create(path, perm); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedFile{f, d, path}, nil
}

func (d *scriptedDisk) link(oldPath, newPath string) error {
	return d.do("link", newPath, func() error { return d.osDisk.link(oldPath, newPath) })
}

func (d *scriptedDisk) rename(oldPath, newPath string) error {
	return d.do("rename", newPath, func() error { return d.osDisk.rename(oldPath, newPath) })
}

func (d *scriptedDisk) remove(path string) error {
	return d.do("remove", path, func() error { return d.osDisk.remove(path) })
}

func (d *scriptedDisk) syncDir(path string) error {
	return d.do("sync", path, func() error { return d.osDisk.syncDir(path) })
}

type scriptedFile struct {
	file
	disk *scriptedDisk
	path string
}

func (f *scriptedFile) Chmod(mode fs.FileMode) error {
	return f.disk.do("fchmod", f.path, func() error { return f.file.Chmod(mode) })
}

func (f *scriptedFile) Write(p []byte) (n int, err error) {
	err = f.disk.do("write", f.path, func() (err error) { n, err = f.file.Write(p); return err })
	return n, err
}

func (f *scriptedFile) Sync() error { return f.disk.do("fsync", f.path, f.file.Sync) }

func (f *scriptedFile) Stat() (info fs.FileInfo, err error) {
	err = f.disk.do("fstat", f.path, func() (err error) { info, err = f.file.Stat(); return err })
	return info, err
}

// Close always closes: an error of close(2) leaves no descriptor behind either.
func (f *scriptedFile) Close() error {
	closeErr := f.file.Close()
	return f.disk.do("close", f.path, func() error { return closeErr })
}

// text is the content function of a message in memory.
func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// files returns the names and contents in a directory that may be missing.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[entry.Name()] = string(content)
	}
	return found
}

func wantEmpty(t *testing.T, maildir string) {
	t.Helper()
	for _, name := range []string{"tmp", "new", "cur"} {
		if found := files(t, filepath.Join(maildir, name)); len(found) != 0 {
			t.Errorf("%s holds %q", name, found)
		}
	}
}

// wantOne checks that the Maildir holds just one message, in new, under the name that was reported.
func wantOne(t *testing.T, maildir, name, content string) {
	t.Helper()
	found := files(t, filepath.Join(maildir, "new"))
	if len(found) != 1 || found[name] != content {
		t.Errorf("new holds %.200q, want %q", found, name)
	}
	for _, name := range []string{"tmp", "cur"} {
		if found := files(t, filepath.Join(maildir, name)); len(found) != 0 {
			t.Errorf("%s holds %q", name, found)
		}
	}
}

// makeMaildir makes one as another program would.
func makeMaildir(t testing.TB, dir string) string {
	t.Helper()
	for _, name := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// endless is a reader of n bytes that were never in memory together.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), e.n))
	copy(p[:n], bytes.Repeat([]byte{'x'}, min(n, 512)))
	e.n -= int64(n)
	return n, nil
}
