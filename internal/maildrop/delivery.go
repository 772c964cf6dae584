package maildrop

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxNames bounds how often a name that is taken is replaced by another. More than one is a clock that
// stands still and another process with our number; this many is a file system that lies.
const maxNames = 100

// delivery is one message on its way into one Maildir.
type delivery struct {
	ctx  context.Context // of the call that this is
	drop *Drop
	disk disk
	to   Maildir
	lane *lane  // of the file system
	dir  string // to.Root and to.Rel

	box   tree      // the Maildir, open
	inbox directory // its new, open
	made  bool      // by us

	file  file   // the message, open
	named bool   // it has a name in tmp
	tmp   string // that name's path, or just tmp
	size  int64
	id    identity
	stamp stamp
	name  string // in new, once it is there

	member member // of the group that shares its syncs
}

// store is the order of steps that the package documentation argues about. It gives back the room in
// opened that its caller took.
func (v *delivery) store(content func() (io.ReadCloser, error)) (name string, err error) {
	ours := true
	// Delivered or not, nothing stays in tmp or open. A delivered message is not given up for a name
	// that cannot be removed.
	defer func() {
		if ours {
			v.abandon()
		}
	}()
	if err := v.inSlot(func() error { return v.write(content) }); err != nil {
		return "", err
	}
	if v.member.group == nil {
		err = v.inSlot(v.commitAlone)
	} else {
		ours, err = v.member.commit(v.ctx, v)
	}
	if err == nil {
		return v.name, nil
	}
	if _, ok := err.(*Error); !ok {
		err = v.fail("deliver to", "", err)
	}
	return "", err
}

// inSlot runs system calls that may take their time.
func (v *delivery) inSlot(work func() error) error {
	if err := v.lane.slots.take(v.ctx); err != nil {
		return v.fail("deliver to", "", err)
	}
	defer v.lane.slots.give()
	return work()
}

// commitAlone makes the delivery durable by itself.
func (v *delivery) commitAlone() error {
	if err := v.syncContent(); err != nil {
		return err
	}
	if err := v.publish(); err != nil {
		return err
	}
	return v.syncLink()
}

func (v *delivery) syncContent() error {
	if v.to.NoSync {
		return nil
	}
	return v.fail("sync", v.tmp, v.file.Sync())
}

func (v *delivery) syncLink() error {
	if v.to.NoSync {
		return nil
	}
	err := v.inbox.sync()
	if err != nil {
		_ = v.box.remove(filepath.Join("new", v.name))
	}
	return v.fail("sync", "new", err)
}

// abandon tidies up, in a slot, and makes room for another delivery. Who waits for no slot while the
// disk hangs leaves it to others.
func (v *delivery) abandon() {
	v.lane.slots.later(func() {
		v.tidy()
		<-v.lane.opened
	})
}

// tidy ends what the delivery has open, and its name in tmp.
func (v *delivery) tidy() {
	if v.file != nil {
		_ = v.file.Close() // it is synced, or given up
	}
	if v.named {
		_ = v.box.remove(v.tmp)
	}
	v.member.leave()
	if v.inbox != nil {
		_ = v.inbox.Close()
	}
	if v.box != nil {
		v.cleanSometimes()
		_ = v.box.Close()
	}
}

// fail says what could not be done to what, a path in the Maildir. It is nil if err is.
func (v *delivery) fail(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(v.dir, path)
	}
	return &Error{op, path, err}
}

// proceed fails once the context has ended.
func (v *delivery) proceed() error {
	return v.fail("deliver to", "", v.ctx.Err())
}

// write makes the file and puts the content into it.
func (v *delivery) write(content func() (io.ReadCloser, error)) error {
	if err := v.proceed(); err != nil {
		return err
	}
	message, err := content()
	if err != nil {
		return v.fail("open the message for", "", err)
	}
	defer message.Close()
	if err := v.create(); err != nil {
		return err
	}
	return v.fill(message)
}

