package smtpclient

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Transaction is what became of one Send.
type Transaction struct {
	// Results has one result for each recipient of the envelope, in its order.
	Results []Result
	// Err is the failure that left recipients without a deciding reply; nil if each has one.
	Err *TransactionError
	// ContentBegan: a byte of the content may have left. Until then it is safe to send the message again
	// to the recipients that were not refused.
	ContentBegan bool
	// Again: the transaction failed for a reason that is not this message's own, and no recipient that is
	// still without a reply of its own can have been accepted. The message may be sent to those again at
	// once, over this session where it is usable, else over another.
	Again bool
}

// Result is what became of one recipient.
type Result struct {
	// Accepted: the peer has taken responsibility for this recipient.
	Accepted bool
	// Reply is the reply that decided: the recipient's own where its RCPT was refused, whatever came
	// after. It is zero where Err is set.
	Reply Reply
	// Command is what Reply answers, or what was under way when Err happened: "RSET", "MAIL", "RCPT",
	// "DATA", "." for the end of the data; "" where Local.
	Command string
	// Local: Reply was given here, and the peer was not asked.
	Local bool
	// MaybeDelivered: the connection failed after the last byte of the message may have left and before the
	// reply, so that the peer may have it.
	MaybeDelivered bool
	// Err is the Err of the transaction where no reply decided.
	Err error
}

// rcptState is how far a recipient has come.
type rcptState uint8

const (
	rcptOpen     rcptState = iota // no reply yet
	rcptAccepted                  // 2yz to RCPT; the rest of the transaction decides
	rcptDecided                   // it has its result
	rcptLocal                     // it has its result without being offered to the peer
)

// transfer is a transaction under way. Its steps are RSET, MAIL, one RCPT for each recipient, DATA; then
// comes the content. Two cursors run over the steps: sent is the next one to send, due the one whose
// reply comes next. With PIPELINING the first runs ahead of the second, without it waits for it.
type transfer struct {
	s       *Session
	env     *Envelope
	content *Content
	tx      *Transaction
	rcpts   []rcptState

	sent, due   step
	unanswered  int   // bytes of commands without reply
	writeErr    error // what is said now may be read, but no more can be sent
	writeLimit  time.Duration
	mailRefused bool
	beginAnew   bool   // MAIL was refused for parameters that have another place
	accepted    int    // recipients that were accepted by RCPT
	data        int    // the first digit of the reply to DATA; 0 before
	ended       bool   // the last byte of the end of the data may have left
	leaving     *Reply // the 421 after which the peer is going to close
}

// step is a step of a transaction. stepRcpt + i is the RCPT of recipient i.
type step int

const (
	stepReset step = iota
	stepMail
	stepRcpt
)

func (t *transfer) stepData() step { return stepRcpt + step(len(t.rcpts)) }

// stepDot is the content with its end.
func (t *transfer) stepDot() step { return t.stepData() + 1 }

func (t *transfer) command(at step) string {
	switch {
	case at == stepReset:
		return "RSET"
	case at == stepMail:
		return "MAIL"
	case at == t.stepData():
		return "DATA"
	case at == t.stepDot():
		return "."
	}
	return "RCPT"
}

// timeout is how long the reply to a step may take. A peer that is leaving, or that we can no longer
// write to, gets the time of a last word.
func (t *transfer) timeout(at step) time.Duration {
	limits := &t.s.timeouts
	limit := limits.RcptTo
	switch {
	case at == stepReset:
		limit = limits.Reset
	case at == stepMail:
		limit = limits.MailFrom
	case at == t.stepData():
		limit = limits.Data
	case at == t.stepDot():
		limit = limits.DataDot
	}
	if t.leaving != nil && at != t.stepDot() || t.writeErr != nil { // LMTP says 421 for one of several too
		return min(limit, farewell)
	}
	return limit
}

// next is the step after one, without the recipients that are not offered.
func (t *transfer) next(at step) step {
	for at++; at >= stepRcpt && at < t.stepData() && t.rcpts[at-stepRcpt] == rcptLocal; at++ {
	}
	return at
}

