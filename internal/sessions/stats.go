package sessions

import (
	"cmp"
	"slices"
)

// GroupStats is a group at one moment. Idle, Lent, Opening and Ending together are what counts against
// Limit.
type GroupStats struct {
	Group   string
	Limit   int    // of the latest request
	Idle    int    // sessions that wait for a call
	Lent    int    // sessions that are lent, to one call or to several
	Calls   int    // leases on them
	Opening int    // permissions to open that are given and not used yet
	Ending  int    // sessions told to retire that have not ended yet: the peer still has them
	Waiting int    // calls that wait
	Held    bool   // the first of them waits for a gate, or since a call has postponed its permission
	Opened  uint64 // sessions opened since the group was last without session and call; see Totals
}

// Totals counts what happened since the pool was made. Every session that was opened is counted once
// more, in Retired or in Killed, as soon as it is told to end.
type Totals struct {
	Opened  uint64 // sessions opened
	Reused  uint64 // leases of sessions that another call had used before, or was using
	Retired uint64 // sessions told to end in an orderly way
	Killed  uint64 // sessions cut instead
	Dead    uint64 // those of Killed that were found dead when they were to be lent again
	Delayed uint64 // calls refused because a gate would have held them up for too long
	Ending  int    // at this moment: sessions told to end that have not ended yet
}

// Stats returns the groups that have a session, a lease or a waiting call, in order of name. Those that
// have nothing but sessions that are ending are left out; Totals counts them.
func (p *Pool[S]) Stats() []GroupStats {
	p.mu.Lock()
	stats := make([]GroupStats, 0, len(p.groups))
	for _, g := range p.groups {
		if g.present() == 0 && g.waiting.len == 0 {
			continue // only the ends of sessions are left of it
		}
		stats = append(stats, GroupStats{
			Group:   g.name,
			Limit:   g.limit,
			Idle:    g.idle.len,
			Lent:    g.present() - g.idle.len - g.opening,
			Calls:   g.calls,
			Opening: g.opening,
			Ending:  g.ending,
			Waiting: g.waiting.len,
			Held:    g.gates != nil && !g.gates.stopped.IsZero(),
			Opened:  g.opened,
		})
	}
	p.mu.Unlock()
	slices.SortFunc(stats, func(a, b GroupStats) int { return cmp.Compare(a.Group, b.Group) })
	return stats
}

// Totals returns the pool's counters. They outlive the groups.
func (p *Pool[S]) Totals() Totals {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.totals
	t.Reused = p.reused.Load()
	t.Ending = len(p.live)
	for _, g := range p.groups {
		t.Ending -= g.present()
	}
	return t
}

// Knows tells whether a group has a session, a lease or a waiting call.
func (p *Pool[S]) Knows(group string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.groups[group] != nil
}

// Waiting returns how many calls wait in a group.
func (p *Pool[S]) Waiting(group string) int {
	if p.lines.Load() == 0 { // mostly nobody waits, and then nobody needs the lock
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.groups[group]; g != nil {
		return g.waiting.len
	}
	return 0
}
