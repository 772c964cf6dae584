package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// careful is a world with the domain careful.test, which has two mail exchangers, and a policy.
type careful struct {
	*testing.T
	rt        *Runtime
	zone      zone
	sink      *smtptest.Sink      // both of them
	authority *smtptest.Authority // that is trusted

	mu      sync.Mutex
	dialed  []string
	reports []string
}

// newCareful makes the world. The mail exchangers have certificates of an authority that is trusted if good says so.
func newCareful(t *testing.T, policy, path string, good bool) *careful {
	authority, another := smtptest.CA(t), smtptest.CA(t)
	issuer := authority
	if !good {
		issuer = another
	}
	w := &careful{T: t, rt: newRuntime(t), sink: &smtptest.Sink{
		Offer: []string{"REQUIRETLS"}, TLS: issuer.Server(t, "mx1.careful.test", "mx2.careful.test", "careful.test")}}
	w.zone = zone{
		"careful.test MX":           lasting(mx(MXRecord{10, "mx1.careful.test"}, MXRecord{20, "mx2.careful.test"}), time.Hour),
		"mx1.careful.test A":        lasting(addrs("192.0.2.1"), time.Hour),
		"mx2.careful.test A":        lasting(addrs("192.0.2.2"), time.Hour),
		"_mta-sts.careful.test TXT": lasting(DNSAnswer{Result: DNSRecords, TXT: []string{"v=STSv1; id=1;"}}, time.Hour),
		"mta-sts.careful.test A":    lasting(addrs("192.0.2.3"), time.Hour),
	}
	host := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, policy)
	}))
	host.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "mta-sts.careful.test")}}
	host.StartTLS()
	t.Cleanup(host.Close)
	addr, err := w.sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.sink.Close() })
	w.authority, w.rt.RootCAs, w.rt.Resolver, w.rt.Egress = authority, authority.Pool, w.zone, loopback(path)
	w.rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
		w.mu.Lock()
		w.dialed = append(w.dialed, to.Host+" "+to.Address)
		w.mu.Unlock()
		server := addr
		if strings.HasSuffix(to.Address, ":443") {
			server = host.Listener.Addr().String()
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", server)
	}
	w.rt.Trace = &Trace{TLSReport: func(_ string, r TLSReport) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reports = append(w.reports, fmt.Sprintf("%s %s %s: %s %s %v", r.PolicyType, r.PolicyDomain, strings.Join(r.Policy, ","), r.Host, r.Failure, r.Sent))
	}}
	return w
}

func (w *careful) deliver(change ...func(*Message)) Result {
	w.Helper()
	msg := messageTo("a@careful.test")
	for _, c := range change {
		c(msg)
	}
	return protocolOf(w.T, w.rt, `{}`).Deliver(w.Context(), msg).Results[0]
}

