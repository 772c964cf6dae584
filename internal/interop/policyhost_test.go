//go:build interop && linux

package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// policyHosts is a web server with the MTA-STS policies of any number of domains (RFC 8461 section 3.3).
// Its methods are safe for concurrent use.
type policyHosts struct {
	address string
	web     *httptest.Server

	mu      sync.Mutex
	domains map[string]*policyHost // by the name of the host: "mta-sts.DOMAIN"
	asked   map[string]int
}

// policyHost is the web server of one domain.
type policyHost struct {
	identity *identity // nil: one of lab.trusted for the name of the host
	serve    http.HandlerFunc
}

func startPolicyHosts(guards []*guarded) (*policyHosts, error) {
	p := &policyHosts{domains: map[string]*policyHost{}, asked: map[string]int{}}
	p.web = httptest.NewUnstartedServer(p)
	p.web.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that break off are expected
	p.web.TLS = &tls.Config{GetCertificate: p.certificate}
	p.web.StartTLS()
	p.address = p.web.Listener.Addr().String()
	for _, g := range guards {
		if err := p.set(g.domain(), g.host); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// set says what a domain's host is to do from now on; nil: there is none, and nobody can connect.
func (p *policyHosts) set(domain string, h *policyHost) error {
	name := "mta-sts." + domain
	if h != nil && h.identity == nil {
		id, err := lab.trusted.identify([]string{name}, nil)
		if err != nil {
			return err
		}
		h = &policyHost{id, h.serve}
	}
	p.mu.Lock()
	p.domains[name] = h
	p.mu.Unlock()
	p.web.CloseClientConnections() // what is kept alive was opened under another certificate
	return nil
}

// requests is how many requests there were for a domain's policy.
func (p *policyHosts) requests(domain string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked["mta-sts."+domain]
}

func (p *policyHosts) host(name string) *policyHost {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.domains[name]
}

func (p *policyHosts) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	h := p.host(hello.ServerName)
	if h == nil {
		return nil, fmt.Errorf("there is no %q", hello.ServerName)
	}
	c := &tls.Certificate{PrivateKey: h.identity.key}
	for _, x := range h.identity.chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c, nil
}

func (p *policyHosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.TLS.ServerName
	p.mu.Lock()
	p.asked[name]++
	p.mu.Unlock()
	h := p.host(name)
	if h == nil || r.Host != name || r.URL.Path != "/.well-known/mta-sts.txt" {
		http.NotFound(w, r)
		return
	}
	h.serve(w, r)
}

// dial connects to the server, whatever the address: DNS cannot say which port it has.
func (p *policyHosts) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, p.address)
}

// policy is the text of a policy (RFC 8461 section 3.2).
func policy(mode string, mx ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\r\nmode: %s\r\n", mode)
	for _, pattern := range mx {
		fmt.Fprintf(&b, "mx: %s\r\n", pattern)
	}
	b.WriteString("max_age: 86400\r\n")
	return b.String()
}

// text serves a document as a policy is to be served.
func text(content string) http.HandlerFunc { return typed("text/plain", content) }

func typed(contentType, content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, content)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, http.StatusText(code), code) }
}

// elsewhere sends the client to the policy of another domain.
func elsewhere(domain string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", http.StatusFound)
	}
}

// webClient is a client that has lab.trusted for authority and follows redirects.
func (p *policyHosts) webClient() *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(lab.trusted.certificate)
	return &http.Client{Transport: &http.Transport{DialContext: p.dial, TLSClientConfig: &tls.Config{RootCAs: roots}}}
}
