//go:build interop && linux

package interop

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// A peer that fails at one stage of the dialogue, in each of four ways. Every recipient has a result,
// and nothing hangs.
func TestSinkFailures(t *testing.T) {
	ways := []struct {
		name, option string
		more         []string // options of the sink
		status       string
		exit         int
		code         int // 0: none of the peer's
		text         string
	}{
		{name: "hangs up", option: "-q", status: "transient", exit: 75},
		{name: "says 421", option: "-Q", status: "transient", exit: 75, code: 421},
		{name: "refuses for good", option: "-f", more: []string{"-B", "554 5.7.1 Never"}, status: "permanent", exit: 69, code: 554, text: "Never"},
		{name: "refuses for now", option: "-r", more: []string{"-b", "451 4.7.1 Not yet"}, status: "transient", exit: 75, code: 451, text: "Not yet"},
	}
	stages := []struct{ command, name string }{
		{"MAIL", "mail"}, {"RCPT", "rcpt"}, {"DATA", "data"}, {".", "."},
	}
	file := messageFile(t, smallMessage)
	for _, way := range ways {
		for _, stage := range stages {
			t.Run(way.name+" at "+stage.command, func(t *testing.T) {
				s := startSink(t, append([]string{way.option, stage.name}, way.more...)...)
				r := deliver(t, "-config", via("[127.0.0.1]:"+portOf(s.address)), "-egress-path", path(nil),
					"-from", "sender@sender.test", "-to", "a@example.test,b@example.test,c@example.test", file)
				r.exited(t, way.exit)
				r.all(t, 3, way.status)
				for i, res := range r.results {
					// Only the silence after the last byte leaves a doubt.
					if want := way.code == 0 && stage.command == "."; res.MaybeDelivered != want {
						t.Errorf("%s: maybe_delivered is %v, want %v", res.Recipient, res.MaybeDelivered, want)
					}
					// A 421 ends the session: what it did not answer any more has no reply of its own.
					if way.code != 0 && res.Code != way.code && !(i > 0 && strings.Contains(res.Text, strconv.Itoa(way.code))) {
						t.Errorf("%s: code %d, want %d: %+v", res.Recipient, res.Code, way.code, res)
					}
					if way.text != "" && (res.Text != way.text || res.Command != stage.command) {
						t.Errorf("%s: %q answers %s, want %q to %s", res.Recipient, res.Text, res.Command, way.text, stage.command)
					}
				}
				if got := s.settled(t); got.sessions == 0 || got.messages != 0 && stage.command != "." {
					t.Errorf("the sink counted %+v, want a connection and no message", got)
				}
			})
		}
	}
}

// Before there is a session, a failure is the host's: the next one is tried, and the recipients wait
// only if there is none.
func TestSinkRefusesSession(t *testing.T) {
	file := messageFile(t, smallMessage)
	for _, options := range []string{"-q connect", "-Q connect", "-f connect", "-r connect", "-q ehlo", "-Q ehlo", "-f ehlo,helo"} {
		t.Run(options, func(t *testing.T) {
			bad := startSink(t, strings.Fields(options)...)
			args := func(hosts ...any) []string {
				return []string{"-config", via(hosts...), "-egress-path", path(nil),
					"-from", "sender@sender.test", "-to", "a@example.test,b@example.test", file}
			}
			r := deliver(t, args(named("bad.test", bad.address))...)
			r.exited(t, 75)
			r.all(t, 2, "transient")
			if !strings.Contains(r.results[0].Text, bad.address) {
				t.Errorf("text %q does not name %s", r.results[0].Text, bad.address)
			}

			good := startSink(t)
			r = deliver(t, args(named("bad.test", bad.address), named("good.test", good.address))...)
			r.exited(t, 0)
			r.all(t, 2, "delivered")
			if got := fmt.Sprint(r.results[0].Peer, " ", good.settled(t).messages); got != "good.test 1" {
				t.Errorf("got %s, want good.test 1", got)
			}
		})
	}
}
