package dnstest

import (
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Option is a way of the server to behave.
type Option func(*conduct)

// conduct is what the options say. It is copied for each query; its lists are only appended to.
type conduct struct {
	failures  []failure
	silent    []string
	secure    []string
	delay     time.Duration
	links     int // CNAMEs to follow; 0: 16
	hangUp    int // answers over a connection with TLS; 0: any number
	truncate  bool
	noEDNS    bool
	wrong     bool
	intercept func(network string, query, answer *dns.Msg) [][]byte
}

type failure struct {
	name     string
	rcode    int
	extended []uint16
}

// ServFail answers questions about these names with SERVFAIL; without names, every question.
func ServFail(names ...string) Option { return Fail(dns.RcodeServerFailure, names...) }

// Fail answers questions about these names with a response code; without names, every question.
func Fail(rcode int, names ...string) Option {
	return func(c *conduct) {
		for _, name := range orAll(names) {
			c.failures = append(c.failures, failure{name: name, rcode: rcode})
		}
	}
}

// Explain answers questions about these names with SERVFAIL and an extended error (RFC 8914), where the
// query has EDNS; without names, every question. Code 6 is "DNSSEC Bogus". Each Explain about the same
// names adds its code to that answer.
func Explain(code uint16, names ...string) Option {
	return func(c *conduct) {
		for _, name := range orAll(names) {
			c.failures = append(c.failures, failure{name, dns.RcodeServerFailure, []uint16{code}})
		}
	}
}

// Silent never answers questions about these names; without names, none at all.
func Silent(names ...string) Option {
	return func(c *conduct) { c.silent = append(c.silent, orAll(names)...) }
}

// Secure sets the AD bit in answers about these names and those below them, if the whole chain of CNAMEs
// is among them; without names, in all answers.
func Secure(names ...string) Option {
	return func(c *conduct) { c.secure = append(c.secure, orAll(names)...) }
}

// Delay waits before each answer.
func Delay(d time.Duration) Option { return func(c *conduct) { c.delay = d } }

// Truncate answers UDP with the TC bit and no records.
func Truncate() Option { return func(c *conduct) { c.truncate = true } }

// NoEDNS answers a query with EDNS by FORMERR and nothing but a header, as old servers do.
func NoEDNS() Option { return func(c *conduct) { c.noEDNS = true } }

// Links is how many CNAMEs an answer follows at most; a server that does not look further has 1. It is
// 16 otherwise, which is where an endless chain ends.
func Links(n int) Option { return func(c *conduct) { c.links = n } }

// WrongQuestion answers with the right id and records, but as if another name had been asked for.
func WrongQuestion() Option { return func(c *conduct) { c.wrong = true } }

// HangUp closes a connection with TLS after n answers.
func HangUp(n int) Option { return func(c *conduct) { c.hangUp = n } }

// Intercept sends what send returns, one message after the other, instead of answer; nil sends nothing.
// The network is "udp", "tcp" or "tls".
// The answer is nil where the server would be silent. It may be changed, the query must not be.
func Intercept(send func(network string, query, answer *dns.Msg) [][]byte) Option {
	return func(c *conduct) { c.intercept = send }
}

func orAll(names []string) []string {
	if len(names) == 0 {
		return []string{"."}
	}
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = dns.CanonicalName(name)
	}
	return all
}

// about tells whether name is listed; the root stands for all.
func about(listed, name string) bool { return listed == "." || listed == dns.CanonicalName(name) }

// answer makes the response to query, or nil for silence.
func (c *conduct) answer(network string, query *dns.Msg, z zone) *dns.Msg {
	q := query.Question[0]
	if slices.ContainsFunc(c.silent, func(name string) bool { return about(name, q.Name) }) {
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(query)
	m.Authoritative, m.RecursionAvailable = true, true
	edns := query.IsEdns0()
	if c.noEDNS && edns != nil {
		return &dns.Msg{MsgHdr: dns.MsgHdr{Id: query.Id, Response: true, Rcode: dns.RcodeFormatError}}
	}
	if edns != nil {
		m.SetEdns0(1232, false)
	}
	if c.fail(m, q.Name) {
		return m
	}
	c.fill(m, query, z)
	if network == "udp" {
		if c.truncate {
			m.Truncated, m.Answer, m.Ns = true, nil, nil
		}
		size := dns.MinMsgSize
		if edns != nil {
			size = int(edns.UDPSize())
		}
		m.Truncate(size)
	}
	if c.wrong {
		m.Question[0].Name = "wrong." + q.Name
	}
	return m
}

// fail makes m what the first failure about name says, with the reasons of all of them.
func (c *conduct) fail(m *dns.Msg, name string) bool {
	found := false
	for _, f := range c.failures {
		if !about(f.name, name) {
			continue
		}
		if !found {
			found, m.Rcode = true, f.rcode
		}
		if opt := m.IsEdns0(); opt != nil {
			for _, code := range f.extended {
				opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code})
			}
		}
	}
	return found
}

func (c *conduct) fill(m, query *dns.Msg, z zone) {
	links := c.links
	if links == 0 {
		links = 16
	}
	q := query.Question[0]
	answer, last, exists := z.resolve(q, links)
	m.Answer = answer
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	if len(answer) == 0 || !exists {
		if soa := z.soa(last); soa != nil {
			m.Ns = []dns.RR{soa}
		}
	}
	m.AuthenticatedData = query.AuthenticatedData && c.isSecure(q.Name)
	for _, rr := range answer {
		m.AuthenticatedData = m.AuthenticatedData && c.isSecure(rr.Header().Name)
	}
}

func (c *conduct) isSecure(name string) bool {
	return slices.ContainsFunc(c.secure, func(zone string) bool {
		return dns.IsSubDomain(zone, dns.CanonicalName(name))
	})
}
