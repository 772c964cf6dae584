package smtpclient

import (
	"cmp"
	"errors"
	"io"
	"time"
)

// loneDot ends the data that a peer asked for although it has refused every recipient (RFC 2920 section
// 3.1). What it answers changes no result.
func (t *transfer) loneDot() {
	t.s.command(".")
	if _, err := t.s.flush(t.s.timeouts.Data); err != nil {
		t.s.broken = true
		return
	}
	if r, err := t.s.readReply(t.s.timeouts.Data); err != nil || r.code == 421 || r.class() == 3 {
		t.s.broken = true
	}
}

// deliver sends the content and reads the verdict.
func (t *transfer) deliver() {
	failed := t.sendContent()
	if failed != nil {
		t.s.sent([]byte("[content without its end]"))
	}
	switch {
	case failed == nil:
		t.verdict()
	case failed.Kind == Body:
		// The peer waits for the rest and must not take what it has for a message.
		t.drop(failed)
		t.s.kill()
	default:
		t.refusedEarly(failed)
	}
}

// refusedEarly reads why a peer stopped taking the content. Only a refusal counts: a message whose end
// was not sent cannot have been accepted.
func (t *transfer) refusedEarly(failed *TransactionError) {
	r, err := t.s.readReply(farewell)
	switch {
	case err == nil && r.class() >= 4:
		t.decide(".", &r, rcptAccepted)
	case err == nil:
		failed = t.s.readFailure(".", farewell, errEarlyVerdict)
	case isMalformed(err):
		failed = t.s.readFailure(".", farewell, err)
	}
	t.drop(failed)
	t.s.kill() // what was written must not be completed by anything
}

// recordWait is how long the rest of a TLS record may take whose beginning is there.
const recordWait = 100 * time.Millisecond

// interrupted looks whether the peer has spoken or closed before the content ended. A reply that comes
// then is not the one to its end, and would put everything after it out of step.
func (t *transfer) interrupted() *TransactionError {
	n, err := peek(t.s.raw, t.s.in[:1])
	if n > 0 && err == nil {
		t.s.arm(recordWait)
		err = t.s.fill()
		if t.s.tls != nil && isTimeout(err) {
			return nil // what came was TLS's own business
		}
	}
	if t.s.unread() {
		err = errUnasked
	}
	if err != nil {
		return t.s.readFailure(".", recordWait, err)
	}
	return nil
}

// verdict reads the reply to the end of the data; with LMTP one for each accepted recipient, in the
// order in which they were offered (RFC 2033 section 4.2).
func (t *transfer) verdict() {
	for i := range t.rcpts {
		if t.rcpts[i] != rcptAccepted {
			continue
		}
		limit := t.timeout(t.stepDot())
		r, err := t.s.readReply(limit)
		if err == nil {
			err = t.judge(t.stepDot(), &r)
		}
		if err != nil {
			t.drop(t.failure(t.stepDot(), limit, err))
			return
		}
		if !t.s.cfg.LMTP {
			t.decide(".", &r, rcptAccepted)
			break
		}
		t.rcpts[i] = rcptDecided
		t.tx.Results[i] = Result{Accepted: r.class() == 2, Reply: r.keep(), Command: "."}
	}
	// Accepted or refused, the end of the data has ended the transaction (RFC 5321 section 4.1.1.4).
	t.s.open = false
}

// sendContent writes the content and its end. After a failure the end has not been sent, or not all of
// it.
func (t *transfer) sendContent() *TransactionError {
	c := t.content
	switch {
	case c.open != nil:
		return t.sendStream()
	case c.asIs(dotted):
		return t.sendAsIs(c.bytes)
	}
	var e encoder
	if failed := t.encode(&e, c.bytes); failed != nil {
		return failed
	}
	return t.sendEnd(&e)
}

// sendAsIs sends what needs no encoding: a small content together with its end, most of a large one from
// where it lies.
func (t *transfer) sendAsIs(b []byte) *TransactionError {
	var e encoder
	e.pass(b)
	for len(b) > outSize/2 {
		n := min(len(b), outSize)
		if failed := t.put(b[:n]); failed != nil {
			return failed
		}
		b = b[n:]
	}
	t.s.out = append(t.s.out, b...)
	return t.sendEnd(&e)
}

// encode puts a part of the content into the buffer, and writes the buffer when it is full.
func (t *transfer) encode(e *encoder, src []byte) *TransactionError {
	for len(src) > 0 {
		n := min(len(src), blockSize)
		if len(t.s.out)+2*n+1 > outSize {
			if failed := t.put(t.s.out); failed != nil {
				return failed
			}
			t.s.out = t.s.out[:0]
		}
		t.s.out = e.add(t.s.out, src[:n])
		src = src[n:]
	}
	return nil
}

func (t *transfer) sendStream() *TransactionError {
	var e encoder
	err := t.content.read(t.s.borrowBlock(), func(block []byte) error {
		if failed := t.encode(&e, block); failed != nil {
			return failed
		}
		return nil
	})
	var failed *TransactionError
	switch {
	case errors.As(err, &failed):
		return failed
	case err != nil:
		return bodyFailure(".", err)
	}
	return t.sendEnd(&e)
}

var errBodyChanged = errors.New("the body reads differently than it did before")

// sendEnd writes what is left of the content, and its end.
func (t *transfer) sendEnd(e *encoder) *TransactionError {
	t.s.out = e.end(t.s.out)
	if e.written != t.content.wireSize { // not what was declared, nor what was inspected
		return bodyFailure(".", errBodyChanged)
	}
	failed := t.put(t.s.out)
	t.ended = failed == nil
	if t.ended {
		t.s.sentContent(e.written)
	}
	t.s.out = t.s.out[:0]
	return failed
}

// put writes a block of content. Each block has a time of its own: a slow peer is not cut off and one
// that has stopped does not hold us for ever.
func (t *transfer) put(b []byte) *TransactionError {
	if t.tx.ContentBegan {
		if failed := t.interrupted(); failed != nil {
			return failed
		}
	}
	t.tx.ContentBegan = true
	limit := t.s.timeouts.Data
	n, err := t.s.write(b, limit)
	if n < len(b) {
		return t.s.writeFailure(".", limit, cmp.Or(err, io.ErrShortWrite))
	}
	return nil // an error behind the last byte shows with the next
}

func bodyFailure(command string, err error) *TransactionError {
	return &TransactionError{Command: command, Kind: Body, Err: err}
}
