package smtpclient

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"testing"
)

// modelBook holds what callers were told against what the peers took.
//
// Each attempt at a message has a sender of its own, so that every copy at a peer belongs to one call of
// Send. For each recipient of each call this must hold in the end, where the same address may be there
// twice: accepted <= copies <= accepted + maybe delivered.
type modelBook struct {
	t      testing.TB
	name   string // how to run it again
	detail string
	seed   maphash.Seed
	// shifted: the peer says more than it is asked, and replies are not where they belong.
	shifted bool
	// maxFlying is how many messages may be on their way in one connection.
	maxFlying int

	mu       sync.Mutex
	messages []*modelMessage
	failures int
	peek     []byte
	counts   modelCounts
}

// modelCounts say what a run has seen.
type modelCounts struct {
	messages, calls, sessions                      int
	accepted, refused, local, failed, again, maybe int
	unsent, strays, twice, deepest, peeked         int
}

// modelMessage is a message as the callers know it.
type modelMessage struct {
	number   int
	bad      bool // its body fails, or is not what it says
	hash     uint64
	size     int64
	rcpts    []modelAddress // the same one may be there twice
	attempts []*modelAttempt
}

// modelAttempt is one call of Send.
type modelAttempt struct {
	offered [modelMaxRcpts]int // how often each recipient was
	// What the caller was told; ended says that it was.
	ended           bool
	accepted, maybe [modelMaxRcpts]int
	// What the peers took under this sender. strays are copies that a peer took under another sender,
	// because it refused RSET.
	copies, strays [modelMaxRcpts]int
}

const modelMaxRcpts = 5

// failf reports a failure, with the dialogue around a message.
func (b *modelBook) failf(p *modelPeer, message int, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail(p, message, format, args...)
}

func (b *modelBook) fail(p *modelPeer, message int, format string, args ...any) {
	b.t.Helper()
	if b.failures++; b.failures > 3 {
		return
	}
	var dialogue string
	if p != nil && b.failures == 1 {
		dialogue = fmt.Sprintf("\n%s\nconnection %d, %+v:\n  %s", b.detail, p.number, p.offers,
			strings.Join(p.log.around(fmt.Sprintf("m%d.", message)), "\n  "))
	}
	b.t.Errorf("message %d: %s\n%s%s", message, fmt.Sprintf(format, args...), b.name, dialogue)
}

func (b *modelBook) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures > 0
}

// add gives a message its number.
func (b *modelBook) add(m *modelMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.number = len(b.messages)
	b.messages = append(b.messages, m)
}

// begin opens the books for a call of Send with these recipients.
func (b *modelBook) begin(m *modelMessage, rcpts []modelAddress) (attempt int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := &modelAttempt{}
	for _, r := range rcpts {
		a.offered[r.index]++
	}
	m.attempts = append(m.attempts, a)
	b.counts.calls++
	return len(m.attempts) - 1
}

func (b *modelBook) countSession() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.sessions++
}

// at finds the attempt that a sender stands for.
func (b *modelBook) at(sender modelAddress) (*modelMessage, *modelAttempt) {
	if sender.message >= len(b.messages) || sender.index >= len(b.messages[sender.message].attempts) {
		return nil, nil
	}
	m := b.messages[sender.message]
	return m, m.attempts[sender.index]
}

// came checks a content whose end has come, before the peer has said anything to it.
func (b *modelBook) came(p *modelPeer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, a := b.at(p.asked)
	switch {
	case a == nil:
		b.fail(p, p.asked.message, "nobody has sent %v", p.asked)
	case m.bad:
		b.fail(p, m.number, "the end of a bad body was sent")
	case m.hash != p.hash.Sum64() || m.size != p.size:
		b.fail(p, m.number, "%d bytes of content came instead of %d, or others", p.size, m.size)
	}
	if p.in.Buffered() > 0 && !b.shifted {
		b.countFlying(p)
	}
}

// countFlying counts the messages that have come behind the one which is not answered yet.
func (b *modelBook) countFlying(p *modelPeer) {
	const pipeSize = 128 << 10
	ahead, _ := p.in.Peek(p.in.Buffered())
	if cap(b.peek) == 0 {
		b.peek = make([]byte, 2*pipeSize)
	}
	b.peek = append(b.peek[:0], ahead...)
	n, _ := p.raw.Peek(b.peek[len(ahead) : len(ahead)+pipeSize])
	flying := 1 + bytes.Count(b.peek[:len(ahead)+n], []byte("MAIL FROM:<m"))
	b.counts.deepest = max(b.counts.deepest, flying)
	b.counts.peeked++
	if flying > b.maxFlying {
		b.fail(p, p.asked.message, "%d messages are on their way, and no more than %d may be", flying, b.maxFlying)
	}
}

// take books what a peer takes for these recipients of its transaction.
func (b *modelBook) take(p *modelPeer, rcpts []modelAddress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hash := p.hash.Sum64()
	m, a := b.at(p.from)
	if p.asked != p.from && !(p.tainted && m != nil) || m == nil {
		b.fail(p, p.asked.message, "taken under the sender %s", p.from.sender())
		return
	}
	stray := p.asked != p.from
	if stray {
		b.counts.strays++
		m, a = b.at(p.asked)
	}
	if m.hash != hash {
		b.fail(p, m.number, "taken with another content")
	}
	for _, r := range rcpts {
		switch {
		case r.message != m.number:
			if !p.tainted {
				b.fail(p, m.number, "taken for %s", r.rcpt())
			}
		case r.index >= modelMaxRcpts || a.offered[r.index] == 0:
			b.fail(p, m.number, "taken for %s, who is not in this call", r.rcpt())
		case stray:
			a.strays[r.index]++
		default:
			a.copies[r.index]++
		}
	}
	if a.ended {
		b.check(p, m, a, false)
	}
}

