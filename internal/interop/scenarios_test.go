//go:build interop && linux

package interop

import (
	"github.com/mtadelivery/delivery/internal/resolver"
)

// scenarios are all that there are, for servers that run.
func scenarios(m *mailHosts) []*scenario {
	s := &stage{port: m.port}
	s.matching(m)
	s.useless(m)
	s.broken(m)
	s.insecure(m)
	s.aliases(m)
	return s.all
}

// matching are those whose DNS is all right: what the records say decides.
func (s *stage) matching(m *mailHosts) {
	self, other := m.self.identity.chain[0], lab.foreign.certificate
	between, root := m.intermediate.certificate, lab.trusted.certificate

	s.add("ee", "the server's key, by SHA-256", m.self, 1, 1, verifiedByDANE, tlsa(3, 1, 1, self))
	s.add("ee512", "the server's key, by SHA-512", m.self, 1, 1, verifiedByDANE, tlsa(3, 1, 2, self))
	s.add("eekey", "the server's key itself", m.self, 1, 1, verifiedByDANE, tlsa(3, 1, 0, self))
	s.add("eecert", "the server's certificate, by SHA-256", m.self, 1, 1, verifiedByDANE, tlsa(3, 0, 1, self))
	s.add("eewhole", "the server's certificate itself", m.self, 1, 1, verifiedByDANE, tlsa(3, 0, 0, self))
	s.add("ee12", "the server's key, TLS 1.2", m.tls12, 1, 1, verifiedByDANE, tlsa(3, 1, 1, m.tls12.identity.chain[0]))
	s.add("wrong", "another key", m.trusted, 1, 0, deferred, tlsa(3, 1, 1, other))
	s.add("rotated", "another key, and the server's", m.self, 2, 1, verifiedByDANE, tlsa(3, 1, 1, other), tlsa(3, 1, 1, self))
	s.add("mixed", "a usage that is of no use, and the server's key", m.self, 1, 1, verifiedByDANE,
		tlsa(1, 1, 1, other), tlsa(3, 1, 1, self))

	s.add("ta", "the key of the authority between", m.chained, 1, 1, verifiedByDANE, tlsa(2, 1, 1, between))
	s.add("tacert", "the certificate of the authority between", m.chained, 1, 1, verifiedByDANE, tlsa(2, 0, 1, between))
	s.add("taroot", "the key of an authority that is not sent (RFC 7671 section 5.2)", m.chained, 1, 0, deferred, tlsa(2, 1, 1, root))
	s.add("taorphan", "the key of the authority, whose certificate is not sent", m.orphan, 1, 0, deferred, tlsa(2, 1, 1, between))
	s.add("taleaf", "the server's key, as that of an authority", m.chained, 1, 0, deferred, tlsa(2, 1, 1, m.chained.identity.chain[0]))
	s.add("tawrong", "the key of another authority", m.chained, 1, 0, deferred, tlsa(2, 1, 1, other))
	s.add("taname", "the key of the authority, the certificate for another name", m.misnamed, 1, 1, deferred, tlsa(2, 1, 1, root))
	s.add("misnamed", "the key of the authority, the certificate for the domain (RFC 7672 section 3.2.2)", m.misnamed, 1, 1,
		verifiedByDANE, tlsa(2, 1, 1, root))
	s.add("taexpired", "the key of the authority, the certificate expired", m.expired, 1, 1, deferred, tlsa(2, 1, 1, root))

	for _, h := range m.all() {
		s.add(undecided(h), "no record, "+h.name, h, 0, 0, asEnableTLS)
	}
	s.add("eeplain", "a key, no STARTTLS", m.plain, 1, 0, deferred, tlsa(3, 1, 1, other))
	s.add("eebroken", "a key, and 454 to STARTTLS", m.broken, 1, 0, deferred, tlsa(3, 1, 1, other))
	s.add("ee11", "a key, and no version of TLS that is used today", m.tls11, 1, 0, deferred, tlsa(3, 1, 1, m.tls11.identity.chain[0]))

	sc := s.add("nomx", "the server's key, no MX", m.self, 1, 1, verifiedByDANE)
	sc.host = sc.domain
	sc.signed = "nomx A " + m.self.address + "\n" + s.records("nomx", tlsa(3, 1, 1, self))
	sc.facts = []fact{
		known(sc.domain, resolver.TypeMX, "NoData secure"),
		known(sc.domain, resolver.TypeA, "Records secure: "+m.self.address),
		s.tlsa(sc.domain, true, tlsa(3, 1, 1, self)),
	}
}

