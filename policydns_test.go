package delivery

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

// said is what a policy's send returns, or the reason why it does not.
func said(t *testing.T, rt *Runtime, expr string) string {
	t.Helper()
	withPolicy(t, rt, connectionWith("local d = kumo.dns\nlocal function fields(t) t.by_pref = nil return kumo.json_encode(t) end\nreturn tostring("+expr+")"))
	return protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0].Response.Text
}

// TestPolicyAsksDNS: kumo.dns from a policy to a server and back, by the runtime's own resolver.
func TestPolicyAsksDNS(t *testing.T) {
	server := dnstest.Start(t, `. SOA ns.test. h.test. 1 1 1 1 60
two.test. MX 10 C.mx.test.
two.test. MX 10 a.mx.test.
two.test. MX 0 b.mx.test.
null.test. MX 0 .
implicit.test. A 192.0.2.1
xn--d-1ga.test. A 192.0.2.3
dual.test. A 192.0.2.1
dual.test. AAAA 2001:db8::1
alias.test. CNAME dual.test.
v6.test. AAAA 2001:db8::6
text.test. TXT "v=" "spf1" 
text.test. TXT "two"
1.2.0.192.in-addr.arpa. PTR Mail.Test.
2.0.0.127.bl.test. A 127.0.0.2
2.0.0.127.bl.test. TXT "listed"
`, dnstest.ServFail("down.test", "3.0.0.127.down.test"), dnstest.Explain(6, "bogus.test"))
	rt, _ := quiet(t)
	dns := &DNS{Servers: []string{server.Addr()}, Logger: rt.Logger}
	defer dns.Close()
	rt.Resolver = dns
	for _, test := range []struct{ expr, want string }{
		{"fields(d.lookup_mx('Two.test'))", `{"domain_name":"two.test.",` +
			`"hosts":["b.mx.test.","a.mx.test.","c.mx.test."],"is_domain_literal":false,"is_mx":true,"is_secure":false,"mta_sts":"None","site_name":"(b|a|c).mx.test"}`},
		{"kumo.json_encode(d.lookup_mx('two.test').by_pref[10]) .. kumo.json_encode(d.lookup_mx('two.test').by_pref[0])", `["a.mx.test.","c.mx.test."]["b.mx.test."]`},
		{"table.concat(d.lookup_mx('two.test:26').hosts, ',') .. d.lookup_mx('two.test:26').site_name", "b.mx.test.:26,a.mx.test.:26,c.mx.test.:26(b|a|c).mx.test:26"},
		{"kumo.json_encode(d.lookup_mx('implicit.test.').by_pref[1]) .. tostring(d.lookup_mx('implicit.test').is_mx)", `["implicit.test."]false`},
		{"d.lookup_mx('dö.test').domain_name", "xn--d-1ga.test."},
		{"fields(d.lookup_mx('[IPv6:2001:db8::7]')) .. d.lookup_mx('[IPv6:2001:db8::7]').by_pref[1][1]", `{"domain_name":"[IPv6:2001:db8::7]","hosts":["2001:db8::7"],` +
			`"is_domain_literal":true,"is_mx":false,"is_secure":false,"mta_sts":"None","site_name":"2001:db8::7"}2001:db8::7`},
		{"d.lookup_mx('[192.0.2.1]:26').hosts[1]", "192.0.2.1:26"},
		{"d.lookup_mx('null.test').hosts[1] .. d.lookup_mx('null.test').site_name .. d.lookup_mx('null.test').by_pref[0][1] .. d.lookup_mx('null.test').domain_name", "..null.test."},
		{"d.lookup_mx('gone.test')", "kumo.dns.lookup_mx: MX lookup for gone.test failed: NXDOMAIN: the domain gone.test does not exist"},
		{"d.lookup_mx('down.test')", `kumo.dns.lookup_mx: MX lookup for down.test failed: MX of "down.test": server ` + server.Addr() + `: SERVFAIL`},
		{"d.lookup_mx('')", "kumo.dns.lookup_mx: MX lookup for  failed:"},
		{"d.lookup_mx('two.test:0')", "kumo.dns.lookup_mx: MX lookup for two.test:0 failed:"},
		{"d.lookup_mx('[two.test]')", "kumo.dns.lookup_mx: MX lookup for [two.test] failed:"},
		{"d.lookup_txt('') ", "kumo.dns.lookup_txt: invalid DNS name: "},
		{"d.lookup_mx('a b')", "kumo.dns.lookup_mx: MX lookup for a b failed:"},
		{"table.concat(d.lookup_addr('alias.test'), ' ')", "192.0.2.1 2001:db8::1"},
		{"table.concat(d.lookup_addr('dual.test', nil, 'Ipv6ThenIpv4'), ' ')", "2001:db8::1"},
		{"table.concat(d.lookup_addr('v6.test', nil, 'Ipv4ThenIpv6'), ' ')", "2001:db8::6"},
		{"#d.lookup_addr('v6.test', nil, 'Ipv4Only') + #d.lookup_addr('gone.test')", "0"},
		{"table.concat(d.lookup_addr('dö.test.'), ' ')", "192.0.2.3"},
		{"d.lookup_addr('down.test')", "kumo.dns.lookup_addr: failed to query DNS for down.test: "},
		{"d.lookup_addr('bogus.test')", "kumo.dns.lookup_addr: failed to query DNS for bogus.test: "},
		{"d.lookup_addr('a b')", "kumo.dns.lookup_addr: invalid DNS name: A of \"a b\": not a domain name"},
		{"table.concat(d.lookup_txt('text.test'), ' ')", "v=spf1 two"},
		{"#d.lookup_txt('dual.test') + #d.lookup_txt('gone.test')", "0"},
		{"d.lookup_txt('down.test')", "kumo.dns.lookup_txt: failed to query DNS for down.test: "},
		{"d.lookup_txt(('x'):rep(300))", "kumo.dns.lookup_txt: invalid DNS name: "},
		{"d.lookup_ptr('192.0.2.1')[1] .. #d.lookup_ptr('192.0.2.2')", "mail.test.0"},
		{"table.concat({d.rbl_lookup('127.0.0.2', 'bl.test')}, ' ')", "127.0.0.2 listed"},
		{"select('#', d.rbl_lookup('127.0.0.3', 'bl.test')) .. tostring(d.rbl_lookup('127.0.0.3', 'bl.test'))", "2nil"},
		{"d.rbl_lookup('127.0.0.3', 'down.test')", "kumo.dns.rbl_lookup: failed to query DNS for 3.0.0.127.down.test: "},
	} {
		got := said(t, rt, test.expr)
		if _, raised, ok := strings.Cut(got, "test.lua:6: "); ok {
			got = raised[:min(len(raised), len(test.want))]
		}
		if got != test.want {
			t.Errorf("%s: %s\nwant %s", test.expr, got, test.want)
		}
	}
}

