package delivery

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// sinkAt starts a sink and returns a protocol that delivers to it, with extra fields of the egress path.
func sinkAt(t *testing.T, sink *smtptest.Sink, path string) (*Runtime, Protocol) {
	t.Helper()
	addr, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	rt := newRuntime(t)
	rt.Egress = loopback(path)
	return rt, smtpTo(t, rt, addr)
}

func TestLineEndsAndLongLines(t *testing.T) {
	long := "Subject: x\r\n\r\n" + strings.Repeat("y", 999) + "\r\n"
	for _, test := range []struct {
		name, path, content string
		options             *smtp.MailOptions
		status              Status
		changed             bool
		want                string
	}{
		{"repaired", "", "a\nb\rc", nil, Delivered, true, "a\r\nb c\r\n"},
		{"refused", `"line_ends": "refuse"`, "a\r\nb\rc\r\n", nil, Permanent, false, ""},
		{"a missing end is no stray", `"line_ends": "refuse"`, "a\r\nb", nil, Delivered, false, "a\r\nb\r\n"},
		{"binary", `"line_ends": "refuse", "long_lines": "refuse"`, "a\nb\rc\x00" + long, &smtp.MailOptions{Body: smtp.BodyBinaryMIME}, Delivered, false, "a\nb\rc\x00" + long},
		{"long", "", long, nil, Delivered, false, long},
		{"long refused", `"long_lines": "refuse"`, long, nil, Permanent, false, ""},
		{"998 are not too long", `"long_lines": "refuse"`, strings.Repeat("y", 998) + "\r\n", nil, Delivered, false, strings.Repeat("y", 998) + "\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sink := &smtptest.Sink{}
			_, p := sinkAt(t, sink, test.path)
			msg := messageTo("a@x.test")
			msg.Body, msg.MailOptions = Bytes(test.content), test.options
			r := p.Deliver(t.Context(), msg).Results[0]
			if r.Status != test.status || r.ContentChanged != test.changed {
				t.Fatalf("%s %s, changed %v", r.Status, r.Response, r.ContentChanged)
			}
			switch got := sink.Messages(); {
			case test.status == Permanent:
				if sessions, _ := sink.Sessions(); len(got) > 0 || sessions > 0 || r.Response.Code != 554 || r.Response.Enhanced != (EnhancedCode{5, 6, 0}) {
					t.Errorf("%s, %d sessions", r.Response, sessions)
				}
			case len(got) != 1 || string(got[0].Data) != test.want:
				t.Errorf("got %+v, want %q", got, test.want)
			}
		})
	}
}

func TestChunkingAndItsSwitch(t *testing.T) {
	for path, chunks := range map[string]int{"": 1, `"enable_chunking": false`: 0} {
		sink := &smtptest.Sink{}
		_, p := sinkAt(t, sink, path)
		if r := p.Deliver(t.Context(), messageTo("a@x.test")).Results[0]; r.Status != Delivered || r.Response.Command != "." {
			t.Fatal(r.Status, r.Response)
		}
		if got := sink.Messages()[0].Chunks; got != chunks {
			t.Errorf("%s: %d chunks, want %d", path, got, chunks)
		}
	}
}

// TestLimitsOfAPeer: a message with more recipients than the peer takes at once, and recipients who
// cannot share a transaction, take several; each recipient gets the message once.
func TestLimitsOfAPeer(t *testing.T) {
	priority := func(n int) *smtp.RcptOptions { return &smtp.RcptOptions{MTPriority: &n} }
	for name, test := range map[string]struct {
		offer []string
		rcpts []Recipient
		want  string
	}{
		"RCPTMAX": {[]string{"LIMITS RCPTMAX=2"},
			[]Recipient{{Address: "a@x.test"}, {Address: "b@x.test"}, {Address: "c@x.test"}, {Address: "d@x.test"}, {Address: "e@x.test"}},
			"[a@x.test b@x.test] [c@x.test d@x.test] [e@x.test]"},
		"MAILMAX": {[]string{"LIMITS MAILMAX=1 RCPTMAX=1"},
			[]Recipient{{Address: "a@x.test"}, {Address: "b@x.test"}},
			"[a@x.test] [b@x.test]"},
		"MT-PRIORITY": {[]string{"MT-PRIORITY"},
			[]Recipient{{"a@x.test", priority(1)}, {"b@x.test", priority(2)}, {"c@x.test", priority(1)}},
			"[a@x.test c@x.test] [b@x.test]"},
	} {
		sink := &smtptest.Sink{Offer: test.offer}
		_, p := sinkAt(t, sink, "")
		msg := messageTo()
		msg.Recipients = test.rcpts
		for _, r := range p.Deliver(t.Context(), msg).Results {
			if r.Status != Delivered {
				t.Errorf("%s: %s %s", name, r.Status, r.Response)
			}
		}
		var got []string
		for _, m := range sink.Messages() {
			got = append(got, fmt.Sprint(m.Rcpts))
		}
		if all := strings.Join(got, " "); all != test.want {
			t.Errorf("%s: got %s, want %s", name, all, test.want)
		}
	}
}

// TestManyCallersShareFewConnections: each message keeps its own sender, recipients and content, and each
// recipient its own result, every fifth message having none that is taken.
func TestManyCallersShareFewConnections(t *testing.T) {
	for _, path := range []string{"", `"enable_chunking": false`, `"enable_pipelining": false`, `"enable_rset": false`, `"max_pipelined_messages": 2`, `"use_lmtp": true`} {
		t.Run(path, func(t *testing.T) {
			const messages, limit = 300, 3
			sink := &smtptest.Sink{LMTP: strings.Contains(path, "lmtp")}
			if path != "" {
				path = ", " + path
			}
			rt, p := sinkAt(t, sink, fmt.Sprintf(`"connection_limit": %d%s`, limit, path))
			var callers sync.WaitGroup
			for i := range messages {
				callers.Go(func() {
					msg := messageTo(fmt.Sprintf("permfail%d@x.test", i))
					if i%5 != 0 {
						msg = messageTo(fmt.Sprintf("a%d@x.test", i), fmt.Sprintf("tempfail%d@x.test", i), fmt.Sprintf("b%d@x.test", i))
					}
					msg.From = fmt.Sprintf("s%d@example.org", i)
					msg.Body = Bytes(fmt.Sprintf("Subject: %d\r\n\r\n%s", i, strings.Repeat(fmt.Sprintf(".%d\r\n", i), i)))
					for _, r := range p.Deliver(context.Background(), msg).Results {
						want := map[byte]Status{'a': Delivered, 'b': Delivered, 't': Transient, 'p': Permanent}[r.Recipient[0]]
						if r.Status != want {
							t.Errorf("%s: %s %s %v", r.Recipient, r.Status, r.Response, r.Err)
						}
					}
				})
			}
			callers.Wait()
			got := sink.Messages()
			if len(got) != messages*4/5 {
				t.Errorf("%d messages", len(got))
			}
			for _, m := range got {
				var i int
				fmt.Sscanf(m.From, "s%d@", &i)
				want := fmt.Sprintf("Subject: %d\r\n\r\n%s", i, strings.Repeat(fmt.Sprintf(".%d\r\n", i), i))
				if string(m.Data) != want || fmt.Sprint(m.Rcpts) != fmt.Sprintf("[a%d@x.test b%d@x.test]", i, i) {
					t.Errorf("%s sent %q to %v", m.From, m.Data, m.Rcpts)
				}
			}
			if opened := rt.Stats().Opened; opened > limit {
				t.Errorf("%d connections", opened)
			}
		})
	}
}
