package maildrop

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
)

// isDir reports whether a directory of the Maildir is there, itself or by a symbolic link.
func (v *delivery) isDir(name string) bool {
	info, err := v.disk.stat(filepath.Join(v.dir, name))
	return err == nil && info.IsDir()
}

// makeMaildir makes what is missing of the Maildir and of the path to it. Others may be doing the same
// at the same time, here or in another process; every one of them syncs what its own delivery needs.
func (v *delivery) makeMaildir(ctx context.Context) error {
	if err := v.makePath(ctx); err != nil {
		return err
	}
	for _, names := range [][]string{{"cur", "new"}, {"tmp"}} {
		if err := v.proceed(ctx); err != nil {
			return err
		}
		for _, name := range names {
			if err := v.makeDir(filepath.Join(v.dir, name)); err != nil {
				return err
			}
		}
		if err := v.sync(v.dir); err != nil {
			return err
		}
	}
	return nil
}

// makePath makes the Maildir's own directory and its missing parents.
func (v *delivery) makePath(ctx context.Context) error {
	found, missing, err := v.findPath()
	if err != nil {
		return err
	}
	// Whoever made the directory that we found may not have synced it yet, or may have died first. It
	// may also have been there for years, in a parent that we have no right to open.
	if err := v.sync(filepath.Dir(found)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, path := range missing {
		if err := v.proceed(ctx); err != nil {
			return err
		}
		if err := v.makeDir(path); err != nil {
			return err
		}
		if err := v.sync(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

// findPath returns the deepest directory on the path that exists, and those below it, top down.
func (v *delivery) findPath() (found string, missing []string, err error) {
	for path := v.dir; ; path = filepath.Dir(path) {
		info, err := v.disk.stat(path)
		switch {
		case err == nil && info.IsDir():
			slices.Reverse(missing)
			return path, missing, nil
		case err == nil:
			return "", nil, &Error{"mkdir", path, syscall.ENOTDIR}
		case !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path):
			return "", nil, &Error{"stat", path, err}
		}
		missing = append(missing, path)
	}
}

// makeDir makes one directory, with its mode. One that is there already, perhaps since a moment ago,
// is left as it is.
func (v *delivery) makeDir(path string) error {
	mode := v.drop.DirMode
	err := v.disk.mkdir(path, creationMode(mode, 0o777))
	if errors.Is(err, fs.ErrExist) {
		info, err := v.disk.stat(path)
		if err == nil && !info.IsDir() {
			err = syscall.ENOTDIR
		}
		if err != nil {
			return &Error{"mkdir", path, err}
		}
		return nil
	}
	if err != nil {
		return &Error{"mkdir", path, err}
	}
	if mode != nil {
		if err := v.disk.chmod(path, fileMode(*mode)); err != nil {
			// The next delivery would find it and leave its mode as it is.
			_ = v.disk.remove(path)
			return &Error{"chmod", path, err}
		}
	}
	return v.sync(path)
}

func (v *delivery) sync(dir string) error {
	if err := v.disk.syncDir(dir); err != nil {
		return &Error{"sync", dir, err}
	}
	return nil
}
