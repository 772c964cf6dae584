//go:build unix

package maildrop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

func identify(info fs.FileInfo) identity {
	id := identity{size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.place = fmt.Sprintf("V%dI%d", st.Dev, st.Ino)
	}
	return id
}

// syncDir makes the entries of a directory durable. A file system that has no sync for directories
// says EINVAL or that it is not supported: there is nothing more to be had from it.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	if closeErr := dir.Close(); err == nil {
		err = closeErr
	}
	return err
}
