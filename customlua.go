package delivery

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
	"unique"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/egress"
	"github.com/mtadelivery/delivery/internal/gather"
	headers "github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/luastate"
	"github.com/mtadelivery/delivery/internal/sessions"
	lua "github.com/yuin/gopher-lua"
)

// CustomLua is the custom_lua table of a protocol: a Lua event makes connection objects, and their
// send or send_batch method delivers.
//
// What the method returns, a string or a number, is the text of a result that is Delivered, with code 200.
// kumo.reject(code, text) makes it Transient (400 to 499) or Permanent (any other code). Any other error, and
// a method that returns something else or forgets to return, is Transient with code 400, and is logged with
// its traceback.
type CustomLua struct {
	// Constructor is the event that makes a connection. It is called with domain, tenant and campaign
	// whenever a connection is needed, and returns an object with the method send, or send_batch where
	// BatchSize is more than 1, and, if it likes, close. The name is free, but must not be one of the events that have a meaning already.
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
// the constructors of custom_lua, and by [Policy.Call] any other. It is safe for concurrent use: each
// call has a Lua state of its own, in which the policy ran from the top, so that plain globals are not
// shared between calls. States are kept for the next call, 128 of them at most, each for 300 s and 1024
// calls, unless the policy says otherwise with kumo.set_max_spare_lua_contexts, set_max_lua_context_age
// and set_max_lua_context_use_count where it is loaded; a connection keeps its state for as long as it
// lives. A state that an error leaves in doubt is given up.
//
// # What a policy can call
//
// A policy finds Lua 5.1 with the library of Lua 5.4, and the modules of KumoMTA that concern a delivery, each as kumo.x and
// by require 'kumo.x'. Names, arguments, results and errors are KumoMTA's. What is not here raises an error that says so when
// it is called; a name that KumoMTA does not have either is nil. Calls that set up other parts of an MTA (start_*, define_*,
// configure_*, set_*, spawn_*, and kumo.aaa, api, tsa, xfer) are accepted, ignored, and named once in the log.
//
//	kumo             on reject disconnect log_debug log_info log_warn log_error sleep traceback version
//	                 available_parallelism make_queue_config make_egress_path make_egress_source make_egress_pool
//	                 invoke_get_queue_config invoke_get_egress_path_config invoke_get_egress_source invoke_get_egress_pool
//	                 get_event_registrars validation_failed bump_config_epoch memoize make_throttle glob uncached_glob
//	                 read_dir, and json_* and toml_* as in kumo.serde
//	kumo.http        build_client build_url; of a client get post put close; of a request header headers timeout
//	                 basic_auth bearer_auth body form_url_encoded send; all of a response
//	kumo.dns         lookup_mx lookup_addr lookup_txt lookup_ptr rbl_lookup ptr_host reverse_ip: by the runtime's Resolver,
//	                 whatever resolver a policy defines
//	kumo.serde       json_load json_parse json_encode json_encode_pretty toml_load toml_parse toml_encode
//	                 toml_encode_pretty toml_encode_pretty_compact yaml_load yaml_parse yaml_encode
//	kumo.time        now sleep start_timer from_unix_timestamp with_ymd_hms parse_rfc3339 parse_rfc2822 parse_duration
//	kumo.fs          open (for reading) read_dir glob uncached_glob metadata_for_path symlink_metadata_for_path
//	kumo.secrets     load: from files, key_data and events
//	kumo.shaping     load: files and URLs, as far as they speak of egress paths; automation is left aside
//	kumo.encode      base64 base64url base32 base32hex, each also _nopad, and hex: X_encode X_decode; charset_encode charset_decode
//	kumo.digest      sha1 sha224 sha256 sha384 sha512 sha512_256 sha3_256 sha3_384 sha3_512 crc32 hmac_sha1 hmac_sha224
//	                 hmac_sha256 hmac_sha384 hmac_sha512
//	kumo.string      replace replacen split splitn rsplit rsplitn split_whitespace split_ascii_whitespace trim trim_start
//	                 trim_end starts_with ends_with psl_domain psl_suffix psl_domain_is_known
//	                 psl_suffix_is_known eval_template wrap normalize_smtp_response
//	kumo.regex       compile (with look-around) escape
//	kumo.uuid        new_v1 new_v4 new_v6 new_v7 parse
//	maps             kumo.domain_map.new kumo.cidr.make_map kumo.regex_set_map.new
//	message:         id sender recipient recipient_list set_sender set_recipient get_meta set_meta queue_name get_data set_data
//	                 num_attempts increment_num_attempts get_first_named_header_value get_all_named_header_values
//	                 get_all_headers get_address_header from_header to_header prepend_header append_header
//	                 remove_all_named_headers remove_x_headers import_x_headers import_headers import_scheduling_header
//	                 set_scheduling set_due; save shrink shrink_data set_force_sync do nothing: there is no spool
//
//	not here                                           why
//	make_message inject_message generate_rfc3464_*     there is no queue that they could be put into
//	connect_websocket form_multipart_data aws_sign_v4  not yet
//	message: parse_mime append_text_* dkim_* arc_*     content is changed, signed and judged before it is queued
//	  check_fix_conformance add_authentication_results
//	  parse_rfc3464 parse_rfc5965
//	kumo.dkim spf dmarc mimepart file_type crypto      the same
//	kumo.amqp kafka nats, redis, sqlite                the host has a client, and lends it: see [Runtime].LuaModules
//	kumo.mpsc jsonl counter_series                     what an MTA keeps about itself
//
// What a script changes in a message (set_meta, set_data, headers, the envelope, the schedule) comes back in
// [Outcome].Changes: this attempt was made with the message as it was.
//
// kumo.memoize has one cache for each name, for all states of a policy: keyed by the arguments, one call at a time for a key,
// 256 MiB for all caches together; what crosses is copied. kumo.make_throttle counts in this process.
//
// Lua 5.1 cannot read the operators // & | ~ << >> on integers, <const>, <close>, \x41 and \u{263A} in strings, and numbers that a
// float64 does not hold: a policy with such is refused when it is loaded, with file, line and what to write instead. Every number is a
// float64. A coroutine cannot yield out of pcall, a metamethod or the function of a for loop; functions call each other about
// 1000 deep.
//
// # What a policy may take
//
// [Runtime].Lua says how long Lua may run and how much it may hold, and what of the standard library there is: without more,
// neither programs (os.execute, io.popen) nor files of Lua (dofile, loadfile) nor debug. No text is longer than 16 MiB. A state
// may have 64 files open; pipes and terminals cannot be opened, and the standard input is empty: nothing waits for them. The
// libraries and the kumo modules are read-only, but that a policy may add names to them while it is loaded. A policy that
// breaks a limit harms nobody else: its call ends, its state is given up.
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
	if err := r.Lua.check(); err != nil {
		return nil, err
	}
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
	options := p.runtime.Lua.options()
	options.Unruly = len(p.runtime.LuaModules) > 0
	options.Setup = func(L *lua.LState) error {
		luastate.PrintTo(L, p.runtime.stdout())
		if p.folder != "" {
			luastate.SearchIn(L, p.folder)
		}
		kumo.Install(L, p.module)
		return p.runtime.preload(L)
	}
	return p.program.NewState(ctx, options)
}

