package smtpclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// farewell is how long a peer that cannot be used gets for a last word: the reply to QUIT, or the reason
// why it no longer takes what we write.
const farewell = 2 * time.Second

// Open makes a session of a connection: the greeting, EHLO (HELO where a peer knows no EHLO, but not
// with LMTP), STARTTLS and a second EHLO as the policy says, AUTH where it is asked for. It takes over
// nc, and closes it when it fails; it says QUIT first where the peer is still listening. When ctx ends
// it cuts the connection and fails with ctx's cause. A connection that takes no deadline fails: nothing
// would bound the waits on it. The error is of type *OpenError.
func Open(ctx context.Context, nc net.Conn, cfg *Config) (*Session, error) {
	s := &Session{cfg: cfg, timeouts: cfg.Timeouts.withDefaults()}
	s.startClock(cfg.Began)
	s.stage = s.clock()
	s.raw, s.conn = nc, nc
	s.log.limit = defaultTranscript
	if cfg.Transcript != 0 {
		s.log.limit = cfg.Transcript
	}
	if cfg.Trace != nil {
		s.log.trace = *cfg.Trace
	}
	s.borrow()
	defer func() {
		if s.in != nil {
			s.giveBack()
		}
	}()
	stop := context.AfterFunc(ctx, func() { s.kill() })
	failed := s.begin(ctx)
	if !stop() && ctx.Err() != nil {
		if failed == nil {
			failed = &OpenError{Stage: StageEHLO}
		}
		failed.Reply, failed.Err = nil, context.Cause(ctx)
	}
	if failed == nil && !s.giveBack() {
		failed = &OpenError{Stage: StageEHLO, Err: s.readFailure("EHLO", 0, errUnasked)}
	}
	if failed != nil {
		failed.UnderTLS = s.tls != nil
		s.Close()
		s.stageEnded(failed.Stage, failed)
		return nil, failed
	}
	s.prepare()
	return s, nil
}

// begin holds the opening dialogue.
func (s *Session) begin(ctx context.Context) *OpenError {
	if err := s.raw.SetDeadline(time.Now().Add(s.timeouts.Banner)); err != nil {
		return &OpenError{Stage: StageBanner, Err: fmt.Errorf("the connection takes no deadline: %w", err)}
	}
	if i := strings.IndexFunc(s.cfg.LocalName, notInHello); i >= 0 {
		return &OpenError{Stage: StageEHLO, Err: fmt.Errorf("LocalName %q cannot be sent", s.cfg.LocalName)}
	}
	if err := s.greeting(); err != nil {
		return err
	}
	if err := s.hello(); err != nil {
		return err
	}
	if err := s.secure(ctx); err != nil {
		return err
	}
	return s.authenticate()
}

// stageEnded shows the end of a stage to the trace.
func (s *Session) stageEnded(stage Stage, failed *OpenError) {
	show := s.log.trace.Stage
	if show == nil {
		return
	}
	now := s.clock()
	took := cmp.Or(s.goodbye, now) - s.stage
	s.stage = now
	if failed != nil {
		show(stage, took, failed)
	} else {
		show(stage, took, nil) // no error, instead of one that is a nil *OpenError
	}
}

// notInHello holds for what would end the argument of EHLO, or the line.
func notInHello(r rune) bool { return r <= ' ' || r == 0x7f }

func (s *Session) greeting() *OpenError {
	r, err := s.readReply(s.timeouts.Banner)
	if err != nil {
		return &OpenError{Stage: StageBanner, Err: s.readFailure("banner", s.timeouts.Banner, err)}
	}
	if r.code != 220 {
		return refused(StageBanner, &r)
	}
	s.stageEnded(StageBanner, nil)
	return nil
}

// hello introduces us and learns what the peer offers. Nothing learned before remains: RFC 3207 section
// 4.2 asks for that after STARTTLS.
func (s *Session) hello() *OpenError {
	verb := "EHLO "
	if s.cfg.LMTP {
		verb = "LHLO "
	}
	s.ext = nil
	r, failed := s.ask(StageEHLO, verb+s.cfg.LocalName, s.timeouts.EHLO)
	if failed != nil {
		return failed
	}
	// RFC 5321 section 3.2 falls back to HELO where EHLO is not known; other refusals are meant for us.
	extended := true
	if (r.code == 500 || r.code == 502) && !s.cfg.LMTP {
		extended = false
		if r, failed = s.ask(StageEHLO, "HELO "+s.cfg.LocalName, s.timeouts.EHLO); failed != nil {
			return failed
		}
	}
	if r.code != 250 {
		return s.leave(refused(StageEHLO, &r))
	}
	if extended { // what a reply to HELO says is no list of extensions
		s.ext = parseExtensions(r.text)
	}
	s.stageEnded(StageEHLO, nil)
	return nil
}

// ask sends one command and returns its reply.
func (s *Session) ask(stage Stage, line string, d time.Duration) (reply, *OpenError) {
	s.command(line)
	return s.exchange(stage, d)
}

