package maildrop

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"
)

const (
	// staleAfter is when a file in tmp is a leftover, as the Maildir convention has it.
	staleAfter = 36 * time.Hour
	// cleanEvery is how often Store cleans a Maildir that it delivers to.
	cleanEvery = time.Hour
	// cleanSome is how many files Store looks at when it cleans.
	cleanSome = 256
	// cleanKnown is of how many Maildirs Store remembers that they are clean.
	cleanKnown = 4096
)

// Clean removes the files in tmp of a Maildir that nobody has written to for more than 36 hours: a
// process or machine that died left them there. It goes on where one cannot be removed, and returns the
// first error. A Maildir that is not there is clean.
//
// Store does the same for the Maildirs it delivers to, at most once an hour for each and for a bounded
// number of files at a time.
func (d *Drop) Clean(ctx context.Context, of Maildir) error {
	v, err := d.newDelivery(ctx, of)
	if err != nil {
		return err
	}
	if err := v.proceed(); err != nil {
		return err
	}
	if err := v.enterLane(); err != nil {
		return err
	}
	return v.inSlot(func() error {
		defer v.tidy()
		err := v.openBox()
		if err == nil {
			err = v.clean(-1)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

var errEnough = errors.New("enough for now")

// clean looks at most files in tmp, or all if that is negative.
func (v *delivery) clean(most int) error {
	before := v.drop.clock().Add(-staleAfter)
	var failed error
	err := v.box.list("tmp", func(info fs.FileInfo) error {
		if err := v.proceed(); err != nil {
			return err
		}
		if most == 0 {
			return errEnough
		}
		most--
		if !info.Mode().IsRegular() || !info.ModTime().Before(before) {
			return nil
		}
		path := filepath.Join("tmp", info.Name())
		if err := v.box.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = firstError(failed, v.fail("clean", path, err))
		}
		return nil
	})
	if _, ours := err.(*Error); ours || err == errEnough {
		return firstError(failed, err)
	}
	return firstError(failed, v.fail("clean", "tmp", err))
}

// cleanSometimes is what Store does. Whatever it meets is no concern of the delivery's.
func (v *delivery) cleanSometimes() {
	if v.name != "" && v.drop.cleaned.isDue(v.dir, v.drop.clock()) && !v.made {
		_ = v.clean(cleanSome)
	}
}

// cleaned remembers which Maildirs were cleaned lately.
type cleaned struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// isDue reports whether dir is to be cleaned now, and takes it for cleaned.
func (c *cleaned) isDue(dir string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.last[dir]; ok && now.Sub(last) < cleanEvery {
		return false
	}
	if c.last == nil {
		c.last = make(map[string]time.Time)
	}
	if len(c.last) >= cleanKnown {
		c.forget(now)
	}
	c.last[dir] = now
	return true
}

// forget makes room: of what is out of date, and of any if that is too little.
func (c *cleaned) forget(now time.Time) {
	for dir, last := range c.last {
		if now.Sub(last) >= cleanEvery {
			delete(c.last, dir)
		}
	}
	if len(c.last) < cleanKnown {
		return
	}
	for dir := range c.last {
		if len(c.last) <= cleanKnown/2 {
			return
		}
		delete(c.last, dir)
	}
}
