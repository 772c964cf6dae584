// Package gather makes batches of calls that come at the same time: whoever comes first leads, waits for
// others as long as the rules say, and runs the batch for all of them in its own goroutine. It knows nothing of
// what a batch does.
package gather

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Rules say when a batch goes.
type Rules struct {
	// Size is the most calls in a batch; below 1 means 1.
	Size int
	// Min is how many calls a batch waits for.
	Min int
	// Latency is how long it waits for them after the first has come; zero: not at all.
	Latency time.Duration
}

// Gatherer gathers calls of the same key into batches. Run and Closing must be set before the first call and
// left alone. It is safe for concurrent use and runs no goroutine.
type Gatherer[K comparable, T any] struct {
	// Run runs a batch, in the goroutine of the call that leads it and with that call's context. It gets hold
	// of what the batch needs, during which others may still join and leave, takes the batch with
	// [Batch.Begin], and serves all that Begin returned. If it returns without Begin, the call that led is
	// over and another leads.
	Run func(ctx context.Context, lead T, b *Batch[K, T])
	// Closing lets every batch that waits for others go at once, when it is closed; nil: never.
	Closing <-chan struct{}

	mu      sync.Mutex
	open    map[K]*Batch[K, T]
	hurried bool

	members sync.Pool // of *member, for further calls
}

// Batch is a number of calls that go together.
type Batch[K comparable, T any] struct {
	gatherer *Gatherer[K, T]
	key      K
	rules    Rules
	first    time.Time     // when the first call came
	ripe     chan struct{} // closed when the batch waits for nobody any more

	// Guarded by the gatherer's lock.
	members []*member[K, T] // that wait; the one that leads is the first
	ripened bool
	begun   []*member[K, T] // that are served
	over    bool            // they have been told
}

// member is one call.
type member[K comparable, T any] struct {
	item  T
	batch *Batch[K, T]
	stage stage
	woken chan struct{} // of room for one: the call leads from now on, or is over
}

type stage int

const (
	waits stage = iota
	leads
	served // the batch has begun
	over
)

// Do takes part in a batch of the key, under rules that are those of the call that came first. It returns nil
// when the item was served, or when Run gave up while this call led. The end of ctx ends the wait for a batch
// to begin: then the error is its cause, and nothing was done with the item. What has begun is waited for.
func (g *Gatherer[K, T]) Do(ctx context.Context, key K, item T, rules Rules) error {
	m, ok := g.members.Get().(*member[K, T])
	if !ok {
		m = &member[K, T]{woken: make(chan struct{}, 1)}
	}
	m.item = item
	err := g.take(ctx, key, m, rules)
	*m = member[K, T]{woken: m.woken} // which is empty: whoever was to be woken has been
	g.members.Put(m)
	return err
}

// take takes part as a member.
func (g *Gatherer[K, T]) take(ctx context.Context, key K, m *member[K, T], rules Rules) error {
	if g.join(key, m, rules) {
		return g.lead(ctx, m)
	}
	select {
	case <-m.woken:
	case <-ctx.Done():
		if g.leave(m) {
			return context.Cause(ctx)
		}
		<-m.woken // it is being served, or was told to lead at this moment
	}
	if m.stage == leads {
		return g.lead(ctx, m)
	}
	return nil
}

// Hurry lets every batch go at once from now on, with those that it has: nobody else is to come.
func (g *Gatherer[K, T]) Hurry() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hurried = true
	for _, b := range g.open {
		b.ripen()
	}
}

// join adds a call to the batch of its key and tells whether it leads.
func (g *Gatherer[K, T]) join(key K, m *member[K, T], rules Rules) (leading bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.open[key]
	if b == nil {
		b = &Batch[K, T]{gatherer: g, key: key, rules: rules, first: time.Now()}
		if g.open == nil {
			g.open = map[K]*Batch[K, T]{}
		}
		g.open[key] = b
		m.stage, leading = leads, true
	}
	m.batch = b
	b.members = append(b.members, m)
	if n := len(b.members); n >= b.rules.Size {
		b.shut()
		b.ripen()
	} else if n >= b.rules.Min || b.rules.Latency <= 0 || g.hurried {
		b.ripen()
	}
	return leading
}

