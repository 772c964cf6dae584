package smtpclient

import (
	"bytes"
	"sync"
)

const (
	defaultTranscript = 40
	// maxTranscriptLine cuts the lines that are kept: a transcript is for reading.
	maxTranscriptLine = 400
	// maxTranscript is how much is kept while the session works, and restTranscript while it is idle.
	maxTranscript  = 4 << 10
	restTranscript = 1 << 10
)

var transcripts = sync.Pool{New: func() any { return new([maxTranscript]byte) }}

// transcript holds the last lines of a dialogue, and shows each to the trace. What it holds lies in a
// buffer that is lent while the session works. The session's lock guards it once the session is open.
type transcript struct {
	trace Trace
	limit int                  // lines that are shown; 0 or less: none are kept
	lent  *[maxTranscript]byte // nil at rest
	text  []byte               // lines with their prefixes, each ended by LF: in lent, or a small slice of its own
	rest  []byte               // the memory of text at rest
}

func (t *transcript) listens() bool { return t.limit > 0 || t.trace.Sent != nil }

func (t *transcript) sent(line []byte) { t.add("C: ", line, t.trace.Sent) }

// received takes lines that each end in LF.
func (t *transcript) received(lines []byte) {
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		t.add("S: ", lines[:end], t.trace.Received)
		lines = lines[end+1:]
	}
}

func (t *transcript) add(prefix string, line []byte, show func(string)) {
	if t.limit > 0 {
		kept := line[:min(len(line), maxTranscriptLine)]
		t.makeRoom(len(prefix) + len(kept) + 1)
		t.text = append(append(append(t.text, prefix...), kept...), '\n')
	}
	if show != nil {
		show(safeText(line, maxReplyText))
	}
}

// makeRoom lends the buffer, and drops the older half of what it holds where n more bytes do not fit.
func (t *transcript) makeRoom(n int) {
	if t.lent == nil {
		t.lent = transcripts.Get().(*[maxTranscript]byte)
		t.text = append(t.lent[:0], t.text...)
	}
	if len(t.text)+n > maxTranscript {
		t.text = append(t.lent[:0], lastLines(t.text, maxTranscript/2)...)
	}
}

// lastLines is the end of text that begins with a line and is not longer than max.
func lastLines(text []byte, max int) []byte {
	if len(text) <= max {
		return text
	}
	text = text[len(text)-max-1:]
	return text[bytes.IndexByte(text, '\n')+1:]
}

// giveBack ends the loan. The last lines remain.
func (t *transcript) giveBack() {
	if t.lent == nil {
		return
	}
	t.rest = append(t.rest[:0], lastLines(t.text, restTranscript)...)
	t.text = t.rest
	transcripts.Put(t.lent)
	t.lent = nil
}

// lines returns the lines, oldest first, safe to print.
func (t *transcript) lines() []string {
	if len(t.text) == 0 {
		return []string{}
	}
	all := bytes.Split(t.text[:len(t.text)-1], []byte("\n"))
	all = all[max(0, len(all)-t.limit):]
	lines := make([]string, 0, len(all))
	for _, line := range all {
		lines = append(lines, safeText(line, maxReplyText))
	}
	return lines
}
