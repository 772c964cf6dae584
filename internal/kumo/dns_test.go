package kumo

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDNS knows a few names; what it does not know is not there, and "broken" cannot be asked for.
type fakeDNS struct {
	mx   map[string]MailExchangers
	addr map[string][]netip.Addr
	txt  map[string][]string
	ptr  map[string][]string
}

var errBroken = errors.New("failed to query DNS")

func found[T any](all map[string]T, name string) (answer T, err error) {
	if strings.Contains(name, "broken") {
		return answer, errBroken
	}
	return all[name], nil
}

func (d *fakeDNS) MX(_ context.Context, domain string) (MailExchangers, error) {
	if _, ok := d.mx[domain]; !ok {
		return MailExchangers{}, errors.New("MX lookup for " + domain + " failed: NXDOMAIN")
	}
	return found(d.mx, domain)
}

func (d *fakeDNS) Addrs(_ context.Context, host, strategy string) ([]netip.Addr, error) {
	if strategy != "" {
		host = strategy + " " + host
	}
	return found(d.addr, host)
}
func (d *fakeDNS) TXT(_ context.Context, name string) ([]string, error) { return found(d.txt, name) }
func (d *fakeDNS) PTR(_ context.Context, name string) ([]string, error) { return found(d.ptr, name) }

