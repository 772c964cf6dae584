package delivery

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/kumo"
)

func shapedZone() zone {
	records := func(hosts ...string) DNSAnswer {
		a := DNSAnswer{Result: DNSRecords}
		for _, host := range hosts {
			a.MX = append(a.MX, MXRecord{Preference: 10, Host: host})
		}
		return a
	}
	return zone{
		"big.test MX": records("b.mx.big.test", "a.mx.big.test"), "hosted.test MX": records("a.mx.big.test", "b.mx.big.test"),
		"null.test MX": records("."), "bare.test A": {Result: DNSRecords}, "broken.test MX": {Result: DNSBogus},
	}
}

func TestMailExchangersForPolicies(t *testing.T) {
	rt := newRuntime(t)
	rt.Resolver = shapedZone()
	rt.ready()
	for domain, want := range map[string]kumo.Site{
		"hosted.test": {Hosts: []string{"a.mx.big.test", "b.mx.big.test"}, Name: "(a|b).mx.big.test"},
		"null.test":   {},
		"bare.test":   {Hosts: []string{"bare.test"}, Name: "bare.test"},
	} {
		got, err := rt.siteOf(t.Context(), domain)
		if err != nil || got.Name != want.Name || !slices.Equal(got.Hosts, want.Hosts) {
			t.Errorf("%s: %+v, %v", domain, got, err)
		}
	}
	for _, domain := range []string{"gone.test", "broken.test"} {
		if got, err := rt.siteOf(t.Context(), domain); err == nil {
			t.Errorf("%s: %+v", domain, got)
		}
	}
}

// A policy that is shaped by a file, as upstream's helper does it, and that asks itself.
func TestShapedPolicy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shaping.toml")
	if err := os.WriteFile(file, []byte(`
["default"]
connection_limit = 10
max_message_rate = "100/s"
idle_timeout = "60s"

["big.test"]
connection_limit = 3

[provider."big"]
match = [{MXSuffix=".mx.big.test"}]
provider_connection_limit = 5
max_deliveries_per_connection = 50

["big.test".sources."ip-1"]
connection_limit = 2
`), 0o644); err != nil {
		t.Fatal(err)
	}
	rt := newRuntime(t)
	rt.Resolver = shapedZone()
	p, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(`
local kumo = require 'kumo'
local cached = kumo.memoize(function(files) return kumo.shaping.load(files) end, {name = 'shaping_data', ttl = '1 minute', capacity = 4})
kumo.on('get_egress_path_config', function(domain, source, site)
  return kumo.make_egress_path(cached({'`+file+`'}):get_egress_path_config(domain, source, site))
end)
kumo.on('get_egress_source', function(name) return kumo.make_egress_source {name = name, ehlo_domain = 'mta.test'} end)
kumo.on('get_egress_pool', function(name)
  return kumo.make_egress_pool {name = name, entries = {{name = 'ip-1', weight = 3}, {name = 'ip-2'}}}
end)
kumo.on('get_queue_config', function(domain)
  local pool = kumo.invoke_get_egress_pool 'shared'
  local source = kumo.invoke_get_egress_source(pool.entries[1].name)
  local path = kumo.invoke_get_egress_path_config(domain, source.name, '(a|b).mx.big.test')
  assert(source.ehlo_domain == 'mta.test' and pool.entries[1].weight == 3 and path.connection_limit == 2)
  assert(kumo.invoke_get_egress_pool().name == 'unspecified')
  return kumo.make_queue_config {egress_pool = pool.name}
end)`))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		path, err := p.EgressPath(t.Context(), "hosted.test", "ip-1", "(a|b).mx.big.test")
		if err != nil {
			t.Fatal(err)
		}
		if path.ConnectionLimit.Count != 2 || path.MaxDeliveriesPerConnection != 50 ||
			path.AdditionalConnectionLimits["shaping-provider-big-ip-1-limit"].Count != 5 {
			t.Errorf("%+v", path)
		}
	}
	c, err := p.QueueConfig(t.Context(), QueueName{Domain: "hosted.test"})
	if err != nil || c.EgressPool != "shared" {
		t.Error(c.EgressPool, err)
	}
	_, err = rt.ParsePolicy(t.Context(), "test.lua", []byte(`kumo.shaping.load {'`+file+`'}:get_egress_path_config('a')`))
	if err == nil || !strings.Contains(err.Error(), "test.lua:1: bad argument #3") {
		t.Error(err)
	}
}
