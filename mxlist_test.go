package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// zone is a Resolver that knows what it is told. Names that it does not know do not exist.
type zone map[string]DNSAnswer

func (z zone) Lookup(_ context.Context, name string, t DNSType) DNSAnswer {
	if a, ok := z[name+" "+dnsTypeNames[t]]; ok {
		return a
	}
	for key := range z {
		if strings.HasPrefix(key, name+" ") {
			return DNSAnswer{Result: DNSNoData}
		}
	}
	return DNSAnswer{Result: DNSNXDomain}
}

var dnsTypeNames = map[DNSType]string{DNSTypeMX: "MX", DNSTypeA: "A", DNSTypeAAAA: "AAAA", DNSTypeTXT: "TXT", DNSTypeCNAME: "CNAME", DNSTypeTLSA: "TLSA", DNSTypePTR: "PTR"}

func mx(records ...MXRecord) DNSAnswer { return DNSAnswer{Result: DNSRecords, MX: records} }

func addrs(list ...string) DNSAnswer {
	a := DNSAnswer{Result: DNSRecords}
	for _, s := range list {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(s))
	}
	return a
}

var serverFailure = DNSAnswer{Err: errors.New("SERVFAIL")}

func TestEntriesOfAnMXList(t *testing.T) {
	ip := netip.MustParseAddr
	for _, test := range []struct {
		entry MXEntry
		want  target
	}{
		{MXEntry{Name: "smart.host.local"}, target{name: "smart.host.local"}},
		{MXEntry{Name: "Smart.Host.Local."}, target{name: "smart.host.local"}},
		{MXEntry{Name: "smart.host.local:2025"}, target{name: "smart.host.local", port: 2025}},
		{MXEntry{Name: "münchen.example:26"}, target{name: "xn--mnchen-3ya.example", port: 26}},
		{MXEntry{Name: "my_host.example"}, target{name: "my_host.example"}},
		{MXEntry{Name: "[10.0.0.1]"}, target{name: "[10.0.0.1]", addr: ip("10.0.0.1")}},
		{MXEntry{Name: "[::1]"}, target{name: "[::1]", addr: ip("::1")}},
		{MXEntry{Name: "[IPv6:::1]"}, target{name: "[IPv6:::1]", addr: ip("::1")}},
		{MXEntry{Name: "[ipv6:2001:db8::1]:2025"}, target{name: "[ipv6:2001:db8::1]", addr: ip("2001:db8::1"), port: 2025}},
		{MXEntry{Name: "10.0.0.1"}, target{name: "10.0.0.1", addr: ip("10.0.0.1")}},
		{MXEntry{Name: "::1"}, target{name: "::1", addr: ip("::1")}},
		{MXEntry{Name: "10.0.0.1:2025"}, target{name: "10.0.0.1", addr: ip("10.0.0.1"), port: 2025}},
		{MXEntry{Name: "[10.0.0.1]:2025"}, target{name: "[10.0.0.1]", addr: ip("10.0.0.1"), port: 2025}},
		{MXEntry{Name: "[::1]:2025"}, target{name: "[::1]", addr: ip("::1"), port: 2025}},
		{MXEntry{Name: "::1:2025"}, target{name: "::1:2025", addr: ip("::1:2025")}},
		{MXEntry{Name: "::ffff:127.0.0.1"}, target{name: "::ffff:127.0.0.1", addr: ip("127.0.0.1")}},
		{MXEntry{Name: "/run/lmtp.sock"}, target{name: "/run/lmtp.sock", unix: "/run/lmtp.sock"}},
		{MXEntry{Name: "mx.example.com", Addr: "10.0.0.1"}, target{name: "mx.example.com", addr: ip("10.0.0.1")}},
		{MXEntry{Name: "mx.example.com", Addr: "10.0.0.1:2025"}, target{name: "mx.example.com", addr: ip("10.0.0.1"), port: 2025}},
		{MXEntry{Name: "mx.example.com", Addr: "[10.0.0.1]:25"}, target{name: "mx.example.com", addr: ip("10.0.0.1"), port: 25}},
		{MXEntry{Name: "mx.example.com", Addr: "::1"}, target{name: "mx.example.com", addr: ip("::1")}},
		{MXEntry{Name: "mx.example.com", Addr: "[::1]"}, target{name: "mx.example.com", addr: ip("::1")}},
		{MXEntry{Name: "mx.example.com", Addr: "[::1]:25"}, target{name: "mx.example.com", addr: ip("::1"), port: 25}},
		{MXEntry{Name: "mx.example.com", Addr: "/abs/path"}, target{name: "mx.example.com", unix: "/abs/path"}},
	} {
		if got, err := test.entry.target(); err != nil || got != test.want {
			t.Errorf("%+v: %+v, %v, want %+v", test.entry, got, err, test.want)
		}
	}
	for _, bad := range []MXEntry{
		{}, {Name: "host:"}, {Name: "host:0"}, {Name: "host:65536"}, {Name: "host:99999999999999999999"}, {Name: "host:smtp"}, {Name: "1.2.3.400"}, {Name: "1.2.3"},
		{Name: "a b"}, {Name: "a@b"}, {Name: "a\r\nb"}, {Name: "[10.0.0.1:2025]"}, {Name: "[10.0.0.1"}, {Name: "10.0.0.1]"},
		{Name: "[host]"}, {Name: "fe80::1%eth0"}, {Name: "/run/../lmtp.sock"}, {Name: "mx", Addr: "host"}, {Name: "m x", Addr: "10.0.0.1"},
	} {
		if got, err := bad.target(); err == nil {
			t.Errorf("%+v was accepted: %+v", bad, got)
		}
	}
}

