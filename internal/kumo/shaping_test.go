package kumo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/luastate"
)

var errNoDomain = errors.New("the domain does not exist")

// world answers MX lookups.
func world(_ context.Context, domain string) (Site, error) {
	switch domain {
	case "gmail.example", "workspace.example":
		return Site{[]string{"mx1.google.example", "mx2.google.example"}, "(mx1|mx2).google.example"}, nil
	case "mixed.example":
		return Site{[]string{"mx1.google.example", "mx.elsewhere.example"}, "mixed"}, nil
	case "exact.example":
		return Site{[]string{"the.host.example"}, "the.host.example"}, nil
	case "null.example":
		return Site{}, nil
	case "plain.example":
		return Site{[]string{"mx.plain.example"}, "mx.plain.example"}, nil
	}
	return Site{}, errNoDomain
}

func shapingStubs() *Options {
	o := stubs()
	o.Sites = world
	o.Make["make_egress_path"] = func(tree any) (any, error) {
		for name := range tree.(map[string]any) {
			if strings.HasPrefix(name, "bad") {
				return nil, fmt.Errorf("%s: is not known", name)
			}
		}
		return &stub{tree}, nil
	}
	return o
}

// A file as they are published, and one of a user's own over it.
const (
	baseShaping = `
["default"]
connection_limit = 10
max_message_rate = "100/s"
enable_tls = "Opportunistic"
additional_connection_limits = {all = 1000}

[["default".automation]]
regex = ['''temporarily deferred''']
action = [{SetConfig={name="max_message_rate", value="1/minute"}}]
duration = "90m"

[provider."google"]
match = [{MXSuffix=".google.example"}, {MXSuffix=".googlemail.example"}]
max_deliveries_per_connection = 50
provider_connection_limit = 5
provider_max_message_rate = "100/s"

[provider."google".sources."ip-2"]
provider_source_selection_rate = "10/min"
connection_limit = 2

[[provider."google".automation]]
regex = "rate limited"
action = "Suspend"
duration = "2 hours"

[provider.by_name]
match = [{DomainSuffix=".corp.example"}, {HostName="the.host.example"}]
ehlo_domain = "by-name.example"

["plain.example"]
connection_limit = 25

["single.example"]
mx_rollup = false
connection_limit = 3

["single.example".sources."ip-1"]
connection_limit = 1

["null.example"]
connection_limit = 1

["gone.example"]
connection_limit = 1
`
	ownShaping = `{
  // a user's own
  "plain.example": {"replace_base": true, "idle_timeout": "30s", "sources": {"ip-1": {"connection_limit": 7}}},
  "single.example": {"mx_rollup": false, "max_message_rate": "1/s"},
  "provider": {"google": {"provider_connection_limit": "local:6", "match": [{"HostName": "mx.elsewhere.example"}]}}
}`
)

