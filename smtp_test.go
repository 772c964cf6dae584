package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// server is a go-smtp server on loopback. Recipients have a will of their own: tempfail gets 450,
// permfail 550, toomany 452 4.5.3; a message whose subject says so is refused after the content.
type server struct {
	*smtp.Server
	addr netip.AddrPort

	mu       sync.Mutex
	messages []received
	conns    int
	open     int
	most     int
}

type received struct {
	from    string
	options smtp.MailOptions
	to      []string
	data    string
}

func startServer(t *testing.T, change func(*smtp.Server)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: netip.MustParseAddrPort(l.Addr().String())}
	s.Server = smtp.NewServer(s)
	s.Domain = "peer.test"
	s.EnableSMTPUTF8 = true
	s.ErrorLog = silent{}
	if change != nil {
		change(s.Server)
	}
	var done sync.WaitGroup
	done.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		l.Close() // Shutdown knows it only once Serve has begun
		// Close would race with what the server still makes of a connection that was cut.
		s.Shutdown(context.Background())
		done.Wait()
	})
	return s
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

func (s *server) NewSession(*smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns++
	s.open++
	s.most = max(s.most, s.open)
	return &serverSession{server: s}, nil
}

func (s *server) got() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

type serverSession struct {
	server *server
	received
}

func (s *serverSession) Reset() { s.received = received{} }
func (s *serverSession) Logout() error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.open--
	return nil
}

func (s *serverSession) Mail(from string, o *smtp.MailOptions) error {
	s.from, s.options = from, *o
	return nil
}

func (s *serverSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	user, _, _ := strings.Cut(to, "@")
	switch user {
	case "tempfail":
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "Greylisted"}
	case "permfail":
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	case "toomany":
		return &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 5, 3}, Message: "Too many recipients"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *serverSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if strings.Contains(string(data), "Subject: refuse-me") {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Content refused"}
	}
	s.data = string(data)
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.messages = append(s.server.messages, s.received)
	return nil
}

func (s *serverSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	if err := s.Data(r); err != nil {
		return err
	}
	for _, to := range s.to {
		if strings.HasPrefix(to, "full") {
			status.SetStatus(to, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "Mailbox full"})
			continue
		}
		status.SetStatus(to, nil)
	}
	return nil
}

// loopback is an Egress under which loopback may be spoken to.
type loopback string

func (l loopback) EgressPool(context.Context, string) (EgressPool, error) {
	return EgressPool{}, errors.New("no pool")
}
func (l loopback) EgressSource(context.Context, string) (EgressSource, error) {
	return EgressSource{}, errors.New("no source")
}
func (l loopback) EgressPath(context.Context, string, string, string) (EgressPath, error) {
	text := strings.TrimSuffix(`{"prohibited_hosts": [], `+string(l), ", ") + "}"
	return ParseEgressPath([]byte(text))
}

// smtpTo is a protocol with the server as its smart host.
func smtpTo(t *testing.T, rt *Runtime, addrs ...string) Protocol {
	t.Helper()
	var entries []string
	for _, a := range addrs {
		entries = append(entries, fmt.Sprintf(`{"name": "peer.test", "addr": %q}`, a))
	}
	return protocolOf(t, rt, `{"protocol": {"smtp": {"mx_list": [`+strings.Join(entries, ", ")+`]}}}`)
}

// summary is what became of each recipient, in short.
func summary(o Outcome) string {
	var list []string
	for _, r := range o.Results {
		list = append(list, fmt.Sprintf("%s %s %d %s %s", r.Recipient, r.Status, r.Response.Code, r.Response.Enhanced, r.Response.Command))
	}
	return strings.Join(list, "\n")
}

func TestEachRecipientHasItsOwnResult(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, s.addr.String())
	msg := messageTo("a@x.test", "permfail@x.test", "tempfail@x.test", "not an address", "toomany@x.test", "b@x.test", "a@x.test")
	want := strings.Join([]string{
		"a@x.test delivered 250 2.0.0 .",
		"permfail@x.test permanent 550 5.1.1 RCPT",
		"tempfail@x.test transient 450 4.2.0 RCPT",
		"not an address permanent 554 5.1.3 ",
		"toomany@x.test transient 552 5.5.3 RCPT",
		"b@x.test delivered 250 2.0.0 .",
		"a@x.test delivered 250 2.0.0 .",
	}, "\n")
	for range 3 { // the second and third on the same connection
		if got := summary(p.Deliver(t.Context(), msg)); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	refused := messageTo("a@x.test", "permfail@x.test")
	refused.Body = Bytes("Subject: refuse-me\r\n\r\n")
	if got := summary(p.Deliver(t.Context(), refused)); got != "a@x.test permanent 554 5.7.1 .\npermfail@x.test permanent 550 5.1.1 RCPT" {
		t.Errorf("refused content:\n%s", got)
	}
	if s.conns != 1 {
		t.Errorf("%d connections", s.conns)
	}
	session := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0].Session
	if session.Protocol != "smtp" || session.Peer != "peer.test" || session.RemoteAddr != s.addr.String() || session.TLS != nil ||
		session.ReadyName != "unspecified->mx_list:"+s.addr.String()+"@smtp_client" {
		t.Errorf("%+v", session)
	}
}

