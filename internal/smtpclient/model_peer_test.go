package smtpclient

import (
	"bufio"
	"bytes"
	"hash/maphash"
	"io"
	"strconv"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// modelPeer is the server's side of one connection. It keeps to the standards, whatever its mood, and
// reports to its book what it takes and what the client does that it must not do.
type modelPeer struct {
	number int
	offers modelOffers
	mood   modelMood
	book   *modelBook
	raw    *smtptest.PipeConn
	in     *bufio.Reader
	out    []byte
	gone   bool
	mute   bool // its replies are lost
	left   bool // it has said 421
	log    modelLog

	// The transaction.
	open   bool
	jammed bool
	from   modelAddress
	rcpts  []modelAddress
	hash   maphash.Hash // of the content
	size   int64
	// tainted: the transaction goes on although the client has said RSET, since that was refused.
	tainted bool

	asked     modelAddress // of the last MAIL, accepted or not
	consumed  int64        // bytes that were read
	deafUntil int64
	resets    int
	scratch   []byte
}

func newModelPeer(number int, offers modelOffers, mood modelMood, book *modelBook, raw *smtptest.PipeConn) *modelPeer {
	p := &modelPeer{number: number, offers: offers, mood: mood, book: book, raw: raw}
	p.in = bufio.NewReaderSize(p, 16<<10)
	p.hash.SetSeed(book.seed)
	return p
}

// Read reads from the client. Before a peer waits it says what it has to say.
func (p *modelPeer) Read(b []byte) (int, error) {
	p.flush(0)
	if n, _ := p.raw.Peek(p.scratchByte()); n == 0 {
		if w := p.mood.at(p, atWait); w.end != stays {
			p.emit(w, []byte(w.instead))
		}
	}
	if p.gone {
		return 0, io.EOF
	}
	return p.raw.Read(b[:p.mood.piece(p, len(b))])
}

func (p *modelPeer) scratchByte() []byte {
	p.scratch = append(p.scratch[:0], 0)
	return p.scratch
}

func (p *modelPeer) serve() {
	defer p.raw.Close()
	p.say(p.mood.at(p, atBanner), 220, "", "peer.example")
	for !p.gone {
		start := p.consumed
		line, err := p.in.ReadSlice('\n')
		p.consumed += int64(len(line))
		if err != nil {
			return
		}
		line, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok {
			p.blame("a command line ends in a bare LF: %q", line)
		}
		p.log.add('C', line)
		p.command(line, start < p.deafUntil)
	}
}

// command answers a command. It is deaf to those that it finds behind the end of a message.
func (p *modelPeer) command(line []byte, deaf bool) {
	verb, arg, _ := bytes.Cut(line, []byte{' '})
	switch string(verb) {
	case "BDAT":
		p.bdat(arg, deaf)
		return
	case "DATA":
		if p.premature() {
			p.blame("something follows DATA before its reply")
		}
	case "RSET", "MAIL", "RCPT":
		if !p.offers.pipelining && p.premature() {
			p.blame("something follows %s before its reply, and PIPELINING is not offered", verb)
		}
	}
	if deaf {
		if string(verb) == "RSET" {
			p.tainted = true
		}
		if string(verb) == "MAIL" {
			p.asked, _ = parseModelAddress(arg, "FROM:<m")
		}
		p.outOfSequence(modelWhim{}, "one at a time")
		return
	}
	switch string(verb) {
	case "EHLO", "LHLO":
		p.hello(verb)
	case "RSET":
		p.reset()
	case "MAIL":
		p.mail(arg)
	case "RCPT":
		p.rcpt(arg)
	case "DATA":
		p.data()
	case "QUIT":
		p.say(modelWhim{end: closesAfter}, 221, "", "bye")
	default:
		p.blame("there is no such command: %q", line)
		p.say(modelWhim{}, 500, "", "what")
	}
}

// premature reports whether the client has already sent more.
func (p *modelPeer) premature() bool {
	if p.in.Buffered() > 0 {
		return true
	}
	n, _ := p.raw.Peek(p.scratchByte())
	return n > 0
}

func (p *modelPeer) hello(verb []byte) {
	if (string(verb) == "LHLO") != p.offers.lmtp {
		p.blame("%s", verb)
	}
	text := "250-peer.example\r\n"
	for _, e := range []struct {
		offered bool
		keyword string
	}{
		{p.offers.pipelining, "PIPELINING"},
		{p.offers.chunking, "CHUNKING"},
		{p.offers.eightBit, "8BITMIME"},
		{p.offers.size >= 0, "SIZE " + strconv.FormatInt(p.offers.size, 10)},
	} {
		if e.offered {
			text += "250-" + e.keyword + "\r\n"
		}
	}
	w := p.mood.at(p, atHello)
	if w.refuse != 0 {
		p.say(w, w.refuse, "", "refused")
		return
	}
	p.emit(w, []byte(text+"250 ENHANCEDSTATUSCODES\r\n"))
}

func (p *modelPeer) clear() {
	p.open, p.jammed, p.tainted = false, false, false
	p.rcpts = p.rcpts[:0]
	p.startContent()
}

func (p *modelPeer) startContent() {
	p.hash.Reset()
	p.size = 0
}

func (p *modelPeer) outOfSequence(w modelWhim, text string) {
	p.say(w, 503, modelSequence, text)
}

func (p *modelPeer) reset() {
	w := p.mood.at(p, atReset)
	if w.refuse != 0 {
		p.tainted = true
		p.say(w, w.refuse, "", "refused")
		return
	}
	p.clear()
	p.resets++
	if p.offers.maxResets > 0 && p.resets > p.offers.maxResets {
		p.say(modelWhim{end: closesAfter}, 421, modelIdle, "too many RSETs")
		return
	}
	p.say(w, 250, "", "reset")
}

func (p *modelPeer) mail(arg []byte) {
	from, ok := parseModelAddress(arg, "FROM:<m")
	if !ok {
		p.blame("MAIL %s", arg)
	}
	p.asked = from
	w := p.mood.at(p, atMail)
	switch {
	case p.open || p.jammed: // RFC 5321 section 4.1.4
		p.outOfSequence(w, "there is a transaction")
	case w.refuse != 0:
		p.say(w, w.refuse, from.sender(), "refused")
	default:
		p.clear()
		p.open, p.from = true, from
		p.say(w, 250, from.sender(), "ok")
	}
}

func (p *modelPeer) rcpt(arg []byte) {
	rcpt, ok := parseModelAddress(arg, "TO:<r")
	if !ok {
		p.blame("RCPT %s", arg)
	}
	w := p.mood.at(p, atRcpt)
	switch {
	case !p.open || p.jammed:
		p.outOfSequence(w, "no transaction")
	case w.refuse != 0:
		p.say(w, w.refuse, rcpt.rcpt(), "refused")
	default:
		p.rcpts = append(p.rcpts, rcpt)
		p.say(w, 250, rcpt.rcpt(), "ok")
	}
}

func (p *modelPeer) data() {
	w := p.mood.at(p, atData)
	switch {
	case !p.open || p.jammed || len(p.rcpts) == 0 && !p.offers.asksForNothing:
		p.outOfSequence(w, "no recipients")
		return
	case w.refuse != 0:
		who := p.from.sender()
		if !p.offers.keepsAfterData {
			p.clear()
		}
		p.say(w, w.refuse, who, "refused")
		return
	}
	p.startContent()
	p.say(w, 354, p.from.sender(), "go ahead")
	if p.gone || !p.readData() {
		return
	}
	p.log.add('C', strconv.AppendInt([]byte("[end of content] "), p.size, 10))
	if len(p.rcpts) == 0 {
		if p.size > 0 {
			p.blame("content for nobody")
		}
		p.clear()
		p.outOfSequence(modelWhim{}, "no valid recipients")
		return
	}
	p.ended()
}

// readData reads up to the lone dot. Only CRLF ends a line.
func (p *modelPeer) readData() bool {
	lineStart, first := true, true
	for {
		line, err := p.in.ReadSlice('\n')
		p.consumed += int64(len(line))
		if err != nil && err != bufio.ErrBufferFull {
			return false
		}
		if first && !p.allowsContent() {
			return false
		}
		first = false
		if lineStart && string(line) == ".\r\n" {
			return true
		}
		whole := bytes.HasSuffix(line, []byte("\r\n"))
		if lineStart && line[0] == '.' {
			line = line[1:]
		}
		p.hash.Write(line)
		p.size += int64(len(line))
		lineStart = whole
	}
}

// allowsContent is false where the peer does not wait for the end of the content.
func (p *modelPeer) allowsContent() bool {
	w := p.mood.at(p, atContent)
	switch {
	case w.refuse != 0:
		w.end = closesAfter
		p.say(w, w.refuse, p.from.sender(), "enough")
	case w.end != stays || w.instead != "":
		p.emit(w, nil) // which loses no reply but those to come
	}
	return !p.gone
}

func (p *modelPeer) bdat(arg []byte, deaf bool) {
	if !p.offers.chunking {
		p.blame("BDAT, and CHUNKING is not offered")
	}
	number, last := bytes.CutSuffix(arg, []byte(" LAST"))
	n, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil || n < 0 {
		p.blame("BDAT %s", arg)
		p.emit(modelWhim{end: closes}, nil)
		return
	}
	if !p.swallow(n) {
		return
	}
	if !p.offers.pipelining && p.premature() {
		p.blame("something follows BDAT before its reply, and PIPELINING is not offered")
	}
	switch {
	case deaf:
		p.startContent()
		p.outOfSequence(modelWhim{}, "one at a time")
		return
	case !p.open || p.jammed || len(p.rcpts) == 0:
		p.startContent()
		p.outOfSequence(modelWhim{}, "no recipients")
	case last && p.offers.lmtp:
		p.ended()
		return
	default:
		p.chunk(last)
	}
	if last {
		p.messageOver()
	}
}

// chunk answers BDAT.
func (p *modelPeer) chunk(last bool) {
	stage, after := atChunk, min(p.offers.afterChunk, chunkJamsIt) // half a content is never kept
	if last {
		stage, after = atEnd, p.offers.afterChunk
		p.book.came(p)
	}
	w := p.mood.at(p, stage)
	who := p.from.sender()
	switch {
	case w.refuse != 0:
		switch after {
		case chunkEndsIt:
			p.clear()
		case chunkJamsIt:
			p.jammed = true
		case chunkKeepsIt:
			p.startContent()
		}
		p.say(w, w.refuse, who, "refused")
	case last:
		p.take(p.rcpts)
		p.clear()
		p.say(w, 250, who, "taken")
	default:
		p.say(w, 250, who, "octets")
	}
}

// swallow reads a chunk, whether or not it is wanted (RFC 3030 section 2).
func (p *modelPeer) swallow(n int64) bool {
	for first := true; n > 0; first = false {
		if p.in.Buffered() == 0 {
			if _, err := p.in.Peek(1); err != nil {
				return false
			}
		}
		if first && !p.allowsContent() {
			return false
		}
		block, _ := p.in.Peek(int(min(n, int64(p.in.Buffered()))))
		p.hash.Write(block)
		p.size += int64(len(block))
		p.consumed += int64(len(block))
		n -= int64(len(block))
		p.in.Discard(len(block))
	}
	return true
}

// ended decides about a message that has come to its end, and says so.
func (p *modelPeer) ended() {
	p.book.came(p)
	if !p.offers.lmtp {
		w, who := p.mood.at(p, atEnd), p.from.sender()
		if w.refuse == 0 {
			p.take(p.rcpts)
			p.clear()
			p.say(w, 250, who, "taken")
		} else {
			p.clear()
			p.say(w, w.refuse, who, "refused")
		}
		p.messageOver()
		return
	}
	for i, rcpt := range p.rcpts {
		w := p.mood.at(p, atEnd)
		if w.refuse == 0 {
			p.take(p.rcpts[i : i+1])
			p.say(w, 250, rcpt.rcpt(), "taken")
		} else {
			p.say(w, w.refuse, rcpt.rcpt(), "refused")
		}
		if p.gone {
			return
		}
	}
	p.clear()
	p.messageOver()
}

// take is the moment at which the peer takes responsibility, whether or not the client will know.
func (p *modelPeer) take(rcpts []modelAddress) {
	p.resets = 0
	p.book.take(p, rcpts)
}

// messageOver comes when the end of a message was answered, good or bad.
func (p *modelPeer) messageOver() {
	if p.offers.deaf {
		p.deafUntil = p.consumed + int64(p.in.Buffered())
	}
	if p.offers.hangsUp && p.in.Buffered() > 0 && !p.gone {
		p.flush(0)
		p.raw.Close()
		p.gone = true
	}
}

func (p *modelPeer) blame(format string, args ...any) {
	p.book.failf(p, p.asked.message, format, args...)
}
