package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// peer is an SMTP server on loopback that keeps what it accepts. It refuses recipients by their local
// part: "permanent" and "transient".
type peer struct {
	addr     string
	accepted func() // called for each accepted message, if not nil

	mu       sync.Mutex
	messages []received
	sessions int
}

type received struct {
	from    string
	to      []string
	content string
}

func newPeer(t *testing.T, configure ...func(*peer, *smtp.Server)) *peer {
	t.Helper()
	p := &peer{}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sessions++
		return &peerSession{peer: p}, nil
	}))
	server.Domain = "mx.example.com"
	server.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are the point of some tests
	for _, f := range configure {
		f(p, server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		l.Close() // Shutdown knows it only once Serve has begun
		// Close would race with what the server still makes of a connection that was cut.
		server.Shutdown(context.Background())
		serving.Wait()
	})
	return p
}

func (p *peer) port() string {
	_, port, _ := net.SplitHostPort(p.addr)
	return port
}

func (p *peer) inbox() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages
}

// config is a queue config that sends everything to the peer, by a name for its certificate.
func (p *peer) config() string {
	return fmt.Sprintf(`{"protocol":{"smtp":{"mx_list":[{"name":"mx.example.com","addr":%q}]}}}`, p.addr)
}

type peerSession struct {
	peer    *peer
	message received
}

func (s *peerSession) Mail(from string, _ *smtp.MailOptions) error {
	s.message = received{from: from}
	return nil
}

func (s *peerSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch local, _, _ := strings.Cut(to, "@"); local {
	case "permanent":
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	case "transient":
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "mailbox is busy"}
	}
	s.message.to = append(s.message.to, to)
	return nil
}

func (s *peerSession) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.message.content = string(content)
	s.peer.mu.Lock()
	s.peer.messages = append(s.peer.messages, s.message)
	s.peer.mu.Unlock()
	if s.peer.accepted != nil {
		s.peer.accepted()
	}
	return nil
}

func (s *peerSession) Reset()        {}
func (s *peerSession) Logout() error { return nil }

// withTLS lets a peer offer STARTTLS, and returns the file of roots that trusts it.
func withTLS(t *testing.T) (configure func(*peer, *smtp.Server), roots string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.com"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	roots = write(t, "roots.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return func(_ *peer, s *smtp.Server) {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}, roots
}

// write makes a file in a folder of the test's own.
func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// brokenWriter is a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }
