package smtpclient

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// A session's transactions stand in one line, and two goroutines work along it while there is work: the
// writer (send.go) sends whatever may be sent, the reader (below) gives each reply to the step that is due.
// So neither side of the connection can fill up while the other waits. Who finds that the other has
// something to do starts it; both end by themselves.

// carefulAfter is a pause after which the connection may be gone without our knowing: the first message
// then sends its content only when its recipients were answered, so that nothing can be in doubt.
const carefulAfter = 5 * time.Second

// maxSpeculation is the largest content that is sent before it is known whether any recipient is taken.
const maxSpeculation = 128 << 10

// line is a queue of transfers.
type line struct {
	head, tail *transfer
	len        int
}

func (l *line) push(t *transfer) {
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
	l.len++
}

func (l *line) pop() *transfer {
	t := l.head
	l.head, t.next = t.next, nil
	if l.head == nil {
		l.tail = nil
	}
	l.len--
	return t
}

// remove takes t out of the line; false if it does not stand there.
func (l *line) remove(t *transfer) bool {
	var before *transfer
	for at := l.head; at != nil; before, at = at, at.next {
		if at != t {
			continue
		}
		if before == nil {
			l.pop()
			return true
		}
		before.next, t.next = t.next, nil
		if l.tail == t {
			l.tail = before
		}
		l.len--
		return true
	}
	return false
}

// enqueue lets a transfer stand in line.
func (s *Session) enqueue(t *transfer) *TransactionError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.killed.Load() {
		return unsent(fmt.Errorf("the session is not usable: %w", net.ErrClosed))
	}
	if s.full.Load() {
		return unsent(fmt.Errorf("the peer takes %d messages in a session: %w", s.maxMails, net.ErrClosed))
	}
	s.queue.push(t)
	s.count(1)
	s.kick()
	return nil
}

// count counts a transfer that is in line, or one that gave up waiting. The lock is held.
func (s *Session) count(n int) {
	s.taken += n
	if s.maxMails > 0 {
		s.full.Store(s.taken >= s.maxMails)
		s.reckon()
	}
}

// stop begins nothing more. What is under way goes on as far as it can without writing. The lock is
// held.
func (s *Session) stop() {
	s.stopped = true
	s.broken.Store(true)
}

