package dane

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// zone answers questions, such as "TLSA _25._tcp.mx.example.com", and keeps them. Others are not expected.
type zone struct {
	t       *testing.T
	answers map[string]resolver.Answer
	asked   []string
}

func (z *zone) lookup(_ context.Context, name string, t resolver.Type) resolver.Answer {
	question := t.String() + " " + name
	z.asked = append(z.asked, question)
	answer, ok := z.answers[question]
	if !ok {
		z.t.Errorf("%s was not to be asked", question)
	}
	return answer
}

var (
	errServer = errors.New("SERVFAIL")
	good      = resolver.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 32)}
	short     = resolver.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 3)}
	public    = resolver.TLSA{Usage: 1, Selector: 1, MatchingType: 1, Data: make([]byte, 32)}
)

// The answers of the tests. A name at the end of CNAMEs is given where it counts.
var (
	failed  = resolver.Answer{Result: resolver.TempFail, Name: "mx.example.com", Err: &resolver.Error{Name: "x", Err: errServer}}
	silence = resolver.Answer{}
	forged  = resolver.Answer{Result: resolver.Bogus, Name: "mx.example.com", Err: &resolver.Error{Name: "x", Err: errServer}}
	noData  = resolver.Answer{Result: resolver.NoData, Secure: true}
	noName  = resolver.Answer{Result: resolver.NXDomain, Secure: true}
	unproof = resolver.Answer{Result: resolver.NoData}
	aliased = resolver.Answer{Result: resolver.Records, CNAME: "host.example.net"}
)

func secure(a resolver.Answer) resolver.Answer { a.Secure = true; return a }

func tlsaAnswer(records ...resolver.TLSA) resolver.Answer {
	return resolver.Answer{Result: resolver.Records, TLSA: records}
}

