package smtpclient

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of what is lent to a session while it works.
const (
	outSize   = 32 << 10 // what is written at once
	blockSize = 8 << 10  // what is read of a body at once: at most doubled by dots or line ends
)

// buffers are lent to a session while it works, so that an idle one holds none.
type buffers struct {
	in    [maxReplyLine]byte
	out   []byte
	text  []byte // of the reply being read
	block []byte // of the body being read; made when the first stream is sent
	rcpts []rcptState
}

var bufferPool = sync.Pool{New: func() any {
	return &buffers{out: make([]byte, 0, outSize+64), text: make([]byte, 0, 512)}
}}

// wire is a connection as a dialogue needs it: commands are gathered and written in groups, replies are
// read one by one.
type wire struct {
	raw    net.Conn // what Open was given
	conn   net.Conn // raw, or TLS over it
	killed atomic.Bool

	*buffers     // nil between borrow and giveBack
	r, w     int // buffers.in[r:w] was received and not read yet

	trace Trace
	log   transcript

	odd error // what was wrong with the last odd reply
}

func (w *wire) borrow() { w.buffers = bufferPool.Get().(*buffers) }

// giveBack ends the loan. It reports whether everything that was received has been read.
func (w *wire) giveBack() (clean bool) {
	b := w.buffers
	clean = !w.unread()
	w.buffers, w.r, w.w = nil, 0, 0
	b.out, b.text, b.rcpts = b.out[:0], b.text[:0], b.rcpts[:0]
	if cap(b.out) <= 2*outSize && cap(b.text) <= maxReplyText {
		bufferPool.Put(b)
	}
	return clean
}

// kill cuts the connection at once. It may be called from any goroutine.
func (w *wire) kill() error {
	w.killed.Store(true)
	return w.raw.Close()
}

// arm gives the next read or write until d from now, and is the only place that sets a deadline.
// Both directions share it: TLS writes while it reads, and a stale deadline of the one would break the
// other. kill needs no deadline, so none can be lost here.
func (w *wire) arm(d time.Duration) { w.conn.SetDeadline(time.Now().Add(d)) }

// unread reports whether something was received that nobody has read. TLS hands out one record at a
// time and may hold more that came with it: a read whose deadline has passed takes those, and nothing
// from the network.
func (w *wire) unread() bool {
	if w.r < w.w {
		return true
	}
	if _, ok := w.conn.(*tls.Conn); !ok || w.killed.Load() {
		return false
	}
	w.conn.SetReadDeadline(time.Unix(1, 0)) // arm sets the next one
	w.r = 0
	w.w, _ = w.conn.Read(w.in[:])
	return w.w > 0
}

// readReply reads the next reply, all of it within d. Its text is valid until the next call.
func (w *wire) readReply(d time.Duration) (reply, error) {
	p := replyParser{reply: reply{text: w.text[:0]}}
	armed := false
	for {
		line, ok, err := w.line()
		if err != nil {
			return reply{}, err
		}
		if !ok {
			if !armed {
				w.arm(d)
				armed = true
			}
			if err := w.fill(); err != nil {
				return reply{}, err
			}
			continue
		}
		w.received(bytes.TrimSuffix(line, []byte("\r")))
		done, err := p.add(line)
		w.text = p.text
		if err != nil {
			return reply{}, err
		}
		if p.odd != nil {
			w.odd = p.odd
		}
		if done {
			return p.reply, nil
		}
	}
}

// line cuts the next line out of what was received, without its LF. ok is false where none is whole.
func (w *wire) line() (line []byte, ok bool, err error) {
	i := bytes.IndexByte(w.in[w.r:w.w], '\n')
	if i < 0 {
		if w.w-w.r == len(w.in) {
			return nil, false, errLineTooLong
		}
		return nil, false, nil
	}
	line = w.in[w.r : w.r+i]
	w.r += i + 1
	return line, true, nil
}

// fill reads what the peer has sent.
func (w *wire) fill() error {
	if w.r > 0 {
		w.w = copy(w.in[:], w.in[w.r:w.w])
		w.r = 0
	}
	n, err := w.conn.Read(w.in[w.w:])
	w.w += n
	if n > 0 {
		return nil // an error comes again with the next read, once this is used up
	}
	return err
}

// flush writes what was gathered, within d.
func (w *wire) flush(d time.Duration) (n int, err error) {
	if len(w.out) == 0 {
		return 0, nil
	}
	n, err = w.write(w.out, d)
	w.out = w.out[:0]
	return n, err
}

func (w *wire) write(b []byte, d time.Duration) (n int, err error) {
	w.arm(d)
	return w.conn.Write(b)
}

// command gathers a command, given without CRLF.
func (w *wire) command(line string) {
	w.out = append(w.out, line...)
	w.endCommand(len(line))
}

// endCommand ends the command that fills the last n bytes of what was gathered.
func (w *wire) endCommand(n int) {
	w.sent(w.out[len(w.out)-n:])
	w.out = append(w.out, "\r\n"...)
}

// sent records a line that we send.
func (w *wire) sent(line []byte) {
	w.log.add("C: ", line)
	if w.trace.Sent != nil {
		w.trace.Sent(safeText(line, maxReplyText))
	}
}

func (w *wire) received(line []byte) {
	w.log.add("S: ", line)
	if w.trace.Received != nil {
		w.trace.Received(safeText(line, maxReplyText))
	}
}

// secret gathers a command whose argument, sent as base64, is for the peer alone.
func (w *wire) secret(verb string, argument []byte) {
	w.out = append(w.out, verb...)
	w.out = base64.StdEncoding.AppendEncode(w.out, argument)
	w.out = append(w.out, "\r\n"...)
	w.sent([]byte(verb + "***"))
}

// borrowBlock returns the buffer that bodies are read into.
func (b *buffers) borrowBlock() []byte {
	if b.block == nil {
		b.block = make([]byte, blockSize)
	}
	return b.block
}

// sentContent records content and its end.
func (w *wire) sentContent(size int64) {
	if w.log.limit > 0 || w.trace.Sent != nil {
		var line [40]byte
		w.sent(append(strconv.AppendInt(append(line[:0], '['), size, 10), " bytes of content]"...))
		w.sent([]byte("."))
	}
}
