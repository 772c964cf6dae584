//go:build interop && linux

package interop

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mtadelivery/delivery"
)

// Every scenario of DANE with a real resolver and a real server, where the operator wants no TLS at all: what the
// domain's records ask for happens all the same, and no word of the mail is said to a host that fails them.
func TestDANE(t *testing.T) {
	log := lab.hosts.log(t)
	var domains []string
	wantTLS, wantClear := 0, 0
	for _, sc := range lab.scenarios {
		domains = append(domains, sc.domain)
		switch sc.outcome {
		case verifiedByDANE, notVerified:
			wantTLS++
		case asEnableTLS:
			wantClear++
		}
	}
	results := lab.hosts.deliver(t, delivery.EgressPath{EnableTLS: "Disabled", EnableDANE: true}, domains...)
	for _, sc := range lab.scenarios {
		t.Run(sc.name, func(t *testing.T) {
			r := results[sc.domain]
			got := fmt.Sprint(r.Status)
			if s := r.Session; r.Status == delivery.Delivered && s.TLS != nil {
				got += fmt.Sprintf(" by %s, %s", s.TLS.By, s.TLSPolicy.DANE)
			}
			want := map[outcome]string{verifiedByDANE: "delivered by dane, ok", notVerified: "delivered by none, unusable",
				deferred: "transient", asEnableTLS: "delivered"}[sc.outcome]
			if sc.outcome == notVerified && strings.HasPrefix(got, "delivered by pkix") { // a good one is no worse
				got = strings.Replace(got, "pkix", "none", 1)
			}
			if got != want {
				t.Errorf("%s, want %s: %s, %+v", got, want, r.Response, r.Session)
			}
		})
	}
	overTLS, inClear := 0, 0
	count := func() bool {
		overTLS, inClear = 0, 0
		for _, match := range mailHostLine.FindAllStringSubmatch(log.text(t), -1) {
			switch d := newDialogue(match[2]); {
			case d["mail"] == "":
			case d["starttls"] == "1":
				overTLS++
			default:
				inClear++
			}
		}
		return overTLS == wantTLS && inClear == wantClear
	}
	if err := eventually("the dialogues", count); err != nil {
		t.Errorf("%d with mail over TLS and %d in clear, want %d and %d:\n%s", overTLS, inClear, wantTLS, wantClear, log.text(t))
	}
}

// Every domain with an MTA-STS policy, with real HTTPS servers, where the operator takes any certificate.
func TestMTASTS(t *testing.T) {
	var domains []string
	for _, g := range lab.guards {
		domains = append(domains, g.domain())
	}
	results := lab.hosts.deliver(t, delivery.EgressPath{EnableTLS: "OpportunisticInsecure"}, domains...)
	for _, g := range lab.guards {
		t.Run(g.name, func(t *testing.T) {
			r := results[g.domain()]
			got := fmt.Sprint(r.Status)
			if r.Status == delivery.Delivered && r.Session.TLS != nil && r.Session.TLS.Verified {
				got += " by " + r.Session.TLS.By
			}
			switch g.ends {
			case guardedVerified:
				if got != "delivered by mta-sts" || r.Session.TLSPolicy.MTASTS != "enforce" {
					t.Errorf("%s: %s, %+v", got, r.Response, r.Session)
				}
			case guardedDeferred:
				if r.Status != delivery.Transient {
					t.Errorf("%s: %s, %+v", got, r.Response, r.Session)
				}
			default:
				if r.Status != delivery.Delivered || r.Session.TLSPolicy.MTASTS == "enforce" {
					t.Errorf("%s: %s, %+v", got, r.Response, r.Session)
				}
			}
		})
	}
}

// A policy that is kept holds against whoever spoils or hides the new one, and ends with its time.
func TestKeptPolicy(t *testing.T) {
	const label = "sts-self" // enforce, and a certificate that does not convince
	var g *guarded
	for _, one := range lab.guards {
		if one.label == label {
			g = one
		}
	}
	kept := &bookcase{entries: map[string]delivery.PolicyEntry{}}
	attempt := func(spoil func(*delivery.Runtime)) delivery.Status {
		r := lab.hosts.deliverFrom(t, delivery.EgressPath{EnableTLS: "OpportunisticInsecure"}, func(rt *delivery.Runtime) {
			rt.MTASTS.Store = kept
			if spoil != nil {
				spoil(rt)
			}
		}, g.domain())
		return r[g.domain()].Status
	}
	if s := attempt(nil); s != delivery.Transient || len(kept.entries) != 1 {
		t.Fatalf("%s, and %d policies are kept", s, len(kept.entries))
	}
	defer lab.policies.set(g.domain(), g.host)
	foreign, err := lab.foreign.identify([]string{"mta-sts." + g.domain()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, host := range map[string]*policyHost{
		"none, from a host that does not convince": {identity: foreign, serve: text(policy("none"))},
		"garbage":    {serve: text("what is this")},
		"a redirect": {serve: elsewhere("sts-none.plain.test")},
		"a failure":  {serve: status(500)},
		"no host":    nil,
	} {
		if err := lab.policies.set(g.domain(), host); err != nil {
			t.Fatal(err)
		}
		for announced, txt := range map[string]delivery.DNSAnswer{
			"anew":       {Result: delivery.DNSRecords, TXT: []string{"v=STSv1; id=2;"}},
			"no more":    {Result: delivery.DNSNXDomain},
			"by nobody":  {Result: delivery.DNSTempFail},
			"in a hurry": {Result: delivery.DNSRecords, TXT: []string{"v=STSv1; id=3;", "v=STSv1; id=4;"}},
		} {
			if s := attempt(func(rt *delivery.Runtime) { rt.Resolver = &forger{rt.Resolver, txt} }); s != delivery.Transient {
				t.Errorf("%s, announced %s: %s", name, announced, s)
			}
		}
	}
	entry := kept.entries[g.domain()]
	entry.Fetched, entry.Expires = entry.Fetched.Add(-48*time.Hour), entry.Expires.Add(-48*time.Hour)
	kept.entries[g.domain()] = entry
	lab.policies.set(g.domain(), nil)
	if s := attempt(nil); s != delivery.Delivered {
		t.Errorf("with a policy that has expired, and no host: %s", s)
	}
}

// forger answers all questions for TXT records by itself.
type forger struct {
	delivery.Resolver
	txt delivery.DNSAnswer
}

func (f *forger) Lookup(ctx context.Context, name string, t delivery.DNSType) delivery.DNSAnswer {
	if t == delivery.DNSTypeTXT {
		return f.txt
	}
	return f.Resolver.Lookup(ctx, name, t)
}

// bookcase is a store of policies.
type bookcase struct {
	mu      sync.Mutex
	entries map[string]delivery.PolicyEntry
}

func (b *bookcase) Load(_ context.Context, domain string) (delivery.PolicyEntry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if entry, ok := b.entries[domain]; ok {
		return entry, nil
	}
	return delivery.PolicyEntry{}, delivery.ErrNoPolicy
}

func (b *bookcase) Save(_ context.Context, domain string, entry delivery.PolicyEntry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[domain] = entry
	return nil
}

// dial connects to the servers where they are: policy hosts have a port of their own.
func (m *mailHosts) dial(ctx context.Context, to delivery.DialRequest) (net.Conn, error) {
	if strings.HasSuffix(to.Address, ":443") {
		return lab.policies.dial(ctx, to.Network, to.Address)
	}
	return new(net.Dialer).DialContext(ctx, to.Network, to.Address)
}
