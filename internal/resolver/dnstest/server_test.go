package dnstest_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

const zone = `
test. SOA ns.test. hostmaster.test. 1 3600 600 86400 60
a.test. A 192.0.2.1
deep.below.test. A 192.0.2.2
*.wild.test. A 192.0.2.3
there.wild.test. TXT x
`

func ask(t *testing.T, conn net.Conn, name string, typ uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.SetEdns0(1232, false)
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	answer, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestZone(t *testing.T) {
	s := dnstest.Start(t, zone)
	for _, test := range []struct {
		name           string
		typ            uint16
		rcode, records int
		soa            bool
	}{
		{"a.test.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"A.tesT.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"a.test.", dns.TypeMX, dns.RcodeSuccess, 0, true},
		{"below.test.", dns.TypeA, dns.RcodeSuccess, 0, true},
		{"b.test.", dns.TypeA, dns.RcodeNameError, 0, true},
		{"x.wild.test.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"y.x.wild.test.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"x.wild.test.", dns.TypeMX, dns.RcodeSuccess, 0, true},
		{"there.wild.test.", dns.TypeA, dns.RcodeSuccess, 0, true},
		{"x.there.wild.test.", dns.TypeA, dns.RcodeNameError, 0, true},
		{"other.", dns.TypeA, dns.RcodeNameError, 0, false},
	} {
		for _, network := range []string{"udp", "tcp"} {
			conn, err := net.Dial(network, s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			m := ask(t, conn, test.name, test.typ)
			conn.Close()
			if m.Rcode != test.rcode || len(m.Answer) != test.records || (len(m.Ns) == 1) != test.soa {
				t.Errorf("%s:\n%v", test.name, m)
			}
			if len(m.Answer) > 0 && m.Answer[0].Header().Name != test.name && dns.CanonicalName(test.name) == test.name {
				t.Errorf("owner of %v", m.Answer[0])
			}
		}
	}
	if n := s.QueriesOver("udp", "A.test", "A"); n != 2 {
		t.Errorf("%d queries", n)
	}
	if n := s.Queries("a.test.", "MX"); n != 2 {
		t.Errorf("%d queries", n)
	}
	if err := s.SetZone("a.test. MX x"); err == nil {
		t.Error("half a record was taken")
	}
}

func TestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := dnstest.New(zone, dnstest.Delay(time.Hour), dnstest.Silent("silent.test"))
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"udp", "tcp4"} {
			conn, err := s.Dial(t.Context(), network, s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			for range 2 {
				if m := ask(t, conn, "a.test.", dns.TypeA); len(m.Answer) != 1 {
					t.Errorf("%v", m)
				}
			}
			if d := time.Since(begin); d != 2*time.Hour {
				t.Errorf("it took %v", d)
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			begin = time.Now()
			if _, err := conn.Read(make([]byte, 9)); err == nil || time.Since(begin) != time.Minute {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			var reader = make(chan error)
			conn.SetDeadline(time.Time{})
			go func() {
				_, err := conn.Read(make([]byte, 9))
				reader <- err
			}()
			synctest.Wait()
			conn.Close()
			if err := <-reader; err == nil {
				t.Error("a closed connection was read")
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Dial(ended, "udp", ""); err == nil {
			t.Error("dialled in a context that had ended")
		}
	})
}

func TestCloseDoesNotWaitForAnswers(t *testing.T) {
	s := dnstest.Start(t, zone, dnstest.Delay(time.Hour))
	conn, err := net.Dial("udp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetQuestion("a.test.", dns.TypeA)
	conn.Write(dnstest.Pack(m))
	for s.Total() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Close()
}

func TestSecure(t *testing.T) {
	s, err := dnstest.New("a.test. CNAME b.signed.test.\nb.signed.test. CNAME c.signed.test.\nc.signed.test. A 192.0.2.1", dnstest.Secure("signed.test"))
	if err != nil {
		t.Fatal(err)
	}
	var secure []string
	for _, name := range []string{"a.test.", "b.signed.test.", "c.signed.test.", "nx.signed.test.", "nx.test.", "unsigned.test."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		if s.Answer("udp", m).AuthenticatedData {
			t.Errorf("%s: the AD bit was not asked for", name)
		}
		m.AuthenticatedData = true
		if s.Answer("udp", m).AuthenticatedData {
			secure = append(secure, name)
		}
	}
	if want := []string{"b.signed.test.", "c.signed.test.", "nx.signed.test."}; !slices.Equal(secure, want) {
		t.Errorf("secure: %v", secure)
	}
}