func TestContentArrivesAsItWasSent(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, s.addr.String())
	for i, test := range []struct {
		body    Body
		want    string
		changed bool
	}{
		{Bytes("Subject: x\r\n\r\n.\r\n..\r\n.dot\r\nend\r\n"), "Subject: x\r\n\r\n.\r\n..\r\n.dot\r\nend\r\n", false},
		{Bytes("Subject: x\n\nunix\n"), "Subject: x\r\n\r\nunix\r\n", true},
		{Bytes("Subject: x\r\n\r\na\rb"), "Subject: x\r\n\r\na b\r\n", true},
		{Bytes("\r\n.\n.\r\n"), "\r\n.\r\n.\r\n", true},
		{Bytes(""), "", false},
		{stream("Subject: x\r\n\r\n8-bit: \xc3\xa4\r\n" + strings.Repeat("0123456789abcdef\r\n", 10000)),
			"Subject: x\r\n\r\n8-bit: \xc3\xa4\r\n" + strings.Repeat("0123456789abcdef\r\n", 10000), false},
	} {
		r := p.Deliver(t.Context(), &Message{From: "<>", Recipients: []Recipient{{Address: "a@x.test"}}, Body: test.body}).Results[0]
		if r.Status != Delivered || r.ContentChanged != test.changed {
			t.Fatalf("%d: %s %s, changed %v", i, r.Status, r.Response, r.ContentChanged)
		}
		got := s.got()
		if last := got[len(got)-1]; last.data != test.want || last.from != "" {
			t.Errorf("%d: %q from %q", i, last.data, last.from)
		}
	}
	for name, body := range map[string]Body{"fails": broken{1000}, "short": short{}} {
		before := len(s.got())
		msg := messageTo("a@x.test")
		msg.Body = body
		r := p.Deliver(t.Context(), msg).Results[0]
		if r.Status != Transient || r.MaybeDelivered || len(s.got()) != before {
			t.Errorf("a body that %s: %s %s, maybe %v", name, r.Status, r.Response, r.MaybeDelivered)
		}
	}
	if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Delivered {
		t.Errorf("afterwards: %s", r.Response)
	}
}

// stream is a body that is not in memory.
type stream string

func (s stream) Size() int64                  { return int64(len(s)) }
func (s stream) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(s))), nil }

func TestEnvelopeOptionsGoOn(t *testing.T) {
	s := startServer(t, func(s *smtp.Server) { s.EnableDSN = true })
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, s.addr.String())
	msg := messageTo(`"two words"@x.test`, "dömi@dömi.test")
	msg.MailOptions = &smtp.MailOptions{Return: smtp.DSNReturnHeaders, EnvelopeID: "id+1"}
	if r := p.Deliver(t.Context(), msg).Results; r[0].Status != Delivered || r[1].Status != Delivered || r[1].Recipient != "dömi@xn--dmi-sna.test" {
		t.Fatalf("%+v", r)
	}
	got := s.got()[0]
	if got.options.Return != smtp.DSNReturnHeaders || got.options.EnvelopeID != "id+1" || !got.options.UTF8 ||
		!slices.Equal(got.to, []string{"two words@x.test", "dömi@xn--dmi-sna.test"}) {
		t.Errorf("%+v", got)
	}
	for name, test := range map[string]struct {
		change func(*Message)
		want   string
	}{
		"REQUIRETLS":                {func(m *Message) { m.MailOptions = &smtp.MailOptions{RequireTLS: true} }, "transient 400 "},
		"BINARYMIME":                {func(m *Message) { m.MailOptions = &smtp.MailOptions{Body: smtp.BodyBinaryMIME} }, "permanent 554 5.6.3"},
		"MT-PRIORITY":               {func(m *Message) { m.Recipients[0].Options = &smtp.RcptOptions{MTPriority: new(3)} }, "delivered 250 2.0.0"},
		"an impossible MT-PRIORITY": {func(m *Message) { m.Recipients[0].Options = &smtp.RcptOptions{MTPriority: new(33)} }, "permanent 501 5.5.4"},
	} {
		m := messageTo("a@x.test")
		test.change(m)
		r := p.Deliver(t.Context(), m).Results[0]
		if got := fmt.Sprint(r.Status, " ", r.Response.Code, " ", r.Response.Enhanced); got != test.want {
			t.Errorf("%s: %s %s, want %s", name, got, r.Response.Text, test.want)
		}
	}
}

