package smtpclient

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/emersion/go-smtp"
)

var everything = extensions{"SIZE": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "AUTH": "PLAIN", "PIPELINING": "",
	"CHUNKING": "", "BINARYMIME": "", "REQUIRETLS": "", "DELIVERBY": "", "MT-PRIORITY": "MIXER", "RRVS": ""}

// fields takes a command apart: the verb, the path without angle brackets, the parameters.
func fields(t *testing.T, line, verb string) (address string, params map[string]string) {
	t.Helper()
	if strings.ContainsFunc(line, unicode.IsControl) || len(line) > 4096-len("\r\n") {
		t.Fatalf("%q is not one line", line)
	}
	rest, ok := strings.CutPrefix(line, verb+":<")
	if !ok {
		t.Fatalf("%q does not begin with %s", line, verb)
	}
	quoted, end := false, -1
	for i := 0; i < len(rest) && end < 0; i++ {
		switch {
		case rest[i] == '\\' && quoted:
			i++
		case rest[i] == '"':
			quoted = !quoted
		case rest[i] == '>' && !quoted:
			end = i
		}
	}
	if end < 0 {
		t.Fatalf("%q has no end of a path", line)
	}
	params = map[string]string{}
	for _, p := range strings.Fields(rest[end+1:]) {
		key, value, _ := strings.Cut(p, "=")
		if _, twice := params[key]; twice {
			t.Fatalf("%s twice in %q", key, line)
		}
		params[key] = value
	}
	return rest[:end], params
}

var (
	hexPair  = regexp.MustCompile(`\+[0-9A-F]{2}`)
	embedded = regexp.MustCompile(`\\x\{([0-9A-F]{2,6})\}`)
)

func unxtext(s string) string {
	return hexPair.ReplaceAllStringFunc(s, func(h string) string {
		b, _ := hex.DecodeString(h[1:])
		return string(b)
	})
}

func unxtextUTF8(s string) string {
	return embedded.ReplaceAllStringFunc(s, func(h string) string {
		h = h[3 : len(h)-1]
		if len(h)%2 == 1 {
			h = "0" + h
		}
		b, _ := hex.DecodeString(h)
		var r rune
		for _, c := range b {
			r = r<<8 | rune(c)
		}
		return string(r)
	})
}

