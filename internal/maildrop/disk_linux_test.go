package maildrop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
		testReadOnlyDisk(t, dir)
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
	small, err := d.Store(t.Context(), dir, ".", text("small"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Store(t.Context(), dir, ".", text(strings.Repeat("x", 1<<20)))
	var failure *Error
	if !errors.As(err, &failure) || failure.Op != "write" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk says %v", err)
	}
	wantOne(t, dir, small, "small")
	if _, err := d.Store(t.Context(), filepath.Join(root, "other"), ".", text("fits again")); err != nil {
		t.Errorf("the failed message still takes room: %v", err)
	}
}

func testReadOnlyDisk(t *testing.T, root string) {
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	var d Drop
	for _, dir := range []string{"user", "new-user"} {
		if _, err := d.Store(t.Context(), filepath.Join(root, dir), ".", text("x")); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a read-only disk says %v for %s", err, dir)
		}
	}
}