func addressed(name string) resolver.Answer {
	return resolver.Answer{Result: resolver.Records, Name: name, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
}

const (
	atHost   = "TLSA _25._tcp.mx.example.com"
	atTarget = "TLSA _25._tcp.host.example.net"
	cname    = "CNAME mx.example.com"
)

func TestFind(t *testing.T) {
	plain, target := addressed("mx.example.com"), addressed("host.example.net")
	for _, test := range []struct {
		name      string
		addresses []resolver.Answer
		answers   map[string]resolver.Answer
		asked     []string
		want      Status
		base      string
	}{
		// The host has addresses of its own.
		{"secure, records", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: secure(tlsaAnswer(good))}, []string{atHost}, OK, "mx.example.com"},
		{"secure, some records usable", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: secure(tlsaAnswer(short, good, public))}, []string{atHost}, OK, "mx.example.com"},
		{"secure, no record usable", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: secure(tlsaAnswer(short, public))}, []string{atHost}, Unusable, "mx.example.com"},
		{"secure, records not validated", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: tlsaAnswer(good)}, []string{atHost}, None, ""},
		{"secure, no data", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: noData}, []string{atHost}, None, ""},
		{"secure, no such name", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: noName}, []string{atHost}, None, ""},
		{"secure, absence not validated", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: unproof}, []string{atHost}, None, ""},
		{"secure, records behind a CNAME of their own", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: {Result: resolver.Records, Secure: true, Name: "_dane.example.org", TLSA: []resolver.TLSA{good}}},
			[]string{atHost}, OK, "mx.example.com"},
		{"secure, a name too long for the labels in front", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: {Result: resolver.NXDomain, Err: resolver.ErrName}}, []string{atHost}, None, ""},
		{"secure, SERVFAIL", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: failed}, []string{atHost}, TempFail, ""},
		{"secure, bogus", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: forged}, []string{atHost}, TempFail, ""},
		{"secure, an answer without an error", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: silence}, []string{atHost}, TempFail, ""},
		{"secure, an answer of no known kind", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: {Result: 99, Secure: true}}, []string{atHost}, TempFail, ""},
		{"secure, records that are none", []resolver.Answer{secure(plain)},
			map[string]resolver.Answer{atHost: secure(tlsaAnswer())}, []string{atHost}, TempFail, ""},
		{"secure, the answer has no name", []resolver.Answer{secure(addressed(""))},
			map[string]resolver.Answer{atHost: secure(tlsaAnswer(good))}, []string{atHost}, OK, "mx.example.com"},

		// No TLSA question for hosts that are not signed, and no CNAME question where there is no CNAME.
		{"insecure", []resolver.Answer{plain}, nil, nil, InsecureChain, ""},
		{"insecure, of both types", []resolver.Answer{plain, plain}, nil, nil, InsecureChain, ""},
		{"insecure, the other type failed", []resolver.Answer{failed, plain}, nil, nil, InsecureChain, ""},
		{"insecure, the other type has none", []resolver.Answer{plain, unproof}, nil, nil, InsecureChain, ""},

		// One type of two.
		{"secure, the other type failed", []resolver.Answer{failed, secure(plain)},
			map[string]resolver.Answer{atHost: noData}, []string{atHost}, None, ""},
		{"secure, the other type bogus", []resolver.Answer{forged, secure(plain)},
			map[string]resolver.Answer{atHost: noData}, []string{atHost}, None, ""},
		{"secure, the other type has none", []resolver.Answer{noData, secure(plain)},
			map[string]resolver.Answer{atHost: noData}, []string{atHost}, None, ""},
		{"secure by what it does not have", []resolver.Answer{plain, secure(resolver.Answer{Result: resolver.NoData, Name: "mx.example.com"})},
			map[string]resolver.Answer{atHost: noData}, []string{atHost}, None, ""},
		{"secure, the other type insecure", []resolver.Answer{plain, secure(plain)},
			map[string]resolver.Answer{atHost: noData}, []string{atHost}, None, ""},
		{"insecure, the other type bogus", []resolver.Answer{plain, forged}, nil, nil, TempFail, ""},
		{"both failed", []resolver.Answer{failed, silence}, nil, nil, TempFail, ""},
		{"one failed", []resolver.Answer{failed}, nil, nil, TempFail, ""},
		{"one without an error", []resolver.Answer{silence}, nil, nil, TempFail, ""},
		{"one bogus", []resolver.Answer{forged}, nil, nil, TempFail, ""},
		{"no answer at all", nil, nil, nil, TempFail, ""},

		// The host is an alias, and all of the way to its addresses is secure.
		{"secure alias, records at the target", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: secure(tlsaAnswer(good))}, []string{atTarget}, OK, "host.example.net"},
		{"secure alias, unusable at the target", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: secure(tlsaAnswer(public))}, []string{atTarget}, Unusable, "host.example.net"},
		{"secure alias, none at the target", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: noName, atHost: secure(tlsaAnswer(good))},
			[]string{atTarget, atHost}, OK, "mx.example.com"},
		{"secure alias, not validated at the target", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: tlsaAnswer(good), atHost: secure(tlsaAnswer(good))},
			[]string{atTarget, atHost}, OK, "mx.example.com"},
		{"secure alias, none at the target, unusable at the host", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: noData, atHost: secure(tlsaAnswer(short))},
			[]string{atTarget, atHost}, Unusable, "mx.example.com"},
		{"secure alias, none anywhere", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: noData, atHost: noName}, []string{atTarget, atHost}, None, ""},
		{"secure alias, SERVFAIL at the target", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: failed}, []string{atTarget}, TempFail, ""},
		{"secure alias, bogus at the target", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: forged}, []string{atTarget}, TempFail, ""},
		{"secure alias, none at the target, SERVFAIL at the host", []resolver.Answer{secure(target)},
			map[string]resolver.Answer{atTarget: noData, atHost: failed}, []string{atTarget, atHost}, TempFail, ""},

		// The host is an alias, and not all of the way is secure: the first step of it may be.
		{"alias to an insecure host, secure itself, records", []resolver.Answer{target},
			map[string]resolver.Answer{cname: secure(aliased), atHost: secure(tlsaAnswer(good))},
			[]string{cname, atHost}, OK, "mx.example.com"},
		{"alias to an insecure host, secure itself, unusable", []resolver.Answer{target},
			map[string]resolver.Answer{cname: secure(aliased), atHost: secure(tlsaAnswer(short))},
			[]string{cname, atHost}, Unusable, "mx.example.com"},
		{"alias to an insecure host, secure itself, none", []resolver.Answer{target},
			map[string]resolver.Answer{cname: secure(aliased), atHost: noData}, []string{cname, atHost}, None, ""},
		{"alias to an insecure host, secure itself, SERVFAIL", []resolver.Answer{target},
			map[string]resolver.Answer{cname: secure(aliased), atHost: failed}, []string{cname, atHost}, TempFail, ""},
		{"alias to an insecure host, secure itself, bogus", []resolver.Answer{target},
			map[string]resolver.Answer{cname: secure(aliased), atHost: forged}, []string{cname, atHost}, TempFail, ""},
		{"alias to an insecure host, insecure itself", []resolver.Answer{target},
			map[string]resolver.Answer{cname: aliased}, []string{cname}, InsecureChain, ""},
		{"alias to an insecure host, the other type failed", []resolver.Answer{failed, target},
			map[string]resolver.Answer{cname: secure(aliased), atHost: noData}, []string{cname, atHost}, None, ""},
		{"alias no more", []resolver.Answer{target},
			map[string]resolver.Answer{cname: noData}, []string{cname}, InsecureChain, ""},
		{"alias that does not exist", []resolver.Answer{target},
			map[string]resolver.Answer{cname: noName}, []string{cname}, InsecureChain, ""},
		{"alias of unknown security, SERVFAIL", []resolver.Answer{target},
			map[string]resolver.Answer{cname: failed}, []string{cname}, TempFail, ""},
		{"alias of unknown security, silence", []resolver.Answer{target},
			map[string]resolver.Answer{cname: silence}, []string{cname}, TempFail, ""},
		{"alias of unknown security, bogus", []resolver.Answer{target},
			map[string]resolver.Answer{cname: forged}, []string{cname}, TempFail, ""},
		{"perhaps an alias: the answer has no name", []resolver.Answer{addressed("")},
			map[string]resolver.Answer{cname: secure(aliased), atHost: noData}, []string{cname, atHost}, None, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			z := &zone{t: t, answers: test.answers}
			p := Find(t.Context(), z.lookup, Host{
				Name: "mx.example.com", Port: 25, Secure: true, Addresses: test.addresses, NextHop: "example.com"})
			if p.Status != test.want || p.Base != test.base {
				t.Errorf("%v at %q (%v), want %v at %q", p.Status, p.Base, p.Err, test.want, test.base)
			}
			if !slices.Equal(z.asked, test.asked) {
				t.Errorf("asked %q, want %q", z.asked, test.asked)
			}
			checkShape(t, p)
		})
	}
}

