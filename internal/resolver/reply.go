package resolver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// unprovenTTL is for a negative answer without SOA, which says nothing about how long it holds.
const unprovenTTL = 60

// reply is what one message says about one question.
type reply struct {
	answer Answer
	hops   int  // CNAMEs followed
	follow bool // the message ends at answer.Name, which is to be asked for
}

// serverError is a response code that ends the try at a server.
type serverError struct {
	rcode    int
	extended *dns.EDNS0_EDE // why (RFC 8914), if it says
}

func (e *serverError) Error() string {
	name, ok := dns.RcodeToString[e.rcode]
	if !ok {
		name = fmt.Sprintf("RCODE %d", e.rcode)
	}
	if e.extended == nil {
		return name
	}
	reason, ok := dns.ExtendedErrorCodeToString[e.extended.InfoCode]
	if !ok {
		reason = fmt.Sprintf("extended error %d", e.extended.InfoCode)
	}
	if text := e.extended.ExtraText; text != "" {
		reason += fmt.Sprintf(": %.200q", text)
	}
	return name + " (" + reason + ")"
}

// bogus tells whether the server says that DNSSEC validation failed, by one of the codes of RFC 8914
// sections 4.7 to 4.13.
func (e *serverError) bogus() bool {
	return e.rcode == dns.RcodeServerFailure && e.extended != nil &&
		e.extended.InfoCode >= dns.ExtendedErrorCodeDNSBogus &&
		e.extended.InfoCode <= dns.ExtendedErrorCodeNSECMissing
}

// readReply reads the response to q. An error means that this server has no answer; for a Bogus one the
// reply's result says so.
func readReply(m *dns.Msg, q question, trustAD bool) (reply, error) {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		err := &serverError{m.Rcode, extendedError(m)}
		if err.bogus() {
			return reply{answer: Answer{Result: Bogus}}, err
		}
		return reply{}, err
	}
	r := reply{answer: Answer{TTL: maxTTL, Secure: trustAD && m.AuthenticatedData}}
	owner, err := r.followCNAMEs(m, q)
	if err != nil {
		return reply{}, err
	}
	r.answer.Name = bare(owner)
	n, err := r.collect(m, owner, q.typ)
	switch {
	case err != nil:
		return reply{}, err
	case n > 0 && m.Rcode == dns.RcodeNameError:
		return reply{}, errors.New("NXDOMAIN with records of that name")
	case n > 0:
		r.answer.Result = Records
		return r, nil
	case m.Rcode == dns.RcodeNameError: // of the name at the end of the chain (RFC 6604 section 3)
		r.answer.Result = NXDomain
	case r.hops > 0:
		r.follow = true
		return r, nil
	default:
		r.answer.Result = NoData
	}
	if err := r.deny(m, owner); err != nil {
		return reply{}, err
	}
	return r, nil
}

// followCNAMEs goes from the name that was asked for to the end of the chain that the answer section
// has. The chain counts, not the order: RFC 1034 section 4.3.1 promises none.
func (r *reply) followCNAMEs(m *dns.Msg, q question) (owner string, err error) {
	owner = absolute(q.name)
	if q.typ == TypeCNAME {
		return owner, nil
	}
	for !has(m, owner, q.typ) {
		i := find(m, owner, TypeCNAME)
		if i < 0 {
			break
		}
		if r.hops++; r.hops > maxCNAMEs {
			return "", errChain
		}
		cname, ok := m.Answer[i].(*dns.CNAME)
		if !ok || cname.Target == "" {
			return "", emptyRecord(m.Answer[i])
		}
		r.age(cname)
		owner = strings.ToLower(cname.Target)
	}
	return owner, nil
}

// collect takes the records of owner and says how many there are. One record that cannot be read spoils
// the answer: without it the others would say something else.
func (r *reply) collect(m *dns.Msg, owner string, t Type) (n int, err error) {
	for _, rr := range m.Answer {
		if !belongs(rr, owner, t) {
			continue
		}
		if err := r.take(rr); err != nil {
			return 0, err
		}
		r.age(rr)
		n++
	}
	return n, nil
}

