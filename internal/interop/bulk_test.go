//go:build interop && linux

package interop

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// A bulk is this many messages, this many calls at a time. Postfix, which syncs each message to the disk, gets
// fewer, unless the flag says otherwise:
//
//	go test -tags interop -count=1 -run Bulk -v ./internal/interop -postfix-bulk 20000
const bulk, bulkCalls = 20_000, 200

var postfixBulk = flag.Int("postfix-bulk", 5000, "how many messages Postfix gets in TestPostfixBulk")

// deliverBulk sends n messages and checks that all are delivered, over no more connections than allowed.
func deliverBulk(t *testing.T, n int, to, address string) *run {
	t.Helper()
	r := deliver(t, "-n", fmt.Sprint(n), "-c", fmt.Sprint(bulkCalls), "-config", via(named("mx.test", address)),
		"-egress-path", path(fields{"enable_tls": "Disabled"}), "-from", "sender@sender.test", "-to", to, messageFile(t, smallMessage))
	r.exited(t, 0)
	sum := r.summary
	if sum.Messages != n || sum.Delivered != n || sum.Transient+sum.Permanent+sum.Unsent != 0 || sum.Sessions > 32+n/1024 {
		t.Errorf("the summary is %+v, want %d delivered over at most %d sessions", sum, n, 32+n/1024)
	}
	t.Logf("%d messages in %.1f s, %.0f a second, over %d sessions; p50 %.1f ms, p99 %.1f ms; %.1f s of CPU", n,
		sum.Seconds, sum.PerSecond, sum.Sessions, sum.P50, sum.P99, sum.CPUSeconds)
	return r
}

// Twenty thousand messages to a peer that is as fast as we are.
func TestSinkBulk(t *testing.T) {
	s := startSink(t)
	deliverBulk(t, bulk, "user@example.test", s.address)
	if got := s.settled(t); got.messages != bulk {
		t.Errorf("the sink counted %+v, want %d messages", got, bulk)
	}
}

// As many as one likes to a Postfix, which has each of them once and gets rid of it.
func TestPostfixBulk(t *testing.T) {
	log := lab.postfix.log(t)
	deliverBulk(t, *postfixBulk, "user@discard.test", lab.postfix.smtp)
	const taken, sent = ": client=unknown[", "to=<user@discard.test>, relay=none, "
	counts := log.counts(t, *postfixBulk, sent, taken)
	if counts[taken] != *postfixBulk || counts[sent] != *postfixBulk {
		t.Errorf("Postfix logged %v, want %d of each", counts, *postfixBulk)
	}
}

// counts waits until n lines have the first of these texts, and returns how many lines have each of them. It
// reads no line twice.
func (l *postfixLog) counts(t *testing.T, n int, texts ...string) map[string]int {
	t.Helper()
	f, err := os.Open(l.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(int64(l.from), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	lines, counts, part := bufio.NewReader(f), map[string]int{}, ""
	mustSee(t, fmt.Sprintf("%d lines with %q in the log", n, texts[0]), func() bool {
		for {
			line, err := lines.ReadString('\n')
			if part += line; err != nil {
				return counts[texts[0]] >= n
			}
			for _, text := range texts {
				counts[text] += strings.Count(part, text)
			}
			part = ""
		}
	})
	return counts
}