// create makes the file, and the directories if need be.
func (v *delivery) create() error {
	err := v.enter()
	if err == nil {
		err = v.createFile()
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	if err := v.makeMaildir(); err != nil {
		return err
	}
	if err := v.enter(); err != nil {
		return err
	}
	return v.createFile()
}

// enter opens the Maildir, and its new.
func (v *delivery) enter() error {
	if v.box == nil {
		if err := v.openBox(); err != nil {
			return err
		}
	}
	if info, err := v.box.stat("cur"); err != nil || !info.IsDir() {
		return v.fail("open", "cur", firstError(err, syscall.ENOTDIR))
	}
	if v.inbox == nil {
		inbox, err := v.box.openDir("new")
		if err != nil {
			return v.fail("open", "new", err)
		}
		v.inbox = inbox
	}
	return nil
}

func (v *delivery) openBox() error {
	root, err := v.disk.open(v.to.Root)
	if err != nil {
		return &Error{"open", v.to.Root, err}
	}
	if v.to.Rel == "." {
		v.box = root
		return nil
	}
	defer root.Close()
	box, err := root.open(v.to.Rel)
	if err != nil {
		return v.fail("open", "", err)
	}
	v.box = box
	return nil
}

// createFile makes a file without a name where that is possible, else one in tmp.
func (v *delivery) createFile() error {
	perm := creationMode(v.to.FileMode, 0o666)
	v.stamp = v.drop.newStamp()
	if !v.drop.named.Load() {
		f, err := v.box.createUnnamed("tmp", perm)
		if err == nil {
			v.file, v.tmp = f, "tmp"
			return nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return v.fail("create", "tmp", err)
		}
	}
	for range maxNames {
		if err := v.proceed(); err != nil {
			return err
		}
		path := filepath.Join("tmp", v.stamp.tmpName())
		f, err := v.box.create(path, perm)
		if err == nil {
			v.file, v.named, v.tmp = f, true, path
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return v.fail("create", path, err)
		}
		v.stamp = v.drop.newStamp()
	}
	return v.fail("create", "tmp", fs.ErrExist)
}

// fill puts the content into the file.
func (v *delivery) fill(message io.Reader) error {
	info, err := v.file.Stat()
	if err != nil {
		return v.fail("stat", v.tmp, err)
	}
	v.id = identify(info)
	if !v.to.NoSync && v.id != (identity{}) {
		v.member = v.drop.groups.join(v.id.device, func() (volume, error) { return v.inbox.volume(v.id.device) })
	}
	mode := v.to.FileMode
	if mode != nil {
		if err := v.file.Chmod(fileMode(*mode)); err != nil {
			return v.fail("chmod", v.tmp, err)
		}
	}
	if err := v.copy(message); err != nil {
		return err
	}
	// Writing takes setuid and setgid away from a file (write(2) on Linux).
	if mode != nil && *mode&0o6000 != 0 {
		if err := v.file.Chmod(fileMode(*mode)); err != nil {
			return v.fail("chmod", v.tmp, err)
		}
	}
	return v.proceed()
}

// copy writes the message to the file piece by piece.
func (v *delivery) copy(message io.Reader) error {
	buffer, _ := v.drop.buffers.Get().(*[bufferSize]byte)
	if buffer == nil {
		buffer = new([bufferSize]byte)
	}
	defer v.drop.buffers.Put(buffer)
	for idle := 0; ; idle++ {
		if err := v.proceed(); err != nil {
			return err
		}
		n, err := message.Read(buffer[:])
		if n > 0 {
			idle = 0
			written, err := v.file.Write(buffer[:n])
			v.size += int64(written)
			if err != nil {
				return v.fail("write", v.tmp, err)
			}
		}
		if err == nil && idle == 100 {
			err = io.ErrNoProgress
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return v.fail("read the message for", "", err)
		}
	}
}

// publish gives the file its name in new.
func (v *delivery) publish() error {
	if err := v.closeNamed(); err != nil {
		return err
	}
	for range maxNames {
		if err := v.proceed(); err != nil {
			return err
		}
		name := v.stamp.newName(v.id, v.size)
		err := v.move(name)
		if err == nil || errors.Is(err, fs.ErrExist) && v.isOurs(name) {
			v.name = name
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return v.fail("link", filepath.Join("new", name), err)
		}
		v.stamp = v.drop.newStamp()
	}
	return v.fail("link", "new", fs.ErrExist)
}

// closeNamed closes a file that has a name: some file systems tell only then what went wrong, and some
// systems do not move a file that is open.
func (v *delivery) closeNamed() error {
	if !v.named {
		return nil
	}
	f := v.file
	v.file = nil
	return v.fail("close", v.tmp, f.Close())
}

// move gives the file the name in new, which must not exist.
func (v *delivery) move(name string) error {
	if !v.named {
		err := v.inbox.link(v.file, name)
		if err != nil && (noLinks(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			// Should it be that files without a name cannot get one here, the next try has one.
			v.drop.named.Store(true)
		}
		return err
	}
	path := filepath.Join("new", name)
	err := v.box.link(v.tmp, path)
	if err != nil && noLinks(err) {
		return v.box.rename(v.tmp, path)
	}
	return err
}

// noLinks recognises a file system that cannot link, or not from tmp to new. Should the error have
// meant something else, rename meets it too.
func noLinks(err error) bool {
	for _, errno := range []error{errors.ErrUnsupported, syscall.EPERM, syscall.EMLINK, syscall.EXDEV} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// isOurs reports whether the file of the name in new is the one in tmp. NFS repeats a link whose reply
// got lost, and then says that the name exists.
func (v *delivery) isOurs(name string) bool {
	if !v.named {
		return false
	}
	there, err := v.box.stat(filepath.Join("new", name))
	if err != nil {
		return false
	}
	here, err := v.box.stat(v.tmp)
	return err == nil && os.SameFile(here, there)
}
