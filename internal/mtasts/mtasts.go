// Package mtasts finds out which MTA-STS policy of RFC 8461 applies to mail for a domain: it looks for the
// TXT record, fetches the policy over HTTPS, and keeps it. What a policy means for a delivery is the
// caller's business.
//
// A policy that is held is worth more than whatever an attacker on the network can do: until its max_age
// has passed it is replaced by nothing but another valid policy that came with a valid certificate. Only
// the first contact with a domain is a matter of trust.
package mtasts

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/resolver"
)

const (
	defaultTimeout = 20 * time.Second
	defaultFetches = 32
	defaultSize    = 10000
)

// Status says what is known of a domain's policy.
type Status int

// A result has one of these. Only with Fetched, Cached and Kept is there a policy.
const (
	// Unknown: nothing was found out, because the caller's context ended, the cache is closed or too
	// many fetches are under way. The zero value: it must not be taken for the absence of a policy.
	Unknown Status = iota
	// NoRecord: the domain has no policy, or none that is published as such.
	NoRecord
	// InvalidRecord: the domain's TXT record is broken, or there is more than one, which RFC 8461 section
	// 3.1 treats as none.
	InvalidRecord
	// LookupFailed: the TXT record could not be had.
	LookupFailed
	// FetchFailed: there is a record, and no policy could be had. RFC 8461 section 3.3 has mail delivered
	// as if there were none.
	FetchFailed
	// Fetched: the policy was fetched for this call.
	Fetched
	// Cached: the policy was fetched before, and the record does not speak of another one.
	Cached
	// Kept: the policy was fetched before and goes on until it expires, although the attempt to confirm or
	// to replace it failed.
	Kept
)

func (s Status) String() string {
	switch s {
	case Unknown:
		return "Unknown"
	case NoRecord:
		return "NoRecord"
	case InvalidRecord:
		return "InvalidRecord"
	case LookupFailed:
		return "LookupFailed"
	case FetchFailed:
		return "FetchFailed"
	case Fetched:
		return "Fetched"
	case Cached:
		return "Cached"
	case Kept:
		return "Kept"
	}
	return "Status(" + strconv.Itoa(int(s)) + ")"
}

// holds reports whether there is a policy.
func (s Status) holds() bool { return s >= Fetched }

// Result is what [Cache.Get] found out.
type Result struct {
	// Status says whether there is a policy and how it was had.
	Status Status
	// Policy is the policy that applies; its Mode is None where there is none. Its MX is shared with
	// other callers and must not be written to.
	Policy Policy
	// ID is that of the TXT record that led to the policy; empty without one.
	ID string
	// Fetched and Expires bound the policy's life; zero without one.
	Fetched, Expires time.Time
	// Err is why there is no policy, or why the policy is Kept: an [*Error], except with Unknown. It is nil
	// with NoRecord, Fetched and Cached.
	Err error
}

// Failure is the reason for Err that the domain would read in a report (RFC 8460): NoFailure if there is
// none. It may be set while an older policy applies.
func (r Result) Failure() Failure {
	var e *Error
	if errors.As(r.Err, &e) {
		return e.Failure
	}
	return NoFailure
}

var (
	// ErrClosed is why nothing is found out once Close has begun.
	ErrClosed = errors.New("the MTA-STS cache is closed")
	// ErrBusy is why nothing was found out: as many fetches as are allowed were under way for as long as
	// the time limit.
	ErrBusy = errors.New("too many MTA-STS policies are being fetched")
)

// Cache answers which policy applies to a domain. The zero value works, with the machine's resolver and
// roots. Fields must not change after first use, and a Cache must not be copied.
//
// A domain that was not asked for lately makes the caller wait while its record is looked up and, where
// that says so, the policy is fetched; callers for one domain wait together. Later calls are answered from
// memory. While they come, and no more than an hour apart, the record is looked at again in the background
// as its TTL says (once a minute to once an hour). A policy is fetched again when the record has another
// id, and in the background once a day, or when half of its max_age has passed; after a failure not before
// 5 minutes, unless the id is another again. Where there is no record it is asked for again when its TTL
// has passed, and the caller waits.
type Cache struct {
	// Lookup asks for the TXT records of a name that is absolute and in A-labels; it should have a cache.
	// Nil: a [resolver.Client] of its own.
	Lookup func(ctx context.Context, name string) resolver.Answer
	// DialContext opens the connection to "mta-sts.DOMAIN:443" over "tcp". This is the place to refuse
	// addresses: no other connection is made. Nil: net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// RootCAs are trusted to vouch for policy hosts. Nil: the machine's.
	RootCAs *x509.CertPool
	// Store keeps policies over a restart. Nil: they are kept in memory alone.
	Store Store
	// Logger is told of policies that cannot be fetched and of failures of Store. Nil: nobody is.
	Logger *slog.Logger
	// Timeout limits, each for itself, the lookup of a record, the wait for one of the Fetches, a fetch
	// from the dial to the last byte, and a call of Store. 0 or less: 20 s.
	Timeout time.Duration
	// Fetches is how many policies are fetched at the same time. 0 or less: 32.
	Fetches int
	// Size is how many domains with a policy are kept in memory, and how many without; those that were
	// not asked for the longest go first, and with them what is not in Store. So domains without a policy
	// do not push out the others. 0 or less: 10000.
	Size int

	own resolver.Client // asked where Lookup is nil

	mu      sync.Mutex
	memory  memory
	flights map[string]*flight
	turns   chan struct{} // holds one element for each fetch that is under way
	closed  bool
	landed  chan struct{} // closed when there are no flights after Close; nil before
}