// TestMTASTS: what a domain's policy does to its mail.
func TestMTASTS(t *testing.T) {
	policy := func(mode string, hosts ...string) string {
		text := "version: STSv1\r\nmode: " + mode + "\r\nmax_age: 86400\r\n"
		for _, h := range hosts {
			text += "mx: " + h + "\r\n"
		}
		return text
	}
	waives := func(m *Message) { m.TLSNotRequired = true }
	for _, test := range []struct {
		name, policy, path string
		good               bool
		change             func(*Message)
		want               string // of the result
		hosts              string // that were connected to
		report             string // the last one
	}{
		{"enforce, and all is well", policy("enforce", "*.careful.test"), "", true, nil,
			"delivered 250 mta-sts Required mta-sts enforce", "mx1", "sts careful.test version: STSv1,mode: enforce,mx: *.careful.test,max_age: 86400: mx1.careful.test  true"},
		{"enforce, one host is not named", policy("enforce", "mx2.careful.test"), "", true, nil,
			"delivered 250 mta-sts Required mta-sts enforce", "mx2", "sts careful.test version: STSv1,mode: enforce,mx: mx2.careful.test,max_age: 86400: mx2.careful.test  true"},
		{"enforce, no host is named", policy("enforce", "mx.elsewhere.test"), "", true, nil,
			"transient 451     none of its mail exchangers", "", ""},
		{"enforce, another's certificate", policy("enforce", "*.careful.test"), `"enable_tls": "OpportunisticInsecure", `, false, nil,
			"transient 400  Required mta-sts enforce certificate", "mx1 mx2", "sts careful.test version: STSv1,mode: enforce,mx: *.careful.test,max_age: 86400: mx2.careful.test certificate-not-trusted false"},
		{"enforce, and the message does not care", policy("enforce", "mx.elsewhere.test"), "", false, waives,
			"delivered 250 none OpportunisticInsecure tls-required ", "mx1", "no-policy-found careful.test : mx1.careful.test certificate-not-trusted true"},
		{"enforce, and the path does not care", policy("enforce", "*.careful.test"), `"enable_mta_sts": false, "enable_tls": "OpportunisticInsecure", `, false, nil,
			"delivered 250 none OpportunisticInsecure enable_tls ", "mx1", "no-policy-found careful.test : mx1.careful.test certificate-not-trusted true"},
		{"testing, another's certificate", policy("testing", "*.careful.test"), "", false, nil,
			"delivered 250 none OpportunisticInsecure mta-sts testing", "mx1", "sts careful.test version: STSv1,mode: testing,mx: *.careful.test,max_age: 86400: mx1.careful.test certificate-not-trusted true"},
		{"testing, the host is not named", policy("testing", "mx2.careful.test"), "", true, nil,
			"delivered 250 pkix OpportunisticInsecure mta-sts testing", "mx1", "sts careful.test version: STSv1,mode: testing,mx: mx2.careful.test,max_age: 86400: mx1.careful.test validation-failure true"},
		{"testing does not lower what is required", policy("testing", "*.careful.test"), `"enable_tls": "Required", `, false, nil,
			"transient 400  Required enable_tls testing certificate", "mx1 mx2", "sts careful.test version: STSv1,mode: testing,mx: *.careful.test,max_age: 86400: mx2.careful.test certificate-not-trusted false"},
		{"none", policy("none"), "", true, nil,
			"delivered 250 pkix Opportunistic enable_tls none", "mx1", "no-policy-found careful.test : mx1.careful.test  true"},
		{"no policy at all", "what is this", "", true, nil,
			"delivered 250 pkix Opportunistic enable_tls ", "mx1", "no-policy-found careful.test : mx1.careful.test  true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newCareful(t, test.policy, test.path, test.good)
			change := test.change
			if change == nil {
				change = func(*Message) {}
			}
			r := w.deliver(change)
			by, host := "", ""
			if r.Session != nil && r.Session.TLS != nil {
				by = r.Session.TLS.By
			}
			p := TLSPolicy{}
			if r.Session != nil {
				p = r.Session.TLSPolicy
			}
			if p.Mode == "" { // it did not come to a session: the plan says what was asked for
				msg := messageTo("a@careful.test")
				change(msg)
				if plan, err := protocolOf(t, w.rt, `{}`).Plan(t.Context(), msg); err == nil {
					p = plan.Hosts[0].TLS
				}
			}
			got := fmt.Sprintf("%s %d %s %s %s %s", r.Status, r.Response.Code, by, p.Mode, p.By, p.MTASTS)
			if r.Status != Delivered {
				for _, word := range []string{"none of its mail exchangers", "certificate"} {
					if strings.Contains(r.Response.Text, word) {
						got += " " + word
						break
					}
				}
			}
			if got != test.want {
				t.Errorf("%q, want %q: %s", got, test.want, r.Response)
			}
			var hosts []string
			for _, to := range w.dialed {
				if host, _, _ = strings.Cut(to, "."); host != "mta-sts" {
					hosts = append(hosts, host)
				}
			}
			if s := strings.Join(hosts, " "); s != test.hosts {
				t.Errorf("connected to %s, want %s", s, test.hosts)
			}
			last := ""
			if n := len(w.reports); n > 0 {
				last = w.reports[n-1]
			}
			if last != test.report {
				t.Errorf("reported %q, want %q", last, test.report)
			}
		})
	}
}

