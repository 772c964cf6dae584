//go:build interop && linux

package interop

import (
	"fmt"
	"testing"

	"github.com/mtadelivery/delivery"
)

// way is how a mailing goes out.
type way struct {
	pipelining, chunking, rset bool
	limit                      int // of connections
}

func (w way) String() string {
	return fmt.Sprintf("pipelining %v, chunking %v, rset %v, connections %d", w.pipelining, w.chunking, w.rset, w.limit)
}

// ways are all that differ.
var ways = []way{
	{pipelining: true, chunking: true, rset: true, limit: 1},
	{pipelining: true, chunking: true, rset: true, limit: 3},
	{pipelining: true, chunking: true, rset: false, limit: 1},
	{pipelining: true, chunking: false, rset: true, limit: 1},
	{pipelining: true, chunking: false, rset: false, limit: 3},
	{pipelining: false, chunking: true, rset: true, limit: 3},
	{pipelining: false, chunking: true, rset: false, limit: 1},
	{pipelining: false, chunking: false, rset: true, limit: 1},
	{pipelining: false, chunking: false, rset: false, limit: 3},
}

// speculates says whether whole messages go out before the one ahead of them is answered.
func (w way) speculates() bool { return w.pipelining && w.chunking && w.rset }

// letters is how many are sent this way: enough to fill windows where there are any.
func (w way) letters() int {
	if w.speculates() {
		return 300
	}
	return 100
}

func toSwitch(on bool) delivery.Switch {
	if on {
		return delivery.On
	}
	return delivery.Off
}

func (w way) path() delivery.EgressPath {
	return delivery.EgressPath{
		ProhibitedHosts:  nothing,
		ConnectionLimit:  delivery.Limit{Count: int64(w.limit)},
		EnablePipelining: toSwitch(w.pipelining),
		EnableChunking:   toSwitch(w.chunking),
		EnableRSET:       toSwitch(w.rset),
		EnableTLS:        "Disabled",
	}
}

// checkSeen checks that the mailing went the way that it was to go, with windows as full as that allows.
func (w way) checkSeen(t *testing.T, seen observations, opened uint64) {
	t.Helper()
	letters := w.letters()
	if opened > uint64(w.limit) {
		t.Errorf("%d connections, want no more than %d in all", opened, w.limit)
	}
	if seen.sent["MAIL"] != letters {
		t.Errorf("%d times MAIL, want each of %d letters once", seen.sent["MAIL"], letters)
	}
	if used := seen.sent["BDAT"] > 0; used != w.chunking || used == (seen.sent["DATA"] > 0) {
		t.Errorf("sent %v with chunking %v", seen.sent, w.chunking)
	}
	switch {
	case !w.pipelining:
		if seen.unanswered != 1 {
			t.Errorf("%d commands at once, want one", seen.unanswered)
		}
	case !w.chunking:
		if seen.overlapped < letters/4 {
			t.Errorf("MAIL went along with the end of DATA %d times in %d letters", seen.overlapped, letters)
		}
	case !w.speculates():
		if seen.messages != 1 || seen.unanswered < 3 {
			t.Errorf("%d messages and %d commands at once, want one and more", seen.messages, seen.unanswered)
		}
	default:
		if seen.messages <= 8 {
			t.Errorf("%d messages at once, want more than 8", seen.messages)
		}
	}
}

// callers is how many letters are sent at a time.
const callers = 80

// post sends a mailing, watches it, and ends the runtime.
func post(t *testing.T, rt *delivery.Runtime, address string, path delivery.EgressPath, m *mailing) observations {
	t.Helper()
	w := newWatch(path.UseLMTP)
	rt.Trace, rt.Egress = w.trace(), onePath{path}
	protocol := listProtocol(t, rt, address)
	m.send(t, protocol, callers)
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return w.end()
}

// Postfix, which keeps the transaction open after every recipient was refused.
func TestPostfixPipelines(t *testing.T) {
	for i, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			m := writing{domain: "example.test", first: 1000 * (i + 1), letters: way.letters(), refused: postfixRefused}.write()
			var rt delivery.Runtime
			seen := post(t, &rt, lab.postfix.patient, way.path(), m)
			copies := lab.postfix.stored(t)
			m.checkResults(t)
			way.checkSeen(t, seen, rt.Stats().Opened)
			m.checkStored(t, copies, postfixQueued)
		})
	}
}

// postfixRefused are recipients that Postfix refuses.
var postfixRefused = []addressee{{"nobody-", unknown}, {"grey-", greyed}}

// The same over TLS, where groups of commands and what they are read in are cut otherwise.
func TestPostfixPipelinesTLS(t *testing.T) {
	way := way{pipelining: true, chunking: true, rset: true, limit: 2}
	path := way.path()
	path.EnableTLS = "RequiredInsecure"
	m := writing{domain: "example.test", first: 100_000, letters: way.letters(), refused: postfixRefused}.write()
	var rt delivery.Runtime
	seen := post(t, &rt, lab.postfix.patient, path, m)
	copies := lab.postfix.stored(t)
	m.checkResults(t)
	way.checkSeen(t, seen, rt.Stats().Opened)
	if seen.sent["STARTTLS"] == 0 || m.results[0][0].Session.TLS == nil {
		t.Errorf("sent %v, and no TLS", seen.sent)
	}
	m.checkStored(t, copies, postfixQueued)
}

// Dovecot's LMTP, which answers for each recipient after the content.
func TestDovecotPipelines(t *testing.T) {
	for i, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			m := writing{domain: "dovecot.test", first: 1000 * (i + 1), letters: way.letters(), refused: dovecotRefused}.write()
			path := way.path()
			path.UseLMTP = true
			var rt delivery.Runtime
			seen := post(t, &rt, lab.dovecot.lmtp, path, m)
			copies := lab.dovecot.stored(t)
			m.checkResults(t)
			way.checkSeen(t, seen, rt.Stats().Opened)
			m.checkStored(t, copies, dovecotSaved)
		})
	}
}

// dovecotRefused are recipients that Dovecot refuses, the second one when it has the message.
var dovecotRefused = []addressee{{"nobody-", unknown}, {"full", overFull}}

// A Postfix that hangs up after 20 errors in a row. Those who have its 421 for an answer come again, as a
// host would send them; what stood behind it is sent again inside the call. A server that closes a
// connection with input unread resets it, and the last replies may be lost with it, the 421 among them:
// only there may a recipient have a second copy, and the result says so.
func TestPostfixErrorLimit(t *testing.T) {
	for i, way := range ways[:5] {
		t.Run(way.String(), func(t *testing.T) {
			m := writing{domain: "example.test", first: 1000 * (i + 201), letters: way.letters(),
				refused: postfixRefused[:1], refusals: 80, small: true}.write()
			rt := delivery.Runtime{Egress: onePath{way.path()}}
			protocol := listProtocol(t, &rt, lab.postfix.strict)
			for round := 0; round < 10 && m.left() > 0; round++ {
				m.send(t, protocol, callers)
				m.checkLeft(t)
			}
			if err := rt.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if opened := rt.Stats().Opened; opened < uint64(way.limit)+4 {
				t.Errorf("%d connections: the limit did not strike", opened)
			}
			if len(m.doubts) > 0 && !way.speculates() {
				t.Errorf("doubts about %v, where each message waits for the one before", m.doubts)
			}
			copies := lab.postfix.stored(t)
			m.checkResults(t)
			m.checkStored(t, copies, postfixQueued)
		})
	}
}
