package mtasts

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

const (
	// A record is not asked for more often than minCheck, whatever its TTL, and not less often than
	// maxCheck while there is mail.
	minCheck = time.Minute
	maxCheck = time.Hour
	// grace is how long after a check was due its outcome is not waited for. A domain that gets mail all
	// the time then never makes it wait, and one that gets mail once a day is not judged by the policy
	// of yesterday.
	grace = time.Hour
	// retry is how long the same policy is not asked for again after a failure (RFC 8461 section 3.3).
	retry = 5 * time.Minute
	// refresh is the age at which a policy is fetched again, unless half of its life passes earlier (RFC
	// 8461 section 3.3 suggests once a day).
	refresh     = 24 * time.Hour
	minLifetime = time.Minute
)

// known is what is known of a domain. It is a value: a flight works on a copy.
type known struct {
	held   held
	loaded bool // the store was asked

	// The last fetch that failed.
	failedID string
	failure  error
	retryAt  time.Time

	result  Result
	checkAt time.Time // until then result is as good as new
	waitAt  time.Time // from then on result is not given any more before a check
}

// conclude sets the result: held as long as it lives, else why there is no policy. The next check is due at
// next.
func (k *known) conclude(status Status, err error, now, next time.Time) {
	k.checkAt = later(next, now.Add(minCheck))
	k.waitAt = k.checkAt
	if status == FetchFailed || k.held.alive(now) {
		k.waitAt = k.checkAt.Add(grace)
	}
	if !k.held.alive(now) {
		k.result = Result{Status: status, Err: err}
		if status == NoRecord {
			k.result.Err = nil // it is what most domains have
		}
		return
	}
	if !status.holds() {
		status = Kept
	}
	k.checkAt = earlier(k.checkAt, k.held.expires)
	k.waitAt = earlier(k.waitAt, k.held.expires)
	k.result = Result{
		Status: status, Err: err,
		Policy: k.held.policy, ID: k.held.id, Fetched: k.held.fetched, Expires: k.held.expires,
	}
}

// undecided is the result if nothing new could be found out. It is for those who wait and not remembered:
// the next who asks begins again.
func (k known) undecided(domain string, now time.Time, err error) Result {
	if !k.held.alive(now) {
		return Result{Err: err}
	}
	k.conclude(Kept, &Error{Domain: domain, Err: err}, now, now)
	return k.result
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// flight is a check of one domain that is under way, for all who wait for it. Its context is its own: what
// it finds out is of use to the next caller even if those of now have left. Its limits end it.
type flight struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	result Result // written before done is closed
}

// launch begins a flight. The lock is held.
func (c *Cache) launch(domain string, k known) *flight {
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &flight{cancel: cancel, done: make(chan struct{})}
	if c.flights == nil {
		c.flights = make(map[string]*flight)
		c.turns = make(chan struct{}, c.capacity())
	}
	c.flights[domain] = f
	go func() {
		defer cancel(nil)
		c.fly(ctx, domain, f, k)
	}()
	return f
}

// fly takes a flight from its beginning to its end.
func (c *Cache) fly(ctx context.Context, domain string, f *flight, k known) {
	c.load(ctx, domain, &k)
	found := c.look(ctx, domain, &k)
	if found.renew {
		if now := time.Now(); found.id == k.held.id && k.held.alive(now) {
			// Only age asks for a fetch. The policy is good: nobody needs to wait for that.
			k.conclude(Cached, nil, now, now)
			f = c.handOver(domain, f, k)
		}
		found = c.renew(ctx, domain, found, &k)
	}
	c.land(domain, f, k, found)
}

