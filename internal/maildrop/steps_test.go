package maildrop

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestOrderOfSteps holds the package documentation's argument to its word.
func TestOrderOfSteps(t *testing.T) {
	dirMode, fileMode, privileged := uint32(0o2770), uint32(0o660), uint32(0o6755)
	file := []string{
		"create /m/u/tmp", "fstat /m/u/tmp", "fchmod /m/u/tmp", "write /m/u/tmp", "fsync /m/u/tmp", "close /m/u/tmp",
		"link /m/u/new", "sync /m/u/new", "remove /m/u/tmp",
	}
	for _, tt := range []struct {
		name              string
		dirMode, fileMode *uint32
		have              []string // directories that exist
		want              []string // without stat
	}{
		{"fresh", &dirMode, &fileMode, nil, append([]string{
			"sync /", // what holds the deepest directory there is
			"mkdir /m", "chmod /m", "sync /m", "sync ",
			"mkdir /m/u", "chmod /m/u", "sync /m/u", "sync /m",
			"mkdir /m/u/cur", "chmod /m/u/cur", "sync /m/u/cur",
			"mkdir /m/u/new", "chmod /m/u/new", "sync /m/u/new", "sync /m/u",
			"mkdir /m/u/tmp", "chmod /m/u/tmp", "sync /m/u/tmp", "sync /m/u",
		}, file...)},
		{"parent there", nil, &fileMode, []string{"m"}, append([]string{
			"sync ", "mkdir /m/u", "sync /m/u", "sync /m",
			"mkdir /m/u/cur", "sync /m/u/cur", "mkdir /m/u/new", "sync /m/u/new", "sync /m/u",
			"mkdir /m/u/tmp", "sync /m/u/tmp", "sync /m/u",
		}, file...)},
		{"tmp missing", nil, &fileMode, []string{"m/u/cur", "m/u/new"}, append([]string{
			"create /m/u/tmp", "sync /m", "mkdir /m/u/cur", "mkdir /m/u/new", "sync /m/u",
			"mkdir /m/u/tmp", "sync /m/u/tmp", "sync /m/u",
		}, file...)},
		{"all there", &dirMode, &fileMode, []string{"m/u/cur", "m/u/new", "m/u/tmp"}, file},
		{"no modes", nil, nil, []string{"m/u/cur", "m/u/new", "m/u/tmp"}, slices.Concat(file[:2], file[3:])},
		{"setuid", nil, &privileged, []string{"m/u/cur", "m/u/new", "m/u/tmp"},
			slices.Concat(file[:4], []string{"fchmod /m/u/tmp"}, file[4:])},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range tt.have {
				if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			disk := &scriptedDisk{root: root}
			d := Drop{disk: disk}
			to := Maildir{Root: filepath.Join(root, "m", "u"), DirMode: tt.dirMode, FileMode: tt.fileMode}
			if _, err := d.Store(t.Context(), to, text("hello")); err != nil {
				t.Fatal(err)
			}
			got := disk.steps()
			for i := range got {
				got[i] = strings.Replace(got[i], filepath.Dir(root), "/", 1)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestOrderOfStepsTogether: the same with files without a name, and in a group that one delivery has
// for itself and that others join.
func TestOrderOfStepsTogether(t *testing.T) {
	root := t.TempDir()
	makeMaildir(t, filepath.Join(root, "u"))
	disk := &scriptedDisk{root: root, unnamed: true, volumes: true}
	d := Drop{disk: disk}
	var wait sync.WaitGroup
	store := func(name string) {
		if _, err := d.Store(t.Context(), Maildir{Root: root, Rel: "u"}, text(name)); err != nil {
			t.Error(err)
		}
	}
	joined := 0
	disk.before = func(_ int, op, path string) error {
		if op == "fsync" && joined == 0 { // the first syncs by itself, and two come
			for range 2 {
				joined++
				wait.Go(func() { store("more") })
			}
			for waiting := 0; waiting < joined; {
				runtime.Gosched()
				d.groups.mu.Lock()
				for _, g := range d.groups.byDevice {
					g.mu.Lock()
					waiting = len(g.written)
					g.mu.Unlock()
				}
				d.groups.mu.Unlock()
			}
		}
		return nil
	}
	store("first")
	wait.Wait()
	if t.Failed() {
		return
	}
	began := []string{"create /u/tmp", "fstat /u/tmp", "open volume", "write /u/tmp", "fsync /u/tmp"}
	// What the two do before they wait may mix.
	want := []string{
		"link /u/new",                // the first's
		"syncfs ",                    // its link, and their contents
		"link /u/new", "link /u/new", // theirs
		"syncfs ",
	}
	got := slices.DeleteFunc(slices.Clone(disk.log), func(s string) bool {
		op, place, _ := strings.Cut(s, " ")
		return op == "stat" || op == "close" || op == "open" && place != "volume"
	})
	if !slices.Equal(got[:len(began)], began) {
		t.Errorf("began with %q, want %q", got, began)
	}
	if i := slices.Index(got, "link /u/new"); !slices.Equal(got[i:], want) {
		t.Errorf("went on with %q, want %q", got[i:], want)
	}
}

// attempt makes one delivery into a Maildir that is not there yet, with a hand in the disk.
func attempt(t *testing.T, ctx context.Context, disk *scriptedDisk) (dir, name string, err error) {
	t.Helper()
	disk.root = t.TempDir()
	dirMode, fileMode := uint32(0o770), uint32(0o660)
	d := Drop{disk: disk}
	dir = filepath.Join(disk.root, "m", "u")
	name, err = d.Store(ctx, Maildir{Root: dir, DirMode: &dirMode, FileMode: &fileMode}, text("hello"))
	return dir, name, err
}

// TestFailureAtEveryStep: whichever operation fails, the call says so and leaves nothing, or the
// message is there.
func TestFailureAtEveryStep(t *testing.T) {
	whole := &scriptedDisk{}
	if _, _, err := attempt(t, t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	for i, step := range whole.log {
		op, _, _ := strings.Cut(step, " ")
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EMFILE} {
			t.Run(step+" "+errno.Error(), func(t *testing.T) {
				disk := &scriptedDisk{before: func(index int, op, path string) error {
					if index == i {
						return &fs.PathError{Op: op, Path: path, Err: errno}
					}
					return nil
				}}
				dir, name, err := attempt(t, t.Context(), disk)
				switch {
				case op == "remove": // the name in tmp, once the message is durable in new
					if err != nil {
						t.Fatalf("gave up a delivered message: %v", err)
					}
					if found := files(t, filepath.Join(dir, "new")); len(found) != 1 || found[name] != "hello" {
						t.Errorf("new holds %q", found)
					}
				case err == nil && op == "stat": // asked again in another way
					wantOne(t, dir, name, "hello")
				default:
					var failure *Error
					if !errors.As(err, &failure) || !errors.Is(err, errno) || name != "" {
						t.Errorf("Store = %q, %v; want %v", name, err, errno)
					}
					wantEmpty(t, dir)
				}
			})
		}
	}
}

// TestContextEndsAtEveryStep: before the link the delivery is undone, from the link on it is done.
func TestContextEndsAtEveryStep(t *testing.T) {
	whole := &scriptedDisk{}
	if _, _, err := attempt(t, t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	linked := slices.IndexFunc(whole.log, func(s string) bool { return strings.HasPrefix(s, "link ") })
	for i, step := range whole.log {
		t.Run(step, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			disk := &scriptedDisk{before: func(index int, op, path string) error {
				if index == i {
					cancel()
				}
				return nil
			}}
			dir, name, err := attempt(t, ctx, disk)
			if i >= linked {
				if err != nil {
					t.Fatal(err)
				}
				wantOne(t, dir, name, "hello")
				return
			}
			if !errors.Is(err, context.Canceled) || name != "" {
				t.Errorf("Store = %q, %v", name, err)
			}
			wantEmpty(t, dir)
			// One step more may be on its way when the context ends; what follows is only tidying up.
			for _, op := range disk.log[i+1:] {
				if strings.HasPrefix(op, "link ") || strings.HasPrefix(op, "rename ") {
					t.Errorf("went on to %s", op)
				}
			}
		})
	}
}

func TestContextThatHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	disk := &scriptedDisk{}
	if _, _, err := attempt(t, ctx, disk); !errors.Is(err, context.Canceled) || len(disk.log) != 0 {
		t.Errorf("%v after %q", err, disk.log)
	}
}

// TestWithoutLinks: a file system that cannot link says so in various ways.
func TestWithoutLinks(t *testing.T) {
	for _, cause := range []error{errors.ErrUnsupported, syscall.EPERM, syscall.ENOSYS, syscall.EMLINK, syscall.EXDEV} {
		disk := &scriptedDisk{before: func(_ int, op, path string) error {
			if op == "link" {
				return &os.LinkError{Op: "link", New: path, Err: cause}
			}
			return nil
		}}
		dir, name, err := attempt(t, t.Context(), disk)
		if err != nil {
			t.Errorf("%v: %v", cause, err)
			continue
		}
		wantOne(t, dir, name, "hello")
		var order []string
		for _, step := range disk.log {
			if op, place, _ := strings.Cut(step, " "); strings.HasSuffix(place, "/new") && (op == "rename" || op == "sync") {
				order = append(order, op)
			}
		}
		if !slices.Equal(order, []string{"sync", "rename", "sync"}) { // the first is of the new directory
			t.Errorf("%v: %q", cause, disk.log)
		}
	}
	// Where not even that is possible, nothing stays.
	disk := &scriptedDisk{before: func(_ int, op, path string) error {
		if op == "link" || op == "rename" {
			return &os.LinkError{Op: op, New: path, Err: syscall.EPERM}
		}
		return nil
	}}
	dir, _, err := attempt(t, t.Context(), disk)
	if !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
	wantEmpty(t, dir)
}

// TestParentThatCannotBeOpened: the directory above the ones we make need not be readable.
func TestParentThatCannotBeOpened(t *testing.T) {
	root := ""
	disk := &scriptedDisk{}
	disk.before = func(_ int, op, path string) error {
		root = filepath.Dir(disk.root)
		if op == "sync" && path == root {
			return &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
		}
		return nil
	}
	dir, name, err := attempt(t, t.Context(), disk)
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, dir, name, "hello")
}

// TestModeThatCannotBeSet: a directory with another mode than asked for would be taken for one that
// somebody else had made.
func TestModeThatCannotBeSet(t *testing.T) {
	disk := &scriptedDisk{before: func(_ int, op, path string) error {
		if op == "chmod" {
			return &fs.PathError{Op: op, Path: path, Err: syscall.EPERM}
		}
		return nil
	}}
	if _, _, err := attempt(t, t.Context(), disk); !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
	if left, err := os.ReadDir(disk.root); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