// checkShape looks for what a policy of that status must and must not have.
func checkShape(t *testing.T, p Policy) {
	t.Helper()
	if (len(p.Records) > 0) != (p.Status == OK) || (len(p.Names) > 0) != (p.Status == OK) ||
		(p.Base != "") != (p.Status == OK || p.Status == Unusable) ||
		(p.Err != nil) != (p.Status == TempFail || p.Status == Unusable) {
		t.Errorf("the policy does not hang together: %+v", p)
	}
	if p.Status == OK && p.Names[0] != p.Base {
		t.Errorf("the base domain %q is not the first of %q", p.Base, p.Names)
	}
	want := map[Status]string{TempFail: DNSSECInvalid, Unusable: TLSAInvalid}[p.Status]
	if got := p.FailureType(); got != want {
		t.Errorf("%v: failure type %q, want %q", p.Status, got, want)
	}
}

// What is not secure, or no name, or not told, asks nothing.
func TestFindWithoutQuestions(t *testing.T) {
	fine := Host{Name: "mx.example.com", Port: 25, Secure: true, Addresses: []resolver.Answer{secure(addressed("mx.example.com"))}}
	for _, test := range []struct {
		name   string
		change func(*Host)
		want   Status
	}{
		{"not chosen securely", func(h *Host) { h.Secure = false }, NotApplicable},
		{"the zero host", func(h *Host) { *h = Host{} }, NotApplicable},
		{"IPv4", func(h *Host) { h.Name = "192.0.2.1" }, NotApplicable},
		{"IPv6", func(h *Host) { h.Name = "2001:db8::1" }, NotApplicable},
		{"IPv4 literal", func(h *Host) { h.Name = "[192.0.2.1]" }, NotApplicable},
		{"IPv6 literal", func(h *Host) { h.Name = "[IPv6:2001:db8::1]" }, NotApplicable},
		{"literal without port and addresses", func(h *Host) { *h = Host{Name: "[192.0.2.1]", Secure: true} }, NotApplicable},
		{"no port", func(h *Host) { h.Port = 0 }, TempFail},
		{"no name", func(h *Host) { h.Name = "" }, TempFail},
		{"the root", func(h *Host) { h.Name = "." }, TempFail},
		{"no addresses", func(h *Host) { h.Addresses = nil }, TempFail},
	} {
		t.Run(test.name, func(t *testing.T) {
			host, z := fine, &zone{t: t}
			test.change(&host)
			p := Find(t.Context(), z.lookup, host)
			if p.Status != test.want || len(z.asked) > 0 {
				t.Errorf("%v (%v) after %q, want %v", p.Status, p.Err, z.asked, test.want)
			}
			checkShape(t, p)
		})
	}
}