// read gives each reply to the step that is due, until none is.
func (s *Session) read() {
	s.borrowIn()
	ready := s.armReader
	for {
		r, err := s.nextReply(ready)
		s.mu.Lock()
		s.log.received(s.in.lines)
		if err == nil {
			err = s.take(&r)
		}
		if err != nil {
			s.endReading(err)
			s.mu.Unlock()
			return
		}
		if s.flight.head == nil {
			s.rest()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// take gives a reply to the step that is due. An error ends the session. The lock is held.
func (s *Session) take(r *reply) error {
	t := s.flight.head
	if t.answered() && !t.inContent {
		return errUnasked
	}
	if s.log.trace.Reply != nil {
		s.showReply(t.command(t.due), r)
	}
	s.armed = false
	if t.answered() {
		return s.takeEarly(t, r)
	}
	if err := s.judge(t, r); err != nil {
		return err
	}
	for t != nil && t.answered() && s.over(t) {
		if t.cut {
			return bodyFailure(t.command(t.stepDot()), t.bodyErr)
		}
		s.finish(t)
		t = s.flight.head
	}
	switch {
	case t == nil || !t.answered() || t.inContent:
	case s.stopped:
		return errStopped // nothing more of it is sent, and so nothing more is answered
	case s.unasked():
		return errUnasked // it would be taken for the reply to what is sent next
	}
	s.kick()
	return nil
}

// showReply shows the reply that was due to the trace. The lock is held.
func (s *Session) showReply(command string, r *reply) {
	var took time.Duration
	if s.armed {
		took = s.clock() - s.dueSince
	}
	s.log.trace.Reply(command, r.keep(), took)
}

// unasked reports whether anything has arrived that answers nothing. The lock is held, by the reader.
func (s *Session) unasked() bool {
	if s.tls != nil {
		s.deadlined = true // unread sets one
	}
	return s.unread()
}

// errStopped ends a session in which nothing more can be sent.
var errStopped = errors.New("nothing more is sent on this connection")

// takeEarly judges a reply that comes before the content has ended. Only a refusal counts: a message
// whose end was not sent cannot have been accepted.
func (s *Session) takeEarly(t *transfer, r *reply) error {
	switch {
	case r.class() < 4:
		return errEarlyVerdict
	case t.chunked && unknownCommand(r.code):
		s.withoutChunks(t, r)
		return errStopped
	}
	t.decide(t.command(t.stepDot()), r, rcptAccepted)
	return errStopped // what was written must not be completed by anything
}

// over reports whether nothing more of a transfer will be sent, all that was sent having been answered.
// The lock is held.
func (s *Session) over(t *transfer) bool {
	switch {
	case t.whole:
		return t.due > t.stepDot()
	case t.inContent:
		return false
	case t.bodyErr != nil:
		return true
	case s.stopped:
		// What is left unanswered by a 421 ends with the connection.
		return t.undecided() == 0 || t.skip != nil
	}
	return !s.goesOn(t)
}

// undecided is the number of recipients without a result.
func (t *transfer) undecided() (n int) {
	for _, state := range t.rcpts {
		if state == rcptOpen || state == rcptAccepted {
			n++
		}
	}
	return n
}

// finish takes the first transfer from the line and wakes its caller. The lock is held.
func (s *Session) finish(t *transfer) {
	s.flight.pop()
	s.inFlight -= t.size
	if s.sending == t {
		s.sending = nil
	}
	s.finished++
	s.measure(t)
	if t.skip != nil {
		t.fail(t.skip, false, true)
	}
	if t.bodyErr != nil {
		t.fail(bodyFailure(t.command(t.stepDot()), t.bodyErr), false, false)
	}
	// Accepted or refused, the end of the data has ended the transaction (RFC 5321 section 4.1.1.4). A
	// refused BDAT has not (RFC 3030 section 2), nor has what stopped between MAIL and its content.
	s.open = !t.whole && !(t.mailRefused && t.accepted == 0) || t.chunked && t.verdict != 2
	if s.odd != nil {
		s.stop()
	}
	s.learn(t)
	if s.flight.head == nil || s.known.weight == 0 || s.maxMails > 0 {
		s.reckon() // before the caller asks
	}
	s.wake(t)
}

// wake hands a transfer that has its results to its caller, with the dialogue if it failed.
func (s *Session) wake(t *transfer) {
	for i := range t.tx.Results {
		if r := &t.tx.Results[i]; !r.Accepted && !r.Local {
			t.tx.Transcript = s.log.lines()
			break
		}
	}
	close(t.done)
}

// learn adapts the window to what became of a transfer. The lock is held.
func (s *Session) learn(t *transfer) {
	switch {
	case t.verdict != 2 || t.skip != nil:
		s.setWindow(1)
		return
	case t.speculative && !s.proven:
		s.proven = true
		s.peer.prove()
	}
	if s.window < s.maxWindow {
		s.setWindow(s.peer.widen(s.window, s.maxWindow))
	}
}

// armReader gives the reply that is due its time, before the reader waits for it.
func (s *Session) armReader() {
	s.mu.Lock()
	s.waits()
	s.armDue()
	s.mu.Unlock()
}

// armDue sets the deadline of the reply that is due, once for each, as soon as what it answers was written.
// Until then the writer's deadline counts. The lock is held.
func (s *Session) armDue() {
	if s.armed || !s.reading {
		return
	}
	t := s.flight.head
	if t == nil || t.answered() && s.writeErr == nil || s.flushed < t.end && s.writeErr == nil {
		if s.deadlined {
			s.conn.SetReadDeadline(time.Time{})
			s.deadlined = false
		}
		return
	}
	if s.log.trace.Reply != nil {
		s.dueSince = s.clock()
	}
	s.limit = s.timeout(t, t.due)
	s.conn.SetReadDeadline(time.Now().Add(s.limit))
	s.armed, s.deadlined = true, true
}

// rest ends the reader's work when everything is answered. The lock is held.
func (s *Session) rest() {
	s.reading, s.armed, s.deadlined = false, false, true
	s.heard = 0
	if !s.giveBackIn() {
		s.stop() // the peer said more than it was asked
	}
	s.restIfIdle()
}

// restIfIdle gives back what only a working session needs. The lock is held.
func (s *Session) restIfIdle() {
	if s.inBody != nil && s.failure != nil {
		s.bury() // nobody waits for a body that is not theirs
	}
	if s.reading || s.writing {
		return
	}
	s.log.giveBack()
	if s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
	if s.stopped && s.failure == nil {
		s.failure = errStopped
	}
	if s.failure != nil {
		s.bury()
	}
}

// endReading ends the session after a failure of the connection. The lock is held.
func (s *Session) endReading(err error) {
	s.stop()
	s.failure = err
	s.reading = false
	s.giveBackIn()
	s.raw.Close() // so that a write that is under way returns
	s.restIfIdle()
}

// bury settles all transfers that are left when the connection is gone, reader and writer included; only
// the one whose body is being read waits for that to end. The lock is held.
func (s *Session) bury() {
	if s.flight.head != nil && s.flight.head != s.inBody {
		s.buryFlight()
	}
	for s.queue.head != nil {
		t := s.queue.pop()
		t.fail(unsent(fmt.Errorf("the session ended first: %w", net.ErrClosed)), false, true)
		close(t.done)
	}
}

// buryFlight settles what was under way. The lock is held.
func (s *Session) buryFlight() {
	first := s.flight.head
	cause := s.epitaph(first)
	if inLine := s.flight.len > 1 || first.speculative; inLine && s.finished <= strikeLimit && cause.Kind != Killed && cause.Kind != Body {
		s.peer.strike()
	}
	skipped := &TransactionError{Command: "MAIL", Kind: Skipped, Err: fmt.Errorf("the connection failed at an earlier message: %w", cause)}
	doubtful := &TransactionError{Command: first.command(first.stepDot()), Kind: cause.Kind, Err: skipped.Err}
	if s.inBody == nil {
		s.sending = nil
	}
	for s.flight.head != s.inBody { // which is the last, where there is one
		t := s.flight.pop()
		// What the peer has whole it may have taken, unless it had said goodbye before it came to that.
		maybe := t.whole && s.flushed >= t.end && (!s.gone || t.verdict != 0)
		switch {
		case t.skip != nil && !maybe:
			t.fail(t.skip, false, true)
		case t == first && s.leaving != nil && !t.got421 && !maybe:
			t.fail(cause, false, true) // it stood behind the goodbye
		case t == first && (!s.gone || t.got421):
			// A peer that went before it said anything to this message did not go because of it.
			stale := t.due <= stepMail && s.finished > 0 && (cause.Kind == Closed || cause.Kind == Write)
			t.fail(cause, maybe, stale && !maybe)
		case maybe:
			t.fail(doubtful, true, false)
		default:
			t.fail(skipped, false, true)
		}
		s.wake(t)
	}
}

// strikeLimit is after how many messages the end of a session says nothing about its pipelining: many
// peers end sessions that have served enough.
const strikeLimit = 100

// epitaph says why the reply that a transfer waited for did not come. The lock is held.
func (s *Session) epitaph(t *transfer) *TransactionError {
	at := min(t.due, t.stepDot())
	if !t.whole && !t.inContent {
		at = min(at, t.stepData())
	}
	command := t.command(at)
	var refused *TransactionError
	var failed *TransactionError
	switch {
	case t.bodyErr != nil:
		return bodyFailure(t.command(t.stepDot()), t.bodyErr)
	case errors.As(s.failure, &refused):
		return refused
	case s.writeErr != nil && isTimeout(s.failure): // the peer did not say why
		failed = s.writeFailure(command, t.unanswered(), s.writeLimit, s.writeErr)
	default:
		failed = s.readFailure(command, s.limit, s.failure)
	}
	if s.leaving != nil && failed.Kind != Killed {
		return &TransactionError{Command: command, Kind: Closed, Reply: s.leaving, Err: left(s.leaving)}
	}
	return failed
}