func TestSiteNames(t *testing.T) {
	for _, test := range []struct {
		hosts []string
		port  uint16
		want  string
	}{
		{[]string{"mx1.example.net", "mx2.example.net"}, 0, "(mx1|mx2).example.net"},
		{[]string{"mail.corp.example", "in.backup.relay.example"}, 0, "in?.(mail|backup).(corp|relay).example"},
		{[]string{"in.backup.relay.example", "mail.corp.example"}, 0, "in?.(backup|mail).(relay|corp).example"},
		{[]string{"a.mx.example", "b.mx.example"}, 0, "(a|b).mx.example"},
		{[]string{"b.mx.example", "a.mx.example"}, 0, "(b|a).mx.example"},
		{[]string{"example.org"}, 2525, "example.org:2525"},
		{[]string{"a.example", "a.example"}, 0, "a.example"},
	} {
		if got := siteName(test.hosts, test.port); got != test.want {
			t.Errorf("%v: %s, want %s", test.hosts, got, test.want)
		}
	}
}

func TestRoutes(t *testing.T) {
	dns := zone{
		"two.test MX":      mx(MXRecord{20, "b.mx.test"}, MXRecord{10, "c.mx.test"}, MXRecord{10, "a.mx.test"}),
		"null.test MX":     mx(MXRecord{0, "."}),
		"mixed.test MX":    mx(MXRecord{0, "."}, MXRecord{10, "a.mx.test"}),
		"between.test MX":  mx(MXRecord{10, "b.mx.test"}, MXRecord{20, "."}, MXRecord{20, "a.mx.test"}),
		"implicit.test A":  addrs("192.0.2.1"),
		"broken.test MX":   serverFailure,
		"bogus.test MX":    {Result: DNSBogus},
		"ports.test MX":    mx(MXRecord{10, "a.mx.test"}),
		"idn.test MX":      mx(MXRecord{10, "a.mx.test"}),
		"xn--d-1ga.test A": addrs("192.0.2.3"),
	}
	for _, test := range []struct {
		queue string
		site  string // or the failure:
		code  string
		hosts string
	}{
		{queue: "two.test", site: "(a|c|b).mx.test", hosts: "a.mx.test c.mx.test / b.mx.test"},
		{queue: "user.test!two.test", site: "(a|c|b).mx.test", hosts: "a.mx.test c.mx.test / b.mx.test"},
		{queue: "null.test", code: "556 5.1.10"},
		{queue: "mixed.test", site: "a.mx.test", hosts: "a.mx.test"},
		{queue: "between.test", site: "(b|a).mx.test", hosts: "b.mx.test / a.mx.test"},
		{queue: "implicit.test", site: "implicit.test", hosts: "implicit.test"},
		{queue: "implicit.test:2525", site: "implicit.test:2525", hosts: "implicit.test:2525"},
		{queue: "ports.test:26", site: "a.mx.test:26", hosts: "a.mx.test:26"},
		{queue: "DÖ.test", site: "xn--d-1ga.test", hosts: "xn--d-1ga.test"},
		{queue: "nx.test", code: "451 4.4.4"},
		{queue: "broken.test", code: "451 4.4.4"},
		{queue: "bogus.test", code: "451 4.4.4"},
		{queue: "two.test:0", code: "451 4.4.4"},
		{queue: "a b", code: "451 4.4.4"},
		{queue: "[192.0.2.7]:2525", site: "192.0.2.7:2525", hosts: "192.0.2.7:2525"},
		{queue: "[192.0.2.7:2525]", site: "192.0.2.7:2525", hosts: "192.0.2.7:2525"},
		{queue: "[IPv6:2001:db8::7]", site: "2001:db8::7", hosts: "2001:db8::7"},
	} {
		r, err := domainRoute(t.Context(), dns, ParseQueueName(test.queue))
		if err != nil {
			if got := strings.TrimSpace(err.Response.String()[:min(10, len(err.Response.String()))]); test.code == "" || got != test.code {
				t.Errorf("%s: %s", test.queue, err.Response)
			}
			if (err.Status == Permanent) != strings.HasPrefix(test.code, "5") {
				t.Errorf("%s: %s", test.queue, err.Status)
			}
			continue
		}
		var groups []string
		for _, group := range r.hosts {
			var names []string
			for _, h := range group {
				name := h.name
				if h.addr.IsValid() {
					name = h.addr.String()
				}
				names = append(names, joinPort(name, h.port))
			}
			groups = append(groups, strings.Join(names, " "))
		}
		if hosts := strings.Join(groups, " / "); r.site != test.site || hosts != test.hosts {
			t.Errorf("%s: site %q, hosts %q", test.queue, r.site, hosts)
		}
	}
}

