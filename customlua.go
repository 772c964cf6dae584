package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/luastate"
	"github.com/mtadelivery/delivery/internal/sessions"
	lua "github.com/yuin/gopher-lua"
)

// CustomLua is the custom_lua table of a protocol: a Lua event makes connection objects, and their
// send method delivers.
type CustomLua struct {
	// Constructor is the event that makes a connection. It is called with domain, tenant and campaign
	// whenever a connection is needed, and returns an object with the methods send and, if it likes,
	// close. The name is free, but must not be one of the events that have a meaning already.
	Constructor string `config:"constructor" required:"true"`

	// Batches are known and not available yet: values that ask for more than one message at a time are
	// refused.
	BatchSize       int      `config:"batch_size" default:"1" min:"1"`
	MinBatchSize    int      `config:"min_batch_size" default:"1" min:"1"`
	MaxBatchLatency Duration `config:"max_batch_latency"`
}

// Validate says what is wrong with the table.
func (c *CustomLua) Validate() error {
	switch {
	case kumo.IsBuiltinEvent(c.Constructor):
		return decode.Errorf("constructor", "%q is the name of an event that has a meaning already", c.Constructor)
	case c.BatchSize > 1:
		return notYet("batch_size", "a batch of more than one message")
	case c.MinBatchSize > 1:
		return notYet("min_batch_size", "a batch of more than one message")
	case c.MaxBatchLatency > 0:
		return notYet("max_batch_latency", "a batch of more than one message")
	}
	return nil
}

// Policy is a KumoMTA policy in Lua, loaded by [Runtime.LoadPolicy]. It answers the events that
// concern delivery: get_queue_config, get_egress_pool, get_egress_source, get_egress_path_config and
// the constructors of custom_lua. It is safe for concurrent use: each call has a Lua state of its
// own, in which the policy ran from the top, so that plain globals are not shared between calls.
type Policy struct {
	runtime *Runtime
	name    string
	serial  uint64 // tells policies apart in connection keys
	program *luastate.Program
	folder  string
	states  luastate.Pool
	module  *kumo.Options
	// rewrites: it handles the event smtp_client_rewrite_delivery_status.
	rewrites bool
}

// eventTimeout bounds a call of an event that answers from the policy alone.
const eventTimeout = time.Minute

// LoadPolicy reads a policy file, runs it and its pre_init and init events, and returns it; use
// [Runtime.SetPolicy] to put it in force. Calls that set up the rest of an MTA (listeners, spools,
// logs) are accepted, ignored and named in one line of the log. The policy's require finds files
// beside it. The error of a policy that cannot be loaded is a [*ConfigError] with file, line and
// reason, or says why the file cannot be read.
func (r *Runtime) LoadPolicy(ctx context.Context, file string) (*Policy, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return r.loadPolicy(ctx, file, filepath.Dir(file), source)
}

// ParsePolicy is [Runtime.LoadPolicy] for a policy in memory. The name stands for the file in
// messages; require finds no files.
func (r *Runtime) ParsePolicy(ctx context.Context, name string, source []byte) (*Policy, error) {
	return r.loadPolicy(ctx, name, "", source)
}

func (r *Runtime) loadPolicy(ctx context.Context, name, folder string, source []byte) (*Policy, error) {
	program, err := luastate.Compile(name, source)
	if err != nil {
		return nil, policyError(err)
	}
	var ignored nameList
	p := &Policy{runtime: r, name: name, serial: r.ready().nextSerial(), program: program, folder: folder,
		module: r.module(ignored.add)}
	p.states.New = p.newState
	s, err := p.states.Get(ctx)
	if err != nil {
		return nil, policyError(err)
	}
	for _, event := range []string{"pre_init", "init"} {
		if _, _, err := p.call(ctx, s, event); err != nil {
			p.states.Drop(s)
			return nil, policyError(err)
		}
	}
	p.rewrites = kumo.Handles(s.L, rewriteEvent)
	p.states.Put(s)
	if names := ignored.sorted(); len(names) > 0 {
		r.logger().Info("policy: calls that set up the rest of an MTA are ignored",
			"file", name, "calls", strings.Join(names, " "))
	}
	return p, nil
}

