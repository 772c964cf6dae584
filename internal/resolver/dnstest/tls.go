package dnstest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"

	"github.com/miekg/dns"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// ListenTLS makes the server answer over TLS too (RFC 7858), on a free port of 127.0.0.1, and returns its
// address. The config has the certificate.
func (s *Server) ListenTLS(config *tls.Config) (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.tls = append(s.tls, listener)
	s.mu.Unlock()
	s.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serveTLS(tls.Server(conn, config)) })
		}
	})
	return listener.Addr().String(), nil
}

// DialTLS connects to the server within the process, for the Dial of a client that speaks TLS over the
// connection. It works with virtual time, whether the server listens or not. The server's end is closed
// when the client closes its own, and answers in any order.
func (s *Server) DialTLS(config *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		client, server := smtptest.Pipe()
		go s.serveTLS(tls.Server(server, config))
		return client, nil
	}
}

// serveTLS answers what comes over conn until it ends.
func (s *Server) serveTLS(conn *tls.Conn) {
	var answers sync.WaitGroup
	defer answers.Wait()
	ended := make(chan struct{})
	defer close(ended)
	answers.Go(func() {
		select {
		case <-s.stop:
		case <-ended:
		}
		conn.NetConn().Close()
	})

	var writing sync.Mutex
	sent := 0
	send := func(packet []byte) {
		writing.Lock()
		defer writing.Unlock()
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...))
		s.mu.Lock()
		limit := s.conduct.hangUp
		s.mu.Unlock()
		if sent++; limit > 0 && sent >= limit {
			conn.Close()
		}
	}
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint16(size[:]))
		query := new(dns.Msg)
		if _, err := io.ReadFull(conn, packet); err != nil || query.Unpack(packet) != nil {
			return
		}
		answers.Go(func() { s.respond("tls", query, ended, send) })
	}
}
