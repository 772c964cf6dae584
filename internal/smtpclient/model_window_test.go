package smtpclient

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// windowStages are where one message of many goes wrong, by how content is sent.
var windowStages = map[string][]string{
	"BDAT": {"RSET", "MAIL", "RCPT 1", "RCPT 2", "content", "BDAT"},
	"DATA": {"MAIL", "RCPT 1", "RCPT 2", "DATA", "content", "dot"},
}

const (
	windowSize     = 8
	windowMessages = 16
	windowProof    = 48 // messages that the peer has taken before
	windowDelay    = 50 * time.Millisecond
)

// TestWindows sends many messages at once over one session, whose peer has taken many before, with a
// fault at the first or the tenth of them. What becomes of each stands in testdata/windows.txt, a line
// for each fault: a message's recipients are the same or divided by a slash, "again" means that it may be
// sent again and "maybe" that it may have been delivered.
func TestWindows(t *testing.T) {
	var table bytes.Buffer
	for _, mode := range []string{"BDAT", "DATA"} {
		for _, nth := range []int{0, 9} {
			for _, stage := range windowStages[mode] {
				for _, fault := range faults {
					if stage == "content" && fault == "drip" {
						continue // nothing is said there
					}
					name := fmt.Sprintf("%s | %d %s | %s", mode, nth, stage, fault)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							fmt.Fprintf(&table, "%s | %s\n", name, breakWindow(t, mode, nth, stage, fault))
						})
					})
				}
			}
		}
	}
	compareTable(t, "testdata/windows.txt", table.String())
}

