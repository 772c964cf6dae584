package sessions

import (
	"cmp"
	"container/heap"
	"slices"
)

// quota is a limit that groups share. All its fields are guarded by the pool's lock.
type quota[S Session] struct {
	name    string
	limit   int
	slots   int           // of all its groups
	ending  int           // of all its groups
	groups  int           // that have a stake in it
	idle    list[slot[S]] // of all its groups, least recently used first
	line    line[S]       // of groups whose first call waits for it; not empty only if it is full or over
	wants   int           // how many sessions are to end for those in line
	crowded bool          // a group in line waits for sessions to go that are above the limit
}

// stake is the part that a group has in a quota.
type stake[S Session] struct {
	quota   *quota[S]
	group   *group[S]
	arrival uint64 // of the call that waits
	wants   int    // its part of quota.wants
	place   int    // in quota.line, from 1; 0: it is not there
}

func (q *quota[S]) over() bool { return q.slots-q.ending > q.limit }

// hasRoom tells whether a call that came as the arrival-th may have a new session as far as q goes: room
// that has just come free belongs to those who came before it.
func (q *quota[S]) hasRoom(arrival uint64) bool {
	return q.slots < q.limit && (len(q.line) == 0 || q.line[0].arrival > arrival)
}

// stake lets the group share these limits and no others. The lock is held.
func (p *Pool[S]) stake(g *group[S], shared []Shared) {
	if !g.names(shared) {
		p.restake(g, shared)
		return
	}
	for i, k := range g.stakes {
		if limit := max(shared[i].Limit, 1); limit != k.quota.limit {
			k.quota.limit = limit
			p.trimQuota(k.quota)
			p.refill(g.stakes[i : i+1])
		}
	}
}

// names tells whether the group has stakes in these limits, in this order.
func (g *group[S]) names(shared []Shared) bool {
	return slices.EqualFunc(g.stakes, shared, func(k *stake[S], s Shared) bool { return k.quota.name == s.Name })
}

// restake moves all that the group has from the limits that it shared to others. The lock is held.
func (p *Pool[S]) restake(g *group[S], shared []Shared) {
	old := g.stakes
	for _, k := range old {
		k.leaveLine()
	}
	for s := range g.idle.all {
		p.unlist(s)
	}
	g.stakes = nil
	for _, s := range shared {
		p.joinQuota(g, s)
	}
	for s := range g.idle.all {
		p.list(s)
	}
	for _, k := range old {
		k.quota.slots -= g.slots
		k.quota.ending -= g.ending
		p.leaveQuota(k)
	}
	for _, k := range g.stakes {
		p.trimQuota(k.quota)
	}
	p.refill(append(slices.Clone(g.stakes), old...))
}

func (p *Pool[S]) joinQuota(g *group[S], s Shared) {
	q := p.quotas[s.Name]
	if q == nil {
		if p.quotas == nil {
			p.quotas = make(map[string]*quota[S])
		}
		q = &quota[S]{name: s.Name}
		p.quotas[s.Name] = q
	}
	q.limit = max(s.Limit, 1)
	if slices.ContainsFunc(g.stakes, func(k *stake[S]) bool { return k.quota == q }) {
		return // named twice
	}
	q.groups++
	q.slots += g.slots
	q.ending += g.ending
	g.stakes = append(g.stakes, &stake[S]{quota: q, group: g})
}

// leaveQuota ends a stake of a group that counts against the quota no more. The lock is held.
func (p *Pool[S]) leaveQuota(k *stake[S]) {
	if k.quota.groups--; k.quota.groups == 0 {
		delete(p.quotas, k.quota.name)
	}
}

// list enters an idle session in the quotas of its group, each in order of use. The lock is held.
func (p *Pool[S]) list(s *slot[S]) {
	if len(s.byQuota) != len(s.group.stakes) {
		s.byQuota = make([]node[slot[S]], len(s.group.stakes))
	}
	for i, k := range s.group.stakes {
		s.byQuota[i].of = s
		after := k.quota.idle.back
		for after != nil && after.of.parked > s.parked { // only when a group takes its sessions along
			after = after.prev
		}
		k.quota.idle.insert(&s.byQuota[i], after)
	}
}

// unlist takes a session out of them. The lock is held.
func (p *Pool[S]) unlist(s *slot[S]) {
	for i, k := range s.group.stakes {
		k.quota.idle.remove(&s.byQuota[i])
	}
}

