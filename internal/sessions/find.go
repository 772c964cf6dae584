package sessions

// find lends a session or gives permission to open one; nil if there is neither, or if a gate does not
// let the call pass now: then g.gates.wait says for how long. The lock is held.
func (p *Pool[S]) find(g *group[S], c *claim) *slot[S] {
	if g.gates != nil {
		g.gates.wait = 0
	}
	if s := p.sleeper(g, c); s != nil {
		if !g.admits(c) {
			return nil
		}
		p.unpark(s)
		p.again(s, c)
		return s
	}
	if g.mayGrow(c) {
		if s := p.comfortable(g, c); s != nil {
			return p.join(g, s, c)
		}
		if g.comesSoon(c) {
			return nil
		}
		if g.mayOpen() {
			if !g.admits(c) {
				return nil
			}
			if g.opens() {
				return p.permit(g, c)
			}
		}
	}
	if g.over() {
		return nil
	}
	if s := p.roomy(g, c); s != nil {
		return p.join(g, s, c)
	}
	return nil
}

// sleeper finds an idle session. The lock is held.
func (p *Pool[S]) sleeper(g *group[S], c *claim) *slot[S] {
	if g.idle.len == 0 {
		return nil
	}
	for _, key := range c.keys {
		shelf := p.shelves[home[S]{g, key}]
		if shelf == nil {
			continue
		}
		for s := shelf.idle.last(); s != nil; s = shelf.idle.last() {
			if !s.worn(c.maxUses) {
				return s
			}
			p.retire(s, Worn)
		}
	}
	return nil
}

// comfortable finds a session in use that would serve the call sooner than a new one, which it may have.
// The lock is held.
func (p *Pool[S]) comfortable(g *group[S], c *claim) *slot[S] {
	if g.calls == 0 {
		return nil
	}
	for _, key := range c.keys {
		shelf := p.shelves[home[S]{g, key}]
		if shelf == nil {
			continue
		}
		p.promote(shelf)
		for n := shelf.comfy.front; n != nil; {
			s := n.of
			n = n.next
			switch {
			case !s.hasRoom():
				p.withhold(s)
			case !s.hasComfort():
				p.queueUp(s, &shelf.roomy)
			case !s.worn(c.maxUses): // else it has comfort for one with a wider bound
				return s
			}
		}
	}
	return nil
}

// promote looks whether sessions have more comfort than when they were last asked: no more than the two whose
// turn it is, for there may be hundreds. The lock is held.
func (p *Pool[S]) promote(shelf *shelf[S]) {
	n := shelf.roomy.front
	for range min(2, shelf.roomy.len) {
		s := n.of
		n = n.next
		switch {
		case !s.hasRoom():
			p.withhold(s)
		case s.hasComfort():
			p.queueUp(s, &shelf.comfy)
		}
	}
}

// roomy finds a session in use that has room, and rather one that has comfort. The lock is held.
func (p *Pool[S]) roomy(g *group[S], c *claim) *slot[S] {
	for _, key := range c.keys {
		shelf := p.shelves[home[S]{g, key}]
		if shelf == nil {
			continue
		}
		for _, turn := range [...]*list[slot[S]]{&shelf.comfy, &shelf.roomy} {
			for n := turn.front; n != nil; {
				s := n.of
				n = n.next
				switch {
				case !s.hasRoom():
					p.withhold(s)
				case !s.worn(c.maxUses): // else it has room for one with a wider bound
					return s
				}
			}
		}
	}
	return nil
}

// again lends a session that is in no other use. The lock is held.
func (p *Pool[S]) again(s *slot[S], c *claim) {
	p.withhold(s) // it may still have its turn, where a gate or a choice kept those who wait from sharing it
	p.lend(s, c)
	s.asking = true
}

// join lends a share of a session in use, if the Lending gate lets the call pass. The lock is held.
func (p *Pool[S]) join(g *group[S], s *slot[S], c *claim) *slot[S] {
	if !g.admits(c) {
		return nil
	}
	p.withhold(s) // its turn is over
	p.lend(s, c)
	p.offer(s)
	return s
}
