// Package resolver asks recursive name servers, over UDP and TCP or over TLS, and says what their answers mean in
// a closed set of results. It knows no mail beyond the record types that mail needs: what follows from
// a null MX, or from an address, is the caller's business.
//
// An answer is believed only if it belongs to the question, and only as far as its owner names lead
// there. Whatever is missing, late, broken or contradictory is [TempFail] and never "no such record":
// mail that is sent to a domain's own address because its MX records could not be had is lost mail.
//
// Answers are kept in a bounded cache, failures for some seconds too, and who asks what is being asked
// waits for the same answer. Records whose TTL is over may stand in while every server fails, but for
// what must be true when it is used: see [Client.MaxStale].
package resolver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Type is the type of a record, as the DNS numbers it.
type Type uint16

// The types that can be asked for.
const (
	TypeA     = Type(dns.TypeA)
	TypeCNAME = Type(dns.TypeCNAME)
	TypePTR   = Type(dns.TypePTR)
	TypeMX    = Type(dns.TypeMX)
	TypeTXT   = Type(dns.TypeTXT)
	TypeAAAA  = Type(dns.TypeAAAA)
	TypeTLSA  = Type(dns.TypeTLSA)
)

func (t Type) String() string { return dns.Type(t).String() }

// Result is the kind of an [Answer].
type Result int

// An answer is one of these.
const (
	// TempFail: no answer could be had. The zero value: silence is no verdict.
	TempFail Result = iota
	// Records: there are records of the type.
	Records
	// NoData: the name exists, without records of the type.
	NoData
	// NXDomain: the name does not exist, or is none.
	NXDomain
	// Bogus: a server that validates says that the answer fails DNSSEC validation.
	Bogus
)

func (r Result) String() string {
	switch r {
	case TempFail:
		return "TempFail"
	case Records:
		return "Records"
	case NoData:
		return "NoData"
	case NXDomain:
		return "NXDomain"
	case Bogus:
		return "Bogus"
	}
	return "Result(" + strconv.Itoa(int(r)) + ")"
}

// MX is a mail exchanger.
type MX struct {
	Preference uint16
	// Host is lower-case and without the final dot; "." is the null MX of RFC 7505.
	Host string
}

// TLSA is a TLSA record (RFC 6698 section 2.1).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// Answer is what [Client.Lookup] found out. Its slices are shared with the cache and with other
// callers: they must not be written to.
type Answer struct {
	Result Result
	// Secure: the whole answer, each CNAME and the absence of records included, was validated with
	// DNSSEC by a server that is trusted to do so.
	Secure bool
	// Name is the name at the end of the chain of CNAMEs, lower-case and without the final dot.
	Name string
	// TTL is how long the answer may be kept from now on; for a failure, how long it is not asked again.
	TTL time.Duration
	// Stale: the records are older than their TTL allows, and are given because every server failed (RFC
	// 8767). Such an answer has records, is not Secure, and has a TTL of 30 s at most.
	Stale bool

	// The records, according to the type that was asked for, in the server's order.
	MX    []MX
	Addrs []netip.Addr
	TXT   []string // the strings of one record joined, as raw bytes
	TLSA  []TLSA
	CNAME string
	PTR   []string // names, lower-case and without the final dot

	// Err is an [*Error] for TempFail and Bogus, and for NXDomain if the name cannot exist; else nil.
	Err error
}

// Error says which question was not answered, and why.
type Error struct {
	Name   string
	Type   Type
	Server string // the server that failed last; empty if it was none's fault
	Err    error
}