func TestPlans(t *testing.T) {
	dns := zone{
		"dual.test A":        addrs("192.0.2.1", "192.0.2.2"),
		"dual.test AAAA":     addrs("2001:db8::1"),
		"v6.test AAAA":       addrs("2001:db8::6"),
		"dead.test A":        serverFailure,
		"dead.test AAAA":     serverFailure,
		"half.test A":        addrs("192.0.2.9"),
		"half.test AAAA":     serverFailure,
		"loop.test A":        addrs("127.0.0.1"),
		"mapped.test AAAA":   addrs("::ffff:127.0.0.1"),
		"nowhere.test TXT":   {},
		"twice.test A":       addrs("192.0.2.1"),
		"prefer.test MX":     mx(MXRecord{10, "dual.test"}, MXRecord{20, "half.test"}),
		"mixedloop.test MX":  mx(MXRecord{10, "half.test"}, MXRecord{20, "loop.test"}),
		"onedead.test MX":    mx(MXRecord{10, "dead.test"}, MXRecord{20, "half.test"}),
		"unspecified.test A": addrs("0.0.0.0"),
	}
	path := func(text string) EgressPath {
		p, err := ParseEgressPath([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		name   string
		list   []string // mx_list, or
		domain string
		path   string
		source EgressSource
		want   string // the plan, or the code of the failure
	}{
		{name: "A before AAAA, as answered", list: []string{"dual.test"}, want: "192.0.2.1:25 192.0.2.2:25 [2001:db8::1]:25"},
		{name: "order of the list", list: []string{"half.test:26", "dual.test"}, want: "192.0.2.9:26 192.0.2.1:25 192.0.2.2:25 [2001:db8::1]:25"},
		{name: "v4 only", list: []string{"dual.test"}, path: `{"ip_lookup_strategy": "Ipv4Only"}`, want: "192.0.2.1:25 192.0.2.2:25"},
		{name: "v6 only", list: []string{"dual.test"}, path: `{"ip_lookup_strategy": "Ipv6Only"}`, want: "[2001:db8::1]:25"},
		{name: "v6 first", list: []string{"dual.test", "half.test"}, path: `{"ip_lookup_strategy": "Ipv6ThenIpv4"}`, want: "[2001:db8::1]:25 192.0.2.9:25"},
		{name: "v4 first", list: []string{"dual.test", "v6.test"}, path: `{"ip_lookup_strategy": "Ipv4ThenIpv6"}`, want: "192.0.2.1:25 192.0.2.2:25 [2001:db8::6]:25"},
		{name: "one that fails spoils nothing", list: []string{"dead.test", "half.test"}, want: "dead.test! 192.0.2.9:25"},
		{name: "one that does not exist spoils nothing", list: []string{"nx.test", "half.test"}, want: "nx.test! 192.0.2.9:25"},
		{name: "none resolves", list: []string{"dead.test", "nx.test", "nowhere.test"}, want: "451"},
		{name: "an address twice", list: []string{"[192.0.2.1]", "[192.0.2.1]"}, want: "192.0.2.1:25"},
		{name: "port of the path", list: []string{"[192.0.2.1]"}, path: `{"smtp_port": 587}`, want: "192.0.2.1:587"},
		{name: "port of the list before the path's", list: []string{"[192.0.2.1]:26"}, path: `{"smtp_port": 587}`, want: "192.0.2.1:26"},
		{name: "port of the source before all", list: []string{"[192.0.2.1]:26"}, path: `{"smtp_port": 587}`, source: EgressSource{RemotePort: 2525}, want: "192.0.2.1:2525"},
		{name: "prohibited", list: []string{"loop.test"}, want: "550"},
		{name: "prohibited literal", list: []string{"[::1]"}, want: "550"},
		{name: "prohibited, unspecified", list: []string{"unspecified.test"}, want: "550"},
		{name: "prohibited in disguise", list: []string{"mapped.test"}, want: "550"},
		{name: "one prohibited condemns all", domain: "mixedloop.test", want: "550"},
		{name: "prohibited, in the mapped form", list: []string{"half.test"}, path: `{"prohibited_hosts": ["::ffff:192.0.2.0/120"]}`, want: "550"},
		{name: "nothing prohibited", list: []string{"loop.test"}, path: `{"prohibited_hosts": []}`, want: "127.0.0.1:25"},
		{name: "skipped", list: []string{"dual.test"}, path: `{"skip_hosts": ["192.0.2.0/31"]}`, want: "192.0.2.2:25 [2001:db8::1]:25"},
		{name: "all skipped", list: []string{"half.test"}, path: `{"skip_hosts": ["192.0.2.9"]}`, want: "451"},
		{name: "source of one family", list: []string{"dual.test"}, source: EgressSource{SourceAddress: netip.MustParseAddr("::1")},
			want: "dual.test! dual.test! [2001:db8::1]:25"},
		{name: "a unix socket", list: []string{"/run/lmtp.sock"}, want: "/run/lmtp.sock"},
		{name: "MX of which one is dead", domain: "onedead.test", want: "dead.test! 192.0.2.9:25"},
	} {
		var to *route
		if test.domain != "" {
			var failed *PlanError
			if to, failed = domainRoute(t.Context(), dns, QueueName{Domain: test.domain}); failed != nil {
				t.Fatal(failed)
			}
		} else {
			var list []MXEntry
			for _, s := range test.list {
				list = append(list, MXEntry{Name: s})
			}
			var err error
			if to, err = (&SMTP{MXList: list}).route(); err != nil {
				t.Fatal(err)
			}
		}
		if test.path == "" {
			test.path = "{}"
		}
		p := path(test.path)
		plan, failed := (&planner{dns: dns, path: &p, source: &test.source}).plan(t.Context(), to)
		var got []string
		for _, c := range plan {
			if c.err != nil {
				got = append(got, c.host+"!")
				continue
			}
			got = append(got, c.address())
		}
		if failed != nil {
			got = []string{failed.Response.String()[:3]}
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %s, want %s", test.name, s, test.want)
		}
	}

	t.Run("equal preferences are shuffled, better ones go first", func(t *testing.T) {
		p := path(`{}`)
		seen := map[string]bool{}
		to, _ := domainRoute(t.Context(), dns, QueueName{Domain: "prefer.test"})
		plan, failed := (&planner{dns: dns, path: &p, source: &EgressSource{}}).plan(t.Context(), to)
		if !hasEquals(plan) {
			t.Error("there are no equals")
		}
		for range 200 {
			shuffleEquals(plan)
			if failed != nil || len(plan) != 4 || plan[3].address() != "192.0.2.9:25" {
				t.Fatalf("%+v, %v", plan, failed)
			}
			seen[plan[0].address()] = true
		}
		if len(seen) != 3 {
			t.Errorf("only %v came first", seen)
		}
	})
}

// slow is a Resolver that takes a second for each question.
type slow struct{ zone }

func (s slow) Lookup(ctx context.Context, name string, t DNSType) DNSAnswer {
	time.Sleep(time.Second)
	return s.zone.Lookup(ctx, name, t)
}

// TestHostsAreLookedUpAtTheSameTime: many hosts take no longer than one: MX, addresses, and TLSA records where the name
// server is slow.
func TestHostsAreLookedUpAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone{}
		var records []MXRecord
		for i := range uint16(20) {
			host := fmt.Sprintf("mx%02d.many.test", i)
			records = append(records, MXRecord{i / 3, host})
			z[host+" A"] = secured(addrs(fmt.Sprintf("192.0.2.%d", i+1)), host)
		}
		z["many.test MX"] = secured(mx(records...), "many.test")
		rt := newRuntime(t)
		rt.Resolver, rt.MTASTS.Off, rt.Egress = slow{z}, true, loopback(`"enable_dane": true, `)
		began := time.Now()
		plan, err := protocolOf(t, rt, `{}`).Plan(t.Context(), messageTo("a@many.test"))
		if took := time.Since(began); err != nil || len(plan.Hosts) != 20 || took != 3*time.Second {
			t.Errorf("%d hosts after %v: %v", len(plan.Hosts), took, err)
		}
		rt.Close(context.Background())
	})
}