// undecided is the label of the domain whose mail goes to a server of which DNS says nothing more.
func undecided(h *mailHost) string { return "none-" + h.name }

// useless are those with records none of which can be used (RFC 7672 section 2.2).
func (s *stage) useless(m *mailHosts) {
	leaf := m.trusted.identity.chain[0]
	short := tlsa(3, 1, 1, leaf)[:len("3 1 1 ")+40]
	s.add("pkixee", "usage 1", m.self, 0, 0, notVerified, tlsa(1, 1, 1, leaf))
	s.add("pkixta", "usage 0", m.self, 0, 0, notVerified, tlsa(0, 0, 1, lab.trusted.certificate))
	s.add("selector", "selector 2", m.self, 0, 0, notVerified, "3 2 1"+tlsa(3, 1, 1, leaf)[5:])
	s.add("digest", "matching type 3", m.self, 0, 0, notVerified, "3 1 3"+tlsa(3, 1, 1, leaf)[5:])
	s.add("short", "half a digest", m.self, 0, 0, notVerified, short)
	s.add("pkixplain", "usage 1, no STARTTLS", m.plain, 0, 0, deferred, tlsa(1, 1, 1, leaf))
}

// broken are those where DNS gives no answer that counts.
func (s *stage) broken(m *mailHosts) {
	leaf := m.trusted.identity.chain[0]
	for _, f := range []struct {
		label, name string
		flaw        flaw
		want        []string
	}{
		{"forged", "a forged signature", forged, []string{"Bogus"}},
		{"outdated", "an outdated signature", outdated, []string{"Bogus"}},
		{"stripped", "no signature", stripped, []string{"TempFail", "Bogus"}},
	} {
		right := tlsa(3, 1, 1, leaf)
		sc := s.add("tlsa"+f.label, f.name+" of the TLSA record", m.trusted, 0, 0, deferred, right)
		owner := s.owner(sc.host)
		sc.facts[2] = known(owner, resolver.TypeTLSA, f.want...)
		sc.flaws = map[string]flaw{s.owner("mx-tlsa"+f.label) + " TLSA": f.flaw}

		sc = s.add("a"+f.label, f.name+" of the address", m.trusted, 0, 0, deferred, right)
		sc.facts[1] = known(sc.host, resolver.TypeA, f.want...)
		sc.flaws = map[string]flaw{"mx-a" + f.label + " A": f.flaw}

		sc = s.add("mx"+f.label, f.name+" of the MX record", m.trusted, 0, 0, deferred, right)
		sc.facts[0] = known(sc.domain, resolver.TypeMX, f.want...)
		sc.flaws = map[string]flaw{"mx" + f.label + " MX": f.flaw}
	}

	sc := s.add("absent", "a forged signature of the absence of TLSA records", m.trusted, 0, 0, deferred)
	sc.signed += "absent-next TXT x\n"
	sc.facts[2].want = []string{"Bogus"}
	sc.flaws = map[string]flaw{"mx-absent NSEC": forged}

	sc = s.add("lame", "no server that knows the TLSA record", m.trusted, 0, 0, deferred)
	sc.signed += "_tcp.mx-lame NS ns\n"
	sc.lame = "_tcp.mx-lame.signed.test."
	sc.facts[2].want = []string{"TempFail"}
}

