//go:build interop && linux

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long the tests wait for another process before they call it an error.
const patience = 20 * time.Second

// poll is how often they look.
const poll = 10 * time.Millisecond

// eventually waits until ok says yes: other processes tell nobody when they are ready.
func eventually(what string, ok func() bool) error {
	for end := time.Now().Add(patience); !ok(); time.Sleep(poll) {
		if time.Now().After(end) {
			return fmt.Errorf("after %s still waiting for %s", patience, what)
		}
	}
	return nil
}

// mustSee is eventually for tests.
func mustSee(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := eventually(what, ok); err != nil {
		t.Fatal(err)
	}
}

// process is a server that a test started: the leader of a process group of its own.
type process struct {
	cmd    *exec.Cmd
	output string // the file that it writes to
	exited chan struct{}
	stop   func() error // ends the server; the first call counts
}

// launch starts a server as the given user (nil: as root) with its output in a file. The keeper stops
// it if nobody else does.
func launch(as *syscall.Credential, output string, argv ...string) (*process, error) {
	out, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), output: output, exited: make(chan struct{})}
	p.cmd.Dir = "/" // ours may be closed to the user that the server becomes
	p.stop = sync.OnceValue(p.end)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lab.keeper.watch(p.cmd.Process.Pid)
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// serve starts a server for one test, as the user nobody, and waits until it listens on a port.
func serve(t *testing.T, port int, argv ...string) *process {
	t.Helper()
	nobody, err := account("nobody")
	if err != nil {
		t.Fatal(err)
	}
	p, err := launch(nobody, filepath.Join(t.TempDir(), "output"), argv...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := p.listens(port); err != nil {
		t.Fatalf("%v\n%s", err, p.said(t))
	}
	return p
}

// said is what the server has written so far.
func (p *process) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.output)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// listens waits until the server listens on a port. It makes no connection, because servers count
// them. The port was free before, so it is the server's.
func (p *process) listens(port int) error {
	err := eventually(fmt.Sprintf("%s to listen on port %d", p.cmd.Path, port), func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return sockets(port)["LISTEN"] > 0
		}
	})
	if err == nil && sockets(port)["LISTEN"] == 0 {
		err = fmt.Errorf("%s: %s", p.cmd, p.cmd.ProcessState)
	}
	return err
}

// end ends the server.
func (p *process) end() error {
	if err := endGroup(p.cmd.Process.Pid); err != nil {
		return err
	}
	<-p.exited
	lab.keeper.forget(p.cmd.Process.Pid)
	return nil
}

// account finds a user of the system to run something as.
func account(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