// check compares what a caller was told with what was taken until now, or in the end.
func (b *modelBook) check(p *modelPeer, m *modelMessage, a *modelAttempt, whole bool) {
	for i := range a.offered {
		most := a.accepted[i] + a.maybe[i]
		switch {
		case a.copies[i]+a.strays[i] > most || a.strays[i] > a.maybe[i]:
			b.fail(p, m.number, "recipient %d: the peer holds %d copies and %d under another sender; the caller was told of %d accepted and %d maybe delivered",
				i, a.copies[i], a.strays[i], a.accepted[i], a.maybe[i])
		case a.copies[i] < a.accepted[i] && !(b.shifted && !whole):
			b.fail(p, m.number, "recipient %d: %d accepted, and the peer holds %d copies", i, a.accepted[i], a.copies[i])
		}
	}
}

// end books what Send has told a caller.
func (b *modelBook) end(p *modelPeer, m *modelMessage, attempt int, rcpts []modelAddress, tx *Transaction) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := m.attempts[attempt]
	a.ended = true
	if len(tx.Results) != len(rcpts) {
		b.fail(p, m.number, "%d results for %d recipients", len(tx.Results), len(rcpts))
		return
	}
	for i := range tx.Results {
		r := &tx.Results[i]
		if wrong := b.judge(m, attempt, rcpts[i], r, tx); wrong != "" {
			b.fail(p, m.number, "%s: %s: %+v, %s", rcpts[i].rcpt(), wrong, *r, modelTransaction(tx))
		}
		switch {
		case r.Accepted:
			a.accepted[rcpts[i].index]++
			b.counts.accepted++
		case r.MaybeDelivered:
			a.maybe[rcpts[i].index]++
			b.counts.maybe++
		case r.Local:
			b.counts.local++
		case r.Err == nil:
			b.counts.refused++
		case isUnsent(r.Err):
			b.counts.unsent++
		case tx.Again:
			b.counts.again++
		default:
			b.counts.failed++
		}
	}
	b.check(p, m, a, false)
}

func isUnsent(err error) bool {
	var failed *TransactionError
	return errors.As(err, &failed) && failed.Kind == Unsent
}

// modelTransaction is a transaction in a line, without its results.
func modelTransaction(tx *Transaction) string {
	what := fmt.Sprintf("again=%v content began=%v", tx.Again, tx.ContentBegan)
	if tx.Err != nil {
		what += fmt.Sprintf(", %s at %s: %v", tx.Err.Kind, tx.Err.Command, tx.Err)
	}
	return what
}

// judge says what is wrong with a result by itself.
func (b *modelBook) judge(m *modelMessage, attempt int, rcpt modelAddress, r *Result, tx *Transaction) string {
	var failed *TransactionError
	switch {
	case (r.Err == nil) == (r.Reply.Code == 0):
		return "both an error and a reply, or neither"
	case r.Err != nil && (r.Accepted || r.Local):
		return "an error and a verdict"
	case r.Err != nil && !errors.As(r.Err, &failed):
		return "the error is of another type"
	case r.Err != nil && tx.Err == nil:
		return "the transaction does not know of the error"
	case r.MaybeDelivered && r.Err == nil:
		return "a reply decided, and it may be delivered all the same"
	case r.MaybeDelivered && (tx.Again || !tx.ContentBegan && m.size > 0):
		return "it may be delivered, and it is said to be safe to send it again"
	case failed != nil && (failed.Kind == Unsent || failed.Kind == Skipped && !r.MaybeDelivered) && !tx.Again:
		return "it was not tried, and is not to be tried again"
	case m.bad && (r.Accepted || r.MaybeDelivered):
		return "the body is bad"
	case r.Accepted && r.Reply.Code/100 != 2, r.Err == nil && !r.Accepted && r.Reply.Code/100 < 4:
		return "the reply says something else"
	case r.Err == nil && !r.Local && !b.shifted:
		return judgeReply(r, modelAddress{m.number, attempt}, rcpt)
	}
	return ""
}

// judgeReply says whether a result has got somebody else's reply. Nobody's result is that a peer refused
// a command for its place in the dialogue.
func judgeReply(r *Result, sender, rcpt modelAddress) string {
	who, _, _ := strings.Cut(r.Reply.Text, " ")
	allowed := []modelWho{sender.sender()}
	switch {
	case r.Reply.Code == 421:
		allowed = append(allowed, rcpt.rcpt(), modelIdle)
	case r.Command == "RCPT":
		allowed = []modelWho{rcpt.rcpt()}
	case r.Command != "MAIL" && r.Command != "DATA": // LMTP
		allowed = append(allowed, rcpt.rcpt())
	}
	if !slices.Contains(allowed, modelWho(who)) {
		return "not its own reply"
	}
	return ""
}

// close balances the books, when peers and callers are done.
func (b *modelBook) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.messages = len(b.messages)
	for _, m := range b.messages {
		copies := [modelMaxRcpts]int{}
		for _, a := range m.attempts {
			if !a.ended {
				b.fail(nil, m.number, "a call has not ended")
			}
			b.check(nil, m, a, true)
			for i := range a.copies {
				copies[i] += a.copies[i] + a.strays[i]
			}
		}
		for i, n := range copies {
			if n > 1 && n > m.occurrences(i) {
				b.counts.twice++
			}
		}
	}
}

func (m *modelMessage) occurrences(index int) (n int) {
	for _, r := range m.rcpts {
		if r.index == index {
			n++
		}
	}
	return n
}
