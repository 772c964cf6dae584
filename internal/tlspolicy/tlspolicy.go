// Package tlspolicy decides what TLS one host has to offer before it gets a message: the one table of what the
// operator, the domain and the message ask for. It asks nobody and opens nothing.
//
// The strictest of them wins, with three exceptions. A policy of the domain that says "testing" asks for
// nothing that could stop mail. DANE takes the place of MTA-STS where it has usable records (RFC 8461 section
// 2). And a message that says that it does not need TLS (RFC 8689 section 5) does without whatever only the
// domain asks for.
package tlspolicy

// Mode says when TLS is used, and whether the peer has to prove who it is. The zero value is what an operator
// who says nothing gets.
type Mode int

const (
	// Opportunistic uses TLS where it is offered, and then the certificate has to be good.
	Opportunistic Mode = iota
	// Disabled never uses TLS.
	Disabled
	// OpportunisticInsecure uses TLS where it is offered, with any certificate.
	OpportunisticInsecure
	// Required needs TLS and a good certificate.
	Required
	// RequiredInsecure needs TLS, with any certificate.
	RequiredInsecure
)

var names = [...]string{"Opportunistic", "Disabled", "OpportunisticInsecure", "Required", "RequiredInsecure"}

// String is the mode as enable_tls names it.
func (m Mode) String() string { return names[m] }

// IsRequired tells whether nothing may be sent in clear.
func (m Mode) IsRequired() bool { return m == Required || m == RequiredInsecure }

// DANE is what was found out about a host's TLSA records (RFC 7672).
type DANE int

const (
	// NotAsked: nobody looked.
	NotAsked DANE = iota
	// None: they do not apply, or there are none, as far as can be known: the host has no say.
	None
	// Unusable: there are records and none is usable: TLS is required, and any certificate will do (RFC 7672
	// section 2.2).
	Unusable
	// Usable: the certificate has to match them.
	Usable
	// Unknown: that could not be found out, and nothing may be sent to the host until it is.
	Unknown
)

// STS is the mode of the domain's MTA-STS policy (RFC 8461).
type STS int

const (
	// NoSTS: there is no policy, or it says "none".
	NoSTS STS = iota
	// Testing asks for TLS where it is offered, with any certificate.
	Testing
	// Enforce requires TLS and a certificate that is good for the host.
	Enforce
)

// Facts are what the decision depends on.
type Facts struct {
	// Configured is the operator's enable_tls.
	Configured Mode
	DANE       DANE
	STS        STS
	// RequireTLS: the message must not go in clear, nor to a peer that is not known (RFC 8689 section 4).
	RequireTLS bool
	// Vouched: the choice of the host is beyond doubt: by DNSSEC, or by the operator who named it.
	Vouched bool
	// Optional: the message is to be delivered even where TLS is not to be had (RFC 8689 section 5). A message
	// that requires TLS is not optional.
	Optional bool
}

// By says what a rule comes from.
type By string

const (
	ByConfig     By = "enable_tls"   // the operator
	ByDANE       By = "dane"         // the host's TLSA records
	BySTS        By = "mta-sts"      // the domain's policy
	ByRequireTLS By = "requiretls"   // the message, which requires it
	ByOptional   By = "tls-required" // the message, which says "TLS-Required: No"
)

// Rule is the decision.
type Rule struct {
	Mode Mode
	By   By
	// Records: the certificate has to match the host's TLSA records, and nothing else.
	Records bool
	// Refuse says why nothing may be sent to the host; empty: it may.
	Refuse Refusal
}

// Refusal is why nothing may be sent to a host.
type Refusal string

const (
	// DANEUnknown: try again later.
	DANEUnknown Refusal = "its TLSA records could not be looked up"
	// NotVouched: a message that requires TLS goes to no host whose name anybody on the way could have given.
	NotVouched Refusal = "REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the choice of this host"
)

// Decide decides.
func Decide(f Facts) Rule {
	if f.Optional && !f.RequireTLS {
		if f.Configured.IsRequired() || f.Configured == Disabled {
			return Rule{Mode: f.Configured, By: ByConfig}
		}
		return Rule{Mode: OpportunisticInsecure, By: ByOptional}
	}
	rule := byDomain(f)
	if !f.RequireTLS || rule.Refuse != "" {
		return rule
	}
	if !f.Vouched && f.STS != Enforce && !rule.Records {
		rule.Refuse = NotVouched
		return rule
	}
	if rule.Mode != Required {
		rule.Mode, rule.By = Required, ByRequireTLS
	}
	return rule
}

// byDomain weighs what the domain asks for against what the operator does.
func byDomain(f Facts) Rule {
	switch {
	case f.DANE == Unknown:
		return Rule{Mode: Required, By: ByDANE, Refuse: DANEUnknown}
	case f.DANE == Usable:
		return Rule{Mode: Required, By: ByDANE, Records: true}
	case f.STS == Enforce:
		return Rule{Mode: Required, By: BySTS}
	case f.Configured == Required:
		return Rule{Mode: Required, By: ByConfig}
	case f.DANE == Unusable:
		return Rule{Mode: RequiredInsecure, By: ByDANE}
	case f.Configured == RequiredInsecure:
		return Rule{Mode: RequiredInsecure, By: ByConfig}
	case f.STS == Testing:
		return Rule{Mode: OpportunisticInsecure, By: BySTS}
	}
	return Rule{Mode: f.Configured, By: ByConfig}
}