// lineUp lets the group stand in line for the quotas that keep its first call waiting, and makes room in
// them if that would serve it, for as many sessions as it needs. The lock is held.
func (p *Pool[S]) lineUp(g *group[S], needs int) {
	if len(g.stakes) == 0 {
		return
	}
	grows := needs > 0 && g.slots < g.limit && p.allows(g, 1) // else a gate's timer or a session of its own comes back to it
	wants := 0
	if grows {
		wants = g.wants(needs)
	}
	first := g.waiting.first().arrival
	for _, k := range g.stakes {
		switch q := k.quota; {
		case q.over():
			q.crowded = true
			k.joinLine(first, 0)
		case grows && q.slots >= q.limit:
			k.joinLine(first, wants)
			p.yield(q)
		case grows && !q.hasRoom(first):
			k.joinLine(first, wants) // those before it may take what there is
		}
	}
}

// wants is how many sessions are to end for those who wait in the group and need as many, in each of its
// quotas that are full. None, if there are several and one has nothing to end: that would serve nobody.
func (g *group[S]) wants(needs int) int {
	full, dry := 0, false
	for _, k := range g.stakes {
		if q := k.quota; q.slots >= q.limit {
			full++
			dry = dry || q.idle.len+q.ending == 0
		}
	}
	if full > 1 && dry {
		return 0
	}
	if t := g.gates; t != nil && (t.lending != nil || t.opening != nil) {
		return 1
	}
	return min(needs, g.limit-g.slots)
}

// refill gives the room in the quotas of these stakes to the calls that have waited longest of those that
// can use it. The lock is held.
func (p *Pool[S]) refill(stakes []*stake[S]) {
	if len(stakes) == 0 {
		return
	}
	for next := oldest(stakes); next != nil; next = oldest(stakes) {
		p.serve(next.group)
	}
	for _, k := range stakes {
		switch q := k.quota; {
		case q.crowded && !q.over():
			q.crowded = false
			for _, k := range slices.SortedFunc(slices.Values(q.line), byArrival) {
				p.serve(k.group)
			}
		case len(q.line) > 0 && q.line[0].wants == 0 && q.idle.len > 0:
			p.serve(q.line[0].group) // what kept it from making room may have changed
		}
		p.yield(k.quota)
	}
}

// oldest is the stake of the call that came first, of those in line for a quota that has room; nil if
// there is none.
func oldest[S Session](stakes []*stake[S]) (first *stake[S]) {
	for _, k := range stakes {
		if q := k.quota; q.slots < q.limit && len(q.line) > 0 && (first == nil || q.line[0].arrival < first.arrival) {
			first = q.line[0]
		}
	}
	return first
}

func byArrival[S Session](a, b *stake[S]) int { return cmp.Compare(a.arrival, b.arrival) }

// yield ends the least recently used idle sessions for those in line. The lock is held.
func (p *Pool[S]) yield(q *quota[S]) {
	for q.ending < q.wants && q.idle.len > 0 {
		p.oust(q.idle.first())
	}
}

// trimQuota retires idle sessions above the limit. The lock is held.
func (p *Pool[S]) trimQuota(q *quota[S]) {
	for q.over() && q.idle.len > 0 {
		p.oust(q.idle.first())
	}
}

// oust retires an idle session for the sake of another group. If calls of its own group had hopes of it,
// they are told aside, for the pool is busy with that other group. The lock is held.
func (p *Pool[S]) oust(s *slot[S]) {
	p.retire(s, Crowded)
	if g := s.group; g.gates != nil && g.gates.poorer && g.waiting.len > 0 {
		go p.revisit(g)
	}
}

// line is a heap of stakes, the first arrival at the top.
type line[S Session] []*stake[S]

func (l line[S]) Len() int           { return len(l) }
func (l line[S]) Less(i, j int) bool { return l[i].arrival < l[j].arrival }
func (l line[S]) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i+1, j+1
}

func (l *line[S]) Push(k any) {
	*l = append(*l, k.(*stake[S]))
	(*l)[len(*l)-1].place = len(*l)
}

func (l *line[S]) Pop() any {
	last := len(*l) - 1
	k := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	k.place = 0
	return k
}

func (k *stake[S]) joinLine(arrival uint64, wants int) {
	k.arrival, k.wants = arrival, wants
	k.quota.wants += wants
	heap.Push(&k.quota.line, k)
}

func (k *stake[S]) leaveLine() {
	if k.place > 0 {
		heap.Remove(&k.quota.line, k.place-1)
		k.quota.wants -= k.wants
	}
}
