package kumo

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// shown is a config that Lua cannot index but invoke_get_* shows.
type shown struct{ tree any }

func (s *shown) Plain() (any, error) { return s.tree, nil }

func invokable() *Options {
	o := stubs()
	o.Make["make_egress_pool"] = func(tree any) (any, error) { return &shown{tree}, nil }
	o.Make["make_egress_source"] = func(tree any) (any, error) {
		if tree.(map[string]any)["bad"] != nil {
			return nil, errStub
		}
		return &shown{tree}, nil
	}
	o.Empty = map[string]any{"default": true}
	return o
}

func TestInvoke(t *testing.T) {
	const handlers = `
kumo.on('get_queue_config', function(domain, tenant, campaign, routing)
  if domain == 'pass' then return end
  if domain == 'nil' then return nil end
  return kumo.make_queue_config {egress_pool = table.concat({domain, tenant or '-', campaign or '-', routing or '-'}, ' ')}
end)
kumo.on('get_egress_path_config', function(domain, source, site)
  if domain == 'reject' then kumo.reject(451, 'not now') end
  return kumo.make_egress_path {ehlo_domain = domain .. source .. site}
end)
kumo.on('get_egress_source', function(name)
  if name == 'nothing' then return end
  return kumo.make_egress_source {name = name, bad = name == 'bad' or nil}
end)
kumo.on('get_egress_pool', function(name) return kumo.make_egress_pool {name = name, entries = {{name = 'x'}}} end)
`
	checkExpressions(t, invokable(), handlers, []expression{
		{`kumo.invoke_get_queue_config('d.example').egress_pool`, "d.example - - -", ""},
		{`kumo.invoke_get_queue_config('c:t@d.example!r.example').egress_pool`, "d.example t c r.example", ""},
		{`kumo.invoke_get_queue_config('t@d.example:25').egress_pool`, "d.example:25 t - -", ""},
		{`kumo.invoke_get_queue_config('c:@d.example').egress_pool`, "d.example  c -", ""},
		{`type(kumo.invoke_get_queue_config('x'))`, "table", ""},
		{`tostring(kumo.invoke_get_queue_config('pass').default)`, "true", ""},
		{`kumo.invoke_get_queue_config('nil')`, "", "the event get_queue_config returned a nil, not what kumo.make_queue_config makes"},
		{`kumo.invoke_get_queue_config()`, "", "string expected"},
		{`kumo.invoke_get_egress_path_config('a', 'b', 'c').ehlo_domain`, "abc", ""},
		{`kumo.invoke_get_egress_path_config('a', 'b')`, "", "bad argument #3"},
		{`kumo.invoke_get_egress_path_config('reject', 'b', 'c')`, "", "451 not now"},
		{`kumo.invoke_get_egress_source('s').name`, "s", ""},
		{`kumo.invoke_get_egress_source('unspecified').name`, "unspecified", ""},
		{`kumo.invoke_get_egress_source('nothing')`, "", "the event get_egress_source returned nothing"},
		{`kumo.invoke_get_egress_source('bad')`, "", errStub.Error()},
		{`kumo.invoke_get_egress_pool('p').entries[1].name`, "x", ""},
		{`kumo.invoke_get_egress_pool().entries[1].name`, "unspecified", ""},
	})
	checkExpressions(t, invokable(), "", []expression{
		{`tostring(kumo.invoke_get_queue_config('x').default)`, "true", ""},
		{`tostring(kumo.invoke_get_egress_path_config('a', 'b', 'c').default)`, "true", ""},
		{`kumo.invoke_get_egress_source('s')`, "", "the event get_egress_source has no handler"},
	})
	checkExpressions(t, stubs(), `kumo.on('get_egress_pool', function(name) return kumo.make_egress_pool {name = name} end)`, []expression{
		{`kumo.invoke_get_egress_pool('x')`, "", "has no fields to show"},
	})
	checkExpressions(t, &Options{}, "", []expression{
		{`kumo.invoke_get_queue_config('x')`, "", "kumo.make_queue_config is not available here"},
	})
}

// Handlers that ask for each other end with an error, and the state goes on.
func TestInvokeItself(t *testing.T) {
	checkExpressions(t, invokable(), `
kumo.on('get_queue_config', function(domain) return kumo.invoke_get_queue_config(domain) end)`, []expression{
		{`(function()
  local ok, err = pcall(kumo.invoke_get_queue_config, 'x')
  return tostring(ok) .. (tostring(err):find 'overflow' and ' overflow' or tostring(err))
end)()`, "false overflow", ""},
	})
}