// TestOneAddressOfTwoHosts: an address where nobody answers is not tried under another name; one that fails a name may be
// right for another.
func TestOneAddressOfTwoHosts(t *testing.T) {
	authority := smtptest.CA(t)
	for answers, want := range map[bool]string{true: "delivered mx2.both.test after 2", false: "transient  after 1"} {
		sink := &smtptest.Sink{TLS: authority.Server(t, "mx2.both.test")}
		rt := newRuntime(t)
		rt.RootCAs, rt.MTASTS.Off, rt.Egress = authority.Pool, true, loopback(``)
		rt.Resolver = zone{
			"both.test MX":    mx(MXRecord{10, "mx1.both.test"}, MXRecord{20, "mx2.both.test"}),
			"mx1.both.test A": addrs("192.0.2.1"),
			"mx2.both.test A": addrs("192.0.2.1"),
		}
		serveHosts(t, rt, map[string]*smtptest.Sink{"192.0.2.1:25": sink})
		dial, dials := rt.Dial, 0
		rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
			if dials++; !answers {
				return nil, errors.New("nobody answers")
			}
			return dial(ctx, to)
		}
		r := protocolOf(t, rt, `{}`).Deliver(t.Context(), messageTo("a@both.test")).Results[0]
		if got := fmt.Sprintf("%s %s after %d", r.Status, r.Session.Peer, dials); got != want {
			t.Errorf("%s, want %s: %s", got, want, r.Response)
		}
	}
}
