package maildrop

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// groups are the file systems that deliveries are writing to.
type groups struct {
	mu       sync.Mutex
	byDevice map[uint64]*group
}

// group commits the deliveries that write to one file system together. One of them leads, on behalf of
// all that have their content written, and goes from round to round: a sync of the file system; those
// whose links it made durable are done, those whose contents it made durable get their links, and are
// part of the next round together with whoever has come meanwhile. When the leader's own delivery is
// done, the next leads. Who is alone in a round is synced alone.
type group struct {
	device uint64
	volume volume

	mu       sync.Mutex
	users    int // also guarded by groups.mu, for those that join
	led      bool
	written  []*commit     // contents to be made durable
	linked   []*commit     // links to be made durable
	all      chan struct{} // while the leader waits for others: closed when none is left to wait for
	failures int           // syncs of the file system that failed
	took     time.Duration // the last sync
}

// committer is a delivery as its group sees it.
type committer interface {
	syncContent() error // of this delivery only
	publish() error     // makes the link, unless the context has ended
	syncLink() error    // of this delivery only
	abandon()           // for one that nobody waits for
}

// commit is what has to be done for one committer.
type commit struct {
	committer
	since int       // group.failures when the content began to be written
	told  chan turn // has room for what is told

	// Guarded by group.mu while anybody but the leader may look.
	step step
	err  error
}

// step is how far a commit has got.
type step int

const (
	written  step = iota // in group.written
	syncing              // in the hands of the leader; the caller may still go
	gone                 // the caller went
	linking              // in the leader's hands, past the point from which the delivery is finished
	linked               // in group.linked
	finished             // with err
)

// turn is what a caller who waits is told.
type turn int

const (
	done turn = iota // its commit is finished
	lead             // it is for it to lead
)

// maxPatience bounds how long a leader waits for others.
const maxPatience = 5 * time.Millisecond

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
	found.mu.Lock()
	defer found.mu.Unlock()
	found.users++
	return member{groups: g, group: found, since: found.failures}
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
	if left.removeUser() > 0 {
		return false
	}
	delete(g.byDevice, left.device)
	return true
}

func (g *group) removeUser() (left int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users--
	g.gathered()
	return g.users
}

// commit makes a delivery durable whose content is written. It reports whether c is still the
// caller's: one who goes when the context ends may have to leave it to the leader.
func (m *member) commit(ctx context.Context, c committer) (ours bool, err error) {
	return m.group.commit(ctx, &commit{committer: c, since: m.since, told: make(chan turn, 1)})
}

func (g *group) commit(ctx context.Context, c *commit) (ours bool, err error) {
	if !g.enter(c) {
		select {
		case t := <-c.told:
			if t == done {
				return true, c.err
			}
		case <-ctx.Done():
			if left, ours := g.goAway(c); left {
				return ours, ctx.Err()
			}
			if <-c.told == done {
				return true, c.err
			}
		}
	}
	g.lead(c)
	return true, c.err
}

// lead makes round after round until the leader's own delivery is done. Whatever ends that, another leads.
func (g *group) lead(own *commit) {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if own.step == linked { // and a panic is on its way to the caller
			g.linked = slices.DeleteFunc(g.linked, func(c *commit) bool { return c == own })
		}
		g.next()
	}()
	for own.step != finished {
		g.round()
	}
}

// enter adds a commit, and reports whether it is for its caller to lead.
func (g *group) enter(c *commit) (leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = append(g.written, c)
	leads = !g.led
	g.led = true
	g.gathered()
	return leads
}

// goAway takes a commit back whose caller does not wait any longer, unless it is too late for that.
func (g *group) goAway(c *commit) (left, ours bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch c.step {
	case written:
		i := slices.Index(g.written, c)
		g.written = slices.Delete(g.written, i, i+1)
		g.gathered()
		if len(c.told) > 0 { // to lead
			g.next()
		}
		return true, true
	case syncing:
		c.step = gone
		return true, false
	}
	return false, true
}

// round makes durable what there is.
func (g *group) round() {
	g.gather()
	g.mu.Lock()
	contents, links := g.written, g.linked
	g.written, g.linked = nil, nil
	for _, c := range contents {
		c.step = syncing
	}
	for _, c := range links {
		c.step = linking
	}
	g.mu.Unlock()
	defer func() {
		g.giveUp(contents)
		g.giveUp(links)
	}()

	shared := len(contents)+len(links) > 1
	if shared {
		g.sync()
	}
	for _, c := range links {
		var err error
		if !shared || g.failed(c) {
			err = c.syncLink()
		}
		g.finish(c, err)
	}
	for _, c := range contents {
		var err error
		if !shared || g.failed(c) {
			err = c.syncContent()
		}
		g.proceed(c, err)
	}
}

// sync syncs the file system.
func (g *group) sync() {
	began := time.Now()
	err := g.volume.sync()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.took = time.Since(began)
	if err != nil {
		g.failures++
	}
}

// failed reports whether c cannot rely on the syncs of the file system. That one failed does not tell
// whose content it was, and is told once, to whichever sync comes first: so it counts for all whose
// writing had begun.
func (g *group) failed(c *commit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures != c.since
}

// proceed links a delivery whose content is durable, or was lost with err.
func (g *group) proceed(c *commit, err error) {
	if left := g.take(c); left {
		c.abandon()
		return
	}
	if err == nil {
		err = c.publish()
	}
	if err != nil {
		g.finish(c, err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.step = linked
	g.linked = append(g.linked, c)
}

var errLeader = errors.New("the call that synced for this one ended in a panic")

// giveUp tells those who are still in the leader's hands at the end of a round: it did not come to its end. Nobody
// else would tell them.
func (g *group) giveUp(commits []*commit) {
	for _, c := range commits {
		if left := g.take(c); left {
			c.abandon()
		} else if c.step == linking {
			g.finish(c, errLeader)
		}
	}
}

// take keeps the caller of a commit that is in the leader's hands from going. If that one is gone, the commit is the
// leader's.
func (g *group) take(c *commit) (left bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch c.step {
	case gone:
		c.step = finished
		return true
	case syncing:
		c.step = linking
	}
	return false
}

func (g *group) finish(c *commit, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.step, c.err = finished, err
	c.told <- done // the leader does not read it: it is told by the step
}

// next appoints the next leader, with g.mu held.
func (g *group) next() {
	switch {
	case len(g.linked) > 0:
		g.linked[0].told <- lead
	case len(g.written) > 0:
		g.written[0].told <- lead
	default:
		g.led = false
	}
}

// gather waits for those who are about to need a sync too, though no longer than a sync takes: one
// sync for all of them is sooner over than one now and another then.
func (g *group) gather() {
	g.mu.Lock()
	all := make(chan struct{})
	g.all = all
	g.gathered()
	patience := min(g.took, maxPatience)
	g.mu.Unlock()
	select {
	case <-all:
		return
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-all:
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = nil
}

// gathered tells a leader that waits when nobody is left to wait for, with g.mu held.
func (g *group) gathered() {
	if g.all != nil && len(g.written)+len(g.linked) >= g.users {
		close(g.all)
		g.all = nil
	}
}