// insecure are those where a part of the way to the records is not signed. There are records
// nevertheless, and they do not match.
func (s *stage) insecure(m *mailHosts) {
	wrong := tlsa(3, 1, 1, lab.foreign.certificate)

	sc := s.add("below", "a zone without a key below a signed one", m.trusted, 0, 0, asEnableTLS, wrong)
	sc.signed, sc.insecure = "", "dane MX 10 mx-dane\nmx-dane A "+m.trusted.address+"\n"+s.records("mx-dane", wrong)
	sc.domain, sc.host = "dane.insecure.signed.test", "mx-dane.insecure.signed.test"
	sc.facts = []fact{
		known(sc.domain, resolver.TypeMX, "Records: 10 "+sc.host),
		known(sc.host, resolver.TypeA, "Records: "+m.trusted.address),
		s.tlsa(sc.host, false, wrong),
	}

	sc = s.add("plain", "a zone without a key", m.trusted, 0, 0, asEnableTLS, wrong)
	sc.signed, sc.plain = "", "dane MX 10 mx-dane\nmx-dane A "+m.trusted.address+"\n"+s.records("mx-dane", wrong)
	sc.domain, sc.host = "dane.plain.test", "mx-dane.plain.test"
	sc.facts = []fact{
		known(sc.domain, resolver.TypeMX, "Records: 10 "+sc.host),
		known(sc.host, resolver.TypeA, "Records: "+m.trusted.address),
		s.tlsa(sc.host, false, wrong),
	}

	sc = s.add("named", "a domain without a key, a host with one", m.trusted, 0, 0, asEnableTLS, wrong)
	sc.plain = "named MX 10 mx-named.signed.test.\n"
	sc.domain = "named.plain.test"
	sc.facts[0] = known(sc.domain, resolver.TypeMX, "Records: 10 "+sc.host)

	sc = s.add("out", "a domain with a key, a host without one", m.trusted, 0, 0, asEnableTLS, wrong)
	sc.signed, sc.plain = "out MX 10 mx-out.plain.test.\n", "mx-out A "+m.trusted.address+"\n"+s.records("mx-out", wrong)
	sc.host = "mx-out.plain.test"
	sc.facts = []fact{
		known(sc.domain, resolver.TypeMX, "Records secure: 10 "+sc.host),
		known(sc.host, resolver.TypeA, "Records: "+m.trusted.address),
		s.tlsa(sc.host, false, wrong),
	}
}

// aliases are those where the MX host is an alias (RFC 7672 section 2.2.3): the records of the name that it
// leads to come first, if all the way there is signed, and then those of its own.
func (s *stage) aliases(m *mailHosts) {
	right, wrong := tlsa(3, 1, 1, m.self.identity.chain[0]), tlsa(3, 1, 1, lab.foreign.certificate)
	none := []string(nil)
	for _, a := range []struct {
		label, name        string
		at, own            []string // records at the name that the alias leads to, and at its own
		fromPlain, toPlain bool     // the alias, and what it leads to, are not signed
		usable, matches    int
		want               outcome
	}{
		{"led", "a record where an alias leads", []string{right}, none, false, false, 1, 1, verifiedByDANE},
		{"ledwrong", "a wrong record where an alias leads", []string{wrong}, none, false, false, 1, 0, deferred},
		{"own", "a record at an alias", none, []string{right}, false, false, 1, 1, verifiedByDANE},
		{"both", "a record where an alias leads, a wrong one at the alias", []string{right}, []string{wrong}, false, false, 1, 1, verifiedByDANE},
		{"bothwrong", "a wrong record where an alias leads, the right one at the alias", []string{wrong}, []string{right}, false, false, 1, 0, deferred},
		{"unled", "an alias, and no record", none, none, false, false, 0, 0, asEnableTLS},
		{"away", "a record at an alias that leads to a zone without a key", none, []string{right}, false, true, 1, 1, verifiedByDANE},
		{"awaywrong", "a wrong record there, the right one where it leads", []string{right}, []string{wrong}, false, true, 1, 0, deferred},
		{"awayled", "an alias that leads to a zone without a key, where a record is", []string{right}, none, false, true, 0, 0, asEnableTLS},
		{"back", "an alias in a zone without a key that leads to a record", []string{wrong}, none, true, false, 0, 0, asEnableTLS},
	} {
		sc := s.add(a.label, a.name, m.self, a.usable, a.matches, a.want)
		sc.signed = ""
		write := func(plain bool, text string) {
			if plain {
				sc.plain += text
			} else {
				sc.signed += text
			}
		}
		zoneOf := map[bool]string{false: ".signed.test", true: ".plain.test"}
		sc.host = "alias-" + a.label + zoneOf[a.fromPlain]
		led := "mx-" + a.label + zoneOf[a.toPlain]
		write(false, a.label+" MX 10 "+sc.host+".\n")
		write(a.fromPlain, sc.host+". CNAME "+led+".\n"+s.records(sc.host+".", a.own...))
		write(a.toPlain, led+". A "+sc.server.address+"\n"+s.records(led+".", a.at...))

		sc.facts = []fact{
			known(sc.domain, resolver.TypeMX, "Records secure: 10 "+sc.host),
			known(sc.host, resolver.TypeA, "Records"+secure(!a.fromPlain && !a.toPlain)+" at "+led+": "+sc.server.address),
			known(sc.host, resolver.TypeCNAME, "Records"+secure(!a.fromPlain)+": "+led),
			s.tlsa(led, !a.toPlain, a.at...),
			s.tlsa(sc.host, !a.fromPlain, a.own...),
		}
	}
}
