package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/dane"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/mtasts"
	"github.com/mtadelivery/delivery/internal/resolver"
	"github.com/mtadelivery/delivery/internal/smtpclient"
	"github.com/mtadelivery/delivery/internal/tlspolicy"
)

// MXEntry is one entry of an mx_list: a text, or a name with its address.
type MXEntry struct {
	// Name is the text as written, if Addr is empty: a host name to be resolved for A and AAAA, an IP
	// address (in brackets or not), either with a :PORT, or the absolute path of a unix socket. With
	// an Addr it is the name for TLS and for people.
	Name string
	// Addr is an IP address or the path of a unix socket: nothing is looked up. It may have a :PORT;
	// an IPv6 address with one needs brackets.
	Addr string
	// Secure: the address was found in a way that DANE can rely on. Only with an Addr.
	Secure bool
}

// UnmarshalJSON reads a text, or a table with name, addr and is_secure.
func (e *MXEntry) UnmarshalJSON(text []byte) error {
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return err
	}
	switch v := tree.(type) {
	case string:
		*e = MXEntry{Name: v}
	case map[string]any:
		var pair struct {
			Name   string `config:"name" required:"true"`
			Addr   string `config:"addr" required:"true"`
			Secure bool   `config:"is_secure"`
		}
		if err := decode.Decode(tree, &pair); err != nil {
			return err
		}
		*e = MXEntry{Name: pair.Name, Addr: pair.Addr, Secure: pair.Secure}
	default:
		return decode.Errorf("", "want a host name, an address in brackets, or a table {name=, addr=}")
	}
	_, err = e.target()
	return err
}

// MarshalJSON prints the entry as it was written.
func (e MXEntry) MarshalJSON() ([]byte, error) {
	if e.Addr == "" {
		return json.Marshal(e.Name)
	}
	return json.Marshal(struct {
		Name   string `json:"name"`
		Addr   string `json:"addr"`
		Secure bool   `json:"is_secure,omitempty"`
	}{e.Name, e.Addr, e.Secure})
}

// label is how the entry appears in a ready name.
func (e MXEntry) label() string { return cmp.Or(e.Addr, e.Name) }

// target is an mx_list entry, or a routing domain, taken apart: a name to be resolved, an address, or
// a unix socket.
type target struct {
	name string // for TLS and for people; brackets kept, port removed
	addr netip.Addr
	unix string
	port uint16 // 0: not given
	rank uint16 // the preference of an MX record
	// secure: the address is the name's beyond doubt.
	secure bool
}

func (e MXEntry) target() (target, error) {
	if e.Addr == "" {
		if e.Secure {
			return target{}, decode.Errorf("is_secure", "needs addr")
		}
		return parseTarget(e.Name)
	}
	t, err := parseTarget(e.Addr)
	if err != nil {
		return t, decode.In("addr", err)
	}
	if !t.addr.IsValid() && t.unix == "" {
		return t, decode.Errorf("addr", "%q is not an IP address; a name alone is written as a plain text", e.Addr)
	}
	if t.name, err = address.ToASCII(strings.TrimSuffix(e.Name, ".")); err != nil {
		return t, decode.Errorf("name", "%s", reasonOf(err))
	}
	t.secure = e.Secure
	return t, nil
}

// parseTarget reads the text form. An IPv6 address with a port needs brackets: ::1:2025 is the
// address ::1:2025.
func parseTarget(s string) (target, error) {
	if strings.HasPrefix(s, "/") {
		if path.Clean(s) != s || strings.ContainsAny(s, "\x00") {
			return target{}, decode.Errorf("", "%q is not the path of a socket", s)
		}
		return target{name: s, unix: s}, nil
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		return literalTarget(s, ip, 0)
	}
	host, port := s, uint16(0)
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.Contains(s[i:], "]") {
		n, err := strconv.ParseUint(s[i+1:], 10, 64)
		if err != nil {
			return target{}, decode.Errorf("", "%q has no port number after the colon", s)
		}
		if n < 1 || n > 65535 {
			return target{}, decode.Errorf("", "port %d is out of range (1 to 65535)", n)
		}
		host, port = s[:i], uint16(n)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		if len(inner) > 5 && strings.EqualFold(inner[:5], "ipv6:") {
			inner = inner[5:]
		}
		ip, err := netip.ParseAddr(inner)
		if err != nil || !closed {
			return target{}, decode.Errorf("", "%q is not an IP address in brackets", host)
		}
		return literalTarget(host, ip, port)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return literalTarget(host, ip, port)
	}
	name, err := address.ToASCII(strings.TrimSuffix(host, "."))
	if err != nil {
		return target{}, decode.Errorf("", "%q is not a host name: %s", host, reasonOf(err))
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return target{}, decode.Errorf("", "%q is neither an IP address nor a host name", host)
	}
	return target{name: name, port: port}, nil
}

func literalTarget(name string, ip netip.Addr, port uint16) (target, error) {
	if ip.Zone() != "" {
		return target{}, decode.Errorf("", "%q has a zone", name)
	}
	return target{name: name, addr: ip.Unmap(), port: port}, nil
}

// DNSType is the type of a DNS record.
type DNSType uint16

// The types that delivery asks for, with their numbers in DNS; DNSTypePTR only where a policy asks with
// kumo.dns.
const (
	DNSTypeA     DNSType = 1
	DNSTypeCNAME DNSType = 5
	DNSTypePTR   DNSType = 12
	DNSTypeMX    DNSType = 15
	DNSTypeTXT   DNSType = 16
	DNSTypeAAAA  DNSType = 28
	DNSTypeTLSA  DNSType = 52
)

// DNSResult is the kind of a [DNSAnswer].
type DNSResult int

// An answer is one of these.
const (
	// DNSTempFail: no answer could be had. The zero value: silence is no verdict.
	DNSTempFail DNSResult = iota
	// DNSRecords: there are records of the type.
	DNSRecords
	// DNSNoData: the name exists, without records of the type.
	DNSNoData
	// DNSNXDomain: the name does not exist.
	DNSNXDomain
	// DNSBogus: DNSSEC validation failed.
	DNSBogus
)

