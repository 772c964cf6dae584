package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mtadelivery/delivery/internal/egress"
	"github.com/mtadelivery/delivery/internal/gather"
	"github.com/mtadelivery/delivery/internal/sessions"
)

// luaEngine delivers by the send or send_batch method of an object that a constructor event made.
type luaEngine struct {
	runtime *Runtime
	config  *CustomLua
	sources sourcePicker
	ways    egress.Dated[luaWayName, *way]
	batches *gather.Gatherer[luaBatchKey, *luaCall] // nil: one message at a time
}

// luaWayName is all that the way of a message is made of, besides what the Egress says. It names the policy
// by its serial, so that an old one is not kept.
type luaWayName struct {
	domain, tenant, campaign, routing, asked string
	policy                                   uint64
}

// luaBatchKey is what the messages of a batch have in common: with the connection key, the policy, the
// constructor, domain, tenant and campaign.
type luaBatchKey struct{ ready, connection string }

// luaCall is one message on its way through a connection.
type luaCall struct {
	attempt *attempt
	way     *way
	policy  *Policy
	message luaMessage
	res     Result
	counted bool // in way.name.Gathered
}

func newLuaEngine(r *Runtime, c *CustomLua, pool string) *luaEngine {
	e := &luaEngine{runtime: r, config: c, sources: sourcePicker{runtime: r, pool: pool}}
	e.ways.Max = maxWays
	if c.BatchSize > 1 {
		e.batches = &gather.Gatherer[luaBatchKey, *luaCall]{Run: e.carryBatch, Closing: r.ready().closing.Done()}
	}
	return e
}

// wayFrom finds the way from a source: as for SMTP, without hosts.
func (e *luaEngine) wayFrom(ctx context.Context, a *attempt, asked string, source *keyed[EgressSource]) (*way, *PlanError) {
	q := &a.queue
	name := luaWayName{q.Domain, q.Tenant, q.Campaign, q.RoutingDomain, asked, a.policy.serialOrNone()}
	site := q.routing()
	if known, ok := e.ways.Get(name); ok && known.source == source && !known.name.Gone() {
		path, err := e.runtime.egressPath(ctx, pathName{site, source.config.Name, site})
		if err == nil && path == known.path {
			return known, nil
		}
	}
	from := source.config.Name
	w := &way{asked: asked, source: source, site: site, ready: from + "->" + site + "@lua:" + e.config.Constructor}
	var err error
	if w.path, err = e.runtime.egressPath(ctx, pathName{site, from, site}); err != nil {
		return w, unresolved(a.queue, err)
	}
	e.runtime.limit(w)
	w.keys = []string{e.key(name)}
	w.request.Keys = w.keys
	e.ways.Put(name, w, time.Time{})
	return w, nil
}

// key is that of the connections that may serve a queue: what one tenant's constructor made never sends
// another's mail, nor what an old policy's made under a new one.
func (e *luaEngine) key(n luaWayName) string {
	return fmt.Sprintf("%d %q %q %q %q", n.policy, e.config.Constructor, n.domain, n.tenant, n.campaign)
}

func (e *luaEngine) plan(ctx context.Context, a *attempt) (Plan, error) {
	a.policy = e.runtime.currentPolicy()
	w, failed := e.sources.choose(ctx, a, true, e)
	return Plan{Protocol: "lua", ReadyName: w.ready, Constructor: e.config.Constructor}, errorOrNil(failed)
}

func (e *luaEngine) deliver(ctx context.Context, a *attempt) {
	a.policy = e.runtime.currentPolicy() // and no other, whatever SetPolicy does meanwhile
	for done := false; !done; {
		done = e.deliverFromOne(ctx, a)
	}
}

// deliverFromOne delivers from the source whose turn it is. It tells whether the attempt is over: not where
// there was no room to wait for a connection.
func (e *luaEngine) deliverFromOne(ctx context.Context, a *attempt) (over bool) {
	w, failed := e.sources.choose(ctx, a, false, e)
	call := &luaCall{attempt: a, way: w, policy: a.policy, message: luaMessage{attempt: a}}
	switch cause := e.runtime.ended(ctx); {
	case cause != nil:
		call.res = unsent(cause)
	case failed != nil && a.noRoom != nil:
		call.res = *a.noRoom
		a.settleAll(call.res)
		a.countIn(w)
		return true
	case failed != nil:
		call.res = failed.resultOn(w)
		if _, ok := errors.AsType[*ConfigError](error(failed)); ok {
			a.err = failed
		}
	case a.policy == nil:
		call.res = e.notConnected(errNoPolicy)
	case e.batches != nil:
		e.join(ctx, call)
	default:
		e.carryOne(ctx, call)
	}
	if call.res.Session == nil && w.ready != "" {
		call.res.Session = &Session{Protocol: "lua", ReadyName: w.ready, Source: w.source.config.Name, Peer: viaLua + e.config.Constructor}
	}
	if call.res.Err == ErrFull {
		a.full, a.noRoom = append(a.full, w.asked), new(call.res)
		return false
	}
	a.changes = call.message.changes
	a.settleAll(call.res)
	a.countIn(w)
	return true
}

var errNoPolicy = errors.New("there is no policy: see Runtime.SetPolicy")

// viaLua begins the name of the peer of a Lua connection.
const viaLua = "Lua via "

// carryOne sends one message over a connection.
func (e *luaEngine) carryOne(ctx context.Context, call *luaCall) {
	lease, res := e.session(ctx, call)
	if lease == nil {
		call.res = res
		return
	}
	defer lease.Discard() // if something of the host's panics
	s, _ := lease.Session()
	s.send(call, call.way.watchdog())
	e.finish(lease, s, call.policy)
}

// luaWatchdog is the default bound on one call of send.
const luaWatchdog = 10 * time.Minute

func (w *way) watchdog() time.Duration {
	return cmp.Or(time.Duration(w.path.config.DispatcherProgressWatchdogTimeout), luaWatchdog)
}

// finish gives a connection back, or ends it.
func (e *luaEngine) finish(lease *sessions.Lease[*luaSession], s *luaSession, p *Policy) {
	switch {
	case s.doubtful:
		s.hangUp()
		lease.Discard()
	case p != e.runtime.currentPolicy():
		lease.Retire() // a call that had begun when the policy was replaced may have opened it since
	default:
		lease.Release()
	}
}

// session returns a lease on a connection, or the result of having none.
func (e *luaEngine) session(ctx context.Context, call *luaCall) (*sessions.Lease[*luaSession], Result) {
	r, w := e.runtime, call.way
	lease, err := r.state.lua.Acquire(ctx, w.request)
	if err != nil {
		return nil, r.notAcquired(w, err)
	}
	given := false
	defer func() {
		if !given { // which does nothing where the lease has ended, but not where something of the host's panicked
			lease.Discard()
		}
	}()
	if why := r.passShared(ctx, w); why != nil {
		lease.Release()
		return nil, *why
	}
	var shared sharedRoom
	for {
		if s, ok := lease.Session(); ok {
			s.reused(w, 1)
			given = true
			return lease, Result{}
		}
		release, wait, err := shared.hold(ctx, r, w)
		switch {
		case err != nil:
			return nil, r.notHeld(ctx, err)
		case wait == 0:
			if why := e.open(ctx, call, lease, release); why != nil {
				return nil, *why
			}
			given = true
			return lease, Result{}
		}
		next, err := lease.Postpone(ctx, wait)
		if err != nil {
			return nil, r.notAcquired(w, shared.delayed(err))
		}
		lease = next
	}
}

// hurry lets what waits for others go: the protocol is being closed, and nobody else can come.
func (e *luaEngine) hurry() {
	if e.batches != nil {
		e.batches.Hurry()
	}
}

func (e *luaEngine) close() {
	suffix := "@lua:" + e.config.Constructor
	e.runtime.state.lua.Drain(func(group, _ string) bool { return strings.HasSuffix(group, suffix) })
}
