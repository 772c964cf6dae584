package main

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mtadelivery/delivery"
)

// transfer is one copy of an envelope on its way.
type transfer struct {
	number   int // from 1 on, over all envelopes and copies
	id       string
	envelope *envelope
	results  []delivery.Result // in the envelope's order
	missing  atomic.Int32      // calls that have not come back
}

// task is one call of Deliver to make.
type task struct {
	*transfer
	call *call
}

// send delivers every copy of every envelope, so many calls at a time, and reports them. When ctx
// ends, no further copy is begun, calls that wait come back unsent, and those under way are cut
// closeTimeout later.
func (h *host) send(ctx context.Context, o *options, envelopes []*envelope, r *report, bar *progress) {
	for _, e := range envelopes {
		r.expect(e, o.copies)
	}
	stopWatching := context.AfterFunc(ctx, h.close)
	defer stopWatching()
	stopBar := bar.start(r)
	defer stopBar()

	r.begin()
	tasks := make(chan task)
	var workers sync.WaitGroup
	for range o.calls {
		workers.Go(func() {
			for t := range tasks {
				deliverOne(ctx, t, r)
			}
		})
	}
	feed(ctx, o, envelopes, tasks)
	close(tasks)
	workers.Wait()
	stopBar()
	r.end(h.runtime.Stats().Opened)
}

// feed makes the tasks. What ctx leaves over is begun only where no summary could count it: it then
// comes back unsent.
func feed(ctx context.Context, o *options, envelopes []*envelope, tasks chan<- task) {
	number := 0
	for range o.copies {
		for _, e := range envelopes {
			if o.bulk() && ctx.Err() != nil {
				return
			}
			number++
			t := &transfer{number: number, id: rand.Text(), envelope: e, results: make([]delivery.Result, len(e.to))}
			t.missing.Store(int32(len(e.calls)))
			for i := range e.calls {
				tasks <- task{t, &e.calls[i]}
			}
		}
	}
}

// deliverOne makes one call, and reports the message if it was the last one missing.
func deliverOne(ctx context.Context, t task, r *report) {
	start := time.Now()
	outcome := t.call.queue.protocol.Deliver(ctx, t.call.message(t.envelope, t.id))
	r.latency(time.Since(start), &outcome)
	for i, place := range t.call.places {
		t.results[place] = outcome.Results[i]
	}
	if t.missing.Add(-1) == 0 {
		r.message(t.transfer)
	}
}
