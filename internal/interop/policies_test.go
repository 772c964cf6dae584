//go:build interop && linux

package interop

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// guarded is a domain with an MTA-STS policy, or nearly one. Its mail goes to one server, by names that
// are not signed.
type guarded struct {
	name   string
	label  string // of the domain, LABEL.plain.test
	server *mailHost
	host   *policyHost // nil: nothing answers there
	txt    []string    // what _mta-sts says; its id is of no meaning
	fetch  string      // what comes of fetching: the content, or a part of the error behind "error: "
	ends   guardedEnd
	// worse: the domain has a better MX, which the policy does not have and where this server is.
	worse *mailHost
}

// guardedEnd is what becomes of a message.
type guardedEnd string

const (
	guardedVerified guardedEnd = "delivered over TLS with a certificate that convinces, whatever enable_tls says"
	guardedDeferred guardedEnd = "deferred, and nothing of the message said, whatever enable_tls says"
	guardedAnyway   guardedEnd = "delivered whatever the certificate, unless enable_tls says Required"
	unguarded       guardedEnd = "what enable_tls says, as if there were no policy"
)

func (g *guarded) domain() string { return g.label + ".plain.test" }

// records are what plain.test has to have of the domain.
func (g *guarded) records() string {
	text := g.label + " MX 10 mx-" + g.label + "\nmx-" + g.label + " A " + g.server.address + "\n" +
		"mta-sts." + g.label + " A 127.0.0.1\n"
	if g.worse != nil {
		text += g.label + " MX 5 worse-" + g.label + "\nworse-" + g.label + " A " + g.worse.address + "\n"
	}
	for _, t := range g.txt {
		text += "_mta-sts." + g.label + " TXT \"" + t + "\"\n"
	}
	return text
}

// guardBook writes guarded domains.
type guardBook []*guarded

// add adds a domain that announces its policy and serves it as it should. "SELF" in it stands for the
// domain's MX host.
func (b *guardBook) add(end guardedEnd, label, name string, server *mailHost, policy string) *guarded {
	content := strings.ReplaceAll(policy, "SELF", "mx-"+label+".plain.test")
	g := &guarded{name: name, label: label, server: server, host: &policyHost{serve: text(content)},
		txt: []string{"v=STSv1; id=20240101T000000;"}, fetch: content, ends: end}
	*b = append(*b, g)
	return g
}

// guards are the domains with policies, for servers that run.
func guards(m *mailHosts) ([]*guarded, error) {
	var b guardBook
	b.modes(m)
	b.unfetched(m)
	b.unannounced(m)
	return b, b.certificates(m)
}

var (
	enforceSelf  = policy("enforce", "SELF")
	enforceOther = policy("enforce", "other.test")
)

// modes are those whose policy counts.
func (b *guardBook) modes(m *mailHosts) {
	b.add(guardedVerified, "sts-enforce", "enforce", m.trusted, enforceSelf)
	b.add(guardedVerified, "sts-pattern", "enforce, by a pattern", m.trusted, policy("enforce", "other.test", "*.plain.test"))
	b.add(guardedVerified, "sts-lf", "enforce, with LF alone", m.trusted, unixLines(enforceSelf))
	b.add(guardedDeferred, "sts-nomatch", "enforce, no host matches", m.trusted, enforceOther)
	b.add(guardedDeferred, "sts-deep", "enforce, a pattern with one label more", m.trusted, policy("enforce", "*.SELF"))
	b.add(guardedDeferred, "sts-self", "enforce, a certificate of its own", m.self, enforceSelf)
	b.add(guardedDeferred, "sts-expired", "enforce, an expired certificate", m.expired, enforceSelf)
	b.add(guardedDeferred, "sts-misnamed", "enforce, a certificate for another name", m.misnamed, enforceSelf)
	b.add(guardedDeferred, "sts-plain", "enforce, no STARTTLS", m.plain, enforceSelf)
	b.add(guardedDeferred, "sts-broken", "enforce, 454 to STARTTLS", m.broken, enforceSelf)
	b.add(guardedVerified, "sts-worse", "enforce, the better MX does not match", m.trusted, enforceSelf).worse = m.plain
	g := b.add(guardedVerified, "sts-charset", "enforce, a charset", m.trusted, enforceSelf)
	g.host.serve = typed("Text/Plain; charset=utf-8", g.fetch)

	b.add(guardedAnyway, "sts-testself", "testing, a certificate of its own", m.self, policy("testing", "SELF"))
	b.add(guardedAnyway, "sts-testnomatch", "testing, no host matches", m.trusted, policy("testing", "other.test"))
	b.add(guardedAnyway, "sts-testplain", "testing, no STARTTLS", m.plain, policy("testing", "SELF"))
	b.add(unguarded, "sts-none", "none", m.self, policy("none"))
}

