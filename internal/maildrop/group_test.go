package maildrop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeVolume is a file system whose sync takes as long as a test wants.
type fakeVolume struct {
	took   time.Duration
	errs   []error // of the syncs, in order
	syncs  int
	closed bool
}

func (v *fakeVolume) Close() error { v.closed = true; return nil }

func (v *fakeVolume) sync() error {
	time.Sleep(v.took)
	v.syncs++
	if len(v.errs) == 0 {
		return nil
	}
	err := v.errs[0]
	v.errs = v.errs[1:]
	return err
}

// fakeCommit records what its group does with it.
type fakeCommit struct {
	took time.Duration // of a sync of its own
	mu   sync.Mutex
	log  []string
}

func (c *fakeCommit) did(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, what)
}

func (c *fakeCommit) syncContent() error { time.Sleep(c.took); c.did("content"); return nil }
func (c *fakeCommit) publish() error     { c.did("publish"); return nil }
func (c *fakeCommit) syncLink() error    { time.Sleep(c.took); c.did("link"); return nil }
func (c *fakeCommit) abandon()           { c.did("abandon") }

func (c *fakeCommit) want(t *testing.T, log ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.log, log) {
		t.Errorf("got %q, want %q", c.log, log)
	}
}

func opening(v volume) func() (volume, error) { return func() (volume, error) { return v, nil } }

func TestGroupOfOneSyncsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groups
		v, c := &fakeVolume{}, &fakeCommit{}
		m := g.join(1, opening(v))
		began := time.Now()
		if ours, err := m.commit(t.Context(), c); err != nil || !ours {
			t.Error(ours, err)
		}
		c.want(t, "content", "publish", "link")
		m.leave()
		if v.syncs != 0 || !v.closed || len(g.byDevice) != 0 || time.Since(began) != 0 {
			t.Errorf("%+v, %v, after %v", v, g.byDevice, time.Since(began))
		}
	})
}

// TestGroupShares: those who come while one syncs by itself need two syncs together.
func TestGroupShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 100
		var g groups
		v := &fakeVolume{took: time.Millisecond}
		commits := make([]fakeCommit, callers)
		var wait sync.WaitGroup
		for i := range commits {
			c := &commits[i]
			c.took = time.Second
			wait.Go(func() {
				m := g.join(1, opening(v))
				defer m.leave()
				if ours, err := m.commit(t.Context(), c); err != nil || !ours {
					t.Error(ours, err)
				}
			})
		}
		wait.Wait()
		alone := 0
		for i := range commits {
			if len(commits[i].log) == 3 {
				alone++
				continue
			}
			if log := commits[i].log; log[len(log)-1] != "publish" && log[len(log)-1] != "link" {
				t.Errorf("%q", log)
			}
		}
		if v.syncs == 0 || v.syncs > 3 || alone > 1 || !v.closed {
			t.Errorf("%d syncs, %d alone, %+v", v.syncs, alone, v)
		}
	})
}

// TestGroupWithFailure: whoever had begun to write when a sync failed relies on no other; who begins
// later does.
func TestGroupWithFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groups
		v := &fakeVolume{took: time.Millisecond, errs: []error{errors.New("lost")}}
		old, later := g.join(1, opening(v)), g.join(1, opening(v))
		run := func(m member, commits ...*fakeCommit) {
			t.Helper()
			var wait sync.WaitGroup
			for _, c := range commits {
				wait.Go(func() {
					if _, err := m.commit(t.Context(), c); err != nil {
						t.Error(err)
					}
				})
			}
			wait.Wait()
		}
		var first, second [3]fakeCommit
		for i := range first {
			first[i].took, second[i].took = time.Second, time.Second
		}
		run(old, &first[0], &first[1], &first[2])
		for i := range first {
			first[i].want(t, "content", "publish", "link")
		}
		syncs := v.syncs
		run(later, &second[0], &second[1], &second[2])
		for i := range second {
			second[i].want(t, "content", "publish", "link")
		}
		if syncs == 0 || v.syncs == syncs {
			t.Errorf("%d syncs, then %d", syncs, v.syncs)
		}
		fresh := g.join(1, opening(v))
		var third [3]fakeCommit
		for i := range third {
			third[i].took = time.Second
		}
		run(fresh, &third[0], &third[1], &third[2])
		shared := 0
		for i := range third {
			if len(third[i].log) < 3 {
				shared++
			}
		}
		if shared == 0 {
			t.Error("nobody trusts the file system any more")
		}
		for _, m := range []member{old, later, fresh} {
			m.leave()
		}
		if !v.closed {
			t.Error("left open")
		}
	})
}

