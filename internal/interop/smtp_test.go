//go:build interop && linux

package interop

import (
	"encoding/base64"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// requireTLS are the flags of a delivery to Postfix over STARTTLS with a certificate of the authority.
func requireTLS(ca *authority) []string {
	return []string{"-ca", ca.file, "-config", via(named(postfixName, lab.postfix.smtp)),
		"-egress-path", path(fields{"enable_tls": "Required"}), "-from", "sender@sender.test"}
}

// Three recipients with three fates: each has the reply that Postfix gave to it, in order.
func TestPostfixRecipients(t *testing.T) {
	log := lab.postfix.log(t)
	r := deliver(t, append(requireTLS(lab.trusted), "-to", "nobody@example.test,first@example.test",
		"-to", "grey@example.test", messageFile(t, smallMessage))...)
	r.exited(t, 69)

	if len(r.results) != 3 {
		t.Fatalf("%d results, want 3:\n%s", len(r.results), r.stdout)
	}
	for i, want := range []result{
		{Recipient: "nobody@example.test", Status: "permanent", Code: 550, Enhanced: "5.1.1", Command: "RCPT",
			Text: "<nobody@example.test>: Recipient address rejected: There is nobody of that name"},
		{Recipient: "first@example.test", Status: "delivered", Code: 250, Enhanced: "2.0.0", Command: ".",
			Text: r.results[1].Text}, // looked at below
		{Recipient: "grey@example.test", Status: "transient", Code: 450, Enhanced: "4.2.0", Command: "RCPT",
			Text: "<grey@example.test>: Recipient address rejected: Greylisted, come back later"},
	} {
		got := r.results[i]
		want.Message, want.Protocol = 1, "smtp"
		want.Peer, want.Address = postfixName, lab.postfix.smtp
		want.ReadyName = "unspecified->mx_list:" + lab.postfix.smtp + "@smtp_client"
		// These three are the session's.
		want.Source, want.Session, want.TLS = got.Source, got.Session, got.TLS
		if got.TLS == nil {
			t.Fatalf("%s: no TLS", got.Recipient)
		}
		if s := r.results[0]; got.Session != s.Session || got.Source != s.Source || *got.TLS != *s.TLS {
			t.Errorf("%s: session %s %s %v, want that of the first recipient, %s %s %v",
				got.Recipient, got.Session, got.Source, got.TLS, s.Session, s.Source, s.TLS)
		}
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	first := r.results[0]
	if tls := *first.TLS; tls.Version != "TLS 1.3" || !strings.HasPrefix(tls.Cipher, "TLS_") || !tls.Verified || tls.By != "pkix" {
		t.Errorf("TLS is %+v, want TLS 1.3 verified by pkix", tls)
	}
	if !strings.HasPrefix(first.Source, "127.0.0.1:") || first.Session == "" {
		t.Errorf("source %q, session %q", first.Source, first.Session)
	}
	if want := (postfixDialogue{"ehlo": "2", "starttls": "1", "mail": "1", "rcpt": "1/3", "bdat": "1", "quit": "1",
		"commands": "7/9"}); !maps.Equal(log.dialogues(t, 1)[0], want) {
		t.Errorf("Postfix saw %v, want %v", log.dialogues(t, 1)[0], want)
	}

	// The text names the queue file that Postfix logged for this recipient.
	id := postfixQueued.FindStringSubmatch(r.results[1].Text)
	if id == nil {
		t.Fatalf("text is %q, want Ok: N bytes queued as ID", r.results[1].Text)
	}
	lab.postfix.mail(t, "first")
	mustSee(t, "the delivery in the log", func() bool {
		return strings.Contains(log.text(t), id[1]+": to=<first@example.test>")
	})
	if n := strings.Count(log.text(t), id[1]+": to="); n != 1 {
		t.Errorf("Postfix logged %d recipients, want one", n)
	}
}

// What Postfix stores is what was sent, whichever command carried it.
func TestPostfixBytes(t *testing.T) {
	const head = "From: sender@sender.test\r\nSubject: bytes\r\n"
	tests := []struct{ name, content, stored string }{
		{name: "dots", content: head + "\r\n.\r\n..\r\n.leading\r\nin . the middle\r\n...\r\nend.\r\n.\r\n"},
		{name: "8bit", content: head + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
			"Grüße, 世界\r\n\xe4\xf6\xfc in Latin-1, and \xff\xfe which is neither\r\n"},
		{name: "unix line ends", content: unixLines(head) + "\nfirst\n.\n.dot\n\nlast\n",
			stored: unixLines(head) + "\nfirst\n.\n.dot\n\nlast\n"},
		{name: "no final line end", content: head + "\r\nthe end", stored: unixLines(head) + "\nthe end\n"},
		{name: "ends in a dot", content: head + "\r\n.", stored: unixLines(head) + "\n.\n"},
		{name: "mixed line ends", content: head + "\r\none\ntwo\r\nthree\n.\r\n", stored: unixLines(head) + "\none\ntwo\nthree\n.\n"},
		{name: "bare CR", content: head + "\r\na\rb\r\r\n", stored: unixLines(head) + "\na b \n"},
		{name: "large", content: head + "\r\n" + largeBody()},
	}
	for i, test := range tests {
		for _, chunking := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, chunking %v", test.name, chunking), func(t *testing.T) {
				user := fmt.Sprintf("bytes-%d", i+1)
				r := deliver(t, "-ca", lab.trusted.file, "-config", via(named(postfixName, lab.postfix.smtp)),
					"-egress-path", path(fields{"enable_tls": "Required", "enable_chunking": chunking}),
					"-from", "sender@sender.test", "-to", user+"@example.test", messageFile(t, test.content))
				r.exited(t, 0)
				want := test.stored
				if want == "" {
					want = unixLines(test.content)
				}
				mail := lab.postfix.mail(t, user)
				checkSame(t, withoutTrace(mail, postfixTrace...), want)
			})
		}
	}
}