// MXRecord is a mail exchanger of a domain.
type MXRecord struct {
	Preference uint16
	// Host is lower-case and without the final dot; "." is the null MX of RFC 7505.
	Host string
}

// TLSARecord is a TLSA record (RFC 6698).
type TLSARecord struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// DNSAnswer is what a [Resolver] answers.
type DNSAnswer struct {
	Result DNSResult
	// Secure: the answer was validated with DNSSEC by a resolver that is trusted to do so.
	Secure bool
	// Name is the name that the records belong to, at the end of a chain of CNAMEs.
	Name string
	// TTL is how long the answer may be kept.
	TTL time.Duration
	// The records, according to the type that was asked for. They may be shared with a cache: whoever
	// asked must not write to them.
	MX    []MXRecord
	Addrs []netip.Addr
	TXT   []string
	TLSA  []TLSARecord
	CNAME string
	// PTR are names, lower-case and without the final dot.
	PTR []string
	// Err says why for DNSTempFail and DNSBogus.
	Err error
}

// A Resolver answers DNS questions. Names are absolute, as A-labels without the final dot. It must
// be safe for concurrent use and return when ctx ends. Caching is its business: the next message may ask
// again. It does so once a TTL has ended, and at once where there is none.
type Resolver interface {
	Lookup(ctx context.Context, name string, t DNSType) DNSAnswer
}

// DNS is a [Resolver] that asks recursive name servers, over UDP, TCP and TLS, and keeps their answers
// for as long as they may be kept. The zero value asks those of /etc/resolv.conf, and takes the
// addresses of the names in /etc/hosts from there. It must not be copied after first use.
type DNS struct {
	// Servers are the servers to ask, in this order; one that did not respond lately is asked last. Nil: those of
	// /etc/resolv.conf. With Servers, /etc/hosts is not read. "192.0.2.1:53" is asked over UDP and TCP;
	// "tls://192.0.2.1:853#dns.example" over TLS alone (RFC 7858), and only if its certificate is good for the name
	// after the #, or without one for the address.
	Servers []string
	// RootCAs verify the servers that are asked over TLS; nil: those of the system.
	RootCAs *x509.CertPool
	// TrustAD: the servers, all of them, validate DNSSEC and the way to them is safe, so that the AD bit of their
	// answers may be believed (RFC 6840 section 5.8). Without it no answer is secure, but for the option trust-ad in
	// /etc/resolv.conf, and there is no DANE. A server that is trusted and never sets the bit is logged, and is among
	// the Insecure of [DNS.Stats].
	TrustAD bool
	// Timeout is for one question to one server; 0: 5 s.
	Timeout time.Duration
	// CacheSize is how many answers are kept; 0: 10,000; negative: none.
	CacheSize int
	// MaxStale is for how long after their TTL answers are used where every server fails (RFC 8767); 0: a day; negative:
	// not at all. TLSA records and what was secure are never used so.
	MaxStale time.Duration
	// Logger is told of servers that are trusted for nothing; nil: slog.Default().
	Logger *slog.Logger

	start  sync.Once
	client resolver.Client
}

// DNSStats is what a [DNS] has done so far, and what it keeps.
type DNSStats struct {
	// Cached is how many lookups were answered from the cache; Asked is how many questions went to the servers, of
	// which Failed found no answer at any, and Stale were answered with what was known before.
	Cached, Asked, Failed, Stale uint64
	// Entries is how many answers are kept.
	Entries int
	// Insecure are the servers that TrustAD is said of and that never set the AD bit.
	Insecure []string
}

// Stats may be called at any time.
func (d *DNS) Stats() DNSStats {
	all := d.ready().Stats()
	stats := DNSStats{Cached: all.Cached, Asked: all.Asked, Failed: all.Failed, Stale: all.Stale, Entries: all.Entries}
	for _, server := range all.Servers {
		if server.NeverSecure {
			stats.Insecure = append(stats.Insecure, server.Server)
		}
	}
	slices.Sort(stats.Insecure)
	return stats
}

// Lookup asks one question.
func (d *DNS) Lookup(ctx context.Context, name string, t DNSType) DNSAnswer {
	a := d.ready().Lookup(ctx, name, resolver.Type(t))
	answer := DNSAnswer{
		Secure: a.Secure, Name: a.Name, TTL: a.TTL, Addrs: a.Addrs, TXT: a.TXT, CNAME: a.CNAME, PTR: a.PTR, Err: a.Err}
	switch a.Result {
	case resolver.Records:
		answer.Result = DNSRecords
	case resolver.NoData:
		answer.Result = DNSNoData
	case resolver.NXDomain:
		answer.Result = DNSNXDomain
	case resolver.Bogus:
		answer.Result = DNSBogus
	}
	for _, r := range a.MX {
		answer.MX = append(answer.MX, MXRecord(r))
	}
	for _, r := range a.TLSA {
		answer.TLSA = append(answer.TLSA, TLSARecord(r))
	}
	return answer
}

// Close ends what the resolver has under way.
func (d *DNS) Close() error { return d.ready().Close() }

func (d *DNS) ready() *resolver.Client {
	d.start.Do(func() {
		c := &d.client
		c.Servers, c.RootCAs, c.TrustAD, c.Timeout = d.Servers, d.RootCAs, d.TrustAD, d.Timeout
		c.CacheSize, c.MaxStale = d.CacheSize, d.MaxStale
		if c.Logger = d.Logger; c.Logger == nil {
			c.Logger = slog.Default()
		}
	})
	return &d.client
}

// route is where the mail of a queue goes, before addresses are known.
type route struct {
	site   string
	hosts  [][]target // by preference, best first
	list   bool       // an mx_list: its order is kept
	domain string     // whose mail it is; empty: of an mx_list or an address
	port   uint16     // of a routing domain; 0: not given
	// expanded is the domain's name at the end of its CNAMEs.
	expanded string
	// secure: DNSSEC vouches for the choice of the hosts, or the operator says that it is as good.
	secure bool
	mx     bool           // there are MX records
	sts    *mtasts.Result // of the domain; nil: it was not looked for
}

