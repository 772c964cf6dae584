package dnstest_test

import (
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

func TestTLS(t *testing.T) {
	ca := smtptest.CA(t)
	config := &tls.Config{RootCAs: ca.Pool, ServerName: "dns.test"}
	s := dnstest.Start(t, zone)
	address, err := s.ListenTLS(ca.Server(t, "dns.test"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if m := ask(t, conn, "a.test.", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("%v", m)
		}
	}
	if n := s.QueriesOver("tls", "a.test", "A"); n != 2 || s.Queries("a.test", "A") != 2 {
		t.Errorf("%d queries", n)
	}
	s.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("open after Close")
	}
	conn.Close()
	if conn, err := tls.Dial("tcp", address, config); err == nil {
		conn.Close()
		t.Error("somebody listens after Close")
	}
}

func TestDialTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := smtptest.CA(t)
		s, err := dnstest.New(zone, dnstest.Delay(time.Hour), dnstest.HangUp(2))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := s.DialTLS(ca.Server(t, "dns.test"))(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, &tls.Config{RootCAs: ca.Pool, ServerName: "dns.test"})
		begin := time.Now()
		for range 2 {
			if m := ask(t, conn, "a.test.", dns.TypeA); len(m.Answer) != 1 {
				t.Errorf("%v", m)
			}
		}
		if d := time.Since(begin); d != 2*time.Hour {
			t.Errorf("it took %v", d)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("open after two answers")
		}
		conn.Close()
	})
}