// ErrLuaLimit is what a call ends with that broke a limit of [LuaLimits] on running time or memory.
var ErrLuaLimit = luastate.ErrLimit

// LuaLimits bounds what the policies of a [Runtime] may take and may do. The zero value has the defaults. Where a limit
// is broken, the call ends with an error that the policy cannot catch ([ErrLuaLimit]), the Lua state is given up, and a
// message that was being sent is Transient; other calls do not feel it.
type LuaLimits struct {
	// Running is how long Lua itself may run in one call: of an event, a constructor, send, send_batch or close. What
	// waits for others (kumo.http, kumo.dns, kumo.sleep, the functions of [Runtime].LuaModules) does not count. It is time of
	// the processor rather than of the clock, measured to a fiftieth or so. 0: 1 s; negative: without limit.
	Running time.Duration
	// Event is how long the call of an event may take with all that it waits for; of a constructor too, within
	// the time that its connection has. 0: 1 minute. For send and send_batch it is the
	// dispatcher_progress_watchdog_timeout of the egress path.
	Event time.Duration
	// Memory is how many bytes one Lua state may hold in tables, texts, functions and coroutines. They are estimated,
	// within a factor of three or so, when a function of the library has made much or the process has grown, so that it may be
	// exceeded for some milliseconds. 0: 128 MiB; negative: without limit.
	Memory int64
	// Allow names what else of Lua's standard library there is: of "debug", "dofile", "io.popen", "loadfile" and
	// "os.execute", which are not there otherwise.
	Allow []string
	// Forbid names libraries and functions that there are not, such as "io" or "os.remove". A call of one is an error that
	// says so.
	Forbid []string
}