// The questions have the port and the name as they are, but for case and the final dot.
func TestFindOwner(t *testing.T) {
	for _, test := range []struct {
		name  string
		port  uint16
		owner string
	}{
		{"mx.example.com", 25, "_25._tcp.mx.example.com"},
		{"MX.Example.com.", 2525, "_2525._tcp.mx.example.com"},
		{"xn--bcher-kva.example", 65535, "_65535._tcp.xn--bcher-kva.example"},
		{"mx_1.example.com", 25, "_25._tcp.mx_1.example.com"},
		{"localhost", 1, "_1._tcp.localhost"},
	} {
		z := &zone{t: t, answers: map[string]resolver.Answer{"TLSA " + test.owner: secure(tlsaAnswer(good))}}
		p := Find(t.Context(), z.lookup, Host{Name: test.name, Port: test.port, Secure: true,
			Addresses: []resolver.Answer{secure(addressed(strings.TrimSuffix(test.name, ".")))}})
		base := strings.SplitN(test.owner, ".", 3)[2]
		if p.Status != OK || p.Base != base || !slices.Equal(p.Names, []string{base}) {
			t.Errorf("%s: %+v", test.name, p)
		}
	}
}

func TestFindNames(t *testing.T) {
	for _, test := range []struct {
		name              string
		target            string
		nextHop, expanded string
		want              []string
	}{
		{"an MX host", "mx.example.com", "example.org", "", []string{"mx.example.com", "example.org"}},
		{"of a domain that is an alias", "mx.example.com", "example.org", "Example.info.",
			[]string{"mx.example.com", "example.org", "example.info"}},
		{"of a domain that is none", "mx.example.com", "example.org", "example.org", []string{"mx.example.com", "example.org"}},
		{"that is an alias", "host.example.net", "example.org", "", []string{"host.example.net", "example.org"}},
		{"the domain without MX records", "mx.example.com", "MX.Example.com.", "", []string{"mx.example.com"}},
		{"the domain without MX records, an alias", "host.example.net", "mx.example.com", "host.example.net",
			[]string{"host.example.net", "mx.example.com"}},
		{"a configured host", "mx.example.com", "", "", []string{"mx.example.com"}},
		{"a configured host, an alias", "host.example.net", "", "", []string{"host.example.net", "mx.example.com"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := func(context.Context, string, resolver.Type) resolver.Answer { return secure(tlsaAnswer(good)) }
			p := Find(t.Context(), answer, Host{Name: "mx.example.com", Port: 25, Secure: true,
				Addresses: []resolver.Answer{secure(addressed(test.target))}, NextHop: test.nextHop, NextHopExpanded: test.expanded})
			if !slices.Equal(p.Names, test.want) {
				t.Errorf("%q, want %q", p.Names, test.want)
			}
		})
	}
}

// An error names the host and leads to what the resolver said.
func TestFindErrors(t *testing.T) {
	host := Host{Name: "mx.example.com", Port: 25, Secure: true, Addresses: []resolver.Answer{secure(addressed("mx.example.com"))}}
	for _, test := range []struct {
		answer resolver.Answer
		is     error
		says   []string
	}{
		{failed, errServer, []string{`"mx.example.com"`, "TempFail", "SERVFAIL"}},
		{forged, errServer, []string{`"mx.example.com"`, "Bogus", "SERVFAIL"}},
		{silence, nil, []string{`"mx.example.com"`, "TLSA", `"_25._tcp.mx.example.com"`, "TempFail"}},
		{secure(tlsaAnswer()), errNoRecords, []string{"TLSA", `"_25._tcp.mx.example.com"`}},
		{secure(tlsaAnswer(short)), nil, []string{`"mx.example.com"`, "TLSA 3 1 1", "3 bytes instead of 32"}},
	} {
		p := Find(t.Context(), func(context.Context, string, resolver.Type) resolver.Answer { return test.answer }, host)
		if p.Err == nil || test.is != nil && !errors.Is(p.Err, test.is) {
			t.Errorf("%v is not %v", p.Err, test.is)
			continue
		}
		for _, part := range test.says {
			if !strings.Contains(p.Err.Error(), part) {
				t.Errorf("%q does not say %q", p.Err, part)
			}
		}
	}
}

func TestFindEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	lookup := func(ctx context.Context, name string, typ resolver.Type) resolver.Answer {
		return resolver.Answer{Err: &resolver.Error{Name: name, Type: typ, Err: ctx.Err()}}
	}
	p := Find(ctx, lookup, Host{Name: "mx.example.com", Port: 25, Secure: true,
		Addresses: []resolver.Answer{secure(addressed("mx.example.com"))}})
	if p.Status != TempFail || !errors.Is(p.Err, context.Canceled) {
		t.Errorf("%v: %v", p.Status, p.Err)
	}
}

