package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// meeting is a body whose readers open only once so many are opening it.
type meeting struct {
	Bytes
	wanted int64
	came   *atomic.Int64
	all    chan struct{}
}

func (m meeting) Open() (io.ReadCloser, error) {
	if m.came.Add(1) == m.wanted {
		close(m.all)
	}
	<-m.all
	return m.Bytes.Open()
}

// The copies of one message are under way at the same time: it would not end otherwise.
func TestCopiesAreMadeTogether(t *testing.T) {
	const recipients = 16
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ local_part }}")+`}}`)
	var rcpts []string
	for i := range recipients {
		rcpts = append(rcpts, fmt.Sprintf("user%d@example.com", i/2)) // each twice
	}
	msg := messageTo(rcpts...)
	msg.Body = meeting{msg.Body.(Bytes), recipients, new(atomic.Int64), make(chan struct{})}
	ids := map[string]bool{}
	for i, r := range p.Deliver(t.Context(), msg).Results {
		if r.Status != Delivered || r.Recipient != rcpts[i] || !strings.HasPrefix(r.Response.Text, rcpts[i]+": wrote to maildir with id=") {
			t.Errorf("%d: %+v", i, r)
		}
		ids[r.Response.Text] = true
	}
	if len(ids) != recipients {
		t.Errorf("%d different ids", len(ids))
	}
	for i := range recipients / 2 {
		files, err := os.ReadDir(filepath.Join(root, fmt.Sprintf("user%d", i), "new"))
		if err != nil || len(files) != 2 {
			t.Errorf("user%d: %d files, %v", i, len(files), err)
		}
	}
}

// startling is a body that panics.
type startling struct{ Bytes }

func (startling) Open() (io.ReadCloser, error) { panic("no such spool") }

// What a host's body panics with reaches the one who called Deliver, as it does in the other protocols, and all else
// goes on.
func TestPanicOfABodyReachesTheCaller(t *testing.T) {
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ local_part }}")+`}}`)
	for _, rcpts := range [][]string{{"a@example.com"}, {"a@example.com", "b@example.com", "c@example.com"}} {
		msg := messageTo(rcpts...)
		sound := msg.Body
		msg.Body = startling{}
		func() {
			defer func() {
				if got := recover(); got != "no such spool" {
					t.Errorf("recovered %v", got)
				}
			}()
			p.Deliver(t.Context(), msg)
			t.Error("Deliver returned")
		}()
		msg.Body = sound
		for _, r := range p.Deliver(t.Context(), msg).Results {
			if r.Status != Delivered {
				t.Errorf("afterwards: %+v", r)
			}
		}
	}
}

// ending is a body that ends its reader's context while it is read.
type ending struct {
	Bytes
	end context.CancelCauseFunc
}

var errEnough = errors.New("enough")

func (e ending) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("Subject: "), endingReader{e.end})), nil
}

type endingReader struct{ end context.CancelCauseFunc }

func (r endingReader) Read(p []byte) (int, error) { r.end(errEnough); return copy(p, "half"), nil }

// A delivery that is cancelled has sent nothing and leaves nothing.
func TestCancelledDeliveryLeavesNothing(t *testing.T) {
	for _, noSync := range []string{"false", "true"} {
		root := t.TempDir()
		p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ local_part }}")+`, "no_sync": `+noSync+`}}`)
		ctx, cancel := context.WithCancelCause(t.Context())
		msg := messageTo("a@example.com", "b@example.com", "a@example.com")
		msg.Body = ending{Bytes("Subject: half of a message"), cancel}
		for _, r := range p.Deliver(ctx, msg).Results {
			if r.Status != Unsent || !errors.Is(r.Err, errEnough) || r.MaybeDelivered || r.Session != nil {
				t.Errorf("%+v", r)
			}
		}
		wantNoFiles(t, root)
	}
}

// wantNoFiles fails if there is anything but directories below root.
func wantNoFiles(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// no_sync is for this config alone, and what is stored is the same.
func TestNoSync(t *testing.T) {
	root := t.TempDir()
	rt := newRuntime(t)
	for _, option := range []string{`, "no_sync": true`, ``} {
		p := protocolOf(t, rt, `{"protocol": {"maildir_path": `+mustJSON(root)+option+`}}`)
		if r := p.Deliver(t.Context(), messageTo("a@example.com")).Results[0]; r.Status != Delivered {
			t.Errorf("%+v", r)
		}
	}
	if files, err := os.ReadDir(filepath.Join(root, "new")); err != nil || len(files) != 2 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestDiskStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want EnhancedCode
	}{
		{syscall.ENOSPC, EnhancedCode{4, 3, 1}},
		{syscall.EDQUOT, EnhancedCode{4, 2, 2}},
		{syscall.EACCES, EnhancedCode{4, 3, 5}},
		{syscall.EPERM, EnhancedCode{4, 3, 5}},
		{syscall.EROFS, EnhancedCode{4, 3, 2}},
		{syscall.ENOENT, EnhancedCode{4, 3, 5}},
		{syscall.ENOTDIR, EnhancedCode{4, 3, 5}},
		{syscall.ELOOP, EnhancedCode{4, 3, 5}},
		{syscall.ENAMETOOLONG, EnhancedCode{4, 3, 5}},
		{syscall.EMFILE, EnhancedCode{4, 3, 2}},
		{syscall.ENFILE, EnhancedCode{4, 3, 2}},
		{syscall.EIO, EnhancedCode{4, 3, 0}},
		{errBodySize, EnhancedCode{4, 3, 0}},
	} {
		err := fmt.Errorf("write: %w", &fs.PathError{Op: "write", Path: "/mail", Err: test.err})
		if got := diskStatus(err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

func TestTogether(t *testing.T) {
	for _, workers := range []int{0, 1, 3, 100} {
		var mu sync.Mutex
		var did []int
		together(workers, 50, func(i int) {
			mu.Lock()
			defer mu.Unlock()
			did = append(did, i)
		})
		slices.Sort(did)
		if len(did) != 50 || did[0] != 0 || len(slices.Compact(did)) != 50 {
			t.Errorf("%d workers did %v", workers, did)
		}
	}
}
