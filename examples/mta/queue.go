package main

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mtadelivery/delivery"
)

// item is a message in the queue.
type item struct {
	msg      *delivery.Message
	created  time.Time
	due      time.Time
	failures int
}

// byDue is a heap of items, the one that is due first on top.
type byDue []*item

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h byDue) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byDue) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *byDue) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// queue keeps messages until they are due, and knows how each scheduled queue delivers.
type queue struct {
	rt  *delivery.Runtime
	log *slog.Logger

	mu     sync.Mutex
	items  byDue
	policy *delivery.Policy
	lanes  map[delivery.QueueName]*lane
	wake   chan struct{}
}

// lane is the config of one scheduled queue and its protocol.
type lane struct {
	config   delivery.QueueConfig
	protocol delivery.Protocol
	policy   *delivery.Policy
	expires  time.Time
}

func newQueue(rt *delivery.Runtime, log *slog.Logger) *queue {
	return &queue{rt: rt, log: log, lanes: map[delivery.QueueName]*lane{}, wake: make(chan struct{}, 1)}
}

// load puts a policy in force. Messages that are being delivered end under the old one.
func (q *queue) load(ctx context.Context, file string) error {
	policy, err := q.rt.LoadPolicy(ctx, file)
	if err != nil {
		return err
	}
	q.rt.SetPolicy(policy)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.policy = policy
	q.log.Info("policy loaded", "file", file)
	return nil
}

// lane returns how a scheduled queue delivers, asking the policy when what we have is old.
func (q *queue) lane(ctx context.Context, name delivery.QueueName) (*lane, error) {
	q.mu.Lock()
	policy, l := q.policy, q.lanes[name]
	q.mu.Unlock()
	if l != nil && l.policy == policy && time.Now().Before(l.expires) {
		return l, nil
	}
	config, err := policy.QueueConfig(ctx, name)
	if err != nil {
		return nil, err
	}
	protocol, err := q.rt.Protocol(config)
	if err != nil {
		return nil, err
	}
	fresh := &lane{config, protocol, policy, time.Now().Add(time.Duration(config.RefreshInterval))}
	q.mu.Lock()
	old := q.lanes[name]
	q.lanes[name] = fresh
	q.mu.Unlock()
	if old != nil {
		// Others may be delivering through the old handle: give it back when they are done.
		go old.protocol.Close(context.Background())
	}
	return fresh, nil
}

func (q *queue) add(it *item) {
	q.mu.Lock()
	heap.Push(&q.items, it)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// work delivers what is due with so many workers, until ctx ends; then finished is closed as soon as
// the last delivery is.
func (q *queue) work(ctx context.Context, workers int) (finished chan struct{}) {
	due := make(chan *item)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for it := range due {
				q.deliver(ctx, it)
			}
		})
	}
	finished = make(chan struct{})
	go func() {
		defer close(finished)
		q.dispatch(ctx, due)
		close(due)
		running.Wait()
	}()
	return finished
}

// dispatch hands items to the workers as they become due.
func (q *queue) dispatch(ctx context.Context, due chan<- *item) {
	for {
		it, wait := q.next()
		if it == nil {
			select {
			case <-time.After(wait):
			case <-q.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case due <- it:
		case <-ctx.Done():
			q.add(it)
			return
		}
	}
}

// next takes an item that is due, or says how long to wait for one.
func (q *queue) next() (*item, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, time.Hour
	}
	if wait := time.Until(q.items[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&q.items).(*item), 0
}

// deliver makes one attempt at a message and settles what comes of it.
func (q *queue) deliver(ctx context.Context, it *item) {
	name, err := it.msg.QueueName()
	if err != nil {
		q.log.Error("bounced", "id", it.msg.ID, "error", err)
		return
	}
	l, err := q.lane(ctx, name)
	if err != nil { // a policy in trouble: keep the mail, try again soon
		q.log.Error("no config", "queue", name.String(), "error", err)
		q.again(it, it.msg.Recipients, time.Minute)
		return
	}
	q.settle(it, l, l.protocol.Deliver(ctx, it.msg))
}

// settle takes the recipients that are done out of the message and puts the rest back.
func (q *queue) settle(it *item, l *lane, outcome delivery.Outcome) {
	var left []delivery.Recipient
	tried, wait := false, time.Duration(0)
	for i, r := range outcome.Results {
		q.log.Info(r.Status.String(), "id", it.msg.ID, "to", r.Recipient, "reply", r.Response.String(), "error", r.Err)
		switch r.Status {
		case delivery.Delivered, delivery.Permanent: // a bounce would be written here
			continue
		case delivery.Transient:
			tried = true
		}
		left = append(left, it.msg.Recipients[i])
		wait = max(wait, r.RetryAfter)
	}
	if c := outcome.Changes; c != nil { // what Lua changed is there at the next attempt
		for key, value := range c.Meta {
			it.msg.Meta[key] = value
		}
		if c.Body != nil {
			it.msg.Body = c.Body
		}
	}
	if len(left) == 0 {
		return
	}
	if tried {
		it.failures++
		it.msg.Attempts++
		if wait == 0 {
			wait = l.config.RetryDelay(it.failures)
			wait += rand.N(wait/20 + 1) // what failed together does not come back together
		}
	}
	if time.Since(it.created)+wait > time.Duration(l.config.MaxAge) {
		q.log.Warn("expired", "id", it.msg.ID, "recipients", len(left))
		return
	}
	q.again(it, left, wait)
}

func (q *queue) again(it *item, left []delivery.Recipient, wait time.Duration) {
	it.msg.Recipients, it.due = left, time.Now().Add(wait)
	q.add(it)
}
