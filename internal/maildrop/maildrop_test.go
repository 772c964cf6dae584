package maildrop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-maildir"
)

func TestStore(t *testing.T) {
	for name, content := range map[string]string{
		"empty":      "",
		"CRLF":       "Subject: x\r\n\r\nhello\r\n.\r\n..\r\nFrom here\r\n",
		"LF":         "Subject: x\n\nhello\n",
		"binary":     "\x00\xff\r\r\n\n\r",
		"no newline": "x",
		"one buffer": strings.Repeat("x", bufferSize),
		"buffers":    strings.Repeat("0123456789", bufferSize),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b", "user")
			var d Drop
			id, err := d.Store(t.Context(), Maildir{Root: dir}, text(content))
			if err != nil {
				t.Fatal(err)
			}
			wantOne(t, dir, id, content)
			if want := fmt.Sprintf(",S=%d", len(content)); !strings.HasSuffix(id, want) {
				t.Errorf("the name is %q, want it to end in %q", id, want)
			}
		})
	}
}

func TestAnotherReaderFindsTheMessages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "user")
	var d Drop
	want := map[string]string{}
	for i := range 3 {
		content := fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i)
		name, err := d.Store(t.Context(), Maildir{Root: dir}, text(content))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = content
	}
	got := map[string]string{}
	unseen, err := maildir.Dir(dir).Unseen()
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range unseen {
		r, err := message.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		got[message.Key()] = string(content)
	}
	if !maps.Equal(got, want) {
		t.Errorf("go-maildir reads %q, want %q", got, want)
	}
	if seen, err := maildir.Dir(dir).Messages(); err != nil || len(seen) != len(want) {
		t.Errorf("Messages() = %d, %v", len(seen), err)
	}
}

func TestName(t *testing.T) {
	for _, tt := range []struct{ host, want string }{
		{"mx.example.com", `mx\.example\.com`},
		{"a/b:c", `a\\057b\\072c`},
		{"a,S=1 \n", `a\\054S\\0751\\040\\012`},
		{strings.Repeat("h", 300), "h{100}"},
	} {
		dir := t.TempDir()
		var inTmp string
		clock := time.Unix(1700000000, 987654321)
		d := Drop{Hostname: tt.host, now: func() time.Time { return clock }}
		d.counter.Store(254)
		d.disk = &scriptedDisk{before: func(_ int, op, path string) error {
			if op == "create" && inTmp == "" {
				inTmp = filepath.Base(path)
				return &fs.PathError{Op: "open", Path: path, Err: fs.ErrExist} // so that another name is tried
			}
			return nil
		}}
		name, err := d.Store(t.Context(), Maildir{Root: dir}, text("hello"))
		if err != nil {
			t.Fatal(err)
		}
		pid := os.Getpid()
		want := fmt.Sprintf(`^1700000000\.#ffM987654321P%d\.%s$`, pid, tt.want)
		if !regexp.MustCompile(want).MatchString(inTmp) {
			t.Errorf("in tmp %q, want %s", inTmp, want)
		}
		place := ""
		if runtime.GOOS != "windows" {
			place = `V\d+I\d+`
		}
		want = fmt.Sprintf(`^1700000000\.#100M987654321P%d%s\.%s,S=5$`, pid, place, tt.want)
		if !regexp.MustCompile(want).MatchString(name) {
			t.Errorf("in new %q, want %s", name, want)
		}
	}
}

func TestHostnameOfTheSystem(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	var d Drop
	id, err := d.Store(t.Context(), Maildir{Root: t.TempDir()}, text(""))
	if err != nil || !strings.Contains(id, "."+sanitizeHost(name)+",S=") {
		t.Errorf("%q, %v: no host %q in it", id, err, name)
	}
}

// TestSimultaneous: many goroutines and two Drops that count alike, into one Maildir that is not
// there yet.
func TestSimultaneous(t *testing.T) {
	const messages, workers = 200, 16
	dir := filepath.Join(t.TempDir(), "deep", "er", "user")
	clock := time.Unix(1700000000, 0)
	drops := [2]Drop{}
	for i := range drops {
		drops[i].now = func() time.Time { return clock } // stands still
	}
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("message %d\r\n", i), i) }
	work := make(chan int)
	names := make([]string, messages)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for i := range work {
				name, err := drops[i%2].Store(context.Background(), Maildir{Root: dir}, text(content(i)))
				if err != nil {
					t.Error(err)
				}
				names[i] = name
			}
		})
	}
	for i := range messages {
		work <- i
	}
	close(work)
	wait.Wait()
	found := files(t, filepath.Join(dir, "new"))
	if len(found) != messages {
		t.Errorf("new holds %d messages, want %d", len(found), messages)
	}
	for i, name := range names {
		if found[name] != content(i) {
			t.Errorf("message %d is not what is in %q", i, name)
		}
	}
	if left := files(t, filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Errorf("tmp holds %q", left)
	}
}

