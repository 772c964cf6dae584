package smtpclient

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mtadelivery/delivery/internal/decode"
)

// ErrInjection: bytes came in clear behind the reply to STARTTLS, where only the peer's side of the
// handshake may follow. Somebody on the way may want them read as if they had come under TLS.
var ErrInjection = errors.New("bytes in clear follow the reply to STARTTLS")

// ErrNoSTARTTLS: the policy requires TLS and the peer does not offer STARTTLS.
var ErrNoSTARTTLS = errors.New("TLS is required, and the peer does not offer STARTTLS")

// ErrAuthNotAllowed: the connection is not safe enough to send the password over it.
var ErrAuthNotAllowed = errors.New("not sending the password")

// Stage is a step of opening a session.
type Stage int

const (
	StageBanner   Stage = iota + 1 // the greeting
	StageEHLO                      // EHLO, HELO or LHLO, before or after TLS
	StageStartTLS                  // STARTTLS and its reply
	StageTLS                       // the handshake
	StageAuth                      // AUTH
)

var stageNames = [...]string{StageBanner: "banner", StageEHLO: "EHLO", StageStartTLS: "STARTTLS", StageTLS: "TLS", StageAuth: "AUTH"}

// String names the stage: "banner", "EHLO", "STARTTLS", "TLS", "AUTH".
func (s Stage) String() string {
	if s < StageBanner || s > StageAuth {
		return fmt.Sprintf("Stage(%d)", int(s))
	}
	return stageNames[s]
}

// OpenError says why a session could not be opened.
type OpenError struct {
	Stage Stage
	// UnderTLS: the handshake had been done.
	UnderTLS bool
	// Reply is the reply that refused; nil if none did.
	Reply *Reply
	// Err is the cause: a *TransactionError where the connection failed, the cause of the context where
	// that ended, what crypto/tls says of a handshake. It is nil where Reply is the cause.
	Err error
}

func (e *OpenError) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Stage == StageBanner:
		return "the peer greeted with " + e.Reply.String()
	}
	return fmt.Sprintf("the peer answered %s with %s", e.Stage, e.Reply)
}

// Unwrap returns Err.
func (e *OpenError) Unwrap() error { return e.Err }

// Kind says how a dialogue ended where no reply ended it.
type Kind int

const (
	Timeout   Kind = iota + 1 // the peer did not answer, or did not take what was written, in time
	Closed                    // the peer closed or reset the connection, or said 421 and left the rest unanswered
	Malformed                 // what the peer said is no SMTP, or was not asked for
	Write                     // writing failed, and the peer had not said why
	Body                      // the body failed, or did not yield what it had promised
	Killed                    // Close was called
	Refused                   // the peer refused RSET: the transaction was not begun
	Unsent                    // nothing of the transaction was sent: the caller gave up, or the session ended before its turn
	Skipped                   // what came before it failed, and the peer refused or dropped this one only for that
)

var kindNames = [...]string{Timeout: "timeout", Closed: "closed", Malformed: "malformed", Write: "write", Body: "body", Killed: "killed", Refused: "refused", Unsent: "unsent", Skipped: "skipped"}

// String names the kind in one word.
func (k Kind) String() string {
	if k < Timeout || k > Skipped {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// TransactionError is a failure of the connection, as opposed to a refusal by the peer. The session is
// not usable after it.
type TransactionError struct {
	// Command is the command whose reply was due, or that was being sent: "RSET", "MAIL", "RCPT", "DATA",
	// "." for the content and its end, "banner", "EHLO", "STARTTLS", "AUTH".
	Command string
	Kind    Kind
	// Reply is a reply that has to do with it: the 421 after which the peer left, the refusal of RSET.
	Reply *Reply
	// Err tells the whole story and wraps the cause.
	Err error
}

func (e *TransactionError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *TransactionError) Unwrap() error { return e.Err }

// timeoutError matches os.ErrDeadlineExceeded and is a net.Error. Its text, "Timed Out waiting 5m for response
// to MAIL" or "Timed Out waiting 1m 30s to write MAIL,RCPT,DATA", is what log rules look for.
type timeoutError struct {
	after time.Duration
	what  string // "for response to MAIL", "to write MAIL,RCPT,DATA"
}

func (e *timeoutError) Error() string {
	return "Timed Out waiting " + decode.FormatDuration(e.after) + " " + e.what
}
func (e *timeoutError) Timeout() bool        { return true }
func (e *timeoutError) Temporary() bool      { return true }
func (e *timeoutError) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// readFailure says what went wrong while the reply to a command was due for d.
func (w *wire) readFailure(command string, d time.Duration, err error) *TransactionError {
	e := &TransactionError{Command: command}
	due, timeout := "response to "+command, "for response to "+command
	switch command {
	case "banner":
		due, timeout = "greeting", "for the greeting"
	case ".":
		due, timeout = "response to the end of the data", "for response to the end of the data"
	}
	switch {
	case w.killed.Load():
		e.Kind, e.Err = Killed, fmt.Errorf("closed while waiting for the %s: %w", due, net.ErrClosed)
	case isMalformed(err):
		e.Kind, e.Err = Malformed, fmt.Errorf("malformed %s: %w", due, err)
	case isTimeout(err):
		e.Kind, e.Err = Timeout, &timeoutError{d, timeout}
	case errors.Is(err, io.EOF):
		e.Kind, e.Err = Closed, fmt.Errorf("the peer closed the connection before the %s: %w", due, err)
	default:
		e.Kind, e.Err = Closed, fmt.Errorf("the connection broke before the %s: %w", due, err)
	}
	return e
}

// writeFailure says what went wrong while commands or the content were written, the first of which is
// command; group names all of them.
func (w *wire) writeFailure(command, group string, d time.Duration, err error) *TransactionError {
	e := &TransactionError{Command: command}
	what := nameOfWritten(command)
	switch {
	case w.killed.Load():
		e.Kind, e.Err = Killed, fmt.Errorf("closed while sending %s: %w", what, net.ErrClosed)
	case isTimeout(err):
		e.Kind, e.Err = Timeout, &timeoutError{d, "to write " + cmp.Or(group, what)}
	default:
		e.Kind, e.Err = Write, fmt.Errorf("sending %s failed: %w", what, err)
	}
	return e
}

// nameOfWritten is what a command is called where it is written.
func nameOfWritten(command string) string {
	if command == "." {
		return "the content"
	}
	return command
}

// unanswered names the commands that were sent, or were to be, and are not answered: "MAIL,RCPT,DATA".
func (t *transfer) unanswered() string {
	end := t.sent
	if t.inContent {
		end = t.stepDot() + 1
	}
	var names []string
	for at := t.due; at < end; at = t.after(at) {
		if name := nameOfWritten(t.command(at)); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