// FuzzEnvelope: no value gets out of its place. A message that is admitted makes commands of one line
// each, from which a reader gets back exactly what was put in, and no parameter that was not.
func FuzzEnvelope(f *testing.F) {
	f.Add("a@b", "c@d", "envid", "auth@x", "orig@x", "NEVER", "RFC822", "FULL", int64(60), "R", 3, int64(0), "")
	f.Add("", `"a b>"@c`, "a b", "", "ü@x", "", "UTF-8", "HDRS", int64(-5), "N", -9, int64(1_700_000_000), "8BITMIME")
	f.Add("a> SIZE=1@b", "c@d\r\nDATA", "x\r\ny", "<>", "a+b=c", "NEVER ORCPT=x", "x;y", "FULL X", int64(1), "R X", 100, int64(1), "X")
	f.Add(`"`, `"\`, "\\x{41}", "\xff", "\\", "", "", "", int64(0), "", 0, int64(-1)<<60, "BINARYMIME")
	f.Add(`"a"b@c`, `a\@b`, "", `a b@c`, "\x01", "FAILURE", "RFC822", "", int64(1)<<40, "N", 0, int64(-62135596801), "")
	f.Fuzz(func(t *testing.T, from, to, envid, auth, orig, notify, kind, ret string, by int64, mode string, priority int, since int64, body string) {
		s := &Session{cfg: &Config{}, ext: everything, verified: true}
		s.prepare()
		c := BytesContent([]byte("x\x80"))
		c.Inspect(t.Context())
		by %= 2e9 // further seconds overflow the Duration, not the parameter
		rcpt := &smtp.RcptOptions{OriginalRecipient: orig, OriginalRecipientType: smtp.DSNAddressType(kind), MTPriority: &priority}
		if mode != "" {
			rcpt.DeliverBy = &smtp.DeliverByOptions{Time: time.Duration(by) * time.Second, Mode: smtp.DeliverByMode(mode), Trace: true}
		}
		if notify != "" {
			rcpt.Notify = []smtp.DSNNotify{smtp.DSNNotify(notify), smtp.DSNNotifySuccess}
		}
		if since != 0 {
			rcpt.RequireRecipientValidSince = time.Unix(since, 0)
		}
		env := &Envelope{
			From: from,
			Options: &smtp.MailOptions{EnvelopeID: envid, Auth: &auth, Return: smtp.DSNReturn(ret), RequireTLS: true,
				Body: smtp.BodyType(body)},
			Rcpts: []Rcpt{{Address: to, Options: rcpt}},
		}
		tr := &transfer{env: env, content: c, rcpts: make([]rcptState, 1)}
		if s.judgeMessage(env, c) != nil || s.judgeRcpt(env, 0) != nil {
			return
		}
		address, params := fields(t, string(s.appendMail(nil, tr)), "MAIL FROM")
		if address != from {
			t.Fatalf("%q became %q", from, address)
		}
		want := map[string]string{"SIZE": "4", "BODY": "8BITMIME", "REQUIRETLS": "", "MT-PRIORITY": fmt.Sprint(priority), "AUTH": auth}
		if body == "BINARYMIME" {
			want["SIZE"], want["BODY"] = "2", body
		}
		if ret != "" {
			want["RET"] = ret
		}
		if envid != "" {
			want["ENVID"] = envid
		}
		if mode != "" {
			want["BY"] = fmt.Sprintf("%d;%sT", by, mode)
		}
		if tr.needsUTF8() {
			want["SMTPUTF8"] = ""
		}
		switch got := unquoted(unxtext(params["AUTH"])); {
		case got == auth, got == unquoted(auth):
			params["AUTH"], want["AUTH"] = "", ""
		case params["AUTH"] == "<>" && !isMailbox(auth):
			params["AUTH"], want["AUTH"] = "", ""
		}
		checkParams(t, params, want, unxtext)

		address, params = fields(t, string(s.appendRcpt(nil, &env.Rcpts[0])), "RCPT TO")
		if address != to {
			t.Fatalf("%q became %q", to, address)
		}
		want = map[string]string{}
		if notify != "" {
			want["NOTIFY"] = notify + ",SUCCESS"
		}
		if since != 0 && !time.Unix(since, 0).IsZero() {
			at, err := time.Parse(time.RFC3339, params["RRVS"])
			if err != nil || at.Unix() != since {
				t.Fatalf("RRVS=%s for %d", params["RRVS"], since)
			}
			delete(params, "RRVS")
		}
		decode := unxtext
		if orig != "" {
			want["ORCPT"] = "rfc822;" + orig
			if strings.HasPrefix(params["ORCPT"], "utf-8;") && (kind == "UTF-8" || !isPrintable(orig)) {
				want["ORCPT"], decode = "utf-8;"+orig, unxtextUTF8
			}
		}
		checkParams(t, params, want, decode)
	})
}

// unquoted is a mailbox as go-smtp's server hands it on.
func unquoted(mailbox string) string {
	at := strings.LastIndexByte(mailbox, '@')
	if at < 2 || mailbox[0] != '"' || mailbox[at-1] != '"' {
		return mailbox
	}
	return regexp.MustCompile(`(?s)\\(.)`).ReplaceAllString(mailbox[1:at-1], "$1") + mailbox[at:]
}

// isMailbox holds for what an AUTH parameter must not lose.
func isMailbox(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && len(s) < 200 && local != "" && isPrintable(s) && !strings.ContainsAny(domain, "\"\\<> @") && local[0] != '"'
}

func checkParams(t *testing.T, got, want map[string]string, decode func(string) string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("parameters %q, want %q", got, want)
	}
	for key, value := range want {
		if decode(got[key]) != value {
			t.Fatalf("%s is %q, want %q", key, got[key], value)
		}
	}
}

func TestUTF8OriginalRecipient(t *testing.T) {
	got := string(appendUTF8Xtext(nil, "ü+\\😀 \u0001@z"))
	if want := `\x{FC}\x{2B}\x{5C}\x{1F600}\x{20}\x{01}@z`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestParametersReachAServer has go-smtp's server read what we write.
func TestParametersReachAServer(t *testing.T) {
	backend := &recorder{got: make(chan string, 10)}
	server := smtp.NewServer(backend)
	server.EnableDSN, server.EnableSMTPUTF8 = true, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()
	s := dial(t, l.Addr().String(), &Config{})
	defer s.Quit(0)
	tx := s.Send(context.Background(), &Envelope{
		From:    "a@b",
		Options: &smtp.MailOptions{EnvelopeID: "x + = y", Return: smtp.DSNReturnHeaders},
		Rcpts: []Rcpt{
			{Address: "c@d", Options: &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure, smtp.DSNNotifyDelayed},
				OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "o+p=q@r"}},
			{Address: "ü@d", Options: &smtp.RcptOptions{OriginalRecipientType: smtp.DSNAddressTypeUTF8, OriginalRecipient: "ü+x@z"}},
		},
	}, BytesContent([]byte("Subject: ä\r\n\r\n.\r\n")))
	for i, r := range tx.Results {
		if !r.Accepted {
			t.Errorf("recipient %d: %s", i, describe(&r))
		}
	}
	for _, want := range []string{`a@b 8BITMIME 18 "x + = y" HDRS utf8=true`, `c@d [FAILURE DELAY] RFC822 o+p=q@r`,
		`ü@d [] UTF-8 ü+x@z`, "Subject: ä\r\n\r\n.\r\n"} {
		if got := <-backend.got; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