// Send offers a message to the recipients of an envelope and, where the peer accepts any, sends it to
// them: one transaction. It returns when every recipient has its result, within the config's timeouts;
// Close cuts it short. It sends the content at most once and never tries anything again.
//
// It is safe for concurrent use: calls made at the same time share the session. The end of ctx ends only
// the wait before the first byte of the transaction; what has begun is finished.
func (s *Session) Send(ctx context.Context, env *Envelope, c *Content) *Transaction {
	tx := &Transaction{Results: make([]Result, len(env.Rcpts))}
	t := transfer{s: s, env: env, content: c, tx: tx}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		t.rcpts = make([]rcptState, len(env.Rcpts))
		tx.Again = true
		t.fail(&TransactionError{Command: "MAIL", Kind: Unsent, Err: context.Cause(ctx)})
		return tx
	}
	if !s.Usable() {
		t.rcpts = make([]rcptState, len(env.Rcpts))
		t.fail(&TransactionError{Command: "MAIL", Kind: Closed, Err: fmt.Errorf("the session is not usable: %w", net.ErrClosed)})
		return tx
	}
	s.borrow()
	for range env.Rcpts {
		s.buffers.rcpts = append(s.buffers.rcpts, rcptOpen)
	}
	t.rcpts = s.buffers.rcpts
	t.run()
	if !s.giveBack() {
		s.broken = true // the peer said more than it was asked
	}
	return tx
}

func (t *transfer) run() {
	if err := t.content.Inspect(context.Background()); err != nil {
		t.fail(bodyFailure("MAIL", err))
		return
	}
	if !t.admit() {
		return
	}
	if !t.s.open && (!t.s.used || t.s.cfg.NoReset) {
		t.sent, t.due = stepMail, stepMail
	}
	t.s.used, t.s.open = true, true
	if !t.offer() || t.beginAnew && t.data != 3 && t.accepted == 0 && t.leaving == nil && !t.repeat() {
		return
	}
	switch {
	case t.leaving != nil:
		t.abandoned()
	case t.data != 3: // nothing is to be sent
	case t.mailRefused && t.accepted > 0:
		// Whose transaction these recipients are in, only the peer knows: it must not end.
		t.s.broken = true
	case t.accepted == 0:
		t.loneDot()
	default:
		t.deliver()
	}
}

// repeat holds the dialogue once more, from the beginning and for the same recipients.
func (t *transfer) repeat() bool {
	for i := range t.rcpts {
		if t.rcpts[i] != rcptLocal {
			t.rcpts[i], t.tx.Results[i] = rcptOpen, Result{}
		}
	}
	t.mailRefused, t.beginAnew, t.data = false, false, 0
	t.sent, t.due = stepMail, stepMail
	return t.offer()
}

// admit gives their results to the recipients for whom the peer need not be asked. It reports whether
// any remain.
func (t *transfer) admit() bool {
	whole := t.s.judgeMessage(t.env, t.content)
	remain := false
	for i := range t.rcpts {
		reply := whole
		if reply == nil {
			reply = t.s.judgeRcpt(t.env, i)
		}
		if reply == nil {
			remain = true
			continue
		}
		t.rcpts[i] = rcptLocal
		t.tx.Results[i] = Result{Reply: *reply, Local: true}
	}
	return remain
}

// maxUnanswered bounds the bytes of commands that are on their way. The peer answers while it reads, so
// with more it could wait for us to read while we wait for it (RFC 2920 section 3.1).
const maxUnanswered = 16 << 10

// offer holds the dialogue up to the reply to DATA. It returns false where the connection failed.
func (t *transfer) offer() bool {
	for {
		// With nothing unanswered, whatever is there would be taken for the reply to what comes next.
		if t.sent == t.due && t.s.unread() {
			t.drop(t.s.readFailure(t.command(t.due), 0, errUnasked))
			return false
		}
		t.gather()
		if t.sent == t.due {
			return true
		}
		t.flush()
		at, limit := t.due, t.timeout(t.due)
		r, err := t.s.readReply(limit)
		if err == nil {
			err = t.judge(at, &r)
		}
		if err != nil {
			t.drop(t.failure(at, limit, err))
			return false
		}
		t.due = t.next(at)
		if t.due == t.sent {
			t.unanswered = 0
			if t.writeErr != nil {
				t.drop(t.failure(at, limit, t.writeErr))
				return false
			}
		}
	}
}

// gather puts all commands into the buffer that may go out now.
func (t *transfer) gather() {
	for t.mayGather() {
		before := len(t.s.out)
		t.s.out = t.append(t.s.out, t.sent)
		n := len(t.s.out) - before
		t.s.endCommand(n)
		t.unanswered += n
		t.sent = t.next(t.sent)
	}
}

