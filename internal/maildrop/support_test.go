package maildrop

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// scriptedDisk is the real disk with a look at, and a hand in, every operation.
type scriptedDisk struct {
	osDisk
	root    string // cut from the paths in log
	unnamed bool   // it has files without a name
	volumes bool   // it can be synced as a whole

	mu  sync.Mutex
	log []string // "link new", "write tmp", "sync .": the operation and the directory it is in

	// before is asked ahead of the operation with its index in log; an error is the operation's.
	before func(index int, op, path string) error
	// after may replace the result of an operation that was done.
	after func(op, path string, err error) error
}

func (d *scriptedDisk) do(op, path string, operation func() error) error {
	place := strings.TrimPrefix(filepath.Dir(path), d.root)
	switch op {
	case "mkdir", "chmod", "sync", "stat", "open", "syncfs":
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

// steps are the log without what only looks.
func (d *scriptedDisk) steps() []string {
	return slices.DeleteFunc(slices.Clone(d.log), func(s string) bool {
		return strings.HasPrefix(s, "stat ") || strings.HasPrefix(s, "open ")
	})
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

func (d *scriptedDisk) remove(path string) error {
	return d.do("remove", path, func() error { return d.osDisk.remove(path) })
}

func (d *scriptedDisk) syncDir(path string) error {
	return d.do("sync", path, func() error { return d.osDisk.syncDir(path) })
}

func (d *scriptedDisk) open(path string) (t tree, err error) {
	err = d.do("open", path, func() (err error) { t, err = d.osDisk.open(path); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedTree{t, d, path}, nil
}

// scriptedTree is a tree of a scriptedDisk.
type scriptedTree struct {
	tree
	disk *scriptedDisk
	top  string
}

func (t *scriptedTree) do(op, path string, operation func() error) error {
	return t.disk.do(op, filepath.Join(t.top, path), operation)
}

func (t *scriptedTree) stat(path string) (info fs.FileInfo, err error) {
	err = t.do("stat", path, func() (err error) { info, err = t.tree.stat(path); return err })
	return info, err
}

func (t *scriptedTree) mkdir(path string, perm fs.FileMode) error {
	return t.do("mkdir", path, func() error { return t.tree.mkdir(path, perm) })
}

func (t *scriptedTree) chmod(path string, mode fs.FileMode) error {
	return t.do("chmod", path, func() error { return t.tree.chmod(path, mode) })
}

func (t *scriptedTree) remove(path string) error {
	return t.do("remove", path, func() error { return t.tree.remove(path) })
}

func (t *scriptedTree) syncDir(path string) error {
	return t.do("sync", path, func() error { return t.tree.syncDir(path) })
}

func (t *scriptedTree) link(oldPath, newPath string) error {
	return t.do("link", newPath, func() error { return t.tree.link(oldPath, newPath) })
}

func (t *scriptedTree) rename(oldPath, newPath string) error {
	return t.do("rename", newPath, func() error { return t.tree.rename(oldPath, newPath) })
}

func (t *scriptedTree) open(path string) (below tree, err error) {
	err = t.do("open", path, func() (err error) { below, err = t.tree.open(path); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedTree{below, t.disk, filepath.Join(t.top, path)}, nil
}

func (t *scriptedTree) openDir(path string) (dir directory, err error) {
	err = t.do("open", path, func() (err error) { dir, err = t.tree.openDir(path); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedDirectory{dir, t.disk, filepath.Join(t.top, path)}, nil
}

func (t *scriptedTree) create(path string, perm fs.FileMode) (f file, err error) {
	err = t.do("create", path, func() (err error) { f, err = t.tree.create(path, perm); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedFile{f, t.disk, filepath.Join(t.top, path)}, nil
}

func (t *scriptedTree) createUnnamed(dir string, perm fs.FileMode) (f file, err error) {
	if !t.disk.unnamed {
		return nil, errors.ErrUnsupported
	}
	path := filepath.Join(dir, "unnamed")
	err = t.do("create", path, func() (err error) { f, err = t.tree.createUnnamed(dir, perm); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedFile{f, t.disk, filepath.Join(t.top, path)}, nil
}

// scriptedDirectory is an open directory of a scriptedDisk.
type scriptedDirectory struct {
	directory
	disk *scriptedDisk
	path string
}

func (d *scriptedDirectory) sync() error { return d.disk.do("sync", d.path, d.directory.sync) }

func (d *scriptedDirectory) link(f file, name string) error {
	return d.disk.do("link", filepath.Join(d.path, name), func() error {
		return d.directory.link(f.(*scriptedFile).file, name)
	})
}

func (d *scriptedDirectory) volume(device uint64) (v volume, err error) {
	if !d.disk.volumes {
		return nil, errors.ErrUnsupported
	}
	err = d.disk.do("open", "volume", func() (err error) { v, err = d.directory.volume(device); return err })
	if err != nil {
		return nil, err
	}
	return &scriptedVolume{v, d.disk}, nil
}

// scriptedVolume is a file system of a scriptedDisk.
type scriptedVolume struct {
	volume
	disk *scriptedDisk
}

func (v *scriptedVolume) sync() error { return v.disk.do("syncfs", "", v.volume.sync) }

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
