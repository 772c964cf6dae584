package resolver

import (
	"context"
	"slices"
	"sync"
)

const defaultMaxQueries = 128

// turns lets a number of flights ask the servers at once, and the others in the order in which they came.
// Its zero value is ready, and safe for concurrent use.
type turns struct {
	mu    sync.Mutex
	taken int
	queue []chan struct{} // closed when a turn has come
}

// take waits for one of limit turns, which is to be given back; limit is always the same.
func (t *turns) take(ctx context.Context, limit int) error {
	t.mu.Lock()
	if t.taken < limit {
		t.taken++
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	t.queue = append(t.queue, mine)
	t.mu.Unlock()

	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.queue, mine); i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
	} else { // it came at the same time
		t.pass()
	}
	return context.Cause(ctx)
}

// give passes a turn on to the next in the queue.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pass()
}

func (t *turns) pass() {
	if len(t.queue) == 0 {
		t.taken--
		return
	}
	next := t.queue[0]
	t.queue = t.queue[1:]
	close(next)
}

func (t *turns) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}
