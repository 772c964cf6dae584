package smtpclient

import (
	"errors"
	"io"
	"runtime"
	"strconv"
	"time"
)

// maxCopied is the largest content that is copied behind its commands; a larger one that can be sent as
// it is, is written from where it lies.
const maxCopied = 16 << 10

// maxWritten is how much content is written at once from where it lies.
const maxWritten = 128 << 10

// kick starts the writer where there is something for it to do. The lock is held.
func (s *Session) kick() {
	if !s.writing && s.hasWork() {
		s.writing = true
		go s.writer()
	}
}

// hasWork reports whether the next step of any transfer may be sent now. The lock is held.
func (s *Session) hasWork() bool {
	switch {
	case s.stopped:
		return false
	case s.sending != nil:
		return s.goesOn(s.sending)
	}
	return s.queue.head != nil && s.begins(s.queue.head)
}

// begins reports whether a transfer may be begun now. The lock is held.
func (s *Session) begins(t *transfer) bool {
	last := s.flight.tail
	switch {
	case last == nil:
		return true
	case !s.pipelined || s.flight.len >= s.window || !last.whole || last.chunked != t.chunked:
		return false
	case t.chunked:
		// Where all recipients of the one before are refused its transaction stays open, and this content
		// would be taken under that one's sender: so RSET comes first.
		return !s.cfg.NoReset && s.inFlight+t.size <= maxFlightBytes
	}
	return true
}

// goesOn reports whether the next step of a transfer that was begun may be sent now. The lock is held.
func (s *Session) goesOn(t *transfer) bool {
	answered := t.answered()
	switch {
	case t.whole || t.bodyErr != nil || t.skip != nil:
		return false
	case !s.pipelined && !answered:
		return false
	case t.sent == t.stepDot() && !t.chunked:
		return t.data == 3
	case t.mailRefused || answered && t.offered() && t.accepted == 0:
		return false // there is nobody left to send to
	case t.sent == t.stepDot() && t.careful:
		return answered
	}
	return true
}

// beginNext takes the next transfer out of the queue. The lock is held.
func (s *Session) beginNext() *transfer {
	t := s.queue.pop()
	t.speculative = s.flight.head != nil
	t.from = s.groupBegun()
	pause := s.finished > 0 && !t.speculative && t.from-s.lastReply > carefulAfter
	if pause {
		s.refresh()
	}
	t.careful = !s.pipelined || t.size > maxSpeculation || pause
	t.sent = stepMail
	if s.open && !t.speculative || t.speculative && t.chunked {
		t.sent = stepReset
	}
	t.due = t.sent
	t.end = s.position()
	s.flight.push(t)
	s.inFlight += t.size
	s.sending = t
	return t
}

// position is where the next byte that is gathered stands in the stream. The lock is held, by the writer.
func (s *Session) position() int64 { return s.flushed + int64(len(s.out.bytes)) }

// write sends what may be sent, until nothing may.
func (s *Session) write() {
	runtime.Gosched() // callers that are about to run add their messages to the group
	s.borrowOut()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.hasWork():
			s.sendNext()
		case len(s.out.bytes) > 0:
			s.flushWith(nil)
		default:
			s.writing = false
			s.giveBackOut()
			s.restIfIdle()
			return
		}
	}
}

// sendNext gathers the next step. The lock is held.
func (s *Session) sendNext() {
	t := s.sending
	if t == nil {
		t = s.beginNext()
	}
	if t.sent == t.stepDot() {
		s.sendContent(t)
		return
	}
	before := len(s.out.bytes)
	s.out.bytes = s.append(s.out.bytes, t, t.sent)
	s.endCommand(len(s.out.bytes) - before)
	t.sent = t.after(t.sent)
	t.end = s.position()
	if len(s.out.bytes) >= outSize {
		s.flushWith(nil)
	}
}

func (s *Session) append(b []byte, t *transfer, at step) []byte {
	switch {
	case at == stepReset:
		return append(b, "RSET"...)
	case at == stepMail:
		return s.appendMail(b, t)
	case at == t.stepData():
		return append(b, "DATA"...)
	}
	return s.appendRcpt(b, &t.env.Rcpts[at-stepRcpt])
}

