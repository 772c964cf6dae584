package kumo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// DNS is what kumo.dns asks. It must be safe for concurrent use, and return when ctx ends. An error says
// that there is no answer; that there is nothing of the kind is an answer.
type DNS interface {
	// MX finds the mail exchangers of what a routing domain may be: a domain or an address in brackets,
	// with a port or without. A domain that does not exist is an error.
	MX(ctx context.Context, domain string) (MailExchangers, error)
	// Addrs finds the addresses of a host. The strategy is one of upstream's; "" is Ipv4AndIpv6.
	Addrs(ctx context.Context, host, strategy string) ([]netip.Addr, error)
	// TXT finds the TXT records of a name, each as one text of any bytes.
	TXT(ctx context.Context, name string) ([]string, error)
	// PTR finds the names that a name of in-addr.arpa or ip6.arpa points to, without their final dots.
	PTR(ctx context.Context, name string) ([]string, error)
}

// MailExchangers are where the mail of a domain goes, as kumo.dns.lookup_mx returns it.
type MailExchangers struct {
	// Domain is the domain as it was asked for, or the address in brackets.
	Domain string
	// Preferences are the hosts, best first.
	Preferences []Preference
	// Site is the name under which domains with the same hosts share their limits.
	Site string
	// Literal: it is an address. MX: there are MX records. Secure: DNSSEC vouches for the hosts.
	Literal, MX, Secure bool
	// MTASTS is the mode of the domain's MTA-STS policy: None, Testing or Enforce.
	MTASTS string
}

// Preference is the hosts that are equally good.
type Preference struct {
	Value uint16
	Hosts []string
}

// dnsTimeout is for one call of a function: a resolver has its own for each question, and a call of
// lookup_mx may have to fetch a policy.
const dnsTimeout = 30 * time.Second

// strategies are upstream's values of ip_lookup_strategy.
var strategies = []string{"Ipv4AndIpv6", "Ipv4Only", "Ipv6Only", "Ipv4ThenIpv6", "Ipv6ThenIpv4"}

func (m *module) dnsFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"lookup_mx":   m.lookupMX,
		"lookup_addr": m.lookupAddr,
		"lookup_txt":  m.lookupTXT,
		"lookup_ptr":  m.lookupPTR,
		"rbl_lookup":  m.lookupRBL,
		"ptr_host": func(L *lua.LState) int {
			L.Push(lua.LString(pointerName(checkIP(L))))
			return 1
		},
		"reverse_ip": func(L *lua.LState) int {
			L.Push(lua.LString(reversed(checkIP(L))))
			return 1
		},
	}
}

// resolver is the host's. The names of resolvers that policies define are not known: to ask another
// than the one that was named would be to answer another question.
func (m *module) resolver(L *lua.LState, function string, nameArg int) DNS {
	if name := L.OptString(nameArg, ""); name != "" {
		L.RaiseError("kumo.dns.%s: resolver %.100s is not defined: only the host's own is asked", function, name)
	}
	if m.options.DNS == nil {
		L.RaiseError("kumo.dns.%s: there is no resolver", function)
	}
	return m.options.DNS
}

// lookUp asks in the time that there is, and raises what goes wrong.
func lookUp[T any](L *lua.LState, function string, ask func(ctx context.Context) (T, error)) T {
	answer, err := outside(L, func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, dnsTimeout, &slowError{dnsTimeout})
		defer cancel()
		answer, err := ask(ctx)
		if err != nil && errors.Is(err, ctx.Err()) {
			err = context.Cause(ctx)
		}
		return answer, err
	})
	if err != nil {
		luastate.Raise(L, fmt.Errorf("kumo.dns.%s: %w", function, err))
	}
	return answer
}

// lookupMX is kumo.dns.lookup_mx(domain[, resolver]).
func (m *module) lookupMX(L *lua.LState) int {
	domain, dns := L.CheckString(1), m.resolver(L, "lookup_mx", 2)
	found := lookUp(L, "lookup_mx", func(ctx context.Context) (MailExchangers, error) { return dns.MX(ctx, domain) })
	hosts, byPreference := L.NewTable(), L.NewTable()
	for _, p := range found.Preferences {
		equals := textList(L, p.Hosts)
		equals.ForEach(func(_, host lua.LValue) { hosts.Append(host) })
		byPreference.RawSetInt(int(p.Value), equals)
	}
	result := L.CreateTable(0, 8)
	result.RawSetString("domain_name", lua.LString(found.Domain))
	result.RawSetString("hosts", hosts)
	result.RawSetString("site_name", lua.LString(found.Site))
	result.RawSetString("by_pref", byPreference)
	result.RawSetString("is_domain_literal", lua.LBool(found.Literal))
	result.RawSetString("is_secure", lua.LBool(found.Secure))
	result.RawSetString("is_mx", lua.LBool(found.MX))
	result.RawSetString("mta_sts", lua.LString(found.MTASTS))
	L.Push(result)
	return 1
}

// lookupAddr is kumo.dns.lookup_addr(name[, resolver[, strategy]]).
func (m *module) lookupAddr(L *lua.LState) int {
	name, strategy := L.CheckString(1), L.OptString(3, "")
	if strategy != "" && !slices.Contains(strategies, strategy) {
		L.ArgError(3, fmt.Sprintf("there is no strategy %.100q: want one of %s", strategy, strings.Join(strategies, ", ")))
	}
	given, isAddress, err := literal(name)
	switch {
	case err != nil:
		luastate.Raise(L, fmt.Errorf("kumo.dns.lookup_addr: %w", err))
	case isAddress:
		L.Push(textList(L, []string{given}))
		return 1
	}
	dns := m.resolver(L, "lookup_addr", 2)
	found := lookUp(L, "lookup_addr", func(ctx context.Context) ([]netip.Addr, error) { return dns.Addrs(ctx, name, strategy) })
	texts := make([]string, len(found))
	for i, ip := range found {
		texts[i] = ip.String()
	}
	L.Push(textList(L, texts))
	return 1
}