func TestTheFirstHostThatAnswers(t *testing.T) {
	s := startServer(t, nil)
	const dead = "127.0.0.1:1" // no port that the system gives away, so that nobody can have it meanwhile
	unwilling, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer unwilling.Close()
	go func() {
		for {
			c, err := unwilling.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "554 no service here\r\n")
			c.Close()
		}
	}()
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, dead, unwilling.Addr().String(), s.addr.String())
	r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]
	if r.Status != Delivered || r.Session.RemoteAddr != s.addr.String() {
		t.Errorf("%s %s", r.Status, r.Response)
	}
	none := smtpTo(t, rt, dead, unwilling.Addr().String())
	r = none.Deliver(t.Context(), messageTo("a@x.test")).Results[0]
	if r.Status != Transient || r.Response.Code != 400 || !strings.HasPrefix(r.Response.Text, "delivery: failed to connect to any candidate hosts: ") ||
		!strings.Contains(r.Response.Text, "554 no service here") {
		t.Errorf("%s %s", r.Status, r.Response)
	}
	if e, ok := errors.AsType[*HostError](r.Err); !ok || e.Host != "peer.test" || e.Address != dead {
		t.Errorf("%#v", r.Err)
	}
}

func TestLoopbackIsProhibited(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	r := smtpTo(t, rt, s.addr.String()).Deliver(t.Context(), messageTo("a@x.test")).Results[0]
	if r.Status != Permanent || r.Response.Code != 550 || r.Response.Enhanced != (EnhancedCode{5, 4, 4}) || r.Scope != ScopeReadyName || s.conns != 0 {
		t.Errorf("%s %s, %d connections", r.Status, r.Response, s.conns)
	}
}

