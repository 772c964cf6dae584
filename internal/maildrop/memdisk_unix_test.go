//go:build unix

package maildrop

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memDisk is a disk in memory that remembers everything that was done to it, in order, so that it can
// tell what a crash might leave. It differs from a real one in that its syncs alone take time.
type memDisk struct {
	unnamed bool // it has files without a name
	volumes bool // it can be synced as a whole
	noLinks bool
	// fault is asked ahead of everything that changes or syncs; an error is the operation's.
	fault func(op, path string) error
	// hang is called ahead of everything, while others may go on.
	hang func(op, path string)

	mu   sync.Mutex
	top  *memNode
	ops  []memOp
	last uint64 // inode
}

// memNode is a directory or file.
type memNode struct {
	inode   uint64
	device  uint64              // that of the directory it was put into first
	entries map[string]*memNode // nil for a file
	content []byte
}

// memOp is what was done: one of the kinds below.
type memOp struct {
	kind  string   // "entry", "write", "sync", "sync all", "report"
	node  *memNode // the directory of the entry, or what was written or synced
	name  string   // of the entry
	to    *memNode // what the name leads to now, or nil
	began int      // of a sync: how much was done when it began
	text  string   // the content after a write, or the message that was reported
}

func newMemDisk() *memDisk {
	d := &memDisk{}
	d.top = d.newNode(true)
	d.top.device = 1
	return d
}

func (d *memDisk) newNode(dir bool) *memNode {
	d.last++
	n := &memNode{inode: d.last}
	if dir {
		n.entries = make(map[string]*memNode)
	}
	return n
}

