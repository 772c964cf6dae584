package delivery

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountedHere says that this process is the one in a mount namespace of its own.
const mountedHere = "DELIVERY_TEST_NAMESPACE"

// A disk that is really full, and one that is read-only, are the trouble of those recipients whose Maildirs are there,
// and of nobody else. The disks are mounted in a child process whose mounts nobody else sees.
func TestFullAndReadOnlyDisks(t *testing.T) {
	if root := os.Getenv(mountedHere); root != "" {
		testFullAndReadOnlyDisks(t, root)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestFullAndReadOnlyDisks$", "-test.v")
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

func testFullAndReadOnlyDisks(t *testing.T, root string) {
	for _, disk := range []string{"full", "readonly"} {
		if err := os.Mkdir(filepath.Join(root, disk), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", filepath.Join(root, disk), "tmpfs", 0, "size=256k"); err != nil {
			t.Skipf("no mounts here: %v", err)
		}
	}
	if err := syscall.Mount("", filepath.Join(root, "readonly"), "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ domain_part }}/{{ local_part }}")+`}}`)
	content := "Subject: large\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 6<<10)
	first := messageTo("first@full")
	first.Body = Bytes(content)
	if r := p.Deliver(t.Context(), first).Results[0]; r.Status != Delivered {
		t.Fatalf("%+v", r)
	}
	var rcpts []string
	for i := range 8 {
		for _, disk := range []string{"full", "readonly", "sound"} {
			rcpts = append(rcpts, fmt.Sprintf("user%d@%s", i, disk))
		}
	}
	msg := messageTo(rcpts...)
	msg.Body = Bytes(content)
	delivered := map[string]int{}
	for _, r := range p.Deliver(t.Context(), msg).Results {
		_, disk, _ := strings.Cut(r.Recipient, "@")
		if r.Status == Delivered {
			delivered[disk]++
			continue
		}
		want, errno := EnhancedCode{4, 3, 1}, syscall.ENOSPC
		if disk == "readonly" {
			want, errno = EnhancedCode{4, 3, 2}, syscall.EROFS
		}
		if r.Status != Transient || r.Response.Code != 400 || r.Response.Enhanced != want || r.RetryAfter != time.Minute || !errors.Is(r.Err, errno) ||
			!strings.HasPrefix(r.Response.Text, r.Recipient+": failed to write to maildir: ") || r.MaybeDelivered {
			t.Errorf("%+v", r)
		}
	}
	if delivered["sound"] != 8 || delivered["readonly"] != 0 || delivered["full"] == 8 {
		t.Errorf("delivered: %v", delivered)
	}
	found := 0
	for _, name := range tree(t, filepath.Join(root, "full")) {
		path := filepath.Join(root, "full", name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			continue
		}
		if got, err := os.ReadFile(path); string(got) != content || filepath.Base(filepath.Dir(path)) != "new" {
			t.Errorf("%s holds %d bytes, %v", name, len(got), err)
		}
		found++
	}
	if want := 1 + delivered["full"]; found != want {
		t.Errorf("%d found, %d reported", found, want)
	}
}