// newState makes a state in which the policy has run from the top.
func (p *Policy) newState(ctx context.Context) (*luastate.State, error) {
	return p.program.NewState(ctx, func(L *lua.LState) error {
		luastate.PrintTo(L, p.runtime.stdout())
		if p.folder != "" {
			luastate.SearchIn(L, p.folder)
		}
		kumo.Install(L, p.module)
		return nil
	})
}

func (r *Runtime) stdout() io.Writer {
	if r.Stdout != nil {
		return r.Stdout
	}
	return os.Stdout
}

// module is the kumo module as this runtime lends it to Lua.
func (r *Runtime) module(ignored func(string)) *kumo.Options {
	s := r.ready()
	transport := r.HTTP
	if transport == nil {
		transport = s.http
	}
	return &kumo.Options{
		Logger:        r.logger(),
		HTTP:          transport,
		Empty:         decode.Empty{},
		Ignored:       ignored,
		ParseDuration: decode.ParseDuration,
		Sites:         r.siteOf,
		Throttles:     &s.throttles,
		Transports:    &s.transports,
		DNS:           policyDNS{r},
		Make: map[string]func(any) (any, error){
			"make_queue_config":  makeConfig[QueueConfig],
			"make_egress_path":   makeConfig[EgressPath],
			"make_egress_source": makeConfig[EgressSource],
			"make_egress_pool":   makeConfig[EgressPool],
		},
	}
}

// made is a config that Lua made, as Lua holds it.
type made[T any] struct{ config T }

// Tree lets Lua look into the config.
func (m *made[T]) Tree() (any, error) { return decode.Tree(&m.config) }

// opaque are the configs that Lua cannot look into, as upstream.
type opaque[T any] struct{ config T }

// Plain is what kumo.invoke_get_egress_source and invoke_get_egress_pool show of the config.
func (o *opaque[T]) Plain() (any, error) { return decode.Tree(&o.config) }

func makeConfig[T any](tree any) (any, error) {
	var config T
	if err := decodeConfig(tree, &config); err != nil {
		return nil, err
	}
	switch any(config).(type) {
	case EgressSource, EgressPool:
		return &opaque[T]{config}, nil
	}
	return &made[T]{config}, nil
}

// configOf is the config in what an event returned.
func configOf[T any](v lua.LValue) (config T, ok bool) {
	inner, _ := kumo.Config(v)
	switch m := inner.(type) {
	case *made[T]:
		return m.config, true
	case *opaque[T]:
		return m.config, true
	}
	return config, false
}

// ownTransport is what kumo.http uses where the host lends nothing. It connects to no address that is prohibited,
// whatever name led there: what is looked at is the very address that is dialled.
func ownTransport(roots *x509.CertPool, prohibited []netip.Prefix) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	t.ForceAttemptHTTP2, t.DisableCompression, t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = true, true, 64, 1<<20
	if len(prohibited) > 0 {
		t.Proxy = nil // it would connect for us, wherever the URL says
		t.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err == nil && covers(prohibited, to.Addr().Unmap().WithZone("")) {
				err = fmt.Errorf("%s is prohibited", to.Addr())
			}
			return err
		}}).DialContext
	}
	return t
}

// nameList is a set of names, written to by several states at once.
type nameList struct {
	mu    sync.Mutex
	names []string
}

func (l *nameList) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.names, name) {
		l.names = append(l.names, name)
	}
}

func (l *nameList) sorted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(slices.Values(l.names))
}

// policyError gives an error of Lua its public form.
func policyError(err error) error {
	var e ConfigError
	if made, ok := errors.AsType[*ConfigError](err); ok {
		e = *made
	}
	if where, ok := errors.AsType[*luastate.Error](err); ok {
		e.File, e.Line = where.File, where.Line
		e.Reason = cmp.Or(e.Reason, where.Reason)
	}
	if e == (ConfigError{}) {
		return err
	}
	e.Err = err
	return &e
}

// call runs an event in a state.
func (p *Policy) call(ctx context.Context, s *luastate.State, event string, args ...lua.LValue) ([]lua.LValue, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	return kumo.Call(ctx, s, event, args...)
}

// ask calls an event that returns a config object. Without a handler, or if every handler passes on,
// found is false.
func ask[T any](ctx context.Context, p *Policy, event string, args ...string) (config T, found bool, err error) {
	s, err := p.states.Get(ctx)
	if err != nil {
		return config, false, policyError(err)
	}
	returned, handled, err := p.call(ctx, s, event, luaStrings(args...)...)
	if err != nil {
		p.states.Drop(s) // an error may have left it in the middle of something
		return config, false, policyError(err)
	}
	defer p.states.Put(s)
	if !handled {
		return config, false, nil
	}
	got := lua.LNil
	if len(returned) > 0 {
		got = returned[0]
	}
	config, ok := configOf[T](got)
	if !ok {
		return config, true, &ConfigError{File: p.name, Reason: fmt.Sprintf(
			"the event %s returned %s, not what kumo.make_%s makes", event, luaKind(got), strings.TrimSuffix(strings.TrimPrefix(event, "get_"), "_config")+configSuffix(event))}
	}
	return config, true, nil
}

// configSuffix: make_queue_config keeps its ending, make_egress_path has none.
func configSuffix(event string) string {
	if event == "get_queue_config" {
		return "_config"
	}
	return ""
}

func luaKind(v lua.LValue) string {
	if v == lua.LNil {
		return "nil"
	}
	return "a " + v.Type().String()
}

// QueueConfig asks the policy for the config of a queue: the event get_queue_config. A policy that
// does not handle the event, or passes on, leaves every default.
func (p *Policy) QueueConfig(ctx context.Context, queue QueueName) (QueueConfig, error) {
	c, found, err := ask[QueueConfig](ctx, p, "get_queue_config",
		queue.Domain, queue.Tenant, queue.Campaign, queue.RoutingDomain)
	if err == nil && !found {
		return QueueConfig{}.checked()
	}
	return c, err
}

// EgressPath asks the event get_egress_path_config; without a handler every default applies.
func (p *Policy) EgressPath(ctx context.Context, routingDomain, source, site string) (EgressPath, error) {
	path, _, err := ask[EgressPath](ctx, p, "get_egress_path_config", routingDomain, source, site)
	return path, err
}

// EgressSource asks the event get_egress_source, which must define the source.
func (p *Policy) EgressSource(ctx context.Context, name string) (EgressSource, error) {
	source, found, err := ask[EgressSource](ctx, p, "get_egress_source", name)
	if err == nil && !found {
		return source, &ConfigError{File: p.name, Reason: "the event get_egress_source has no handler"}
	}
	return source, err
}

// EgressPool asks the event get_egress_pool, which must define the pool.
func (p *Policy) EgressPool(ctx context.Context, name string) (EgressPool, error) {
	pool, found, err := ask[EgressPool](ctx, p, "get_egress_pool", name)
	if err == nil && !found {
		return pool, &ConfigError{File: p.name, Reason: "the event get_egress_pool has no handler"}
	}
	return pool, err
}

// rewriteEvent gives replies another code.
const rewriteEvent = "smtp_client_rewrite_delivery_status"

// rewriteStatus asks the event for the code that a reply is to have; 0: its own.
func (p *Policy) rewriteStatus(ctx context.Context, reply Response, queue QueueName) (int, error) {
	s, err := p.states.Get(ctx)
	if err != nil {
		return 0, policyError(err)
	}
	args := append([]lua.LValue{lua.LString(reply.String())}, luaStrings(queue.Domain, queue.Tenant, queue.Campaign, queue.routing())...)
	returned, _, err := p.call(ctx, s, rewriteEvent, args...)
	if err != nil {
		p.states.Drop(s)
		return 0, policyError(err)
	}
	defer p.states.Put(s)
	if len(returned) == 0 || returned[0] == lua.LNil {
		return 0, nil
	}
	code, ok := returned[0].(lua.LNumber)
	if !ok || code != lua.LNumber(int(code)) || code < 200 || code > 599 {
		return 0, fmt.Errorf("the event %s returned %s (%v), not a reply code", rewriteEvent, luaKind(returned[0]), returned[0])
	}
	return int(code), nil
}

// LuaModule is the kumo module in a Lua state of the host's own: see [Runtime.InstallLua]. Like the
// state, it serves one goroutine at a time.
type LuaModule struct {
	runtime *Runtime
	state   *luastate.State
}

