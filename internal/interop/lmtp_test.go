//go:build interop && linux

package interop

import (
	"strings"
	"testing"
)

const lmtpMessage = "From: sender@sender.test\r\nSubject: LMTP\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
	".\r\n..two\r\n\xe9t\xe9\r\n\r\nend\r\n"

// LMTP answers for each recipient, at RCPT and again after the message.
func TestDovecotRecipients(t *testing.T) {
	r := deliver(t, "-config", via(named("lmtp.dovecot.test", lab.dovecot.lmtp)),
		"-egress-path", path(fields{"use_lmtp": true}), "-from", "sender@sender.test",
		"-to", "one@dovecot.test,nobody@dovecot.test,two@dovecot.test,full@dovecot.test,three@dovecot.test",
		messageFile(t, lmtpMessage))
	r.exited(t, 69)
	want := []result{
		{Recipient: "one@dovecot.test", Status: "delivered", Code: 250, Enhanced: "2.0.0", Command: "."},
		{Recipient: "nobody@dovecot.test", Status: "permanent", Code: 550, Enhanced: "5.1.1", Command: "RCPT"},
		{Recipient: "two@dovecot.test", Status: "delivered", Code: 250, Enhanced: "2.0.0", Command: "."},
		{Recipient: "full@dovecot.test", Status: "permanent", Code: 552, Enhanced: "5.2.2", Command: "."},
		{Recipient: "three@dovecot.test", Status: "delivered", Code: 250, Enhanced: "2.0.0", Command: "."},
	}
	if len(r.results) != len(want) {
		t.Fatalf("%d results, want %d:\n%s", len(r.results), len(want), r.stdout)
	}
	for i, w := range want {
		got := r.results[i]
		// Dovecot names the recipient in each reply: this is the reply to this one.
		if !strings.HasPrefix(got.Text, "<"+w.Recipient+"> ") {
			t.Errorf("%s: text %q does not begin with the recipient", w.Recipient, got.Text)
		}
		short := result{Recipient: got.Recipient, Status: got.Status, Code: got.Code, Enhanced: got.Enhanced, Command: got.Command}
		if short != w || got.Protocol != "lmtp" || got.MaybeDelivered {
			t.Errorf("got %+v\nwant %+v by lmtp", got, w)
		}
	}
	for _, user := range []string{"one", "two", "three"} {
		mail := withoutTrace(lab.dovecot.mail(t, user), dovecotTrace...)
		checkSame(t, mail, unixLines(lmtpMessage))
	}
}

// LMTP over a unix socket is an mx_list entry that is a path.
func TestDovecotSocket(t *testing.T) {
	r := deliver(t, "-config", via(lab.dovecot.unix), "-egress-path", path(fields{"use_lmtp": true}),
		"-from", "<>", "-to", "socket@dovecot.test", messageFile(t, lmtpMessage))
	r.exited(t, 0)
	r.all(t, 1, "delivered")
	stored := lab.dovecot.mail(t, "socket")
	if !strings.HasPrefix(stored, "Return-Path: <>\n") {
		t.Errorf("the mail begins %q, want the null sender", stored[:min(len(stored), 60)])
	}
	checkSame(t, withoutTrace(stored, dovecotTrace...), unixLines(lmtpMessage))
}