// exchange writes what was gathered, which is one command, and returns its reply. Nothing may have
// arrived before: it would be taken for the reply.
func (s *Session) exchange(stage Stage, d time.Duration) (reply, *OpenError) {
	name := stage.String()
	if s.unread() {
		return reply{}, &OpenError{Stage: stage, Err: s.readFailure(name, d, errUnasked)}
	}
	asked := s.clock()
	if _, err := s.flush(d); err != nil {
		// A failed write is no verdict: the peer may have said why.
		if r, readErr := s.readReply(farewell); readErr == nil {
			return r, nil
		}
		return reply{}, &OpenError{Stage: stage, Err: s.writeFailure(name, name, d, err)}
	}
	r, err := s.readReply(d)
	if err != nil {
		return reply{}, &OpenError{Stage: stage, Err: s.readFailure(name, d, err)}
	}
	s.sawRoundTrip(s.clock() - asked)
	return r, nil
}

func refused(stage Stage, r *reply) *OpenError {
	kept := r.keep()
	return &OpenError{Stage: stage, Reply: &kept}
}

// leave says QUIT to a peer that still listens, and returns why.
func (s *Session) leave(why *OpenError) *OpenError {
	s.goodbye = s.clock()
	if why.Reply == nil || why.Reply.Code != 421 {
		s.sayQuit(farewell)
	}
	return why
}

// secure goes under TLS where the policy wants it.
func (s *Session) secure(ctx context.Context) *OpenError {
	policy := s.cfg.TLS
	if policy == TLSDisabled {
		return nil
	}
	if !s.ext.has("STARTTLS") {
		if policy.required() {
			return s.leave(&OpenError{Stage: StageStartTLS, Err: ErrNoSTARTTLS})
		}
		return nil
	}
	r, failed := s.ask(StageStartTLS, "STARTTLS", s.timeouts.StartTLS)
	if failed != nil {
		return failed
	}
	if r.code != 220 {
		return s.leave(refused(StageStartTLS, &r))
	}
	if r.odd != nil { // where TLS begins must be beyond doubt
		return &OpenError{Stage: StageStartTLS, Err: s.readFailure("STARTTLS", s.timeouts.StartTLS, r.odd)}
	}
	if s.unread() {
		return &OpenError{Stage: StageStartTLS, Err: ErrInjection}
	}
	s.stageEnded(StageStartTLS, nil)
	if failed := s.handshake(ctx); failed != nil {
		return failed
	}
	failed = s.hello()
	// With TLS 1.3 the peer judges our certificate after our side of the handshake is done.
	var alert tls.AlertError
	if failed != nil && errors.As(failed.Err, &alert) {
		failed.Stage = StageTLS
	}
	return failed
}

func (s *Session) handshake(ctx context.Context) *OpenError {
	conn := tls.Client(s.raw, s.tlsConfig())
	s.conn = conn
	s.arm(s.timeouts.StartTLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		if isTimeout(err) {
			err = &TransactionError{Command: "STARTTLS", Kind: Timeout, Err: &timeoutError{s.timeouts.StartTLS, "for the TLS handshake"}}
		} else {
			err = fmt.Errorf("the TLS handshake failed: %w", err)
		}
		return &OpenError{Stage: StageTLS, Err: err}
	}
	state := conn.ConnectionState()
	s.tls = &state
	if s.log.trace.TLS != nil {
		s.log.trace.TLS(state)
	}
	s.stageEnded(StageTLS, nil)
	return nil
}

// tlsConfig is the caller's, with the peer's name and the policy's rule about certificates.
func (s *Session) tlsConfig() *tls.Config {
	c := s.cfg.TLSConfig.Clone()
	if c == nil {
		c = &tls.Config{}
	}
	if c.ServerName == "" {
		c.ServerName = tlsName(s.cfg.Host)
	}
	judge := s.cfg.VerifyTLS
	c.InsecureSkipVerify = judge != nil || !s.cfg.TLS.verifies()
	inner := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if inner != nil {
			if err := inner(state); err != nil {
				return err
			}
		}
		if judge != nil {
			err := judge(state)
			s.verified = err == nil
			return err
		}
		if len(state.VerifiedChains) == 0 {
			s.doubt = verify(c, &state)
		}
		s.verified = s.doubt == nil
		return nil
	}
	return c
}

// verify judges a certificate that any would have done for.
func verify(c *tls.Config, state *tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 || c.ServerName == "" {
		return errors.New("there is no certificate, or no name to look for in it")
	}
	opts := x509.VerifyOptions{Roots: c.RootCAs, DNSName: c.ServerName, Intermediates: x509.NewCertPool()}
	if c.Time != nil {
		opts.CurrentTime = c.Time()
	}
	for _, cert := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(opts)
	return err
}

// tlsName is a host as it stands in certificates: without brackets, without the root's dot, in lower
// case. Of an address crypto/tls makes no SNI.
func tlsName(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = strings.TrimPrefix(host[1:len(host)-1], "ipv6:")
	}
	return host
}
