package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"
)

// mailServer is an SMTP server that keeps nothing and refuses two recipients.
type mailServer struct {
	*smtp.Server
	port     string
	accepted atomic.Int64 // messages
	done     sync.WaitGroup
}

func startMailServer() (*mailServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &mailServer{}
	_, m.port, _ = net.SplitHostPort(l.Addr().String())
	m.Server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{server: m}, nil }))
	m.Domain = "mail.test"
	m.done.Go(func() { m.Serve(l) })
	return m, nil
}

func (m *mailServer) stop() {
	m.Close()
	m.done.Wait()
}

type mailSession struct{ server *mailServer }

func (*mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (*mailSession) Reset()                               {}
func (*mailSession) Logout() error                        { return nil }

func (*mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch user, _, _ := strings.Cut(to, "@"); user {
	case "busy":
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "Greylisted, try again later"}
	case "nobody":
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	}
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	s.server.accepted.Add(1)
	return nil
}

// startNameServer serves one MX record and the address that it leads to.
func startNameServer() (address string, stop func(), err error) {
	var records = map[dns.Question]string{
		{Name: "mx.test.", Qtype: dns.TypeMX, Qclass: dns.ClassINET}:  "mx.test. 60 IN MX 10 mail.test.",
		{Name: "mail.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}: "mail.test. 60 IN A 127.0.0.1",
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		if text, ok := records[q.Question[0]]; ok {
			if rr, err := dns.NewRR(text); err == nil {
				answer.Answer = append(answer.Answer, rr)
			}
		}
		w.WriteMsg(answer)
	})}
	var done sync.WaitGroup
	ready := make(chan struct{})
	server.NotifyStartedFunc = func() { close(ready) }
	done.Go(func() { server.ActivateAndServe() })
	<-ready
	return conn.LocalAddr().String(), func() { server.Shutdown(); done.Wait() }, nil
}

// startWebhook takes JSON posts and counts them; two recipients get an error status.
func startWebhook(received *atomic.Int64) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var post struct{ ID, From, To, Content string }
		if err := json.NewDecoder(r.Body).Decode(&post); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		switch user, _, _ := strings.Cut(post.To, "@"); user {
		case "busy":
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "come back later")
		case "nobody":
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "no such hook")
		default:
			received.Add(1)
			fmt.Fprintf(w, "took %d bytes", len(post.Content))
		}
	}))
}

var errUnexpected = errors.New("the outcomes are not the expected ones")