// InstallLua installs the kumo module in a state that the host made and keeps: as the global kumo
// and for require 'kumo'. The libraries of the state stay as they are. Handlers that Lua registers
// there with kumo.on are called through the module that is returned.
func (r *Runtime) InstallLua(L *lua.LState) *LuaModule {
	kumo.Install(L, r.module(func(string) {}))
	return &LuaModule{r, luastate.Wrap(L)}
}

// Call calls the handlers of an event. Without a handler, or if every handler passes on, it returns
// nothing. It ends with ctx.
func (m *LuaModule) Call(ctx context.Context, event string, args ...lua.LValue) ([]lua.LValue, error) {
	returned, _, err := kumo.Call(ctx, m.state, event, args...)
	return returned, policyError(err)
}

// QueueConfig asks the event get_queue_config, as [Policy.QueueConfig] does.
func (m *LuaModule) QueueConfig(ctx context.Context, queue QueueName) (QueueConfig, error) {
	returned, err := m.Call(ctx, "get_queue_config", luaStrings(queue.Domain, queue.Tenant, queue.Campaign, queue.RoutingDomain)...)
	if err != nil {
		return QueueConfig{}, err
	}
	if len(returned) == 0 {
		return QueueConfig{}.checked()
	}
	return LuaQueueConfig(returned[0])
}

// LuaQueueConfig is the config in a value that kumo.make_queue_config made.
func LuaQueueConfig(v lua.LValue) (QueueConfig, error) {
	c, ok := configOf[QueueConfig](v)
	if !ok {
		return c, &ConfigError{Reason: fmt.Sprintf("got %s, not what kumo.make_queue_config makes", luaKind(v))}
	}
	return c, nil
}

// luaStrings are strings as arguments of an event, where an empty one is nil.
func luaStrings(args ...string) []lua.LValue {
	values := make([]lua.LValue, len(args))
	for i, arg := range args {
		values[i] = lua.LNil
		if arg != "" {
			values[i] = lua.LString(arg)
		}
	}
	return values
}

// luaEngine delivers by the send method of an object that a constructor event made.
type luaEngine struct {
	runtime *Runtime
	config  *CustomLua
	sources sourcePicker
}

func newLuaEngine(r *Runtime, c *CustomLua, pool string) *luaEngine {
	return &luaEngine{runtime: r, config: c, sources: sourcePicker{runtime: r, pool: pool}}
}

// wayFrom finds the way from a source: as for SMTP, without hosts.
func (e *luaEngine) wayFrom(ctx context.Context, a *attempt, asked string, source *keyed[EgressSource]) (*way, *PlanError) {
	from, site := source.config.Name, a.queue.routing()
	w := &way{asked: asked, source: source, site: site, ready: from + "->" + site + "@lua:" + e.config.Constructor}
	var err error
	if w.path, err = e.runtime.egressPath(ctx, pathName{site, from, site}); err != nil {
		return w, unresolved(a.queue, err)
	}
	e.runtime.limit(w)
	return w, nil
}

func (e *luaEngine) plan(ctx context.Context, a *attempt) (Plan, error) {
	w, failed := e.sources.choose(ctx, a, true, e)
	return Plan{Protocol: "lua", ReadyName: w.ready, Constructor: e.config.Constructor}, errorOrNil(failed)
}

func (e *luaEngine) deliver(ctx context.Context, a *attempt) {
	for done := false; !done; {
		done = e.deliverFromOne(ctx, a)
	}
}

