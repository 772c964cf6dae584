// Package smtpclient is the client side of the SMTP and LMTP wire: bytes, deadlines, replies, and the
// pipelining of one transaction's commands. It knows no queues, no lists of hosts and no retries.
//
// [Open] turns a connection into a [Session]: greeting, EHLO, STARTTLS, AUTH. [Session.Send] carries
// one message to a list of recipients and says what happened to each of them; a session can do that
// many times, for one caller at a time. [Session.Close] alone may be called from anywhere.
//
// A recipient counts as accepted only when the peer said so: 2yz to its RCPT and 2yz to the end of the
// data (RFC 5321 section 4.2.1: the first digit decides). Where no reply decided, the result has an
// error instead, and MaybeDelivered where the peer may nevertheless have the message.
package smtpclient

import (
	"cmp"
	"crypto/tls"
	"time"
)

// TLSPolicy says when TLS is used and whether the peer's certificate has to be good. A STARTTLS that
// is refused, or a handshake that fails, fails Open under every policy: nothing goes on in clear on a
// connection where TLS was tried.
type TLSPolicy int

const (
	// TLSOpportunistic uses TLS where it is offered, and then verifies the certificate.
	TLSOpportunistic TLSPolicy = iota
	// TLSDisabled never uses TLS.
	TLSDisabled
	// TLSOpportunisticInsecure uses TLS where it is offered, with any certificate.
	TLSOpportunisticInsecure
	// TLSRequired fails where TLS is not offered, and verifies the certificate.
	TLSRequired
	// TLSRequiredInsecure fails where TLS is not offered, and takes any certificate.
	TLSRequiredInsecure
)

func (p TLSPolicy) required() bool { return p == TLSRequired || p == TLSRequiredInsecure }

func (p TLSPolicy) verifies() bool { return p == TLSOpportunistic || p == TLSRequired }

// Timeouts bound each wait for the peer. Each covers one whole reply, from the moment it becomes the
// next one due, however slowly its bytes arrive. Zero means the default named with it: what RFC 5321
// section 4.5.3.2 asks for, where it says anything.
type Timeouts struct {
	Banner   time.Duration // the greeting; 5 minutes
	EHLO     time.Duration // EHLO, HELO, LHLO; 5 minutes
	StartTLS time.Duration // the reply to STARTTLS, and again the handshake; 1 minute
	Auth     time.Duration // AUTH; 3 minutes
	MailFrom time.Duration // MAIL; 5 minutes
	RcptTo   time.Duration // each RCPT; 5 minutes
	Data     time.Duration // DATA, and the writing of each block of content; 3 minutes
	DataDot  time.Duration // the end of the data; 10 minutes
	Reset    time.Duration // RSET; 1 minute
	Quit     time.Duration // QUIT where Quit is given no time; 5 seconds
}

func (t Timeouts) withDefaults() Timeouts {
	return Timeouts{
		Banner:   cmp.Or(t.Banner, 5*time.Minute),
		EHLO:     cmp.Or(t.EHLO, 5*time.Minute),
		StartTLS: cmp.Or(t.StartTLS, time.Minute),
		Auth:     cmp.Or(t.Auth, 3*time.Minute),
		MailFrom: cmp.Or(t.MailFrom, 5*time.Minute),
		RcptTo:   cmp.Or(t.RcptTo, 5*time.Minute),
		Data:     cmp.Or(t.Data, 3*time.Minute),
		DataDot:  cmp.Or(t.DataDot, 10*time.Minute),
		Reset:    cmp.Or(t.Reset, time.Minute),
		Quit:     cmp.Or(t.Quit, 5*time.Second),
	}
}

// Auth asks for authentication: with AUTH LOGIN where the peer offers that and not PLAIN, else with AUTH
// PLAIN (RFC 4616) and an initial response, whether or not the peer offers it.
type Auth struct {
	Username, Password string
	// AllowWithoutTLS lets the password go out in clear.
	AllowWithoutTLS bool
	// AllowUnverified lets it go to a peer whose certificate was not verified.
	AllowUnverified bool
}

