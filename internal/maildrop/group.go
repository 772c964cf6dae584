package maildrop

import (
	"context"
	"slices"
	"sync"
)

// groups are the file systems that deliveries are writing to.
type groups struct {
	mu       sync.Mutex
	byDevice map[uint64]*group
}

// group shares the syncs of one file system among the deliveries that write to it. Whoever needs a
// sync while none is under way leads one, for itself. Whoever needs one while another is under way,
// which may have begun too early for it, waits; when the one under way is over, the first of those
// who wait leads one for them all. The syncs of contents and those of links are the same syncs.
type group struct {
	device uint64
	volume volume
	users  int // guarded by groups.mu

	mu       sync.Mutex
	led      bool
	waiting  []chan turn
	failures int // syncs of the file system that failed
}

// turn is what those who wait are told.
type turn int

const (
	synced turn = iota // the sync that was to come is over
	lead               // it is for you to lead it
)

// member is a delivery in a group. Its zero value is alone.
type member struct {
	groups *groups
	group  *group
	since  int // group.failures when the delivery began to write
}

// join makes the delivery a member of the group of its file system. It must be called before anything
// is written that a sync of the group is to make durable, because only errors since then are told.
func (g *groups) join(device uint64, open func() (volume, error)) member {
	if m := g.add(device, nil); m.group != nil {
		return m
	}
	volume, err := open()
	if err != nil {
		return member{} // the delivery syncs by itself, and meets the error if it is one
	}
	m := g.add(device, volume)
	if m.group.volume != volume { // somebody was faster
		_ = volume.Close()
	}
	return m
}

// add makes a member of the group that there is, or of a new one if there is none and volume is given.
func (g *groups) add(device uint64, volume volume) member {
	g.mu.Lock()
	defer g.mu.Unlock()
	found := g.byDevice[device]
	if found == nil {
		if volume == nil {
			return member{}
		}
		found = &group{device: device, volume: volume}
		if g.byDevice == nil {
			g.byDevice = make(map[uint64]*group)
		}
		g.byDevice[device] = found
	}
	found.users++
	return member{groups: g, group: found, since: found.failed()}
}

// leave gives the membership back; the last one closes the file system.
func (m *member) leave() {
	if m.group == nil {
		return
	}
	if m.groups.isLast(m.group) {
		_ = m.group.volume.Close() // everybody has got what it was open for
	}
	m.group = nil
}

// isLast takes a user away from a group, and the group out of reach if it was the last.
func (g *groups) isLast(left *group) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	left.users--
	if left.users > 0 {
		return false
	}
	delete(g.byDevice, left.device)
	return true
}

// sync makes durable what the delivery did before. alone does so for this delivery only; it is called
// where nobody shares the sync, and where the shared one failed, for that does not tell whose content it
// was. An error is alone's, or the context's.
func (m *member) sync(ctx context.Context, alone func() error) error {
	if m.group == nil {
		return alone()
	}
	leads, err := m.group.wait(ctx)
	if err != nil {
		return err
	}
	if leads {
		shared, err := m.group.lead(alone)
		if !shared {
			return err
		}
	}
	// An error is told once, to whichever sync comes first: that may have been an earlier one.
	if m.group.failed() != m.since {
		return alone()
	}
	return nil
}

func (g *group) failed() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures
}

// wait returns when a sync is over that began after the call, or when it is for the caller to lead it.
func (g *group) wait(ctx context.Context) (leads bool, err error) {
	g.mu.Lock()
	if !g.led {
		g.led = true
		g.mu.Unlock()
		return true, nil
	}
	told := make(chan turn, 1)
	g.waiting = append(g.waiting, told)
	g.mu.Unlock()
	select {
	case t := <-told:
		return t == lead, nil
	case <-ctx.Done():
		g.goAway(told)
		return false, ctx.Err()
	}
}

// goAway takes back a wait. If the caller was just told to lead, somebody else must.
func (g *group) goAway(told chan turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, told); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		return
	}
	select {
	case t := <-told:
		if t == lead {
			g.next()
		}
	default: // part of a sync that is under way
	}
}

// lead syncs for the caller and all who wait, and reports whether it was for more than the caller.
func (g *group) lead(alone func() error) (shared bool, err error) {
	g.mu.Lock()
	with := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	if shared = len(with) > 0; shared {
		err = g.volume.sync()
	} else {
		err = alone()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if shared && err != nil {
		g.failures++
	}
	for _, told := range with {
		told <- synced
	}
	g.next()
	return shared, err
}

// next appoints the next leader, with g.mu held.
func (g *group) next() {
	if len(g.waiting) == 0 {
		g.led = false
		return
	}
	g.waiting[0] <- lead
	g.waiting = g.waiting[1:]
}
