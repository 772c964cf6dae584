package smtpclient

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Transaction is what became of one Send.
type Transaction struct {
	// Results has one result for each recipient of the envelope, in its order.
	Results []Result
	// Err is the failure that left recipients without a deciding reply; nil if each has one.
	Err *TransactionError
	// ContentBegan: a byte of the content may have left.
	ContentBegan bool
	// Again: the transaction failed for a reason that is not this message's own, and no recipient that is
	// still without a reply of its own can have been accepted. The message may be sent to those again at
	// once, over this session where it is usable, else over another.
	Again bool
	// Transcript holds the last lines of the dialogue at the moment when a recipient turned out not to be
	// accepted; nil where all were, or where the peer was not asked. See [Session.Transcript].
	Transcript []string
}

// Result is what became of one recipient.
type Result struct {
	// Accepted: the peer has taken responsibility for this recipient.
	Accepted bool
	// Reply is the reply that decided: the recipient's own where its RCPT was refused, whatever came
	// after. It is zero where Err is set.
	Reply Reply
	// Command is what Reply answers, or what was under way when Err happened: "RSET", "MAIL", "RCPT",
	// "DATA", "." for the end of the data, "BDAT" for content that was sent so; "" where Local.
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

// transfer is a transaction in line or under way. Its steps are RSET, MAIL, one RCPT for each recipient,
// DATA where the content is not sent by BDAT, and the content with its end. Two cursors run over the
// steps: sent is the next one to send, due the one whose reply comes next. With PIPELINING the first
// runs ahead of the second, without it waits for it.
//
// All fields are guarded by the session's lock, but for those that are set before the transfer stands in
// line.
type transfer struct {
	env     *Envelope
	content *Content
	tx      *Transaction
	rcpts   []rcptState
	kind    encoding // of the content
	chunked bool     // it goes by BDAT
	size    int64    // as RFC 1870 section 3 counts it
	lmtp    bool
	done    chan struct{}
	next    *transfer // behind it in line

	sent, due   step
	from        time.Duration // on the session's clock, when its time at the peer began, but for the way there
	end         int64         // where in the stream of all that was sent its last byte stands so far
	whole       bool          // that is the end of the content
	inContent   bool          // the writer is sending the content
	speculative bool          // it was begun before the one ahead of it was answered
	careful     bool          // the content waits for the replies to the recipients
	withParams  bool          // its MAIL has parameters that some peers read at RCPT
	mailRefused bool
	accepted    int               // recipients that were accepted by RCPT
	data        int               // the first digit of the reply to DATA; 0 before
	ends        int               // replies to the end of the content
	verdict     int               // the first digit of the reply to the end of the content; 0 before
	skip        *TransactionError // it is going to be refused for what another did, or was not begun soundly
	bodyErr     error             // what the body failed with
	cut         bool              // the connection has to end, so that nothing completes the content
	got421      bool              // the peer said goodbye to it
	panicked    any               // what the body's reader panicked with
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
	case at < t.stepData():
		return "RCPT"
	case t.chunked:
		return "BDAT"
	case at == t.stepData():
		return "DATA"
	}
	return "."
}

// after is the step after one, without the recipients that are not offered.
func (t *transfer) after(at step) step {
	for at++; at >= stepRcpt && at < t.stepData() && t.rcpts[at-stepRcpt] == rcptLocal; at++ {
	}
	if t.chunked && at == t.stepData() {
		at++
	}
	return at
}

// answered reports whether the peer has answered all of it that was sent.
func (t *transfer) answered() bool { return t.due == t.sent }

// offered reports whether every recipient was answered.
func (t *transfer) offered() bool { return t.due >= t.stepData() }

// transfers are used again, but not their channels: those belong to the bubble of the test that made them.
var transfers = sync.Pool{New: func() any { return new(transfer) }}

func newTransfer(env *Envelope, c *Content) *transfer {
	t := transfers.Get().(*transfer)
	rcpts := t.rcpts[:0]
	for range env.Rcpts {
		rcpts = append(rcpts, rcptOpen)
	}
	*t = transfer{env: env, content: c, rcpts: rcpts, done: make(chan struct{}), tx: newTransaction(len(env.Rcpts))}
	return t
}

