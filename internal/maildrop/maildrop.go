// Package maildrop writes messages into Maildirs so that they survive a power cut. It renders no
// paths and knows no recipients: it gets the path of a Maildir and bytes, and the bytes in the file
// are the bytes it got.
//
// # What is on disk after a crash
//
// A delivery does one thing after another, each only when the one before it has succeeded:
//
//  1. Missing directories are made from the top down. Each is synced once it has its mode, and its
//     parent is synced before anything is made inside. tmp comes last, when all else is durable.
//  2. A file is created in tmp, under a name that must not exist.
//  3. The content is written to it.
//  4. The file is synced and closed.
//  5. A second name for it is made in new (link), which fails if that name exists.
//  6. new is synced.
//  7. The name in tmp is removed, and [Drop.Store] returns.
//
// Suppose the machine stops, and the disk keeps what was synced and any part of what was not:
//
//   - during 1: some of the directories, none with anything in it. A later delivery makes the rest. It
//     first syncs the parent of the deepest directory that it finds, for that one may not be durable
//     yet; the ones above it are, or nothing would have been made inside them. In the same way the
//     presence of tmp says that the path to new is durable, to every process that keeps this order.
//   - during 2 to 4: nothing in new. tmp may hold a file with any part of the content, which no reader
//     of a Maildir looks at, and which is to be removed after 36 hours, as the Maildir convention
//     says.
//   - during 5 and 6: new holds the message or does not, and if it does it is whole, because the
//     content was durable before the name was made. tmp may still have the other name of the same file.
//     The delivery has not been reported: the host tries again, and if the name is there, the message
//     is there twice. That is the price of never losing it.
//   - during 7 and ever after: new holds the message, whole. At worst the name in tmp is back.
//
// So a message is reported only when it is whole in new, and nothing else ever appears in new. Were
// the name in tmp removed before new is synced, a crash could leave the removal without the new
// name, and lose the message.
//
// Where the file system has no links, step 5 is a rename that does not replace, and 7 has nothing to
// remove. A crash during 5 and 6 may then leave the file under either name: in new or out of it, the
// same holds.
//
// A sync that failed is never repeated to be believed: the file is given up, and its names are removed.
// Should a crash then bring one back, the host delivers the message a second time. Windows has no sync for
// directories; what it keeps of steps 1 and 6 is up to its file system.
//
// Whoever is killed rather than cut off leaves what the disk would have kept in full: at worst a file
// in tmp, a message that was not reported, or a directory that has not yet got its mode.
package maildrop

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Drop stores messages in Maildirs. Its zero value works. It is safe for concurrent use, and must not
// be copied or changed once it is in use.
type Drop struct {
	// DirMode is the mode of every directory that Store creates, missing parents included, in Unix
	// bits from 0 to 07777, whatever the umask. Directories that exist are left as they are. With nil
	// a directory gets 0777 less the umask.
	DirMode *uint32
	// FileMode is the mode of the message's file, in the same way. With nil it is 0666 less the umask.
	FileMode *uint32
	// Hostname is the host's part of file names. It should be unique among the hosts that share a
	// Maildir. With "" it is what os.Hostname said first.
	Hostname string

	hostOnce sync.Once
	host     string        // Hostname, fit for a file name
	counter  atomic.Uint64 // of file names
	buffers  sync.Pool     // of *[bufferSize]byte

	now  func() time.Time // nil: time.Now
	disk disk             // nil: the operating system's
}

// bufferSize is how much of a message is in memory at a time.
const bufferSize = 64 << 10

// Error is a delivery that failed. Unwrap leads to the cause: the *fs.PathError or errno of the
// operating system, the error of the content, that of the context, or fs.ErrInvalid for a path or mode
// that Store does not take.
type Error struct {
	Op   string // what was being done, such as "mkdir", "write" or "sync"
	Path string // the file or directory it was done to
	Err  error
}

// Error names a path once, though package os names it too.
func (e *Error) Error() string {
	cause := e.Err
	switch err := cause.(type) {
	case *fs.PathError:
		if err.Path == e.Path {
			cause = err.Err
		}
	case *os.LinkError:
		if err.New == e.Path {
			cause = err.Err
		}
	}
	return fmt.Sprintf("%s %q: %v", e.Op, e.Path, cause)
}

func (e *Error) Unwrap() error { return e.Err }

// Store writes one message into the Maildir at dir and returns the name of its file in dir/new. When
// it returns without an error, the message is whole in new and durable.
//
// dir is an absolute path without "..", "." and doubled slashes. It is created with cur, new, tmp and
// all missing parents; a symbolic link to a directory is as good as one.
//
// content is called once, before anything is created. It is read to its end and closed; an error in
// reading it ends the delivery.
//
// ctx is looked at between the steps, up to the link in new; from there on the delivery is finished.
// A single step is not interrupted.
//
// Errors are of type *Error. After one, neither tmp nor new holds anything of this call, as far as the
// file system let it be removed. Directories that were created stay.
func (d *Drop) Store(ctx context.Context, dir string, content func() (io.ReadCloser, error)) (name string, err error) {
	if err := d.check(dir); err != nil {
		return "", err
	}
	v := delivery{drop: d, disk: d.disk, dir: dir}
	if v.disk == nil {
		v.disk = osDisk{}
	}
	if err := v.proceed(ctx); err != nil {
		return "", err
	}
	message, err := content()
	if err != nil {
		return "", &Error{"open the message for", dir, err}
	}
	defer message.Close()
	return v.store(ctx, message)
}

func (d *Drop) check(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return &Error{"use", dir, fmt.Errorf("%w: the path is not absolute and clean", fs.ErrInvalid)}
	}
	for _, mode := range []*uint32{d.DirMode, d.FileMode} {
		if mode != nil && *mode > 0o7777 {
			return &Error{"use", dir, fmt.Errorf("%w: the mode %#o is out of range (0 to 07777)", fs.ErrInvalid, *mode)}
		}
	}
	return nil
}

// fileMode turns Unix bits into what package os takes, which has its own places for the upper three.
func fileMode(unix uint32) fs.FileMode {
	mode := fs.FileMode(unix & 0o777)
	if unix&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if unix&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if unix&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// creationMode is what a file or directory that shall have the given mode is created with: no bit
// more than that, even for the moment until chmod adds what the umask took.
func creationMode(unix *uint32, otherwise fs.FileMode) fs.FileMode {
	if unix == nil {
		return otherwise
	}
	return fileMode(*unix).Perm()
}