// TestMTASTSWantsTheHostsName: with TLSA records of no use, at the end of an alias, the certificate must still be for
// the name that the policy speaks of.
func TestMTASTSWantsTheHostsName(t *testing.T) {
	for name, want := range map[string]Status{"mx1.careful.test": Delivered, "real.careful.test": Transient} {
		w := newCareful(t, "version: STSv1\nmode: enforce\nmx: mx1.careful.test\nmax_age: 86400\n", `"enable_dane": true, `, true)
		w.zone["careful.test MX"] = secured(mx(MXRecord{10, "mx1.careful.test"}), "careful.test")
		w.zone["mx1.careful.test A"] = secured(addrs("192.0.2.1"), "real.careful.test")
		w.zone["_25._tcp.real.careful.test TLSA"] = secured(tlsaRecords(1, make([]byte, 32)), "_25._tcp.real.careful.test")
		w.sink.TLS.Certificates = []tls.Certificate{w.authority.Certificate(t, name)}
		r := w.deliver()
		if r.Status != want {
			t.Errorf("a certificate for %s: %s %s", name, r.Status, r.Response)
		}
		if p := r.Session.TLSPolicy; want == Delivered && (p.DANE != "unusable" || p.By != "mta-sts" || r.Session.TLS.By != "mta-sts") {
			t.Errorf("%+v, %+v", p, r.Session.TLS)
		}
	}
}

// TestPolicyHosts: from where policies are fetched, and from where not.
func TestPolicyHosts(t *testing.T) {
	const policy = "version: STSv1\nmode: enforce\nmx: *.careful.test\nmax_age: 86400\n"
	for _, test := range []struct {
		name   string
		change func(w *careful)
		want   string // the policy's mode and how often its host was connected to
		report string
	}{
		{"as it is", func(w *careful) {}, "enforce 1", ""},
		{"loopback", func(w *careful) { w.zone["mta-sts.careful.test A"] = addrs("127.0.0.1", "127.0.0.2") }, " 0", "sts-policy-fetch-error"},
		{"loopback in disguise", func(w *careful) { w.zone["mta-sts.careful.test A"] = addrs("::ffff:127.0.0.1") }, " 0", "sts-policy-fetch-error"},
		{"loopback, and that is allowed", func(w *careful) {
			w.zone["mta-sts.careful.test A"] = addrs("127.0.0.1")
			w.rt.MTASTS.ProhibitedHosts = []netip.Prefix{}
		}, "enforce 1", ""},
		{"loopback, and the path allows it", func(w *careful) {
			w.zone["mta-sts.careful.test A"] = addrs("127.0.0.1")
			w.rt.Egress = loopback("") // prohibited_hosts = {}
		}, "enforce 1", ""},
		{"an address that does not answer", func(w *careful) {
			w.zone["mta-sts.careful.test A"] = addrs("192.0.2.66", "192.0.2.3")
			dial := w.rt.Dial
			w.rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
				if strings.HasPrefix(to.Address, "192.0.2.66:") {
					if deadline, _ := ctx.Deadline(); time.Until(deadline) > policyDialTimeout {
						time.Sleep(time.Until(deadline)) // and there is no time left for the other
					}
					return nil, context.DeadlineExceeded
				}
				return dial(ctx, to)
			}
		}, "enforce 1", ""},
		{"one address of two", func(w *careful) { w.zone["mta-sts.careful.test A"] = addrs("::1", "192.0.2.3") }, "enforce 1", ""},
		{"no address", func(w *careful) { delete(w.zone, "mta-sts.careful.test A") }, " 0", "sts-policy-fetch-error"},
		{"no record", func(w *careful) { delete(w.zone, "_mta-sts.careful.test TXT") }, " 0", ""},
		{"another authority", func(w *careful) { w.rt.RootCAs = smtptest.CA(t).Pool }, " 1", "sts-webpki-invalid"},
		{"switched off", func(w *careful) { w.rt.MTASTS.Off = true }, " 0", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newCareful(t, policy, "", true)
			w.rt.Egress = nil
			test.change(w)
			plan, err := protocolOf(t, w.rt, `{}`).Plan(t.Context(), messageTo("a@careful.test"))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(plan.Hosts[0].TLS.MTASTS, " ", len(w.dialed)); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if s := strings.Join(w.reports, "; "); (s == "") != (test.report == "") || !strings.Contains(s, test.report) {
				t.Errorf("reported %q, want %q", s, test.report)
			}
			if failed := test.report != ""; failed != (plan.Hosts[0].TLS.Err != nil) {
				t.Errorf("%v", plan.Hosts[0].TLS.Err)
			}
		})
	}
}

// shelf is a PolicyStore.
type shelf struct {
	mu      sync.Mutex
	entries map[string]PolicyEntry
}

