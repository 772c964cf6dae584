package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// meddled is the server's end of a connection on which somebody spoils STARTTLS, if how says so.
type meddled struct {
	net.Conn
	how  string
	mail *bool // set if the client begins to send mail in clear; may be nil
}

// Read looks for STARTTLS, and does to it what there is to be done.
func (m *meddled) Read(p []byte) (int, error) {
	for {
		n, err := m.Conn.Read(p)
		if m.mail != nil && bytes.Contains(p[:n], []byte("MAIL FROM:")) {
			*m.mail = true
		}
		if err != nil || !bytes.Equal(p[:n], []byte("STARTTLS\r\n")) {
			return n, err
		}
		switch m.how {
		case "":
			return n, nil
		case "is refused":
			io.WriteString(m.Conn, "454 4.7.0 not now\r\n")
			continue
		case "has text injected":
			io.WriteString(m.Conn, "220 go on\r\n250 AUTH PLAIN\r\n")
		case "has no reply":
		case "stalls":
			io.WriteString(m.Conn, "220 go on\r\n")
		case "fails":
			io.WriteString(m.Conn, "220 go on\r\n")
			m.Conn.Read(p) // the client's hello
			io.WriteString(m.Conn, "this is no TLS\r\n")
		case "is cut":
			io.WriteString(m.Conn, "220 go on\r\n")
			m.Conn.Read(p)
			m.Conn.Close()
		}
		io.Copy(io.Discard, m.Conn)
		return 0, io.EOF
	}
}

// TestEnableTLS is the table in the package documentation: enable_tls × what the peer does × what is remembered.
// A cell is what becomes of a message, of the next one ten seconds later, and of one two hours after that.
func TestEnableTLS(t *testing.T) {
	const (
		clear    = "clear clear clear"
		fails    = "fails fails fails"
		verified = "verified verified verified"
		any      = "TLS TLS TLS"
		once     = "fails clear fails"
	)
	remember, reconnect := `"remember_broken_tls": "1h", `, `"opportunistic_tls_reconnect_on_failed_handshake": true, `
	authority, another := smtptest.CA(t), smtptest.CA(t)
	good := &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "peer.test")}}
	bad := &tls.Config{Certificates: []tls.Certificate{another.Certificate(t, "peer.test")}}
	all := func(cell string) map[string]string {
		return map[string]string{"": cell, remember: cell, reconnect: cell}
	}
	forgiving := map[string]string{"": fails, remember: once, reconnect: clear}
	spoilt := map[string]map[string]string{"Opportunistic": forgiving, "OpportunisticInsecure": all(clear),
		"Required": all(fails), "RequiredInsecure": all(fails), "Disabled": all(clear)}
	refused := map[string]map[string]string{"Opportunistic": all(fails), "OpportunisticInsecure": all(fails),
		"Required": all(fails), "RequiredInsecure": all(fails), "Disabled": all(clear)}
	for _, peer := range []struct {
		name, how string
		offers    *tls.Config
		rows      map[string]map[string]string
	}{
		{"STARTTLS is not offered", "", nil, map[string]map[string]string{"Opportunistic": all(clear), "OpportunisticInsecure": all(clear),
			"Required": all(fails), "RequiredInsecure": all(fails), "Disabled": all(clear)}},
		{"the certificate is good", "", good, map[string]map[string]string{"Opportunistic": all(verified), "OpportunisticInsecure": all(verified),
			"Required": all(verified), "RequiredInsecure": all(verified), "Disabled": all(clear)}},
		{"the certificate is another's", "", bad, map[string]map[string]string{"Opportunistic": forgiving, "OpportunisticInsecure": all(any),
			"Required": all(fails), "RequiredInsecure": all(any), "Disabled": all(clear)}},
		{"the handshake fails", "fails", good, spoilt},
		{"the handshake stalls", "stalls", good, spoilt},
		{"the handshake is cut", "is cut", good, spoilt},
		{"STARTTLS has no reply", "has no reply", good, spoilt},
		{"STARTTLS is refused", "is refused", good, refused},
		{"STARTTLS has text injected", "has text injected", good, refused},
	} {
		for mode, row := range peer.rows {
			for options, want := range row {
				t.Run(fmt.Sprintf("%s/%s/%s", peer.name, mode, strings.Trim(options, ", ")), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						sink := &smtptest.Sink{TLS: peer.offers}
						defer sink.Close()
						rt := newRuntime(t)
						rt.RootCAs = authority.Pool
						rt.Egress = loopback(fmt.Sprintf(`"enable_tls": %q, "allow_smtp_auth_plain_without_tls": false, %s`, mode, options))
						dials := 0
						rt.Dial = func(context.Context, DialRequest) (net.Conn, error) {
							dials++
							var link smtptest.Link
							return link.Dial(func(conn net.Conn) { sink.ServeConn(&meddled{Conn: conn, how: peer.how}) }), nil
						}
						p := smtpTo(t, rt, "127.0.0.1")
						var got []string
						for _, pause := range []time.Duration{0, 10 * time.Second, 2 * time.Hour} {
							time.Sleep(pause)
							before, dialled := len(sink.Messages()), dials
							r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]
							got = append(got, outcomeOf(t, sink.Messages()[before:], r))
							if dials > dialled+2 {
								t.Errorf("%d connections for one message", dials-dialled)
							}
						}
						if s := strings.Join(got, " "); s != want {
							t.Errorf("%s, want %s", s, want)
						}
						rt.Close(context.Background())
					})
				})
			}
		}
	}
}