// deliverFromOne delivers from the source whose turn it is. It tells whether the attempt is over: not where
// there was no room to wait for a connection.
func (e *luaEngine) deliverFromOne(ctx context.Context, a *attempt) (over bool) {
	w, failed := e.sources.choose(ctx, a, false, e)
	defer func() {
		if over {
			a.countIn(w)
		}
	}()
	var res Result
	var lease *sessions.Lease[*luaSession]
	switch cause := ended(ctx); {
	case cause != nil:
		res = unsent(cause)
	case failed != nil && a.noRoom != nil:
		a.settleAll(*a.noRoom)
		return true
	case failed != nil:
		res = failed.resultOn(w)
	default:
		lease, res = e.session(ctx, w, a.queue)
	}
	if lease == nil {
		if w.ready != "" {
			res.Session = &Session{Protocol: "lua", ReadyName: w.ready, Source: w.source.config.Name, Peer: viaLua + e.config.Constructor}
		}
		if _, ok := errors.AsType[*ConfigError](errorOrNil(failed)); ok {
			a.err = failed
		}
		if res.Err == ErrFull {
			a.full, a.noRoom = append(a.full, w.asked), new(res)
			return false
		}
		a.settleAll(res)
		return true
	}
	defer lease.Discard() // if something of the host's panics
	s, _ := lease.Session()
	m := &luaMessage{attempt: a}
	var reusable bool
	res, reusable = s.send(m, cmp.Or(time.Duration(w.path.config.DispatcherProgressWatchdogTimeout), luaWatchdog))
	if reusable {
		lease.Release()
	} else {
		s.hangUp()
		lease.Discard()
	}
	info := s.info
	res.Session = &info
	a.changes = m.changes
	a.settleAll(res)
	return true
}

// viaLua begins the name of the peer of a Lua connection.
const viaLua = "Lua via "

// luaWatchdog is the default bound on one call of send.
const luaWatchdog = 10 * time.Minute

// session returns a lease on a connection, or the result of having none.
func (e *luaEngine) session(ctx context.Context, w *way, queue QueueName) (*sessions.Lease[*luaSession], Result) {
	policy := e.runtime.currentPolicy()
	if policy == nil {
		return nil, e.notConnected(errors.New("there is no policy: see Runtime.SetPolicy"))
	}
	key := fmt.Sprintf("%d %q %q %q %q", policy.serial, e.config.Constructor, queue.Domain, queue.Tenant, queue.Campaign)
	r := e.runtime
	request := w.request
	request.Keys = []string{key}
	lease, err := r.state.lua.Acquire(ctx, request)
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
			w.name.Reused.Add(1)
			if t := r.Trace; t != nil && t.Reused != nil {
				t.Reused(s.copyInfo())
			}
			given = true
			return lease, Result{}
		}
		release, wait, err := shared.hold(ctx, r, w)
		switch {
		case err != nil:
			return nil, r.notHeld(ctx, err)
		case wait == 0:
			if why := e.open(ctx, policy, w, queue, lease, key, release); why != nil {
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

// open makes a connection and puts it into the lease. A result says why it could not.
func (e *luaEngine) open(ctx context.Context, p *Policy, w *way, queue QueueName, lease *sessions.Lease[*luaSession], key string, release func()) *Result {
	var s *luaSession
	defer func() {
		if s == nil {
			release()
		}
	}()
	s, err := e.connect(ctx, p, w, queue)
	if err != nil {
		if cause := e.runtime.endedBy(ctx, err); cause != nil {
			return new(unsent(cause))
		}
		res := e.notConnected(err)
		if tooOften := w.unreached(err); tooOften != nil {
			res.Scope = ScopeReadyName
			e.runtime.state.lua.Refuse(w.ready, tooOften)
		}
		return &res
	}
	w.name.Reached()
	s.release = release
	lease.Opened(key, s)
	return nil
}

// notConnected is the result of a constructor that gave no connection, whatever it raised.
func (e *luaEngine) notConnected(err error) Result {
	e.runtime.logger().Error("policy: constructor failed", "event", e.config.Constructor,
		"error", err, "traceback", luastate.Traceback(err))
	return Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400, Text: safeText(
		"delivery: failed to connect to any candidate hosts: " + viaLua + e.config.Constructor + ": " + luastate.Message(err))}}
}