func (s *shelf) Load(_ context.Context, domain string) (PolicyEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry, ok := s.entries[domain]
	if !ok {
		return entry, ErrNoPolicy
	}
	return entry, nil
}

func (s *shelf) Save(_ context.Context, domain string, entry PolicyEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[domain] = entry
	return nil
}

// TestAPolicyOutlivesARestart: what a store has kept holds although nothing of it can be had any more.
func TestAPolicyOutlivesARestart(t *testing.T) {
	kept := &shelf{entries: map[string]PolicyEntry{}}
	for _, gone := range []bool{false, true} {
		w := newCareful(t, "version: STSv1\nmode: enforce\nmx: mx2.careful.test\nmax_age: 86400\n", "", true)
		w.rt.MTASTS.Store = kept
		if gone {
			delete(w.zone, "_mta-sts.careful.test TXT")
			delete(w.zone, "mta-sts.careful.test A")
		}
		plan, err := protocolOf(t, w.rt, `{}`).Plan(t.Context(), messageTo("a@careful.test"))
		if err != nil || len(plan.Hosts) != 1 || plan.Hosts[0].Host != "mx2.careful.test" || plan.Hosts[0].TLS.Mode != "Required" {
			t.Errorf("%+v, %v", plan, err)
		}
	}
	entry := kept.entries["careful.test"]
	if entry.ID != "1" || !strings.Contains(string(entry.Policy), "mx2.careful.test") || !entry.Expires.After(entry.Fetched) {
		t.Errorf("%+v", entry)
	}
}

// TestAStrictDomainAndALaxOneOnTheSameHosts: they share the ready name, and no connection.
func TestAStrictDomainAndALaxOneOnTheSameHosts(t *testing.T) {
	w := newCareful(t, "version: STSv1\nmode: enforce\nmx: *.careful.test\nmax_age: 86400\n", `"enable_tls": "OpportunisticInsecure", `, true)
	w.zone["lax.test MX"] = w.zone["careful.test MX"]
	p := protocolOf(t, w.rt, `{}`)
	var sessions, names []string
	for _, to := range []string{"a@lax.test", "a@careful.test", "a@lax.test", "a@careful.test"} {
		r := p.Deliver(t.Context(), messageTo(to)).Results[0]
		if r.Status != Delivered {
			t.Fatalf("%s: %s", to, r.Response)
		}
		sessions, names = append(sessions, r.Session.ID), append(names, r.Session.ReadyName)
	}
	if sessions[0] != sessions[2] || sessions[1] != sessions[3] || sessions[0] == sessions[1] || len(slices.Compact(names)) != 1 {
		t.Errorf("sessions %s under %s", sessions, names)
	}
}

// TestOwnHosts: mail does not go round in circles.
func TestOwnHosts(t *testing.T) {
	zone := zone{
		"first.test MX":  mx(MXRecord{10, "mx.us.test"}, MXRecord{20, "mx.other.test"}),
		"second.test MX": mx(MXRecord{10, "mx.other.test"}, MXRecord{20, "mx.us.test"}, MXRecord{20, "equal.other.test"}, MXRecord{30, "worse.other.test"}),
		"third.test MX":  mx(MXRecord{10, "mx.other.test"}, MXRecord{20, "alias.us.test"}, MXRecord{30, "worse.other.test"}),
		"fourth.test MX": mx(MXRecord{10, "alias.us.test"}, MXRecord{10, "mx.other.test"}),
		"fifth.test MX":  mx(MXRecord{10, "xn--dner-5qa.test"}, MXRecord{20, "mx.other.test"}),
		"us.test A":      addrs("192.0.2.99"),
	}
	for _, name := range []string{"mx.other.test", "equal.other.test", "worse.other.test"} {
		zone[name+" A"] = addrs("192.0.2.1")
	}
	zone["mx.us.test A"], zone["alias.us.test A"] = addrs("192.0.2.99"), addrs("::ffff:192.0.2.99")
	for _, test := range []struct {
		to, config  string
		names, want string
	}{
		{"first.test", `{}`, "MX.us.test.", "554 5.4.6"},
		{"second.test", `{}`, "MX.us.test.", "mx.other.test"},
		{"first.test", `{}`, "", "554 5.4.6"}, // by its address
		{"second.test", `{}`, "", "mx.other.test"},
		{"third.test", `{}`, "MX.us.test.", "mx.other.test"},
		{"fourth.test", `{}`, "MX.us.test.", "554 5.4.6"},
		{"fifth.test", `{}`, "Döner.test", "554 5.4.6"},
		{"us.test", `{}`, "us.test", "554 5.4.6"},  // without MX records
		{"[192.0.2.99]", `{}`, "", "[192.0.2.99]"}, // the operator's own word
		{"first.test", `{"protocol": {"smtp": {"mx_list": ["mx.us.test", "mx.other.test"]}}}`, "mx.us.test", "mx.us.test mx.other.test"},
	} {
		rt := newRuntime(t)
		rt.Resolver, rt.MTASTS.Off = zone, true
		rt.OwnAddresses = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.99")}
		if test.names != "" {
			rt.OwnNames = []string{"localhost", test.names}
		}
		plan, err := protocolOf(t, rt, test.config).Plan(t.Context(), messageTo("a@"+test.to))
		got := ""
		if failed, ok := errors.AsType[*PlanError](err); ok {
			got = fmt.Sprint(failed.Response.Code, " ", failed.Response.Enhanced)
			if failed.Status != Permanent {
				t.Errorf("%s", failed.Status)
			}
		} else {
			var hosts []string
			for _, h := range plan.Hosts {
				hosts = append(hosts, h.Host)
			}
			got = strings.Join(hosts, " ")
		}
		if got != test.want {
			t.Errorf("%s, %s: %s, want %s", test.to, test.names, got, test.want)
		}
	}
}