// literal is what stands for itself: an address, in brackets or not, or the path of a socket.
func literal(name string) (address string, ok bool, err error) {
	if strings.HasPrefix(name, "/") {
		return name, true, nil
	}
	inner, bracket := strings.CutPrefix(name, "[")
	if bracket {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return "", false, fmt.Errorf("malformed literal domain %.100q: no closing bracket", name)
		}
		if tag := "ipv6:"; len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag) {
			inner = inner[len(tag):]
		}
	}
	ip, err := netip.ParseAddr(inner)
	switch {
	case err == nil && ip.Zone() == "":
		return ip.String(), true, nil
	case bracket:
		return "", false, fmt.Errorf("invalid address: %.100q", inner)
	}
	return "", false, nil
}

// lookupTXT is kumo.dns.lookup_txt(name[, resolver]).
func (m *module) lookupTXT(L *lua.LState) int {
	name, dns := L.CheckString(1), m.resolver(L, "lookup_txt", 2)
	found := lookUp(L, "lookup_txt", func(ctx context.Context) ([]string, error) { return dns.TXT(ctx, name) })
	texts := make([]string, len(found))
	for i, text := range found {
		texts[i] = strings.ToValidUTF8(text, "\uFFFD")
	}
	L.Push(textList(L, texts))
	return 1
}

// lookupPTR is kumo.dns.lookup_ptr(ip[, resolver]).
func (m *module) lookupPTR(L *lua.LState) int {
	name, dns := pointerName(checkIP(L)), m.resolver(L, "lookup_ptr", 2)
	found := lookUp(L, "lookup_ptr", func(ctx context.Context) ([]string, error) { return dns.PTR(ctx, name) })
	names := make([]string, len(found))
	for i, name := range found {
		names[i] = strings.TrimSuffix(name, ".") + "."
	}
	L.Push(textList(L, names))
	return 1
}

// listing is what a block list says of an address.
type listing struct {
	listed bool
	answer netip.Addr
	reason string // empty if it says none
}

// lookupRBL is kumo.dns.rbl_lookup(ip, zone[, resolver]).
func (m *module) lookupRBL(L *lua.LState) int {
	ip, ok := hostAddress(L.CheckString(1))
	if !ok {
		L.ArgError(1, fmt.Sprintf("%.100q is not a valid IP address, with a port or without", L.CheckString(1)))
	}
	zone := strings.TrimSuffix(L.CheckString(2), ".")
	if zone == "" { // nothing is listed there, which is no answer
		L.ArgError(2, "the domain of a block list is missing")
	}
	name := reversed(ip.Unmap()) + "." + zone
	dns := m.resolver(L, "rbl_lookup", 3)
	found := lookUp(L, "rbl_lookup", func(ctx context.Context) (listing, error) { return listed(ctx, dns, name) })
	if !found.listed {
		L.Push(lua.LNil)
		L.Push(lua.LNil)
		return 2
	}
	L.Push(lua.LString(found.answer.String()))
	if found.reason == "" {
		L.Push(lua.LNil)
	} else {
		L.Push(lua.LString(found.reason))
	}
	return 2
}

// listed asks a block list. That it cannot say why is no error: the address is listed all the same.
func listed(ctx context.Context, dns DNS, name string) (listing, error) {
	answers, err := dns.Addrs(ctx, name, "")
	if err != nil || len(answers) == 0 {
		return listing{}, err
	}
	reasons, err := dns.TXT(ctx, name)
	if err != nil {
		reasons = nil
	}
	return listing{true, answers[0], strings.ToValidUTF8(strings.Join(reasons, ""), "\uFFFD")}, nil
}

// hostAddress reads 192.0.2.1, 192.0.2.1:25, 2001:db8::1, [2001:db8::1] and [2001:db8::1]:25.
func hostAddress(s string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr(), withPort.Addr().Zone() == ""
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		s, _ = strings.CutSuffix(inner, "]")
	}
	ip, err := netip.ParseAddr(s)
	return ip, err == nil && ip.Zone() == ""
}

func checkIP(L *lua.LState) netip.Addr {
	ip, err := netip.ParseAddr(L.CheckString(1))
	if err != nil || ip.Zone() != "" {
		L.ArgError(1, fmt.Sprintf("invalid IP address %.100q", L.CheckString(1)))
	}
	return ip
}

// pointerName is the name that has the PTR records of an address (RFC 1035 section 3.5, RFC 3596
// section 2.5).
func pointerName(ip netip.Addr) string {
	if ip.Is4() {
		return reversed(ip) + ".in-addr.arpa"
	}
	return reversed(ip) + ".ip6.arpa"
}

// reversed is the bytes of an IPv4 address, or the half bytes of an IPv6 address, from the last on.
func reversed(ip netip.Addr) string {
	var labels []string
	for _, b := range slices.Backward(ip.AsSlice()) {
		if ip.Is4() {
			labels = append(labels, fmt.Sprint(b))
		} else {
			labels = append(labels, fmt.Sprintf("%x.%x", b&0xf, b>>4))
		}
	}
	return strings.Join(labels, ".")
}

func textList(L *lua.LState, texts []string) *lua.LTable {
	list := L.CreateTable(len(texts), 0)
	for _, text := range texts {
		list.Append(lua.LString(text))
	}
	return list
}
