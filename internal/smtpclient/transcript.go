package smtpclient

const (
	defaultTranscript = 40
	// maxTranscriptLine cuts the lines that are kept: a transcript is for reading.
	maxTranscriptLine = 400
)

// transcript is a ring of the last lines of a dialogue. Its slots are used again, so that a session
// which has said enough keeps its transcript without allocating.
type transcript struct {
	limit int
	lines [][]byte // "C: MAIL FROM:<>", bytes of the peer included
	next  int      // the slot of the next line, once the ring is full
}

func (t *transcript) add(prefix string, line []byte) {
	if t.limit <= 0 {
		return
	}
	if len(t.lines) < t.limit {
		t.lines = append(t.lines, nil)
	}
	slot := &t.lines[t.next]
	*slot = append(append((*slot)[:0], prefix...), line[:min(len(line), maxTranscriptLine)]...)
	t.next = (t.next + 1) % t.limit
}

// text returns the lines, oldest first, safe to print.
func (t *transcript) text() []string {
	lines := make([]string, 0, len(t.lines))
	for i := range t.lines {
		if len(t.lines) == t.limit {
			i = (t.next + i) % t.limit
		}
		lines = append(lines, safeText(t.lines[i], maxReplyText))
	}
	return lines
}
