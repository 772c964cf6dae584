package smtpclient

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// modelKind is how much a random peer dares. It decides what else must hold.
type modelKind int

const (
	// calm refuses nothing: every sound message is accepted.
	calm modelKind = iota
	// refusing refuses MAIL, RCPT, DATA, BDAT and the end of data: every sound message is decided by replies.
	refusing
	// unbearing cannot bear pipelining over messages: every sound message is accepted, at least perhaps.
	unbearing
	// wild does anything: whatever happens, the books balance.
	wild
)

func (k modelKind) String() string { return [...]string{"calm", "refusing", "unbearing", "wild"}[k] }

// modelOdds are the chances of a whim, in ten thousand.
type modelOdds struct {
	delay, refuse, refuseReset, leave, die, drip, lines int
	refuseMail, refuseRcpt                              int // on top of refuse
	idle                                                int // to leave while nothing is asked
	stages                                              int // of 421 and death: a bit for each stage; 0 for all
	small                                               int // of a piece being a few bytes only
	longest                                             time.Duration
}

// randomMood is the mood of the peers of one connection.
type randomMood struct {
	rng   *rand.Rand
	odds  *modelOdds
	sulks bool // after a 421 without closing
}

func (m *randomMood) chance(odds int) bool { return odds > 0 && m.rng.IntN(10_000) < odds }

func (m *randomMood) piece(_ *modelPeer, n int) int {
	if n > 1 && m.chance(m.odds.small) {
		return 1 + m.rng.IntN(min(n, 40))
	}
	return n
}

func (m *randomMood) at(p *modelPeer, stage modelStage) (w modelWhim) {
	if p.left {
		// It sulks, or serves on. What it takes now it acknowledges at once: a client need not wait long for
		// what stands behind a 421, nor think that it was accepted.
		if m.sulks && stage != atContent {
			w.refuse = 421
		}
		return w
	}
	if stage == atWait {
		if m.chance(m.odds.idle) {
			w = modelWhim{instead: fmt.Sprintf("421 4.4.2 %s too long\r\n", modelIdle), end: closesAfter}
		}
		return w
	}
	if m.odds.stages == 0 || m.odds.stages&(1<<stage) != 0 {
		switch {
		case m.chance(m.odds.die):
			w.delay = m.delay(m.odds.longest)
			w.end = []modelEnd{closes, closes, resets, fallsSilent, stopsReading, loses, losesAndEnds}[m.rng.IntN(7)]
			return w
		case m.chance(m.odds.leave) && stage != atContent:
			w.refuse = 421
			m.sulks = m.rng.IntN(2) == 0
			if m.rng.IntN(2) == 0 {
				w.end = closesAfter
			}
			return w
		}
	}
	refuse := m.odds.refuse
	switch stage {
	case atBanner, atHello:
		refuse = 0
	case atContent:
		refuse = m.odds.die / 2
	case atReset:
		refuse = m.odds.refuseReset
	case atMail:
		refuse += m.odds.refuseMail
	case atRcpt:
		refuse += m.odds.refuseRcpt
	}
	if m.chance(refuse) {
		w.refuse = []int{450, 451, 452, 550, 551, 552, 554, 571}[m.rng.IntN(8)]
	}
	if stage == atContent {
		return w
	}
	if m.chance(m.odds.delay) {
		w.delay = m.delay(m.odds.longest)
	}
	if m.chance(m.odds.drip) {
		w.drip = m.delay(100 * time.Millisecond)
	}
	if m.chance(m.odds.lines) {
		w.lines = m.rng.IntN(4)
	}
	return w
}

// delay is now long, now short.
func (m *randomMood) delay(longest time.Duration) time.Duration {
	return 1 + time.Duration(m.rng.Int64N(int64(max(longest>>m.rng.IntN(20), 1))))
}

// randomOffers is what the peers of a run offer.
func randomOffers(rng *rand.Rand, kind modelKind) modelOffers {
	one := func(n int) bool { return rng.IntN(n) == 0 }
	o := modelOffers{
		pipelining:     !one(5),
		chunking:       !one(3),
		eightBit:       !one(4),
		lmtp:           one(5),
		size:           []int64{-1, 0, 1 << 30, 50_000}[rng.IntN(4)],
		keepsAfterData: one(2),
		afterChunk:     modelAftermath(rng.IntN(3)),
		asksForNothing: one(3),
		gathers:        one(2),
	}
	if o.lmtp {
		o.asksForNothing = false // RFC 2033 section 4.2
	}
	if kind == unbearing || kind == wild && one(4) {
		switch rng.IntN(3) {
		case 0:
			o.deaf = true
		case 1:
			o.hangsUp = true
		default:
			o.maxResets = 10
		}
	}
	return o
}

// randomOdds are those of a run: what is rare in one is frequent in another.
func randomOdds(rng *rand.Rand, kind modelKind) *modelOdds {
	upTo := func(n int) int { return rng.IntN(n+1) >> rng.IntN(8) }
	o := &modelOdds{longest: 100 * time.Millisecond << rng.IntN(8)}
	if rng.IntN(3) > 0 {
		o.delay = upTo(10_000)
	}
	if rng.IntN(3) == 0 {
		o.drip = upTo(2000)
	}
	if rng.IntN(3) == 0 {
		o.small = upTo(9000)
	}
	o.lines = upTo(3000)
	if kind == refusing || kind == wild {
		o.refuse = upTo(2500)
		o.refuseMail = upTo(2500)
		o.refuseRcpt = upTo(7000)
	}
	if kind == wild {
		o.leave, o.die = upTo(300), upTo(300)
		if rng.IntN(2) == 0 {
			o.stages = 1 << rng.IntN(int(modelStages))
			o.leave, o.die = 4*o.leave, 4*o.die
		}
		if rng.IntN(2) == 0 {
			o.refuseReset = upTo(2000)
		}
		if rng.IntN(3) == 0 {
			o.idle = upTo(300)
		}
	}
	return o
}