// PlanError is the failure to find a way for a queue: it meets every message under the ready name.
type PlanError struct {
	// Status and Response are what Deliver gives every recipient for it.
	Status   Status
	Response Response
	// Err is the cause; nil if the response says it all.
	Err error
}

func (e *PlanError) Error() string { return e.Response.Text }

// Unwrap returns the cause.
func (e *PlanError) Unwrap() error { return e.Err }

func (e *PlanError) result() Result {
	return Result{Status: e.Status, Response: e.Response, Scope: ScopeReadyName, Err: e}
}

// resultOn is the result of a message that found no way but w: one without a ready name says nothing of what
// is under one.
func (e *PlanError) resultOn(w *way) Result {
	res := e.result()
	if res.Session = w.unopened(); w.ready == "" || e == errNotVouched || e == errNotVouchedNow {
		res.Scope = ScopeMessage
	}
	return res
}

// unresolved is the failure of a queue whose destination cannot be found out now: never a bounce,
// because a domain that vanishes for a day is a common accident.
func unresolved(queue QueueName, err error) *PlanError {
	return &PlanError{Transient, Response{Code: 451, Enhanced: EnhancedCode{4, 4, 4},
		Text: safeText(fmt.Sprintf("delivery: failed to resolve queue %s: %v", queue, err))}, err}
}

var (
	errNullMX = &PlanError{Permanent, Response{Code: 556, Enhanced: EnhancedCode{5, 1, 10},
		Text: "Recipient address has a null MX"}, nil} // RFC 7505 section 4.2
	errNoHosts = &PlanError{Transient, Response{Code: 451, Enhanced: EnhancedCode{4, 4, 4},
		Text: "MX didn't resolve to any hosts"}, nil}
	errLoop = &PlanError{Permanent, Response{Code: 554, Enhanced: EnhancedCode{5, 4, 6},
		Text: "delivery: mail for this domain loops back to this host"}, nil} // RFC 5321 section 5.1
	// errNotVouched concerns the message and not what else goes to the same hosts.
	errNotVouched = &PlanError{Permanent, Response{Code: 550, Enhanced: EnhancedCode{5, 7, 10},
		Text: "delivery: " + string(tlspolicy.NotVouched)}, nil} // RFC 8689 section 4.2.1
	// errNotVouchedNow: a policy might vouch, and could not be had.
	errNotVouchedNow = &PlanError{Transient, Response{Code: 451, Enhanced: EnhancedCode{4, 7, 10},
		Text: "delivery: " + string(tlspolicy.NotVouched)}, nil}
	errAllSkipped = &PlanError{Transient, Response{Code: 451, Enhanced: EnhancedCode{4, 4, 4},
		Text: "delivery: MX consisted solely of hosts on the skip_hosts list"}, nil}
)

func errProhibited(host, addr string) *PlanError {
	return &PlanError{Permanent, Response{Code: 550, Enhanced: EnhancedCode{5, 4, 4},
		Text: fmt.Sprintf("%s (%s) is on the list of prohibited_hosts", host, addr)}, nil}
}

// route is the route of an mx_list.
func (s *SMTP) route() (*route, error) {
	r := &route{list: true, secure: s.TreatMXListAsSecure}
	labels := make([]string, len(s.MXList))
	for i, e := range s.MXList {
		t, err := e.target()
		if err != nil {
			return nil, decode.In(fmt.Sprintf("mx_list[%d]", i), err)
		}
		labels[i] = e.label()
		r.hosts = append(r.hosts, []target{t})
	}
	r.site = "mx_list:" + strings.Join(labels, ",")
	return r, nil
}

// domainRoute finds the mail exchangers of a queue's routing domain (RFC 5321 section 5.1).
func domainRoute(ctx context.Context, dns Resolver, queue QueueName) (*route, *PlanError) {
	domain, port, err := parseRoutingDomain(queue.routing())
	if err != nil {
		return nil, unresolved(queue, err)
	}
	if domain.addr.IsValid() {
		return &route{site: joinPort(domain.addr.String(), port), hosts: [][]target{{domain}}, port: port}, nil
	}
	answer := dns.Lookup(ctx, domain.name, DNSTypeMX)
	r := &route{domain: domain.name, expanded: answer.Name, port: port, secure: answer.Secure}
	switch answer.Result {
	case DNSRecords:
		if len(answer.MX) == 1 && answer.MX[0].Host == "." {
			return nil, errNullMX
		}
		r.hosts, r.mx = byPreference(answer.MX, port), true
	case DNSNoData: // the implicit MX
		r.hosts = [][]target{{{name: domain.name, port: port}}}
	case DNSNXDomain:
		return nil, unresolved(queue, fmt.Errorf("NXDOMAIN: the domain %s does not exist", domain.name))
	case DNSBogus:
		return nil, unresolved(queue, cmp.Or(answer.Err, fmt.Errorf("the MX records of %s fail DNSSEC validation", domain.name)))
	default:
		return nil, unresolved(queue, cmp.Or(answer.Err, fmt.Errorf("no answer to the question for the MX records of %s", domain.name)))
	}
	if len(r.hosts) == 0 {
		return nil, errNoHosts
	}
	r.site = r.siteName()
	return r, nil
}

// byPreference is the hosts of MX records, by name among those that are equal, and not too many.
func byPreference(records []MXRecord, port uint16) (hosts [][]target) {
	records = slices.DeleteFunc(slices.Clone(records), func(mx MXRecord) bool {
		return mx.Host == "." // no null MX, if there are others (RFC 7505 section 3)
	})
	slices.SortStableFunc(records, func(a, b MXRecord) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Host, b.Host))
	})
	records = records[:min(len(records), maxCandidates)]
	for i, mx := range records {
		if i == 0 || mx.Preference != records[i-1].Preference {
			hosts = append(hosts, nil)
		}
		last := len(hosts) - 1
		hosts[last] = append(hosts[last], target{name: mx.Host, port: port, rank: mx.Preference})
	}
	return hosts
}

// prune leaves the hosts out that are not kept.
func (r *route) prune(keep func(host string) bool) {
	var hosts [][]target
	for _, group := range r.hosts {
		group = slices.DeleteFunc(slices.Clone(group), func(t target) bool { return !keep(t.name) })
		if len(group) > 0 {
			hosts = append(hosts, group)
		}
	}
	r.hosts = hosts
	r.site = r.siteName()
}