// TestGroupDoesNotWaitForTheSlow: a leader waits for those who still write, but not longer than a
// sync takes.
func TestGroupDoesNotWaitForTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groups
		v := &fakeVolume{took: time.Millisecond}
		slow := g.join(1, opening(v)) // and never comes
		defer slow.leave()
		began := time.Now()
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() {
				m := g.join(1, opening(v))
				defer m.leave()
				if _, err := m.commit(t.Context(), &fakeCommit{}); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestGroupAndContext: who waits can go. What the leader has in its hands it tidies up, and what has
// its link is finished.
func TestGroupAndContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groups
		v := &fakeVolume{took: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			ours bool
			err  error
		}
		start := func(ctx context.Context, took time.Duration) (*fakeCommit, *result) {
			c, r := &fakeCommit{took: took}, &result{}
			go func() {
				m := g.join(1, opening(v))
				defer m.leave()
				r.ours, r.err = m.commit(ctx, c)
			}()
			synctest.Wait()
			return c, r
		}
		leader, led := start(t.Context(), time.Minute)
		waiting, waited := start(ctx, time.Second)
		stays, stayed := start(t.Context(), time.Second)
		cancel()
		synctest.Wait()
		waiting.want(t) // nothing
		if !waited.ours || waited.err != context.Canceled {
			t.Error(*waited)
		}
		ctx, cancel = context.WithCancel(t.Context())
		gone, went := start(ctx, time.Second)
		time.Sleep(30 * time.Minute) // into the sync that the leader's link shares
		cancel()
		synctest.Wait()
		if went.ours || went.err != context.Canceled {
			t.Error(*went)
		}
		other, ended := start(t.Context(), time.Second)
		ctx, cancel = context.WithCancel(t.Context())
		linked, finished := start(ctx, time.Second)
		time.Sleep(2 * time.Hour) // over the sync of their contents, into that of their links
		linked.want(t, "publish")
		cancel()
		synctest.Wait()
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		leader.want(t, "content", "publish")
		stays.want(t, "publish")
		gone.want(t, "abandon")
		other.want(t, "publish")
		linked.want(t, "publish")
		for _, r := range []*result{led, stayed, ended, finished} {
			if !r.ours || r.err != nil {
				t.Error(*r)
			}
		}
		if !v.closed {
			t.Error("left open")
		}
	})
}

