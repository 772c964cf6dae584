//go:build !linux && !darwin

package maildrop

func renameNoReplace(oldPath, newPath string) error { return renameIfAbsent(oldPath, newPath) }