func (l *LuaLimits) options() luastate.Options {
	return luastate.Options{
		Limits: luastate.Limits{Running: l.Running, Memory: l.Memory},
		Allow:  l.Allow,
		Forbid: l.Forbid,
	}
}

// check says what the fields cannot be.
func (l *LuaLimits) check() error {
	options := l.options()
	err := options.Validate()
	if err == nil && l.Event < 0 {
		err = fmt.Errorf("%s: %s is negative", "Event", l.Event)
	}
	if err != nil {
		return &ConfigError{Reason: "Runtime.Lua." + err.Error(), Err: err}
	}
	return nil
}

// event is how long the call of an event may take.
func (l *LuaLimits) event() time.Duration { return cmp.Or(l.Event, time.Minute) }

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
	// Policies try each option of a source by itself, to see whether it is one: what is still incomplete is refused
	// when the event returns it.
	if err := decodeConfig(tree, &config); err != nil && !errors.Is(err, errIncomplete) {
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
	ctx, cancel := context.WithTimeout(ctx, p.runtime.Lua.event())
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
	if source, isSource := any(&config).(*EgressSource); isSource && ok {
		if err := source.complete(); err != nil {
			return config, true, &ConfigError{File: p.name, Reason: "what the event " + event + " returned: " + err.Error(), Err: err}
		}
	}
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
// there with kumo.on are called through the module that is returned, within the limits of [Runtime].Lua. But only in policies
// that the runtime loads is it bounded what the operator .. and an index far beyond the end of a table take, and only
// there do assignments such as a, b = b, a and jumps out of loops mean for local variables what they mean in Lua 5.4.
func (r *Runtime) InstallLua(L *lua.LState) *LuaModule {
	kumo.Install(L, r.module(func(string) {}))
	return &LuaModule{r, luastate.Wrap(L, r.Lua.options().Limits)}
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

// Call calls the handlers of any event of the policy, in a state of its own, for what a host asks its policy
// besides delivery. Arguments are plain values (nil, booleans, numbers, strings, slices, and maps with string
// keys) and [*EventMessage]; results are plain values: nil, bool, float64, string, []any and map[string]any (an empty table
// is one of these). They are nil if the event has no handler or every handler passes on, and not nil, though they may be empty, if one
// answers.
//
// The call ends with ctx, and after [LuaLimits].Event at most. The error is a [*LuaRejection] where Lua called
// kumo.reject, a [*MessageError], or a [*ConfigError] with file and line.
func (p *Policy) Call(ctx context.Context, event string, args ...any) ([]any, error) {
	s, err := p.states.Get(ctx)
	if err != nil {
		return nil, policyError(err)
	}
	values, release, err := eventArguments(s.L, args)
	if err != nil {
		p.states.Put(s)
		return nil, err
	}
	returned, handled, err := p.call(ctx, s, event, values...)
	release()
	if err != nil {
		p.states.Drop(s) // an error may have left it in the middle of something
		return nil, luaError(err)
	}
	defer p.states.Put(s)
	if !handled {
		return nil, nil
	}
	results := make([]any, len(returned))
	for i, v := range returned {
		if results[i], err = luastate.ToTree(v, map[string]any{}); err != nil {
			return nil, &ConfigError{File: p.name, Reason: fmt.Sprintf("the event %s returned what has no plain form: %v", event, err), Err: err}
		}
	}
	return results, nil
}

// EventMessage is a message as an argument of [Policy.Call].
type EventMessage struct {
	Message *Message
	// Changes is what Lua changed in it, set by Call; nil: nothing.
	Changes *Changes
}

// eventArguments makes Lua values of Go's. The messages among them are no longer to be used after release.
func eventArguments(L *lua.LState, args []any) (values []lua.LValue, release func(), err error) {
	values = make([]lua.LValue, len(args))
	messages := map[*EventMessage]*luaMessage{}
	var handles []*lua.LUserData
	for i, arg := range args {
		switch arg := arg.(type) {
		case *EventMessage:
			a, err := newAttempt(arg.Message)
			if err != nil {
				return nil, nil, err
			}
			messages[arg] = &luaMessage{attempt: a}
			handle := kumo.NewMessage(L, messages[arg])
			values[i], handles = handle, append(handles, handle)
		case lua.LValue: // which belongs to another state
			return nil, nil, fmt.Errorf("argument %d: a %T is no plain value", i+1, arg)
		default:
			if values[i] = luastate.FromTree(L, arg); values[i] == lua.LNil && arg != nil {
				return nil, nil, fmt.Errorf("argument %d: a %T is no plain value", i+1, arg)
			}
		}
	}
	return values, func() {
		for _, handle := range handles {
			kumo.Expire(handle)
		}
		for arg, m := range messages {
			arg.Changes = m.changes
		}
	}, nil
}

// LuaRejection is what kumo.reject raises.
type LuaRejection struct {
	Code int
	Text string
}

func (r *LuaRejection) Error() string { return strconv.Itoa(r.Code) + " " + r.Text }

// luaError gives what a call of Lua ended with its public form.
func luaError(err error) error {
	if r, ok := kumo.AsRejection(err); ok {
		return &LuaRejection{r.Code, r.Text}
	}
	if err == nil {
		return nil
	}
	return policyError(err)
}

// LuaCall is one call of a policy: see [Trace].LuaCalled.
type LuaCall struct {
	// Policy is the name of the policy's file.
	Policy string
	// Name is the event, that of a constructor included, or the method "send", "send_batch" or "close".
	Name string
	// Session is the connection whose method it was; nil: it was an event.
	Session *Session
	// Messages is how many messages went with it.
	Messages int
	Took     time.Duration
	// Err is what it raised, a [*LuaRejection] for kumo.reject; nil: nothing.
	Err error
}

func notTraced(*luaSession, int, error) {}

// luaCalls begins a call of Lua; what it returns ends it.
func (r *Runtime) luaCalls(p *Policy, name string) (called func(s *luaSession, messages int, err error)) {
	t := r.Trace
	if t == nil || t.LuaCalled == nil {
		return notTraced
	}
	start := time.Now()
	return func(s *luaSession, messages int, err error) {
		c := LuaCall{Policy: p.name, Name: name, Messages: messages, Took: time.Since(start), Err: luaError(err)}
		if s != nil {
			c.Session = s.copyInfo()
		}
		t.LuaCalled(c)
	}
}

// preload lets require find the host's own modules.
func (r *Runtime) preload(L *lua.LState) error {
	if len(r.LuaModules) == 0 {
		return nil
	}
	pkg, _ := L.GetGlobal(lua.LoadLibName).(*lua.LTable)
	if pkg == nil {
		return errors.New("LuaModules: there is no package library")
	}
	preload, _ := pkg.RawGetString("preload").(*lua.LTable)
	loaded, _ := pkg.RawGetString("loaded").(*lua.LTable)
	if preload == nil || loaded == nil {
		return errors.New("LuaModules: there is no package.preload")
	}
	for name, load := range r.LuaModules {
		switch {
		case load == nil:
			return &ConfigError{Reason: fmt.Sprintf("LuaModules: %q has no function", name)}
		case loaded.RawGetString(name) != lua.LNil || preload.RawGetString(name) != lua.LNil:
			return &ConfigError{Reason: fmt.Sprintf("LuaModules: %q is the name of a module that is there already", name)}
		}
		preload.RawSetString(name, L.NewFunction(luastate.GuardedModule(load)))
	}
	return nil
}

// settings are the functions by which a policy says how long its states are kept. Each state that it runs in
// says so again; what the first said counts.
func (p *Policy) settings() map[string]func(L *lua.LState, n int) error {
	set := func(name string, apply func(n int)) func(*lua.LState, int) error {
		return func(L *lua.LState, n int) error {
			switch {
			case !p.loaded:
				apply(n)
			case luastate.Loaded(L):
				return fmt.Errorf("kumo.%s inside an event handler: it stands where the policy is loaded", name)
			}
			return nil
		}
	}
	settings := map[string]func(n int){
		"set_max_lua_context_use_count": func(n int) { p.states.MaxUses = max(n, 1) },
		"set_max_lua_context_age": func(n int) {
			p.states.MaxAge = time.Duration(min(n, int(math.MaxInt64/time.Second)))*time.Second + 1 // never zero
		},
		"set_max_spare_lua_contexts": func(n int) {
			if p.states.MaxSpare = n; n == 0 {
				p.states.MaxSpare = -1
			}
		},
	}
	all := map[string]func(*lua.LState, int) error{}
	for name, apply := range settings {
		all[name] = set(name, apply)
	}
	return all
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

// luaEngine delivers by the send or send_batch method of an object that a constructor event made.
type luaEngine struct {
	runtime *Runtime
	config  *CustomLua
	sources sourcePicker
	ways    egress.Dated[luaWayName, *way]
	batches *luaGatherer // nil: one message at a time
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

type luaGatherer = gather.Gatherer[unique.Handle[luaBatchKey], *luaCall]

type luaBatch = gather.Batch[unique.Handle[luaBatchKey], *luaCall]

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
		e.batches = &luaGatherer{Run: e.carryBatch, Closing: r.ready().closing.Done()}
	}
	return e
}

// wayFrom finds the way from a source: as for SMTP, without hosts.
func (e *luaEngine) wayFrom(ctx context.Context, a *attempt, asked string, source *keyed[EgressSource]) (*way, *PlanError) {
	q := &a.queue
	name := luaWayName{q.Domain, q.Tenant, q.Campaign, q.RoutingDomain, asked, a.policy.serialOrNone()}
	site := q.routing()
	if known, ok := e.ways.Get(name); ok && known.source == source && !known.name.Gone() && known.held.Fresh() {
		return known, nil
	}
	from := source.config.Name
	w := &way{asked: asked, source: source, site: site, ready: from + "->" + site + "@lua:" + e.config.Constructor}
	var err error
	if w.path, err = e.runtime.egressPath(ctx, pathName{site, from, site}); err != nil {
		return w, unresolved(a.queue, err)
	}
	if held, ok := e.runtime.state.egress.paths.Hold(pathName{site, from, site}); ok && held.Value == w.path {
		w.held = held // else it is looked for again next time
	}
	e.runtime.limit(w)
	w.keys = []string{e.key(name)}
	w.request.Keys = w.keys
	w.batch = unique.Make(luaBatchKey{w.ready, w.keys[0]})
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
	// What ended otherwise might, by a fault of ours, still be in the hands of a state.
	a.spent = a.err == nil && !slices.ContainsFunc(a.results, func(r Result) bool { return r.Status != Delivered })
}

// deliverFromOne delivers from the source whose turn it is. It tells whether the attempt is over: not where
// there was no room to wait for a connection.
func (e *luaEngine) deliverFromOne(ctx context.Context, a *attempt) (over bool) {
	w, failed := e.sources.choose(ctx, a, false, e)
	call := a.lua
	if call == nil {
		call = new(luaCall)
		a.lua = call
	}
	*call = luaCall{attempt: a, way: w, policy: a.policy, message: luaMessage{attempt: a}}
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

// join delivers a message in a batch with those that come at the same time.
func (e *luaEngine) join(ctx context.Context, call *luaCall) {
	w := call.way
	if w.name.Gathered.Load()+int64(e.runtime.state.lua.Waiting(w.ready)) >= int64(w.path.config.MaxReady) {
		call.res = e.runtime.notAcquired(w, sessions.ErrFull)
		return
	}
	call.gathered(1)
	err := e.batches.Do(ctx, w.batch, call, e.rules(w))
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
func (e *luaEngine) carryBatch(ctx context.Context, lead *luaCall, b *luaBatch) {
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
	for _, c := range calls {
		c.res = abandoned
	}
	s.reused(lead.way, len(calls)-1)
	s.sendBatch(calls, lead.way.watchdog())
	b.Finish() // they need not wait for the end of the connection
	e.finish(lease, s, lead.policy)
}

// abandoned is the result of a batch that the call which carries it does not come back from, because something of the
// host's panics.
var abandoned = Result{Status: Transient, Scope: ScopeMessage, MaybeDelivered: true, Err: errors.New("the call that carried the batch panicked")}

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

// open makes a connection and puts it into the lease. A result says why it could not.
func (e *luaEngine) open(ctx context.Context, call *luaCall, lease *sessions.Lease[*luaSession], release func()) *Result {
	var s *luaSession
	defer func() {
		if s == nil {
			release()
		}
	}()
	w := call.way
	s, err := e.connect(ctx, call)
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
	lease.Opened(w.keys[0], s)
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
func (e *luaEngine) connect(ctx context.Context, call *luaCall) (*luaSession, error) {
	p, w, queue := call.policy, call.way, &call.attempt.queue
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
	s.alive, s.kill = context.WithCancelCause(context.Background())
	s.calls, s.bark = context.WithCancelCause(s.alive)
	if t := e.runtime.Trace; t != nil && t.Opened != nil {
		t.Opened(s.copyInfo())
	}
	return s, nil
}

// luaSession is a connection object with the state that it lives in.
type luaSession struct {
	runtime *Runtime
	policy  *Policy
	state   *luastate.State
	object  lua.LValue
	info    Session // which never changes: results share it

	alive   context.Context // ends when the session is killed
	kill    context.CancelCauseFunc
	calls   context.Context // of send and send_batch; ends also when the watchdog barks
	bark    context.CancelCauseFunc
	dog     *time.Timer // barks; kept from one call to the next
	release func()      // gives back what it holds of limits that other processes share
	ended   sync.Once

	// doubtful: it is not to be used again.
	doubtful bool
}

func (s *luaSession) copyInfo() *Session {
	info := s.info
	return &info
}

// reused counts calls that take a session which others have used, or use at the same time.
func (s *luaSession) reused(w *way, calls int) {
	w.name.Reused.Add(uint64(calls))
	if t := s.runtime.Trace; t != nil && t.Reused != nil {
		for range calls {
			t.Reused(s.copyInfo())
		}
	}
}

// Capacity is one: a Lua state serves one call at a time.
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
	s.kill(ErrClosed)
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
	defer s.bark(nil)
	if s.alive.Err() != nil {
		return // killed: nothing can be called any more
	}
	ctx, cancel := context.WithTimeout(s.alive, closeTimeout)
	defer cancel()
	method, err := s.state.Index(ctx, s.object, "close")
	if err == nil && method != lua.LNil {
		called := s.runtime.luaCalls(s.policy, "close")
		_, err = s.state.Call(ctx, 0, method, s.object)
		called(s, 0, err)
	}
	if err != nil {
		s.runtime.logger().Warn("policy: close failed", "connection", s.info.Peer, "error", luastate.Message(err))
	}
}

var errWatchdog = errors.New("watchdog: send did not return in time")

// call calls a method of the connection. What has begun is finished, or cut by Runtime.Close or the watchdog:
// the caller's context does not end it.
func (s *luaSession) call(name string, arg lua.LValue, messages int, watchdog time.Duration) (got lua.LValue, err error) {
	called := s.runtime.luaCalls(s.policy, name)
	if s.dog == nil {
		s.dog = time.AfterFunc(watchdog, func() { s.bark(errWatchdog) })
	} else {
		s.dog.Reset(watchdog)
	}
	defer func() {
		if !s.dog.Stop() {
			s.doubtful = true
		}
		called(s, messages, err)
	}()
	method, err := s.state.Index(s.calls, s.object, name)
	if err == nil && method == lua.LNil {
		err = errors.New("the connection object has no method " + name)
	}
	if err != nil {
		return nil, err
	}
	returned, err := s.state.Call(s.calls, 1, method, s.object, arg)
	s.doubtful = s.doubtful || s.state.Spent()
	if err != nil || len(returned) == 0 {
		return lua.LNil, err
	}
	return returned[0], nil
}

// send sends one message, by the method send.
func (s *luaSession) send(c *luaCall, watchdog time.Duration) {
	if err := context.Cause(s.calls); err != nil {
		s.doubtful, c.res = true, unsent(err)
		return
	}
	object := kumo.NewMessage(s.state.L, &c.message)
	returned, err := s.call("send", object, 1, watchdog)
	kumo.Expire(object)
	var text string
	if err == nil {
		text, err = disposition("send", returned)
	}
	if err == nil {
		c.res = delivered(text)
	} else {
		c.res = s.failed("send", err, watchdog, c.message.ID())
	}
	c.res.Session = &s.info
}

// sendBatch sends several messages, by the method send_batch.
func (s *luaSession) sendBatch(calls []*luaCall, watchdog time.Duration) {
	if err := context.Cause(s.calls); err != nil {
		s.doubtful = true
		for _, c := range calls {
			c.res = unsent(err)
		}
		return
	}
	list := s.state.L.CreateTable(len(calls), 0)
	objects := make([]*lua.LUserData, len(calls))
	for i, c := range calls {
		objects[i] = kumo.NewMessage(s.state.L, &c.message)
		list.RawSetInt(i+1, objects[i])
	}
	returned, err := s.call("send_batch", list, len(calls), watchdog)
	for _, object := range objects {
		kumo.Expire(object)
	}
	if err == nil {
		err = s.settleBatch(calls, returned)
	}
	if err != nil {
		res := s.failed("send_batch", err, watchdog, calls[0].message.ID())
		for _, c := range calls {
			c.res = res
		}
	}
	for _, c := range calls {
		c.res.Session = &s.info
	}
}

// failed is the result of a call that raised an error, for each message that it was about.
func (s *luaSession) failed(method string, err error, watchdog time.Duration, message string) Result {
	if rejection, ok := kumo.AsRejection(err); ok {
		s.doubtful = s.doubtful || rejection.Code == 421
		return rejected(rejection)
	}
	res := s.raised(method, err, message)
	if s.calls.Err() != nil { // cut in the middle: what it did before nobody knows
		res.MaybeDelivered = true
		if errors.Is(context.Cause(s.calls), errWatchdog) {
			res.Response.Code, res.Response.Enhanced = 451, EnhancedCode{4, 4, 1}
			res.Response.Text = fmt.Sprintf("dispatcher watchdog aborted task; %s did not return within %s", method, Duration(watchdog))
		}
	}
	return res
}

// raised is the result of an error that is no rejection: it may have left the connection in the middle of
// something.
func (s *luaSession) raised(method string, err error, message string) Result {
	s.doubtful = true
	s.runtime.logger().Error("policy: "+method+" failed", "connection", s.info.Peer, "message", message,
		"error", luastate.Message(err), "traceback", luastate.Traceback(err))
	return Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400,
		Text: safeText("delivery: error in deliver_message: sender:" + method + " method failed: " + luastate.Message(err))}}
}

// disposition is the text that a call which succeeded returned.
func disposition(method string, got lua.LValue) (string, error) {
	switch got.(type) {
	case lua.LString, lua.LNumber:
	default:
		return "", fmt.Errorf("%s returned %s: want the disposition as a string", method, luaKind(got))
	}
	text := got.String()
	if !utf8.ValidString(text) {
		return "", errors.New(method + " returned a string that is not UTF-8")
	}
	return text, nil
}

// delivered is the result of a disposition: the text of a reply whose code is always 200.
func delivered(text string) Result {
	return Result{Status: Delivered, Scope: ScopeMessage, Response: Response{Code: 200, Text: safeText(text)}}
}

// rejected is the result of a call that raised kumo.reject: that it raised is what makes a code below 400 a
// failure.
func rejected(r *kumo.Rejection) Result {
	res := Result{Status: Permanent, Scope: ScopeMessage, Response: Response{Code: r.Code, Text: safeText(r.Text)}}
	if r.Code >= 400 && r.Code <= 499 {
		res.Status = Transient
	}
	return res
}

// settleBatch gives the messages of a batch the results that send_batch returned: one disposition for all, or
// a list with one for each. An error is that of all; with one in the place of a single message that message
// comes again, because the others were dealt with.
func (s *luaSession) settleBatch(calls []*luaCall, returned lua.LValue) error {
	list, ok := returned.(*lua.LTable)
	if !ok {
		text, err := disposition("send_batch", returned)
		if err != nil {
			return err
		}
		res := delivered(text)
		for _, c := range calls {
			c.res = res
		}
		return nil
	}
	if n := list.Len(); n != len(calls) {
		return fmt.Errorf("send_batch returned a list of %d dispositions for %d messages", n, len(calls))
	}
	for i, c := range calls {
		res, err := batchDisposition(list.RawGetInt(i + 1))
		if err != nil {
			res = s.raised("send_batch", fmt.Errorf("disposition %d: %w", i+1, err), c.message.ID())
		}
		s.doubtful = s.doubtful || res.Response.Code == 421
		c.res = res
	}
	return nil
}

// batchDisposition is the result of one message of a batch: its disposition, or code and message, where unlike
// in kumo.reject a code of 2yz is success.
func batchDisposition(v lua.LValue) (Result, error) {
	reply, ok := v.(*lua.LTable)
	if !ok {
		text, err := disposition("send_batch", v)
		return delivered(text), err
	}
	number, ok := reply.RawGetString("code").(lua.LNumber)
	code := int(number)
	if !ok || lua.LNumber(code) != number || code < 0 || code > 65535 {
		return Result{}, fmt.Errorf("want a code from 0 to 65535, got %s", luaValue(reply.RawGetString("code")))
	}
	text := ""
	if message := reply.RawGetString("message"); message != lua.LNil {
		var err error
		if text, err = disposition("send_batch", message); err != nil {
			return Result{}, err
		}
	}
	res := rejected(&kumo.Rejection{Code: code, Text: text})
	if code >= 200 && code <= 299 {
		res.Status = Delivered
	}
	return res, nil
}

// luaValue shows a value that is wrong in a text for people.
func luaValue(v lua.LValue) string {
	switch v.(type) {
	case lua.LNumber, lua.LBool:
		return v.String()
	}
	return luaKind(v)
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

// luaAddress is an address as Lua sees it; text is what it was parsed from, if that is at hand.
func luaAddress(a address.Address, text string) kumo.Address {
	return kumo.Address{User: a.Local, Domain: a.Domain, Email: a.Text(text)}
}

// SetSender and its siblings record what Lua changes, as SetMeta does.
func (m *luaMessage) SetSender(text string) error {
	a, err := address.ParseSender(text)
	if err != nil {
		return err
	}
	m.sender, m.change().From = &a, new(a.String())
	return nil
}

func (m *luaMessage) SetRecipients(list []string) error {
	parsed, texts := make([]address.Address, len(list)), make([]string, len(list))
	for i, text := range list {
		a, err := address.Parse(text)
		if err != nil {
			return err
		}
		parsed[i], texts[i] = a, a.String()
	}
	m.rcpts, m.change().Recipients = parsed, texts
	return nil
}

func (m *luaMessage) CountAttempt() { m.change().Attempts++ }

func (m *luaMessage) SetDue(t time.Time) { m.change().Due = &t }

// DelayBy is for throttles that put a message off.
func (m *luaMessage) DelayBy(d time.Duration) error {
	m.SetDue(time.Now().Add(d))
	return nil
}

func (m *luaMessage) SetSchedule(s *kumo.Schedule) {
	if s == nil {
		s = &kumo.Schedule{}
	}
	m.change().Schedule = (*Schedule)(s)
}

// body is the content as Lua left it.
func (m *luaMessage) body() Body {
	if m.changes != nil && m.changes.Body != nil {
		return m.changes.Body
	}
	return m.attempt.msg.Body
}

// Header reads no more of the content than it must.
func (m *luaMessage) Header() ([]byte, error) {
	body := m.body()
	if b, ok := body.(Bytes); ok {
		n, ended := headers.Length(b[:min(len(b), headers.MaxBlock)])
		if !ended && len(b) > n {
			return nil, headers.ErrTooLong
		}
		return b[:n:n], nil
	}
	r, err := open(body)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return headers.Read(r)
}

// ReplaceHeader leaves the rest of the content where it is, unless it is in memory: there the host may use
// its bytes again once it has the outcome.
func (m *luaMessage) ReplaceHeader(length int, block []byte) {
	body := m.body()
	if b, ok := body.(Bytes); ok {
		m.change().Body = Bytes(append(block[:len(block):len(block)], b[length:]...))
		return
	}
	if e, ok := body.(*editedBody); ok && length == len(e.header) {
		m.change().Body = &editedBody{block, e.body, e.skip}
		return
	}
	m.change().Body = &editedBody{block, body, int64(length)}
}

// editedBody is a body with another header in the place of its first bytes.
type editedBody struct {
	header []byte
	body   Body
	skip   int64
}

func (e *editedBody) Size() int64 { return int64(len(e.header)) + e.body.Size() - e.skip }

func (e *editedBody) Open() (io.ReadCloser, error) {
	r, err := open(e.body)
	if err != nil {
		return nil, err
	}
	if s, ok := r.(io.Seeker); ok {
		_, err = s.Seek(e.skip, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r, e.skip)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("the message's own body: %w", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(e.header), r), r}, nil
}
