package maildrop

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Drop stores messages in Maildirs. One should serve all of a process: simultaneous calls of one Drop
// share the syncs of their file systems, and its turns. Its zero value works. It is safe for concurrent
// use, and must not be copied or changed once it is in use.
type Drop struct {
	// Hostname is the host's part of file names. It should be unique among the hosts that share a
	// Maildir. With "" it is what os.Hostname said first.
	Hostname string
	// Threads is how many calls may be in system calls at a time on one file system, beside the one
	// that syncs for others; 0 means 64. Reading the message counts as one. The others wait for their turn. The
	// file system is that of a Maildir's Root. As many may be looking where Roots are that were not known.
	Threads int
	// Open is how many calls may have files open at a time on one file system; 0 means 256. The others wait for
	// their turn.
	Open int

	startOnce sync.Once
	host      string // Hostname, fit for a file name
	threads   int    // Threads or what it means
	open      int    // Open or what it means
	looking   *slots // for where roots are
	lanes     lanes
	groups    groups
	cleaned   cleaned
	counter   atomic.Uint64 // of file names
	buffers   sync.Pool     // of *[bufferSize]byte
	named     atomic.Bool   // files must have a name from the beginning

	now  func() time.Time // nil: time.Now
	disk disk             // nil: the operating system's
}

// Maildir is where a message goes to, and how it is kept there.
type Maildir struct {
	// Root is an absolute path without "..", "." and doubled slashes. Its symbolic links are followed.
	Root string
	// Rel is a path below Root, relative and as clean; "" and "." are Root itself. Below Root, a symbolic
	// link is followed only if it is relative and stays below Root, and in the Maildir only if it stays in
	// the Maildir: with any other the delivery fails.
	Rel string

	// DirMode is the mode of every directory that Store creates, missing parents included, in Unix
	// bits from 0 to 07777, whatever the umask. Directories that exist are left as they are. With nil
	// a directory gets 0777 less the umask.
	DirMode *uint32
	// FileMode is the mode of the message's file, in the same way. With nil it is 0666 less the umask.
	FileMode *uint32
	// NoSync leaves out the syncs of a message. One that was reported is then whole in new for all who
	// look, and survives the end of the process, but a machine that stops may lose it, or keep its name
	// with any part of the content. Directories are synced all the same: that is once for each, and
	// those who do sync rely on it.
	NoSync bool
}

// Threads and Open, if they are not set. Each open call has up to four files open.
const (
	defaultThreads = 64
	defaultOpen    = 256
)

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
		if e.names(err.Path) {
			cause = err.Err
		}
	case *os.LinkError:
		if e.names(err.New) {
			cause = err.Err
		}
	}
	return fmt.Sprintf("%s %q: %v", e.Op, e.Path, cause)
}

// names reports whether path is ours, or the end of it, below a directory that is open.
func (e *Error) names(path string) bool {
	return path == e.Path || path == "." || strings.HasSuffix(e.Path, string(filepath.Separator)+path)
}

func (e *Error) Unwrap() error { return e.Err }

// Store writes one message into a Maildir and returns the name of its file in new. When it returns
// without an error, the message is whole in new and durable. The Maildir is created with cur, new, tmp
// and all missing parents, those of its root included.
//
// content is called once, before anything is created. It is read to its end and closed; an error in
// reading it ends the delivery.
//
// ctx is looked at between the steps, up to the link in new, and ends the waiting for others; from the
// link on the delivery is finished. A single step is not interrupted.
//
// Errors are of type *Error. After one, neither tmp nor new holds anything of this call, as far as the
// file system let it be removed; while all Threads are busy, the name in tmp goes once the next of
// them comes back. Directories that were created stay.
func (d *Drop) Store(ctx context.Context, to Maildir, content func() (io.ReadCloser, error)) (name string, err error) {
	v, err := d.newDelivery(ctx, to)
	if err != nil {
		return "", err
	}
	if err := v.proceed(); err != nil {
		return "", err
	}
	if err := v.enterLane(); err != nil {
		return "", err
	}
	select {
	case v.lane.opened <- struct{}{}:
	case <-ctx.Done():
		return "", v.proceed()
	}
	return v.store(content)
}

func (d *Drop) newDelivery(ctx context.Context, to Maildir) (*delivery, error) {
	to.Rel = cmp.Or(to.Rel, ".")
	if err := to.check(); err != nil {
		return nil, err
	}
	d.startOnce.Do(d.start)
	v := &delivery{ctx: ctx, drop: d, disk: d.disk, to: to, dir: filepath.Join(to.Root, to.Rel)}
	if v.disk == nil {
		v.disk = osDisk{}
	}
	return v, nil
}

func (d *Drop) start() {
	d.host = hostPart(d.Hostname)
	d.threads = cmp.Or(max(d.Threads, 0), defaultThreads)
	d.open = cmp.Or(max(d.Open, 0), defaultOpen)
	d.looking = newSlots(d.threads)
}

func (m *Maildir) check() error {
	invalid := func(path, format string, args ...any) error {
		return &Error{"use", path, fmt.Errorf("%w: "+format, append([]any{fs.ErrInvalid}, args...)...)}
	}
	if !filepath.IsAbs(m.Root) || filepath.Clean(m.Root) != m.Root {
		return invalid(m.Root, "the path is not absolute and clean")
	}
	if !filepath.IsLocal(m.Rel) || filepath.Clean(m.Rel) != m.Rel {
		return invalid(m.Rel, "the path is not relative and clean")
	}
	for _, mode := range []*uint32{m.DirMode, m.FileMode} {
		if mode != nil && *mode > 0o7777 {
			return invalid(filepath.Join(m.Root, m.Rel), "the mode %#o is out of range (0 to 07777)", *mode)
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
