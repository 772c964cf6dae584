package smtpclient

import "time"

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