func (r *reply) take(rr dns.RR) error {
	if rr.Header().Rdlength == 0 { // the parser lets that pass for any type
		return emptyRecord(rr)
	}
	switch rr := rr.(type) {
	case *dns.A:
		ip, ok := netip.AddrFromSlice(rr.A)
		if !ok {
			return emptyRecord(rr)
		}
		r.answer.Addrs = append(r.answer.Addrs, ip.Unmap()) // four bytes, which net.IP may hold as sixteen
	case *dns.AAAA:
		ip, ok := netip.AddrFromSlice(rr.AAAA)
		if !ok {
			return emptyRecord(rr)
		}
		r.answer.Addrs = append(r.answer.Addrs, ip)
	case *dns.MX:
		r.answer.MX = append(r.answer.MX, MX{rr.Preference, bare(rr.Mx)})
	case *dns.TXT:
		r.answer.TXT = append(r.answer.TXT, unescape(strings.Join(rr.Txt, "")))
	case *dns.TLSA:
		data, err := hex.DecodeString(rr.Certificate)
		if err != nil {
			return err
		}
		r.answer.TLSA = append(r.answer.TLSA, TLSA{rr.Usage, rr.Selector, rr.MatchingType, data})
	case *dns.CNAME:
		r.answer.CNAME = bare(rr.Target)
	default: // not one of the types that Lookup lets through
		return emptyRecord(rr)
	}
	return nil
}

// deny reads how long an absence may be kept (RFC 2308 section 5), and refuses what proves none.
func (r *reply) deny(m *dns.Msg, owner string) error {
	referral := false
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *dns.SOA:
			if dns.IsSubDomain(rr.Hdr.Name, owner) {
				r.answer.TTL = min(r.answer.TTL, boundedTTL(min(rr.Hdr.Ttl, rr.Minttl), maxNegativeTTL))
				return nil
			}
		case *dns.NS:
			referral = true
		}
	}
	r.answer.TTL = min(r.answer.TTL, boundedTTL(unprovenTTL, maxNegativeTTL))
	switch {
	case r.answer.Result == NXDomain:
		return nil
	case len(m.Answer) > 0:
		return errors.New("the records answer another question")
	case !m.Authoritative && (referral || !m.RecursionAvailable):
		return errors.New("a referral: the server does not resolve")
	}
	return nil
}

// age lets the answer live no longer than rr.
func (r *reply) age(rr dns.RR) {
	r.answer.TTL = min(r.answer.TTL, boundedTTL(rr.Header().Ttl, maxTTL))
}

func belongs(rr dns.RR, owner string, t Type) bool {
	h := rr.Header()
	return h.Rrtype == uint16(t) && h.Class == dns.ClassINET && strings.EqualFold(h.Name, owner)
}

func find(m *dns.Msg, owner string, t Type) int {
	for i, rr := range m.Answer {
		if belongs(rr, owner, t) {
			return i
		}
	}
	return -1
}

func has(m *dns.Msg, owner string, t Type) bool { return find(m, owner, t) >= 0 }

func emptyRecord(rr dns.RR) error {
	return fmt.Errorf("%w: a %v record without content", errMalformed, Type(rr.Header().Rrtype))
}

func extendedError(m *dns.Msg) *dns.EDNS0_EDE {
	if opt := m.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if e, ok := option.(*dns.EDNS0_EDE); ok {
				return e
			}
		}
	}
	return nil
}

// absolute and bare turn a name into the library's form, with a final dot, and into ours. The root is
// "." in both.
func absolute(name string) string { return dns.Fqdn(name) }

func bare(name string) string {
	if name = strings.ToLower(name); name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// unescape undoes the zone file notation in which the library keeps character strings: a backslash
// before a byte, or before three digits.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	raw := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			raw = append(raw, s[i])
			continue
		}
		i++
		if i+2 < len(s) && digit(s[i]) && digit(s[i+1]) && digit(s[i+2]) {
			raw = append(raw, (s[i]-'0')*100+(s[i+1]-'0')*10+s[i+2]-'0')
			i += 2
			continue
		}
		raw = append(raw, s[i])
	}
	return string(raw)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