func TestContentThatFails(t *testing.T) {
	broken := errors.New("spool is gone")
	partly := func(s string, err error) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(s), readerFunc(func([]byte) (int, error) { return 0, err }))), nil
		}
	}
	for name, content := range map[string]func() (io.ReadCloser, error){
		"open":       func() (io.ReadCloser, error) { return nil, broken },
		"at once":    partly("", broken),
		"halfway":    partly(strings.Repeat("x", bufferSize+10), broken),
		"truncated":  partly("x", io.ErrUnexpectedEOF),
		"no advance": partly("x", nil),
	} {
		dir := makeMaildir(t, t.TempDir())
		var d Drop
		id, err := d.Store(t.Context(), Maildir{Root: dir}, content)
		var failure *Error
		if id != "" || !errors.As(err, &failure) || failure.Path != dir {
			t.Errorf("%s: %q, %v", name, id, err)
		}
		if !errors.Is(err, broken) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%s: %v hides the cause", name, err)
		}
		wantEmpty(t, dir)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type closeRecorder struct {
	io.Reader
	closed int
}

func (c *closeRecorder) Close() error { c.closed++; return nil }

func TestContentIsOpenedOnceAndClosed(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		dir    string
		opened int
	}{
		{"delivered", t.Context(), t.TempDir(), 1},
		{"failed", t.Context(), filepath.Join(file, "x"), 1},
		{"cancelled", ended, t.TempDir(), 0},
		{"bad path", t.Context(), "relative", 0},
	} {
		var d Drop
		body, opened := &closeRecorder{Reader: strings.NewReader("x")}, 0
		_, _ = d.Store(tt.ctx, Maildir{Root: tt.dir}, func() (io.ReadCloser, error) { opened++; return body, nil })
		if opened != tt.opened || body.closed != tt.opened {
			t.Errorf("%s: opened %d times, closed %d times, want %d", tt.name, opened, body.closed, tt.opened)
		}
	}
}

// TestLargeMessageIsStreamed: 32 MiB pass through without being in memory together.
func TestLargeMessageIsStreamed(t *testing.T) {
	const size = 32 << 20
	dir := t.TempDir()
	var d Drop
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	name, err := d.Store(t.Context(), Maildir{Root: dir}, func() (io.ReadCloser, error) { return io.NopCloser(&endless{size}), nil })
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("took %d bytes of memory", used)
	}
	info, err := os.Stat(filepath.Join(dir, "new", name))
	if err != nil || info.Size() != size || !strings.HasSuffix(name, fmt.Sprintf(",S=%d", size)) {
		t.Errorf("%q: %v, %v", name, info, err)
	}
}