func TestMailGoesToTheMX(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback(fmt.Sprintf(`"smtp_port": %d`, s.addr.Port()))
	rt.Resolver = zone{
		"x.test MX":     mx(MXRecord{10, "mail.x.test"}),
		"mail.x.test A": addrs("127.0.0.1"),
		"null.test MX":  mx(MXRecord{0, "."}),
		"odd.test MX":   mx(MXRecord{10, "gone.test"}),
	}
	p := protocolOf(t, rt, `{}`)
	for to, want := range map[string]string{
		"a@x.test":    "a@x.test delivered 250 2.0.0 .",
		"a@null.test": "a@null.test permanent 556 5.1.10 ",
		"a@odd.test":  "a@odd.test transient 451 4.4.4 ",
		"a@nx.test":   "a@nx.test transient 451 4.4.4 ",
	} {
		if got := summary(p.Deliver(t.Context(), messageTo(to))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	plan, err := p.Plan(t.Context(), messageTo("a@x.test"))
	if err != nil || plan.ReadyName != "unspecified->mail.x.test@smtp_client" || plan.Hosts[0].Host != "mail.x.test" || plan.Hosts[0].Address != s.addr.String() {
		t.Errorf("%+v, %v", plan, err)
	}
}

func TestConnectionsAreLimitedAndReused(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback(`"connection_limit": 4`)
	p := smtpTo(t, rt, s.addr.String())
	var calls sync.WaitGroup
	for i := range 200 {
		calls.Go(func() {
			if r := p.Deliver(t.Context(), messageTo(fmt.Sprintf("u%d@x.test", i))).Results[0]; r.Status != Delivered {
				t.Errorf("%s %s", r.Status, r.Response)
			}
		})
	}
	calls.Wait()
	if s.most > 4 || s.conns > 4 {
		t.Errorf("%d connections, %d at once", s.conns, s.most)
	}
	seen := map[string]int{}
	for _, m := range s.got() {
		seen[m.to[0]]++
	}
	if len(seen) != 200 {
		t.Errorf("%d of 200 arrived", len(seen))
	}
	if stats := rt.Stats(); stats.Opened != uint64(s.conns) || len(stats.Ready) != 1 || stats.Ready[0].Busy != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestAConnectionEndsAfterSoManyMessages(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback(`"max_deliveries_per_connection": 3, "max_recipients_per_batch": 2`)
	p := smtpTo(t, rt, s.addr.String())
	for range 7 {
		for _, r := range p.Deliver(t.Context(), messageTo("a@x.test", "b@x.test", "c@x.test")).Results {
			if r.Status != Delivered {
				t.Errorf("%s %s", r.Status, r.Response)
			}
		}
	}
	if got := len(s.got()); got != 14 || s.conns != 3 {
		t.Errorf("%d transactions over %d connections", got, s.conns)
	}
}

func TestLMTP(t *testing.T) {
	s := startServer(t, func(s *smtp.Server) { s.LMTP = true })
	rt := newRuntime(t)
	rt.Egress = loopback(`"use_lmtp": true`)
	p := smtpTo(t, rt, s.addr.String())
	want := "a@x.test delivered 250 2.0.0 .\nfull@x.test transient 452 4.2.2 .\npermfail@x.test permanent 550 5.1.1 RCPT\nb@x.test delivered 250 2.0.0 ."
	for range 2 {
		o := p.Deliver(t.Context(), messageTo("a@x.test", "full@x.test", "permfail@x.test", "b@x.test"))
		if got := summary(o); got != want || o.Results[0].Session.Protocol != "lmtp" {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	ca := smtptest.CA(t)
	secure := startServer(t, func(s *smtp.Server) { s.TLSConfig = ca.Server(t, "peer.test") })
	other := startServer(t, func(s *smtp.Server) { s.TLSConfig = ca.Server(t, "elsewhere.test") })
	plain := startServer(t, nil)
	for _, test := range []struct {
		mode string
		to   *server
		want string
	}{
		{"Opportunistic", secure, "verified"},
		{"Opportunistic", other, "fails"},
		{"Opportunistic", plain, "clear"},
		{"OpportunisticInsecure", secure, "verified"},
		{"OpportunisticInsecure", other, "unverified"},
		{"OpportunisticInsecure", plain, "clear"},
		{"Required", secure, "verified"},
		{"Required", other, "fails"},
		{"Required", plain, "fails"},
		{"RequiredInsecure", other, "unverified"},
		{"RequiredInsecure", plain, "fails"},
		{"Disabled", secure, "clear"},
	} {
		rt := newRuntime(t)
		rt.RootCAs = ca.Pool
		rt.Egress = loopback(fmt.Sprintf(`"enable_tls": %q`, test.mode))
		before := len(test.to.got())
		r := smtpTo(t, rt, test.to.addr.String()).Deliver(t.Context(), messageTo("a@x.test")).Results[0]
		got := "fails"
		switch {
		case r.Status == Delivered && r.Session.TLS == nil:
			got = "clear"
		case r.Status == Delivered && r.Session.TLS.Verified && r.Session.TLS.By == "pkix":
			got = "verified"
		case r.Status == Delivered:
			got = "unverified"
		case r.Status != Transient || len(test.to.got()) != before:
			got = "wrong"
		}
		if got != test.want {
			t.Errorf("%s to %s: %s (%s)", test.mode, test.to.addr, got, r.Response)
		}
	}
}

// peer is a server that follows a script on each connection it gets, one script after the other.
func peer(t *testing.T, scripts ...func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for _, script := range scripts {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				script(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

// greet says hello and answers EHLO.
func greet(c net.Conn, r *bufio.Reader) {
	io.WriteString(c, "220 peer.test\r\n")
	r.ReadString('\n')
	io.WriteString(c, "250-peer.test\r\n250 PIPELINING\r\n")
}

// farewell reads until QUIT, answers it, and ends.
func farewell(c net.Conn, r *bufio.Reader) {
	for {
		if line, err := r.ReadString('\n'); err != nil || strings.HasPrefix(line, "QUIT") {
			io.WriteString(c, "221 2.0.0 bye\r\n")
			return
		}
	}
}

// take answers one whole transaction, with a RSET before it on a connection that was used.
func take(c net.Conn, r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return
		case strings.HasPrefix(line, "DATA"):
			io.WriteString(c, "354 go\r\n")
			for line != ".\r\n" && err == nil {
				line, err = r.ReadString('\n')
			}
			io.WriteString(c, "250 2.0.0 taken\r\n")
			return
		default:
			io.WriteString(c, "250 2.0.0 ok\r\n")
		}
	}
}

// TestAConnectionThatDiedIdle costs a new connection and nothing else.
func TestAConnectionThatDiedIdle(t *testing.T) {
	for name, after := range map[string]func(c net.Conn, r *bufio.Reader){
		"closed":               func(net.Conn, *bufio.Reader) {},
		"421 and closed":       func(c net.Conn, r *bufio.Reader) { io.WriteString(c, "421 4.4.2 idle too long\r\n") },
		"421 to the next MAIL": func(c net.Conn, r *bufio.Reader) { r.ReadString('\n'); io.WriteString(c, "421 4.3.2 bye\r\n") },
		"closed at the next":   func(c net.Conn, r *bufio.Reader) { r.ReadString('\n') },
	} {
		t.Run(name, func(t *testing.T) {
			addr := peer(t,
				func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); after(c, r) },
				func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); farewell(c, r) })
			rt := newRuntime(t)
			rt.Egress = loopback("")
			p := smtpTo(t, rt, addr)
			for i := range 2 {
				if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Delivered {
					t.Fatalf("message %d: %s %s", i, r.Status, r.Response)
				}
			}
			if opened := rt.Stats().Opened; opened != 2 {
				t.Errorf("%d connections", opened)
			}
		})
	}
}

// TestARefusedRSET: a message for nobody leaves its transaction open, and a peer that refuses to end it gets
// the next message over another connection.
func TestARefusedRSET(t *testing.T) {
	addr := peer(t,
		func(c net.Conn, r *bufio.Reader) {
			greet(c, r)
			answer(c, r, "250 ok", "550 5.1.1 nobody", "503 no recipients", "500 what?")
			io.Copy(io.Discard, r)
		},
		func(c net.Conn, r *bufio.Reader) { greet(c, r); take(c, r); farewell(c, r) })
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, addr)
	for i, want := range []Status{Permanent, Delivered} {
		if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != want {
			t.Fatalf("message %d: %s %s", i, r.Status, r.Response)
		}
	}
}

// answer answers as many commands.
func answer(c net.Conn, r *bufio.Reader, replies ...string) {
	for _, reply := range replies {
		r.ReadString('\n')
		io.WriteString(c, reply+"\r\n")
	}
}

// TestWhatIsNotKnown: what breaks after the last byte may have arrived; what breaks before it has not.
func TestWhatIsNotKnown(t *testing.T) {
	for _, test := range []struct {
		name   string
		script func(c net.Conn, r *bufio.Reader)
		code   int
		maybe  bool
	}{
		{"closed after the dot", func(c net.Conn, r *bufio.Reader) {
			greet(c, r)
			for range 3 {
				r.ReadString('\n')
			}
			io.WriteString(c, "250 ok\r\n250 ok\r\n354 go\r\n")
			for line := ""; line != ".\r\n"; line, _ = r.ReadString('\n') {
			}
		}, 400, true},
		{"closed instead of 354", func(c net.Conn, r *bufio.Reader) {
			greet(c, r)
			for range 3 {
				r.ReadString('\n')
			}
			io.WriteString(c, "250 ok\r\n250 ok\r\n")
		}, 400, false},
		{"421 to MAIL", func(c net.Conn, r *bufio.Reader) {
			greet(c, r)
			r.ReadString('\n')
			io.WriteString(c, "421 4.3.2 closing\r\n")
		}, 421, false},
		{"garbage", func(c net.Conn, r *bufio.Reader) {
			greet(c, r)
			r.ReadString('\n')
			io.WriteString(c, "what is this\r\n")
		}, 400, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			rt := newRuntime(t)
			rt.Egress = loopback("")
			r := smtpTo(t, rt, peer(t, test.script)).Deliver(t.Context(), messageTo("a@x.test")).Results[0]
			if r.Status != Transient || r.Response.Code != test.code || r.MaybeDelivered != test.maybe || len(r.Session.Transcript) == 0 {
				t.Errorf("%s %s, maybe %v, %v", r.Status, r.Response, r.MaybeDelivered, r.Session)
			}
		})
	}
}

