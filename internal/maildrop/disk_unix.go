//go:build unix

package maildrop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// openDirectory makes an open fail at anything but a directory, and never wait, as it would for a
// pipe.
const openDirectory = syscall.O_DIRECTORY

func identify(info fs.FileInfo) identity {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return identity{uint64(st.Dev), uint64(st.Ino)}
	}
	return identity{}
}

// syncDirectory makes the entries of a directory durable. A file system that has no sync for
// directories says EINVAL or that it is not supported: there is nothing more to be had from it.
func syncDirectory(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// renameNoReplace renames within root, and fails with fs.ErrExist where there is something.
func renameNoReplace(root *os.Root, oldPath, newPath string) error {
	from, err := root.OpenFile(filepath.Dir(oldPath), os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := root.OpenFile(filepath.Dir(newPath), os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	err = renameExclusive(from, filepath.Base(oldPath), to, filepath.Base(newPath))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported):
		return renameIfAbsent(root, oldPath, newPath)
	}
	return &os.LinkError{Op: "rename", Old: oldPath, New: newPath, Err: err}
}
