package delivery

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// TestDNSOverTLS: a server that is asked over TLS, and what is known of it afterwards.
func TestDNSOverTLS(t *testing.T) {
	authority := smtptest.CA(t)
	server := dnstest.Start(t, ". SOA ns.test. h.test. 1 1 1 1 60\nx.test. MX 10 mx.x.test.\nmx.x.test. A 192.0.2.1\n*.y.test. A 192.0.2.2\n")
	addr, err := server.ListenTLS(&tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "dns.test")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"dns.test": "192.0.2.1:25", "other.test": "451"} {
		var log bytes.Buffer
		dns := &DNS{Servers: []string{"tls://" + addr + "#" + name}, RootCAs: authority.Pool, TrustAD: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		rt := newRuntime(t)
		rt.Resolver = dns
		plan, err := protocolOf(t, rt, `{}`).Plan(t.Context(), messageTo("a@x.test"))
		got := ""
		if failed, ok := errors.AsType[*PlanError](err); ok {
			got = fmt.Sprint(failed.Response.Code)
		} else {
			got = plan.Hosts[0].Address
		}
		if got != want {
			t.Errorf("%s: %s, want %s: %v", name, got, want, err)
		}
		for i := range 64 { // enough to look whether the server can vouch for anything
			dns.Lookup(t.Context(), fmt.Sprintf("h%d.y.test", i), DNSTypeA)
		}
		dns.Close()
		stats := dns.Stats()
		if insecure := name == "dns.test"; insecure != (len(stats.Insecure) == 1) || insecure != strings.Contains(log.String(), "never sets the AD bit") || stats.Asked == 0 {
			t.Errorf("%s: %+v, %s", name, stats, log.String())
		}
	}
}