// connect calls the constructor in a state that then belongs to the connection.
func (e *luaEngine) connect(ctx context.Context, p *Policy, w *way, queue QueueName) (*luaSession, error) {
	ctx, release := e.runtime.opening(ctx, w.request.Grace)
	defer release()
	state, err := p.states.Get(ctx)
	if err != nil {
		return nil, err
	}
	args := luaStrings(queue.Domain, queue.Tenant, queue.Campaign)
	returned, handled, err := p.call(ctx, state, e.config.Constructor, args...)
	switch {
	case err != nil:
	case !kumo.Handles(state.L, e.config.Constructor):
		err = fmt.Errorf("the policy %s has no handler for the event %q", p.name, e.config.Constructor)
	case !handled || len(returned) == 0 || returned[0] == lua.LNil:
		err = fmt.Errorf("the event %q returned no connection object", e.config.Constructor)
	}
	if err != nil {
		p.states.Drop(state)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	s := &luaSession{runtime: e.runtime, policy: p, state: state, object: returned[0], info: Session{
		ID: newID(), Protocol: "lua", ReadyName: w.ready, Source: w.source.config.Name, Peer: viaLua + e.config.Constructor}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if t := e.runtime.Trace; t != nil && t.Opened != nil {
		t.Opened(s.copyInfo())
	}
	return s, nil
}

func (e *luaEngine) close() {
	suffix := "@lua:" + e.config.Constructor
	e.runtime.state.lua.Drain(func(group, _ string) bool { return strings.HasSuffix(group, suffix) })
}

// luaSession is a connection object with the state that it lives in.
type luaSession struct {
	runtime *Runtime
	policy  *Policy
	state   *luastate.State
	object  lua.LValue
	info    Session
	ctx     context.Context // ends when the session is killed
	cancel  context.CancelCauseFunc
	release func() // gives back what it holds of limits that other processes share
	ended   sync.Once
}

func (s *luaSession) copyInfo() *Session {
	info := s.info
	return &info
}

// Capacity is one: a Lua state serves one message at a time.
func (s *luaSession) Capacity() int { return 1 }

// Comfort is one for the same reason.
func (s *luaSession) Comfort() int { return 1 }

// Alive is true: a Lua object says nothing by itself.
func (s *luaSession) Alive() bool { return true }

// Retire calls the connection's close method.
func (s *luaSession) Retire(why sessions.Reason) {
	s.hangUp()
	s.end(string(why))
}

// Kill makes a running call return. The state is then left to the one who called.
func (s *luaSession) Kill() {
	s.cancel(ErrClosed)
	s.end("cut")
}

func (s *luaSession) end(why string) {
	s.ended.Do(func() {
		s.release()
		if t := s.runtime.Trace; t != nil && t.Closed != nil {
			t.Closed(s.copyInfo(), why)
		}
	})
}

// closeTimeout bounds a close method.
const closeTimeout = 5 * time.Second

// hangUp calls close, if the object has such a method, and gives the state up. Errors are only for
// the log: there is no message left that they could concern.
func (s *luaSession) hangUp() {
	defer s.policy.states.Drop(s.state)
	if s.ctx.Err() != nil {
		return // killed: nothing can be called any more
	}
	ctx, cancel := context.WithTimeout(s.ctx, closeTimeout)
	defer cancel()
	method, err := s.state.Index(ctx, s.object, "close")
	if err == nil && method != lua.LNil {
		_, err = s.state.Call(ctx, 0, method, s.object)
	}
	if err != nil {
		s.runtime.logger().Warn("policy: close failed", "connection", s.info.Peer, "error", luastate.Message(err))
	}
}

var errWatchdog = errors.New("watchdog: send did not return in time")

// send calls the send method with one message. The caller's context does not end it: what has begun
// is finished, or cut by Runtime.Close or the watchdog.
func (s *luaSession) send(m *luaMessage, watchdog time.Duration) (res Result, reusable bool) {
	if err := context.Cause(s.ctx); err != nil {
		return unsent(err), false
	}
	ctx, cancel := context.WithTimeoutCause(s.ctx, watchdog, errWatchdog)
	defer cancel()
	method, err := s.state.Index(ctx, s.object, "send")
	if err == nil && method == lua.LNil {
		err = errors.New("the connection object has no method send")
	}
	var returned []lua.LValue
	if err == nil {
		object := kumo.NewMessage(s.state.L, m)
		returned, err = s.state.Call(ctx, 1, method, s.object, object)
		kumo.Expire(object)
	}
	var text string
	if err == nil {
		text, err = disposition(returned)
	}
	if err == nil {
		return Result{Status: Delivered, Scope: ScopeMessage, Response: Response{Code: 200, Text: safeText(text)}}, true
	}
	if rejection, ok := kumo.AsRejection(err); ok {
		return rejected(rejection), rejection.Code != 421
	}
	s.runtime.logger().Error("policy: send failed", "connection", s.info.Peer, "message", m.ID(),
		"error", luastate.Message(err), "traceback", luastate.Traceback(err))
	res = Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400,
		Text: safeText("delivery: error in deliver_message: sender:send method failed: " + luastate.Message(err))}}
	if ctx.Err() != nil { // cut in the middle: what it did before nobody knows
		res.MaybeDelivered = true
		if errors.Is(context.Cause(ctx), errWatchdog) {
			res.Response.Code, res.Response.Enhanced = 451, EnhancedCode{4, 4, 1}
			res.Response.Text = fmt.Sprintf("dispatcher watchdog aborted task; send did not return within %s", Duration(watchdog))
		}
	}
	return res, false
}