func (t *transfer) mayGather() bool {
	ahead := t.sent != t.due
	switch {
	case t.sent > t.stepData(), t.writeErr != nil, t.leaving != nil, t.mailRefused:
		return false
	case ahead && (!t.s.pipelines() || t.unanswered >= maxUnanswered):
		return false
	case !ahead && t.sent == t.stepData():
		return t.accepted > 0
	}
	// Once a group has filled the window, all of it is answered before the next begins.
	return !ahead || len(t.s.out) > 0
}

func (t *transfer) append(b []byte, at step) []byte {
	switch {
	case at == stepReset:
		return append(b, "RSET"...)
	case at == stepMail:
		return t.appendMail(b)
	case at == t.stepData():
		return append(b, "DATA"...)
	}
	return t.appendRcpt(b, &t.env.Rcpts[at-stepRcpt])
}

// flush writes what was gathered. A failed write is no verdict: the peer may have said why, and that is
// read first.
func (t *transfer) flush() {
	limit := t.timeout(t.due)
	if _, err := t.s.flush(limit); err != nil {
		t.writeErr, t.writeLimit = err, limit
	}
}

// failure says why the reply to a step did not come.
func (t *transfer) failure(at step, limit time.Duration, err error) *TransactionError {
	command := t.command(at)
	if refused, ok := err.(*TransactionError); ok {
		return refused
	}
	var failed *TransactionError
	if t.writeErr != nil && !isMalformed(err) {
		failed = t.s.writeFailure(command, t.writeLimit, t.writeErr)
	} else {
		failed = t.s.readFailure(command, limit, err)
	}
	if t.leaving != nil && failed.Kind != Killed {
		return left(command, t.leaving)
	}
	return failed
}

// left is the failure of what a peer left unanswered after a 421.
func left(command string, reply *Reply) *TransactionError {
	return &TransactionError{Command: command, Kind: Closed, Reply: reply,
		Err: fmt.Errorf("the peer is closing the connection: %s", reply)}
}

// judge draws the conclusions from the reply to a step. An error ends the transaction.
func (t *transfer) judge(at step, r *reply) error {
	if r.code == 421 {
		kept := r.keep()
		t.leaving, t.s.broken = &kept, true
	}
	if r.class() == 3 && at != t.stepData() {
		return errOutOfStep
	}
	switch {
	case at == stepReset:
		if r.class() != 2 {
			kept := r.keep()
			return &TransactionError{Command: "RSET", Kind: Refused, Reply: &kept,
				Err: fmt.Errorf("the peer answered RSET with %s", kept)}
		}
	case at == stepMail:
		if r.class() != 2 {
			t.mailRefused = true
			t.beginAnew = t.s.movesParams(t.env, r)
			t.decide("MAIL", r, rcptOpen)
		}
	case at == t.stepData():
		t.data = r.class()
		if t.data == 2 { // neither leave to send nor a refusal
			return errOutOfStep
		}
		if t.data != 3 {
			t.decide("DATA", r, rcptAccepted)
		}
	case at == t.stepDot():
	default:
		t.judgeRcpt(int(at-stepRcpt), r)
	}
	return nil
}

func (t *transfer) judgeRcpt(i int, r *reply) {
	if r.class() == 2 {
		t.accepted++
	}
	switch {
	case t.rcpts[i] != rcptOpen: // MAIL was refused, and that is what counts
	case r.class() == 2:
		t.rcpts[i] = rcptAccepted
	default:
		t.rcpts[i] = rcptDecided
		t.tx.Results[i] = Result{Reply: r.keep(), Command: "RCPT"}
	}
}

// decide gives a reply to all recipients that have come as far as state.
func (t *transfer) decide(command string, r *reply, state rcptState) {
	res := Result{Reply: r.keep(), Command: command}
	res.Accepted = command == "." && r.class() == 2
	for i := range t.rcpts {
		if t.rcpts[i] == state {
			t.rcpts[i] = rcptDecided
			t.tx.Results[i] = res
		}
	}
}

// drop ends the transaction and the session by a failure of the connection.
func (t *transfer) drop(err *TransactionError) {
	t.s.broken = true
	t.fail(err)
}

// fail gives an error to all recipients that no reply has decided.
func (t *transfer) fail(err *TransactionError) {
	for i := range t.rcpts {
		if t.rcpts[i] == rcptOpen || t.rcpts[i] == rcptAccepted {
			t.tx.Results[i] = Result{Command: err.Command, Err: err, MaybeDelivered: t.ended}
			t.tx.Err = err
			t.rcpts[i] = rcptDecided
		}
	}
}

// abandoned ends the transaction after a 421, when the replies that still came have been read.
func (t *transfer) abandoned() { t.drop(left(t.command(min(t.due, t.stepData())), t.leaving)) }
