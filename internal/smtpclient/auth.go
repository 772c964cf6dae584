package smtpclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// authenticate says AUTH where it is asked for and safe.
func (s *Session) authenticate() *OpenError {
	auth := s.cfg.Auth
	if auth == nil {
		return nil
	}
	if err := s.judgeAuth(auth); err != nil {
		return s.leave(&OpenError{Stage: StageAuth, Err: err})
	}
	client := s.mechanism(auth)
	mechanism, initial, err := client.Start()
	if err != nil {
		return s.leave(&OpenError{Stage: StageAuth, Err: err})
	}
	if mechanism == sasl.Login {
		// The server of LOGIN speaks first: an initial response would be an error to it (RFC 4954 section 4).
		s.command("AUTH LOGIN")
		client = &loginPrompts{Client: client, username: initial}
	} else {
		s.secret("AUTH "+mechanism+" ", initial)
	}
	r, failed := s.exchange(StageAuth, s.timeouts.Auth)
	for failed == nil && r.code == 334 {
		response, err := answer(client, &r)
		if err != nil {
			return s.cancelAuth(fmt.Errorf("AUTH %s: %w", mechanism, err))
		}
		s.secret("", response)
		r, failed = s.exchange(StageAuth, s.timeouts.Auth)
	}
	if failed != nil {
		return failed
	}
	if r.class() != 2 {
		return s.leave(refused(StageAuth, &r))
	}
	s.stageEnded(StageAuth, nil)
	return nil
}

// judgeAuth says why the password cannot be sent over this connection, or nil.
func (s *Session) judgeAuth(auth *Auth) error {
	switch {
	case s.tls == nil && !auth.AllowWithoutTLS:
		return fmt.Errorf("%w without TLS", ErrAuthNotAllowed)
	case s.tls != nil && !s.verified && !auth.AllowUnverified:
		return fmt.Errorf("%w: the peer's certificate was not verified", ErrAuthNotAllowed)
	case strings.Contains(auth.Username+auth.Password, "\x00"):
		return errors.New("user name or password holds NUL")
	}
	return nil
}

// mechanism is LOGIN for a peer that offers it and not PLAIN, else PLAIN.
func (s *Session) mechanism(auth *Auth) sasl.Client {
	offered := strings.Fields(strings.ToUpper(s.ext["AUTH"]))
	if slices.Contains(offered, sasl.Login) && !slices.Contains(offered, sasl.Plain) {
		return sasl.NewLoginClient(auth.Username, auth.Password)
	}
	return sasl.NewPlainClient("", auth.Username, auth.Password)
}

// answer answers a question of the peer. PLAIN has an answer to none, LOGIN to two.
func answer(client sasl.Client, r *reply) ([]byte, error) {
	challenge, err := base64.StdEncoding.DecodeString(string(r.text))
	if err != nil {
		return nil, fmt.Errorf("the peer's question is not base64: %w", err)
	}
	return client.Next(challenge)
}

// cancelAuth ends an exchange that cannot go on (RFC 4954 section 4), and says why.
func (s *Session) cancelAuth(why error) *OpenError {
	s.command("*")
	if _, failed := s.exchange(StageAuth, farewell); failed != nil {
		return &OpenError{Stage: StageAuth, Err: why}
	}
	return s.leave(&OpenError{Stage: StageAuth, Err: why})
}

// loginPrompts gives the user name to the first question of LOGIN, however it is worded, and the
// password to the second one, in the wordings that servers use.
type loginPrompts struct {
	sasl.Client
	username []byte
	asked    int
}

func (l *loginPrompts) Next(challenge []byte) ([]byte, error) {
	l.asked++
	switch {
	case l.asked == 1:
		return l.username, nil
	case l.asked > 2:
		return nil, sasl.ErrUnexpectedServerChallenge
	case strings.EqualFold(strings.Trim(string(challenge), ": \x00"), "password"):
		challenge = []byte("Password:")
	}
	return l.Client.Next(challenge)
}