// breakWindow reports what became of the messages that were sent at once.
func breakWindow(t *testing.T, mode string, nth int, stage, fault string) string {
	w := &windowRun{mood: &windowMood{message: windowProof + nth, stage: stage, fault: fault},
		book: &modelBook{t: t, name: t.Name(), seed: maphash.MakeSeed(), maxFlying: windowSize, shifted: fault == "one reply too many"}}
	client, server := smtptest.Pipe()
	offers := modelOffers{pipelining: true, chunking: mode == "BDAT", size: -1, keepsAfterData: true, afterChunk: chunkJamsIt}
	w.peer = newModelPeer(0, offers, w.mood, w.book, server.(*smtptest.PipeConn))
	var served sync.WaitGroup
	served.Go(w.peer.serve)
	cfg := &Config{LocalName: "client.example", MaxPipelined: windowSize, Peer: &Peer{}}
	s, err := Open(context.Background(), client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.session = s
	w.sendAll(windowProof)
	for i, tx := range w.outcomes {
		if !tx.Results[0].Accepted || !tx.Results[1].Accepted {
			t.Fatalf("message %d, before anything is wrong: %+v", i, tx)
		}
	}
	w.outcomes = nil
	start := time.Now()
	w.sendAll(windowMessages)
	report := runLengths(w.outcomes) + took(start)
	time.Sleep(time.Second) // what the peer has left to say is there
	switch {
	case !s.Usable():
		report += "; not usable"
	case s.Idle() != nil:
		report += "; not usable any more"
	default:
		report += "; usable"
	}
	s.Close()
	served.Wait()
	w.book.close()
	if !w.mood.struck {
		report += "; not reached"
	}
	return report
}

// windowRun is a session under a scripted fault.
type windowRun struct {
	mood     *windowMood
	book     *modelBook
	peer     *modelPeer
	session  *Session
	outcomes []*Transaction
}

// sendAll sends n messages at once, in the order of their numbers.
func (w *windowRun) sendAll(n int) {
	var callers sync.WaitGroup
	w.outcomes = make([]*Transaction, n)
	for i := range n {
		text := fmt.Appendf(nil, "Message: %d\r\n%s", i, bytes.Repeat([]byte("text\r\n"), 300))
		m := &modelMessage{hash: maphash.Bytes(w.book.seed, text), size: int64(len(text))}
		w.book.add(m)
		m.rcpts = []modelAddress{{m.number, 0}, {m.number, 1}}
		attempt := w.book.begin(m, m.rcpts)
		env := &Envelope{From: string(modelAddress{m.number, attempt}.sender()) + "@from.example"}
		for _, rcpt := range m.rcpts {
			env.Rcpts = append(env.Rcpts, Rcpt{Address: string(rcpt.rcpt()) + "@to.example"})
		}
		callers.Go(func() {
			tx := w.session.Send(context.Background(), env, BytesContent(text))
			w.book.end(w.peer, m, attempt, m.rcpts, tx)
			w.outcomes[i] = tx
		})
		synctest.Wait() // this one is in the queue before the next
	}
	callers.Wait()
}

// windowMood is that of a peer which takes its time, so that messages queue up, and breaks once.
type windowMood struct {
	message      int
	stage, fault string
	rcpts        int // RCPTs since the last MAIL
	struck       bool
}

func (m *windowMood) piece(_ *modelPeer, n int) int { return n }

func (m *windowMood) at(p *modelPeer, stage modelStage) (w modelWhim) {
	if stage == atWait {
		return w
	}
	message := p.asked.message
	name := stage.String()
	switch stage {
	case atReset:
		message++ // that of the MAIL which comes next
		w.delay = windowDelay
	case atMail:
		m.rcpts = 0
		w.delay = windowDelay
	case atRcpt:
		m.rcpts++
		name = fmt.Sprintf("RCPT %d", m.rcpts)
	case atEnd:
		name = "dot"
		if p.offers.chunking {
			name = "BDAT"
		}
		w.delay = windowDelay
	}
	if m.struck || message != m.message || name != m.stage {
		return w
	}
	m.struck = true
	w.delay = max(w.delay, time.Microsecond) // the client has read what came before, and waits
	return m.strike(w, stage)
}

func (m *windowMood) strike(w modelWhim, stage modelStage) modelWhim {
	switch m.fault {
	case "close":
		w.end = closes
	case "reset":
		w.end = resets
	case "stall":
		w.end = fallsSilent
		if stage == atContent {
			w.end = stopsReading
		}
	case "garbage":
		w.instead = "?!\r\n"
	case "451":
		w.refuse = 451
	case "551":
		w.refuse = 551
	case "421":
		w.refuse = 421
	case "421 and close":
		w.refuse, w.end = 421, closesAfter
	case "drip":
		w.drip = time.Second
	case "1 MiB line":
		w.instead = strings.Repeat("2", 1<<20) + "\r\n"
	case "mixed codes":
		w.refuse, w.instead = 599, "250-a\r\n599 b\r\n"
	default:
		w.again = true
		if stage == atContent {
			w.instead, w.again = "250 early\r\n", false
		}
	}
	return w
}

// runLengths says what became of messages: "0-8 accepted; 9 551 at RCPT / accepted; 10-15 skipped again".
func runLengths(outcomes []*Transaction) string {
	var runs []string
	for i := 0; i < len(outcomes); {
		what, first := windowOutcome(outcomes[i]), i
		for i < len(outcomes) && windowOutcome(outcomes[i]) == what {
			i++
		}
		numbers := fmt.Sprint(first)
		if i > first+1 {
			numbers = fmt.Sprintf("%d-%d", first, i-1)
		}
		runs = append(runs, numbers+" "+what)
	}
	return strings.Join(runs, "; ")
}

func windowOutcome(tx *Transaction) string {
	var all []string
	for i := range tx.Results {
		all = append(all, windowResult(tx, &tx.Results[i]))
	}
	if all[0] == all[1] {
		return all[0]
	}
	return strings.Join(all, " / ")
}

func windowResult(tx *Transaction, r *Result) string {
	switch {
	case r.Accepted:
		return "accepted"
	case r.Err == nil:
		return fmt.Sprintf("%d at %s", r.Reply.Code, r.Command)
	}
	what := fmt.Sprintf("%s at %s", tx.Err.Kind, r.Command)
	if r.MaybeDelivered {
		what += " maybe"
	}
	if tx.Again {
		what += " again"
	}
	return what
}