func TestEventRegistrars(t *testing.T) {
	folder := t.TempDir()
	helper := `local mod = {} function mod:setup(event)
  kumo.on(event, function() end)
  return kumo.traceback(1)[1].short_src
end return mod`
	if err := os.WriteFile(filepath.Join(folder, "helper.lua"), []byte(helper), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := luastate.Compile("policy.lua", []byte(`
kumo.on('get_queue_config', function() end)
local src = require 'helper':setup 'get_queue_config'
function run()
  local reg = kumo.get_event_registrars 'get_queue_config'
  local lines = {}
  for i, stack in ipairs(reg) do lines[i] = table.concat(stack, ' ') end
  return #reg, lines[1], lines[2], src, kumo.get_event_registrars 'init'
end`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.NewState(t.Context(), luastate.Options{Limits: luastate.Limits{Running: -1}, Setup: installIn(stubs(), folder)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	results, err := s.Call(t.Context(), -1, s.L.GetGlobal("run"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "helper.lua")
	want := []string{"2", "policy.lua:2", path + ":2 policy.lua:3", path, "nil"}
	for i, w := range want {
		if got := results[i].String(); got != w {
			t.Errorf("%d: %q, want %q", i, got, w)
		}
	}
}

func TestTraceback(t *testing.T) {
	checkExpressions(t, stubs(), `
local function inner(level)
  local t = kumo.traceback(level)
  return t[1].short_src .. ':' .. t[1].curr_line .. ' ' .. t[1].what .. ' ' .. #t
end`, []expression{
		{`'' .. inner(1)`, "policy.lua:3 Lua 2", ""},
		{`'' .. inner(2)`, "policy.lua:6 Lua 1", ""},
		{`kumo.traceback(100)[1]`, "nil", ""},
	})
}

func TestValidationFailed(t *testing.T) {
	o := stubs()
	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	checkExpressions(t, o, "", []expression{{`'fine'`, "fine", ""}})
	if o.ValidationFailed() {
		t.Error("it failed before")
	}
	checkExpressions(t, o, "", []expression{{`kumo.validation_failed()`, "", ""}})
	if !o.ValidationFailed() || !strings.Contains(log.String(), "at=policy.lua:2") {
		t.Error(log.String())
	}
}

func TestSmallFunctions(t *testing.T) {
	checkExpressions(t, stubs(), "", []expression{
		{`kumo.get_memory_hard_limit()`, "nil", ""},
		{`kumo.get_memory_soft_limit()`, "nil", ""},
		{`kumo.get_memory_low_thresh()`, "nil", ""},
		{`kumo.bump_config_epoch()`, "", ""},
		{`kumo.spawn_task {event_name = 'x', args = {}}`, "nil", ""},
	})
}

func TestSecretsLoad(t *testing.T) {
	path := write(t, "key", "from a file\x00\n")
	big := write(t, "big", "")
	if err := os.Truncate(big, maxSecret+1); err != nil {
		t.Fatal(err)
	}
	checkExpressions(t, stubs(), `
kumo.on('get_secret', function(a, b) if a == 'reject' then kumo.reject(451, 'vault is down') end return a .. b end)
kumo.on('get_nothing', function() end)
kumo.on('get_number', function() return 1 end)
local load = kumo.secrets.load`, []expression{
		{`load '` + path + `'`, "from a file\x00\n", ""},
		{`load {key_data = 'itself\255'}`, "itself\xff", ""},
		{`load {event_name = 'get_secret', event_args = {'a', 'b'}}`, "ab", ""},
		{`load {event_name = 'get_secret', event_args = {'reject'}}`, "", "451 vault is down"},
		{`load {event_name = 'get_nothing', event_args = {}}`, "", `the event "get_nothing" returned nothing`},
		{`load {event_name = 'unknown', event_args = {}}`, "", `the event "unknown" returned nothing`},
		{`load {event_name = 'get_number', event_args = {}}`, "", `returned a number, not a string`},
		{`load {event_name = 'get_secret'}`, "", "has a list event_args"},
		{`load {event_name = 'get_secret', event_args = (function() local t = {} for i = 1, 101 do t[i] = i end return t end)()}`,
			"", "event_args has more than 100 elements"},
		{`load {event_name = 1, event_args = {}}`, "", "event_name is a string"},
		{`load {vault_mount = 'secret', vault_path = 'x'}`, "", "secrets in a vault are not available"},
		{`load '/none'`, "", "secrets.load: key source: file /none: no such file"},
		{`load '` + big + `'`, "", "longer than 1048576 bytes"},
		{`load {key_data = {}}`, "", "key_data is a string, got table"},
		{`load {key_data = 'x', oops = 1}`, "", `has no field "oops"`},
		{`load {}`, "", "a key source has key_data, or event_name and event_args"},
		{`load(1)`, "", "a key source is a file name or a table, got number"},
		{`load()`, "", "value expected"},
	})
	s := newState(t, stubs(), `kumo.on('get_secret', function() kumo.reject(451, 'no') end)
function run() return kumo.secrets.load {event_name = 'get_secret', event_args = {}} end`)
	_, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"))
	if r, ok := AsRejection(err); !ok || r.Code != 451 {
		t.Error(err)
	}
	var none *os.PathError
	if _, err := moduleOf(s.L).KeySource(s.L, s.L.NewTable()); err == nil || errors.As(err, &none) {
		t.Error(err)
	}
}

// What there is not says so, under every name that a policy may ask by.
func TestAbsentModules(t *testing.T) {
	checkExpressions(t, stubs(), "", []expression{
		{`require 'redis'.open {node = 'redis://127.0.0.1'}`, "", "redis.open is not available in this library yet"},
		{`require 'sqlite'.open '/tmp/x'`, "", "sqlite.open is not available in this library yet"},
		{`kumo.jsonl.new_writer {}`, "", "kumo.jsonl.new_writer is not available"},
		{`kumo.counter_series.define {}`, "", "kumo.counter_series.define is not available"},
		{`require 'kumo.mpsc'.define('x')`, "", "kumo.mpsc.define is not available"},
		{`kumo.nats.connect {}`, "", "kumo.nats.connect is not available"},
		{`kumo.amqp.build_client 'x'`, "", "kumo.amqp.build_client is not available"},
		{`kumo.make_message('a', 'b', 'c')`, "", "kumo.make_message is not available"},
		{`kumo.format_queue_config_toml {}`, "", "is not available"},
	})
}

func TestLogIsBounded(t *testing.T) {
	o := stubs()
	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	checkExpressions(t, o, "", []expression{{`kumo.log_info(('x'):rep(1000000))`, "", ""}})
	if log.Len() < maxLogged || log.Len() > maxLogged+1000 {
		t.Error(log.Len())
	}
}
