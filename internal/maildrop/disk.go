package maildrop

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// disk is every operation by which a delivery changes or asks the file system: all that has to be
// recorded, made to fail or done in another way is here and in what it opens. Paths are absolute, and
// symbolic links are followed. Errors are those of package os.
type disk interface {
	folders
	// open opens a directory as the top of a tree.
	open(path string) (tree, error)
}

// folders is what it takes to make directories.
type folders interface {
	stat(path string) (fs.FileInfo, error) // follows symbolic links
	mkdir(path string, perm fs.FileMode) error
	chmod(path string, mode fs.FileMode) error
	remove(path string) error
	syncDir(path string) error
}

// tree is a directory and what is below it. Paths are relative to it, with the separator of the
// system, and none leads out of it, whatever symbolic links there are.
type tree interface {
	folders
	open(path string) (tree, error)
	create(path string, perm fs.FileMode) (file, error) // fs.ErrExist where there is something
	// createUnnamed makes a file that is in no directory, on the disk of dir, or fails with
	// errors.ErrUnsupported.
	createUnnamed(dir string, perm fs.FileMode) (file, error)
	openDir(path string) (directory, error)
	link(oldPath, newPath string) error   // fs.ErrExist in the same way
	rename(oldPath, newPath string) error // fs.ErrExist in the same way
	// list calls visit for what is in a directory, up to its first error; links are not followed.
	list(dir string, visit func(fs.FileInfo) error) error
	io.Closer
}

// file is an *os.File, open for writing.
type file interface {
	io.WriteCloser
	Chmod(mode fs.FileMode) error
	Sync() error
	Stat() (fs.FileInfo, error)
}

// directory is one that stays open.
type directory interface {
	// link gives a file of createUnnamed a name here; fs.ErrExist where there is something.
	link(f file, name string) error
	sync() error
	// volume opens the file system that the directory is on, for one sync of all of it, or fails
	// with errors.ErrUnsupported where such a sync would not be known to do, or to tell, enough, and
	// where it is not the one of that device.
	volume(device uint64) (volume, error)
	io.Closer
}

// volume is a file system. Its sync makes all durable that was done to the file system before, and
// fails if any of it could not be since the last sync, or since volume was opened.
type volume interface {
	sync() error
	io.Closer
}

// identity is what tells a file from others: the numbers of its device and of itself, zero where the
// system does not number its files.
type identity struct{ device, inode uint64 }

// osDisk is the disk of the operating system.
type osDisk struct{}

func (osDisk) stat(path string) (fs.FileInfo, error)     { return os.Stat(path) }
func (osDisk) mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }
func (osDisk) chmod(path string, mode fs.FileMode) error { return os.Chmod(path, mode) }
func (osDisk) remove(path string) error                  { return os.Remove(path) }

func (osDisk) syncDir(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return err
	}
	return firstError(syncDirectory(f), f.Close())
}

func (osDisk) open(path string) (tree, error) {
	if err := isDir(os.Stat(path)); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return osTree{root}, nil
}

// osTree is a tree of the operating system.
type osTree struct{ root *os.Root }

func (t osTree) Close() error                              { return t.root.Close() }
func (t osTree) stat(path string) (fs.FileInfo, error)     { return t.root.Stat(path) }
func (t osTree) mkdir(path string, perm fs.FileMode) error { return t.root.Mkdir(path, perm) }
func (t osTree) chmod(path string, mode fs.FileMode) error { return t.root.Chmod(path, mode) }
func (t osTree) remove(path string) error                  { return t.root.Remove(path) }
func (t osTree) link(oldPath, newPath string) error        { return t.root.Link(oldPath, newPath) }

func (t osTree) rename(oldPath, newPath string) error {
	return renameNoReplace(t.root, oldPath, newPath)
}

func (t osTree) syncDir(path string) error {
	dir, err := t.openDir(path)
	if err != nil {
		return err
	}
	return firstError(dir.sync(), dir.Close())
}

func (t osTree) open(path string) (tree, error) {
	if err := isDir(t.root.Stat(path)); err != nil {
		return nil, err
	}
	root, err := t.root.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return osTree{root}, nil
}

func (t osTree) openDir(path string) (directory, error) {
	f, err := t.root.OpenFile(path, os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return nil, err
	}
	return osDirectory{f}, nil
}

func (t osTree) create(path string, perm fs.FileMode) (file, error) {
	f, err := t.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err // not a nil *os.File in a file
	}
	return f, nil
}

// list leaves out what vanishes meanwhile.
func (t osTree) list(dir string, visit func(fs.FileInfo) error) error {
	f, err := t.root.OpenFile(dir, os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			info, err := t.root.Lstat(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			if err := visit(info); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// osDirectory is an open directory of the operating system.
type osDirectory struct{ f *os.File }

func (d osDirectory) sync() error  { return syncDirectory(d.f) }
func (d osDirectory) Close() error { return d.f.Close() }

// isDir looks before an open that would wait where a pipe is in the way.
func isDir(info fs.FileInfo, err error) error {
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: info.Name(), Err: syscall.ENOTDIR}
	}
	return err
}

func firstError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// renameIfAbsent is for file systems that have neither links nor a rename that does not replace. Between
// its two steps somebody could take the name; but the name holds this host, process, count and
// nanosecond, and nobody else makes such a one.
func renameIfAbsent(root *os.Root, oldPath, newPath string) error {
	_, err := root.Lstat(newPath)
	switch {
	case err == nil:
		return &os.LinkError{Op: "rename", Old: oldPath, New: newPath, Err: fs.ErrExist}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return root.Rename(oldPath, newPath)
}
