package maildrop

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func renameNoReplace(oldPath, newPath string) error {
	err := unix.RenamexNp(oldPath, newPath, unix.RENAME_EXCL)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported):
		return renameIfAbsent(oldPath, newPath)
	}
	return &os.LinkError{Op: "renamex_np", Old: oldPath, New: newPath, Err: err}
}