// TestGroupWhoseLeaderPanics: the panic is its caller's alone; whoever it led for is told or leads.
func TestGroupWhoseLeaderPanics(t *testing.T) {
	for _, at := range []string{"content", "publish", "link"} {
		for _, others := range []int{1, 5} {
			synctest.Test(t, func(t *testing.T) {
				var g groups
				v := &fakeVolume{took: time.Second}
				if at != "publish" { // each is synced by itself after a failure
					for range 10 {
						v.errs = append(v.errs, errors.New("lost"))
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var panics, told, delivered atomic.Int64
				run := func(c committer) {
					m := g.join(1, opening(v))
					defer m.leave()
					defer func() {
						if recover() != nil {
							panics.Add(1)
						}
					}()
					switch ours, err := m.commit(ctx, c); {
					case errors.Is(err, context.DeadlineExceeded):
						t.Errorf("at %s, %d others: one was left waiting", at, others)
					case err == nil:
						delivered.Add(1)
					case ours:
						told.Add(1)
					}
				}
				var wait sync.WaitGroup
				wait.Go(func() { run(&fakeCommit{took: time.Minute}) })
				synctest.Wait()
				bad := &panickingCommit{at: at}
				wait.Go(func() { run(bad) })
				for range others {
					wait.Go(func() { run(&fakeCommit{}) })
				}
				wait.Wait()
				if panics.Load() != 1 || panics.Load()+told.Load()+delivered.Load() != int64(others)+2 {
					t.Errorf("at %s: %d panics, %d told, %d delivered of %d", at, panics.Load(), told.Load(), delivered.Load(), others+2)
				}
				after := &fakeCommit{}
				run(after)
				after.want(t, "content", "publish", "link")
				if !v.closed || len(g.byDevice) != 0 {
					t.Error("left open")
				}
			})
		}
	}
}

// panickingCommit panics at one of its steps.
type panickingCommit struct {
	fakeCommit
	at string
}

func (c *panickingCommit) panicAt(step string) error {
	if step == c.at {
		panic(step)
	}
	return nil
}

func (c *panickingCommit) syncContent() error { return c.panicAt("content") }
func (c *panickingCommit) publish() error     { return c.panicAt("publish") }
func (c *panickingCommit) syncLink() error    { return c.panicAt("link") }

// TestThreads: no more calls are in system calls than may be, beside one that leads, and no more have
// files open.
func TestThreads(t *testing.T) {
	root := t.TempDir()
	dir := makeMaildir(t, filepath.Join(root, "u"))
	synctest.Test(t, func(t *testing.T) {
		var busy, most, open, mostOpen atomic.Int64
		note := func(n, most *atomic.Int64) {
			for now := n.Add(1); ; {
				seen := most.Load()
				if now <= seen || most.CompareAndSwap(seen, now) {
					return
				}
			}
		}
		disk := &scriptedDisk{unnamed: true, volumes: true,
			before: func(_ int, op, path string) error {
				note(&busy, &most)
				if op == "create" {
					note(&open, &mostOpen)
				}
				time.Sleep(time.Millisecond)
				return nil
			},
			after: func(op, path string, err error) error {
				busy.Add(-1)
				if op == "close" {
					open.Add(-1)
				}
				return err
			},
		}
		d := Drop{Threads: 3, Open: 10, disk: disk}
		if _, err := d.Store(t.Context(), Maildir{Root: root, Rel: "u"}, text("x")); err != nil { // the root is known then
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				if _, err := d.Store(t.Context(), Maildir{Root: root, Rel: "u"}, text("x")); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if most.Load() < 3 || most.Load() > 4 || mostOpen.Load() < 4 || mostOpen.Load() > 10 || busy.Load() != 0 || open.Load() != 0 {
			t.Errorf("%d at a time, %d open at a time; %d and %d are left", most.Load(), mostOpen.Load(), busy.Load(), open.Load())
		}
	})
	if got := len(files(t, filepath.Join(dir, "new"))); got != 101 {
		t.Errorf("%d delivered", got)
	}
}

// TestDiskThatHangs: callers go when their context ends, whatever they wait for, and what they had is
// tidied up when the disk answers again.
func TestDiskThatHangs(t *testing.T) {
	root := t.TempDir()
	dir := makeMaildir(t, filepath.Join(root, "u"))
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		disk := &scriptedDisk{before: func(_ int, op, path string) error {
			if op == "write" {
				<-hang
			}
			return nil
		}}
		d := Drop{Threads: 2, Open: 4, disk: disk}
		errs := make(chan error, 20)
		for range cap(errs) {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := d.Store(ctx, Maildir{Root: root, Rel: "u"}, text("x"))
				errs <- err
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(errs) != cap(errs)-2 { // two are in a system call
			t.Errorf("%d have gone", len(errs))
		}
		close(hang)
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
	})
	wantEmpty(t, dir)
}

func TestSlotsForgetNothing(t *testing.T) {
	s := newSlots(1)
	if err := s.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	var order []string
	s.later(func() { order = append(order, "first") })
	s.later(func() { s.later(func() { order = append(order, "third") }); order = append(order, "second") })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.take(ended); err != context.Canceled {
		t.Error(err)
	}
	if len(order) != 0 {
		t.Errorf("did %q without a slot", order)
	}
	s.give()
	s.later(func() { order = append(order, "fourth") })
	if want := []string{"first", "second", "third", "fourth"}; !slices.Equal(order, want) {
		t.Errorf("did %q, want %q", order, want)
	}
	if err := s.take(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestManyDropsOneMaildir: Drops know nothing of each other. Nothing is left open in them.
func TestManyDropsOneMaildir(t *testing.T) {
	root := t.TempDir()
	var drops [4]Drop
	var wait sync.WaitGroup
	for i := range 100 {
		wait.Go(func() {
			if _, err := drops[i%len(drops)].Store(t.Context(), Maildir{Root: root, Rel: "u"}, text(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got := len(files(t, filepath.Join(root, "u", "new"))); got != 100 {
		t.Errorf("%d delivered", got)
	}
	for i := range drops {
		if len(drops[i].groups.byDevice) != 0 || len(drops[i].looking.free) != 0 {
			t.Errorf("left open: %v", drops[i].groups.byDevice)
		}
		for _, l := range drops[i].lanes.byDevice {
			if len(l.slots.free) != 0 || len(l.opened) != 0 {
				t.Errorf("%d in system calls, %d open", len(l.slots.free), len(l.opened))
			}
		}
	}
}

// TestNoSync leaves out the syncs of a message and nothing else: those of directories that are made stay.
func TestNoSync(t *testing.T) {
	for _, unnamed := range []bool{true, false} {
		disk := &scriptedDisk{unnamed: unnamed, volumes: true, root: t.TempDir()}
		d := Drop{disk: disk}
		store := func(noSync bool) (syncs int) {
			disk.log = nil
			name, err := d.Store(t.Context(), Maildir{Root: disk.root, Rel: filepath.Join("a", "u"), NoSync: noSync}, text("hello"))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(disk.root, "a", "u", "new", name)
			if content, err := os.ReadFile(path); string(content) != "hello" {
				t.Errorf("%q, %v", content, err)
			}
			for _, step := range disk.steps() {
				if strings.HasPrefix(step, "sync") || strings.HasPrefix(step, "fsync") {
					syncs++
				}
			}
			return syncs
		}
		if making, then, synced := store(true), store(true), store(false); making < 7 || then != 0 || synced != 2 {
			t.Errorf("%d syncs while directories are made, %d afterwards, %d of a message that is synced; want 7 or more, 0, 2", making, then, synced)
		}
	}
}
