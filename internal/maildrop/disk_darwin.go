package maildrop

import (
	"os"

	"golang.org/x/sys/unix"
)

func renameExclusive(from *os.File, oldName string, to *os.File, newName string) error {
	return unix.RenameatxNp(int(from.Fd()), oldName, int(to.Fd()), newName, unix.RENAME_EXCL)
}
