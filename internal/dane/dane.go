// Package dane says what DANE (RFC 6698, RFC 7671) demands of a session with one SMTP server (RFC 7672),
// and whether the server's certificate meets it. It asks the DNS through a function that is given to it,
// and knows no queues, no SMTP and no other source of policy.
//
// All that the DNS can answer comes down to one of six words, see [Status]. What holds throughout: where
// DNSSEC is silent DANE has nothing to say, and mail goes as it would without it; where an answer is
// missing, broken or forged, mail waits. There is no way from the second to the first.
package dane

import (
	"crypto/tls"
	"strconv"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// Status is what the DNS says about TLS with a host.
type Status int

// A status is one of these.
const (
	// TempFail: what the DNS says could not be had, or is forged. The host must not be connected to (RFC
	// 7672 section 2.1.2). The zero value: a policy that nobody looked up allows nothing.
	TempFail Status = iota
	// NotApplicable: the host was not chosen securely, or is an address and no name.
	NotApplicable
	// InsecureChain: the host's addresses are not secure, and neither is an alias that leads to them.
	InsecureChain
	// None: there are securely no TLSA records, or only such as DNSSEC does not vouch for.
	None
	// Unusable: there are TLSA records, but none that SMTP can use. The session must be encrypted, and
	// nobody need be authenticated (RFC 7672 section 2.2).
	Unusable
	// OK: the session must be encrypted, and the server's certificate must match one of the records.
	OK
)

// String returns the word that hosts and people are shown.
func (s Status) String() string {
	switch s {
	case TempFail:
		return "tempfail"
	case NotApplicable:
		return "not_applicable"
	case InsecureChain:
		return "insecure_chain"
	case None:
		return "none"
	case Unusable:
		return "unusable"
	case OK:
		return "ok"
	}
	return "Status(" + strconv.Itoa(int(s)) + ")"
}

// Silent tells whether DANE has nothing to say, so that other policies decide, and mail may even go in
// clear if they allow it.
func (s Status) Silent() bool { return s == NotApplicable || s == InsecureChain || s == None }

// Failure types of RFC 8460 section 4.3 that concern DANE.
const (
	CertificateExpired      = "certificate-expired"
	CertificateHostMismatch = "certificate-host-mismatch"
	CertificateNotTrusted   = "certificate-not-trusted"
	ValidationFailure       = "validation-failure"
	TLSAInvalid             = "tlsa-invalid"
	DNSSECInvalid           = "dnssec-invalid"
)

// Policy is what holds for one host and port. It must not change while it is in use; then it is safe for
// concurrent use. The zero value forbids the host, see [TempFail].
type Policy struct {
	Status Status
	// Records are those to match, of OK only. Their data is shared with the resolver's cache.
	Records []resolver.TLSA
	// Base is the TLSA base domain (RFC 7672 section 2.2.3), where secure records were found, and what the
	// server is to be told by SNI (section 8.1). Of OK and Unusable; lower-case, without the final dot.
	Base string
	// Names are the reference identifiers, of which a certificate under DANE-TA(2) must carry one (RFC
	// 7672 section 3.2.2). Base is the first. Of OK only.
	Names []string
	// Err says why, for TempFail and Unusable; else nil.
	Err error
}

// FailureType is how a report (RFC 8460 section 4.3) calls what is wrong with the policy itself; empty if
// nothing is.
func (p *Policy) FailureType() string {
	switch {
	case p.Status == Unusable:
		return TLSAInvalid
	case p.Status == OK || p.Status.Silent():
		return ""
	}
	return DNSSECInvalid
}

// Apply makes config keep to the policy: it sets ServerName, InsecureSkipVerify (a certificate under DANE
// needs no public authority) and VerifyConnection, which then comes before the function that config may
// have there already. If DANE is silent, config is left alone. The clock is for the tests' sake; nil is
// time.Now.
//
// The errors of a handshake are a [*VerifyError] where the certificate is to blame. What matched is known
// from another call of [Policy.Verify].
func (p *Policy) Apply(config *tls.Config, clock func() time.Time) {
	if p.Status.Silent() {
		return
	}
	if clock == nil {
		clock = time.Now
	}
	next := config.VerifyConnection
	config.ServerName = p.Base
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if _, err := p.Verify(state.PeerCertificates, clock()); err != nil {
			return err
		}
		if next != nil {
			return next(state)
		}
		return nil
	}
}