// outcomeOf says how a message went, and checks that the peer saw it so.
func outcomeOf(t *testing.T, taken []smtptest.Message, r Result) string {
	t.Helper()
	if r.Status != Delivered {
		if len(taken) > 0 || r.Status != Transient {
			t.Errorf("%s %s, and the peer has %d", r.Status, r.Response, len(taken))
		}
		return "fails"
	}
	info := r.Session.TLS
	if len(taken) != 1 || taken[0].TLS != (info != nil) {
		t.Errorf("the peer has %+v", taken)
	}
	switch {
	case info == nil:
		return "clear"
	case info.Verified != (info.By == "pkix"):
		t.Errorf("%+v", info)
		fallthrough
	case !info.Verified:
		return "TLS"
	}
	return "verified"
}

// TestClearTextIsOnANewConnection: nothing of the mail is said where the handshake failed; and nothing more is
// tried in clear where TLS is required.
func TestClearTextIsOnANewConnection(t *testing.T) {
	const firstTry = "S: 220 peer.test\nC~ EHLO .*\nS: 250-peer.test\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go on\n"
	for mode, dialogues := range map[string][]string{
		"OpportunisticInsecure": {
			firstTry + "! starttls\nC~ EHLO .*\nS: 500 what\nC~ HELO .*\nS: 554 no\nC: QUIT\nS: 221 bye\n! closed",
			"S: 220 peer.test\nC~ EHLO .*\nS: 250-peer.test\nS: 250 STARTTLS\nC: MAIL FROM:<s@x.test>\nS: 250 ok\nC: RCPT TO:<a@x.test>\nS: 250 ok\nC: DATA\nS: 354 go\n! drain"},
		"RequiredInsecure": {firstTry + "! starttls\nC~ EHLO .*\nS: 500 what\nC~ HELO .*\nS: 554 no\nC: QUIT\nS: 221 bye\n! closed"},
	} {
		synctest.Test(t, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{smtptest.CA(t).Certificate(t, "peer.test")}}
			rt := newRuntime(t)
			rt.Egress = loopback(fmt.Sprintf(`"enable_tls": %q, "data_timeout": "10s", "data_dot_timeout": "10s", `, mode))
			next := 0
			rt.Dial = func(context.Context, DialRequest) (net.Conn, error) {
				if next == len(dialogues) {
					t.Fatalf("%s: one connection too many", mode)
				}
				ours, theirs := smtptest.Pipe()
				smtptest.Play(t, theirs, dialogues[next], config)
				next++
				return ours, nil
			}
			p := smtpTo(t, rt, "127.0.0.1")
			msg := messageTo("a@x.test")
			msg.From = "s@x.test"
			if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Transient || next != len(dialogues) {
				t.Errorf("%s: %s %s after %d connections", mode, r.Status, r.Response, next)
			}
			rt.Close(context.Background())
		})
	}
}

