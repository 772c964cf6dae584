package resolver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// maxRecords is how many records an answer has at most. No mail goes to more hosts or addresses, and a
// message has room for thousands.
const maxRecords = 1000

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

// bogus tells whether the server says that DNSSEC validation failed. A SERVFAIL that does not say why is
// none: to ask again with checking disabled (CD) would tell a broken zone from a dead one, but doubles
// the queries about both, and mail waits for either.
func (e *serverError) bogus() bool {
	return e.rcode == dns.RcodeServerFailure && e.extended != nil && failedValidation(e.extended.InfoCode)
}

// failedValidation knows the codes of RFC 8914 sections 4.7 to 4.13 and those of its registry that came
// later. An indeterminate answer (5) is none of them: nothing was found to be wrong.
func failedValidation(code uint16) bool {
	switch code {
	case dns.ExtendedErrorCodeDNSBogus, dns.ExtendedErrorCodeSignatureExpired,
		dns.ExtendedErrorCodeSignatureNotYetValid, dns.ExtendedErrorCodeDNSKEYMissing,
		dns.ExtendedErrorCodeRRSIGsMissing, dns.ExtendedErrorCodeNoZoneKeyBitSet,
		dns.ExtendedErrorCodeNSECMissing, dns.ExtendedErrorCodeSignatureExpiredBeforeValid,
		dns.ExtendedErrorCodeUnsupportedNSEC3IterValue:
		return true
	}
	return false
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
	r := reply{answer: Answer{TTL: longestTTL, Secure: trustAD && m.AuthenticatedData}}
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
		if n++; n > maxRecords {
			return 0, fmt.Errorf("more than %d records", maxRecords)
		}
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
	case *dns.PTR:
		r.answer.PTR = append(r.answer.PTR, bare(rr.Ptr))
	default: // not one of the types that Lookup lets through
		return emptyRecord(rr)
	}
	return nil
}

// age lets the answer live no longer than rr.
func (r *reply) age(rr dns.RR) {
	r.answer.TTL = min(r.answer.TTL, recordTTL(rr.Header().Ttl))
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

// extendedError is the reason that the server gives. Of several the one counts that tells of a failed
// validation: next to it stands what else went wrong on the way there.
func extendedError(m *dns.Msg) (reason *dns.EDNS0_EDE) {
	opt := m.IsEdns0()
	if opt == nil {
		return nil
	}
	for _, option := range opt.Option {
		e, ok := option.(*dns.EDNS0_EDE)
		switch {
		case !ok:
		case failedValidation(e.InfoCode):
			return e
		case reason == nil:
			reason = e
		}
	}
	return reason
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
