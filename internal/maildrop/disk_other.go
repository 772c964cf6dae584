//go:build !unix

package maildrop

import "io/fs"

func identify(info fs.FileInfo) identity { return identity{size: info.Size()} }

// syncDir does nothing: directories cannot be synced here.
func syncDir(string) error { return nil }
