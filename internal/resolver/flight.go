package resolver

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// flight is one question on its way to the servers, for all who ask it. It has a context of its own:
// one caller's end is not the others'.
type flight struct {
	cancel  context.CancelCauseFunc
	waiting int // guarded by the client's lock; at 0 the flight is given up
	epoch   int // the client's, when it began

	done   chan struct{}
	answer Answer // written before done is closed
}

// shared answers q from the cache, or from a flight that is or comes under way.
func (c *Client) shared(ctx context.Context, q question) Answer {
	answer, f := c.join(ctx, q)
	if f == nil {
		return answer
	}
	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
		return c.leave(ctx, q, f)
	}
}

// join returns the answer, or else the flight to wait for. One lock covers cache and flights, and a
// flight leaves its answer and the table in one step: nobody who asks while an answer is had or being
// had makes a second query.
func (c *Client) join(ctx context.Context, q question) (Answer, *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return q.fail(ErrClosed), nil
	}
	if answer, ok := c.cache.get(q, time.Now()); ok {
		c.counts.Cached++
		return answer, nil
	}
	if err := ctx.Err(); err != nil {
		return q.fail(err), nil
	}
	f := c.flights[q]
	if f == nil {
		f = c.launch(q)
	}
	f.waiting++
	return Answer{}, f
}

// launch begins a flight. The lock is held.
func (c *Client) launch(q question) *flight {
	if c.flights == nil {
		c.flights = make(map[question]*flight)
		c.life, c.end = context.WithCancelCause(context.Background())
	}
	ctx, cancel := context.WithCancelCause(c.life)
	f := &flight{cancel: cancel, epoch: c.epoch, done: make(chan struct{})}
	c.flights[q] = f
	c.counts.Asked++
	c.working.Go(func() {
		defer cancel(nil)
		var answer Answer
		var failed bool
		if err := c.inTurn(ctx, func() { answer, failed = c.resolve(ctx, q) }); err != nil {
			answer = q.fail(err)
		}
		c.land(q, f, answer, failed)
	})
	return f
}

// inTurn asks the servers when a turn to do so has come.
func (c *Client) inTurn(ctx context.Context, ask func()) error {
	if c.MaxQueries >= 0 {
		if err := c.turns.take(ctx, cmp.Or(c.MaxQueries, defaultMaxQueries)); err != nil {
			return err
		}
		defer c.turns.give()
	}
	ask()
	return nil
}

// land brings the answer to all who wait for it, and to the cache; if every server failed, one that has
// ended stands in for it.
func (c *Client) land(q question, f *flight, answer Answer, failed bool) {
	c.mu.Lock()
	if c.flights[q] == f {
		delete(c.flights, q)
	}
	if f.epoch == c.epoch && !c.closed {
		answer = c.remember(q, answer, failed, time.Now())
	}
	c.mu.Unlock()
	f.answer = answer
	close(f.done)
}

// remember keeps the answer, or returns what stands in for it. The lock is held.
func (c *Client) remember(q question, answer Answer, failed bool, now time.Time) Answer {
	if failed {
		c.counts.Failed++
		if stale, ok := c.cache.hold(q, now); ok {
			c.counts.Stale++
			return stale
		}
	}
	c.cache.put(q, answer, now, c.staleness(answer, q.typ), c.CacheSize)
	return answer
}

// leave is for a caller who waits no longer. A flight that nobody waits for is given up, and leaves the
// table at once so that nobody joins it any more. For a caller whose time is over the servers have
// failed, and an answer that has ended is better than none.
func (c *Client) leave(ctx context.Context, q question, f *flight) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel(context.Canceled)
		if c.flights[q] == f {
			delete(c.flights, q)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		if stale, ok := c.cache.standIn(q, time.Now()); ok {
			c.counts.Stale++
			return stale
		}
	}
	return q.fail(ctx.Err())
}

// forget empties the cache, for what is on its way to it too.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.cache.clear()
}