// handOver answers those who wait for f with what is known so far, and returns the flight that goes on
// with the rest.
func (c *Cache) handOver(domain string, f *flight, k known) *flight {
	rest := &flight{cancel: f.cancel, done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.put(domain, k, c.size())
	c.flights[domain] = rest
	f.result = k.result
	close(f.done)
	return rest
}

// land makes what a flight found out known, and ends it, in one step: nobody who asks meanwhile begins
// another.
func (c *Cache) land(domain string, f *flight, k known, found finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.put(domain, k, c.size())
	f.result = found.result
	close(f.done)
	delete(c.flights, domain)
	if c.landed != nil && len(c.flights) == 0 {
		close(c.landed)
	}
}

// finding is what a step of a flight found out.
type finding struct {
	result Result // for those who wait

	renew bool // instead of a result: the policy of the record with this id is to be fetched
	id    string
	next  time.Time // when the record is to be looked at again
}

// look finds out what the record says of the domain now, and of the policy that is held.
func (c *Cache) look(ctx context.Context, domain string, k *known) finding {
	id, ttl, status, err := c.record(ctx, domain)
	now := time.Now()
	if ctx.Err() != nil {
		return finding{result: k.undecided(domain, now, context.Cause(ctx))}
	}
	next := now.Add(min(ttl, maxCheck))
	switch {
	case status != Cached:
		if k.held.alive(now) && k.held.policy.Mode != None {
			c.log(slog.LevelWarn, "MTA-STS policy not confirmed", domain, err, slog.String("id", k.held.id))
		}
		k.conclude(status, err, now, next)
	case id == k.held.id && now.Before(k.held.refreshAt()):
		k.conclude(Cached, nil, now, earlier(next, k.held.refreshAt()))
	case id == k.failedID && now.Before(k.retryAt):
		k.conclude(FetchFailed, k.failure, now, earlier(next, k.retryAt))
	default:
		return finding{renew: true, id: id, next: next}
	}
	return finding{result: k.result}
}

// refreshAt is when a policy is to be fetched again though its id is the same. That of no policy has passed.
func (h held) refreshAt() time.Time {
	return h.fetched.Add(min(refresh, h.expires.Sub(h.fetched)/2))
}

var errNoRecord = errors.New("there is no MTA-STS record")

// record returns the id that the domain's TXT record has, with the status Cached; or else the status that
// the domain has without a policy, and the reason.
func (c *Cache) record(ctx context.Context, domain string) (id string, ttl time.Duration, status Status, err error) {
	answer := c.lookup(ctx, "_mta-sts."+domain)
	switch answer.Result {
	case resolver.Records:
		id, found, err := ParseRecord(answer.TXT)
		switch {
		case err != nil:
			return "", answer.TTL, InvalidRecord, &Error{Domain: domain, Err: err}
		case found:
			return id, answer.TTL, Cached, nil
		}
		return "", answer.TTL, NoRecord, &Error{Domain: domain, Err: errNoRecord}
	case resolver.NoData, resolver.NXDomain:
		return "", answer.TTL, NoRecord, &Error{Domain: domain, Err: errNoRecord}
	}
	err = answer.Err
	if err == nil {
		err = errors.New(answer.Result.String())
	}
	return "", 0, LookupFailed, &Error{Domain: domain, Err: err}
}

// renew fetches the policy that the record that was found speaks of.
func (c *Cache) renew(ctx context.Context, domain string, record finding, k *known) finding {
	if err := c.turn(ctx); err != nil {
		return finding{result: k.undecided(domain, time.Now(), err)}
	}
	policy, body, err := c.fetch(ctx, domain)
	<-c.turns
	now := time.Now()
	if ctx.Err() != nil {
		return finding{result: k.undecided(domain, now, context.Cause(ctx))}
	}
	id, next := record.id, record.next
	if err != nil {
		c.unfetched(domain, id, err, k.held.alive(now) && k.held.policy.Mode != None)
		k.failedID, k.failure, k.retryAt = id, err, now.Add(retry)
		k.conclude(FetchFailed, err, now, earlier(next, k.retryAt))
		return finding{result: k.result}
	}
	k.held = held{id, policy, now, now.Add(lifetime(policy))}
	k.loaded = true // what the store may have is older
	c.save(ctx, domain, body, k.held)
	k.conclude(Cached, nil, now, earlier(next, k.held.refreshAt()))
	result := k.result
	result.Status = Fetched
	return finding{result: result}
}

// turn waits for one of the fetches that are allowed at the same time; the caller gives it back.
func (c *Cache) turn(ctx context.Context) error {
	limit := time.NewTimer(c.timeout())
	defer limit.Stop()
	select {
	case c.turns <- struct{}{}:
		return nil
	case <-limit.C:
		return ErrBusy
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unfetched tells of a fetch that failed. RFC 8461 section 3.3 wants administrators to know where it was to
// replace a policy that asks for something: that one will end.
func (c *Cache) unfetched(domain, id string, err error, replaces bool) {
	level := slog.LevelInfo
	if replaces {
		level = slog.LevelWarn
	}
	c.log(level, "MTA-STS policy not fetched", domain, err, slog.String("id", id))
}

// load fills k from the store, once.
func (c *Cache) load(ctx context.Context, domain string, k *known) {
	if c.Store == nil || k.loaded {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	entry, err := c.Store.Load(ctx, domain)
	switch {
	case errors.Is(err, ErrNotFound):
		k.loaded = true
		return
	case err != nil: // asked again at the next check
		c.log(slog.LevelError, "MTA-STS policy not loaded", domain, err)
		return
	}
	k.loaded = true
	h, err := entry.read(time.Now())
	if err != nil {
		c.log(slog.LevelError, "stored MTA-STS policy refused", domain, err)
		return
	}
	k.held = h
}

// save gives a policy that was fetched to the store, before it is made known: the store then has it before
// the next one for this domain can come.
func (c *Cache) save(ctx context.Context, domain string, body []byte, h held) {
	if c.Store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	// Without the monotonic clock, which means nothing to another process.
	entry := Entry{ID: h.id, Policy: body, Fetched: h.fetched.Round(0), Expires: h.expires.Round(0)}
	if err := c.Store.Save(ctx, domain, entry); err != nil {
		c.log(slog.LevelError, "MTA-STS policy not saved", domain, err)
	}
}