func (c *Cache) timeout() time.Duration {
	if c.Timeout <= 0 {
		return defaultTimeout
	}
	return c.Timeout
}

// Get returns the policy that applies now to mail for domain, the part after the @ of a recipient (RFC
// 8461 section 2), in A-labels; other spellings are brought into that form. It waits as [Cache] describes,
// and no longer than ctx lasts; what it waits for goes on for the others and for the next call. If ctx
// ends, a policy that is still good is returned as Kept. Get is safe for concurrent use.
func (c *Cache) Get(ctx context.Context, domain string) Result {
	if r, ok := c.recall(domain); ok {
		return r
	}
	name, err := address.ToASCII(domain)
	if err == nil && strings.HasPrefix(name, "[") {
		err = errors.New("an address literal is no domain")
	}
	if err != nil {
		return Result{Status: NoRecord}
	}
	r, f := c.join(ctx, name)
	if f == nil {
		return r
	}
	select {
	case <-f.done:
		return f.result
	case <-ctx.Done():
		return c.leave(name, ctx.Err())
	}
}

// recall is the short way of Get: what memory says while nothing is due.
func (c *Cache) recall(domain string) (Result, bool) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.memory.get(domain)
	if k == nil || c.closed || !now.Before(k.checkAt) {
		return Result{}, false
	}
	return k.result, true
}

// join returns what memory says, or else the flight to wait for.
func (c *Cache) join(ctx context.Context, domain string) (Result, *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return Result{Err: ErrClosed}, nil
	}
	var k known
	if remembered := c.memory.get(domain); remembered != nil {
		k = *remembered
	}
	now := time.Now()
	if now.Before(k.checkAt) {
		return k.result, nil
	}
	f := c.flights[domain]
	if now.Before(k.waitAt) {
		if f == nil {
			c.launch(domain, k)
		}
		return k.result, nil
	}
	if f == nil {
		if err := ctx.Err(); err != nil {
			return k.undecided(domain, now, err), nil
		}
		f = c.launch(domain, k)
	}
	return Result{}, f
}

// leave is for a caller who waits no longer.
func (c *Cache) leave(domain string, err error) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	var k known
	if remembered := c.memory.get(domain); remembered != nil {
		k = *remembered
	}
	return k.undecided(domain, time.Now(), err)
}

// Close ends what is under way, with [ErrClosed], and waits until nothing of it is left or ctx ends; it
// then returns the error of ctx. It can be called again. It does not close what the fields hold.
func (c *Cache) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	if c.landed == nil {
		c.landed = make(chan struct{})
		for _, f := range c.flights {
			f.cancel(ErrClosed)
		}
		if len(c.flights) == 0 {
			close(c.landed)
		}
	}
	landed := c.landed
	c.mu.Unlock()
	select {
	case <-landed:
	case <-ctx.Done():
		select {
		case <-landed:
		default:
			return ctx.Err()
		}
	}
	return c.own.Close()
}

// size is how many domains of each kind memory holds.
func (c *Cache) size() int {
	if c.Size <= 0 {
		return defaultSize
	}
	return c.Size
}

func (c *Cache) log(level slog.Level, message, domain string, err error, more ...slog.Attr) {
	if c.Logger != nil {
		attrs := append(more, slog.String("domain", domain), slog.Any("error", err))
		c.Logger.LogAttrs(context.Background(), level, message, attrs...)
	}
}

// lookup asks for the TXT records of a name.
func (c *Cache) lookup(ctx context.Context, name string) resolver.Answer {
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	if c.Lookup != nil {
		return c.Lookup(ctx, name)
	}
	return c.own.Lookup(ctx, name, resolver.TypeTXT)
}

// capacity is how many fetches may be under way.
func (c *Cache) capacity() int {
	if c.Fetches <= 0 {
		return defaultFetches
	}
	return c.Fetches
}