// TestContextsAndClose: a caller whose context ends while it waits is Unsent and disturbs nobody; a
// transaction that began is finished.
func TestContextsAndClose(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	addr := peer(t, func(c net.Conn, r *bufio.Reader) {
		greet(c, r)
		r.ReadString('\n')
		close(held)
		<-hold
		io.WriteString(c, "250 ok\r\n")
		take(c, r)
		farewell(c, r)
	})
	rt := newRuntime(t)
	rt.Egress = loopback(`"connection_limit": 1, "max_ready": 1, "max_pipelined_messages": 1`)
	p := smtpTo(t, rt, addr)
	first, ctx := make(chan Outcome, 1), t.Context()
	begun, cancelBegun := context.WithCancel(ctx)
	go func() { first <- p.Deliver(begun, messageTo("a@x.test")) }()
	<-held
	waiting, cancelWaiting := context.WithCancelCause(ctx)
	second := make(chan Outcome, 1)
	go func() { second <- p.Deliver(waiting, messageTo("b@x.test")) }()
	for rt.Stats().Ready[0].Waiting != 1 {
		time.Sleep(time.Millisecond)
	}
	if r := p.Deliver(ctx, messageTo("c@x.test")).Results[0]; r.Status != Unsent || r.Scope != ScopeReadyName || r.RetryAfter > time.Minute {
		t.Errorf("beyond max_ready: %s, %s, %v", r.Status, r.Scope, r.RetryAfter)
	}
	why := errors.New("no patience")
	cancelWaiting(why)
	if r := (<-second).Results[0]; r.Status != Unsent || !errors.Is(r.Err, why) {
		t.Errorf("waiting: %s %v", r.Status, r.Err)
	}
	cancelBegun()
	close(hold)
	if r := (<-first).Results[0]; r.Status != Delivered {
		t.Errorf("begun: %s %s", r.Status, r.Response)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if r := p.Deliver(done, messageTo("a@x.test")).Results[0]; r.Status != Unsent || !errors.Is(r.Err, context.Canceled) {
		t.Errorf("with a context that ended: %s %v", r.Status, r.Err)
	}
}

func TestCloseCutsWhatDoesNotEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	held := make(chan struct{})
	addr := peer(t, func(c net.Conn, r *bufio.Reader) {
		greet(c, r)
		for range 3 {
			r.ReadString('\n')
		}
		io.WriteString(c, "250 ok\r\n250 ok\r\n354 go\r\n")
		for line := ""; line != ".\r\n"; line, _ = r.ReadString('\n') {
		}
		close(held) // and never an answer
		io.Copy(io.Discard, r)
	})
	rt := &Runtime{Egress: loopback(`"connection_limit": 1, "max_pipelined_messages": 1`)}
	c, _ := ParseQueueConfig([]byte(`{"protocol": {"smtp": {"mx_list": ["` + addr + `"]}}}`))
	p, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan Outcome, 2)
	go func() { outcomes <- p.Deliver(context.Background(), messageTo("a@x.test")) }()
	<-held
	go func() { outcomes <- p.Deliver(context.Background(), messageTo("b@x.test")) }()
	for rt.Stats().Ready[0].Waiting != 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := rt.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	for range 2 {
		switch r := (<-outcomes).Results[0]; r.Recipient {
		case "a@x.test":
			if r.Status != Transient || !r.MaybeDelivered {
				t.Errorf("cut: %s %s, maybe %v", r.Status, r.Response, r.MaybeDelivered)
			}
		default:
			if r.Status != Unsent || !errors.Is(r.Err, ErrClosed) {
				t.Errorf("waiting: %s %v", r.Status, r.Err)
			}
		}
	}
	if err := rt.Close(context.Background()); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if _, err := rt.Protocol(c); !errors.Is(err, ErrClosed) {
		t.Errorf("Protocol after Close: %v", err)
	}
	if r := p.Deliver(context.Background(), messageTo("a@x.test")).Results[0]; r.Status != Unsent || !errors.Is(r.Err, ErrClosed) {
		t.Errorf("Deliver after Close: %s %v", r.Status, r.Err)
	}
	// The peer's own goroutines take a moment to see the end, and on a busy machine more than one.
	for range 30_000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("goroutines left:\n%s", stacks[:runtime.Stack(stacks, true)])
}