// disposition is the text that a successful send returned.
func disposition(returned []lua.LValue) (string, error) {
	got := lua.LNil
	if len(returned) > 0 {
		got = returned[0]
	}
	switch got.(type) {
	case lua.LString, lua.LNumber:
	default:
		return "", fmt.Errorf("send returned %s: want the disposition as a string", luaKind(got))
	}
	text := got.String()
	if !utf8.ValidString(text) {
		return "", errors.New("send returned a string that is not UTF-8")
	}
	return text, nil
}

// rejected is the result of a send that raised kumo.reject.
func rejected(r *kumo.Rejection) Result {
	res := Result{Status: Permanent, Scope: ScopeMessage, Response: Response{Code: r.Code, Text: safeText(r.Text)}}
	if r.Code >= 400 && r.Code <= 499 {
		res.Status = Transient
	}
	return res
}

// maxText bounds the text of a result that Lua made.
const maxText = 2048

// safeText makes a text of Lua's fit for a result: one line, no control characters, bounded.
func safeText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > maxText {
		cut := maxText
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// luaMessage is a message as Lua sees it. What Lua changes is kept beside it; more of it is in luamessage.go.
type luaMessage struct {
	attempt *attempt
	changes *Changes
	sender  *address.Address  // nil: the attempt's own
	rcpts   []address.Address // likewise
}

// ID, Sender, Recipients, Meta, QueueName, Data and NumAttempts answer the methods of the same name;
// SetMeta and SetData record what Lua changes.
func (m *luaMessage) ID() string { return m.attempt.msg.ID }

func (m *luaMessage) Sender() kumo.Address {
	if m.sender != nil {
		return luaAddress(*m.sender, "")
	}
	return luaAddress(m.attempt.sender, m.attempt.msg.From)
}

func (m *luaMessage) Recipients() []kumo.Address {
	if m.rcpts != nil {
		list := make([]kumo.Address, len(m.rcpts))
		for i, a := range m.rcpts {
			list[i] = luaAddress(a, "")
		}
		return list
	}
	list := make([]kumo.Address, len(m.attempt.rcpts))
	for i, r := range m.attempt.rcpts {
		list[i] = luaAddress(r.Address, m.attempt.msg.Recipients[r.index].Address)
	}
	return list
}

func (m *luaMessage) QueueName() string { return m.attempt.queue.String() }

func (m *luaMessage) NumAttempts() int {
	if m.changes != nil {
		return m.attempt.msg.Attempts + m.changes.Attempts
	}
	return m.attempt.msg.Attempts
}

func (m *luaMessage) Meta(key string) (any, bool) {
	if m.changes != nil {
		if v, ok := m.changes.Meta[key]; ok {
			return v, true
		}
	}
	v, ok := m.attempt.msg.Meta[key]
	return v, ok
}

func (m *luaMessage) SetMeta(key string, v any) error {
	c := m.change()
	if c.Meta == nil {
		c.Meta = map[string]any{}
	}
	c.Meta[key] = v
	return nil
}

func (m *luaMessage) Data() ([]byte, error) {
	body := m.body()
	if b, ok := body.(Bytes); ok {
		return b, nil
	}
	r, err := sized(body)()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (m *luaMessage) SetData(data []byte) { m.change().Body = Bytes(data) }

func (m *luaMessage) change() *Changes {
	if m.changes == nil {
		m.changes = &Changes{}
	}
	return m.changes
}
