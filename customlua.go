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

	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/luastate"
	lua "github.com/yuin/gopher-lua"
)

// CustomLua is the custom_lua table of a protocol: a Lua event makes connection objects, and their
// send method delivers.
type CustomLua struct {
	// Constructor is the event that makes a connection. It is called with domain, tenant and campaign
	// whenever a connection is needed, and returns an object with the methods send and, if it likes,
	// close. The name is free, but must not be one of the events that have a meaning already.
	Constructor string `config:"constructor" required:"true"`

	// BatchSize is how many messages go to the connection at once. With 1 each is sent by its own call of
	// send. With more, messages that are delivered at the same time and would use the same connection are
	// sent by send_batch(messages), a list of 1 to BatchSize of them.
	BatchSize int `config:"batch_size" default:"1" min:"1"`
	// MinBatchSize is how many messages a batch waits for, but no longer than MaxBatchLatency after the
	// first of them, nor than the idle_timeout of the egress path. While a batch waits for a connection,
	// more may join it.
	MinBatchSize int `config:"min_batch_size" default:"1" min:"1"`
	// MaxBatchLatency is how long a batch waits for MinBatchSize messages; 0: not at all.
	MaxBatchLatency Duration `config:"max_batch_latency"`
}

// Validate says what is wrong with the table.
func (c *CustomLua) Validate() error {
	switch {
	case kumo.IsBuiltinEvent(c.Constructor):
		return decode.Errorf("constructor", "%q is the name of an event that has a meaning already", c.Constructor)
	case c.MinBatchSize > max(c.BatchSize, 1):
		return decode.Errorf("min_batch_size", "%d is more than the batch_size of %d: no batch would ever be large enough", c.MinBatchSize, max(c.BatchSize, 1))
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
	loaded   bool // written before anybody else has the policy
}

// serialOrNone is 0 where there is no policy.
func (p *Policy) serialOrNone() uint64 {
	if p == nil {
		return 0
	}
	return p.serial
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
	p.module.Settings = p.settings()
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
	p.loaded = true
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
		return p.runtime.preload(L)
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
	t.ForceAttemptHTTP2 = true
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
	if !kumo.Handles(s.L, event) {
		return nil, false, nil
	}
	called := p.runtime.luaCalls(p, event)
	results, handled, err := kumo.Call(ctx, s, event, args...)
	called(nil, 0, err)
	return results, handled, err
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

// luaMessage is a message as Lua sees it. What Lua changes is kept beside it.
type luaMessage struct {
	attempt *attempt
	changes *Changes
}

// ID, Sender, Recipients, Meta, QueueName, Data and NumAttempts answer the methods of the same name;
// SetMeta and SetData record what Lua changes.
func (m *luaMessage) ID() string { return m.attempt.msg.ID }

func (m *luaMessage) Sender() kumo.Address {
	a := m.attempt.sender
	return kumo.Address{User: a.Local, Domain: a.Domain, Email: a.String()}
}

func (m *luaMessage) Recipients() []kumo.Address {
	list := make([]kumo.Address, len(m.attempt.rcpts))
	for i, r := range m.attempt.rcpts {
		list[i] = kumo.Address{User: r.Local, Domain: r.Domain, Email: r.Address.String()}
	}
	return list
}

func (m *luaMessage) QueueName() string { return m.attempt.queue.String() }
func (m *luaMessage) NumAttempts() int  { return m.attempt.msg.Attempts }

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
	body := m.attempt.msg.Body
	if m.changes != nil && m.changes.Body != nil {
		body = m.changes.Body
	}
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
