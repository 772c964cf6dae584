package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// faultStages are the places where a peer can break, in the order of the dialogue. MAIL to dot are those
// of the second of two messages.
var faultStages = []string{"banner", "EHLO", "STARTTLS", "TLS", "EHLO again", "AUTH",
	"RSET", "MAIL", "RCPT 1", "RCPT 2", "DATA", "content", "dot", "QUIT"}

// faults are the ways in which it can.
var faults = []string{"close", "reset", "stall", "garbage", "451", "551", "421", "421 and close", "drip",
	"1 MiB line", "mixed codes", "one reply too many"}

// TestFaults breaks the peer at every stage in every way. What each gives stands in testdata/faults.txt,
// a line each.
func TestFaults(t *testing.T) {
	ca := smtptest.CA(t)
	var table bytes.Buffer
	for _, mode := range []string{"pipelined", "lockstep"} {
		for _, stage := range faultStages {
			for _, fault := range faults {
				name := fmt.Sprintf("%s | %s | %s", mode, stage, fault)
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						fmt.Fprintf(&table, "%s | %s\n", name, breakAt(t, ca, mode, stage, fault))
					})
				})
			}
		}
	}
	compareTable(t, "testdata/faults.txt", table.String())
}

// compareTable compares a table, a case to each line, with a file of testdata.
func compareTable(t *testing.T, file, table string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wants, gots := strings.Split(string(want), "\n"), strings.Split(table, "\n")
	if len(wants) != len(gots) {
		t.Fatalf("%d lines instead of %d", len(gots), len(wants))
	}
	for i, got := range gots {
		if got != wants[i] {
			t.Errorf("got  %s\nwant %s", got, wants[i])
		}
	}
}

// breakAt sends two messages to a peer with a fault, the second to two recipients, and reports what
// became of the second.
func breakAt(t *testing.T, ca *smtptest.Authority, mode, stage, fault string) string {
	client, server := smtptest.Pipe()
	peer := &faultyPeer{stage: stage, fault: fault, conn: server, raw: server.(*smtptest.PipeConn),
		tls: ca.Server(t, "mx.example"), pipelining: mode == "pipelined"}
	var peers sync.WaitGroup
	peers.Go(peer.serve)
	defer peers.Wait()
	start := time.Now()
	cfg := &Config{Host: "mx.example", LocalName: "client.example", TLSConfig: &tls.Config{RootCAs: ca.Pool},
		Auth: &Auth{Username: "u", Password: "p"}}
	s, err := Open(context.Background(), client, cfg)
	if err != nil {
		return fmt.Sprintf("no session: %s: %v%s", err.(*OpenError).Stage, err, took(start))
	}
	defer s.Close()
	env := &Envelope{From: "a@b", Rcpts: []Rcpt{{Address: "first@b"}}}
	tx := s.Send(context.Background(), env, BytesContent([]byte("first\r\n")))
	if !tx.Results[0].Accepted {
		t.Fatalf("the first message was not accepted: %+v", tx.Results[0])
	}
	// What is refused altogether leaves its transaction open, so that the next one begins with RSET.
	env.Rcpts = []Rcpt{{Address: "nobody@b"}}
	if tx = s.Send(context.Background(), env, BytesContent([]byte("for nobody\r\n"))); tx.Results[0].Reply.Code != 550 {
		t.Fatalf("the message for nobody was not refused: %+v", tx.Results[0])
	}
	env.Rcpts = []Rcpt{{Address: "one@b"}, {Address: "two@b"}}
	tx = s.Send(context.Background(), env, BytesContent(bytes.Repeat([]byte("second\r\n"), 100_000)))
	checkInvariants(t, s, tx, peer)
	var report strings.Builder
	for i := range tx.Results {
		fmt.Fprintf(&report, "%s; ", describe(&tx.Results[i]))
	}
	if tx.Err != nil {
		fmt.Fprintf(&report, "%s: %v; ", tx.Err.Kind, tx.Err)
	}
	if tx.ContentBegan {
		report.WriteString("content began; ")
	}
	if s.Usable() {
		report.WriteString("usable")
	} else {
		report.WriteString("not usable")
	}
	if stage == "QUIT" {
		s.Quit(0)
		report.WriteString("; quit")
	}
	return report.String() + took(start)
}

func took(start time.Time) string {
	if d := time.Since(start).Round(time.Second); d > 0 {
		return fmt.Sprintf("; %v", d)
	}
	return ""
}

// checkInvariants checks what holds whatever the peer does.
func checkInvariants(t *testing.T, s *Session, tx *Transaction, peer *faultyPeer) {
	t.Helper()
	synctest.Wait()
	for i, r := range tx.Results {
		if r.Accepted && peer.taken < 2 {
			t.Errorf("recipient %d was accepted, and the peer does not have the message", i)
		}
		if peer.taken == 2 && !r.Accepted && !r.MaybeDelivered && r.Command != "RCPT" {
			t.Errorf("the peer has the message, and recipient %d does not know", i)
		}
		if r.MaybeDelivered && (r.Accepted || r.Err == nil) {
			t.Errorf("recipient %d is %+v", i, r)
		}
		if (r.Err != nil) == (r.Reply.Code != 0) {
			t.Errorf("recipient %d has an error and a reply, or neither: %+v", i, r)
		}
		if r.Err != nil && tx.Err == nil {
			t.Errorf("recipient %d has an error and the transaction has none", i)
		}
	}
	if tx.Err != nil && s.Usable() {
		t.Error("usable after an error")
	}
}

