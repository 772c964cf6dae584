package sessions

// giveBack ends one call on a slot and decides what becomes of it. The lock is held.
func (p *Pool[S]) giveBack(s *slot[S]) {
	g := s.group
	p.part(s)
	switch w := g.waiting.first(); {
	case s.leases > 0:
		p.offer(s)
	case !s.opened || s.killed:
		p.free(s)
	case !p.closed.IsZero():
		p.retire(s, Closing)
	case s.drained:
		p.retire(s, Drained)
	case s.worn(s.maxUses):
		p.retire(s, Worn)
	case g.over():
		p.retire(s, Crowded)
	case w != nil && w.fits(s) && g.admits(&w.claim): // it would share s by now if that were offered
		p.again(s, &w.claim)
		g.answer(w, s, nil)
	case s.rested():
		p.retire(s, Idle)
	default:
		p.park(s)
	}
	p.settle(g)
}

// settle serves those who wait for the room that has come free, in g and in the groups that share a limit
// with it, and forgets g if nothing is left of it. The lock is held.
func (p *Pool[S]) settle(g *group[S]) {
	if !g.alone() {
		p.serve(g)
		p.refill(g.stakes)
	}
	if g.slots > 0 || g.waiting.len > 0 {
		return
	}
	if g.gates != nil && p.closed.IsZero() && p.keepBarred(g) {
		return
	}
	p.forget(g)
}

// alone tells whether nobody waits in the group, no gate has a say in it, and no other group is concerned.
func (g *group[S]) alone() bool {
	return g.waiting.len == 0 && g.gates == nil && len(g.stakes) == 0
}

// serve gives those who wait in g what there is, in order. For those who remain it makes room. The lock
// is held.
func (p *Pool[S]) serve(g *group[S]) {
	for _, k := range g.stakes {
		k.leaveLine()
	}
	for w := g.waiting.first(); w != nil; w = g.waiting.first() {
		if s := p.find(g, &w.claim); s != nil {
			g.answer(w, s, nil)
		} else if !p.refuseHopeless(g) || g.waiting.first() == w {
			break
		}
	}
	if g.waiting.len > 0 && !g.stopped() {
		p.makeRoom(g)
	}
	if g.gates != nil {
		p.pause(g)
	}
}

// makeRoom ends idle sessions for those who wait in g, as many as the gates let pass now. The first of
// them can use no idle one, and a later one does not go before it. The lock is held.
func (p *Pool[S]) makeRoom(g *group[S]) {
	needs := g.needs()
	if g.slots >= g.limit {
		for g.ending < needs && g.idle.len > 0 && p.allows(g, g.ending+1) {
			p.retire(g.idle.first(), Crowded)
		}
	}
	p.lineUp(g, needs)
}

// trim retires idle sessions above the limit, the least recently used first. The lock is held.
func (p *Pool[S]) trim(g *group[S]) {
	for s := g.idle.first(); s != nil && g.present() > g.limit; s = g.idle.first() {
		p.retire(s, Crowded)
	}
}
