package smtpclient

import (
	"context"
	"flag"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	peersSeed     = flag.Uint64("peers.seed", 1, "the first seed of the test with random peers")
	peersSeeds    = flag.Int("peers.seeds", 0, "how many seeds it runs; 0: as many as give each 500 messages")
	peersMessages = flag.Int("peers.messages", 40_000, "how many messages it sends, over all seeds")
)

// TestRandomPeers lets many callers share sessions with random peers, in virtual time: each recipient
// gets one result, and what callers are told is what the peers hold. A million messages:
//
//	go test -run TestRandomPeers -peers.messages 1000000 -timeout 1h
//
// A seed decides what peers, messages and callers are like, and the scheduler in what order they meet: it
// may take a few runs to see a failure again.
func TestRandomPeers(t *testing.T) {
	seeds := *peersSeeds
	if seeds == 0 {
		seeds = max(1, *peersMessages/500)
	}
	messages := max(1, *peersMessages/seeds)
	texts := modelTexts(1)
	var mu sync.Mutex
	total := map[modelKind]*modelCounts{}
	t.Run("seeds", func(t *testing.T) {
		for i := range seeds {
			seed := *peersSeed + uint64(i)
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := newModelRun(t, seed, messages, texts)
					r.play()
					mu.Lock()
					defer mu.Unlock()
					if total[r.kind] == nil {
						total[r.kind] = &modelCounts{}
					}
					total[r.kind].add(&r.book.counts)
				})
			})
		}
	})
	for kind, counts := range total {
		t.Logf("%s: %+v", kind, *counts)
		if counts.accepted == 0 {
			t.Errorf("%s peers have accepted nothing", kind)
		}
	}
}

func (c *modelCounts) add(d *modelCounts) {
	c.messages += d.messages
	c.calls += d.calls
	c.sessions += d.sessions
	c.accepted += d.accepted
	c.refused += d.refused
	c.local += d.local
	c.failed += d.failed
	c.again += d.again
	c.maybe += d.maybe
	c.unsent += d.unsent
	c.strays += d.strays
	c.twice += d.twice
	c.peeked += d.peeked
	c.deepest = max(c.deepest, d.deepest)
}

// modelRun is what happens with one seed.
type modelRun struct {
	seed      uint64
	kind      modelKind
	offers    modelOffers
	odds      *modelOdds
	cfg       Config
	texts     []modelText
	messages  int
	callers   int
	badBody   int // so many in a thousand messages
	impatient int // so many in a thousand callers' contexts end
	cuts      int // sessions that are closed amid the work
	slots     []*modelSlot
	book      *modelBook

	mu     sync.Mutex
	begun  int // messages
	opened int
	conns  map[*modelPeer]net.Conn // open ones, by the peer
	peers  sync.WaitGroup
}

func newModelRun(t *testing.T, seed uint64, messages int, texts []modelText) *modelRun {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := &modelRun{seed: seed, messages: messages, texts: texts, conns: map[*modelPeer]net.Conn{}}
	r.kind = []modelKind{calm, calm, refusing, refusing, unbearing, wild, wild, wild, wild}[rng.IntN(9)]
	r.offers, r.odds = randomOffers(rng, r.kind), randomOdds(rng, r.kind)
	r.callers = 1 + rng.IntN(60)>>rng.IntN(3)
	r.cfg = Config{LocalName: "client.example", Host: "peer.example", LMTP: r.offers.lmtp, Peer: &Peer{}, Transcript: -1,
		DisablePipelining: rng.IntN(8) == 0, DisableChunking: rng.IntN(5) == 0, NoReset: rng.IntN(6) == 0,
		Ignore8BitChecks: rng.IntN(3) == 0, MaxPipelined: []int{0, 0, 0, 1, 2, 8, 40}[rng.IntN(7)]}
	if rng.IntN(3) == 0 {
		r.badBody = 1 + rng.IntN(100)
	}
	if rng.IntN(2) == 0 {
		r.impatient = 1 + rng.IntN(300)
	}
	if r.kind == wild && rng.IntN(3) == 0 {
		r.cuts = rng.IntN(10)
	}
	for range 1 + rng.IntN(3)/2 {
		r.slots = append(r.slots, &modelSlot{run: r})
	}
	r.book = &modelBook{t: t, seed: maphash.MakeSeed(), maxFlying: r.cfg.MaxPipelined,
		name:   fmt.Sprintf("run it again with -peers.seed %d -peers.seeds 1 -peers.messages %d", seed, messages),
		detail: fmt.Sprintf("%s peers, %d callers, odds %+v, %+v", r.kind, r.callers, *r.odds, r.cfg)}
	if r.book.maxFlying == 0 {
		r.book.maxFlying = 32
	}
	return r
}

func (r *modelRun) play() {
	stop := r.watch(90 * 24 * time.Hour)
	defer stop()
	var callers sync.WaitGroup
	for i := range r.callers {
		rng := rand.New(rand.NewPCG(r.seed, uint64(i)<<8|2))
		callers.Go(func() {
			for r.more() {
				r.send(rng)
			}
		})
	}
	done := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() { r.cut(done) })
	callers.Wait()
	close(done)
	cutter.Wait()
	for _, s := range r.slots {
		s.quit()
	}
	r.peers.Wait()
	r.book.close()
	if r.kind == calm && r.badBody == 0 && r.opened > len(r.slots) {
		r.book.failf(nil, 0, "%d sessions were opened with a calm peer", r.opened)
	}
}