func TestStatus(t *testing.T) {
	for status, want := range map[Status]struct {
		word   string
		silent bool
	}{
		TempFail: {"tempfail", false}, NotApplicable: {"not_applicable", true}, InsecureChain: {"insecure_chain", true},
		None: {"none", true}, Unusable: {"unusable", false}, OK: {"ok", false},
		OK + 1: {"Status(6)", false}, -1: {"Status(-1)", false},
	} {
		if status.String() != want.word || status.Silent() != want.silent {
			t.Errorf("%d: %v, %v", int(status), status, status.Silent())
		}
	}
	var zero Policy
	if zero.Status.Silent() || zero.FailureType() != DNSSECInvalid {
		t.Error("the zero policy lets mail go")
	}
}

// Every world that a zone can make: what the addresses say, signed or not, of an alias or not, times each
// kind of answer to each question. Whoever suppresses answers, but cannot sign false ones, never makes mail
// go in clear that would not have gone so before.
func TestSuppressedAnswersNeverOpen(t *testing.T) {
	type world struct{ a, aaaa, cname, target, host resolver.Answer }
	decide := func(w world) Status {
		return Find(t.Context(), func(_ context.Context, name string, typ resolver.Type) resolver.Answer {
			switch {
			case typ == resolver.TypeCNAME:
				return w.cname
			case name == strings.TrimPrefix(atTarget, "TLSA "):
				return w.target
			}
			return w.host
		}, Host{Name: "mx.example.com", Port: 25, Secure: true, Addresses: []resolver.Answer{w.a, w.aaaa}}).Status
	}
	tlsas := []resolver.Answer{
		secure(tlsaAnswer(good)), secure(tlsaAnswer(short)), tlsaAnswer(good), noData, noName, unproof, failed, forged,
	}
	worlds, closed := 0, 0
	for _, signed := range []bool{true, false} {
		for _, name := range []string{"mx.example.com", "host.example.net"} {
			for _, a := range addressAnswers(signed, name) {
				for _, aaaa := range addressAnswers(signed, name) {
					for _, cname := range []resolver.Answer{aliased, secure(aliased), noData, unproof, failed, forged} {
						for _, target := range tlsas {
							for _, host := range tlsas {
								w := world{a, aaaa, cname, target, host}
								worlds++
								before := decide(w)
								if before.Silent() {
									continue
								}
								closed++
								for _, s := range []resolver.Answer{failed, forged, silence} {
									for _, after := range []world{
										{s, aaaa, cname, target, host}, {a, s, cname, target, host}, {a, aaaa, s, target, host},
										{a, aaaa, cname, s, host}, {a, aaaa, cname, target, s}, {s, s, s, s, s},
									} {
										if got := decide(after); got.Silent() {
											t.Fatalf("%v became %v: %+v is now %+v", before, got, w, after)
										}
									}
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d worlds, %d of them closed", worlds, closed)
	if closed == 0 || closed == worlds {
		t.Error("the worlds are all alike")
	}
}

// From a resolver that does not validate nothing follows, and no TLSA record is asked for.
func TestWithoutValidation(t *testing.T) {
	for _, name := range []string{"mx.example.com", "host.example.net", ""} {
		for _, a := range addressAnswers(false, name) {
			for _, aaaa := range addressAnswers(false, name) {
				for _, cname := range []resolver.Answer{aliased, unproof, failed} {
					z := &zone{t: t, answers: map[string]resolver.Answer{"CNAME mx.example.com": cname}}
					p := Find(t.Context(), z.lookup, Host{Name: "mx.example.com", Port: 25, Secure: true, Addresses: []resolver.Answer{a, aaaa}})
					unknown := a.Result == resolver.TempFail && aaaa.Result == resolver.TempFail ||
						len(z.asked) > 0 && cname.Result == resolver.TempFail
					if want := map[bool]Status{true: TempFail, false: InsecureChain}[unknown]; p.Status != want {
						t.Errorf("%v, %v and %v of %q: %v, want %v", a.Result, aaaa.Result, cname.Result, name, p.Status, want)
					}
				}
			}
		}
	}
}

// addressAnswers are what questions for the addresses of a host can yield. Only what is signed can be bogus.
func addressAnswers(signed bool, name string) []resolver.Answer {
	some, none := addressed(name), resolver.Answer{Result: resolver.NoData, Name: name}
	if signed {
		return []resolver.Answer{secure(some), secure(none), failed, forged}
	}
	return []resolver.Answer{some, none, failed}
}
