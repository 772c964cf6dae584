package sessions

import "slices"

// coming is what the calls that wait may expect of the sessions that are being opened.
type coming[S Session] struct {
	slots list[slot[S]] // being opened, in the order of their permissions, but for those that are spoilt
	given uint64        // numbers the permissions
	// Of the calls that wait, how many at the head of the line expect to be served by these, and the first
	// that does not, or was not asked. An answer holds until one of them is opened or given up.
	content int
	asked   *waiter[S]
}

// begin adds a session that is going to be opened. The lock is held.
func (e *coming[S]) begin(s *slot[S], c *claim) {
	e.given++
	s.number, s.maxUses = e.given, c.maxUses
	if len(c.keys) > 0 {
		s.likely = c.keys[0]
	}
	e.slots.insert(&s.byKey, e.slots.back)
}

// noLongerComing takes a session out that is opened or that nobody may hope for. The lock is held.
func (g *group[S]) noLongerComing(s *slot[S]) {
	g.coming.slots.remove(&s.byKey)
	g.lose(g.coming.slots.len)
	g.askAgain()
}

// askAgain forgets which calls are content to wait. The lock is held.
func (g *group[S]) askAgain() {
	g.coming.content, g.coming.asked = 0, g.waiting.first()
}

// comesSoon tells whether the sessions that are being opened are going to be enough for this call, which is
// the first in line or finds none, and for all who wait: each of them by its own expectation, for one that
// is not content must not stand behind those that wait by choice. The lock is held.
func (g *group[S]) comesSoon(c *claim) bool {
	e := &g.coming
	if g.waiting.len == 0 {
		return e.serve(c, 1)
	}
	for e.asked != nil && e.serve(&e.asked.claim, e.content+1) {
		// Of openings that begin from now on it expects nothing. So nobody waits by choice for longer than
		// one opening takes, however many of them fail or yield less than was expected.
		if e.asked.hopes == 0 {
			e.asked.hopes = e.given
		}
		e.content++
		e.asked = e.asked.following()
	}
	return e.asked == nil
}

// serve tells whether the sessions that are being opened are expected to serve the n-th call that waits.
func (e *coming[S]) serve(c *claim, n int) bool {
	each := c.each()
	if e.slots.len == 0 || each < 2 {
		return false
	}
	for s := range e.slots.all {
		if c.hopes > 0 && s.number > c.hopes {
			return false
		}
		if s.maxUses != 1 && slices.Contains(c.keys, s.likely) {
			if n -= each - 1; n <= 0 {
				return true
			}
		}
	}
	return false
}

// each is how many calls a session is going to serve in comfort, as c expects.
func (c *claim) each() int {
	if c.expect == nil {
		return 1
	}
	each := max(c.expect(), 1)
	if c.maxUses > 0 {
		each = min(each, c.maxUses)
	}
	return each
}

// needs is how many more sessions those who wait are going to need. The lock is held.
func (g *group[S]) needs() int {
	if g.comesSoon(&g.waiting.first().claim) {
		return 0
	}
	each := 1
	if c := &g.coming.asked.claim; c.hopes == 0 { // else it has given up hope of what others open
		each = c.each()
	}
	return (g.waiting.len-g.coming.content-1)/each + 1
}