// TestEveryProtocol holds all three to the same contract.
func TestEveryProtocol(t *testing.T) {
	s := startServer(t, nil)
	for name, config := range map[string]string{
		"smtp":    `{"protocol": {"smtp": {"mx_list": ["` + s.addr.String() + `"]}}}`,
		"maildir": `{"protocol": {"maildir_path": ` + mustJSON(t.TempDir()+"/{{ local_part }}") + `}}`,
		"lua":     luaConfig,
	} {
		t.Run(name, func(t *testing.T) {
			rt, _ := quiet(t)
			rt.Egress = loopback("")
			withPolicy(t, rt, connectionWith("return 'OK'"))
			c, err := ParseQueueConfig([]byte(config))
			if err != nil {
				t.Fatal(err)
			}
			p, err := rt.Protocol(c)
			if err != nil {
				t.Fatal(err)
			}
			twin, err := rt.Protocol(c)
			if err != nil {
				t.Fatal(err)
			}
			msg := messageTo("a@x.test", "bad address", "b@x.test", "a@x.test")
			var calls sync.WaitGroup
			for range 20 { // the same message at once: its body is opened many times
				calls.Go(func() {
					o := p.Deliver(t.Context(), msg)
					if len(o.Results) != 4 || o.Err != nil {
						t.Errorf("%d results, %v", len(o.Results), o.Err)
						return
					}
					for i, r := range o.Results {
						want := Delivered
						if i == 1 {
							want = Permanent
						}
						if r.Status != want || r.Recipient != msg.Recipients[i].Address {
							t.Errorf("%d: %s %s %s", i, r.Recipient, r.Status, r.Response)
						}
					}
				})
			}
			calls.Wait()
			for field, bad := range map[string]*Message{
				"Recipients": {From: "a@b.test", Body: Bytes("x")},
				"Body":       {From: "a@b.test", Recipients: msg.Recipients},
				"From":       {From: "a b@b.test", Recipients: msg.Recipients, Body: Bytes("x")},
			} {
				o := p.Deliver(t.Context(), bad)
				if e, ok := errors.AsType[*MessageError](o.Err); !ok || e.Field != field || len(o.Results) != len(bad.Recipients) {
					t.Errorf("%s: %v, %d results", field, o.Err, len(o.Results))
				}
				for _, r := range o.Results {
					if r.Status != Permanent {
						t.Errorf("%s: %s", field, r.Status)
					}
				}
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			for _, i := range []int{0, 2, 3} {
				if r := p.Deliver(ended, msg).Results[i]; r.Status != Unsent {
					t.Errorf("with a context that ended: %s", r.Status)
				}
			}
			if plan, err := p.Plan(t.Context(), msg); err != nil || plan.Protocol != name || plan.ReadyName == "" {
				t.Errorf("plan: %+v, %v", plan, err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Unsent {
				t.Errorf("on a closed handle: %s", r.Status)
			}
			if r := twin.Deliver(t.Context(), msg).Results[0]; r.Status != Delivered {
				t.Errorf("on its twin: %s %s", r.Status, r.Response)
			}
			if err := twin.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// pooled is an Egress with a pool of two sources, one of which may not be used.
type pooled struct{ loopback }

func (pooled) EgressPool(context.Context, string) (EgressPool, error) {
	return EgressPool{Name: "two", Entries: []PoolEntry{{Name: "127.0.0.2"}, {Name: "127.0.0.3"}, {Name: "127.0.0.4", Weight: new(0)}}}, nil
}

func (pooled) EgressSource(_ context.Context, name string) (EgressSource, error) {
	return EgressSource{Name: name, SourceAddress: netip.MustParseAddr(name), EHLODomain: "s" + name[8:] + ".test"}, nil
}

func TestSourcesOfAPool(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = pooled{loopback("")}
	p := protocolOf(t, rt, `{"egress_pool": "two", "protocol": {"smtp": {"mx_list": ["`+s.addr.String()+`"]}}}`)
	sources := map[string]int{}
	for range 6 {
		r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]
		if r.Status != Delivered {
			t.Skipf("this system does not let us bind 127.0.0.2: %s", r.Response)
		}
		host, _, _ := net.SplitHostPort(r.Session.LocalAddr)
		sources[host]++
		if !strings.HasPrefix(r.Session.ReadyName, host+"->mx_list:") {
			t.Errorf("from %s as %s", host, r.Session.ReadyName)
		}
	}
	if sources["127.0.0.2"] != 3 || sources["127.0.0.3"] != 3 || s.conns != 2 {
		t.Errorf("%v over %d connections", sources, s.conns)
	}
	missing := protocolOf(t, rt, `{"protocol": {"smtp": {"mx_list": ["`+s.addr.String()+`"]}}, "egress_pool": "two"}`)
	rt.Egress = nil
	rt.state.egress.Forget()
	if r := missing.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Transient || r.Response.Code != 451 {
		t.Errorf("without an Egress: %s %s", r.Status, r.Response)
	}
}

// TestAPeerThatDiesInTheMiddle: what a used connection answered before it died counts, and the message
// is not tried on one connection after the other.
func TestAPeerThatDiesInTheMiddle(t *testing.T) {
	dies := func(c net.Conn, r *bufio.Reader) {
		greet(c, r)
		take(c, r)
		for range 3 { // MAIL, two RCPT
			r.ReadString('\n')
		}
		io.WriteString(c, "250 ok\r\n550 5.1.1 unknown\r\n")
	}
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, peer(t, dies, dies))
	if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Delivered {
		t.Fatal(r.Response)
	}
	want := "nobody@x.test permanent 550 5.1.1 RCPT\ndie@x.test transient 400  RCPT"
	if got := summary(p.Deliver(t.Context(), messageTo("nobody@x.test", "die@x.test"))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if opened := rt.Stats().Opened; opened != 1 {
		t.Errorf("%d connections", opened)
	}
}

// TestTheEndOfTheContextStopsFurtherBatches: the transaction under way is finished, the rest is unsent.
func TestTheEndOfTheContextStopsFurtherBatches(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback(`"max_recipients_per_batch": 1`)
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	rt.Trace = &Trace{Sent: func(_ *Session, line string) {
		if strings.HasPrefix(line, "MAIL") {
			if sent++; sent == 2 {
				cancel()
			}
		}
	}}
	p := smtpTo(t, rt, s.addr.String())
	var got []Status
	for _, r := range p.Deliver(ctx, messageTo("a@x.test", "b@x.test", "c@x.test", "d@x.test")).Results {
		got = append(got, r.Status)
	}
	if want := []Status{Delivered, Delivered, Unsent, Unsent}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// forgetful is a resolver that answers when its context ends.
type forgetful struct{ asked chan struct{} }

func (f forgetful) Lookup(ctx context.Context, _ string, _ DNSType) DNSAnswer {
	close(f.asked)
	<-ctx.Done()
	return DNSAnswer{Err: context.Cause(ctx)}
}

// stuck is a body whose reader waits to be released.
type stuck struct{ opened, release chan struct{} }

func (s stuck) Size() int64 { return 4 }
func (s stuck) Open() (io.ReadCloser, error) {
	close(s.opened)
	<-s.release
	return io.NopCloser(strings.NewReader("\r\n\r\n")), nil
}

// TestCloseIsBounded whatever a delivery is waiting for.
func TestCloseIsBounded(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	c, err := ParseQueueConfig([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("an answer of the DNS", func(t *testing.T) {
		asked := make(chan struct{})
		rt := &Runtime{Resolver: forgetful{asked}}
		p, _ := rt.Protocol(c)
		outcome := make(chan Outcome, 1)
		go func() { outcome <- p.Deliver(context.Background(), messageTo("a@x.test")) }()
		<-asked
		rt.Close(ended)
		if r := (<-outcome).Results[0]; r.Status != Unsent || !errors.Is(r.Err, ErrClosed) {
			t.Errorf("%s %v", r.Status, r.Err)
		}
	})
	t.Run("a body that does not come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			body := stuck{make(chan struct{}), make(chan struct{})}
			rt := &Runtime{Resolver: zone{"x.test A": addrs("192.0.2.1")}}
			p, _ := rt.Protocol(c)
			msg := messageTo("a@x.test")
			msg.Body = body
			outcome := make(chan Outcome, 1)
			go func() { outcome <- p.Deliver(context.Background(), msg) }()
			<-body.opened
			start := time.Now()
			if err := rt.Close(ended); !errors.Is(err, errStuck) || time.Since(start) != afterKill {
				t.Errorf("Close: %v after %v", err, time.Since(start))
			}
			close(body.release)
			if r := (<-outcome).Results[0]; r.Status != Unsent {
				t.Errorf("%s %s", r.Status, r.Response)
			}
		})
	})
}

// TestTextsAreSafe: what strangers say does not reach a result as it is.
func TestTextsAreSafe(t *testing.T) {
	rt := newRuntime(t)
	rt.Egress = loopback("")
	rt.Dial = func(context.Context, DialRequest) (net.Conn, error) {
		return nil, errors.New("evil\r\n250 \x1b[31mok \xff" + strings.Repeat("x", 1<<16))
	}
	text := smtpTo(t, rt, "192.0.2.1").Deliver(t.Context(), messageTo("a@x.test")).Results[0].Response.Text
	if strings.ContainsAny(text, "\r\n\x1b") || !utf8.ValidString(text) || len(text) > maxText+len("…") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
	rt.Dial = func(context.Context, DialRequest) (net.Conn, error) { return nil, nil }
	if r := smtpTo(t, rt, "192.0.2.2").Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Transient {
		t.Errorf("a dialer that returns nothing: %s", r.Status)
	}
}

// TestAPanicOfTheHostsBody leaves no session behind in the middle of something.
func TestAPanicOfTheHostsBody(t *testing.T) {
	s := startServer(t, nil)
	rt := newRuntime(t)
	rt.Egress = loopback("")
	p := smtpTo(t, rt, s.addr.String())
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		msg := messageTo("a@x.test")
		msg.Body = &panics{}
		p.Deliver(t.Context(), msg)
	}()
	for _, name := range rt.Stats().Ready {
		if name.Busy+name.Idle+name.Opening+name.Waiting != 0 {
			t.Errorf("left behind: %+v", name)
		}
	}
	if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Delivered {
		t.Errorf("afterwards: %s", r.Response)
	}
}

// TestAPanicOfAHook leaves no connection open that nobody has.
func TestAPanicOfAHook(t *testing.T) {
	virtual(t, "", smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
		rt.Trace = &Trace{Dialed: func(string, DialRequest, error) { panic("the host's own mistake") }}
		dial, closed := rt.Dial, make(chan struct{})
		rt.Dial = func(ctx context.Context, to DialRequest) (net.Conn, error) {
			conn, err := dial(ctx, to)
			return &closing{conn, closed}, err
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			p.Deliver(t.Context(), messageTo("a@x.test"))
		}()
		synctest.Wait()
		select {
		case <-closed:
		default:
			t.Error("the connection is open")
		}
	})
}

// closing tells when a connection is closed.
type closing struct {
	net.Conn
	closed chan struct{}
}

func (c *closing) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// panics is a body that can be read once, to be looked at.
type panics struct{ opened int }

func (p *panics) Size() int64 { return 4 }
func (p *panics) Open() (io.ReadCloser, error) {
	if p.opened++; p.opened > 1 {
		panic("the host's own mistake")
	}
	return io.NopCloser(strings.NewReader("\r\n\r\n")), nil
}

func TestPlanOfBadRecipients(t *testing.T) {
	_, err := protocolOf(t, newRuntime(t), "{}").Plan(t.Context(), messageTo("bad address"))
	if e, ok := errors.AsType[*MessageError](err); !ok || e.Field != "Recipients[0]" {
		t.Errorf("%v", err)
	}
}