// newTransaction makes room for the results of n recipients, for one together with the transaction.
func newTransaction(n int) *Transaction {
	if n != 1 {
		return &Transaction{Results: make([]Result, n)}
	}
	both := new(struct {
		tx  Transaction
		one [1]Result
	})
	both.tx.Results = both.one[:]
	return &both.tx
}

// settled takes the result out of a transfer that stands in no line any more.
func (t *transfer) settled() *Transaction {
	tx, panicked := t.tx, t.panicked
	rcpts := t.rcpts
	*t = transfer{rcpts: rcpts}
	if cap(rcpts) <= 1024 {
		transfers.Put(t)
	}
	if panicked != nil {
		panic(panicked) // the body is the caller's, and so is its panic
	}
	return tx
}

// admit gives their results to the recipients for whom the peer need not be asked. It reports whether
// any remain.
func (s *Session) admit(t *transfer) bool {
	whole := s.judgeMessage(t.env, t.content)
	remain := false
	for i := range t.rcpts {
		reply := whole
		if reply == nil {
			reply = s.judgeRcpt(t.env, i)
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

// timeout is how long the reply to a step may take. A peer that is leaving, or that we can no longer
// write to, gets the time of a last word.
func (s *Session) timeout(t *transfer, at step) time.Duration {
	limits := &s.timeouts
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
	if s.leaving != nil && at != t.stepDot() || s.writeErr != nil { // LMTP says 421 for one of several too
		return min(limit, farewell)
	}
	return limit
}

// judge draws the conclusions from the reply to the step that is due. An error ends the session.
func (s *Session) judge(t *transfer, r *reply) error {
	at := t.due
	if r.class() == 3 && at != t.stepData() {
		return errOutOfStep
	}
	switch {
	case r.code == 421 && !(t.lmtp && at == t.stepDot()):
		s.leave421(t, r)
	case r.class() < 4:
		s.gone = false // whatever was said before, the peer works on
	}
	switch {
	case at == stepReset:
		if s.judgeReset(t, r); t.skip != nil && !t.chunked {
			return errStopped // no content has left
		}
	case at == stepMail:
		s.judgeMail(t, r)
	case at < t.stepData():
		t.judgeRcpt(int(at-stepRcpt), r)
	case at == t.stepDot():
		return s.judgeEnd(t, r)
	default:
		return s.judgeData(t, r)
	}
	t.due = t.after(at)
	return nil
}

// leave421 takes a goodbye down. What stands behind it in line is not accepted (RFC 5321 section 3.8).
func (s *Session) leave421(t *transfer, r *reply) {
	if s.leaving == nil {
		kept := r.keep()
		s.leaving = &kept
	}
	t.got421, s.gone = true, true
	s.stop()
	// A goodbye before anything of this message was answered has nothing to do with the message.
	if t.due <= stepMail && s.finished > 0 {
		t.disown(t.command(t.due), Closed, s.leaving, left(s.leaving))
	}
}

// left is what a peer leaves unanswered after a 421.
func left(reply *Reply) error {
	return fmt.Errorf("the peer is closing the connection: %s", reply)
}

// disown notes that the transfer is not going to be judged by its own merits.
func (t *transfer) disown(command string, kind Kind, reply *Reply, why error) {
	if t.skip == nil {
		t.skip = &TransactionError{Command: command, Kind: kind, Reply: reply, Err: why}
	}
}

func (s *Session) judgeReset(t *transfer, r *reply) {
	if r.class() == 2 || t.skip != nil {
		return
	}
	// Whose transaction is open now, only the peer knows.
	kept := r.keep()
	t.disown("RSET", Refused, &kept, fmt.Errorf("the peer answered RSET with %s", kept))
	s.stop()
	if t.speculative {
		s.peer.strike()
	}
}

func (s *Session) judgeMail(t *transfer, r *reply) {
	if r.class() == 2 {
		return
	}
	t.mailRefused = true
	switch {
	case t.skip != nil:
	case t.withParams && s.movesParams(r):
		kept := r.keep()
		t.disown("MAIL", Refused, &kept, fmt.Errorf("the peer reads the parameters of MAIL elsewhere: %s", kept))
	case r.code == 503 && t.speculative:
		// Out of sequence, in a peer's view that wants to be waited for.
		kept := r.keep()
		t.disown("MAIL", Skipped, &kept, fmt.Errorf("the peer takes one message at a time: %s", kept))
		s.peer.rejectOverlap()
		s.window = 1
	default:
		t.decide("MAIL", r, rcptOpen)
	}
}

func (t *transfer) judgeRcpt(i int, r *reply) {
	if r.class() == 2 {
		t.accepted++
	}
	switch {
	case t.rcpts[i] != rcptOpen: // MAIL was refused, and that is what counts
	case r.class() == 2:
		t.rcpts[i] = rcptAccepted
	case t.skip != nil: // that is what counts
	default:
		t.rcpts[i] = rcptDecided
		t.tx.Results[i] = Result{Reply: r.keep(), Command: "RCPT"}
	}
}

func (s *Session) judgeData(t *transfer, r *reply) error {
	t.data = r.class()
	if t.data == 2 { // neither leave to send nor a refusal
		return errOutOfStep
	}
	t.due = t.after(t.due)
	switch {
	case t.data == 3 && (t.skip != nil || t.mailRefused && t.accepted > 0):
		// Whose transaction these recipients are in, only the peer knows: it must not end.
		s.stop()
	case t.data == 3 && t.lmtp && t.accepted == 0:
		s.stop() // nobody would answer the end of the data (RFC 2033 section 4.2)
	case t.data == 3:
	case t.skip == nil:
		t.decide("DATA", r, rcptAccepted)
	}
	return nil
}

// judgeEnd draws the conclusions from the reply to the end of the content; with LMTP one for each
// accepted recipient, in the order in which they were offered (RFC 2033 section 4.2).
func (s *Session) judgeEnd(t *transfer, r *reply) error {
	command := t.command(t.due)
	if t.verdict == 0 || r.class() == 2 {
		t.verdict = r.class()
	}
	t.ends++
	unknown := t.chunked && t.ends == 1 && unknownCommand(r.code)
	if !t.lmtp || t.ends >= t.accepted || unknown {
		t.due++
	}
	switch {
	case t.skip != nil || t.mailRefused:
		if r.class() == 2 {
			s.acceptedUnasked(t)
		}
	case t.accepted == 0:
		if r.class() == 2 {
			s.stop() // a message for nobody
		}
	case unknown:
		s.withoutChunks(t, r)
	case t.lmtp:
		s.judgeOne(t, command, r)
	default:
		t.decide(command, r, rcptAccepted)
	}
	return nil
}

// withoutChunks notes that the peer does not know the BDAT that it offers.
func (s *Session) withoutChunks(t *transfer, r *reply) {
	kept := r.keep()
	t.disown("BDAT", Skipped, &kept, fmt.Errorf("the peer offers CHUNKING and answers BDAT with %s", kept))
	s.peer.rejectChunks()
	s.stop()
}

// judgeOne gives a reply to the next recipient that has none.
func (s *Session) judgeOne(t *transfer, command string, r *reply) {
	for i := range t.rcpts {
		if t.rcpts[i] == rcptAccepted {
			t.rcpts[i] = rcptDecided
			t.tx.Results[i] = Result{Accepted: r.class() == 2, Reply: r.keep(), Command: command}
			break
		}
	}
	if r.code == 421 {
		s.leave421(t, r)
	}
}

// unknownCommand reports whether a reply means that the peer does not know the command (RFC 5321 section
// 4.2.4) or wants it elsewhere.
func unknownCommand(code int) bool { return code == 500 || code == 502 || code == 503 }

// acceptedUnasked: the peer took content whose RSET or MAIL it had not accepted. It has the message, under
// a sender that may be another message's.
func (s *Session) acceptedUnasked(t *transfer) {
	s.stop()
	err := &TransactionError{Command: t.command(t.stepDot()), Kind: Malformed,
		Err: fmt.Errorf("the peer accepted the content of a transaction that it had not begun: %w", errOutOfStep)}
	t.tx.Err, t.tx.Again, t.skip = err, false, nil
	for i := range t.rcpts {
		if t.rcpts[i] == rcptOpen || t.rcpts[i] == rcptAccepted || t.tx.Results[i].Command == "MAIL" {
			t.tx.Results[i] = Result{Command: err.Command, Err: err, MaybeDelivered: true}
			t.rcpts[i] = rcptDecided
		}
	}
}

// decide gives a reply to all recipients that have come as far as state.
func (t *transfer) decide(command string, r *reply, state rcptState) {
	res := Result{Reply: r.keep(), Command: command}
	res.Accepted = r.class() == 2
	for i := range t.rcpts {
		if t.rcpts[i] == state {
			t.rcpts[i] = rcptDecided
			t.tx.Results[i] = res
		}
	}
}

// fail gives an error to all recipients that no reply has decided.
func (t *transfer) fail(err *TransactionError, maybe, again bool) {
	for i := range t.rcpts {
		if t.rcpts[i] == rcptOpen || t.rcpts[i] == rcptAccepted {
			t.tx.Results[i] = Result{Command: err.Command, Err: err, MaybeDelivered: maybe}
			t.tx.Err, t.tx.Again = err, again
			t.rcpts[i] = rcptDecided
		}
	}
}

func bodyFailure(command string, err error) *TransactionError {
	return &TransactionError{Command: command, Kind: Body, Err: err}
}

// unsent is the failure of a transfer that never began.
func unsent(err error) *TransactionError {
	return &TransactionError{Command: "MAIL", Kind: Unsent, Err: err}
}

// Send offers a message to the recipients of an envelope and, where the peer accepts any, sends it to
// them: one transaction. It returns when every recipient has its result, within the config's timeouts;
// Close cuts it short. It sends the content at most once and never tries anything again.
//
// It is safe for concurrent use: calls made at the same time share the session. Where the peer offers
// CHUNKING and PIPELINING, whole transactions go out before the first of them is answered (RFC 3030
// section 4.2); with PIPELINING alone, the content of one goes out together with the commands of the next
// (RFC 2920 section 3.1). The end of ctx ends only the wait before the first byte of the transaction; what
// has begun is finished.
func (s *Session) Send(ctx context.Context, env *Envelope, c *Content) *Transaction {
	t := newTransfer(env, c)
	if err := c.Inspect(ctx); err != nil {
		if ctx.Err() != nil {
			t.fail(unsent(err), false, true)
		} else {
			t.fail(bodyFailure("MAIL", err), false, false)
		}
		return t.settled()
	}
	if !s.admit(t) {
		return t.settled()
	}
	t.lmtp = s.cfg.LMTP
	t.kind = s.encoding(env)
	t.chunked = t.kind != dotted
	t.size = c.sizeAs(t.kind)
	if err := s.enqueue(t); err != nil {
		t.fail(err, false, true)
		return t.settled()
	}
	s.await(ctx, t)
	return t.settled()
}

// encoding is how the content of a message is going to be sent.
func (s *Session) encoding(env *Envelope) encoding {
	switch {
	case env.binary(): // admitted only where the peer takes it
		return verbatim
	case s.chunks:
		return chunked
	}
	return dotted
}

// await waits until the transfer has its results, or until ctx ends before it has begun.
func (s *Session) await(ctx context.Context, t *transfer) {
	gaveUp := ctx.Done()
	if gaveUp == nil {
		<-t.done
		return
	}
	select {
	case <-t.done:
		return
	case <-gaveUp:
	}
	s.mu.Lock()
	begun := !s.queue.remove(t)
	if !begun {
		s.count(-1)
	}
	s.mu.Unlock()
	if begun {
		<-t.done
		return
	}
	t.fail(unsent(context.Cause(ctx)), false, true)
}
