package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCopiesEndWithASummary(t *testing.T) {
	p := newPeer(t)
	status, out, errs := deliverTo(t, t.Context(), "-config", p.config(), "-n", "40", "-c", "8",
		"-egress-path", `{"prohibited_hosts":[],"connection_limit":3}`,
		"-from", "sender@example.org", "-to", "user@example.com", write(t, "message.eml", mail))
	if status != exitOK || errs != "" {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	if len(p.inbox()) != 40 {
		t.Errorf("the peer has %d messages", len(p.inbox()))
	}
	lines := jsonLines(t, out) // without -json nothing else is printed of messages that were delivered
	if len(lines) != 1 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	s := lines[0]
	wantKeys(t, s, "summary messages recipients delivered transient permanent unsent seconds per_second cpu_seconds "+
		"mallocs_per_message bytes_per_message sessions p50_ms p99_ms")
	for key, want := range map[string]any{"summary": true, "messages": 40.0, "recipients": 40.0, "delivered": 40.0,
		"transient": 0.0, "permanent": 0.0, "unsent": 0.0, "sessions": float64(p.sessions)} {
		if s[key] != want {
			t.Errorf("%s is %v, want %v", key, s[key], want)
		}
	}
	if p.sessions > 3 {
		t.Errorf("%d sessions, the limit is 3", p.sessions)
	}
	for _, key := range []string{"seconds", "per_second", "p50_ms", "p99_ms", "mallocs_per_message", "bytes_per_message"} {
		if v, _ := s[key].(float64); v <= 0 {
			t.Errorf("%s is %v", key, s[key])
		}
	}
}

func TestCopiesAsJSONLines(t *testing.T) {
	p := newPeer(t)
	file := write(t, "message.eml", mail)
	status, out, _ := deliverTo(t, t.Context(), "-config", p.config(), "-egress-path", loopback, "-n", "3", "-json",
		"-from", "sender@example.org", "-to", "user@example.com,transient@example.com", file, file)
	lines := jsonLines(t, out)
	if status != exitTempFail || len(lines) != 13 {
		t.Fatalf("status %d:\n%s", status, out)
	}
	numbers := column(lines[:12], "message")
	if want := []any{1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 6.0, 6.0}; !slices.Equal(numbers, want) {
		t.Errorf("messages %v", numbers)
	}
	if s := lines[12]; s["messages"] != 6.0 || s["recipients"] != 12.0 || s["delivered"] != 6.0 || s["transient"] != 6.0 {
		t.Errorf("summary %v", s)
	}
}

func TestBatch(t *testing.T) {
	p := newPeer(t)
	folder := t.TempDir()
	for name, text := range map[string]string{
		"policy.lua":  policyText(p, filepath.Join(folder, "mail")),
		"message.eml": mail,
		"batch.jsonl": `{"from":"a@example.org","to":["user@smtp.example.com"],"file":"message.eml"}
{"from":"","to":["user@lua.example.com"],"file":"message.eml","meta":{"customer":42}}

{"from":"a@example.org","to":["one two@smtp.example.com","user@smtp.example.com","evil\r\nRCPT TO:<x@smtp.example.com>"],"file":"./message.eml"}
{"from":"a@example.org","to":["a@x.example.com","b@y.example.com"],"file":"message.eml","queue":"tenant@maildir.example.com"}
{"from":"<a@example.org>","to":["user@smtp.example.com"],"file":"message.eml"}
`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-policy", filepath.Join(folder, "policy.lua"), "-batch", filepath.Join(folder, "batch.jsonl"), "-json"}
	status, out, errs := deliverTo(t, t.Context(), args...)
	if status != exitUnavailable {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	lines := jsonLines(t, out)
	if len(lines) != 9 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for key, want := range map[string][]any{
		"message":  {1.0, 2.0, 3.0, 3.0, 3.0, 4.0, 4.0, 5.0},
		"status":   {"delivered", "delivered", "permanent", "delivered", "permanent", "delivered", "delivered", "permanent"},
		"protocol": {"smtp", "lua", "smtp", "smtp", "smtp", "maildir", "maildir", "smtp"},
	} {
		if got := column(lines[:8], key); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
	if s := lines[8]; s["messages"] != 5.0 || s["recipients"] != 8.0 || s["delivered"] != 5.0 || s["permanent"] != 3.0 {
		t.Errorf("summary %v", s)
	}
	if len(p.inbox()) != 2 {
		t.Errorf("the peer has %q", p.inbox())
	}

	_, out, _ = deliverTo(t, t.Context(), append(args, "-n", "2", "-c", "4")...)
	lines = jsonLines(t, out)
	if s := lines[len(lines)-1]; s["messages"] != 10.0 || s["recipients"] != 16.0 || s["delivered"] != 10.0 {
		t.Errorf("summary of two copies: %v", s)
	}
}

// Ctrl-C in the middle of a great many: what was not begun is unsent, what is under way is finished or,
// where that takes longer than closeTimeout, cut, and nothing is lost or counted twice.
func TestInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(t.Context())
	count := 0
	var interrupted time.Time
	p := newPeer(t)
	p.accepted = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if count++; count == 100 {
			interrupted = time.Now()
			interrupt(errors.New("interrupted by the test"))
		}
	}
	status, out, errs := deliverTo(t, ctx, "-json", "-config", p.config(), "-n", "1000000", "-c", "10",
		"-egress-path", `{"prohibited_hosts":[],"connection_limit":4}`,
		"-from", "sender@example.org", "-to", "user@example.com", write(t, "message.eml", mail))
	inbox := len(p.inbox()) // of the peer, which may still be working on what was cut
	took := time.Since(interrupted)
	if status != exitTempFail || errs != "" {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	lines := jsonLines(t, out)
	s, lines := lines[len(lines)-1], lines[:len(lines)-1]
	counts, doubts := map[any]int{}, 0
	for _, l := range lines {
		counts[l["status"]]++
		if l["maybe_delivered"] == true {
			doubts++
		}
	}
	counts["unsent"] = 1e6 - counts["delivered"] - counts["transient"] - counts["permanent"]
	if s["messages"] != 1e6 || s["recipients"] != 1e6 {
		t.Errorf("the summary is %v", s)
	}
	for _, status := range []string{"delivered", "transient", "permanent", "unsent"} {
		if s[status] != float64(counts[status]) {
			t.Errorf("the lines say %v, the summary %v", counts, s)
		}
	}
	if inbox < counts["delivered"] || inbox > counts["delivered"]+doubts {
		t.Errorf("the peer has %d messages, %d were delivered and %d perhaps", inbox, counts["delivered"], doubts)
	}
	if counts["permanent"] > 0 || counts["transient"] > 0 && took < closeTimeout {
		t.Errorf("%v after the interruption:\n%s", took, out)
	}
}

// An interrupted run without a summary still says of every recipient what became of it.
func TestTimeout(t *testing.T) {
	p := newPeer(t)
	file := write(t, "message.eml", mail)
	status, out, errs := deliverTo(t, t.Context(), "-config", p.config(), "-egress-path", loopback, "-json", "-timeout", "1ns",
		"-from", "sender@example.org", "-to", "a@example.com,b@example.net", file, file)
	lines := jsonLines(t, out)
	if status != exitTempFail || errs != "" || len(lines) != 4 {
		t.Fatalf("status %d, stderr %q:\n%s", status, errs, out)
	}
	for _, l := range lines {
		wantKeys(t, l, "message recipient status text protocol session ready_name maybe_delivered")
		if l["status"] != "unsent" || l["text"] == "" || l["protocol"] != "smtp" {
			t.Errorf("got %v", l)
		}
	}
	if len(p.inbox()) > 0 {
		t.Errorf("the peer has %q", p.inbox())
	}
}

func TestInterruptBeforeAnything(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, args := range map[string][]string{
		"reading standard input": {"-config", "{}", "-from", "<>", "-to", "a@example.com", "-"},
		"loading the policy": {"-policy", write(t, "policy.lua", "while true do end"), "-from", "<>", "-to", "a@example.com",
			write(t, "message.eml", mail)},
	} {
		var out, errs bytes.Buffer
		status := run(ctx, args, neverReads{ctx: t.Context()}, &out, &errs)
		if status != exitTempFail || !strings.Contains(errs.String(), "nothing was sent") || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%s: status %d, stderr %q", name, status, &errs)
		}
	}
}

// neverReads is a terminal that nobody types at.
type neverReads struct{ ctx context.Context }

func (n neverReads) Read([]byte) (int, error) {
	<-n.ctx.Done()
	return 0, n.ctx.Err()
}
