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
	inSize    = 8 << 10  // what is read at once: the replies to a window of messages
	outSize   = 64 << 10 // what is written at once
	blockSize = 16 << 10 // what is read of a body at once: at most doubled by dots or line ends
)

// inbox and outbox are lent to a session while it reads or writes, so that an idle one holds none.
type inbox struct {
	bytes [inSize]byte
	r, w  int    // bytes[r:w] was received and not read yet
	text  []byte // of the reply being read
	lines []byte // of it, each ended by LF, for the transcript
}

type outbox struct {
	bytes []byte
	block []byte // of the body being read; made when the first stream is sent
	look  [1]byte
}

var (
	inboxes  = sync.Pool{New: func() any { return &inbox{text: make([]byte, 0, 512)} }}
	outboxes = sync.Pool{New: func() any { return &outbox{bytes: make([]byte, 0, outSize+64)} }}
)

// borrowBlock returns the buffer that bodies are read into.
func (b *outbox) borrowBlock() []byte {
	if b.block == nil {
		b.block = make([]byte, blockSize)
	}
	return b.block
}

// wire is a connection as a dialogue needs it: commands are gathered and written in groups, replies are
// read one by one. One goroutine may read while another writes.
type wire struct {
	raw    net.Conn // what Open was given
	conn   net.Conn // raw, or TLS over it
	killed atomic.Bool

	in  *inbox  // the reader's, nil while nobody reads
	out *outbox // the writer's, nil while nobody writes

	ack func() // called before each read; nil: nothing is
	log transcript
	odd error // what was wrong with the last odd reply
}

func (w *wire) borrowIn()  { w.in = inboxes.Get().(*inbox) }
func (w *wire) borrowOut() { w.out = outboxes.Get().(*outbox) }

// giveBackIn ends the loan. It reports whether everything that was received has been read.
func (w *wire) giveBackIn() (clean bool) {
	clean = !w.unread()
	in := w.in
	w.in = nil
	in.r, in.w, in.text, in.lines = 0, 0, in.text[:0], in.lines[:0]
	if cap(in.text)+cap(in.lines) <= 2*maxReplyText {
		inboxes.Put(in)
	}
	return clean
}

func (w *wire) giveBackOut() {
	out := w.out
	w.out = nil
	out.bytes = out.bytes[:0]
	if cap(out.bytes) <= 2*outSize {
		outboxes.Put(out)
	}
}

// kill cuts the connection at once. It may be called from any goroutine.
func (w *wire) kill() error {
	w.killed.Store(true)
	return w.raw.Close()
}

// unread reports whether something was received that nobody has read. TLS hands out one record at a
// time and may hold more that came with it: a read whose deadline has passed takes those, and nothing
// from the network.
func (w *wire) unread() bool {
	in := w.in
	if in.r < in.w {
		return true
	}
	if _, ok := w.conn.(*tls.Conn); !ok || w.killed.Load() {
		return false
	}
	w.conn.SetReadDeadline(time.Unix(1, 0)) // whoever reads next sets another
	in.r = 0
	in.w, _ = w.conn.Read(in.bytes[:])
	return in.w > 0
}

// readReply reads the next reply, all of it within d. Its text is valid until the next call. It is for a
// dialogue that waits after each command.
func (w *wire) readReply(d time.Duration) (reply, error) {
	armed := false
	r, err := w.nextReply(func() {
		if !armed {
			w.arm(d)
			armed = true
		}
	})
	w.log.received(w.in.lines)
	return r, err
}