func TestShaping(t *testing.T) {
	base, own := write(t, "base.toml", baseShaping), write(t, "own.json", ownShaping)
	prelude := `
local base = kumo.shaping.load {'` + base + `'}
local both = kumo.shaping.load({'` + base + `', '` + own + `'}, {dns_fail = 'Warn', null_mx = 'Error', provider_overlap = 'Warn'})
local function show(t)
  local names = {}
  for k, v in pairs(t) do
    if type(v) == 'table' then v = '{' .. show(v) .. '}' end
    names[#names + 1] = k .. '=' .. tostring(v)
  end
  table.sort(names)
  return table.concat(names, ' ')
end
local function path(s, ...) return show(s:get_egress_path_config(...)) end`
	prelude = strings.Replace(prelude, "local function show", "function show", 1)
	const defaults = "additional_connection_limits={all=1000} connection_limit=%s enable_tls=Opportunistic max_message_rate=100/s"
	checkExpressions(t, shapingStubs(), prelude, []expression{
		{`path(base, 'other.example', 'ip-1', 'site')`, fmt.Sprintf(defaults, "10"), ""},
		{`path(base, 'any.example', 'ip-1', 'mx.plain.example')`, fmt.Sprintf(defaults, "25"), ""},
		{`path(base, 'single.example', 'ip-2', 'site')`, fmt.Sprintf(defaults, "3"), ""},
		{`path(base, 'single.example', 'ip-1', 'site')`, fmt.Sprintf(defaults, "1"), ""},
		{`path(base, 'workspace.example', 'ip-1', '(mx1|mx2).google.example')`,
			"additional_connection_limits={all=1000 shaping-provider-google-ip-1-limit=5} " +
				"additional_message_rate_throttles={shaping-provider-google-ip-1-rate=100/s} connection_limit=10 " +
				"enable_tls=Opportunistic max_deliveries_per_connection=50 max_message_rate=100/s provider_name=google", ""},
		{`path(base, 'workspace.example', 'ip-2', 'x'):match 'additional_source_selection_rates=%b{}'`,
			"additional_source_selection_rates={shaping-provider-google-ip-2-selection-rate=10/min}", ""},
		{`base:get_egress_path_config('workspace.example', 'ip-2', 'x').connection_limit`, "2", ""},
		{`base:get_egress_path_config('workspace.example', 'ip-2', 'x').provider_source_selection_rate`, "nil", ""},
		{`base:get_egress_path_config('mixed.example', 'ip-1', 'mixed').provider_name`, "nil", ""},
		{`both:get_egress_path_config('mixed.example', 'ip-1', 'mixed').provider_name`, "google", ""},
		{`base:get_egress_path_config('a.corp.example.', 'ip-1', 'x').ehlo_domain`, "by-name.example", ""},
		{`base:get_egress_path_config('exact.example', 'ip-1', 'x').provider_name`, "by_name", ""},
		{`base:get_egress_path_config('null.example', 'ip-1', '').provider_name`, "nil", ""},
		{`base:get_egress_path_config('http://127.0.0.1:8008', 'ip-1', 'x').connection_limit`, "10", ""},
		{`both:get_egress_path_config('workspace.example', 's', 'x').additional_connection_limits['shaping-provider-google-s-limit']`, "local:6", ""},
		// A later file's replace_base replaces what earlier ones say of that domain, and not the defaults.
		{`path(both, 'x.example', 'ip-9', 'mx.plain.example')`, fmt.Sprintf(strings.Replace(defaults, " max", " idle_timeout=30s max", 1), "10"), ""},
		{`path(both, 'x.example', 'ip-1', 'mx.plain.example')`, fmt.Sprintf(strings.Replace(defaults, " max", " idle_timeout=30s max", 1), "7"), ""},
		{`both:get_egress_path_config('single.example', 'ip-1', 'x').max_message_rate`, "1/s", ""},
		{`both:get_egress_path_config('single.example', 'ip-1', 'x').connection_limit`, "1", ""},
		{`#base:get_warnings() + #base:get_errors()`, "0", ""},
		{`table.concat(both:get_warnings(), '\n')`, "error resolving MX for gone.example: the domain does not exist. Ignoring the shaping config for that domain.", ""},
		{`table.concat(both:get_errors(), '\n')`, "domain null.example has a NULL MX and cannot be used with mx_rollup=true. Ignoring the shaping config for that domain.", ""},
		{`show(both:get_referenced_sources())`, "ip-1={1=site:mx.plain.example 2=domain:single.example}", ""},
		{`tostring(base:hash() == kumo.shaping.load({'` + base + `'}):hash()) .. tostring(base:hash() == both:hash()) .. #base:hash()`, "truefalse64", ""},
		{`base:match_rules {}`, "", "shaping:match_rules is not available in this library yet"},
		{`base.hash()`, "", "call its methods with a colon"},
		{`base:get_egress_path_config('x')`, "", "bad argument #3"},
		{`tostring(kumo.make_egress_path(base:get_egress_path_config('x.example', 's', 's')))`, "egress_path", ""},
		// What is returned is the policy's own.
		{`(function() base:get_egress_path_config('x', 's', 's').additional_connection_limits.all = 1
			return base:get_egress_path_config('x', 's', 's').additional_connection_limits.all end)()`, "1000", ""},
	})
}