// Config says how to open a session and how to speak in it. It is not changed, and must not change
// while a session uses it. Only LocalName has no default.
type Config struct {
	// Host is the name that the peer was found under, for TLS and for error texts. A dot at its end and
	// brackets are removed. A name is sent as SNI and looked for in the certificate; of an IP address the
	// certificate must hold just that address.
	Host string
	// LocalName is the argument of EHLO or LHLO.
	LocalName string
	// LMTP speaks LMTP (RFC 2033): LHLO, and one reply to the data for each accepted recipient.
	LMTP bool
	TLS  TLSPolicy
	// TLSConfig gives the roots, client certificates and versions; it is cloned. Its ServerName goes before
	// Host; its InsecureSkipVerify is replaced by what TLS says. Nil is an empty one.
	TLSConfig *tls.Config
	// VerifyTLS, if there is one, judges the peer's certificate instead of the roots and the name, under every
	// policy; what it lets pass counts as verified.
	VerifyTLS func(tls.ConnectionState) error
	// Auth asks for authentication; nil asks for none.
	Auth     *Auth
	Timeouts Timeouts
	// DisablePipelining sends one command at a time to a peer that offers PIPELINING too.
	DisablePipelining bool
	// DisableChunking sends content with DATA to a peer that offers CHUNKING too.
	DisableChunking bool
	// MaxPipelined is how many messages may be on their way before the first of them is answered; 0 means
	// 32, 1 sends each message only when the one before it is answered.
	MaxPipelined int
	// Began is when the caller began to dial: the cost of opening a session counts from there, see
	// [Session.Comfort], and what passes until Open is called is taken for no less than a round trip. The
	// zero value is when Open is called.
	Began time.Time
	// Peer is what earlier sessions have learnt of the peer, and where this one puts down what it learns; nil
	// is a peer of which nothing is known.
	Peer *Peer
	// Ignore8BitChecks sends 8-bit content and addresses to peers that offer neither 8BITMIME nor
	// SMTPUTF8. Otherwise they get a local 554 5.6.3 or 554 5.6.7.
	Ignore8BitChecks bool
	// NoReset sends RSET only where the transaction before may still be open. Otherwise RSET precedes each
	// transaction but the first.
	NoReset bool
	// Trace shows the dialogue as it happens; nil shows nothing.
	Trace *Trace
	// Transcript is how many lines of the dialogue are kept for [Session.Transcript]; 0 means 40, below 0
	// none.
	Transcript int
}

// Trace is told what happens in a dialogue. Each function may be nil, and then nothing is rendered for it. For
// one session they are called one after the other, in the order of the dialogue as it is seen here, and hold
// it up: they must not call the session. Lines have no CRLF and are safe to print; credentials read "***" and
// content only "[1234 bytes of content]".
type Trace struct {
	Sent     func(line string)
	Received func(line string)
	// TLS is called when a handshake is complete.
	TLS func(tls.ConnectionState)
	// Stage is called when a stage of opening has ended, with the time from the end of the one before, or
	// from the call of Open. A success is told at once. A failure is told as the last thing, when goodbye
	// was said, with the *OpenError that Open returns; its time ends before the goodbye. With TLS there is
	// EHLO twice; and a certificate of ours that the peer refuses may, in TLS 1.3, fail the handshake only
	// after it had succeeded.
	Stage func(stage Stage, took time.Duration, err error)
	// Reply is called with each reply in a transaction, after its lines were received: command is what it
	// answers, as in [Result]; took is how long it was the next one due, which is what its timeout covers:
	// not the time in which the replies ahead of it were waited for, nor that in which its own command was
	// being written. It is 0 where it had come by then.
	Reply func(command string, reply Reply, took time.Duration)
}