// TestNoMXRecordsAreNoWayAroundAPolicy: who can hide the MX records of a domain cannot have its mail in clear.
func TestNoMXRecordsAreNoWayAroundAPolicy(t *testing.T) {
	for policy, want := range map[string]Status{"mx1.careful.test": Transient, "careful.test": Delivered} {
		w := newCareful(t, "version: STSv1\nmode: enforce\nmx: "+policy+"\nmax_age: 86400\n", "", true)
		w.zone["careful.test MX"] = DNSAnswer{Result: DNSNoData}
		w.zone["careful.test A"] = addrs("192.0.2.66")
		r := w.deliver()
		if r.Status != want || want == Delivered && r.Session.TLS.By != "mta-sts" {
			t.Errorf("%s: %s %s", policy, r.Status, r.Response)
		}
		if n := len(w.sink.Messages()); want != Delivered && n > 0 {
			t.Errorf("%s: the peer has %d", policy, n)
		}
	}
}

// TestRequireTLSNeedsSomebodyToVouch: a message that requires TLS bounces where nobody vouches for the hosts, and waits
// where a policy might that cannot be had now.
func TestRequireTLSNeedsSomebodyToVouch(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*careful)
		want   string
	}{
		{"a policy", func(*careful) {}, "delivered 250"},
		{"no policy", func(w *careful) { delete(w.zone, "_mta-sts.careful.test TXT") }, "permanent 550"},
		{"a record that cannot be looked up", func(w *careful) { w.zone["_mta-sts.careful.test TXT"] = serverFailure }, "transient 451"},
		{"a policy that cannot be fetched", func(w *careful) { w.zone["mta-sts.careful.test A"] = serverFailure }, "transient 451"},
		{"a record that does not matter", func(w *careful) {
			w.zone["_mta-sts.careful.test TXT"], w.rt.Egress = serverFailure, loopback(`"enable_mta_sts": false, `)
		}, "permanent 550"},
		{"DNSSEC", func(w *careful) {
			delete(w.zone, "_mta-sts.careful.test TXT")
			w.zone["careful.test MX"] = secured(w.zone["careful.test MX"], "careful.test")
		}, "delivered 250"},
	} {
		w := newCareful(t, "version: STSv1\nmode: enforce\nmx: *.careful.test\nmax_age: 86400\n", "", true)
		test.change(w)
		r := w.deliver(func(m *Message) { m.MailOptions = &smtp.MailOptions{RequireTLS: true} })
		if got := fmt.Sprint(r.Status, " ", r.Response.Code); got != test.want || r.Status != Delivered && r.Scope != ScopeMessage {
			t.Errorf("%s: %s, %s: %s", test.name, got, r.Scope, r.Response)
		}
	}
}