var knownDNS = &fakeDNS{
	mx: map[string]MailExchangers{
		"a.example": {Domain: "a.example.", Site: "(mx|mx2|b).a.example", MX: true, Secure: true, MTASTS: "Testing", Preferences: []Preference{
			{0, []string{"mx.a.example."}}, {10, []string{"b.a.example.", "mx2.a.example."}}}},
		"[192.0.2.1]": {Domain: "[192.0.2.1]", Site: "192.0.2.1", Literal: true, MTASTS: "None", Preferences: []Preference{{1, []string{"192.0.2.1"}}}},
	},
	addr: map[string][]netip.Addr{
		"a.example":                {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		"Ipv6Only a.example":       {netip.MustParseAddr("2001:db8::1")},
		"2.0.0.127.bl.example":     {netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.4")},
		"3.0.0.127.bl.example":     {netip.MustParseAddr("127.0.0.3")},
		"4.0.0.127.broken.example": nil,
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example": {netip.MustParseAddr("127.0.0.6")},
	},
	txt: map[string][]string{
		"a.example":            {"v=spf1 -all", "x\xffy"},
		"2.0.0.127.bl.example": {"Blocked - see ", "https://bl.example/"},
	},
	ptr: map[string][]string{
		"1.2.0.192.in-addr.arpa": {"a.example", "b.example"},
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": {"six.example"},
	},
}

func TestDNS(t *testing.T) {
	o := stubs()
	o.DNS = knownDNS
	const list = "function list(t) return #t .. ':' .. table.concat(t, ',') end\n"
	for _, test := range []struct{ expr, want string }{
		{"list(d.lookup_mx('a.example').hosts)", "3:mx.a.example.,b.a.example.,mx2.a.example."},
		{"list(d.lookup_mx('a.example').by_pref[10])", "2:b.a.example.,mx2.a.example."},
		{"list(d.lookup_mx('a.example', nil).by_pref[0])", "1:mx.a.example."},
		{"d.lookup_mx('a.example').by_pref[1]", "nil"},
		{"(function(m) return m.domain_name .. m.site_name .. tostring(m.is_domain_literal) .. tostring(m.is_secure) .. tostring(m.is_mx) .. m.mta_sts end)(d.lookup_mx('a.example'))",
			"a.example.(mx|mx2|b).a.examplefalsetruetrueTesting"},
		{"tostring(d.lookup_mx('[192.0.2.1]').is_domain_literal) .. d.lookup_mx('[192.0.2.1]').by_pref[1][1]", "true192.0.2.1"},
		{"list(d.lookup_addr('a.example'))", "2:192.0.2.1,2001:db8::1"},
		{"list(d.lookup_addr('a.example', nil, 'Ipv6Only'))", "1:2001:db8::1"},
		{"list(d.lookup_addr('nobody.example'))", "0:"},
		{"list(d.lookup_addr('[10.0.0.1]'))", "1:10.0.0.1"},
		{"list(d.lookup_addr('[IPv6:::1]')) .. list(d.lookup_addr('[::1]')) .. list(d.lookup_addr('::1'))", "1:::11:::11:::1"},
		{"list(d.lookup_addr('10.0.0.1'))", "1:10.0.0.1"},
		{"list(d.lookup_addr('/run/lmtp.sock'))", "1:/run/lmtp.sock"},
		{"list(d.lookup_txt('a.example'))", "2:v=spf1 -all,x\uFFFDy"},
		{"list(d.lookup_txt('nobody.example'))", "0:"},
		{"list(d.lookup_ptr('192.0.2.1'))", "2:a.example.,b.example."},
		{"list(d.lookup_ptr('2001:db8::1'))", "1:six.example."},
		{"list(d.lookup_ptr('192.0.2.9'))", "0:"},
		{"table.concat({d.rbl_lookup('127.0.0.2', 'bl.example')}, ' ')", "127.0.0.2 Blocked - see https://bl.example/"},
		{"table.concat({d.rbl_lookup('127.0.0.2:25', 'bl.example.')}, ' ')", "127.0.0.2 Blocked - see https://bl.example/"},
		{"table.concat({d.rbl_lookup('::ffff:127.0.0.2', 'bl.example')}, ' ')", "127.0.0.2 Blocked - see https://bl.example/"},
		{"select('#', d.rbl_lookup('127.0.0.3', 'bl.example')) .. tostring(select(2, d.rbl_lookup('127.0.0.3', 'bl.example')))", "2nil"},
		{"select('#', d.rbl_lookup('127.0.0.9', 'bl.example')) .. tostring((d.rbl_lookup('127.0.0.9', 'bl.example')))", "2nil"},
		{"(d.rbl_lookup('[2001:db8::1]:25', 'bl.example'))", "127.0.0.6"},
		{"(d.rbl_lookup('[2001:db8::1]', 'bl.example'))", "127.0.0.6"},
		{"(d.rbl_lookup('2001:db8::1', 'bl.example'))", "127.0.0.6"},
		{"d.ptr_host('127.0.0.1')", "1.0.0.127.in-addr.arpa"},
		{"d.ptr_host('::1')", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa"},
		{"d.reverse_ip('127.0.0.1')", "1.0.0.127"},
		{"d.reverse_ip('2001:db8::ab')", "b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"},
		{"kumo.json_encode(d.lookup_mx('a.example').hosts)", `["mx.a.example.","b.a.example.","mx2.a.example."]`},
	} {
		got, err := eval(t, o, list+"function run() local d = require 'kumo.dns' return "+test.expr+" end")
		if err != nil || got != test.want {
			t.Errorf("%s: %s, %v, want %s", test.expr, got, err, test.want)
		}
	}
}

func TestDNSErrors(t *testing.T) {
	for _, test := range []struct{ call, want string }{
		{"lookup_mx('nowhere.example')", "kumo.dns.lookup_mx: MX lookup for nowhere.example failed: NXDOMAIN"},
		{"lookup_addr('broken.example')", "kumo.dns.lookup_addr: failed to query DNS"},
		{"lookup_txt('broken.example')", "kumo.dns.lookup_txt: failed to query DNS"},
		{"rbl_lookup('127.0.0.4', 'broken.example')", "kumo.dns.rbl_lookup: failed to query DNS"},
		{"lookup_mx('a.example', 'mine')", "kumo.dns.lookup_mx: resolver mine is not defined"},
		{"lookup_ptr('192.0.2.1', 'mine')", "kumo.dns.lookup_ptr: resolver mine is not defined"},
		{"lookup_addr('a.example', nil, 'Ipv5Only')", `there is no strategy "Ipv5Only": want one of Ipv4AndIpv6, `},
		{"lookup_addr('[a.example]')", `invalid address: "a.example"`},
		{"lookup_addr('[::1')", "no closing bracket"},
		{"lookup_addr('[fe80::1%eth0]')", "invalid address"},
		{"lookup_ptr('a.example')", `invalid IP address "a.example"`},
		{"lookup_ptr('fe80::1%eth0')", "invalid IP address"},
		{"ptr_host('127.0.0.1:25')", `invalid IP address "127.0.0.1:25"`},
		{"reverse_ip('')", `invalid IP address ""`},
		{"rbl_lookup('a.example', 'bl.example')", `"a.example" is not a valid IP address`},
		{"rbl_lookup('127.0.0.1')", "bad argument #2"},
		{"rbl_lookup('127.0.0.1', '.')", "the domain of a block list is missing"},
		{"lookup_mx()", "bad argument #1"},
		{"lookup_txt({})", "bad argument #1"},
		{"lookup_mx('a.example', {})", "bad argument #2"},
	} {
		o := stubs()
		o.DNS = knownDNS
		if _, err := eval(t, o, "function run() kumo.dns."+test.call+" end"); err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "policy.lua:1: ") {
			t.Errorf("%s: %v, want %s", test.call, err, test.want)
		}
	}
	for _, call := range []string{"lookup_mx('a')", "lookup_addr('a')", "lookup_txt('a')", "lookup_ptr('::1')", "rbl_lookup('::1', 'a')"} {
		name, _, _ := strings.Cut(call, "(")
		if _, err := eval(t, stubs(), "function run() kumo.dns."+call+" end"); err == nil || !strings.Contains(err.Error(), "kumo.dns."+name+": there is no resolver") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// silentDNS never answers.
type silentDNS struct{ fakeDNS }

func (*silentDNS) Addrs(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDNSEnds(t *testing.T) {
	gone := errors.New("the runtime closes")
	for _, test := range []struct {
		after, want time.Duration
		err         error
	}{{time.Hour, dnsTimeout, context.DeadlineExceeded}, {time.Second, time.Second, gone}} {
		synctest.Test(t, func(t *testing.T) {
			o := stubs()
			o.DNS = &silentDNS{}
			s := newState(t, o, "function run() kumo.dns.lookup_addr('a.example') end")
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := time.AfterFunc(test.after, func() { cancel(gone) })
			began := time.Now()
			_, err := s.Call(ctx, 0, s.L.GetGlobal("run"))
			if took := time.Since(began); took != test.want || !errors.Is(err, test.err) {
				t.Errorf("after %v: %v", took, err)
			}
			stop.Stop()
			cancel(nil)
			s.Close()
		})
	}
}

// FuzzHostAddress: what names an address is reversed into a name that leads back to it.
func FuzzHostAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "127.0.0.1:25", "[::1]:25", "::1", "[::1]", "::ffff:1.2.3.4", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ip, ok := hostAddress(s)
		if !ok {
			return
		}
		labels := strings.Split(reversed(ip), ".")
		if n := map[bool]int{true: 4, false: 32}[ip.Is4()]; len(labels) != n {
			t.Fatalf("%v: %d labels", ip, len(labels))
		}
		back := ""
		for i := len(labels) - 1; i >= 0; i-- {
			back += labels[i]
			if ip.Is4() && i > 0 {
				back += "."
			}
			if n := len(labels) - i; !ip.Is4() && n%4 == 0 && i > 0 {
				back += ":"
			}
		}
		if netip.MustParseAddr(back) != ip {
			t.Fatalf("%v: %s", ip, back)
		}
	})
}
