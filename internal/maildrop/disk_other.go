//go:build !unix

package maildrop

import (
	"io/fs"
	"os"
)

const openDirectory = 0

func identify(fs.FileInfo) identity { return identity{} }

// syncDirectory does nothing: directories cannot be synced here.
func syncDirectory(*os.File) error { return nil }

func renameNoReplace(root *os.Root, oldPath, newPath string) error {
	return renameIfAbsent(root, oldPath, newPath)
}