func (e *Error) Error() string {
	if e.Server == "" {
		return fmt.Sprintf("%v of %q: %v", e.Type, e.Name, e.Err)
	}
	return fmt.Sprintf("%v of %q: server %s: %v", e.Type, e.Name, e.Server, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

var (
	// ErrClosed is why a lookup fails once Close has begun.
	ErrClosed = errors.New("the resolver is closed")
	// ErrName is why a lookup fails for what is no domain name.
	ErrName = errors.New("not a domain name")
)

// Client asks name servers and keeps their answers. The zero value asks the servers of
// /etc/resolv.conf. Fields must not change after first use, and a Client must not be copied.
type Client struct {
	// Servers are the recursive servers to ask, in this order; one that did not respond in the last
	// 30 s is asked after the others. Nil: those of ConfigFile.
	//
	// "192.0.2.1:53" and "[2001:db8::1]:53" are asked over UDP and TCP; an IP address alone has port 53.
	// "tls://192.0.2.1:853#dns.example" is asked over TLS alone (RFC 7858), and only if its certificate is
	// good for the name after the #, or without one for the address; the port is 853 if there is none.
	Servers []string
	// RootCAs verify the servers that are asked over TLS; nil: those of the system.
	RootCAs *x509.CertPool
	// TrustAD: the servers, all of them, validate DNSSEC and the way to them is safe, so that the AD bit
	// of their answers is believed (RFC 6840 section 5.8). TLS or loopback makes the way safe, but only who
	// knows the servers knows that they validate. For the servers of ConfigFile its option trust-ad says
	// so too.
	TrustAD bool
	// ConfigFile is a file like resolv.conf(5), read at the first use and again when it has changed;
	// empty: /etc/resolv.conf. If it does not exist or names no server, loopback is asked. It is not
	// read if there are Servers.
	ConfigFile string
	// HostsFile is a file like hosts(5), whose names are not asked for: it is read at the first use and
	// again when it has changed. Empty: /etc/hosts, or none if there are Servers.
	HostsFile string
	// Timeout is for one try at one server, over UDP and then TCP, or over TLS; 0: 5 s, or what ConfigFile says.
	Timeout time.Duration
	// Attempts is how many times the list of servers is gone through; 0: 2, or what ConfigFile says.
	Attempts int
	// CacheSize is how many answers are kept, of which one with more than 512 bytes of records counts
	// for several; 0: 10000; negative: none.
	CacheSize int
	// MinTTL is how long an answer is kept at least; 0: 1 s. Secure answers and TLSA records are not kept
	// beyond their TTL, or 1 s: with it end the signatures that prove them. A record that is changed is
	// seen that much later, so a few minutes are much.
	MinTTL time.Duration
	// MaxTTL is how long an answer is kept at most; 0: 24 h. It comes before MinTTL. For an absence it is
	// never more than 1 h.
	MaxTTL time.Duration
	// MaxStale is for how long after their TTL records are used if every server fails, or does not answer
	// before the deadline of the caller's context (RFC 8767); 0: 24 h; negative: not at all. TLSA records,
	// secure answers, absences and null MXs are never used so.
	MaxStale time.Duration
	// FailureTTL is how long TempFail and Bogus are given to all who ask without asking the servers again
	// (RFC 9520): from 1 s to 5 min; 0: 5 s; negative: not at all.
	FailureTTL time.Duration
	// MaxQueries is how many questions are asked at once; 0: 128; negative: any number. The others wait for
	// their turn, in the order in which they came.
	MaxQueries int
	// Logger is told of a server that TrustAD is about and that never sets the AD bit, once; nil: nobody.
	Logger *slog.Logger
	// Dial opens a connection to a server: for each query with network "udp" or "tcp", and with "tcp" for
	// many queries over TLS, the handshake of which comes after Dial. The connection's deadlines must work.
	// Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	file    configFile
	hosts   hostsFile
	turns   turns
	roster  roster
	links   links
	working sync.WaitGroup // the flights, and what they began

	mu      sync.Mutex
	closed  bool
	counts  Stats // the numbers that only grow
	epoch   int   // how often the cache was emptied
	cache   cache
	flights map[question]*flight

	// life is the context of all that goes out, made with flights, and end its end.
	life context.Context
	end  context.CancelCauseFunc
}

// question is the key of everything: the name is lower-case and without the final dot.
type question struct {
	name string
	typ  Type
}

func (q question) fail(err error) Answer {
	return Answer{Name: q.name, Err: &Error{Name: q.name, Type: q.typ, Err: err}}
}

// Lookup asks one question. The name is absolute, with or without a final dot, and its labels are
// A-labels; no search list is used. CNAMEs are followed, unless they are what is
// asked for. What is no domain name (RFC 1035 section 2.3.4) does not exist: NXDomain, with an Err that
// wraps [ErrName].
//
// Callers who ask the same at the same time share one query. If ctx ends, the answer is TempFail with
// an Err that wraps ctx.Err(), and the others go on; an answer that is in the cache is given
// nevertheless. Lookup is safe for concurrent use.
func (c *Client) Lookup(ctx context.Context, name string, t Type) Answer {
	q := question{name, t}
	switch t {
	case TypeA, TypeCNAME, TypePTR, TypeMX, TypeTXT, TypeAAAA, TypeTLSA:
	default:
		return q.fail(errors.New("this record type is not supported"))
	}
	canonical, err := canonicalName(name)
	if err != nil {
		answer := q.fail(err)
		answer.Result = NXDomain
		return answer
	}
	q.name = canonical
	if answer, ok := c.fromHosts(q); ok {
		return answer
	}
	return c.shared(ctx, q)
}

// canonicalName is name in lower case and without the final dot. It refuses, beyond what the DNS itself
// does, the bytes that no A-label and no service label has and that zone files would have to quote.
func canonicalName(name string) (string, error) {
	bare := strings.TrimSuffix(name, ".")
	if len(bare) > 253 { // 255 on the wire, with the first label's length and the root
		return "", fmt.Errorf("%w: longer than 255 bytes", ErrName)
	}
	start := 0
	for i := range len(bare) + 1 {
		if i < len(bare) && bare[i] != '.' {
			if c := bare[i]; c <= ' ' || c > '~' || strings.IndexByte(`@\"();'`, c) >= 0 {
				return "", fmt.Errorf("%w: it has a %q", ErrName, rune(c))
			}
			continue
		}
		switch n := i - start; {
		case n == 0:
			return "", fmt.Errorf("%w: it has an empty label", ErrName)
		case n > 63:
			return "", fmt.Errorf("%w: it has a label longer than 63 bytes", ErrName)
		}
		start = i + 1
	}
	return strings.ToLower(bare), nil
}

// Close ends the lookups under way with [ErrClosed], closes the connections, and waits until nothing of
// them is left. It may be called again.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.cache.clear()
	if c.end != nil {
		c.end(ErrClosed)
	}
	c.mu.Unlock()
	c.working.Wait()
	return nil
}