func TestShapingReplaceBase(t *testing.T) {
	path := write(t, "a.toml", `
default.connection_limit = 10
["plain.example"]
replace_base = true
idle_timeout = "1s"
`)
	checkExpressions(t, shapingStubs(), `local s = kumo.shaping.load {'`+path+`'}`, []expression{
		{`kumo.json_encode(s:get_egress_path_config('x.example', 's', 'mx.plain.example'))`, `{"idle_timeout":"1s"}`, ""},
	})
}

// The sections of a file apply in its order, in TOML and in JSON.
func TestShapingOrder(t *testing.T) {
	toml := write(t, "a.toml", `
[provider.z]
match = [{DomainSuffix="x.example"}]
ehlo_domain = "z"
[provider.a]
match = [{DomainSuffix="x.example"}]
ehlo_domain = "a"
["workspace.example"]
connection_limit = 1
["gmail.example"]
connection_limit = 2
`)
	json := write(t, "a", `{"provider": {"z": {"match": [{"DomainSuffix": "x.example"}], "ehlo_domain": "z"},
"a": {"match": [{"DomainSuffix": "x.example"}], "ehlo_domain": "a"}}, # order
"workspace.example": {"connection_limit": 1}, "gmail.example": {"connection_limit": 2}}`)
	for _, path := range []string{toml, json} {
		checkExpressions(t, shapingStubs(), `local s = kumo.shaping.load({'`+path+`'}, {aliased_site = 'Warn', provider_overlap = 'Warn'})`, []expression{
			{`s:get_egress_path_config('x.example', 's', '(mx1|mx2).google.example').ehlo_domain`, "a", ""},
			{`s:get_egress_path_config('x.example', 's', '(mx1|mx2).google.example').connection_limit`, "2", ""},
			{`s:get_warnings()[1]`, "multiple domain blocks alias to the same site: (mx1|mx2).google.example: gmail.example, workspace.example", ""},
			{`#s:get_warnings()`, "1", ""},
		})
	}
}

func TestShapingMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"x = 1":                                                    "x: want a section, that is a table",
		"[gmail.com]\nmx_rollup = false":                           "",
		"[\"a.b\"]\nmx_rollup = 1":                                 `domain "a.b": mx_rollup: want true or false`,
		"[\"a.b\"]\nreplace_base = 'x'":                            `domain "a.b": replace_base: want true or false`,
		"[\"a.b\"]\nmx_rollup=false\nbad = 1":                      "domain: a.b: bad: is not known",
		"[\"plain.example\"]\nbad = 1":                             "site: mx.plain.example: bad: is not known",
		"[\"a.b\".sources.x]\nbad = 1":                             "",
		"[\"a.b\"]\nmx_rollup=false\n[\"a.b\".sources.x]\nbad = 1": `domain: a.b: source "x": bad: is not known`,
		"[\"a.b\"]\nsources = 1":                                   "sources: want a table of tables",
		"[\"a.b\".sources]\nx = 1":                                 "sources.x: want a table",
		"[\"a.b\"]\nautomation = 1":                                "automation: want a list of tables",
		"provider = 1":                                             "provider: want a section",
		"provider.x = 1":                                           `provider "x": want a section`,
		"[provider.x]\nmatch = 1":                                  `provider "x": match: want a list of tables`,
		"[provider.x]\nmatch = [{}]":                               "match[1]: want a table with one of MXSuffix, DomainSuffix and HostName",
		"[provider.x]\nmatch = [{MX='a'}]":                         `match[1]: there is no "MX"`,
		"[provider.x]\nmatch = [{HostName=1}]":                     "match[1].HostName: want a name",
		"[provider.x]\nprovider_connection_limit = 0":              "provider_connection_limit: 0 is not a limit",
		"[provider.x]\nprovider_max_message_rate = 5":              "provider_max_message_rate: ",
		"[provider.x]\nbad = 1":                                    "provider: x: bad: is not known",
		"[":                                                        "parsing toml: line 1",
	} {
		path := write(t, "a.toml", text)
		got, err := eval(t, shapingStubs(), `function run() return #kumo.shaping.load({'`+path+`'}):get_errors() end`)
		if want == "" && (err != nil || got != "0") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	path := write(t, "a.toml", "[gmail.com]\nconnection_limit = 1")
	other := write(t, "other", "neither: [")
	bad := write(t, "a.json", "[1]")
	checkExpressions(t, shapingStubs(), "", []expression{
		{`kumo.shaping.load({'` + path + `'}):get_warnings()[1]:sub(1, 43)`, `the section "gmail" has a name of one label`, ""},
		{`kumo.shaping.load({'` + other + `'}):get_errors()[1]:match 'neither TOML nor JSON'`, "neither TOML nor JSON", ""},
		{`kumo.shaping.load({'` + bad + `'})`, "", "a.json: parsing json: want an object"},
		{`kumo.shaping.load({'/none.toml'}):get_errors()[1]`, "local shaping source /none.toml error: /none.toml: no such file or directory", ""},
		{`kumo.shaping.load({'/none.toml'}, {local_load = 'Warn'}):get_warnings()[1]:sub(1, 5)`, "local", ""},
		{`#kumo.shaping.load({'/none.toml'}, {local_load = 'Ignore'}):get_errors()`, "0", ""},
		{`kumo.shaping.load({}, {oops = 1})`, "", `, while processing {"oops":1}`},
		{`kumo.shaping.load({}, {dns_fail = 'warn'})`, "", "dns_fail"},
		{`kumo.shaping.load 'x'`, "", "table expected"},
		{`kumo.shaping.load {1}`, "", "want a list of file names and URLs"},
		{`kumo.shaping.load((function() local t = {} for i = 1, 300 do t[i] = '/none.toml' end return t end)())`, "", "more than 256 files"},
		{`type(kumo.shaping.load {}:get_egress_path_config('a', 'b', 'c'))`, "table", ""},
	})
}

func TestShapingWithoutMX(t *testing.T) {
	o := shapingStubs()
	o.Sites = nil
	rollup, hosts := write(t, "a.toml", "['a.b']\nx = 1"), write(t, "b.toml", "[provider.x]\nmatch=[{MXSuffix='x'}]")
	names := write(t, "c.toml", "[provider.x]\nmatch=[{DomainSuffix='x'}]\nehlo_domain='y'\n['a.b']\nmx_rollup=false")
	checkExpressions(t, o, "", []expression{
		{`kumo.shaping.load {'` + rollup + `'}`, "", `shaping.load: domain "a.b": mx_rollup needs MX lookups, which are not available here`},
		{`kumo.shaping.load {'` + hosts + `'}`, "", `provider "x": to match by hosts needs MX lookups`},
		{`kumo.shaping.load {'` + names + `'}:get_egress_path_config('x', 's', 's').ehlo_domain`, "y", ""},
	})
}

func TestShapingRemote(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/get_config_v1/shaping.toml" {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "[default]\nconnection_limit = 4\n")
	}))
	defer server.Close()
	good, bad := server.URL+"/get_config_v1/shaping.toml", server.URL+"/none.toml"
	o := shapingStubs()
	o.HTTP = server.Client().Transport
	checkExpressions(t, o, "", []expression{
		{`kumo.shaping.load({'` + good + `'}):get_egress_path_config('x', 's', 's').connection_limit`, "4", ""},
		{`#kumo.shaping.load({'` + bad + `'}):get_errors()`, "0", ""},
		{`kumo.shaping.load({'` + bad + `'}, {remote_load = 'Error'}):get_errors()[1]`,
			"remote shaping source " + bad + " error: the server says 404 Not Found", ""},
		{`kumo.shaping.load({'` + good + `'}, {skip_remote = true}):get_warnings()[1]`, "Ignoring " + good + " because skip_remote is set to true", ""},
	})
}