// unfetched are those whose policy cannot be had, or is none. It would forbid to send.
func (b *guardBook) unfetched(m *mailHosts) {
	b.add(unguarded, "sts-noversion", "no version", m.self, strings.TrimPrefix(enforceOther, "version: STSv1\r\n"))
	b.add(unguarded, "sts-large", "1 MiB", m.self, enforceOther+strings.Repeat("padding: "+strings.Repeat("x", 53)+"\r\n", 1<<14))
	g := b.add(unguarded, "sts-html", "another content type", m.self, enforceOther)
	g.host.serve = typed("text/html", g.fetch)
	g = b.add(unguarded, "sts-redirect", "a redirect", m.self, enforceOther)
	g.host.serve = elsewhere("sts-nomatch.plain.test")
	for _, code := range []int{http.StatusNotFound, http.StatusServiceUnavailable} {
		g := b.add(unguarded, fmt.Sprint("sts-", code), fmt.Sprint(code), m.self, "")
		g.host.serve, g.fetch = status(code), fmt.Sprint("error: ", code)
	}
	g = b.add(unguarded, "sts-nohost", "no policy host", m.self, "")
	g.host, g.fetch = nil, "error: remote error"
}

// certificates are those whose policy host shows a certificate that does not convince.
func (b *guardBook) certificates(m *mailHosts) error {
	var errs []error
	for _, c := range []struct {
		label, name string
		by          *authority
		of          string // the domain that it is for
		change      func(*x509.Certificate)
		want        string
	}{
		{"sts-hostmisnamed", "a policy host with a certificate for another name", lab.trusted, "plain.test", nil, "not mta-sts.sts-hostmisnamed"},
		{"sts-hostexpired", "a policy host with an expired certificate", lab.trusted, "sts-hostexpired.plain.test", past, "expired"},
		{"sts-hostforeign", "a policy host with a certificate of another authority", lab.foreign, "sts-hostforeign.plain.test", nil, "unknown authority"},
	} {
		g := b.add(unguarded, c.label, c.name, m.self, enforceOther)
		var err error
		g.host.identity, err = c.by.identify([]string{"mta-sts." + c.of}, c.change)
		g.fetch = "error: " + c.want
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// unannounced are those where DNS does not say, or not clearly, that there is a policy. It would forbid
// to send.
func (b *guardBook) unannounced(m *mailHosts) {
	b.add(unguarded, "sts-silent", "a policy that is not announced", m.self, enforceOther).txt = nil
	b.add(unguarded, "sts-two", "two announcements", m.self, enforceOther).txt = []string{"v=STSv1; id=1;", "v=STSv1; id=2;"}
	b.add(unguarded, "sts-v2", "an announcement of another version", m.self, enforceOther).txt = []string{"v=STSv2; id=1;"}
	b.add(guardedVerified, "sts-beside", "an announcement beside other text", m.trusted, enforceSelf).txt = []string{"v=spf1 -all", "v=STSv1; id=1;"}
}

// DNS announces the policies, and the policy hosts behave as they should.
func TestPolicyHosts(t *testing.T) {
	c, web := client(t, lab.names.unbound), lab.policies.webClient()
	defer web.CloseIdleConnections()
	for _, g := range lab.guards {
		t.Run(g.name, func(t *testing.T) {
			exchangers := "Records: 10 mx-" + g.domain()
			if g.worse != nil {
				exchangers += ", 5 worse-" + g.domain()
			}
			checkFact(t, c, known(g.domain(), resolver.TypeMX, exchangers))
			checkFact(t, c, known("mx-"+g.domain(), resolver.TypeA, "Records: "+g.server.address))
			announced := "NXDomain"
			if g.txt != nil {
				announced = "Records: " + strings.Join(sorted(g.txt), ", ")
			}
			checkFact(t, c, known("_mta-sts."+g.domain(), resolver.TypeTXT, announced))

			before := lab.policies.requests(g.domain())
			got := fetch(web, g.domain())
			if want, fails := strings.CutPrefix(g.fetch, "error: "); fails {
				if !strings.HasPrefix(got, "error: ") || !strings.Contains(got, want) {
					t.Errorf("got %.200q, want an error with %q", got, want)
				}
			} else {
				checkSame(t, got, want)
				if n := lab.policies.requests(g.domain()) - before; n != 1 {
					t.Errorf("the host counts %d requests, want 1", n)
				}
			}
			convinces := lab.hosts.convinces(g.server, "mx-"+g.domain())
			if listed := strings.Contains(got, "mx: mx-"+g.domain()) || strings.Contains(got, "mx: *.plain.test"); g.ends == guardedVerified && !(convinces && listed) ||
				g.ends == guardedDeferred && convinces && listed {
				t.Errorf("listed %v, the certificate convinces %v: this contradicts %q", listed, convinces, g.ends)
			}
		})
	}
}

// fetch reads a policy as a browser would.
func fetch(web *http.Client, domain string) string {
	response, err := web.Get("https://mta-sts." + domain + "/.well-known/mta-sts.txt")
	if err != nil {
		return "error: " + err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return "error: " + response.Status
	}
	return string(body)
}
