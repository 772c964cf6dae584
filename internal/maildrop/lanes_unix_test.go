//go:build unix

package maildrop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestDisksDoNotWaitForEachOther: whatever one disk does not answer, as many as there may be wait for it, and
// deliveries to another go on.
func TestDisksDoNotWaitForEachOther(t *testing.T) {
	for _, op := range []string{"stat", "mkdir", "open", "create", "write", "fsync", "link", "sync", "syncfs"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newMemDisk()
				d.unnamed, d.volumes = true, true
				d.mount(t, "/slow", 2)
				d.mount(t, "/fast", 3)
				drop := Drop{Threads: 2, Open: 4, disk: d}
				store := func(root string) error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					_, err := drop.Store(ctx, Maildir{Root: root, Rel: "u"}, text("x"))
					return err
				}
				for _, root := range []string{"/slow", "/slow/known", "/fast/known"} {
					if err := store(root); err != nil {
						t.Fatal(err)
					}
				}
				answers := make(chan struct{})
				d.hang = func(what, path string) {
					if what == op && strings.HasPrefix(path, "/slow") {
						<-answers
					}
				}
				ended := make(chan error, 20)
				for i := range cap(ended) {
					root := "/slow/known"
					if op != "stat" && i%2 > 0 { // the look at an unknown one is a stat
						root = fmt.Sprint("/slow/new", i)
					}
					go func() { ended <- store(root) }()
				}
				synctest.Wait()
				for range 10 {
					if err := store("/fast/known"); err != nil {
						t.Errorf("the fast disk waits for the slow one: %v", err)
						break
					}
				}
				if op != "stat" {
					if err := store("/fast/unknown"); err != nil {
						t.Errorf("a new root on the fast disk waits for the slow one: %v", err)
					}
				}
				close(answers)
				for range cap(ended) {
					if err := <-ended; err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				}
			})
		})
	}
}

// mount makes a directory that is another disk.
func (d *memDisk) mount(t *testing.T, path string, device uint64) {
	t.Helper()
	if err := d.mkdir(path, 0); err != nil {
		t.Fatal(err)
	}
	n, err := d.whole().find(path)
	if err != nil {
		t.Fatal(err)
	}
	n.device = device
}