func TestPathsAndModesThatAreRefused(t *testing.T) {
	absolute := t.TempDir()
	tooMuch := uint32(0o10000)
	for _, tt := range []struct {
		name string
		to   Maildir
		path string // in the error
	}{
		{"empty", Maildir{}, ""},
		{"relative", Maildir{Root: "mail/user"}, "mail/user"},
		{"climbing", Maildir{Root: absolute + "/a/../../user"}, absolute + "/a/../../user"},
		{"dot", Maildir{Root: absolute + "/./user"}, absolute + "/./user"},
		{"double slash", Maildir{Root: absolute + "//user"}, absolute + "//user"},
		{"slash at the end", Maildir{Root: absolute + "/user/"}, absolute + "/user/"},
		{"below, absolute", Maildir{Root: absolute, Rel: "/user"}, "/user"},
		{"below, climbing", Maildir{Root: absolute, Rel: "../user"}, "../user"},
		{"below, not clean", Maildir{Root: absolute, Rel: "a/./user"}, "a/./user"},
		{"directory mode", Maildir{Root: absolute, Rel: "user", DirMode: &tooMuch}, absolute + "/user"},
		{"file mode", Maildir{Root: absolute, Rel: "user", FileMode: &tooMuch}, absolute + "/user"},
	} {
		var d Drop
		_, err := d.Store(t.Context(), tt.to, text("x"))
		var failure *Error
		if !errors.As(err, &failure) || failure.Path != tt.path || !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if left, err := os.ReadDir(absolute); err != nil || len(left) != 0 {
		t.Errorf("created %v, %v", left, err)
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  *Error
		want string
	}{
		{&Error{"mkdir", "/a", &fs.PathError{Op: "mkdir", Path: "/a", Err: fs.ErrPermission}}, `mkdir "/a": permission denied`},
		{&Error{"link", "/b", &os.LinkError{Op: "link", Old: "/a", New: "/b", Err: fs.ErrExist}}, `link "/b": file already exists`},
		{&Error{"open the message for", "/a", &fs.PathError{Op: "open", Path: "/spool/1", Err: fs.ErrNotExist}}, `open the message for "/a": open /spool/1: file does not exist`},
		{&Error{"stat", "/a\n\x1b", fs.ErrInvalid}, `stat "/a\n\x1b": invalid argument`},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestNamesInUseAreNotTouched(t *testing.T) {
	clock := time.Unix(1700000000, 5)
	newDrop := func(disk disk) *Drop {
		d := &Drop{Hostname: "mx", now: func() time.Time { return clock }, disk: disk}
		d.startOnce.Do(d.start)
		return d
	}
	t.Run("tmp", func(t *testing.T) {
		dir := makeMaildir(t, t.TempDir())
		taken := filepath.Join(dir, "tmp", newDrop(&scriptedDisk{}).newStamp().tmpName())
		if err := os.WriteFile(taken, []byte("another's"), 0o600); err != nil {
			t.Fatal(err)
		}
		name, err := newDrop(&scriptedDisk{}).Store(t.Context(), Maildir{Root: dir}, text("ours"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(taken); string(got) != "another's" {
			t.Errorf("the file in tmp is now %q, %v", got, err)
		}
		if got := files(t, filepath.Join(dir, "new")); len(got) != 1 || got[name] != "ours" {
			t.Errorf("new holds %q", got)
		}
	})
	for _, links := range []bool{true, false} {
		t.Run(fmt.Sprintf("new, links %v", links), func(t *testing.T) {
			dir := makeMaildir(t, t.TempDir())
			var taken string
			disk := &scriptedDisk{before: func(_ int, op, path string) error {
				if (op == "link") == links && (op == "link" || op == "rename") && taken == "" {
					taken = filepath.Base(path)
					return os.WriteFile(path, []byte("another's"), 0o600)
				}
				if op == "link" && !links {
					return &os.LinkError{Op: "link", New: path, Err: errors.ErrUnsupported}
				}
				return nil
			}}
			name, err := newDrop(disk).Store(t.Context(), Maildir{Root: dir}, text("ours"))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{taken: "another's", name: "ours"}
			if got := files(t, filepath.Join(dir, "new")); len(want) != 2 || !maps.Equal(got, want) {
				t.Errorf("new holds %q, want %q", got, want)
			}
			if left := files(t, filepath.Join(dir, "tmp")); len(left) != 0 {
				t.Errorf("tmp holds %q", left)
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		for _, full := range []string{"create", "link"} {
			dir := makeMaildir(t, t.TempDir())
			tries := 0
			disk := &scriptedDisk{before: func(_ int, op, path string) error {
				if op == full {
					tries++
					return &fs.PathError{Op: op, Path: path, Err: fs.ErrExist}
				}
				return nil
			}}
			_, err := newDrop(disk).Store(t.Context(), Maildir{Root: dir}, text("x"))
			if !errors.Is(err, fs.ErrExist) || tries != maxNames {
				t.Errorf("%s: %v after %d tries", full, err, tries)
			}
			wantEmpty(t, dir)
		}
	})
}

// TestRenameIfAbsent covers the last resort, which the file systems at hand do not need.
func TestRenameIfAbsent(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for path, content := range map[string]string{a: "a", b: "b"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := renameIfAbsent(root, "a", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file: %v", err)
	}
	if err := renameIfAbsent(root, "a", "c"); err != nil {
		t.Error(err)
	}
	if err := renameIfAbsent(root, "c", filepath.Join("b", "x")); err == nil {
		t.Error("into a file: no error")
	}
	if got, want := files(t, dir), map[string]string{"b": "b", "c": "a"}; !maps.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

func TestLinkWhoseReplyGotLost(t *testing.T) {
	dir := makeMaildir(t, t.TempDir())
	d := Drop{disk: &scriptedDisk{after: func(op, path string, err error) error {
		if op == "link" && err == nil {
			return &os.LinkError{Op: "link", New: path, Err: fs.ErrExist}
		}
		return err
	}}}
	name, err := d.Store(t.Context(), Maildir{Root: dir}, text("hello"))
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, dir, name, "hello")
}

func TestDirectoriesThatVanish(t *testing.T) {
	dir := makeMaildir(t, t.TempDir())
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	var d Drop
	for _, gone := range []string{"", "cur", "new", "tmp"} {
		if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Store(t.Context(), Maildir{Root: dir}, text("x")); err != nil {
			t.Fatalf("without %q: %v", gone, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		if !slices.Equal(names, []string{"cur", "new", "tmp"}) {
			t.Errorf("without %q: made %q", gone, names)
		}
	}
}
