package smtpclient

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"
)

// say gives a reply. Its text begins with whom it is about.
func (p *modelPeer) say(w modelWhim, code int, who modelWho, text string) {
	p.left = p.left || code == 421
	b := p.scratch[:0]
	for i := range w.lines + 1 {
		b = strconv.AppendInt(b, int64(code), 10)
		if i < w.lines {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if code != 354 && code != 220 {
			b = strconv.AppendInt(b, int64(code/100), 10)
			b = append(b, ".1.0 "...)
		}
		if who != "" {
			b = append(append(b, who...), ' ')
		}
		b = append(append(b, text...), "\r\n"...)
	}
	p.scratch = b
	p.emit(w, b)
}

// emit says reply, or does what the mood wants instead.
func (p *modelPeer) emit(w modelWhim, reply []byte) {
	if w.delay > 0 {
		if !p.offers.gathers || w.delay > 10*time.Millisecond { // or replies would wait for longer than clients do
			p.flush(0)
		}
		time.Sleep(w.delay)
	}
	switch w.end {
	case closes:
		p.log.add('!', []byte("closes"))
		p.flush(0)
		p.raw.Close()
	case resets:
		p.log.add('!', []byte("resets"))
		p.raw.Reset()
	case fallsSilent:
		p.log.add('!', []byte("falls silent"))
		p.flush(0)
		io.Copy(io.Discard, p.raw)
	case stopsReading:
		p.log.add('!', []byte("stops reading"))
		p.flush(0)
		time.Sleep(2 * time.Hour) // longer than any timeout of the client
	}
	switch {
	case w.end == loses || w.end == losesAndEnds:
		p.lose(w.end == losesAndEnds)
	case w.end > closesAfter:
		p.gone, p.out = true, nil
		return
	}
	if w.instead != "" {
		reply = []byte(w.instead)
	}
	side := byte('S')
	if p.mute {
		side = 'x'
	}
	p.log.add(side, reply)
	p.out = append(p.out, reply...)
	if w.again {
		p.out = append(p.out, reply...)
	}
	if w.drip > 0 || w.end == closesAfter || !p.offers.gathers {
		p.flush(w.drip)
	}
	if w.end == closesAfter {
		p.log.add('!', []byte("closes"))
		p.raw.Close()
		p.gone = true
	}
}

// lose is how a connection breaks that carries on what the client has sent, but no reply.
func (p *modelPeer) lose(ends bool) {
	p.log.add('!', []byte("loses its replies"))
	p.flush(0)
	p.mute = true
	if ends {
		p.raw.CloseWrite()
	}
}

// flush writes the replies that were gathered. That nobody reads them any more changes nothing: what the
// client has sent is still the peer's to work at.
func (p *modelPeer) flush(drip time.Duration) {
	for b := p.out; len(b) > 0 && !p.mute; {
		n := 1
		if drip == 0 {
			n = p.mood.piece(p, len(b))
		} else {
			time.Sleep(drip)
		}
		if _, err := p.raw.Write(b[:n]); err != nil {
			break
		}
		b = b[n:]
	}
	p.out = p.out[:0]
}

// modelWho begins the text of replies, so that a result shows whose reply it got.
type modelWho string

const (
	modelSequence modelWho = "sequence" // about the order of commands, and nobody's own
	modelIdle     modelWho = "idle"     // about the connection
)

// modelAddress is the number of a message, and of an attempt to send it or of a recipient.
type modelAddress struct{ message, index int }

func (a modelAddress) text(first byte, left, right int) modelWho {
	var b [32]byte
	t := strconv.AppendInt(append(b[:0], first), int64(left), 10)
	return modelWho(strconv.AppendInt(append(t, '.'), int64(right), 10))
}

// sender is "m12.3" for the third attempt at message 12.
func (a modelAddress) sender() modelWho { return a.text('m', a.message, a.index) }

// rcpt is "r12.3" for its recipient 3.
func (a modelAddress) rcpt() modelWho { return a.text('r', a.message, a.index) }

func parseModelAddress(arg []byte, prefix string) (modelAddress, bool) {
	rest, ok := bytes.CutPrefix(arg, []byte(prefix))
	at := bytes.IndexByte(rest, '@')
	if !ok || at < 0 || bytes.IndexByte(rest, '>') < 0 {
		return modelAddress{}, false
	}
	left, right, _ := bytes.Cut(rest[:at], []byte{'.'})
	message, err := strconv.Atoi(string(left))
	index, err2 := strconv.Atoi(string(right))
	return modelAddress{message, index}, err == nil && err2 == nil
}

// modelLog is a ring of the last lines of a dialogue.
type modelLog struct {
	mu    sync.Mutex
	lines [][]byte
	next  int
}

const modelLogLines = 200

func (l *modelLog) add(side byte, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		l.lines = make([][]byte, modelLogLines)
	}
	slot := &l.lines[l.next]
	*slot = append(append(append((*slot)[:0], side), ": "...), line[:min(len(line), 160)]...)
	l.next = (l.next + 1) % modelLogLines
}

// around returns the lines around the last one that holds what, the newest ones where none does.
func (l *modelLog) around(what string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	last := -1
	for i := range l.lines {
		if line := l.lines[(l.next+i)%modelLogLines]; len(line) > 0 {
			lines = append(lines, string(bytes.TrimRight(line, "\r\n")))
			if bytes.Contains(line, []byte(what)) {
				last = len(lines)
			}
		}
	}
	if last >= 0 {
		lines = lines[:min(last+15, len(lines))]
	}
	return slices.Clone(lines[max(0, len(lines)-50):])
}
