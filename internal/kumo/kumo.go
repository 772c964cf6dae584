// Package kumo is the module "kumo" that KumoMTA policies are written against, for any gopher-lua
// state: those of package luastate, or a host's own.
//
// It knows Lua, HTTP and the names of the DNS, and nothing of mail: what kumo.make_queue_config and its siblings make is the
// business of the functions in Options, and a message is an interface.
//
// The module is the global kumo, and what require 'kumo' and require 'kumo.http' and the like return.
// What upstream has and this package has not is there as a function that raises an error when it is
// called; what sets up other parts of an MTA (listeners, spools, logs) is a function that does
// nothing and is reported to Options.Ignored. Any other name is nil.
package kumo

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Options is what the module needs of its host. One Options serves many states, also at once; it must
// neither change nor be copied after the first Install.
type Options struct {
	// Logger takes what kumo.log_info and its siblings write, with the attribute "at" = "file:line".
	// Nil: slog.Default().
	Logger *slog.Logger

	// HTTP carries the requests of kumo.http. Nil: a transport of this Options' own, which Close closes.
	HTTP http.RoundTripper
	// MaxResponse bounds the body of an HTTP response, in bytes; a longer one is an error when it is
	// read. Zero: 16 MiB.
	MaxResponse int64
	// ParseDuration reads the durations that policies write as text. Nil: time.ParseDuration, spaces
	// allowed.
	ParseDuration func(string) (time.Duration, error)

	// Make has the functions behind kumo.make_queue_config, make_egress_path, make_egress_source and
	// make_egress_pool, by that name: a plain tree in (see luastate.ToTree), any Go value out, which
	// Lua holds as an opaque object. If the value has a Tree method, Lua can index it, and pairs and #
	// work.
	Make map[string]func(tree any) (any, error)
	// Empty stands for an empty table in the trees that Make gets.
	Empty any

	// Ignored is told of a setup call that was accepted and ignored, "kumo.start_esmtp_listener", once
	// per name. It may be called from many goroutines. Nil: nobody is told.
	Ignored func(name string)

	// Transports keeps what build_client makes for settings that HTTP does not have; nil: the Options's own.
	Transports *Transports

	// DNS answers kumo.dns; nil: its lookups raise that there is no resolver.
	DNS DNS
	// Settings are the functions kumo.NAME(n) that set something of the host's, a whole number from zero on;
	// the others that are named like them are setup calls. One may be called in many states at once.
	Settings map[string]func(L *lua.LState, n int) error

	mu      sync.Mutex
	ignored map[string]bool
	own     Transports

	// Sites finds where the mail of a domain goes, for kumo.shaping. It is called from many goroutines. Nil: shaping
	// data that asks for that cannot be loaded.
	Sites func(ctx context.Context, domain string) (Site, error)
	// Throttles counts for kumo.make_throttle; nil: the Options's own.
	Throttles    *Throttles
	ownThrottles Throttles

	memos   memos
	globs   globs
	invalid atomic.Bool

	expressions expressions
}

// compatible is the upstream release whose behaviour the module follows, as kumo.version says.
const compatible = "2026.06.23-delivery"

// module is the state's own part of the module.
type module struct {
	options  *Options
	handlers map[string][]*handler
	depth    int // events that are being handled, one inside the other
	root     *lua.LTable
	view     *lua.LTable            // of root, for programs
	types    map[string]*lua.LTable // metatables by type name, made when first used
	inTree   bool                   // a map is being made a tree
}

const registryKey = "kumo.module"

// Install puts the module into L. Installing it again replaces it, handlers included.
func Install(L *lua.LState, o *Options) { install(L, o) }

func install(L *lua.LState, o *Options) *module {
	m := &module{options: o, handlers: map[string][]*handler{}, types: map[string]*lua.LTable{}}
	L.G.Registry.RawSetString(registryKey, &lua.LUserData{Value: m, Metatable: lua.LNil})

	m.root = m.table(L, "kumo", map[string]lua.LGFunction{
		"on":                    m.on,
		"reject":                reject,
		"disconnect":            disconnect,
		"log_error":             m.logAt(slog.LevelError),
		"log_warn":              m.logAt(slog.LevelWarn),
		"log_info":              m.logAt(slog.LevelInfo),
		"log_debug":             m.logAt(slog.LevelDebug),
		"sleep":                 sleep,
		"traceback":             traceback,
		"available_parallelism": parallelism,
	})
	addAll(L, m.root, jsonFunctions)
	m.root.RawSetString("version", lua.LString(compatible))
	for name, makeValue := range o.Make {
		m.root.RawSetString(name, L.NewFunction(m.maker(name, makeValue)))
	}
	m.view = luastate.ReadOnly(L, "kumo", m.root)
	L.SetGlobal("kumo", m.view)
	m.preload(L)
	return m
}

// moduleOf is the module in L; a state without one gets one without options.
func moduleOf(L *lua.LState) *module {
	if ud, ok := L.G.Registry.RawGetString(registryKey).(*lua.LUserData); ok {
		if m, ok := ud.Value.(*module); ok {
			return m
		}
	}
	return install(L, &Options{})
}

// table makes a table of functions whose further names are looked up when they are asked for, which
// keeps a state small: most policies use few of them.
func (m *module) table(L *lua.LState, path string, functions map[string]lua.LGFunction) *lua.LTable {
	tbl := L.CreateTable(0, len(functions)+4)
	addAll(L, tbl, functions)
	mt := L.CreateTable(0, 1)
	mt.RawSetString("__index", L.NewFunction(func(L *lua.LState) int {
		name, ok := L.Get(2).(lua.LString)
		if !ok {
			return 0
		}
		v := m.lookUp(L, path, string(name))
		if v == nil {
			return 0
		}
		tbl.RawSetString(string(name), v)
		L.Push(v)
		return 1
	}))
	tbl.Metatable = mt
	return tbl
}

// library is a table of functions that programs cannot change.
func (m *module) library(L *lua.LState, path string, functions map[string]lua.LGFunction) *lua.LTable {
	return luastate.ReadOnly(L, path, m.table(L, path, functions))
}

// lookUp makes what path has under a name that nobody has used yet, nil if there is no such thing.
func (m *module) lookUp(L *lua.LState, path, name string) lua.LValue {
	if path == "kumo" {
		if functions, ok := m.submodule(name); ok {
			return m.library(L, path+"."+name, functions)
		}
	}
	full := path + "." + name
	if fn := m.late(full); fn != nil {
		return L.NewFunction(fn)
	}
	if set := m.setting(path, name); set != nil {
		return L.NewFunction(set)
	}
	switch {
	case isSetup(path, name):
		return L.NewFunction(func(L *lua.LState) int {
			m.options.ignore(full)
			L.Push(lua.LNil)
			return 1
		})
	case isUpstream(path, name):
		return L.NewFunction(absent(full))
	}
	return nil
}

// submodule has the functions of kumo.NAME that exist here.
func (m *module) submodule(name string) (functions map[string]lua.LGFunction, ok bool) {
	switch name {
	case "serde":
		return jsonFunctions, true
	case "time":
		return m.timeFunctions(), true
	case "fs":
		return m.fsFunctions(), true
	case "http":
		return m.httpFunctions(), true
	case "dns":
		return m.dnsFunctions(), true
	}
	_, ok = upstream["kumo."+name]
	return nil, ok || setupModules[name]
}

// preload makes require find the module and its submodules.
func (m *module) preload(L *lua.LState) {
	pkg, ok := L.GetGlobal(lua.LoadLibName).(*lua.LTable)
	if !ok {
		return
	}
	preload, ok := pkg.RawGetString("preload").(*lua.LTable)
	if !ok {
		return
	}
	loader := L.NewFunction(func(L *lua.LState) int {
		full := L.CheckString(1)
		if _, name, ok := strings.Cut(full, "."); ok {
			L.Push(L.GetField(m.root, name))
		} else if slices.Contains(ownModules, full) {
			L.Push(m.library(L, full, nil))
		} else {
			L.Push(m.view)
		}
		return 1
	})
	preload.RawSetString("kumo", loader)
	for path := range upstream {
		preload.RawSetString(path, loader)
	}
	for _, name := range ownModules {
		preload.RawSetString(name, loader)
	}
	for name := range setupModules {
		preload.RawSetString("kumo."+name, loader)
	}
}

func addAll(L *lua.LState, tbl *lua.LTable, functions map[string]lua.LGFunction) {
	for name, fn := range functions {
		tbl.RawSetString(name, L.NewFunction(fn))
	}
}

func absent(name string) lua.LGFunction {
	return func(L *lua.LState) int {
		L.RaiseError("%s is not available in this library yet", name)
		return 0
	}
}

func (o *Options) ignore(name string) {
	if o.Ignored == nil {
		return
	}
	o.mu.Lock()
	known := o.ignored[name]
	if !known {
		if o.ignored == nil {
			o.ignored = map[string]bool{}
		}
		o.ignored[name] = true
	}
	o.mu.Unlock()
	if !known {
		o.Ignored(name)
	}
}

// metatable is the one of a type of userdata, made by build when the state first needs it. Lua cannot
// get at it.
func (m *module) metatable(L *lua.LState, name string, build func(L *lua.LState, mt *lua.LTable)) *lua.LTable {
	mt, ok := m.types[name]
	if !ok {
		mt = L.CreateTable(0, 4)
		mt.RawSetString("__metatable", lua.LFalse)
		build(L, mt)
		m.types[name] = mt
	}
	return mt
}

func contextOf(L *lua.LState) context.Context {
	if ctx := L.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

func parallelism(L *lua.LState) int {
	L.Push(lua.LNumber(runtime.GOMAXPROCS(0)))
	return 1
}

func sleep(L *lua.LState) int {
	seconds := float64(L.CheckNumber(1))
	d, ok := secondsToDuration(seconds)
	if !ok {
		L.ArgError(1, "want a number of seconds")
	}
	if err := rest(L, d); err != nil {
		luastate.Raise(L, err)
	}
	return 0
}

// rest waits on behalf of a script.
func rest(L *lua.LState, d time.Duration) error {
	_, err := outside(L, func(ctx context.Context) (struct{}, error) { return struct{}{}, pause(ctx, d) })
	return err
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// secondsToDuration refuses what is no length of time: negative, not a number, more than a duration holds.
func secondsToDuration(seconds float64) (time.Duration, bool) {
	d := time.Duration(seconds * float64(time.Second))
	return d, seconds >= 0 && seconds < 9e9
}

// duration reads a number of seconds, or a text.
func (m *module) duration(v lua.LValue) (time.Duration, error) {
	var d time.Duration
	var ok bool
	switch v := v.(type) {
	case lua.LNumber:
		d, ok = secondsToDuration(float64(v))
	case lua.LString:
		var err error
		d, err = m.parseDuration(string(v))
		ok = err == nil && d >= 0
	}
	if !ok {
		return 0, fmt.Errorf("want a number of seconds or a text as '5s', got %s", v.String())
	}
	return d, nil
}

func (m *module) parseDuration(text string) (time.Duration, error) {
	if m.options.ParseDuration != nil {
		return m.options.ParseDuration(text)
	}
	return time.ParseDuration(strings.ReplaceAll(text, " ", ""))
}