// do is every operation.
func (d *memDisk) do(op, path string, operation func() error) error {
	if d.hang != nil {
		d.hang(op, path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil {
		if err := d.fault(op, path); err != nil {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	if err := operation(); err != nil {
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// set changes an entry.
func (d *memDisk) set(dir *memNode, name string, to *memNode) {
	if to == nil {
		delete(dir.entries, name)
	} else {
		dir.entries[name] = to
	}
	d.ops = append(d.ops, memOp{kind: "entry", node: dir, name: name, to: to})
}

// report notes that a message was reported as delivered.
func (d *memDisk) report(message string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, memOp{kind: "report", text: message})
}

// sync makes a node durable, or everything for nil, as far as it was done when it began.
func (d *memDisk) sync(op, path string, node *memNode) error {
	d.mu.Lock()
	began := len(d.ops)
	d.mu.Unlock()
	time.Sleep(time.Millisecond) // of a bubble's time
	return d.do(op, path, func() error {
		kind := "sync"
		if node == nil {
			kind = "sync all"
		}
		d.ops = append(d.ops, memOp{kind: kind, node: node, began: began})
		return nil
	})
}

func (d *memDisk) tree(n *memNode, path string) memTree { return memTree{d, n, path} }
func (d *memDisk) whole() memTree                       { return d.tree(d.top, "/") }

func (d *memDisk) stat(path string) (fs.FileInfo, error)     { return d.whole().stat(path) }
func (d *memDisk) mkdir(path string, perm fs.FileMode) error { return d.whole().mkdir(path, perm) }
func (d *memDisk) chmod(path string, mode fs.FileMode) error { return d.whole().chmod(path, mode) }
func (d *memDisk) remove(path string) error                  { return d.whole().remove(path) }
func (d *memDisk) syncDir(path string) error                 { return d.whole().syncDir(path) }
func (d *memDisk) open(path string) (tree, error)            { return d.whole().open(path) }

// memTree is a tree of a memDisk.
type memTree struct {
	disk *memDisk
	node *memNode
	path string
}

func (t memTree) do(op, path string, operation func() error) error {
	return t.disk.do(op, filepath.Join(t.path, path), operation)
}

// find walks, with the disk's mutex held.
func (t memTree) find(path string) (*memNode, error) {
	n := t.node
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "." || name == "" {
			continue
		}
		if n.entries == nil {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[name]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

func (t memTree) findDir(path string) (*memNode, error) {
	n, err := t.find(path)
	if err == nil && n.entries == nil {
		err = syscall.ENOTDIR
	}
	return n, err
}

// add puts something under a name that must be free.
func (t memTree) add(path string, n *memNode) error {
	dir, err := t.findDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	if dir.entries[name] != nil {
		return syscall.EEXIST
	}
	n.device = dir.device
	t.disk.set(dir, name, n)
	return nil
}

func (t memTree) stat(path string) (info fs.FileInfo, err error) {
	err = t.do("stat", path, func() error {
		n, err := t.find(path)
		info = memInfo{n, filepath.Base(path)}
		return err
	})
	return info, err
}

func (t memTree) mkdir(path string, _ fs.FileMode) error {
	return t.do("mkdir", path, func() error { return t.add(path, t.disk.newNode(true)) })
}

func (t memTree) chmod(path string, _ fs.FileMode) error {
	return t.do("chmod", path, func() error { _, err := t.find(path); return err })
}

func (t memTree) remove(path string) error {
	return t.do("remove", path, func() error {
		dir, err := t.findDir(filepath.Dir(path))
		if err == nil && dir.entries[filepath.Base(path)] == nil {
			err = syscall.ENOENT
		}
		if err == nil {
			t.disk.set(dir, filepath.Base(path), nil)
		}
		return err
	})
}

func (t memTree) syncDir(path string) error {
	dir, err := t.openDir(path)
	if err != nil {
		return err
	}
	return dir.sync()
}

func (t memTree) open(path string) (below tree, err error) {
	err = t.do("open", path, func() error {
		n, err := t.findDir(path)
		below = t.disk.tree(n, filepath.Join(t.path, path))
		return err
	})
	return below, err
}

func (t memTree) openDir(path string) (dir directory, err error) {
	err = t.do("open", path, func() error {
		n, err := t.findDir(path)
		dir = memDirectory(t.disk.tree(n, filepath.Join(t.path, path)))
		return err
	})
	return dir, err
}

func (t memTree) create(path string, _ fs.FileMode) (f file, err error) {
	err = t.do("create", path, func() error {
		n := t.disk.newNode(false)
		f = &memFile{t.disk, n, filepath.Join(t.path, path)}
		return t.add(path, n)
	})
	return f, err
}

func (t memTree) createUnnamed(dir string, _ fs.FileMode) (f file, err error) {
	if !t.disk.unnamed {
		return nil, errors.ErrUnsupported
	}
	err = t.do("create", dir, func() error {
		in, err := t.findDir(dir)
		if err != nil {
			return err
		}
		n := t.disk.newNode(false)
		n.device = in.device
		f = &memFile{t.disk, n, filepath.Join(t.path, dir, "unnamed")}
		return nil
	})
	return f, err
}

func (t memTree) link(oldPath, newPath string) error {
	return t.do("link", newPath, func() error {
		if t.disk.noLinks {
			return syscall.EPERM
		}
		n, err := t.find(oldPath)
		if err != nil {
			return err
		}
		return t.add(newPath, n)
	})
}

func (t memTree) rename(oldPath, newPath string) error {
	return t.do("rename", newPath, func() error {
		n, err := t.find(oldPath)
		if err != nil {
			return err
		}
		if err := t.add(newPath, n); err != nil {
			return err
		}
		dir, err := t.findDir(filepath.Dir(oldPath))
		if err == nil {
			t.disk.set(dir, filepath.Base(oldPath), nil)
		}
		return err
	})
}

func (t memTree) list(string, func(fs.FileInfo) error) error { return nil }

func (t memTree) Close() error { return nil }

// memDirectory is an open directory of a memDisk.
type memDirectory memTree

func (d memDirectory) sync() error  { return d.disk.sync("sync", d.path, d.node) }
func (d memDirectory) Close() error { return nil }

func (d memDirectory) link(f file, name string) error {
	return d.disk.do("link", filepath.Join(d.path, name), func() error { return memTree(d).add(name, f.(*memFile).node) })
}

func (d memDirectory) volume(uint64) (volume, error) {
	if !d.disk.volumes {
		return nil, errors.ErrUnsupported
	}
	return memVolume{d.disk, d.path}, nil
}

type memVolume struct {
	disk *memDisk
	path string // through which it was opened
}

func (v memVolume) sync() error  { return v.disk.sync("syncfs", v.path, nil) }
func (v memVolume) Close() error { return nil }

// memFile is an open file of a memDisk.
type memFile struct {
	disk *memDisk
	node *memNode
	path string
}

func (f *memFile) Chmod(fs.FileMode) error {
	return f.disk.do("fchmod", f.path, func() error { return nil })
}
func (f *memFile) Close() error { return f.disk.do("close", f.path, func() error { return nil }) }
func (f *memFile) Sync() error  { return f.disk.sync("fsync", f.path, f.node) }

func (f *memFile) Write(p []byte) (int, error) {
	err := f.disk.do("write", f.path, func() error {
		f.node.content = append(f.node.content, p...)
		f.disk.ops = append(f.disk.ops, memOp{kind: "write", node: f.node, text: string(f.node.content)})
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Stat() (info fs.FileInfo, err error) {
	err = f.disk.do("fstat", f.path, func() error { info = memInfo{f.node, filepath.Base(f.path)}; return nil })
	return info, err
}

// memInfo describes a node.
type memInfo struct {
	node *memNode
	name string
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return int64(len(i.node.content)) }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.node.entries != nil }

func (i memInfo) Sys() any {
	st := &syscall.Stat_t{Ino: i.node.inode}
	setNumber(&st.Dev, i.node.device)
	return st
}

// setNumber sets a field whose type is not the same in all systems.
func setNumber[T int32 | uint32 | uint64](field *T, n uint64) { *field = T(n) }

func (i memInfo) Mode() fs.FileMode {
	if i.IsDir() {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
