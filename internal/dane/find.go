package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// Lookup asks one question of a resolver that validates DNSSEC, or that is told by one. The answers are
// those of [resolver.Client.Lookup]; what is missing in them is taken as the worse.
type Lookup func(ctx context.Context, name string, t resolver.Type) resolver.Answer

// Host is a server that mail may go to, and how it was found. Names are A-labels, with or without a final
// dot.
type Host struct {
	// Name is as the MX record or the configuration has it.
	Name string
	// Port is the one that will be connected to. It must not be zero.
	Port uint16
	// Secure: the choice of this host was validated, as MX records or as their absence, or its being
	// configured is as good as that.
	Secure bool
	// Addresses are the answers that the addresses come from, of one type or of both. An address that is
	// configured as secure is an answer with Result Records and Secure set. There must be at least one.
	Addresses []resolver.Answer

	// NextHop is the domain whose MX records, or whose lack of them, led to this host, and
	// NextHopExpanded the name at the end of its CNAMEs. Both are empty for a host that was configured by
	// its own name.
	NextHop, NextHopExpanded string
}

var (
	errNoName      = errors.New("the host has no name")
	errNoPort      = errors.New("the port is missing")
	errNoAddresses = errors.New("there is no answer to tell whether its addresses are secure")
	errNoRecords   = errors.New("an answer of TLSA records that has none")
)

// Find asks for the policy of a host, with at most two questions, one after the other, and none that RFC
// 7672 section 2.2.2 says to leave unasked: servers of zones that are not signed often fail on TLSA
// questions, and their mail must not wait for it.
func Find(ctx context.Context, lookup Lookup, host Host) Policy {
	host.Name = canonical(host.Name)
	if literal(host.Name) || !host.Secure {
		return Policy{Status: NotApplicable}
	}
	bases, err := host.bases(ctx, lookup)
	if err != nil {
		return Policy{Err: fmt.Errorf("DANE of %q: %w", host.Name, err)}
	}
	if len(bases) == 0 {
		return Policy{Status: InsecureChain}
	}
	for _, base := range bases {
		records, err := secureRecords(ctx, lookup, "_"+strconv.Itoa(int(host.Port))+"._tcp."+base)
		if err != nil {
			return Policy{Err: fmt.Errorf("DANE of %q: %w", host.Name, err)}
		}
		if len(records) > 0 {
			return host.policy(base, records)
		}
	}
	return Policy{Status: None}
}

// policy is what secure records at base amount to. That they are unusable is no reason to go on to the next
// candidate: the base domain is where secure records are (RFC 7672 section 2.2.3).
func (h *Host) policy(base string, records []resolver.TLSA) Policy {
	usable, err := Usable(records)
	if len(usable) == 0 {
		return Policy{Status: Unusable, Base: base, Err: fmt.Errorf("DANE of %q: %w", h.Name, err)}
	}
	return Policy{Status: OK, Records: usable, Base: base, Names: h.names(base)}
}

// bases returns the candidates for the TLSA base domain in the order of RFC 7672 section 2.2.3; none if the
// chain to the host's addresses is insecure.
func (h *Host) bases(ctx context.Context, lookup Lookup) ([]string, error) {
	switch {
	case h.Name == "":
		return nil, errNoName
	case h.Port == 0:
		return nil, errNoPort
	case len(h.Addresses) == 0:
		return nil, errNoAddresses
	}
	if i := slices.IndexFunc(h.Addresses, validated); i >= 0 {
		expanded := canonical(h.Addresses[i].Name)
		if expanded == "" || expanded == h.Name {
			return []string{h.Name}, nil
		}
		return []string{expanded, h.Name}, nil
	}
	if err := h.broken(); err != nil {
		return nil, err
	}
	if !h.alias() {
		return nil, nil
	}
	// The addresses are insecure, but perhaps only the last part of the way to them: an alias in a signed
	// zone may have TLSA records of its own (RFC 7672 section 2.2.2).
	answer := lookup(ctx, h.Name, resolver.TypeCNAME)
	switch answer.Result {
	case resolver.Records:
		if answer.Secure {
			return []string{h.Name}, nil
		}
		return nil, nil
	case resolver.NoData, resolver.NXDomain:
		return nil, nil
	}
	return nil, unanswered("CNAME of "+strconv.Quote(h.Name), answer)
}

// validated is satisfied with an answer for one of two types, be it that there are none of that type: both
// have the same owner, and are secure or insecure together.
func validated(a resolver.Answer) bool {
	return a.Secure && (a.Result == resolver.Records || a.Result == resolver.NoData)
}

// broken says why the answers for addresses prove nothing: none of them is one, or one is forged. A
// failure for one type of two is no verdict on the other.
func (h *Host) broken() error {
	proven := false
	for _, a := range h.Addresses {
		switch a.Result {
		case resolver.Records, resolver.NoData, resolver.NXDomain:
			proven = true
		case resolver.Bogus:
			return unanswered("addresses", a)
		}
	}
	if !proven {
		return unanswered("addresses", h.Addresses[0])
	}
	return nil
}

// alias tells whether the host's name may be an alias, as far as insecure answers tell. An answer for the
// name itself can be relied on to have met no CNAME: were the name in a signed zone, a false one would be
// bogus.
func (h *Host) alias() bool {
	return !slices.ContainsFunc(h.Addresses, func(a resolver.Answer) bool {
		return a.Result == resolver.Records && canonical(a.Name) == h.Name
	})
}

// secureRecords returns the TLSA records of a name; none if it has none or DNSSEC does not vouch for
// them. An answer through CNAMEs is secure only if all of them are.
func secureRecords(ctx context.Context, lookup Lookup, name string) ([]resolver.TLSA, error) {
	answer := lookup(ctx, name, resolver.TypeTLSA)
	switch answer.Result {
	case resolver.Records:
		if !answer.Secure {
			return nil, nil
		}
		if len(answer.TLSA) == 0 {
			return nil, fmt.Errorf("TLSA of %q: %w", name, errNoRecords)
		}
		return answer.TLSA, nil
	case resolver.NoData, resolver.NXDomain:
		return nil, nil
	}
	return nil, unanswered("TLSA of "+strconv.Quote(name), answer)
}

// unanswered is why a question has no answer. The resolver's own error names the question.
func unanswered(question string, a resolver.Answer) error {
	if a.Err != nil {
		return fmt.Errorf("%v: %w", a.Result, a.Err)
	}
	return fmt.Errorf("%s: %v", question, a.Result)
}

// names returns the reference identifiers (RFC 7672 section 3.2.2). The name of an MX host that is an
// alias is none of them if the records are found at its target.
func (h *Host) names(base string) []string {
	nextHop := h.NextHop
	if nextHop == "" { // the host is what was configured: no MX records were used
		nextHop = h.Name
	}
	names := []string{base}
	for _, name := range []string{canonical(nextHop), canonical(h.NextHopExpanded)} {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func literal(name string) bool {
	if strings.HasPrefix(name, "[") {
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