// A policy sees what a domain's MTA-STS policy leaves of its hosts, as deliveries do.
func TestPolicyAsksForMTASTS(t *testing.T) {
	const expr = "d.lookup_mx('careful.test').mta_sts .. ' ' .. d.lookup_mx('careful.test').site_name .. ' ' .. kumo.json_encode(d.lookup_mx('careful.test').by_pref[20])"
	for _, test := range []struct {
		policy string
		off    bool
		want   string
	}{
		{"mode: enforce\r\nmx: mx2.careful.test\r\n", false, `Enforce mx2.careful.test ["mx2.careful.test."]`},
		{"mode: testing\r\nmx: mx2.careful.test\r\n", false, `Testing (mx1|mx2).careful.test ["mx2.careful.test."]`},
		{"mode: none\r\n", false, `None (mx1|mx2).careful.test ["mx2.careful.test."]`},
		{"no policy", false, `None (mx1|mx2).careful.test ["mx2.careful.test."]`},
		{"mode: enforce\r\nmx: mx2.careful.test\r\n", true, `None (mx1|mx2).careful.test ["mx2.careful.test."]`},
		{"mode: enforce\r\nmx: mx3.careful.test\r\n", false, "failed: the MTA-STS policy of careful.test names none of its mail exchangers"},
	} {
		w := newCareful(t, "version: STSv1\r\nmax_age: 86400\r\n"+test.policy, ``, true)
		w.rt.MTASTS.Off = test.off
		w.rt.Logger = slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil))
		if got := said(t, w.rt, expr); !strings.HasSuffix(got, test.want) {
			t.Errorf("%q: %s, want %s", test.policy, got, test.want)
		}
	}
}

// neverDNS does not answer before the asker gives up.
type neverDNS struct{}

func (neverDNS) Lookup(ctx context.Context, _ string, _ DNSType) DNSAnswer {
	<-ctx.Done()
	return DNSAnswer{Err: ctx.Err()}
}

func TestPolicyWaitsForDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, _ := quiet(t)
		rt.Resolver = neverDNS{}
		began := time.Now()
		got := said(t, rt, "d.lookup_addr('a.test')")
		if took := time.Since(began); took != 30*time.Second || !strings.HasSuffix(got, "kumo.dns.lookup_addr: failed to query DNS for a.test: operation timed out after 30s") &&
			!strings.HasSuffix(got, "kumo.dns.lookup_addr: operation timed out after 30s") {
			t.Errorf("after %v: %s", took, got)
		}
		rt.Close(t.Context())
	})
}

// TestPolicyConnectionsEnd: what a policy asked for by settings of its own ends with the runtime, too.
func TestPolicyConnectionsEnd(t *testing.T) {
	closed := make(chan struct{}, 8)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	rt, _ := quiet(t)
	if got := said(t, rt, "kumo.http.build_client { pool_idle_timeout = '1h' }:get('"+server.URL+"'):send():status_code()"); got != "404" {
		t.Fatal(got)
	}
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	<-closed
}