// largeBody is 3 MB of lines of all lengths up to the 998 octets of RFC 5322 section 2.1.1, every
// third of which begins with a dot.
func largeBody() string {
	var b strings.Builder
	for n := 0; b.Len() < 3<<20; n++ {
		line := strings.Repeat(string(rune('a'+n%26)), n%999)
		if n%3 == 0 && line != "" {
			line = "." + line[1:]
		}
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

// checkSame compares contents and shows where they part.
func checkSame(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	excerpt := func(s string) string { return s[max(0, min(at-40, len(s))):min(at+40, len(s))] }
	t.Fatalf("%d bytes, want %d; at %d:\ngot  %q\nwant %q", len(got), len(want), at, excerpt(got), excerpt(want))
}

// A certificate that cannot be verified stops the delivery before anything of the message is said.
func TestPostfixUnverified(t *testing.T) {
	message := messageFile(t, smallMessage)
	for _, test := range []struct {
		name   string
		ca     *authority
		server string // the name that the certificate is to have
		mode   string
	}{
		{"foreign authority", lab.foreign, postfixName, "Required"},
		{"foreign authority", lab.foreign, postfixName, "Opportunistic"},
		{"foreign name", lab.trusted, "other.example.test", "Required"},
		{"foreign name", lab.trusted, "other.example.test", "Opportunistic"},
	} {
		t.Run(test.name+" "+test.mode, func(t *testing.T) {
			log := lab.postfix.log(t)
			r := deliver(t, "-ca", test.ca.file, "-config", via(named(test.server, lab.postfix.smtp)),
				"-egress-path", path(fields{"enable_tls": test.mode}),
				"-from", "sender@sender.test", "-to", "first@example.test,in-clear@example.test", message)
			r.exited(t, 75)
			r.all(t, 2, "transient")
			if res := r.results[0]; !strings.Contains(res.Text, "certificate") || res.MaybeDelivered {
				t.Errorf("got %+v, want a text about the certificate and no doubt", res)
			}
			for _, d := range log.dialogues(t, 1) {
				if d["mail"] != "" || d["starttls"] == "" {
					t.Errorf("Postfix saw %v, want STARTTLS and no MAIL", d)
				}
			}
		})
	}
}

// The modes that ask for less than a verified certificate get what they ask for, and no mode gets
// more than there is.
func TestPostfixModes(t *testing.T) {
	for _, test := range []struct {
		name, mode, user string
		address          string
		tls              bool
	}{
		{"clear when disabled", "Disabled", "in-clear", lab.postfix.smtp, false},
		{"unverified when insecure", "OpportunisticInsecure", "unverified", lab.postfix.smtp, true},
		{"clear when not offered", "Opportunistic", "no-starttls", lab.postfix.clear, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := lab.postfix.log(t)
			r := deliver(t, "-ca", lab.foreign.file, "-config", via(named(postfixName, test.address)),
				"-egress-path", path(fields{"enable_tls": test.mode}),
				"-from", "sender@sender.test", "-to", test.user+"@example.test", messageFile(t, smallMessage))
			r.exited(t, 0)
			r.all(t, 1, "delivered")
			switch tls := r.results[0].TLS; {
			case !test.tls && tls != nil:
				t.Errorf("TLS %+v, want none", tls)
			case test.tls && (tls == nil || tls.Version == "" || tls.Verified || tls.By != "none"):
				t.Errorf("TLS %+v, want it unverified, by none", tls)
			}
			if d := log.dialogues(t, 1)[0]; (d["starttls"] == "1") != test.tls || d["mail"] != "1" {
				t.Errorf("Postfix saw %v, want STARTTLS %v and one message", d, test.tls)
			}
			lab.postfix.mail(t, test.user)
		})
	}
	t.Run("nothing when required and not offered", func(t *testing.T) {
		log := lab.postfix.log(t)
		r := deliver(t, "-ca", lab.trusted.file, "-config", via(named(postfixName, lab.postfix.clear)),
			"-egress-path", path(fields{"enable_tls": "RequiredInsecure"}),
			"-from", "sender@sender.test", "-to", "first@example.test", messageFile(t, smallMessage))
		r.exited(t, 75)
		r.all(t, 1, "transient")
		if d := log.dialogues(t, 1)[0]; d["mail"] != "" {
			t.Errorf("Postfix saw %v, want no MAIL", d)
		}
	})
}

// AUTH PLAIN opens a Postfix that takes mail from known users alone.
func TestPostfixAuth(t *testing.T) {
	args := func(password string, more ...string) []string {
		return append([]string{"-ca", lab.trusted.file, "-config", via(named(postfixName, lab.postfix.auth)),
			"-egress-path", path(fields{"enable_tls": "Required", "smtp_auth_plain_username": "one@dovecot.test",
				"smtp_auth_plain_password": fields{"key_data": password}}),
			"-from", "sender@sender.test", "-to", "login@example.test", messageFile(t, smallMessage)}, more...)
	}
	t.Run("wrong password", func(t *testing.T) {
		log := lab.postfix.log(t)
		r := deliver(t, args("guess")...)
		r.exited(t, 75)
		r.all(t, 1, "transient")
		if text := r.results[0].Text; !strings.Contains(text, "535") || !strings.Contains(text, "authentication failed") {
			t.Errorf("text is %q, want Postfix's reply in it", text)
		}
		if d := log.dialogues(t, 1)[0]; d["auth"] != "0/1" || d["mail"] != "" {
			t.Errorf("Postfix saw %v, want one AUTH and no MAIL", d)
		}
	})
	t.Run("right password", func(t *testing.T) {
		log := lab.postfix.log(t)
		r := deliver(t, slices.Concat([]string{"-trace"}, args(dovecotPassword))...)
		r.exited(t, 0)
		r.all(t, 1, "delivered")
		if !strings.Contains(log.text(t), "sasl_username=one@dovecot.test") {
			t.Errorf("Postfix logged no login:\n%s", log.text(t))
		}
		lab.postfix.mail(t, "login")
		secret := base64.StdEncoding.EncodeToString([]byte("\x00one@dovecot.test\x00" + dovecotPassword))
		if !strings.Contains(r.stderr, "AUTH PLAIN") {
			t.Errorf("the trace has no AUTH:\n%s", r.stderr)
		}
		for _, s := range []string{dovecotPassword, secret, "The body."} {
			if strings.Contains(r.stderr, s) {
				t.Errorf("the trace shows %q:\n%s", s, r.stderr)
			}
		}
	})
}

// After every recipient was refused, Postfix keeps the transaction open: the next message over the
// same connection must not be taken for its continuation.
func TestPostfixAfterRefusal(t *testing.T) {
	log := lab.postfix.log(t)
	message := messageFile(t, smallMessage)
	batch := filepath.Join(t.TempDir(), "batch")
	var lines strings.Builder
	for _, envelope := range [][2]string{
		{"refused@sender.test", "nobody@example.test"}, {"accepted@sender.test", "after-refusal@example.test"},
	} {
		lines.WriteString(fields{"from": envelope[0], "to": []string{envelope[1]}, "file": message}.json() + "\n")
	}
	if err := writeFile(batch, lines.String()); err != nil {
		t.Fatal(err)
	}
	r := deliver(t, "-ca", lab.trusted.file, "-config", via(named(postfixName, lab.postfix.smtp)),
		"-egress-path", path(nil), "-batch", batch)
	r.exited(t, 69)
	if r.statuses() != "permanent delivered" || r.summary.Sessions != 1 {
		t.Errorf("%s over %d sessions, want permanent delivered over 1:\n%s", r.statuses(), r.summary.Sessions, r.stdout)
	}
	log.dialogues(t, 1)
	if mail := lab.postfix.mail(t, "after-refusal"); !strings.HasPrefix(mail, "Return-Path: <accepted@sender.test>\n") {
		t.Errorf("the mail begins %q, want the sender accepted@sender.test", mail[:min(len(mail), 60)])
	}
}