// beforeSelf leaves ourselves out, and every host that is as good or worse: mail that is here already must
// not go to them (RFC 5321 section 5.1).
func (r *route) beforeSelf(isSelf func(target) bool) {
	for i, group := range r.hosts {
		if slices.ContainsFunc(group, isSelf) {
			r.hosts = r.hosts[:i]
			r.site = r.siteName()
			return
		}
	}
}

func (r *route) siteName() string {
	var names []string
	for _, group := range r.hosts {
		for _, t := range group {
			names = append(names, t.name)
		}
	}
	return siteName(names, r.port)
}

// parseRoutingDomain takes apart example.com, example.com:2025, [192.0.2.1], [192.0.2.1]:2025,
// [192.0.2.1:2025] and [IPv6:::1]. Unlike in an mx_list, an address needs brackets.
func parseRoutingDomain(s string) (target, uint16, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, closed := strings.CutSuffix(inner, "]"); closed {
			if ap, err := netip.ParseAddrPort(inner); err == nil {
				s = fmt.Sprintf("[%s]:%d", ap.Addr(), ap.Port())
			}
		}
		t, err := parseTarget(s)
		return t, t.port, err
	}
	name, portText, found := strings.Cut(s, ":")
	var port uint16
	if found {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return target{}, 0, fmt.Errorf("%q has no port number after the colon", s)
		}
		port = uint16(n)
	}
	name, err := address.ToASCII(name)
	return target{name: name, port: port}, port, err
}

// siteName folds the names of a domain's hosts, in plan order, into one: label by label from the
// right, the distinct labels of a position in order of first appearance, with a ? where a host has
// none. Domains whose mail goes to the same hosts share the name, and so their limits.
func siteName(hosts []string, port uint16) string {
	type position struct {
		labels   []string
		optional bool
	}
	var positions []position // from the right
	for i, host := range hosts {
		labels := strings.Split(host, ".")
		slices.Reverse(labels)
		for len(positions) < len(labels) {
			positions = append(positions, position{optional: i > 0})
		}
		for j := range positions {
			if j >= len(labels) {
				positions[j].optional = true
			} else if !slices.Contains(positions[j].labels, labels[j]) {
				positions[j].labels = append(positions[j].labels, labels[j])
			}
		}
	}
	parts := make([]string, len(positions))
	for j, p := range positions {
		s := strings.Join(p.labels, "|")
		if len(p.labels) > 1 {
			s = "(" + s + ")"
		}
		if p.optional {
			s += "?"
		}
		parts[len(positions)-1-j] = s
	}
	return joinPort(strings.Join(parts, "."), port)
}

func joinPort(host string, port uint16) string {
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(int(port))
}

// candidate is one address to connect to.
type candidate struct {
	host string // for TLS, logs and results
	addr netip.AddrPort
	unix string
	err  error // instead of an address, or why it cannot be connected to

	// equals numbers those that the plan has no order for; 0: the candidate keeps its place.
	equals int
	key    string // what a connection to it is kept under
	tls    *hostTLS
}

// network and address are as net.Dial wants them.
func (c *candidate) network() string {
	if c.unix != "" {
		return "unix"
	}
	return "tcp"
}

func (c *candidate) address() string {
	if c.unix != "" {
		return c.unix
	}
	return c.addr.String()
}

// failed is the failure of the candidate.
func (c *candidate) failed(err error) *HostError {
	e := &HostError{Host: c.host, Err: err}
	if c.addr.IsValid() || c.unix != "" {
		e.Address = c.address()
	}
	if c.tls != nil {
		e.TLS = c.tls.public
	}
	return e
}

// peer is what the peer there is remembered under.
func (c *candidate) peer() string { return c.network() + " " + c.address() }

// maxCandidates bounds the hosts that one plan looks up and the addresses that it tries: a domain may
// publish any number, and each that does not answer costs a connect_timeout.
const maxCandidates = 64

// demand is what a message itself says of TLS.
type demand byte

const (
	demandsNothing demand = iota
	demandsTLS            // REQUIRETLS
	waivesTLS             // TLS-Required: No
)

func (m *Message) demand() demand {
	switch {
	case m.MailOptions != nil && m.MailOptions.RequireTLS:
		return demandsTLS
	case m.TLSNotRequired:
		return waivesTLS
	}
	return demandsNothing
}

// routeOf is the route to the mail exchangers of a message's domain: without ourselves, and without those that
// the domain's policy does not name.
func (r *Runtime) routeOf(ctx context.Context, dns Resolver, a *attempt) (*route, *PlanError) {
	to, failed := domainRoute(ctx, dns, a.queue)
	if failed != nil {
		return nil, failed
	}
	to.beforeSelf(func(t target) bool {
		return slices.ContainsFunc(r.OwnNames, func(own string) bool {
			own = strings.TrimSuffix(own, ".")
			if ascii, err := address.ToASCII(own); err == nil {
				own = ascii
			}
			return address.SameName(own, t.name)
		})
	})
	if len(to.hosts) == 0 {
		return nil, errLoop
	}
	// Also where there are no MX records: else whoever can hide those has a way around the policy.
	if to.domain != "" && !r.MTASTS.Off && a.msg.demand() != waivesTLS {
		if err := r.obey(ctx, to); err != nil {
			return nil, unresolved(a.queue, err)
		}
	}
	return to, nil
}

// obey finds the MTA-STS policy of a route's domain, and leaves the hosts out that it forbids (RFC 8461 section
// 4.1).
func (r *Runtime) obey(ctx context.Context, to *route) error {
	found := r.state.policies.Get(ctx, to.domain)
	if found.Status == mtasts.Unknown {
		return fmt.Errorf("MTA-STS: %w", found.Err)
	}
	to.sts = &found
	if found.Policy.Mode != mtasts.Enforce {
		return nil
	}
	to.prune(found.Policy.Matches)
	if len(to.hosts) == 0 {
		return fmt.Errorf("the MTA-STS policy of %s names none of its mail exchangers", to.domain)
	}
	return nil
}

