package maildrop

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
)

// makeMaildir makes what is missing of the Maildir and of the path to it. Others may be doing the same
// at the same time, here or in another process; every one of them syncs what its own delivery needs.
func (v *delivery) makeMaildir() error {
	v.made = true
	root := maker{v, v.disk, ""}
	if err := root.makePath(v.to.Root); err != nil {
		return err
	}
	if err := v.makeBox(); err != nil {
		return err
	}
	box := maker{v, v.box, v.dir}
	for _, names := range [][]string{{"cur", "new"}, {"tmp"}} {
		if err := v.proceed(); err != nil {
			return err
		}
		for _, name := range names {
			if err := box.makeDir(name); err != nil {
				return err
			}
		}
		if err := box.sync("."); err != nil {
			return err
		}
	}
	return nil
}

// makeBox makes the Maildir's own directory and what is missing between the root and it, and opens
// it.
func (v *delivery) makeBox() error {
	if v.to.Rel != "." {
		root, err := v.disk.open(v.to.Root)
		if err != nil {
			return &Error{"open", v.to.Root, err}
		}
		defer root.Close()
		below := maker{v, root, v.to.Root}
		if err := below.makePath(v.to.Rel); err != nil {
			return err
		}
	}
	if v.box != nil {
		return nil
	}
	return v.openBox()
}

// maker makes directories.
type maker struct {
	*delivery
	in  folders
	top string // the directory that paths in it are relative to
}

func (m maker) fail(op, path string, err error) error {
	return m.delivery.fail(op, filepath.Join(m.top, path), err)
}

// makePath makes a directory and its missing parents.
func (m maker) makePath(path string) error {
	found, missing, err := m.findPath(path)
	if err != nil {
		return err
	}
	// Whoever made the directory that we found may not have synced it yet, or may have died first. It
	// may also have been there for years, in a parent that we have no right to open.
	if found != "." {
		if err := m.sync(filepath.Dir(found)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	for _, path := range missing {
		if err := m.proceed(); err != nil {
			return err
		}
		if err := m.makeDir(path); err != nil {
			return err
		}
		if err := m.sync(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

// findPath returns the deepest directory on the path that exists, and those below it, top down.
func (m maker) findPath(path string) (found string, missing []string, err error) {
	for ; ; path = filepath.Dir(path) {
		info, err := m.in.stat(path)
		switch {
		case err == nil && info.IsDir():
			slices.Reverse(missing)
			return path, missing, nil
		case err == nil:
			return "", nil, m.fail("mkdir", path, syscall.ENOTDIR)
		case !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path):
			return "", nil, m.fail("stat", path, err)
		}
		missing = append(missing, path)
	}
}

// makeDir makes one directory, with its mode. One that is there already, perhaps since a moment ago,
// is left as it is.
func (m maker) makeDir(path string) error {
	mode := m.to.DirMode
	err := m.in.mkdir(path, creationMode(mode, 0o777))
	if errors.Is(err, fs.ErrExist) {
		info, err := m.in.stat(path)
		if err == nil && !info.IsDir() {
			err = syscall.ENOTDIR
		}
		return m.fail("mkdir", path, err)
	}
	if err != nil {
		return m.fail("mkdir", path, err)
	}
	if mode != nil {
		if err := m.in.chmod(path, fileMode(*mode)); err != nil {
			// The next delivery would find it and leave its mode as it is.
			_ = m.in.remove(path)
			return m.fail("chmod", path, err)
		}
	}
	return m.sync(path)
}

func (m maker) sync(dir string) error {
	return m.fail("sync", dir, m.in.syncDir(dir))
}
