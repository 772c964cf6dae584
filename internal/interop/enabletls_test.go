//go:build interop && linux

package interop

import (
	"context"
	"crypto/x509"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/mtadelivery/delivery"
)

// ending is how a message came to its end, and what the server saw of it.
type ending int

const (
	inClear    ending = iota + 1 // delivered, and STARTTLS was never said
	unverified                   // delivered over TLS with a certificate that does not convince
	verified                     // delivered over TLS with one that does
	heldBack                     // deferred before anything of the message was said
)

// Every mode of enable_tls with every kind of server: what becomes of the message, and why it waits.
func TestEnableTLS(t *testing.T) {
	h := lab.hosts
	modes := []string{"Disabled", "Opportunistic", "OpportunisticInsecure", "Required", "RequiredInsecure"}
	rows := []struct {
		hosts   []*mailHost
		endings [5]ending // one a mode
	}{
		{[]*mailHost{h.trusted, h.chained, h.tls12}, [5]ending{inClear, verified, verified, verified, verified}},
		{[]*mailHost{h.self, h.expired, h.misnamed, h.orphan}, [5]ending{inClear, heldBack, unverified, heldBack, unverified}},
		{[]*mailHost{h.plain}, [5]ending{inClear, inClear, inClear, heldBack, heldBack}},
		{[]*mailHost{h.tls11}, [5]ending{inClear, heldBack, inClear, heldBack, heldBack}}, // in clear on a new connection
		{[]*mailHost{h.broken}, [5]ending{inClear, heldBack, heldBack, heldBack, heldBack}},
	}
	// What is said where a message waits.
	why := map[*mailHost]string{h.self: "expired", h.expired: "expired", h.misnamed: "certificate is valid for " + misnamedFor,
		h.orphan: "unknown authority", h.plain: "STARTTLS", h.tls11: "the TLS handshake failed", h.broken: "454 4.7.0"}

	for i, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			log := h.log(t)
			var domains []string
			for _, row := range rows {
				for _, host := range row.hosts {
					domains = append(domains, undecided(host)+".signed.test")
				}
			}
			results := h.deliver(t, delivery.EgressPath{EnableTLS: mode}, domains...)
			again := 0
			if mode == "OpportunisticInsecure" { // in clear, to tls11
				again = 1
			}
			dialogues := h.dialogues(t, log, len(domains), again)
			for _, row := range rows {
				for _, host := range row.hosts {
					t.Run(host.name, func(t *testing.T) {
						r := results[undecided(host)+".signed.test"]
						checkEnding(t, row.endings[i], r, dialogues[host])
						if row.endings[i] == heldBack && !strings.Contains(r.Response.Text, why[host]) {
							t.Errorf("the response is %s, want %q in it", r.Response, why[host])
						}
						if s := r.Session; s != nil && s.TLS != nil && (s.TLS.Version == "TLS 1.2") != (host == h.tls12) {
							t.Errorf("%s from %s", s.TLS.Version, host.name)
						}
					})
				}
			}
		})
	}
}

// deliver sends a message to each domain at the same time, from a runtime of its own, which asks the
// validating resolver, trusts in lab.trusted, and has ended on return.
func (m *mailHosts) deliver(t *testing.T, path delivery.EgressPath, domains ...string) map[string]*delivery.Result {
	t.Helper()
	return m.deliverFrom(t, path, func(*delivery.Runtime) {}, domains...)
}

// deliverFrom is deliver from a runtime that is changed before.
func (m *mailHosts) deliverFrom(t *testing.T, path delivery.EgressPath, change func(*delivery.Runtime), domains ...string) map[string]*delivery.Result {
	t.Helper()
	path.SMTPPort, path.ProhibitedHosts = uint16(m.port), nothing
	dns := &delivery.DNS{Servers: []string{lab.names.address}, TrustAD: true}
	defer dns.Close()
	rt := &delivery.Runtime{Resolver: dns, RootCAs: x509.NewCertPool(), Egress: onePath{path},
		Dial: m.dial, MTASTS: delivery.MTASTS{ProhibitedHosts: nothing}}
	rt.RootCAs.AddCert(lab.trusted.certificate)
	change(rt)
	defer rt.Close(context.Background())
	protocol, err := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{SMTP: &delivery.SMTP{}}})
	if err != nil {
		t.Fatal(err)
	}
	results := make([]*delivery.Result, len(domains))
	var senders sync.WaitGroup
	for i, domain := range domains {
		senders.Go(func() {
			results[i] = &protocol.Deliver(t.Context(), message("user@"+domain)).Results[0]
		})
	}
	senders.Wait()
	byDomain := map[string]*delivery.Result{}
	for i, domain := range domains {
		byDomain[domain] = results[i]
	}
	return byDomain
}

// mailHostLine is how Postfix sums a connection up, with the name of the server in front.
var mailHostLine = regexp.MustCompile(` (\w+)/smtpd\[\d+\](: disconnect from .*)`)

// dialogues waits for the end of the connections to n servers, of which so many were connected to again; of these it
// is the second one.
func (m *mailHosts) dialogues(t *testing.T, log *postfixLog, n, again int) map[*mailHost]postfixDialogue {
	t.Helper()
	log.dialogues(t, n+again)
	lines := map[string]string{}
	for _, match := range mailHostLine.FindAllStringSubmatch(log.text(t), -1) {
		lines[match[1]] = match[2]
	}
	found := map[*mailHost]postfixDialogue{}
	for _, h := range m.all() {
		if line := lines[h.name]; line != "" {
			found[h] = newDialogue(line)
		}
	}
	if len(found) != n {
		t.Fatalf("connections to %d servers, want %d:\n%s", len(found), n, log.text(t))
	}
	return found
}

// checkEnding checks what became of a message, by the result and by what the server saw.
func checkEnding(t *testing.T, want ending, r *delivery.Result, d postfixDialogue) {
	t.Helper()
	var tls *delivery.TLSInfo
	if r.Session != nil {
		tls = r.Session.TLS
	}
	saw := fmt.Sprintf("STARTTLS %s, MAIL %s, content %s%s", d["starttls"], d["mail"], d["bdat"], d["data"])
	switch want {
	case heldBack:
		if r.Status != delivery.Transient || r.Response.Code != 400 || r.MaybeDelivered || d["mail"] != "" {
			t.Errorf("%s %s, doubt %v, and the server saw %s; want that it waits and no MAIL was said",
				r.Status, r.Response, r.MaybeDelivered, saw)
		}
	case inClear:
		if r.Status != delivery.Delivered || tls != nil || saw != "STARTTLS , MAIL 1, content 1" {
			t.Errorf("%s %s by TLS %+v, and the server saw %s; want it delivered in clear", r.Status, r.Response, tls, saw)
		}
	default:
		if r.Status != delivery.Delivered || tls == nil || tls.Verified != (want == verified) || saw != "STARTTLS 1, MAIL 1, content 1" {
			t.Errorf("%s %s by TLS %+v, and the server saw %s; want it delivered over TLS, verified %v",
				r.Status, r.Response, tls, saw, want == verified)
		}
	}
}