// lookForPolicies lends the cache of MTA-STS policies what it needs.
func (r *Runtime) lookForPolicies(c *mtasts.Cache) {
	c.RootCAs, c.Logger, c.DialContext = r.RootCAs, r.logger(), r.dialPolicyHost
	c.Lookup = func(ctx context.Context, name string) resolver.Answer {
		return r.lookup(ctx, name, resolver.TypeTXT)
	}
	if r.MTASTS.Store != nil {
		c.Store = policyStore{r.MTASTS.Store}
	}
}

// lookup asks the runtime's resolver for an engine.
func (r *Runtime) lookup(ctx context.Context, name string, t resolver.Type) resolver.Answer {
	return engineAnswer(r.state.resolver.Lookup(ctx, name, DNSType(t)))
}

// engineAnswer is an answer as an engine reads it, but for the names of mail exchangers.
func engineAnswer(a DNSAnswer) resolver.Answer {
	answer := resolver.Answer{
		Secure: a.Secure, Name: a.Name, TTL: a.TTL, Addrs: a.Addrs, TXT: a.TXT, CNAME: a.CNAME, Err: a.Err}
	switch a.Result {
	case DNSRecords:
		answer.Result = resolver.Records
	case DNSNoData:
		answer.Result = resolver.NoData
	case DNSNXDomain:
		answer.Result = resolver.NXDomain
	case DNSBogus:
		answer.Result = resolver.Bogus
	}
	for _, record := range a.TLSA {
		answer.TLSA = append(answer.TLSA, resolver.TLSA(record))
	}
	return answer
}

