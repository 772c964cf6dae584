package maildrop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

func renameExclusive(from *os.File, oldName string, to *os.File, newName string) error {
	return unix.Renameat2(int(from.Fd()), oldName, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
}

// createUnnamed makes a file with O_TMPFILE. It vanishes with its descriptor, whatever ends the
// process, unless it gets a name.
func (t osTree) createUnnamed(dir string, perm fs.FileMode) (file, error) {
	if !hasProc() {
		return nil, errors.ErrUnsupported
	}
	f, err := t.root.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, perm)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL): // an old kernel
		return nil, errors.ErrUnsupported
	}
	return nil, err // ENOTSUP is errors.ErrUnsupported
}

// link names a file by its descriptor in /proc: to do without takes a capability (open(2),
// O_TMPFILE).
func (d osDirectory) link(f file, name string) error {
	unnamed, ok := f.(*os.File)
	if !ok {
		return errors.ErrUnsupported
	}
	source := procFiles + strconv.Itoa(int(unnamed.Fd()))
	err := unix.Linkat(unix.AT_FDCWD, source, int(d.f.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &os.LinkError{Op: "linkat", Old: source, New: filepath.Join(d.f.Name(), name), Err: err}
	}
	return nil
}

const procFiles = "/proc/self/fd/"

// hasProc reports whether files can be named by their descriptors.
var hasProc = sync.OnceValue(func() bool {
	var st unix.Statfs_t
	return unix.Statfs(procFiles, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
})

// volume opens the file system anew, because the errors that syncfs tells are those since the open.
// File systems over a network or of a user's process, and those that lie on others, make promises of
// their own; syncfs is taken only where it waits for all and tells all.
func (d osDirectory) volume(device uint64) (volume, error) {
	if !syncfsTells() {
		return nil, errors.ErrUnsupported
	}
	info, err := d.f.Stat()
	if err != nil {
		return nil, err
	}
	if identify(info).device != device {
		return nil, errors.ErrUnsupported
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "fstatfs", Path: d.f.Name(), Err: err}
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
	default:
		return nil, errors.ErrUnsupported
	}
	fd, err := unix.Openat(int(d.f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.f.Name(), Err: err}
	}
	return osVolume(fd), nil
}

// syncfsTells reports whether syncfs returns the errors of writing back, as since Linux 5.8, and those of the
// file system's own sync, such as a journal that could not be written: since 5.17.
var syncfsTells = sync.OnceValue(func() bool {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(uts.Release[:]), 5, 17)
})

// atLeast compares a kernel's release, such as 6.1.0-18-amd64.
func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	second, _, _ := strings.Cut(rest, ".")
	if i := strings.IndexFunc(second, func(r rune) bool { return r < '0' || '9' < r }); i >= 0 {
		second = second[:i]
	}
	is, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	isMinor, err := strconv.Atoi(second)
	return is > major || is == major && err == nil && isMinor >= minor
}

// osVolume is the descriptor of a directory on the file system.
type osVolume int

func (v osVolume) Close() error { return unix.Close(int(v)) }

// sync fails on a file system that is read-only: syncfs does nothing there and says that all is well, and it may be
// an error that made it read-only (mount(8), errors=remount-ro of ext4) before the names in new were durable.
func (v osVolume) sync() error {
	if err := again(func() error { return unix.Syncfs(int(v)) }); err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(int(v), &st) }); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return os.NewSyscallError("syncfs", unix.EROFS)
	}
	return nil
}

// again repeats a system call that a signal interrupts.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
