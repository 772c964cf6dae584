package smtpclient

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// commandsFor returns what a message makes of an EHLO reply: the MAIL and RCPT lines, or the local
// replies that stand for them.
func commandsFor(t *testing.T, s *Session, env *Envelope, content string) string {
	t.Helper()
	s.prepare()
	c := BytesContent([]byte(content))
	if err := c.Inspect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := s.judgeMessage(env, c); r != nil {
		return r.String()
	}
	tr := &transfer{env: env, content: c, rcpts: make([]rcptState, len(env.Rcpts))}
	var lines []string
	for i := range env.Rcpts {
		if r := s.judgeRcpt(env, i); r != nil {
			tr.rcpts[i] = rcptLocal
			lines = append(lines, r.String())
		} else {
			lines = append(lines, string(s.appendRcpt(nil, &env.Rcpts[i])))
		}
	}
	return strings.Join(append([]string{string(s.appendMail(nil, tr))}, lines...), "\n")
}

func TestMailParameters(t *testing.T) {
	mailbox := func(s string) *string { return &s }
	secure := &Session{tls: &tls.ConnectionState{}, verified: true}
	tests := []struct {
		name    string
		ext     string // lines of the reply to EHLO
		session *Session
		cfg     Config
		from    string
		options smtp.MailOptions
		content string
		want    string // the MAIL line behind "MAIL FROM:", or a local reply
	}{
		{name: "nothing offered", options: smtp.MailOptions{Return: "FULL", EnvelopeID: "x", Auth: mailbox("a@b"), Size: 9, Body: "8BITMIME"},
			want: "<a@b>"},
		{name: "SIZE", ext: "SIZE 1000", want: "<a@b> SIZE=3"},
		{name: "SIZE=0", ext: "SIZE 0", want: "<a@b> SIZE=3"},
		{name: "SIZE without number", ext: "SIZE", want: "<a@b> SIZE=3"},
		{name: "SIZE with no number", ext: "SIZE many", want: "<a@b> SIZE=3"},
		{name: "SIZE beyond 64 bits", ext: "SIZE 99999999999999999999", want: "<a@b> SIZE=3"},
		{name: "SIZE exact", ext: "SIZE 3", want: "<a@b> SIZE=3"},
		{name: "SIZE exceeded", ext: "SIZE 2", want: "552 5.3.4 the message has 3 bytes and the peer takes 2"},
		{name: "8-bit", ext: "8bitmime", content: "\xe4", want: "<a@b> BODY=8BITMIME"},
		{name: "8-bit not declared", ext: "8BITMIME", content: "\xe4", options: smtp.MailOptions{Body: "7BIT"}, want: "<a@b> BODY=8BITMIME"},
		{name: "8-bit and SMTPUTF8", ext: "8BITMIME\nSMTPUTF8", content: "Subject: \xc3\xa4", want: "<a@b> BODY=8BITMIME"},
		{name: "8-bit unoffered", content: "\xe4", want: replyNo8Bit.String()},
		{name: "8-bit unchecked", content: "\xe4", cfg: Config{Ignore8BitChecks: true}, want: "<a@b>"},
		{name: "body unknown", options: smtp.MailOptions{Body: "9BIT"}, want: `501 5.5.4 BODY cannot be "9BIT"`},
		{name: "UTF8", ext: "SMTPUTF8", options: smtp.MailOptions{UTF8: true}, want: "<a@b> SMTPUTF8"},
		{name: "UTF8 sender", ext: "SMTPUTF8", from: "ü@b", want: "<ü@b> SMTPUTF8"},
		{name: "UTF8 unoffered", options: smtp.MailOptions{UTF8: true}, want: replyNoUTF8.String()},
		{name: "UTF8 sender unoffered", from: "ü@b", want: replyNoUTF8.String()},
		{name: "UTF8 unchecked", from: "ü@b", cfg: Config{Ignore8BitChecks: true}, want: "<ü@b>"},
		{name: "NUL", content: "\x00", want: replyNUL.String()},
		{name: "BINARYMIME", ext: "CHUNKING\nBINARYMIME\nSIZE", content: "a\n\x00\xff", options: smtp.MailOptions{Body: smtp.BodyBinaryMIME},
			want: "<a@b> SIZE=4 BODY=BINARYMIME"},
		{name: "BINARYMIME unoffered", ext: "CHUNKING\n8BITMIME", options: smtp.MailOptions{Body: smtp.BodyBinaryMIME}, want: replyNoBinary.String()},
		{name: "BINARYMIME without CHUNKING", ext: "BINARYMIME\n8BITMIME", options: smtp.MailOptions{Body: smtp.BodyBinaryMIME}, want: replyNoBinary.String()},
		{name: "BINARYMIME with CHUNKING disabled", ext: "BINARYMIME\nCHUNKING", cfg: Config{DisableChunking: true},
			options: smtp.MailOptions{Body: smtp.BodyBinaryMIME}, want: replyNoBinary.String()},
		{name: "BINARYMIME unchecked", cfg: Config{Ignore8BitChecks: true}, options: smtp.MailOptions{Body: smtp.BodyBinaryMIME}, want: replyNoBinary.String()},
		{name: "BINARYMIME too big", ext: "BINARYMIME\nCHUNKING\nSIZE 3", content: "a\n\n\n", options: smtp.MailOptions{Body: smtp.BodyBinaryMIME},
			want: "552 5.3.4 the message has 4 bytes and the peer takes 3"},
		{name: "REQUIRETLS", ext: "REQUIRETLS", session: secure, options: smtp.MailOptions{RequireTLS: true}, want: "<a@b> REQUIRETLS"},
		{name: "REQUIRETLS unasked", ext: "REQUIRETLS", session: secure, want: "<a@b>"},
		{name: "REQUIRETLS unoffered", session: secure, options: smtp.MailOptions{RequireTLS: true}, want: replyNoRequire.String()},
		{name: "REQUIRETLS in clear", ext: "REQUIRETLS", options: smtp.MailOptions{RequireTLS: true}, want: replyNotSecure.String()},
		{name: "REQUIRETLS unverified", ext: "REQUIRETLS", session: &Session{tls: secure.tls}, options: smtp.MailOptions{RequireTLS: true},
			want: replyNotSecure.String()},
		{name: "DSN", ext: "DSN", options: smtp.MailOptions{Return: "HDRS", EnvelopeID: "a b+c=d\\"}, want: `<a@b> RET=HDRS ENVID=a+20b+2Bc+3Dd\`},
		{name: "DSN wrong", options: smtp.MailOptions{Return: "hdrs"}, want: `501 5.5.4 RET cannot be "hdrs"`},
		{name: "ENVID with CR", options: smtp.MailOptions{EnvelopeID: "a\r"}, want: `501 5.5.4 ENVID cannot be "a\r"`},
		{name: "ENVID with 8 bits", options: smtp.MailOptions{EnvelopeID: "ü"}, want: `501 5.5.4 ENVID cannot be "ü"`},
		{name: "ENVID too long", ext: "DSN", options: smtp.MailOptions{EnvelopeID: strings.Repeat("+", 700)},
			want: `501 5.5.4 ENVID cannot be "` + strings.Repeat("+", 200) + `"`},
		{name: "AUTH", ext: "AUTH PLAIN", options: smtp.MailOptions{Auth: mailbox("a+b=c@d")}, want: "<a@b> AUTH=a+2Bb+3Dc@d"},
		{name: "AUTH nobody", ext: "AUTH PLAIN", options: smtp.MailOptions{Auth: mailbox("")}, want: "<a@b> AUTH=<>"},
		{name: "AUTH quoted again", ext: "AUTH PLAIN", options: smtp.MailOptions{Auth: mailbox(`a "b\@c`)}, want: `<a@b> AUTH="a+20\"b\\"@c`},
		{name: "AUTH quoted", ext: "AUTH PLAIN", options: smtp.MailOptions{Auth: mailbox(`"a b"@c`)}, want: `<a@b> AUTH="a+20b"@c`},
		{name: "AUTH with CRLF", ext: "AUTH PLAIN", options: smtp.MailOptions{Auth: mailbox("a\r\nRSET@b")}, want: "<a@b> AUTH=<>"},
		{name: "AUTH with 8 bits", ext: "AUTH PLAIN", options: smtp.MailOptions{Auth: mailbox("ü@b")}, want: "<a@b> AUTH=<>"},
		{name: "sender with a bracket", from: "a>@b", want: replyBadFrom.String()},
	}
	for _, test := range tests {
		s := &Session{}
		if test.session != nil {
			s.tls, s.verified = test.session.tls, test.session.verified
		}
		s.cfg, s.ext = &test.cfg, parseExtensions([]byte("mx\n"+test.ext))
		if test.from == "" {
			test.from = "a@b"
		}
		if test.content == "" {
			test.content = "x\r\n"
		}
		env := &Envelope{From: test.from, Options: &test.options, Rcpts: []Rcpt{{Address: "c@d"}}}
		got, _, _ := strings.Cut(commandsFor(t, s, env, test.content), "\n")
		if got = strings.TrimPrefix(got, "MAIL FROM:"); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestRcptParameters(t *testing.T) {
	priority := func(p int) *int { return &p }
	since := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	by := func(d time.Duration, mode smtp.DeliverByMode) *smtp.DeliverByOptions {
		return &smtp.DeliverByOptions{Time: d, Mode: mode}
	}
	const all = "DSN\nRRVS\nDELIVERBY 60\nMT-PRIORITY\nSMTPUTF8"
	tests := []struct {
		name    string
		ext     string
		address string
		options smtp.RcptOptions
		want    string // what stands behind MAIL's address, and the RCPT line behind "RCPT TO:"
	}{
		{name: "nothing offered", options: smtp.RcptOptions{Notify: []smtp.DSNNotify{"NEVER"}, OriginalRecipient: "o@p",
			RequireRecipientValidSince: since, DeliverBy: by(time.Hour, "N"), MTPriority: priority(3)}, want: "|<c@d>"},
		{name: "nothing asked", ext: all, want: "|<c@d>"},
		{name: "DSN", ext: all, options: smtp.RcptOptions{Notify: []smtp.DSNNotify{"SUCCESS", "DELAY", "FAILURE"},
			OriginalRecipientType: "RFC822", OriginalRecipient: `"a b"+c@d`}, want: `|<c@d> NOTIFY=SUCCESS,DELAY,FAILURE ORCPT=rfc822;"a+20b"+2Bc@d`},
		{name: "NEVER with others", options: smtp.RcptOptions{Notify: []smtp.DSNNotify{"NEVER", "DELAY"}}, want: `501 5.5.4 NOTIFY cannot be "[NEVER DELAY]"`},
		{name: "NOTIFY twice", options: smtp.RcptOptions{Notify: []smtp.DSNNotify{"DELAY", "DELAY"}}, want: `501 5.5.4 NOTIFY cannot be "[DELAY DELAY]"`},
		{name: "ORCPT without a type", ext: all, options: smtp.RcptOptions{OriginalRecipient: "o@p"}, want: "|<c@d> ORCPT=rfc822;o@p"},
		{name: "ORCPT that needs UTF-8", ext: all, options: smtp.RcptOptions{OriginalRecipientType: "RFC822", OriginalRecipient: "ü@p"},
			want: `|<c@d> ORCPT=utf-8;\x{FC}@p`},
		{name: "ORCPT with a control", ext: all, options: smtp.RcptOptions{OriginalRecipientType: "UTF-8", OriginalRecipient: "\x01@p"},
			want: `|<c@d> ORCPT=utf-8;\x{01}@p`},
		{name: "ORCPT with LF", options: smtp.RcptOptions{OriginalRecipient: "a\n@p"}, want: `501 5.5.4 ORCPT cannot be "a\n@p"`},
		{name: "ORCPT not UTF-8", options: smtp.RcptOptions{OriginalRecipient: "\xff@p"}, want: `501 5.5.4 ORCPT cannot be "\xff@p"`},
		{name: "ORCPT of another type", options: smtp.RcptOptions{OriginalRecipientType: "X400"}, want: `501 5.5.4 ORCPT cannot be "X400"`},
		{name: "RRVS", ext: all, options: smtp.RcptOptions{RequireRecipientValidSince: since}, want: "|<c@d> RRVS=2026-01-02T02:04:05Z"},
		{name: "RRVS of no year", options: smtp.RcptOptions{RequireRecipientValidSince: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
			want: `501 5.5.4 RRVS cannot be "10000-01-01 00:00:00 +0000 UTC"`},
		{name: "BY", ext: all, options: smtp.RcptOptions{DeliverBy: &smtp.DeliverByOptions{Time: 90 * time.Second, Mode: "R", Trace: true}},
			want: " BY=90;RT|<c@d>"},
		{name: "BY that has passed", ext: all, options: smtp.RcptOptions{DeliverBy: by(-time.Minute, "N")}, want: " BY=-60;N|<c@d>"},
		{name: "BY that has passed, to return", ext: all, options: smtp.RcptOptions{DeliverBy: by(0, "R")}, want: replyLate.String()},
		{name: "BY below the least", ext: all, options: smtp.RcptOptions{DeliverBy: by(59*time.Second, "R")}, want: replyLate.String()},
		{name: "BY to return, unoffered", options: smtp.RcptOptions{DeliverBy: by(time.Hour, "R")}, want: replyNoBy.String()},
		{name: "BY of another mode", options: smtp.RcptOptions{DeliverBy: by(time.Hour, "R X=Y")}, want: `501 5.5.4 BY cannot be "R X=Y"`},
		{name: "BY too far", options: smtp.RcptOptions{DeliverBy: by(1e9*time.Second, "N")}, want: `501 5.5.4 BY cannot be "277777h46m40s"`},
		{name: "MT-PRIORITY", ext: all, options: smtp.RcptOptions{MTPriority: priority(-9)}, want: " MT-PRIORITY=-9|<c@d>"},
		{name: "MT-PRIORITY too high", options: smtp.RcptOptions{MTPriority: priority(10)}, want: `501 5.5.4 MT-PRIORITY cannot be "10"`},
		{name: "UTF-8", ext: all, address: "ü@d", want: " SMTPUTF8|<ü@d>"},
		{name: "UTF-8 unoffered", address: "ü@d", want: replyNoUTF8.String()},
		{name: "bad address", address: "c d@e", want: replyBadRcpt.String()},
	}
	for _, test := range tests {
		s := &Session{cfg: &Config{}, ext: parseExtensions([]byte("mx\n" + test.ext))}
		if test.address == "" {
			test.address = "c@d"
		}
		got := commandsFor(t, s, &Envelope{From: "a@b", Rcpts: []Rcpt{{Address: test.address, Options: &test.options}}}, "x\r\n")
		mail, rcpt, _ := strings.Cut(got, "\n")
		if after, ok := strings.CutPrefix(rcpt, "RCPT TO:"); ok {
			rcpt = strings.TrimPrefix(mail, "MAIL FROM:<a@b>") + "|" + after
		}
		if rcpt != test.want {
			t.Errorf("%s: got %s, want %s", test.name, rcpt, test.want)
		}
	}
}

// TestParametersOfMail: recipients share a transaction only with the same parameters of MAIL.
func TestParametersOfMail(t *testing.T) {
	s := &Session{cfg: &Config{}, ext: parseExtensions([]byte("mx\nMT-PRIORITY"))}
	high, same, low := 5, 5, 1
	env := &Envelope{From: "a@b", Rcpts: []Rcpt{
		{Address: "c@d", Options: &smtp.RcptOptions{MTPriority: &high}},
		{Address: "e@f", Options: &smtp.RcptOptions{MTPriority: &low}},
		{Address: "g@h", Options: &smtp.RcptOptions{MTPriority: &same}},
		{Address: "i@j"},
	}}
	const other = "\n452 4.5.3 DELIVERBY or MT-PRIORITY differ: the recipient needs a transaction of its own"
	if got, want := commandsFor(t, s, env, "x\r\n"), "MAIL FROM:<a@b> MT-PRIORITY=5\nRCPT TO:<c@d>"+other+"\nRCPT TO:<g@h>"+other; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	s.ext = nil // with nothing to tell they do not differ
	if got, want := commandsFor(t, s, env, "x\r\n"), "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nRCPT TO:<e@f>\nRCPT TO:<g@h>\nRCPT TO:<i@j>"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestIsPath(t *testing.T) {
	long := strings.Repeat("a", 1000)
	for address, want := range map[string]bool{
		"a@b": true, "postmaster": true, "a@[IPv6:::1]": true, "a..b.@c": true, "ü@d": true, "a=b+c@d": true, "a@b@c": true,
		`"a b"@c`: true, `"a>b<"@c`: true, `"a\"\\b"@c`: true, `"a"`: true, `""@b`: true, `"ü ö"@c`: true, long + "@b": true,

		"": false, "a b@c": false, "a@b c": false, "a\tb@c": false, "a\r\nb@c": false, "a\x00@b": false, "a\x7f@b": false,
		"a<@b": false, "a>@b": false, "a@b>": false, "a@b\n": false, "\xff@b": false, "a\u0085@b": false, "a\u00a0@b": false, "a\u2028@b": false,
		`"a@b`: false, `a"b"@c`: false, `"a"b@c`: false, `a\@b`: false, `"a\`: false, `"a\"@b`: false, `"a"@"b"`: false, `a@b"c`: false,
		`"`: false, `"a" @b`: false, "\"a\r\"@b": false, "\"a\\\n\"@b": false, "\"a\u0085\"@b": false, `"a"@b\`: false,
		"@a:b@c": false, "@b": false, long + long + "@b": false,
	} {
		if got := isPath(address); got != want {
			t.Errorf("%.50q: %v", address, got)
		}
	}
}

// transit is a backend of go-smtp's server that keeps what it gets.
type transit struct{ got chan letter }

type letter struct {
	from string
	mail *smtp.MailOptions
	to   []string
	rcpt []*smtp.RcptOptions
	data string
}

func (b *transit) NewSession(*smtp.Conn) (smtp.Session, error) { return &transitSession{b: b}, nil }

type transitSession struct {
	b *transit
	l letter
}

func (s *transitSession) Reset()        { s.l = letter{} }
func (s *transitSession) Logout() error { return nil }
func (s *transitSession) Mail(from string, o *smtp.MailOptions) error {
	s.l.from, s.l.mail = from, o
	return nil
}
func (s *transitSession) Rcpt(to string, o *smtp.RcptOptions) error {
	s.l.to, s.l.rcpt = append(s.l.to, to), append(s.l.rcpt, o)
	return nil
}
func (s *transitSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.l.data = string(b)
	s.b.got <- s.l
	return err
}

// serve starts a server of go-smtp that knows everything, and returns its address.
func (b *transit) serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	server := smtp.NewServer(b)
	server.TLSConfig = config
	server.MaxRecipients = 7
	server.EnableDSN, server.EnableSMTPUTF8, server.EnableREQUIRETLS, server.EnableBINARYMIME = true, true, true, true
	server.EnableRRVS, server.EnableDELIVERBY, server.EnableMTPRIORITY = true, true, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// TestPassOn: what a go-smtp server has received goes to the next one unchanged.
func TestPassOn(t *testing.T) {
	ca := smtptest.CA(t)
	first, second := &transit{make(chan letter, 1)}, &transit{make(chan letter, 1)}
	config := ca.Server(t, "127.0.0.1")
	roots := &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}
	nc, err := net.Dial("tcp", first.serve(t, config))
	if err != nil {
		t.Fatal(err)
	}
	client, err := smtp.NewClientStartTLS(nc, roots)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := dial(t, second.serve(t, config), &Config{Host: "127.0.0.1", TLSConfig: roots})
	defer s.Quit(0)
	if got := s.Info().MaxRcpts; got != 7 {
		t.Errorf("RCPTMAX is %d", got)
	}

	author, priority := "a+b=c@d", 4
	by := &smtp.DeliverByOptions{Time: 2 * time.Hour, Mode: smtp.DeliverByReturn, Trace: true}
	for _, mail := range []*smtp.MailOptions{
		{},
		{EnvelopeID: `x + = y\`, Return: smtp.DSNReturnHeaders, RequireTLS: true, Auth: &author, UTF8: true},
	} {
		if err := client.Mail("a@b", mail); err != nil {
			t.Fatal(err)
		}
		for i, o := range []*smtp.RcptOptions{
			{},
			{Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure, smtp.DSNNotifyDelayed}, OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: `"o p"+x=q@r`},
			{OriginalRecipientType: smtp.DSNAddressTypeUTF8, OriginalRecipient: `ü+x@😀`},
			{RequireRecipientValidSince: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		} {
			if mail.RequireTLS {
				o.DeliverBy, o.MTPriority = by, &priority
			}
			if err := client.Rcpt(fmt.Sprintf("c%d@d", i), o); err != nil {
				t.Fatal(err)
			}
		}
		w, err := client.Data()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "Subject: x\r\n\r\n.hello\r\n")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		sent := <-first.got
		env := &Envelope{From: sent.from, Options: sent.mail}
		for i, to := range sent.to {
			env.Rcpts = append(env.Rcpts, Rcpt{Address: to, Options: sent.rcpt[i]})
		}
		tx := sendAgain(s, env, BytesContent([]byte(sent.data)))
		for i, r := range tx.Results {
			if !r.Accepted {
				t.Fatalf("recipient %d: %s, %v", i, describe(&r), tx.Err)
			}
		}
		got := <-second.got
		sent.mail.Size, sent.mail.Body = got.mail.Size, got.mail.Body // found from the content
		if !reflect.DeepEqual(got, sent) {
			t.Errorf("got  %+v %+v\nsent %+v %+v", got, got.mail, sent, sent.mail)
			for i := range got.rcpt {
				t.Errorf("got  %+v\nsent %+v", got.rcpt[i], sent.rcpt[i])
			}
		}
	}
	if got := s.Info().TLS; got == nil {
		t.Error("not under TLS")
	}
}

// TestMovedParameters: a peer that refuses MAIL for its parameters gets them with RCPT, and is not
// tried again that way in the session.
func TestMovedParameters(t *testing.T) {
	const hello = "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250-PIPELINING\nS: 250 MT-PRIORITY\n"
	const end = "S: 250 ok\nS: 250 ok\nS: 354 go\nC: x\nC: .\nS: 250 taken\n"
	const refused = "C: MAIL FROM:<a@b> MT-PRIORITY=2\nC: RCPT TO:<c@d>\nC: DATA\nS: %s\nS: 503 MAIL first\nS: 503 MAIL first\n"
	const moved = "C: MAIL FROM:<a@b>\nC: RCPT TO:<c@d> MT-PRIORITY=2\nC: DATA\n"
	priority := 2
	env := &Envelope{From: "a@b", Rcpts: []Rcpt{{Address: "c@d", Options: &smtp.RcptOptions{MTPriority: &priority}}}}
	for name, test := range map[string]struct{ dialogue, want string }{
		"moved":             {fmt.Sprintf(refused, "555 5.5.4 what?") + moved + end, "accepted: 250 taken"},
		"not understood":    {fmt.Sprintf(refused, "500 5.5.4 what?") + moved + "S: 250 ok\nS: 555 5.5.4 what?\nS: 503 no\n", "refused at RCPT: 555 5.5.4 what?"},
		"refused again":     {fmt.Sprintf(refused, "501 what?") + moved + "S: 550 no\nS: 503 no\nS: 503 no\n", "refused at MAIL: 550 no"},
		"refused otherwise": {fmt.Sprintf(refused, "550 not you"), "refused at MAIL: 550 not you"},
	} {
		client, server := smtptest.Pipe()
		player := smtptest.Play(t, server, hello+test.dialogue+"! closed", nil)
		s, err := Open(t.Context(), client, &Config{LocalName: "c"})
		if err != nil {
			t.Fatal(err)
		}
		tx := sendAgain(s, env, BytesContent([]byte("x\r\n")))
		if got := describe(&tx.Results[0]); got != test.want || tx.Err != nil || !s.Usable() {
			t.Errorf("%s: got %s, want %s, %v", name, got, test.want, tx.Err)
		}
		s.Close()
		player.Wait()
	}
}
