package smtpclient

import (
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// blamed collects what a book finds wrong.
type blamed struct {
	testing.TB
	errors []string
}

func (b *blamed) Helper() {}
func (b *blamed) Errorf(format string, args ...any) {
	b.errors = append(b.errors, fmt.Sprintf(format, args...))
}

// agreeable refuses what is in refuse, once.
type agreeable struct{ refuse map[modelStage]int }

func (a agreeable) piece(_ *modelPeer, n int) int { return n }
func (a agreeable) at(_ *modelPeer, stage modelStage) modelWhim {
	defer delete(a.refuse, stage)
	return modelWhim{refuse: a.refuse[stage]}
}

// TestModel speaks to the model peer as clients do that know better, or do not, and looks what it answers
// and what the books say. Message 0 holds "first", message 1 "second", each to two recipients.
func TestModel(t *testing.T) {
	const (
		mail0, mail1 = "MAIL FROM:<m0.0@x>\r\n", "MAIL FROM:<m1.0@x>\r\n"
		rcpt0, rcpt1 = "RCPT TO:<r0.0@x>\r\n", "RCPT TO:<r1.0@x>\r\n"
		bdat0, bdat1 = "BDAT 7 LAST\r\nfirst\r\n", "BDAT 8 LAST\r\nsecond\r\n"
		rset         = "RSET\r\n"
		chunks       = "BDAT 3\r\nfirBDAT 4 LAST\r\nst\r\n"
	)
	refusing := func(stage modelStage) agreeable { return agreeable{map[modelStage]int{stage: 452}} }
	tests := []struct {
		name   string
		offers modelOffers
		mood   agreeable
		client string // "|" waits for the replies
		codes  string
		copies string // of the recipients of both messages
		blame  string
	}{
		{name: "two transactions", client: mail0 + rcpt0 + bdat0 + rset + mail1 + rcpt1 + bdat1,
			codes: "250 250 250 250 250 250 250", copies: "1 1"},
		{name: "chunks", client: mail0 + rcpt0 + chunks, codes: "250 250 250 250", copies: "1 0"},
		{name: "wrong content", client: mail0 + rcpt0 + "BDAT 6 LAST\r\nfirst\n", codes: "250 250 250", copies: "1 0", blame: "or others"},
		{name: "the trap", mood: refusing(atEnd), offers: modelOffers{afterChunk: chunkKeepsIt},
			client: mail0 + rcpt0 + bdat0 + mail1 + rcpt1 + bdat1, codes: "250 250 452 503 250 250", copies: "0 0", blame: "under the sender m0.0"},
		{name: "nested MAIL", client: mail0 + mail1 + rcpt1 + bdat1, codes: "250 503 250 250", copies: "0 0", blame: "under the sender m0.0"},
		{name: "nested MAIL with RSET", client: mail0 + rset + mail1 + rcpt1 + bdat1, codes: "250 250 250 250 250", copies: "0 1"},
		{name: "a refused RSET", mood: refusing(atReset), client: mail0 + rset + mail1 + rcpt1 + bdat1,
			codes: "250 452 503 250 250", copies: "0 0+1"},
		{name: "another's recipient", client: mail0 + rcpt0 + mail1 + rcpt1 + bdat1, codes: "250 250 503 250 250", copies: "0 0", blame: "under the sender m0.0"},
		{name: "no recipients", mood: refusing(atRcpt), client: mail0 + rcpt0 + bdat0, codes: "250 452 503", copies: "0 0"},
		{name: "jammed", mood: refusing(atChunk), offers: modelOffers{afterChunk: chunkJamsIt},
			client: mail0 + rcpt0 + chunks + mail1 + rcpt1 + rset + mail1 + rcpt1 + bdat1,
			codes:  "250 250 452 503 503 503 250 250 250 250", copies: "0 1"},
		{name: "over", mood: refusing(atChunk), client: mail0 + rcpt0 + chunks + mail1 + rcpt1 + bdat1,
			codes: "250 250 452 503 250 250 250", copies: "0 1"},
		{name: "DATA", client: mail0 + rcpt0 + "DATA\r\n|first\r\n.\r\n" + mail1 + rcpt1 + "DATA\r\n|second\r\n.\r\n",
			codes: "250 250 354 250 250 250 354 250", copies: "1 1"},
		{name: "DATA is not the last", client: mail0 + rcpt0 + "DATA\r\nfirst\r\n.\r\n", codes: "250 250 354 250", copies: "1 0", blame: "something follows DATA"},
		{name: "a refused DATA keeps", mood: refusing(atData), offers: modelOffers{keepsAfterData: true},
			client: mail0 + rcpt0 + "DATA\r\n|" + mail1 + rcpt1 + bdat1, codes: "250 250 452 503 250 250", copies: "0 0", blame: "under the sender m0.0"},
		{name: "lone dot", mood: refusing(atRcpt), offers: modelOffers{asksForNothing: true},
			client: mail0 + rcpt0 + "DATA\r\n|.\r\n", codes: "250 452 354 503", copies: "0 0"},
		{name: "content for nobody", mood: refusing(atRcpt), offers: modelOffers{asksForNothing: true},
			client: mail0 + rcpt0 + "DATA\r\n|first\r\n.\r\n", codes: "250 452 354 503", copies: "0 0", blame: "content for nobody"},
		{name: "LMTP", offers: modelOffers{lmtp: true}, client: mail0 + rcpt0 + rcpt0 + bdat0, codes: "250 250 250 250 250", copies: "2 0"},
		{name: "deaf", offers: modelOffers{deaf: true}, client: mail0 + rcpt0 + bdat0 + rset + mail1 + rcpt1 + bdat1 + "|" + mail1 + rcpt1 + bdat1,
			codes: "250 250 250 503 503 503 503 250 250 250", copies: "1 1"},
		{name: "hangs up", offers: modelOffers{hangsUp: true}, client: mail0 + rcpt0 + bdat0 + rset + mail1, codes: "250 250 250", copies: "1 0"},
		{name: "too many RSETs", offers: modelOffers{maxResets: 2}, client: rset + rset + rset + mail0, codes: "250 250 421", copies: "0 0"},
		{name: "too deep", client: strings.Repeat(mail0+rcpt0+bdat0, 4), codes: strings.TrimSpace(strings.Repeat("250 ", 12)), copies: "4 0",
			blame: "4 messages are on their way"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := &blamed{}
				book := &modelBook{t: tb, seed: maphash.MakeSeed(), maxFlying: 3}
				for _, text := range []string{"first\r\n", "second\r\n"} {
					m := &modelMessage{hash: maphash.String(book.seed, text), size: int64(len(text))}
					book.add(m)
					book.begin(m, []modelAddress{{m.number, 0}, {m.number, 0}, {m.number, 1}})
				}
				test.offers.pipelining, test.offers.chunking = true, true
				client, server := smtptest.Pipe()
				p := newModelPeer(0, test.offers, test.mood, book, server.(*smtptest.PipeConn))
				parts := strings.Split(test.client, "|")
				io.WriteString(client, parts[0])
				go p.serve()
				for _, part := range parts[1:] {
					synctest.Wait()
					io.WriteString(client, part)
				}
				client.(*smtptest.PipeConn).CloseWrite()
				replies, _ := io.ReadAll(client)
				synctest.Wait()
				var codes, copies []string
				for line := range strings.Lines(string(replies)) {
					codes = append(codes, line[:3])
				}
				if got := strings.Join(codes[1:], " "); got != test.codes {
					t.Errorf("answered %s instead of %s", got, test.codes)
				}
				for _, m := range book.messages {
					held := fmt.Sprint(m.attempts[0].copies[0])
					if n := m.attempts[0].strays[0]; n > 0 {
						held += fmt.Sprintf("+%d", n)
					}
					copies = append(copies, held)
				}
				if got := strings.Join(copies, " "); got != test.copies {
					t.Errorf("holds %s instead of %s", got, test.copies)
				}
				blame := strings.Join(tb.errors, "\n")
				if !strings.Contains(blame, test.blame) || test.blame == "" && blame != "" {
					t.Errorf("blames %q instead of %q", blame, test.blame)
				}
			})
		})
	}
}