// TestRequireTLSMessages: what a message says of TLS itself (RFC 8689), and which messages share a connection.
func TestRequireTLSMessages(t *testing.T) {
	authority := smtptest.CA(t)
	requires := func(m *Message) { m.MailOptions = &smtp.MailOptions{RequireTLS: true} }
	waives := func(m *Message) { m.TLSNotRequired = true }
	plain := func(*Message) {}
	for _, test := range []struct {
		name, path string
		sink       *smtptest.Sink
		messages   []func(*Message)
		want       []string // status, code and enhanced code, TLS, and by whom it was asked
		sessions   int
	}{
		{"it is required, and all is there", "", &smtptest.Sink{Offer: []string{"REQUIRETLS"}, TLS: &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "peer.test")}}},
			[]func(*Message){requires, requires, plain}, []string{"delivered 250 TLS Required requiretls", "delivered 250 TLS Required requiretls", "delivered 250 TLS Opportunistic enable_tls"}, 2},
		{"the peer does not know of it", "", &smtptest.Sink{TLS: &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "peer.test")}}},
			[]func(*Message){requires}, []string{"permanent 550 TLS Required requiretls"}, 1},
		{"the certificate is another's", `"enable_tls": "OpportunisticInsecure", `, &smtptest.Sink{Offer: []string{"REQUIRETLS"}, TLS: &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "other.test")}}},
			[]func(*Message){requires, plain}, []string{"transient 400 clear  ", "delivered 250 TLS OpportunisticInsecure enable_tls"}, 2},
		{"it is not required", "", &smtptest.Sink{TLS: &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "other.test")}}},
			[]func(*Message){waives, plain}, []string{"delivered 250 TLS OpportunisticInsecure tls-required", "transient 400 clear  "}, 2},
		{"the operator requires it", `"enable_tls": "Required", `, &smtptest.Sink{TLS: &tls.Config{Certificates: []tls.Certificate{authority.Certificate(t, "other.test")}}},
			[]func(*Message){waives}, []string{"transient 400 clear  "}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			sink := test.sink
			addr, err := sink.Listen()
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close()
			rt := newRuntime(t)
			rt.RootCAs = authority.Pool
			rt.Egress = loopback(test.path)
			p := smtpTo(t, rt, addr)
			var got []string
			for _, change := range test.messages {
				msg := messageTo("a@x.test")
				change(msg)
				r := p.Deliver(t.Context(), msg).Results[0]
				how := "clear"
				if r.Session.TLS != nil {
					how = "TLS"
				}
				got = append(got, fmt.Sprint(r.Status, " ", r.Response.Code, " ", how, " ", r.Session.TLSPolicy.Mode, " ", r.Session.TLSPolicy.By))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			rt.Close(context.Background())
			if n, _ := sink.Sessions(); int(n) != test.sessions {
				t.Errorf("%d sessions, want %d", n, test.sessions)
			}
		})
	}
}

// TestRequireTLSGoesOnToTheNextHost: a host that does not offer REQUIRETLS says nothing of the others (RFC 8689 section
// 4.2.1).
func TestRequireTLSGoesOnToTheNextHost(t *testing.T) {
	authority := smtptest.CA(t)
	offers := []string{"REQUIRETLS"}
	for name, test := range map[string]struct {
		one, two []string
		want     string
		sessions [2]uint64
	}{
		"the first offers it":  {offers, nil, "delivered 250", [2]uint64{1, 0}},
		"the second offers it": {nil, offers, "delivered 250", [2]uint64{1, 1}},
		"none offers it":       {nil, nil, "permanent 550", [2]uint64{1, 1}},
	} {
		for _, path := range []string{"", `"connection_limit": 1, `} {
			one := &smtptest.Sink{Offer: test.one, TLS: authority.Server(t, "mx1.host.test")}
			two := &smtptest.Sink{Offer: test.two, TLS: authority.Server(t, "mx2.host.test")}
			rt := newRuntime(t)
			rt.RootCAs, rt.Egress = authority.Pool, loopback(path)
			rt.Resolver = zone{
				"a.test MX":       secured(mx(MXRecord{10, "mx1.host.test"}, MXRecord{20, "mx2.host.test"}), "a.test"),
				"mx1.host.test A": secured(addrs("192.0.2.1"), "mx1.host.test"),
				"mx2.host.test A": secured(addrs("192.0.2.2"), "mx2.host.test"),
			}
			serveHosts(t, rt, map[string]*smtptest.Sink{"192.0.2.1:25": one, "192.0.2.2:25": two})
			msg := messageTo("x@a.test")
			msg.MailOptions = &smtp.MailOptions{RequireTLS: true}
			r := protocolOf(t, rt, `{}`).Deliver(t.Context(), msg).Results[0]
			first, _ := one.Sessions()
			second, _ := two.Sessions()
			if got := fmt.Sprint(r.Status, " ", r.Response.Code); got != test.want || [2]uint64{uint64(first), uint64(second)} != test.sessions {
				t.Errorf("%s, %s: %s after %d and %d sessions: %s", name, path, got, first, second, r.Response)
			}
		}
	}
}