// slowHTTP answers nothing before the context ends.
type slowHTTP struct{}

func (slowHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func TestShapingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := shapingStubs()
		o.HTTP = slowHTTP{}
		start := time.Now()
		checkExpressions(t, o, "", []expression{
			{`#kumo.shaping.load({'http://slow.example/a.toml'}, {remote_load = 'Warn'}):get_warnings()`, "1", ""},
		})
		if passed := time.Since(start); passed != 5*time.Second {
			t.Error(passed)
		}

		var most, now atomic.Int64
		o.Sites = func(ctx context.Context, domain string) (Site, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			return Site{}, pause(ctx, time.Second)
		}
		var text strings.Builder
		for i := range 100 {
			fmt.Fprintf(&text, "['d%d.example']\n", i)
		}
		path := write(t, "a.toml", text.String())
		start = time.Now()
		checkExpressions(t, o, "", []expression{{`type(kumo.shaping.load {'` + path + `'})`, "userdata", ""}})
		if passed := time.Since(start); passed != 7*time.Second || most.Load() != shapingLookups {
			t.Error(passed, most.Load())
		}
		s := newState(t, o, `function run() return kumo.shaping.load {'`+path+`'} end`)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 1500*time.Millisecond, errStub)
		defer cancel()
		if _, err := s.Call(ctx, 1, s.L.GetGlobal("run")); !errors.Is(err, errStub) {
			t.Error(err)
		}
	})
}

// Upstream's helper memoizes what it loads: it crosses the states as it is.
func TestShapingMemoized(t *testing.T) {
	path := write(t, "a.toml", baseShaping)
	o := shapingStubs()
	source := `
local loads = 0
local cached = kumo.memoize(function(files) loads = loads + 1 return kumo.shaping.load(files) end,
  {name = 'shaping_data', ttl = '1m', capacity = 10})
function run() return cached({'` + path + `'}):get_egress_path_config('plain.example', 'ip-1', 'mx.plain.example').connection_limit, loads end`
	want := "25\n1"
	for range 3 {
		if got, err := eval(t, o, source); err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
		want = "25\n0"
	}
}

// FuzzParseShaping: whatever the text, there is a file or an error, and the file can be merged and asked.
// A resolver that panics ends the call, and not the process.
func TestShapingResolverPanics(t *testing.T) {
	o := shapingStubs()
	o.Sites = func(context.Context, string) (Site, error) { panic("resolver") }
	_, err := eval(t, o, "function run() return kumo.shaping.load {'"+write(t, "a.toml", "['a.example']")+"'} end")
	if e, ok := errors.AsType[*luastate.Error](err); !ok || !e.Panic || !strings.Contains(e.Reason, "resolver") {
		t.Error(err)
	}
}

func FuzzParseShaping(f *testing.F) {
	f.Add("a.toml", baseShaping)
	f.Add("a.json", ownShaping)
	f.Add("a", "{}")
	o := shapingStubs()
	s := newState(f, o, "")
	f.Fuzz(func(t *testing.T, name, text string) {
		if len(text) > 1<<16 {
			return
		}
		file, err := parseShaping(name, []byte(text))
		if err != nil {
			return
		}
		l := &shapingLoader{options: o, made: shaping{sites: map[string]*shapingSection{}, domains: map[string]*shapingSection{}, mx: world}, aliases: map[string][]string{}}
		found, err := l.lookUp(t.Context(), []*shapingFile{file})
		if err != nil {
			t.Fatal(err)
		}
		l.merge(file, found)
		if l.made.sum() != nil {
			return // JSON knows no infinite numbers
		}
		before := l.made.hash
		for _, domain := range []string{"workspace.example", "single.example", "a"} {
			params, err := l.made.pathParams(t.Context(), domain, "ip-1", "mx.plain.example")
			if err != nil {
				t.Fatal(err)
			}
			luastate.FromTree(s.L, params)
		}
		if err := l.made.sum(); err != nil || l.made.hash != before {
			t.Errorf("asking changes what was loaded")
		}
	})
}
