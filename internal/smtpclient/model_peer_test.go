package smtpclient

import (
	"bufio"
	"bytes"
	"hash/maphash"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// modelStage is a point of the dialogue at which a peer may do otherwise than expected.
type modelStage int

const (
	atBanner modelStage = iota
	atHello
	atReset
	atMail
	atRcpt
	atData
	atContent // its first bytes have come
	atChunk   // a BDAT that is not the last
	atEnd     // the end of the data, by dot or BDAT LAST; with LMTP once for each recipient
	atWait    // everything is answered and nothing more has come
	modelStages
)

var modelStageNames = [...]string{"banner", "EHLO", "RSET", "MAIL", "RCPT", "DATA", "content", "BDAT", "end", "wait"}

func (s modelStage) String() string { return modelStageNames[s] }

// modelMood says what a peer does at a stage.
type modelMood interface {
	at(p *modelPeer, stage modelStage) modelWhim
	// pieces cuts n bytes that could be read, or written, at once.
	piece(p *modelPeer, n int) int
}

// modelWhim is what a peer does at a stage. The zero value is to answer as it should.
type modelWhim struct {
	delay   time.Duration // before the reply
	refuse  int           // the code to refuse with
	lines   int           // further lines of the reply
	instead string        // said in place of the reply
	again   bool          // the reply comes twice
	drip    time.Duration // the reply comes byte by byte, with this time before each
	end     modelEnd
}

// modelEnd is how a peer leaves.
type modelEnd int

const (
	stays        modelEnd = iota
	closesAfter           // the reply
	closes                // instead of the reply
	resets                // instead of the reply
	fallsSilent           // and reads on
	stopsReading          // and says nothing more
	loses                 // this reply and all that follow, but goes on working
	losesAndEnds          // as loses, and the client sees the connection end
)

// modelOffers is what a peer offers, and how it reads the standards where they leave it the choice.
type modelOffers struct {
	pipelining, chunking, eightBit, lmtp bool
	size                                 int64 // -1: SIZE is not offered

	// keepsAfterData: a refused DATA leaves the transaction open.
	keepsAfterData bool
	// afterChunk is what a refused BDAT leaves (RFC 3030 section 2: the state is indeterminate, and RSET must
	// come next).
	afterChunk modelAftermath
	// asksForNothing: DATA gets 354 although no recipient was accepted (RFC 2920 section 3.1).
	asksForNothing bool
	// deaf: what comes in the same read as the end of a message gets 503.
	deaf bool
	// hangsUp: when something comes in the same read as the end of a message, it closes.
	hangsUp bool
	// maxResets without a message accepted between them; then it hangs up. 0: no limit.
	maxResets int
	// gathers: replies go out when there is nothing more to read.
	gathers bool
}

type modelAftermath int

const (
	chunkEndsIt  modelAftermath = iota // the transaction is over
	chunkJamsIt                        // everything but RSET gets 503
	chunkKeepsIt                       // sender and recipients stay, and further content would be theirs
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

// say gives a reply. Its text begins with whom it is about.
func (p *modelPeer) say(w modelWhim, code int, who modelWho, text string) {
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

func (p *modelPeer) blame(format string, args ...any) {
	p.book.failf(p, p.asked.message, format, args...)
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
