//go:build interop && linux

package interop

import (
	"strings"
	"sync"

	"github.com/mtadelivery/delivery"
)

// watch follows the dialogues of a runtime through its trace.
type watch struct {
	lmtp      bool
	mu        sync.Mutex
	dialogues map[string]*dialogue // by the ID of the session
	seen      observations
}

// observations are what a watch has seen in all dialogues together.
type observations struct {
	sent map[string]int // commands, by verb; "." for the end of DATA
	// unanswered is the most commands that were on their way at once over one connection, messages the
	// most whose MAIL was.
	unanswered, messages int
	// overlapped is how often MAIL was sent before the reply to the end of DATA.
	overlapped int
}

// dialogue is one session.
type dialogue struct {
	waiting  []string // commands without a reply, oldest first
	accepted int      // recipients of the transaction whose replies come
	ends     int      // replies to the end of its content
}

func newWatch(lmtp bool) *watch {
	return &watch{lmtp: lmtp, dialogues: map[string]*dialogue{}, seen: observations{sent: map[string]int{}}}
}

func (w *watch) trace() *delivery.Trace {
	return &delivery.Trace{Sent: w.sent, Received: w.received}
}

func (w *watch) dialogue(s *delivery.Session) *dialogue {
	d := w.dialogues[s.ID]
	if d == nil {
		d = &dialogue{}
		w.dialogues[s.ID] = d
	}
	return d
}

func (w *watch) sent(s *delivery.Session, line string) {
	if strings.HasPrefix(line, "[") {
		return // content
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	d, seen := w.dialogue(s), &w.seen
	verb, _, _ := strings.Cut(line, " ")
	if verb == "MAIL" && len(d.waiting) > 0 && d.waiting[len(d.waiting)-1] == "." {
		seen.overlapped++
	}
	d.waiting = append(d.waiting, verb)
	seen.sent[verb]++
	messages := 0
	for _, command := range d.waiting {
		if command == "MAIL" {
			messages++
		}
	}
	seen.unanswered = max(seen.unanswered, len(d.waiting))
	seen.messages = max(seen.messages, messages)
}

func (w *watch) received(s *delivery.Session, line string) {
	if len(line) > 3 && line[3] == '-' {
		return // more of the reply comes
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dialogue(s)
	if len(d.waiting) == 0 {
		return // the greeting, or a goodbye
	}
	switch verb := d.waiting[0]; {
	case verb == "MAIL":
		d.accepted, d.ends = 0, 0
	case verb == "RCPT" && line[0] == '2':
		d.accepted++
	case w.lmtp && (verb == "." || verb == "BDAT"):
		if d.ends++; d.ends < d.accepted {
			return // one for each recipient
		}
	}
	d.waiting = d.waiting[1:]
}

// end returns what was seen.
func (w *watch) end() observations {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}
