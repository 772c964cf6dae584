//go:build unix

package maildrop

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

// names returns what is in a directory of the Maildir.
func (d *memDisk) names(dir string) (contents []string) {
	n, err := d.whole().find(filepath.Join(mailbox, dir))
	if err != nil {
		return nil
	}
	for _, to := range n.entries {
		contents = append(contents, string(to.content))
	}
	slices.Sort(contents)
	return contents
}

// TestFaultInGroup lets every operation of a group fail, one at a time and in every way: whom it
// concerns fails, and leaves nothing; the others are delivered.
func TestFaultInGroup(t *testing.T) {
	messages := []string{"m1", "m2", "m3", "m4"}
	for kind, set := range kinds {
		t.Run(kind, func(t *testing.T) {
			for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE} {
				for at := 0; ; at++ {
					ended := false
					synctest.Test(t, func(t *testing.T) { ended = faultAt(t, set, at, errno, messages) })
					if ended || t.Failed() {
						break
					}
				}
			}
		})
	}
}

// faultAt fails one operation, and reports whether there were fewer.
func faultAt(t *testing.T, set func(*memDisk), at int, errno syscall.Errno, messages []string) (ended bool) {
	t.Helper()
	d := newMemDisk().premade()
	set(d)
	failed := ""
	d.fault = func(op, path string) error {
		if at--; at == -1 {
			failed = op
			return errno
		}
		return nil
	}
	var delivered []string
	failures := 0
	for i, err := range d.deliver(t, &Drop{}, messages...) {
		var failure *Error
		switch {
		case err == nil:
			delivered = append(delivered, messages[i])
		case !errors.As(err, &failure) || !errors.Is(err, errno):
			t.Errorf("%s: %v, want %v", failed, err, errno)
		default:
			failures++
		}
	}
	want := 1
	switch failed {
	case "", "remove", "syncfs": // tidying up; or each is synced by itself
		want = 0
	}
	// What only looks is asked again in another way, and a file without a name is closed when all
	// is done.
	if failures > want || failures < want && failed != "stat" && failed != "open" && failed != "close" {
		t.Errorf("%s %v: %d failed, want %d", failed, errno, failures, want)
	}
	if got := d.names("new"); !slices.Equal(got, delivered) {
		t.Errorf("%s %v: new holds %q, want %q", failed, errno, got, delivered)
	}
	if got := d.names("tmp"); len(got) > 0 && failed != "remove" {
		t.Errorf("%s %v: tmp holds %q", failed, errno, got)
	}
	return at >= 0
}

// TestDiskThatDies: from one operation on, every change and every sync fails. Whoever is reported is there, whatever a
// crash then leaves.
func TestDiskThatDies(t *testing.T) {
	messages := []string{"m1", "m2", "m3"}
	for kind, set := range kinds {
		t.Run(kind, func(t *testing.T) {
			for at := 0; ; at++ {
				ended := false
				synctest.Test(t, func(t *testing.T) {
					d := newMemDisk().premade()
					set(d)
					left := at
					d.fault = func(op, path string) error {
						if left--; left < 0 {
							return syscall.EIO
						}
						return nil
					}
					for i, err := range d.deliver(t, &Drop{}, messages...) {
						if err != nil && !errors.Is(err, syscall.EIO) {
							t.Errorf("%s: %v", messages[i], err)
						}
					}
					ended = left >= 0
					checkCrashes(t, d, 0, messages, 1)
				})
				if ended || t.Failed() {
					break
				}
			}
		})
	}
}

// TestLostContentInGroup: the sync of the file system fails because the content of one is lost. Only the
// one's own sync tells whose.
func TestLostContentInGroup(t *testing.T) {
	messages := []string{"m1", "m2", "m3", "m4", "m5"}
	for _, lost := range messages[1:] {
		synctest.Test(t, func(t *testing.T) {
			d := newMemDisk().premade()
			d.volumes = true
			shared := false
			d.fault = func(op, path string) error {
				switch op {
				case "syncfs":
					if !shared {
						shared = true
						return syscall.EIO // told once
					}
				case "fsync":
					if n, err := d.whole().find(path); err == nil && string(n.content) == lost {
						return syscall.EIO
					}
				}
				return nil
			}
			// The first is alone; the others come while it syncs.
			for i, err := range d.deliver(t, &Drop{}, messages...) {
				if wantErr := messages[i] == lost; wantErr != errors.Is(err, syscall.EIO) || !wantErr && err != nil {
					t.Errorf("%s is lost: %s: %v", lost, messages[i], err)
				}
			}
			if got := d.names("new"); len(got) != len(messages)-1 || slices.Contains(got, lost) {
				t.Errorf("%s is lost: new holds %q", lost, got)
			}
			checkCrashes(t, d, 0, slices.DeleteFunc(slices.Clone(messages), func(m string) bool { return m == lost }), 1)
		})
	}
}

// TestFullDiskInGroup: a disk with room for some.
func TestFullDiskInGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk().premade()
		d.unnamed, d.volumes = true, true
		room := 5
		d.fault = func(op, path string) error {
			if op == "write" {
				if room--; room < 0 {
					return syscall.ENOSPC
				}
			}
			return nil
		}
		var messages []string
		for i := range 20 {
			messages = append(messages, fmt.Sprint("m", i))
		}
		delivered := 0
		for _, err := range d.deliver(t, &Drop{}, messages...) {
			if err == nil {
				delivered++
			} else if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "write") {
				t.Error(err)
			}
		}
		if delivered != 5 || len(d.names("new")) != 5 || len(d.names("tmp")) != 0 {
			t.Errorf("%d delivered; new holds %q, tmp %q", delivered, d.names("new"), d.names("tmp"))
		}
	})
}
