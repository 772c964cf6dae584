package sessions

// Drain ends what was opened so far and match accepts, all if it is nil: idle sessions are retired now;
// lent ones and those being opened are lent no more and retired when their last lease ends. It is for a
// configuration that has changed. Calls that wait are served with new sessions.
//
// The key is the one under which the session was opened; of those that are being opened it is not known
// yet, and empty. The pool's lock is not held while match runs.
func (p *Pool[S]) Drain(match func(group, key string) bool) {
	type kind struct{ group, key string }
	of := func(s *slot[S]) kind {
		if s.opened {
			return kind{s.group.name, s.shelf.home.key}
		}
		return kind{group: s.group.name}
	}
	matched := make(map[kind]bool)
	p.mu.Lock()
	for s := range p.live {
		if !s.vacated {
			matched[of(s)] = true
		}
	}
	p.mu.Unlock()
	for k := range matched {
		matched[k] = match == nil || match(k.group, k.key)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.live {
		is, known := matched[of(s)]
		if !known { // it was being opened when match was asked
			is = matched[kind{group: s.group.name}]
		}
		if is {
			p.drain(s)
		}
	}
	p.retireIdle(Drained, func(s *slot[S]) bool { return s.drained })
	for _, g := range p.groups {
		if g.waiting.len > 0 {
			p.settle(g) // a call may have lost what it hoped for
		}
	}
}

// Refuse gives every call that waits in the group this error, which must not be nil.
func (p *Pool[S]) Refuse(group string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.groups[group]
	if g == nil || err == nil {
		return
	}
	for w := g.waiting.first(); w != nil; w = g.waiting.first() {
		g.answer(w, nil, err)
	}
	p.settle(g)
}
