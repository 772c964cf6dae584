package mtasts

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRestart(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, before *Cache) {
		store := &shelf{}
		before.Store = store
		first := expect(t, before, Fetched, Enforce)
		closed(t, before)
		entry := store.entries["example.com"]
		if entry.ID != "1" || string(entry.Policy) != enforce || !entry.Fetched.Equal(first.Fetched) || !entry.Expires.Equal(first.Expires) {
			t.Errorf("%+v", entry)
		}

		// The same record: nothing is fetched.
		after := w.cache()
		after.Store = store
		if r := expect(t, after, Cached, Enforce); r.ID != "1" || !r.Expires.Equal(first.Expires) || !r.Policy.Matches("mx.example.com") {
			t.Errorf("%+v", r)
		}
		expect(t, after, Cached, Enforce)
		if store.loads != 2 {
			t.Errorf("%d loads", store.loads)
		}
		closed(t, after)
		expectCounts(t, w, 2, 1)

		// A restart is no way to get rid of a policy.
		w.publish("")
		attacked := w.cache()
		attacked.Store = store
		expect(t, attacked, Kept, Enforce)
		time.Sleep(time.Until(first.Expires))
		expect(t, attacked, NoRecord, None)
		closed(t, attacked)

		expired := w.cache()
		expired.Store = store
		expect(t, expired, NoRecord, None)
		closed(t, expired)
	})
}

func TestWhatIsStoredIsNotBelieved(t *testing.T) {
	for _, test := range []struct {
		name    string
		entry   func() Entry
		expires time.Duration // from now; 0: not believed
	}{
		{"good", func() Entry {
			return Entry{"1", []byte(enforce), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)}
		}, time.Hour},
		{"longer than its max_age", func() Entry { return Entry{"1", []byte(enforce), time.Now().Add(-day), time.Now().Add(1000 * day)} }, 6 * day},
		{"expired", func() Entry { return Entry{"1", []byte(enforce), time.Now().Add(-time.Hour), time.Now()} }, 0},
		{"expired by its max_age", func() Entry { return Entry{"1", []byte(enforce), time.Now().Add(-7 * day), time.Now().Add(day)} }, 0},
		{"from the future", func() Entry { return Entry{"1", []byte(enforce), time.Now().Add(1), time.Now().Add(day)} }, 0},
		{"no policy", func() Entry { return Entry{"1", nil, time.Now(), time.Now().Add(day)} }, 0},
		{"broken policy", func() Entry { return Entry{"1", []byte("mode: enforce"), time.Now(), time.Now().Add(day)} }, 0},
		{"long policy", func() Entry { return Entry{"1", []byte(pad(enforce, 1<<20)), time.Now(), time.Now().Add(day)} }, 0},
		{"no id", func() Entry { return Entry{"", []byte(enforce), time.Now(), time.Now().Add(day)} }, 0},
		{"broken id", func() Entry { return Entry{"1;", []byte(enforce), time.Now(), time.Now().Add(day)} }, 0},
		{"nothing", func() Entry { return Entry{} }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, "", "", func(t *testing.T, w *world, c *Cache) {
				c.Store = &shelf{entries: map[string]Entry{"example.com": test.entry()}}
				if test.expires == 0 {
					expect(t, c, NoRecord, None)
					return
				}
				r := expect(t, c, Kept, Enforce)
				if d := time.Until(r.Expires); d != test.expires {
					t.Errorf("it expires in %v", d)
				}
				time.Sleep(test.expires)
				expect(t, c, NoRecord, None)
			})
		})
	}
}

func TestStoreFails(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		var log bytes.Buffer
		store := &shelf{err: errors.New("disk on fire")}
		c.Store, c.Logger = store, slog.New(slog.NewTextHandler(&log, nil))
		expect(t, c, Fetched, Enforce)
		expect(t, c, Cached, Enforce)
		for _, want := range []string{"not loaded", "not saved", "disk on fire", "example.com"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not in the log:\n%s", want, &log)
			}
		}
		// What it has when it works again is older than what is held.
		store.entries = map[string]Entry{"example.com": {"0", []byte(none), time.Now(), time.Now().Add(day)}}
		store.err = nil
		w.publish("")
		time.Sleep(2 * time.Hour)
		expect(t, c, Kept, Enforce)
	})
}

// A store that could not be read is read again: it may have a policy.
func TestStoreIsAskedAgain(t *testing.T) {
	inBubble(t, "", "", func(t *testing.T, w *world, c *Cache) {
		store := &shelf{
			err:     errDown,
			entries: map[string]Entry{"example.com": {"1", []byte(enforce), time.Now(), time.Now().Add(day)}},
		}
		c.Store = store
		expect(t, c, NoRecord, None)
		store.err = nil
		time.Sleep(5 * time.Minute)
		expect(t, c, Kept, Enforce)
	})
}

// stuck is a store that does nothing until its context ends.
type stuck struct{}

func (stuck) Load(ctx context.Context, _ string) (Entry, error) {
	<-ctx.Done()
	return Entry{}, ctx.Err()
}

func (stuck) Save(ctx context.Context, _ string, _ Entry) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestStoreIsStuck(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.Store = stuck{}
		begin := time.Now()
		expect(t, c, Fetched, Enforce)
		if d := time.Since(begin); d != 2*defaultTimeout {
			t.Errorf("it took %v", d)
		}
		begin = time.Now()
		expect(t, c, Cached, Enforce)
		go c.Get(t.Context(), "example.net")
		synctest.Wait()
		closed(t, c)
		if d := time.Since(begin); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}
