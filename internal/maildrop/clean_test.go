package maildrop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// leftovers puts files of various ages into a Maildir, which should keep the fresh ones.
func leftovers(t *testing.T, dir string, now time.Time) {
	t.Helper()
	for name, age := range map[string]time.Duration{
		"tmp/old": staleAfter + time.Second, "tmp/.older": 1000 * time.Hour, "tmp/fresh": staleAfter, "tmp/ahead": -time.Hour,
		"new/old": 1000 * time.Hour, "cur/old": 1000 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp", "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "tmp", "directory"), now, now.Add(-1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("%s holds %q, want %q", dir, names, want)
	}
}

func TestClean(t *testing.T) {
	root, now := t.TempDir(), time.Now()
	dir := makeMaildir(t, filepath.Join(root, "a", "u"))
	leftovers(t, dir, now)
	d := Drop{now: func() time.Time { return now }}
	if err := d.Clean(t.Context(), Maildir{Root: root, Rel: filepath.Join("a", "u")}); err != nil {
		t.Fatal(err)
	}
	wantNames(t, filepath.Join(dir, "tmp"), "ahead", "directory", "fresh")
	wantNames(t, filepath.Join(dir, "new"), "old")
	wantNames(t, filepath.Join(dir, "cur"), "old")
	for _, rel := range []string{"nobody", filepath.Join("a", "nobody", "x")} {
		if err := d.Clean(t.Context(), Maildir{Root: root, Rel: rel}); err != nil {
			t.Errorf("%s: %v", rel, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Clean(ended, Maildir{Root: root}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	if err := d.Clean(t.Context(), Maildir{Root: root, Rel: ".."}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("..: %v", err)
	}
}

// TestCleanGoesOn: one file that cannot be removed does not save the others, and is told.
func TestCleanGoesOn(t *testing.T) {
	dir, now := makeMaildir(t, t.TempDir()), time.Now()
	for i := range 5 {
		path := filepath.Join(dir, "tmp", fmt.Sprint(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-100*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	disk := &scriptedDisk{before: func(_ int, op, path string) error {
		if op == "remove" && filepath.Base(path) == "2" {
			return &fs.PathError{Op: op, Path: path, Err: syscall.EIO}
		}
		return nil
	}}
	d := Drop{disk: disk}
	if err := d.Clean(t.Context(), Maildir{Root: dir}); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	wantNames(t, filepath.Join(dir, "tmp"), "2")
	// A delivery does not mind.
	if _, err := d.Store(t.Context(), Maildir{Root: dir}, text("x")); err != nil {
		t.Error(err)
	}
}

// TestStoreCleans: once an hour, and never more than a bounded number.
func TestStoreCleans(t *testing.T) {
	dir, now := makeMaildir(t, t.TempDir()), time.Now()
	d := Drop{now: func() time.Time { return now }}
	store := func() {
		t.Helper()
		if _, err := d.Store(t.Context(), Maildir{Root: dir}, text("x")); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(n int) {
		t.Helper()
		for i := range n {
			path := filepath.Join(dir, "tmp", fmt.Sprint(i))
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, now, now.Add(-100*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(want int) {
		t.Helper()
		if got := len(files(t, filepath.Join(dir, "tmp"))); got != want {
			t.Errorf("%d left in tmp, want %d", got, want)
		}
	}
	fill(3)
	store()
	left(0)
	fill(cleanSome + 10)
	now = now.Add(cleanEvery - 1)
	store()
	left(cleanSome + 10)
	now = now.Add(1)
	store()
	left(10)
}

func TestCleanedIsBounded(t *testing.T) {
	var c cleaned
	now := time.Now()
	for i := range 3 * cleanKnown {
		if !c.isDue(fmt.Sprint(i), now) {
			t.Fatal(i)
		}
		if len(c.last) > cleanKnown {
			t.Fatalf("remembers %d", len(c.last))
		}
	}
	if c.isDue(fmt.Sprint(3*cleanKnown-1), now) || !c.isDue(fmt.Sprint(3*cleanKnown-1), now.Add(cleanEvery)) {
		t.Error("not once an hour")
	}
	for i := range cleanKnown { // what is out of date goes first
		c.isDue(fmt.Sprint("next", i), now.Add(2*cleanEvery))
	}
	if c.isDue("next0", now.Add(2*cleanEvery)) {
		t.Error("forgot what it had room for")
	}
}
