//go:build interop && linux

package interop

import (
	"crypto/x509"
	"fmt"
	"os"
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
func (w way) checkSeen(t *testing.T, seen observations, letters int) {
	t.Helper()
	t.Logf("sent %v, %d commands and %d messages at once, %d times MAIL behind DATA",
		seen.sent, seen.unanswered, seen.messages, seen.overlapped)
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
	case !w.rset:
		if seen.messages != 1 || seen.unanswered < 3 {
			t.Errorf("%d messages and %d commands at once, want one and more", seen.messages, seen.unanswered)
		}
	default:
		if seen.messages <= 8 {
			t.Errorf("%d messages at once, want more than 8", seen.messages)
		}
	}
}

// post sends a mailing, watches it, and ends the runtime.
func post(t *testing.T, rt *delivery.Runtime, address string, path delivery.EgressPath, m *mailing) observations {
	t.Helper()
	w := newWatch(path.UseLMTP)
	rt.Trace, rt.Egress = w.trace(), onePath{path}
	protocol := listProtocol(t, rt, address)
	m.send(t, protocol, 80)
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return w.end()
}

const letters = 300

// Postfix, which keeps the transaction open after every recipient was refused.
func TestPostfixPipelines(t *testing.T) {
	for i, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			m := writing{domain: "example.test", first: 1000 * (i + 1), letters: letters, refused: postfixRefused}.write()
			var rt delivery.Runtime
			seen := post(t, &rt, lab.postfix.patient, way.path(), m)
			m.checkResults(t)
			way.checkSeen(t, seen, letters)
			if opened := rt.Stats().Opened; opened > uint64(way.limit) {
				t.Errorf("%d connections, want no more than %d in all", opened, way.limit)
			}
			m.checkStored(t, lab.postfix.stored(t), queueFile)
		})
	}
}

// postfixRefused are recipients that Postfix refuses.
var postfixRefused = []addressee{{"nobody-", unknown}, {"grey-", greyed}}

// queueFile is how the header that Postfix adds names the queue file of its reply.
func queueFile(text string) string {
	if m := postfixQueued.FindStringSubmatch(text); m != nil {
		return "id " + m[1]
	}
	return "a reply that names the queue file, not " + text
}

// The same over TLS, where groups of commands and what they are read in are cut otherwise.
func TestPostfixPipelinesTLS(t *testing.T) {
	roots := x509.NewCertPool()
	roots.AddCert(lab.trusted.certificate)
	way := way{pipelining: true, chunking: true, rset: true, limit: 2}
	path := way.path()
	path.EnableTLS = "RequiredInsecure"
	m := writing{domain: "example.test", first: 100_000, letters: letters, refused: postfixRefused}.write()
	rt := delivery.Runtime{RootCAs: roots}
	seen := post(t, &rt, lab.postfix.patient, path, m)
	m.checkResults(t)
	way.checkSeen(t, seen, letters)
	if seen.sent["STARTTLS"] == 0 || m.results[0][0].Session.TLS == nil {
		t.Errorf("sent %v, and no TLS", seen.sent)
	}
	m.checkStored(t, lab.postfix.stored(t), queueFile)
}

// Dovecot's LMTP, which answers for each recipient after the content.
func TestDovecotPipelines(t *testing.T) {
	for i, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			m := writing{domain: "dovecot.test", first: 1000 * (i + 1), letters: letters, refused: dovecotRefused}.write()
			path := way.path()
			path.UseLMTP = true
			var rt delivery.Runtime
			seen := post(t, &rt, lab.dovecot.lmtp, path, m)
			m.checkResults(t)
			way.checkSeen(t, seen, letters)
			copies := lab.dovecot.stored(t)
			if os.Getenv("SHOW") != "" {
				t.Logf("%s\n%+v", copies[0].trace, m.results[1])
			}
			m.checkStored(t, copies, func(text string) string { return "" })
		})
	}
}

// dovecotRefused are recipients that Dovecot refuses, the second one when it has the message.
var dovecotRefused = []addressee{{"nobody-", unknown}, {"full", overFull}}