// dialPolicyHost connects to the host of a policy at an address that may be connected to.
func (r *Runtime) dialPolicyHost(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	at := lookupAddrs(ctx, r.state.resolver, host, "")
	if at.err != nil {
		return nil, at.err
	}
	prohibited := r.MTASTS.ProhibitedHosts
	if prohibited == nil {
		domain := strings.TrimPrefix(host, "mta-sts.")
		path, err := r.egressPath(ctx, pathName{domain, unspecified, domain})
		if err != nil {
			return nil, err
		}
		prohibited = path.config.ProhibitedHosts
	}
	var failures []error
	for _, ip := range at.addrs[:min(len(at.addrs), maxPolicyAddrs)] {
		if ip = ip.Unmap().WithZone(""); covers(prohibited, ip) {
			failures = append(failures, fmt.Errorf("%s (%s) is prohibited", host, ip))
			continue
		}
		conn, err := r.dialWithin(ctx, policyDialTimeout, DialRequest{Network: network, Address: net.JoinHostPort(ip.String(), port), Host: host})
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// dialWithin is socket with a time limit.
func (r *Runtime) dialWithin(ctx context.Context, limit time.Duration, to DialRequest) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.socket(ctx, to)
}

// policyDialTimeout is for one address of a policy host: another may answer.
const policyDialTimeout = 5 * time.Second

// maxPolicyAddrs bounds how many addresses of a policy host are tried.
const maxPolicyAddrs = 8

// policyStore lends a host's store to the cache.
type policyStore struct{ PolicyStore }

func (s policyStore) Load(ctx context.Context, domain string) (mtasts.Entry, error) {
	entry, err := s.PolicyStore.Load(ctx, domain)
	return mtasts.Entry(entry), err
}

func (s policyStore) Save(ctx context.Context, domain string, entry mtasts.Entry) error {
	return s.PolicyStore.Save(ctx, domain, PolicyEntry(entry))
}

// isOwn tells whether an address is this host's.
func (r *Runtime) isOwn(ip netip.Addr) bool {
	return slices.ContainsFunc(r.OwnAddresses, func(own netip.Addr) bool { return own.Unmap().WithZone("") == ip })
}

// until is until when a route may be used, if what the DNS said of it may be until then. Policies are looked at
// again before long: one may have come, or gone.
func (r *route) until(expires time.Time) time.Time {
	if again := time.Now().Add(policyLookedAtWithin); r.sts != nil && again.Before(expires) {
		return again
	}
	return expires
}

const policyLookedAtWithin = 5 * time.Minute

// hostTLS is what a host has to offer of TLS, and what its certificate is held against.
type hostTLS struct {
	rule   tlspolicy.Rule
	public TLSPolicy
	dane   *dane.Policy // nil: nobody looked for one
	report TLSReport    // as far as it is known before there is a connection
}

// tlsOf decides what a host has to offer of TLS.
func (p *planner) tlsOf(ctx context.Context, r *route, t target, port uint16, at *hostAddrs) *hostTLS {
	h := &hostTLS{report: TLSReport{PolicyType: "no-policy-found", Domain: r.domain, PolicyDomain: r.domain, Host: t.name}}
	facts := tlspolicy.Facts{
		Configured: enableTLS[p.path.EnableTLS],
		STS:        p.heed(r, h),
		DANE:       p.dane(ctx, r, h, port, at),
		RequireTLS: p.wants == demandsTLS,
		Optional:   p.wants == waivesTLS,
		Vouched:    r.secure || r.list || t.addr.IsValid(),
	}
	h.rule = tlspolicy.Decide(facts)
	h.public.Mode, h.public.By = h.rule.Mode.String(), string(h.rule.By)
	return h
}

// heed tells what the policy of the domain asks for.
func (p *planner) heed(r *route, h *hostTLS) tlspolicy.STS {
	if r.sts == nil || p.path.EnableMTASTS == Off {
		return tlspolicy.NoSTS
	}
	h.public.Err = r.sts.Err
	mode := tlspolicy.NoSTS
	switch r.sts.Status {
	case mtasts.Fetched, mtasts.Cached, mtasts.Kept:
	default:
		return mode
	}
	policy := &r.sts.Policy
	h.public.MTASTS = policy.Mode.String()
	switch policy.Mode {
	case mtasts.None:
		return mode
	case mtasts.Testing:
		mode = tlspolicy.Testing
		if !policy.Matches(h.report.Host) { // who enforced it would not go there
			h.report.Failure, h.report.Err = "validation-failure", fmt.Errorf("the MTA-STS policy of %s does not name the host", r.domain)
		}
	case mtasts.Enforce:
		mode = tlspolicy.Enforce
	}
	h.report.PolicyType, h.report.Policy = "sts", strings.Split(strings.TrimSpace(policy.String()), "\r\n")
	return mode
}

// dane tells what the TLSA records of a host ask for.
func (p *planner) dane(ctx context.Context, r *route, h *hostTLS, port uint16, at *hostAddrs) tlspolicy.DANE {
	if !p.path.EnableDANE || p.wants == waivesTLS || at == nil {
		return tlspolicy.NotAsked
	}
	host := dane.Host{Name: h.report.Host, Port: port, Secure: r.secure, NextHop: r.domain, NextHopExpanded: r.expanded}
	for _, a := range at.answers {
		host.Addresses = append(host.Addresses, engineAnswer(a))
	}
	policy := dane.Find(ctx, func(ctx context.Context, name string, t resolver.Type) resolver.Answer {
		return engineAnswer(p.dns.Lookup(ctx, name, DNSType(t)))
	}, host)
	h.dane, h.public.DANE = &policy, policy.Status.String()
	if policy.Status.Silent() {
		return tlspolicy.None
	}
	h.report.PolicyType, h.report.PolicyDomain = "tlsa", cmp.Or(policy.Base, h.report.Host)
	h.report.Policy, h.report.Failure, h.report.Err = nil, policy.FailureType(), policy.Err
	for _, record := range policy.Records {
		h.report.Policy = append(h.report.Policy, fmt.Sprintf("%d %d %d %x", record.Usage, record.Selector, record.MatchingType, record.Data))
	}
	switch policy.Status {
	case dane.OK:
		return tlspolicy.Usable
	case dane.Unusable:
		return tlspolicy.Unusable
	}
	h.public.Err = policy.Err
	return tlspolicy.Unknown
}

var enableTLS = map[string]tlspolicy.Mode{
	"Opportunistic":         tlspolicy.Opportunistic,
	"OpportunisticInsecure": tlspolicy.OpportunisticInsecure,
	"Required":              tlspolicy.Required,
	"RequiredInsecure":      tlspolicy.RequiredInsecure,
	"Disabled":              tlspolicy.Disabled,
}

// key tells connections apart by what they had to offer when they were opened.
func (h *hostTLS) key() string {
	key := h.public.Mode + " " + h.public.By
	if h.rule.Records {
		key += " " + strings.Join(h.report.Policy, ",")
		// With DANE-TA(2) the name of this domain may have been what the certificate was good for, and another's is
		// not (RFC 7672 section 3.2.2).
		if slices.ContainsFunc(h.dane.Records, func(r resolver.TLSA) bool { return r.Usage == 2 }) {
			key += " " + strings.Join(h.dane.Names, ",")
		}
	}
	return key
}

// opportunistic tells whether the host may get mail in clear although it offers TLS.
func (h *hostTLS) opportunistic() bool {
	return h.rule.Mode == tlspolicy.Opportunistic || h.rule.Mode == tlspolicy.OpportunisticInsecure
}

// secure tells a client what to hold the certificate against, and returns its name.
func (h *hostTLS) secure(cfg *smtpclient.Config) (by string) {
	if h.rule.By == tlspolicy.ByDANE { // else the certificate is to be the host's own
		cfg.TLSConfig.ServerName = h.dane.Base // RFC 7672 section 8.1
	}
	switch {
	case h.rule.Records:
		cfg.VerifyTLS = func(state tls.ConnectionState) error {
			_, err := h.dane.Verify(state.PeerCertificates, time.Now())
			return err
		}
		return "dane"
	case h.rule.By == tlspolicy.BySTS && h.rule.Mode == tlspolicy.Required:
		return "mta-sts"
	}
	return "pkix"
}

// planner makes the connection plan of a route.
type planner struct {
	dns    Resolver
	path   *EgressPath
	source *EgressSource
	self   func(netip.Addr) bool // nil: no address is known to be ours
	wants  demand
}

// plan resolves the hosts of a route and applies what the egress path prohibits and skips. Hosts that do not
// resolve are in the list, with their error, and do not spoil the others.
func (p *planner) plan(ctx context.Context, r *route) ([]candidate, *PlanError) {
	var plan []candidate
	seen := map[string]bool{}
	found := 0
	hosts := p.find(ctx, r)
	for i, group := range r.hosts {
		equals := i + 1
		if r.list {
			equals = 0
		}
		addresses, failed, self := p.addressesOf(group, hosts[i], equals, maxCandidates-found)
		if self && r.domain != "" { // what is as good or worse is not for us (RFC 5321 section 5.1)
			if i == 0 {
				return plan, errLoop
			}
			break
		}
		if !r.list { // so that chance decides too which are too many
			rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
		}
		for _, c := range addresses {
			if key := c.host + " " + c.address(); !seen[key] && found < maxCandidates {
				seen[key] = true
				found++
				plan = append(plan, c)
			}
		}
		plan = append(plan, failed...)
	}
	if found == 0 {
		return plan, errNoHosts
	}
	plan, why := permitted(plan, p.path, p.source)
	if why != nil {
		return plan, why
	}
	return plan, refused(plan, p.path.EnableMTASTS != Off && r.awaitsPolicy())
}

// foundHost is what is known of one host of a route.
type foundHost struct {
	port uint16
	at   *hostAddrs // nil: it is a unix socket
	tls  *hostTLS   // nil: it has no address
}

// find asks for the addresses of all hosts of a route, and for what they have to offer of TLS, at the same time: a
// domain may have many, and the servers for any of their names may be down.
func (p *planner) find(ctx context.Context, r *route) [][]foundHost {
	found := make([][]foundHost, len(r.hosts))
	var others sync.WaitGroup
	for i, group := range r.hosts {
		found[i] = make([]foundHost, len(group))
		for j, t := range group {
			if one := len(r.hosts) == 1 && len(group) == 1; one || t.unix != "" || t.addr.IsValid() {
				found[i][j] = p.findHost(ctx, r, t)
			} else {
				others.Go(func() { found[i][j] = p.findHost(ctx, r, t) })
			}
		}
	}
	others.Wait()
	return found
}

func (p *planner) findHost(ctx context.Context, r *route, t target) foundHost {
	f := foundHost{port: cmp.Or(p.source.RemotePort, t.port, p.path.SMTPPort)}
	switch {
	case t.unix != "":
	case t.addr.IsValid():
		f.at = &hostAddrs{addrs: []netip.Addr{t.addr}, answers: []DNSAnswer{{Result: DNSRecords, Secure: t.secure, Name: t.name}}}
	default:
		if f.at = lookupAddrs(ctx, p.dns, t.name, p.path.IPLookupStrategy); f.at.err != nil {
			return f
		}
	}
	f.tls = p.tlsOf(ctx, r, t, f.port, f.at)
	return f
}

// addressesOf are the addresses of hosts that are equal, no more than so many by whole hosts. Self: one of them is
// ours.
func (p *planner) addressesOf(group []target, found []foundHost, equals, most int) (addresses, failed []candidate, self bool) {
	for j, t := range group {
		if len(addresses) >= most {
			break
		}
		f := found[j]
		switch {
		case f.at == nil:
			addresses = append(addresses, candidate{host: t.name, unix: t.unix, tls: f.tls})
			continue
		case f.at.err != nil:
			failed = append(failed, candidate{host: t.name, err: f.at.err})
			continue
		}
		for _, ip := range f.at.addrs {
			ip = ip.Unmap().WithZone("")
			self = self || p.self != nil && p.self(ip)
			addresses = append(addresses, candidate{host: t.name, addr: netip.AddrPortFrom(ip, f.port), equals: equals, tls: f.tls})
		}
	}
	return addresses, failed, self
}

// awaitsPolicy: there may be an MTA-STS policy that could not be had now.
func (r *route) awaitsPolicy() bool {
	return r.sts != nil && (r.sts.Status == mtasts.LookupFailed || r.sts.Status == mtasts.FetchFailed)
}

// refused takes out of a plan the hosts to which nothing may be sent as TLS is to be had there.
// Later: somebody may vouch for them then.
func refused(plan []candidate, later bool) *PlanError {
	usable, insecure := 0, 0
	for i := range plan {
		c := &plan[i]
		switch {
		case c.err != nil:
			continue
		case c.tls.rule.Refuse == "":
			usable++
			continue
		case c.tls.rule.Refuse == tlspolicy.NotVouched:
			insecure++
		}
		c.err = errors.New(string(c.tls.rule.Refuse))
		if c.tls.public.Err != nil {
			c.err = fmt.Errorf("%w: %w", c.err, c.tls.public.Err)
		}
	}
	switch {
	case usable > 0 || insecure == 0:
		return nil
	case later:
		return errNotVouchedNow
	}
	return errNotVouched
}

// hasEquals reports whether a plan has candidates that may change places.
func hasEquals(plan []candidate) bool {
	for i := 1; i < len(plan); i++ {
		if plan[i].equals != 0 && plan[i].equals == plan[i-1].equals {
			return true
		}
	}
	return false
}

// shuffleEquals puts the candidates of a plan in another order, as far as the plan has none for them.
func shuffleEquals(plan []candidate) {
	for len(plan) > 0 {
		n := 1
		for n < len(plan) && plan[n].equals != 0 && plan[n].equals == plan[0].equals {
			n++
		}
		rand.Shuffle(n, func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
		plan = plan[n:]
	}
}

// datedResolver notes until when all that a resolver answered may be used.
type datedResolver struct {
	Resolver
	mu      sync.Mutex
	expires time.Time // zero: it was asked for nothing
}

func (d *datedResolver) Lookup(ctx context.Context, name string, t DNSType) DNSAnswer {
	asked := time.Now()
	answer := d.Resolver.Lookup(ctx, name, t)
	until := asked
	if answer.Result != DNSTempFail && answer.Result != DNSBogus {
		until = asked.Add(answer.TTL)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.expires.IsZero() || until.Before(d.expires) {
		d.expires = until
	}
	return answer
}

// permitted takes from a plan what may not be tried. One prohibited address condemns the whole plan:
// a domain that publishes a loopback address among others is no less a trap for it.
func permitted(plan []candidate, path *EgressPath, source *EgressSource) ([]candidate, *PlanError) {
	for _, c := range plan {
		if c.addr.IsValid() && covers(path.ProhibitedHosts, c.addr.Addr()) {
			return plan, errProhibited(c.host, c.addr.Addr().String())
		}
	}
	kept := slices.DeleteFunc(slices.Clone(plan), func(c candidate) bool {
		return c.addr.IsValid() && covers(path.SkipHosts, c.addr.Addr())
	})
	if !slices.ContainsFunc(kept, usable) {
		return kept, errAllSkipped
	}
	bound := source.SourceAddress
	if source.proxy() != "" { // which binds another; ours is for the way to it
		bound = source.proxySource()
	}
	if bound.IsValid() {
		for i, c := range kept {
			if c.addr.IsValid() && c.addr.Addr().Is4() != bound.Unmap().Is4() {
				kept[i].err = fmt.Errorf("the source address %s is of another address family", bound)
			}
		}
	}
	return kept, nil
}

func usable(c candidate) bool { return c.err == nil }

func covers(prefixes []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // the addresses are unmapped, so must the networks be
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Contains(ip)
	})
}

// hostAddrs is what the DNS says of the addresses of a host.
type hostAddrs struct {
	addrs   []netip.Addr
	answers []DNSAnswer // that they come from
	err     error       // instead of addresses
}

// lookupAddrs resolves a host name as ip_lookup_strategy says: all A before all AAAA, unless the
// strategy names another order. A family that fails is forgotten if the other has addresses.
func lookupAddrs(ctx context.Context, dns Resolver, host, strategy string) *hostAddrs {
	var v4, v6 DNSAnswer
	ask4 := func() { v4 = dns.Lookup(ctx, host, DNSTypeA) }
	ask6 := func() { v6 = dns.Lookup(ctx, host, DNSTypeAAAA) }
	none := DNSAnswer{Result: DNSNoData}
	switch strategy {
	case "Ipv4Only":
		v6 = none
		ask4()
	case "Ipv6Only":
		v4 = none
		ask6()
	case "Ipv4ThenIpv6":
		v6 = none
		if ask4(); len(v4.Addrs) == 0 {
			ask6()
		}
	case "Ipv6ThenIpv4":
		v4 = none
		if ask6(); len(v6.Addrs) == 0 {
			ask4()
		}
	default:
		var second sync.WaitGroup
		second.Go(ask6)
		ask4()
		second.Wait()
	}
	at := &hostAddrs{addrs: slices.Concat(v4.Addrs, v6.Addrs), answers: []DNSAnswer{v4, v6}}
	if len(at.addrs) == 0 {
		at.err = noAddress(host, &v4, &v6)
	}
	return at
}

// noAddress says why a host has no address.
func noAddress(host string, v4, v6 *DNSAnswer) error {
	for _, a := range []*DNSAnswer{v4, v6} {
		if a.Result == DNSTempFail || a.Result == DNSBogus {
			return cmp.Or(a.Err, fmt.Errorf("no answer to the question for the addresses of %s", host))
		}
	}
	if v4.Result == DNSNXDomain || v6.Result == DNSNXDomain {
		return fmt.Errorf("%s does not exist", host)
	}
	return errors.New(host + " has no address")
}

// siteOf tells a policy's kumo.shaping where the mail of a domain goes, as a delivery would find it before
// it leaves hosts out.
func (r *Runtime) siteOf(ctx context.Context, domain string) (kumo.Site, error) {
	to, failed := domainRoute(ctx, r.state.resolver, QueueName{Domain: domain})
	switch {
	case failed == errNullMX:
		return kumo.Site{}, nil
	case failed != nil:
		return kumo.Site{}, failed
	}
	site := kumo.Site{Name: to.site}
	for _, group := range to.hosts {
		for _, host := range group {
			site.Hosts = append(site.Hosts, host.name)
		}
	}
	return site, nil
}

// policyDNS answers kumo.dns as deliveries ask.
type policyDNS struct{ runtime *Runtime }

// implicitRank is the preference that upstream gives to a domain's own address, and to an address in brackets.
const implicitRank = 1

// MX is the route of a domain's mail, as far as the domain says: ourselves included.
func (d policyDNS) MX(ctx context.Context, domain string) (kumo.MailExchangers, error) {
	found := kumo.MailExchangers{MTASTS: stsModes[mtasts.None]}
	to, failed := domainRoute(ctx, d.runtime.ready().resolver, QueueName{Domain: domain})
	switch {
	case failed == errNullMX:
		found.Domain, found.MX = fullName(domain), true
		found.Preferences = []kumo.Preference{{Hosts: []string{"."}}}
		return found, nil
	case failed != nil:
		return found, fmt.Errorf("MX lookup for %s failed: %w", domain, cmp.Or(failed.Err, error(failed)))
	}
	if to.domain != "" && !d.runtime.MTASTS.Off {
		if err := d.runtime.obey(ctx, to); err != nil {
			return found, fmt.Errorf("MX lookup for %s failed: %w", domain, err)
		}
		if to.sts != nil {
			found.MTASTS = stsModes[to.sts.Policy.Mode]
		}
	}
	found.Domain, found.Site, found.MX, found.Secure = fullName(to.domain), to.site, to.mx, to.secure
	if to.domain == "" {
		found.Domain, found.Literal = domain, true
	}
	for _, group := range to.hosts {
		found.Preferences = append(found.Preferences, to.asPreference(group))
	}
	return found, nil
}

var stsModes = map[mtasts.Mode]string{mtasts.None: "None", mtasts.Testing: "Testing", mtasts.Enforce: "Enforce"}

// asPreference is the hosts of a route that are equally good, as policies see them: names end with a dot.
func (r *route) asPreference(group []target) kumo.Preference {
	p := kumo.Preference{Value: implicitRank}
	for _, t := range group {
		name := t.addr.String()
		if !t.addr.IsValid() {
			name = fullName(t.name)
		}
		p.Hosts = append(p.Hosts, joinPort(name, r.port))
		if r.mx {
			p.Value = t.rank
		}
	}
	return p
}

// fullName is a name with its final dot.
func fullName(name string) string {
	name = asciiName(name)
	if name == "." {
		return name
	}
	return name + "."
}

// Addrs is the addresses of a host. That it has none, or does not exist, is no error.
func (d policyDNS) Addrs(ctx context.Context, host, strategy string) ([]netip.Addr, error) {
	at := lookupAddrs(ctx, d.runtime.ready().resolver, asciiName(host), strategy)
	if at.err != nil {
		for _, answer := range at.answers {
			if err := unanswered(host, &answer); err != nil {
				return nil, err
			}
		}
	}
	return at.addrs, nil
}

// TXT is the TXT records of a name.
func (d policyDNS) TXT(ctx context.Context, name string) ([]string, error) {
	answer := d.runtime.ready().resolver.Lookup(ctx, asciiName(name), DNSTypeTXT)
	return answer.TXT, unanswered(name, &answer)
}

// PTR is the names that the name of an address points to.
func (d policyDNS) PTR(ctx context.Context, name string) ([]string, error) {
	answer := d.runtime.ready().resolver.Lookup(ctx, asciiName(name), DNSTypePTR)
	return answer.PTR, unanswered(name, &answer)
}

// asciiName is a name as a resolver wants it. What is no name stays as it is: the resolver says so.
func asciiName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if strings.ContainsFunc(name, func(c rune) bool { return c > unicode.MaxASCII }) {
		if ascii, err := address.ToASCII(name); err == nil {
			return ascii
		}
	}
	return name
}

// unanswered is the error of a question that has no answer. That there is no such name or record is one; that
// there can be none is not.
func unanswered(name string, answer *DNSAnswer) error {
	switch {
	case answer.Result == DNSTempFail || answer.Result == DNSBogus:
		return fmt.Errorf("failed to query DNS for %s: %w", name, cmp.Or(answer.Err, errNoAnswer))
	case answer.Result == DNSNXDomain && answer.Err != nil:
		return fmt.Errorf("invalid DNS name: %w", answer.Err)
	}
	return nil
}

var errNoAnswer = errors.New("no answer")
