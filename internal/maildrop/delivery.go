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
	drop  *Drop
	disk  disk
	dir   string
	stamp stamp
	tmp   string // the path in tmp, once the file is there
}

// store is the order of steps that the package documentation argues about.
func (v *delivery) store(ctx context.Context, message io.Reader) (name string, err error) {
	f, err := v.create(ctx)
	if err != nil {
		return "", err
	}
	// Delivered or not, nothing stays in tmp. A delivered message is not given up for a name that
	// cannot be removed.
	defer func() { _ = v.disk.remove(v.tmp) }()
	id, err := v.fill(ctx, f, message)
	if err != nil {
		return "", err
	}
	return v.publish(ctx, id)
}

// proceed fails once the context has ended.
func (v *delivery) proceed(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &Error{"deliver to", v.dir, err}
	}
	return nil
}

// create makes the file in tmp, and the directories if need be.
func (v *delivery) create(ctx context.Context) (file, error) {
	made := false
	if !v.isDir("cur") || !v.isDir("new") {
		if err := v.makeMaildir(ctx); err != nil {
			return nil, err
		}
		made = true
	}
	for range maxNames {
		if err := v.proceed(ctx); err != nil {
			return nil, err
		}
		v.stamp = v.drop.newStamp()
		path := filepath.Join(v.dir, "tmp", v.stamp.tmpName())
		f, err := v.disk.create(path, creationMode(v.drop.FileMode, 0o666))
		switch {
		case err == nil:
			v.tmp = path
			return f, nil
		case errors.Is(err, fs.ErrNotExist) && !made:
			if err := v.makeMaildir(ctx); err != nil {
				return nil, err
			}
			made = true
		case !errors.Is(err, fs.ErrExist):
			return nil, &Error{"create", path, err}
		}
	}
	return nil, &Error{"create", filepath.Join(v.dir, "tmp"), fs.ErrExist}
}

// fill puts the content into the file, durably, and closes it in any case.
func (v *delivery) fill(ctx context.Context, f file, message io.Reader) (identity, error) {
	id, err := v.fillOpen(ctx, f, message)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = &Error{"close", v.tmp, closeErr}
	}
	return id, err
}

func (v *delivery) fillOpen(ctx context.Context, f file, message io.Reader) (id identity, err error) {
	mode := v.drop.FileMode
	if mode != nil {
		if err := f.Chmod(fileMode(*mode)); err != nil {
			return id, &Error{"chmod", v.tmp, err}
		}
	}
	if err := v.copy(ctx, f, message); err != nil {
		return id, err
	}
	// Writing takes setuid and setgid away from a file (write(2) on Linux).
	if mode != nil && *mode&0o6000 != 0 {
		if err := f.Chmod(fileMode(*mode)); err != nil {
			return id, &Error{"chmod", v.tmp, err}
		}
	}
	if err := v.proceed(ctx); err != nil {
		return id, err
	}
	if err := f.Sync(); err != nil {
		return id, &Error{"sync", v.tmp, err}
	}
	info, err := f.Stat()
	if err != nil {
		return id, &Error{"stat", v.tmp, err}
	}
	return identify(info), nil
}

// copy writes the message to f piece by piece.
func (v *delivery) copy(ctx context.Context, f file, message io.Reader) error {
	buffer, _ := v.drop.buffers.Get().(*[bufferSize]byte)
	if buffer == nil {
		buffer = new([bufferSize]byte)
	}
	defer v.drop.buffers.Put(buffer)
	for idle := 0; ; idle++ {
		if err := v.proceed(ctx); err != nil {
			return err
		}
		n, err := message.Read(buffer[:])
		if n > 0 {
			idle = 0
			if _, err := f.Write(buffer[:n]); err != nil {
				return &Error{"write", v.tmp, err}
			}
		}
		if err == nil && idle == 100 {
			err = io.ErrNoProgress
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return &Error{"read the message for", v.dir, err}
		}
	}
}

// publish moves the file into new and makes that durable.
func (v *delivery) publish(ctx context.Context, id identity) (name string, err error) {
	dir := filepath.Join(v.dir, "new")
	for range maxNames {
		if err := v.proceed(ctx); err != nil {
			return "", err
		}
		name := v.stamp.newName(id)
		path := filepath.Join(dir, name)
		err := v.move(path)
		if errors.Is(err, fs.ErrExist) && !v.isOurs(path) {
			v.stamp = v.drop.newStamp()
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", &Error{"link", path, err}
		}
		if err := v.disk.syncDir(dir); err != nil {
			_ = v.disk.remove(path)
			return "", &Error{"sync", dir, err}
		}
		return name, nil
	}
	return "", &Error{"link", dir, fs.ErrExist}
}

// move gives the file in tmp the path in new, which must not exist.
func (v *delivery) move(path string) error {
	err := v.disk.link(v.tmp, path)
	if err != nil && noLinks(err) {
		return v.disk.rename(v.tmp, path)
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

// isOurs reports whether the file at path is the one in tmp. NFS repeats a link whose reply got lost,
// and then says that the name exists.
func (v *delivery) isOurs(path string) bool {
	there, err := v.disk.stat(path)
	if err != nil {
		return false
	}
	here, err := v.disk.stat(v.tmp)
	return err == nil && os.SameFile(here, there)
}
