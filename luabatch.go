package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/mtadelivery/delivery/internal/gather"
	"github.com/mtadelivery/delivery/internal/sessions"
)

// join delivers a message in a batch with those that come at the same time.
func (e *luaEngine) join(ctx context.Context, call *luaCall) {
	w := call.way
	if w.name.Gathered.Load()+int64(e.runtime.state.lua.Waiting(w.ready)) >= int64(w.path.config.MaxReady) {
		call.res = e.runtime.notAcquired(w, sessions.ErrFull)
		return
	}
	call.gathered(1)
	err := e.batches.Do(ctx, luaBatchKey{w.ready, w.keys[0]}, call, e.rules(w))
	if call.counted { // it left, or led, while the batch waited for others
		call.gathered(-1)
	}
	if err != nil {
		call.res = unsent(err)
	}
}

// gathered counts the call among those that wait in a batch, or no more.
func (c *luaCall) gathered(n int64) {
	c.way.name.Gathered.Add(n)
	c.counted = n > 0
}

// rules say when a batch goes: it is never larger than what a new connection may carry, and waits for others
// no longer than a connection would lie idle.
func (e *luaEngine) rules(w *way) gather.Rules {
	size := e.config.BatchSize
	if most := w.request.MaxUses; most > 0 {
		size = min(size, most)
	}
	return gather.Rules{Size: size, Min: e.config.MinBatchSize,
		Latency: min(time.Duration(e.config.MaxBatchLatency), w.request.IdleTimeout)}
}

// carryBatch sends a batch over a connection. The call that leads it waits for the connection, and others may
// join meanwhile.
func (e *luaEngine) carryBatch(ctx context.Context, lead *luaCall, b *gather.Batch[luaBatchKey, *luaCall]) {
	lead.gathered(-1) // if it waits from now on, it does so in the line for a connection
	if e.runtime.state.closing.Err() != nil {
		e.refuse(begun(b.Begin(all)), unsent(ErrClosed))
		return
	}
	lease, why := e.session(ctx, lead)
	if lease == nil {
		if cause := ended(ctx); cause != nil && why.Status == Unsent && errors.Is(why.Err, cause) {
			lead.res = why // which is nobody else's affair
			return
		}
		e.refuse(begun(b.Begin(all)), why)
		return
	}
	defer lease.Discard() // if something of the host's panics
	s, _ := lease.Session()
	calls := begun(b.Begin(func(n int) int { return 1 + lease.More(n-1) }))
	s.reused(lead.way, len(calls)-1)
	s.sendBatch(calls, lead.way.watchdog())
	b.Finish() // they need not wait for the end of the connection
	e.finish(lease, s, lead.policy)
}

func all(n int) int { return n }

// begun counts the calls of a batch out of those that wait.
func begun(calls []*luaCall) []*luaCall {
	for _, c := range calls[1:] {
		c.gathered(-1)
	}
	return calls
}

// refuse gives every message of a batch the result of having no connection.
func (e *luaEngine) refuse(calls []*luaCall, why Result) {
	for i, c := range calls {
		c.res = why
		if i == 0 {
			continue
		}
		switch {
		case why.Err == ErrFull:
			c.res.RetryAfter = fullDelay() // so that they do not return together
		case isThrottled(why.Err):
			c.way.name.Throttled.Add(1)
		}
	}
}

func isThrottled(err error) bool {
	_, ok := errors.AsType[*ThrottledError](err)
	return ok
}