// more takes a message, if any is left.
func (r *modelRun) more() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	return r.begun <= r.messages && !r.book.failed()
}

func (r *modelRun) cut(done chan struct{}) {
	rng := rand.New(rand.NewPCG(r.seed, 3))
	for range r.cuts {
		select {
		case <-time.After(time.Duration(rng.Int64N(int64(time.Minute)))):
			r.slots[rng.IntN(len(r.slots))].cut()
		case <-done:
			return
		}
	}
}

// send is a caller with a message: it sends it until each recipient has a result, or it has had enough.
func (r *modelRun) send(rng *rand.Rand) {
	if rng.IntN(20) == 0 {
		time.Sleep(time.Duration(rng.IntN(int(time.Second))))
	}
	m := &modelMessage{bad: rng.IntN(1000) < r.badBody}
	r.book.add(m)
	content := r.newModelContent(rng, m)
	if rng.IntN(2) == 0 {
		content.Inspect(context.Background()) // an error comes again
	}
	for i := range 1 + rng.IntN(modelMaxRcpts)>>rng.IntN(3) {
		m.rcpts = append(m.rcpts, modelAddress{m.number, i})
	}
	if len(m.rcpts) > 1 && rng.IntN(30) == 0 {
		m.rcpts[0] = m.rcpts[len(m.rcpts)-1]
	}
	left := m.rcpts
	limit := 400
	if r.kind == wild || m.bad {
		limit = 1 + rng.IntN(6)
	}
	for try := 0; len(left) > 0; try++ {
		if try == limit || r.book.failed() {
			r.gaveUp(m)
			return
		}
		left = r.try(rng, m, content, left)
	}
}

// gaveUp judges that a message got no verdict for some recipients.
func (r *modelRun) gaveUp(m *modelMessage) {
	if r.kind != wild && !m.bad && !r.book.failed() {
		r.book.failf(nil, m.number, "no end of it in %d calls", len(m.attempts))
	}
}

// try sends a message once, and returns the recipients to send it to again.
func (r *modelRun) try(rng *rand.Rand, m *modelMessage, content *Content, rcpts []modelAddress) (left []modelAddress) {
	session := r.slots[rng.IntN(len(r.slots))].get()
	if session == nil {
		return rcpts
	}
	defer session.put()
	attempt := r.book.begin(m, rcpts)
	env := &Envelope{From: string(modelAddress{m.number, attempt}.sender()) + "@from.example"}
	for _, rcpt := range rcpts {
		env.Rcpts = append(env.Rcpts, Rcpt{Address: string(rcpt.rcpt()) + "@to.example"})
	}
	ctx := context.Background()
	if rng.IntN(1000) < r.impatient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.Int64N(int64(20*time.Second))>>rng.IntN(30)))
		defer cancel()
		if rng.IntN(4) == 0 {
			cancel()
		}
	}
	tx := session.Send(ctx, env, content)
	r.book.end(session.peer, m, attempt, rcpts, tx)
	r.checkCall(ctx, session, m, attempt, tx)
	for i := range tx.Results {
		if r.sendAgain(rng, ctx, m, tx, &tx.Results[i]) {
			left = append(left, rcpts[i])
		}
	}
	return left
}

// sendAgain decides as a queue would, but does not wait.
func (r *modelRun) sendAgain(rng *rand.Rand, ctx context.Context, m *modelMessage, tx *Transaction, result *Result) bool {
	switch {
	case result.Err == nil, ctx.Err() != nil:
		return false
	case result.MaybeDelivered:
		return rng.IntN(3) == 0
	case tx.Again, r.kind != wild:
		return true
	}
	return rng.IntN(2) == 0
}

// checkCall checks what holds of calls with peers that are not wild, and of callers who gave up.
func (r *modelRun) checkCall(ctx context.Context, session *modelSession, m *modelMessage, attempt int, tx *Transaction) {
	fail := func(why string) {
		r.book.failf(session.peer, m.number, "attempt %d: %s: %s, %+v", attempt, why, modelTransaction(tx), tx.Results)
	}
	if session.Capacity() < 1 {
		fail("no capacity")
	}
	if n := session.Comfort(); n < 1 || n > max(3, session.maxWindow+session.maxWindow/4) { // more than any Capacity
		fail(fmt.Sprintf("comfort %d", n))
	}
	for i := range tx.Results {
		result := &tx.Results[i]
		failed, _ := result.Err.(*TransactionError)
		switch {
		case result.Reply.Code == 421 && session.Usable():
			fail("usable after a 421")
		case result.Local: // what the peer does not offer
		case failed != nil && failed.Kind == Unsent && ctx.Err() == nil && session.Usable():
			fail("unsent, and nothing was in its way")
		case m.bad:
			if failed == nil && r.kind == calm {
				fail("a bad body does not show")
			}
		case r.kind == calm && r.badBody == 0 && !result.Accepted && ctx.Err() == nil:
			fail("a calm peer has not got it")
		case r.kind <= refusing && result.MaybeDelivered:
			fail("no connection has failed, and it is uncertain")
		case (r.kind == calm || r.kind == unbearing) && result.Err == nil && !result.Accepted:
			fail("nobody refuses anything")
		}
	}
}