// nextReply reads the next reply, and leaves its lines for the transcript. It calls ready before each read
// that may wait.
func (w *wire) nextReply(ready func()) (reply, error) {
	in := w.in
	in.lines = in.lines[:0]
	p := replyParser{reply: reply{text: in.text[:0]}}
	for {
		line, ok, err := in.line()
		if err != nil {
			return reply{}, err
		}
		if !ok {
			ready()
			if err := w.fill(); err != nil {
				return reply{}, err
			}
			continue
		}
		in.lines = append(append(in.lines, bytes.TrimSuffix(line, oneCR)...), '\n')
		done, err := p.add(line)
		in.text = p.text
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
func (in *inbox) line() (line []byte, ok bool, err error) {
	i := bytes.IndexByte(in.bytes[in.r:in.w], '\n')
	if i < 0 && in.w-in.r >= maxReplyLine || i >= maxReplyLine {
		return nil, false, errLineTooLong
	}
	if i < 0 {
		return nil, false, nil
	}
	line = in.bytes[in.r : in.r+i]
	in.r += i + 1
	return line, true, nil
}

// fill reads what the peer has sent.
func (w *wire) fill() error {
	in := w.in
	if in.r > 0 {
		in.w = copy(in.bytes[:], in.bytes[in.r:in.w])
		in.r = 0
	}
	if w.ack != nil {
		w.ack()
	}
	n, err := w.conn.Read(in.bytes[in.w:])
	in.w += n
	if n > 0 {
		return nil // an error comes again with the next read, once this is used up
	}
	return err
}

// arm gives the next read and write until d from now. Both directions share it while only one of them
// is used: TLS writes while it reads, and a stale deadline of the one would break the other.
func (w *wire) arm(d time.Duration) { w.conn.SetDeadline(time.Now().Add(d)) }

// flush writes what was gathered, within d.
func (w *wire) flush(d time.Duration) (n int, err error) {
	if len(w.out.bytes) == 0 {
		return 0, nil
	}
	w.arm(d)
	n, err = w.conn.Write(w.out.bytes)
	w.out.bytes = w.out.bytes[:0]
	return n, err
}

// minProgress is what a slow peer must take of a write within its time to be given that time again.
const minProgress = 4 << 10

// write writes what was gathered, and what lies elsewhere behind it, within d. A peer that takes little in
// that time, but not nothing, may take its time; over TLS, which cannot be interrupted, all must be taken.
func (w *wire) write(gathered, behind []byte, d time.Duration) (n int64, err error) {
	for {
		w.conn.SetWriteDeadline(time.Now().Add(d))
		var taken int64
		taken, err = w.writeBoth(gathered, behind)
		n += taken
		if err == nil || taken < minProgress || !isTimeout(err) || w.conn != w.raw {
			return n, err
		}
		cut := min(taken, int64(len(gathered)))
		gathered, behind = gathered[cut:], behind[taken-cut:]
	}
}

func (w *wire) writeBoth(gathered, behind []byte) (int64, error) {
	if len(behind) == 0 {
		n, err := w.conn.Write(gathered)
		return int64(n), err
	}
	both := net.Buffers{gathered, behind} // one system call, where the connection is a socket
	return both.WriteTo(w.conn)
}

// command gathers a command, given without CRLF.
func (w *wire) command(line string) {
	w.out.bytes = append(w.out.bytes, line...)
	w.endCommand(len(line))
}

// endCommand ends the command that fills the last n bytes of what was gathered.
func (w *wire) endCommand(n int) {
	out := w.out
	w.log.sent(out.bytes[len(out.bytes)-n:])
	out.bytes = append(out.bytes, "\r\n"...)
}

// secret gathers a command whose argument, sent as base64, is for the peer alone.
func (w *wire) secret(verb string, argument []byte) {
	out := w.out
	out.bytes = append(out.bytes, verb...)
	out.bytes = base64.StdEncoding.AppendEncode(out.bytes, argument)
	out.bytes = append(out.bytes, "\r\n"...)
	w.log.sent([]byte(verb + "***"))
}

// sentContent records content.
func (w *wire) sentContent(size int64) {
	if w.log.listens() {
		var line [40]byte
		w.log.sent(append(strconv.AppendInt(append(line[:0], '['), size, 10), " bytes of content]"...))
	}
}