// faultyPeer is a correct server but for one reply.
type faultyPeer struct {
	stage, fault string
	pipelining   bool
	raw          *smtptest.PipeConn
	conn         net.Conn
	in           *bufio.Reader
	tls          *tls.Config

	hellos, rcpts, accepted int
	mail                    bool
	nobody                  bool // the message for nobody was refused
	taken                   int  // messages whose end came
}

var errPeerGone = errors.New("gone")

func (p *faultyPeer) serve() {
	defer p.raw.Close()
	p.in = bufio.NewReader(p.conn)
	if p.answer("banner", "220 mx") != nil {
		return
	}
	for {
		line, err := p.in.ReadString('\n')
		if err != nil || p.command(strings.TrimSpace(line)) != nil {
			return
		}
	}
}

func (p *faultyPeer) command(line string) error {
	verb, _, _ := strings.Cut(line, " ")
	second := func(stage string) string { // faults strike the message after the one for nobody
		if !p.nobody {
			return "first " + stage
		}
		return stage
	}
	switch verb {
	case "EHLO":
		p.hellos++
		text := "250-mx\r\n250-X\r\n250 STARTTLS"
		if p.pipelining {
			text = "250-mx\r\n250-PIPELINING\r\n250 STARTTLS"
		}
		return p.answer([]string{"", "EHLO", "EHLO again"}[p.hellos], text)
	case "STARTTLS":
		if err := p.answer("STARTTLS", "220 go"); err != nil {
			return err
		}
		return p.handshake()
	case "AUTH":
		return p.answer("AUTH", "235 ok")
	case "RSET":
		p.nobody = true
		p.mail, p.accepted, p.rcpts = false, 0, 0
		return p.answer(second("RSET"), "250 reset")
	case "MAIL":
		p.mail = true
		return p.answer(second("MAIL"), "250 mail")
	case "RCPT":
		if !p.mail {
			return p.say("503 MAIL first\r\n")
		}
		if strings.Contains(line, "nobody") {
			return p.say("550 not known\r\n")
		}
		p.rcpts++
		p.accepted++
		return p.answer(second(fmt.Sprintf("RCPT %d", p.rcpts)), "250 rcpt")
	case "DATA":
		if p.accepted == 0 {
			return p.say("503 RCPT first\r\n")
		}
		return p.data(second)
	case "QUIT":
		p.answer("QUIT", "221 bye")
	}
	return errPeerGone
}

func (p *faultyPeer) data(second func(string) string) error {
	if p.fault == "451" || p.fault == "551" || strings.HasPrefix(p.fault, "421") {
		if p.stage == second("DATA") {
			return p.answer("DATA", "")
		}
	}
	if err := p.answer(second("DATA"), "354 go"); err != nil {
		return err
	}
	if p.stage == second("content") {
		p.in.ReadString('\n')
		if err := p.answer("content", "250 early"); err != nil {
			return err
		}
		time.Sleep(time.Microsecond) // the client has read that, before it can write on
	}
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == ".\r\n" {
			break
		}
	}
	p.taken++
	p.mail, p.accepted, p.rcpts = false, 0, 0
	if p.taken == 1 {
		return p.say("250 taken\r\n")
	}
	return p.answer("dot", "250 taken")
}

// answer gives a reply, or breaks.
func (p *faultyPeer) answer(stage, good string) error {
	if stage != p.stage {
		return p.say(good + "\r\n")
	}
	time.Sleep(time.Microsecond) // the client has read what came before, and waits
	switch p.fault {
	case "close":
		p.conn.Close()
		return errPeerGone
	case "reset":
		p.raw.Reset()
		return errPeerGone
	case "stall":
		if stage != "content" {
			io.Copy(io.Discard, p.in)
			return errPeerGone
		}
		time.Sleep(24 * time.Hour) // it does not even read
		return errPeerGone
	case "garbage":
		return p.say("?!\r\n")
	case "451", "551":
		p.refuse(stage)
		return p.say(p.fault + " 4.9.9 no\r\n")
	case "421":
		p.refuse(stage)
		return p.say("421 4.3.2 leaving\r\n")
	case "421 and close":
		p.refuse(stage)
		p.say("421 4.3.2 leaving\r\n")
		p.conn.Close()
		return errPeerGone
	case "drip":
		for _, c := range []byte(good + "\r\n") {
			time.Sleep(time.Second)
			if err := p.say(string(c)); err != nil {
				return err
			}
		}
		return nil
	case "1 MiB line":
		return p.say(strings.Repeat("2", 1<<20) + "\r\n")
	case "mixed codes":
		p.refuse(stage)
		return p.say(good[:3] + "-a\r\n" + "599 b\r\n")
	}
	return p.say(good + "\r\n" + good + "\r\n")
}

// refuse remembers what the refusal of a stage means.
func (p *faultyPeer) refuse(stage string) {
	switch {
	case stage == "MAIL":
		p.mail = false
	case strings.HasPrefix(stage, "RCPT"):
		p.accepted--
	case stage == "dot":
		p.taken--
	}
}

func (p *faultyPeer) handshake() error {
	p.conn = tls.Server(p.raw, p.tls)
	if p.stage == "TLS" {
		if err := p.answer("TLS", "250 no handshake"); err != nil {
			return err
		}
	}
	if err := p.conn.(*tls.Conn).Handshake(); err != nil {
		return err
	}
	p.in = bufio.NewReader(p.conn)
	return nil
}

func (p *faultyPeer) say(text string) error {
	conn := p.conn
	if p.stage == "TLS" && p.in != nil && p.hellos == 1 {
		conn = p.raw
	}
	_, err := io.WriteString(conn, text)
	return err
}
