package maildrop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// mountedHere says that this process is the one in a mount namespace of its own.
const mountedHere = "MAILDROP_TEST_NAMESPACE"

// TestRealDiskErrors fills a small file system and makes it read-only, in a child process whose mounts
// nobody else sees.
func TestRealDiskErrors(t *testing.T) {
	if dir := os.Getenv(mountedHere); dir != "" {
		testFullDisk(t, dir)
		testFullDiskTogether(t, dir)
		testReadOnlyDisk(t, dir)
		testTwoDisks(t)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestRealDiskErrors$", "-test.v")
	child.Env = append(os.Environ(), mountedHere+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	output, err := child.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("no namespaces here: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, output)
	case strings.Contains(string(output), "--- SKIP"):
		t.Skipf("%s", output)
	}
}

func testFullDisk(t *testing.T, root string) {
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no mounts here: %v", err)
	}
	dir := filepath.Join(root, "user")
	var d Drop
	small, err := d.Store(t.Context(), Maildir{Root: dir}, text("small"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Store(t.Context(), Maildir{Root: dir}, text(strings.Repeat("x", 1<<20)))
	var failure *Error
	if !errors.As(err, &failure) || failure.Op != "write" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk says %v", err)
	}
	wantOne(t, dir, small, "small")
	if _, err := d.Store(t.Context(), Maildir{Root: filepath.Join(root, "other")}, text("fits again")); err != nil {
		t.Errorf("the failed message still takes room: %v", err)
	}
}

// testFullDiskTogether fills what is left with simultaneous deliveries, into Maildirs that are not all
// there.
func testFullDiskTogether(t *testing.T, root string) {
	const callers = 100
	for _, named := range []bool{false, true} {
		var d Drop
		d.named.Store(named)
		message := strings.Repeat("0123456789abcde\n", 512)
		errs := make([]error, callers)
		var wait sync.WaitGroup
		for i := range callers {
			wait.Go(func() {
				_, errs[i] = d.Store(t.Context(), Maildir{Root: root, Rel: filepath.Join("many", strconv.Itoa(i%4))}, text(message))
			})
		}
		wait.Wait()
		delivered := 0
		for _, err := range errs {
			if err == nil {
				delivered++
			} else if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("a full disk says %v", err)
			}
		}
		found := 0
		for i := range 4 {
			dir := filepath.Join(root, "many", strconv.Itoa(i))
			for name, content := range files(t, filepath.Join(dir, "new")) {
				found++
				if content != message {
					t.Errorf("%s is %d bytes", name, len(content))
				}
			}
			if left := files(t, filepath.Join(dir, "tmp")); len(left) != 0 {
				t.Errorf("%d left in tmp", len(left))
			}
		}
		if found != delivered || delivered == 0 || delivered == callers {
			t.Errorf("%d of %d delivered, %d found", delivered, callers, found)
		}
		if err := os.RemoveAll(filepath.Join(root, "many")); err != nil {
			t.Fatal(err)
		}
	}
}

func testReadOnlyDisk(t *testing.T, root string) {
	shared, err := volumeOf(root, deviceOf(t, root))
	if err != nil {
		t.Skip(err) // an old kernel
	}
	defer shared.Close()
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := shared.sync(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("the sync of a disk that has become read-only says %v", err)
	}
	var d Drop
	for _, dir := range []string{"user", "new-user"} {
		if _, err := d.Store(t.Context(), Maildir{Root: filepath.Join(root, dir)}, text("x")); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a read-only disk says %v for %s", err, dir)
		}
	}
}

// testTwoDisks: a Maildir whose new is on another disk than its tmp must not decide what the deliveries
// to the disk of its tmp sync.
func testTwoDisks(t *testing.T) {
	dir := makeMaildir(t, filepath.Join(t.TempDir(), "user"))
	if err := syscall.Mount("tmpfs", filepath.Join(dir, "new"), "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(filepath.Join(dir, "new"), 0)
	other := deviceOf(t, filepath.Join(dir, "tmp"))
	if v, err := volumeOf(filepath.Join(dir, "new"), other); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("opened %v, %v for the disk of tmp", v, err)
	}
}

func volumeOf(path string, device uint64) (volume, error) {
	top, err := osDisk{}.open(path)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	dir, err := top.openDir(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.volume(device)
}

func deviceOf(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return identify(info).device
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"5.8.0": true, "5.7.19-generic": false, "5.10": true, "6.1.0-18-amd64": true, "4.19.0": false,
		"5.8-rc1": true, "10.0": true, "": false, "x.y": false, "5": false, "5.": false, "6": true,
	} {
		if got := atLeast(release, 5, 8); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

// TestWithoutUnnamed: where /proc is not there, or a file without a name cannot get one, the next
// delivery makes one that has one.
func TestWithoutUnnamed(t *testing.T) {
	dir := makeMaildir(t, t.TempDir())
	failed := false
	disk := &scriptedDisk{unnamed: true, before: func(_ int, op, path string) error {
		if op == "link" && !failed {
			failed = true
			return &os.LinkError{Op: op, New: path, Err: syscall.ENOENT}
		}
		return nil
	}}
	d := Drop{disk: disk}
	if _, err := d.Store(t.Context(), Maildir{Root: dir}, text("x")); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	wantEmpty(t, dir)
	name, err := d.Store(t.Context(), Maildir{Root: dir}, text("x"))
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, dir, name, "x")
	if disk.unnamed = false; !d.named.Load() {
		t.Error("it would try again")
	}
}
