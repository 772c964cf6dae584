package maildrop

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// disk is every operation by which a delivery changes or asks the file system: all that has to be
// recorded, made to fail or done in another way is here. Paths are absolute. Errors are those of
// package os.
type disk interface {
	stat(path string) (fs.FileInfo, error) // follows symbolic links
	mkdir(path string, perm fs.FileMode) error
	chmod(path string, mode fs.FileMode) error
	create(path string, perm fs.FileMode) (file, error) // fs.ErrExist where there is something
	link(oldPath, newPath string) error                 // fs.ErrExist in the same way
	rename(oldPath, newPath string) error               // fs.ErrExist in the same way
	remove(path string) error
	syncDir(path string) error
}

// file is an *os.File, open for writing.
type file interface {
	io.WriteCloser
	Chmod(mode fs.FileMode) error
	Sync() error
	Stat() (fs.FileInfo, error)
}

// identity is what a file's name in new tells about the file.
type identity struct {
	place string // VDEVIINODE, or empty where the system does not number its files
	size  int64
}

// osDisk is the disk of the operating system.
type osDisk struct{}

func (osDisk) stat(path string) (fs.FileInfo, error)     { return os.Stat(path) }
func (osDisk) mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }
func (osDisk) chmod(path string, mode fs.FileMode) error { return os.Chmod(path, mode) }
func (osDisk) link(oldPath, newPath string) error        { return os.Link(oldPath, newPath) }
func (osDisk) rename(oldPath, newPath string) error      { return renameNoReplace(oldPath, newPath) }
func (osDisk) remove(path string) error                  { return os.Remove(path) }
func (osDisk) syncDir(path string) error                 { return syncDir(path) }

func (osDisk) create(path string, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err // not a nil *os.File in a file
	}
	return f, nil
}

// renameIfAbsent is for file systems that have neither links nor a rename that does not replace. Between
// its two steps somebody could take the name; but the name holds this host, process, count and
// nanosecond, and nobody else makes such a one.
func renameIfAbsent(oldPath, newPath string) error {
	_, err := os.Lstat(newPath)
	switch {
	case err == nil:
		return &os.LinkError{Op: "rename", Old: oldPath, New: newPath, Err: fs.ErrExist}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.Rename(oldPath, newPath)
}