// flushWith writes what was gathered and what lies elsewhere behind it, with the lock released
// meanwhile. It reports whether all of it was taken. A failed write is no verdict: the peer may have said
// why, and the reader gets a moment for that. The lock is held.
func (s *Session) flushWith(behind []byte) bool {
	if s.writeErr != nil || s.failure != nil {
		s.out.bytes = s.out.bytes[:0]
		return false
	}
	if !s.reading {
		s.reading = true
		go s.reader()
	}
	gathered := s.out.bytes
	s.group = 0
	s.mu.Unlock()
	n, err := s.wire.write(gathered, behind, s.timeouts.Data)
	s.mu.Lock()
	s.flushed += n
	s.out.bytes = s.out.bytes[:0]
	if err == nil && n < int64(len(gathered)+len(behind)) {
		err = io.ErrShortWrite
	}
	if err != nil && s.failure == nil {
		s.writeErr, s.writeLimit = err, s.timeouts.Data
		s.stop()
		s.armed = false
	}
	s.armDue()
	return err == nil
}

// sendContent sends the content and its end. The lock is held.
func (s *Session) sendContent(t *transfer) {
	if t.accepted == 0 && !t.chunked {
		// The peer asked for data although it has refused every recipient (RFC 2920 section 3.1).
		s.command(".")
		s.ended(t)
		return
	}
	if t.chunked && t.careful && t.size <= maxSpeculation {
		s.countFromHere() // the next one in line does not wait for its recipients' replies
	}
	mark, at := len(s.out.bytes), s.flushed
	t.inContent, t.tx.ContentBegan = true, true
	if t.chunked {
		s.appendBDAT(t)
	}
	var err error
	switch c := t.content; {
	case !t.chunked && s.interrupted():
		err = errCut
	case c.open != nil:
		err = s.sendStream(t)
	case len(c.bytes) > maxCopied && c.asIs(t.kind):
		err = s.sendInPlace(t)
	default:
		err = s.sendBytes(t)
	}
	switch {
	case err == nil || err == errCut && (s.writeErr != nil || s.failure != nil):
		// It may be settled by now, or will be when the reader has learnt why.
	case err == errCut:
		t.inContent = false
		s.hangUp(t)
	default:
		s.failBody(t, err, mark, s.flushed > at)
	}
}

// errCut: the content is not to be sent further.
var errCut = errors.New("the connection is ending")

func (s *Session) appendBDAT(t *transfer) {
	before := len(s.out.bytes)
	s.out.bytes = append(s.out.bytes, "BDAT "...)
	s.out.bytes = strconv.AppendInt(s.out.bytes, t.size, 10)
	s.out.bytes = append(s.out.bytes, " LAST"...)
	s.endCommand(len(s.out.bytes) - before)
}

// ended notes that the end of the content is gathered, or goes out with the next write. The lock is held.
func (s *Session) ended(t *transfer) {
	t.whole, t.inContent = true, false
	t.end = s.position()
	t.sent = t.stepDot() + 1
	s.sending = nil
}

// failBody ends a transfer whose body failed. Where nothing of the content has left, the transaction can
// be given up in an orderly way; else the peer waits for the rest and must not take what it has for a
// message: the connection ends as soon as those ahead in line are answered. The lock is held.
func (s *Session) failBody(t *transfer, err error, mark int, left bool) {
	t.bodyErr, t.inContent = err, false
	s.sending = nil
	if left {
		s.out.bytes = s.out.bytes[:0]
	} else {
		s.out.bytes = s.out.bytes[:mark]
		t.tx.ContentBegan = false
	}
	t.cut = left || !t.chunked || t.answered()
	if t.cut {
		s.stop()
		s.hangUp(t)
	}
}

// hangUp cuts the connection where a transfer that cannot go on is all that the reader waits for. The lock
// is held.
func (s *Session) hangUp(t *transfer) {
	if s.flight.head == t && t.answered() {
		s.raw.Close()
	}
}

// recordWait is how long the reader gets for what has arrived before the content has ended.
const recordWait = 100 * time.Millisecond