// shut lets nobody join any more. The lock is held.
func (b *Batch[K, T]) shut() {
	if b.gatherer.open[b.key] == b {
		delete(b.gatherer.open, b.key)
	}
}

// ripen ends the wait for others. The lock is held.
func (b *Batch[K, T]) ripen() {
	if !b.ripened {
		b.ripened = true
		if b.ripe != nil {
			close(b.ripe)
		}
	}
}

// lead waits for others and runs the batch.
func (g *Gatherer[K, T]) lead(ctx context.Context, m *member[K, T]) error {
	b := m.batch
	if err := b.await(ctx); err != nil {
		g.handOn(m)
		return err
	}
	defer func() { // also if something of Run's panics
		b.Finish()
		g.handOn(m)
	}()
	g.Run(ctx, m.item, b)
	return nil
}

// await waits until the batch has enough calls, or has waited for long enough.
func (b *Batch[K, T]) await(ctx context.Context) error {
	g := b.gatherer
	g.mu.Lock()
	if b.ripened {
		g.mu.Unlock()
		return nil
	}
	if b.ripe == nil {
		b.ripe = make(chan struct{})
	}
	ripe := b.ripe
	g.mu.Unlock()
	patience := time.NewTimer(time.Until(b.first.Add(b.rules.Latency)))
	defer patience.Stop()
	select {
	case <-ripe:
	case <-patience.C:
	case <-g.Closing:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	g.mu.Lock()
	b.ripen()
	g.mu.Unlock()
	return nil
}

// Begin takes the batch: the call that leads and those that came to it, in order, no more than limit says for
// as many as there are, and at least the one that leads. Nobody joins or leaves these any more. The rest is a
// batch of its own, which goes at once. Begin may be called once in a Run.
func (b *Batch[K, T]) Begin(limit func(n int) int) []T {
	g := b.gatherer
	g.mu.Lock()
	defer g.mu.Unlock()
	b.shut()
	n := min(len(b.members), max(limit(len(b.members)), 1))
	b.begun = b.members[:n]
	b.split(b.members[n:])
	b.members = nil
	items := make([]T, n)
	for i, m := range b.begun {
		m.stage = served
		items[i] = m.item
	}
	return items
}

// split makes a batch of those that had no room. The lock is held.
func (b *Batch[K, T]) split(rest []*member[K, T]) {
	if len(rest) == 0 {
		return
	}
	next := &Batch[K, T]{gatherer: b.gatherer, key: b.key, rules: b.rules, first: b.first, ripened: true}
	next.members = slices.Clone(rest)
	for _, m := range rest {
		m.batch = next
	}
	next.appoint()
}

// appoint makes the call that has waited longest lead. The lock is held.
func (b *Batch[K, T]) appoint() {
	if len(b.members) == 0 {
		b.shut()
		return
	}
	m := b.members[0]
	m.stage = leads
	m.woken <- struct{}{}
}

// Finish tells the other calls of a batch that has begun that they were served. Run need not call it, unless
// it has more to do that they need not wait for.
func (b *Batch[K, T]) Finish() {
	for _, m := range b.end() {
		m.woken <- struct{}{}
	}
}

// end ends a batch that has begun, and returns those who are to be told.
func (b *Batch[K, T]) end() []*member[K, T] {
	g := b.gatherer
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.over || len(b.begun) == 0 {
		return nil
	}
	b.over = true
	for _, m := range b.begun {
		m.stage = over
	}
	return b.begun[1:]
}

// leave takes a call out that waits, and tells whether it did.
func (g *Gatherer[K, T]) leave(m *member[K, T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.stage != waits {
		return false
	}
	b := m.batch
	b.members = slices.DeleteFunc(b.members, func(other *member[K, T]) bool { return other == m })
	m.stage = over
	return true
}

// handOn takes out a call that led, if its batch has not begun, and lets the next one lead.
func (g *Gatherer[K, T]) handOn(m *member[K, T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.stage != leads {
		return
	}
	b := m.batch
	b.members = b.members[1:]
	m.stage = over
	b.appoint()
}
