// Package dnstest is a small name server for tests: it serves records written as zone text, misbehaves
// where it is told to, and counts what it is asked.
package dnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Server answers with authority for everything, recursion included: what its zone does not have does not
// exist. Its methods are safe for concurrent use.
type Server struct {
	stop    chan struct{}
	running sync.WaitGroup
	udp     net.PacketConn
	tcp     net.Listener
	servers []*dns.Server
	tls     []net.Listener

	mu      sync.Mutex
	zone    zone
	conduct conduct
	counts  map[count]int
}

type count struct {
	name, network string
	typ           uint16
}

// New makes a server without sockets, which is reached by its Dial and DialTLS alone: for virtual time. It needs no
// Close.
//
// The zone is in the notation of RFC 1035 section 5.1. Names are absolute, a TTL that is not given is
// 300 seconds, and wildcards work. A SOA record is sent with every negative answer about the names at
// and below it.
func New(zone string, options ...Option) (*Server, error) {
	s := &Server{stop: make(chan struct{}), counts: make(map[count]int)}
	if err := s.SetZone(zone); err != nil {
		return nil, err
	}
	s.Set(options...)
	return s, nil
}

// Listen makes a server on a free port of 127.0.0.1, for UDP and TCP. It is to be closed.
func Listen(zone string, options ...Option) (*Server, error) {
	s, err := New(zone, options...)
	if err != nil {
		return nil, err
	}
	if err := s.bind(); err != nil {
		return nil, err
	}
	s.servers = []*dns.Server{
		{PacketConn: s.udp, Handler: s.handler("udp")},
		{Listener: s.tcp, Handler: s.handler("tcp")},
	}
	for _, server := range s.servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		failed := make(chan error, 1)
		s.running.Go(func() { failed <- server.ActivateAndServe() })
		select {
		case <-started:
		case err := <-failed:
			s.Close()
			return nil, fmt.Errorf("dnstest: %w", err)
		}
	}
	return s, nil
}

// Start is Listen for the time of a test.
func Start(tb testing.TB, zone string, options ...Option) *Server {
	tb.Helper()
	s, err := Listen(zone, options...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// bind finds a port that is free for UDP and TCP.
func (s *Server) bind() error {
	var errs []error
	for range 10 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			s.tcp, s.udp = tcp, udp
			return nil
		}
		tcp.Close()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close ends the server. It may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.mu.Unlock()
	for _, server := range s.servers {
		server.Shutdown() // fails only if it does not run
	}
	for _, listener := range s.tls {
		listener.Close()
	}
	for _, socket := range []interface{ Close() error }{s.udp, s.tcp} {
		if socket != nil {
			socket.Close()
		}
	}
	s.running.Wait()
}

// Addr is the address of a server that listens: "127.0.0.1:PORT". Without sockets it is an address that
// only Dial knows.
func (s *Server) Addr() string {
	if s.tcp == nil {
		return "192.0.2.53:53"
	}
	return s.tcp.Addr().String()
}

// SetZone replaces the records.
func (s *Server) SetZone(text string) error {
	z, err := parseZone(text)
	if err != nil {
		return fmt.Errorf("dnstest: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = z
	return nil
}

// Set adds options.
func (s *Server) Set(options ...Option) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, option := range options {
		option(&s.conduct)
	}
}

// Reset replaces all options.
func (s *Server) Reset(options ...Option) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conduct = conduct{}
	for _, option := range options {
		option(&s.conduct)
	}
}

// Queries is how many queries came for name and a type like "MX", over UDP, TCP and TLS; one that was
// repeated over TCP counts twice. It panics if there is no such type.
func (s *Server) Queries(name, typ string) int {
	return s.QueriesOver("udp", name, typ) + s.QueriesOver("tcp", name, typ) + s.QueriesOver("tls", name, typ)
}

// QueriesOver is Queries for one network: "udp", "tcp", or "tls".
func (s *Server) QueriesOver(network, name, typ string) int {
	t, ok := dns.StringToType[typ]
	if !ok {
		panic("dnstest: no record type " + typ)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[count{dns.CanonicalName(name), network, t}]
}

// Total is how many queries came.
func (s *Server) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, k := range s.counts {
		n += k
	}
	return n
}

func (s *Server) handler(network string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		s.respond(network, query, s.stop, func(packet []byte) { w.Write(packet) })
	}
}

// respond sends what query gets, after the delay, unless stop comes first.
func (s *Server) respond(network string, query *dns.Msg, stop <-chan struct{}, send func([]byte)) {
	if len(query.Question) != 1 {
		return
	}
	q := query.Question[0]
	s.mu.Lock()
	s.counts[count{dns.CanonicalName(q.Name), network, q.Qtype}]++
	conduct := s.conduct
	s.mu.Unlock()
	answer := s.Answer(network, query)

	if conduct.delay > 0 {
		timer := time.NewTimer(conduct.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stop:
			return
		}
	}
	if conduct.intercept != nil {
		for _, packet := range conduct.intercept(network, query, answer) {
			send(packet)
		}
		return
	}
	if answer != nil {
		send(Pack(answer))
	}
}

// Answer is the response to a query of one question, as the options say but for delay and interception;
// nil for silence. It counts as no query.
func (s *Server) Answer(network string, query *dns.Msg) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conduct.answer(network, query, s.zone)
}

// Pack is m on the wire. It panics if m cannot be packed.
func Pack(m *dns.Msg) []byte {
	packet, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("dnstest: %v", err))
	}
	return packet
}

// Dial connects to the server within the process, for the Dial of a client: network is "udp" or "tcp",
// each begun with these letters, the address does not matter. It works with virtual time, whether the
// server listens or not.
func (s *Server) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return newConn(s, strings.TrimRight(network, "46")), nil
}