// interrupted looks whether the peer has spoken or closed before the end of the data. A reply that comes
// then is not the one to that end, and would put everything after it out of step. The reader judges it;
// TLS may also have something to say to itself. The lock is held.
func (s *Session) interrupted() bool {
	for wait := recordWait; wait > 0 && !s.stopped; wait -= time.Millisecond {
		if n, err := s.peek(s.out.look[:]); n == 0 && err == nil {
			break
		}
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
		s.mu.Lock()
	}
	return s.stopped
}

// sendBytes encodes a content that lies in memory. The lock is held.
func (s *Session) sendBytes(t *transfer) error {
	e := encoder{kind: t.kind}
	src := t.content.bytes
	if t.content.asIs(t.kind) {
		s.out.bytes = append(s.out.bytes, src...)
		e.pass(src)
		src = nil
	}
	for len(src) > 0 {
		n := min(len(src), blockSize)
		if err := s.encode(t, &e, src[:n]); err != nil {
			return err
		}
		src = src[n:]
	}
	return s.sendEnd(t, &e)
}

// encode gathers a block of content, and writes what was gathered when the buffer is full. The lock is
// held.
func (s *Session) encode(t *transfer, e *encoder, block []byte) error {
	if s.stopped {
		return errCut
	}
	// A body that has become longer must not complete the chunk that was declared: the rest would be read
	// as commands.
	if len(s.out.bytes)+2*len(block)+1 > outSize {
		if e.written >= t.size {
			return errBodyChanged
		}
		t.end = s.position()
		if t.content.open != nil {
			s.countFromHere()
		}
		if !s.flushWith(nil) {
			return errCut
		}
	}
	s.out.bytes = e.add(s.out.bytes, block)
	if e.written > t.size {
		return errBodyChanged
	}
	return nil
}

// sendInPlace writes a large content from where it lies. The lock is held.
func (s *Session) sendInPlace(t *transfer) error {
	e := encoder{kind: t.kind}
	rest := t.content.bytes
	e.pass(rest)
	for {
		if s.stopped {
			return errCut
		}
		piece := rest[:min(len(rest), maxWritten)]
		rest = rest[len(piece):]
		if len(rest) == 0 && t.chunked && !e.midLine {
			// This is the end: from the write on the reply may come, and t be settled.
			s.sentContent(t.size)
			s.ended(t)
			t.end += int64(len(piece))
			s.flushWith(piece)
			return nil
		}
		t.end = s.position() + int64(len(piece))
		if !s.flushWith(piece) {
			return errCut
		}
		if len(rest) == 0 {
			return s.sendEnd(t, &e)
		}
	}
}

// sendStream encodes a content that is read from its body, with the lock released while it is read. The
// lock is held.
func (s *Session) sendStream(t *transfer) (err error) {
	e := encoder{kind: t.kind}
	s.inBody = t
	s.mu.Unlock()
	err = t.readBody(s.out.borrowBlock(), func(block []byte) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inBody = nil
		err := s.encode(t, &e, block)
		s.inBody = t
		return err
	})
	s.mu.Lock()
	s.inBody = nil
	if err != nil {
		return err
	}
	s.countFromHere() // the time of the body was not the peer's
	return s.sendEnd(t, &e)
}

// readBody reads the content. What its reader panics with is kept for the caller whose body it is.
func (t *transfer) readBody(block []byte, take func([]byte) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.panicked = p
			err = errors.New("the body's reader panicked")
		}
	}()
	return t.content.read(block, take)
}

var errBodyChanged = errors.New("the body reads differently than it did before")

// sendEnd gathers the end of the content, so that it goes out together with what follows. The lock is
// held.
func (s *Session) sendEnd(t *transfer, e *encoder) error {
	if s.stopped {
		return errCut
	}
	s.out.bytes = e.end(s.out.bytes)
	if e.written != t.size { // not what was declared, nor what was inspected
		return errBodyChanged
	}
	if !t.chunked && e.written > outSize && s.interrupted() {
		return errCut
	}
	s.sentContent(e.written)
	if !t.chunked {
		s.log.sent([]byte("."))
	}
	s.ended(t)
	return nil
}
