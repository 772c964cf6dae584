package smtpclient

import (
	"context"
	"encoding/hex"
	"net"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

var everything = extensions{"SIZE": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "AUTH": "PLAIN", "PIPELINING": ""}

// fields takes a command apart: the verb, the path without angle brackets, the parameters.
func fields(t *testing.T, line, verb string) (address string, params map[string]string) {
	t.Helper()
	if strings.ContainsAny(line, "\r\n\x00") {
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

// FuzzCommands: no value gets out of its place. A message that is admitted makes commands of one line
// each, from which a reader gets back exactly what was put in, and no parameter that was not.
func FuzzCommands(f *testing.F) {
	f.Add("a@b", "c@d", "envid", "auth@x", "orig@x", "NEVER", "RFC822", "FULL")
	f.Add("", `"a b>"@c`, "a b", "", "ü@x", "", "UTF-8", "HDRS")
	f.Add("a> SIZE=1@b", "c@d\r\nDATA", "x\r\ny", "<>", "a+b=c", "NEVER ORCPT=x", "x;y", "FULL X")
	f.Add(`"`, `"\`, "\\x{41}", "\xff", "\\", "", "", "")
	f.Fuzz(func(t *testing.T, from, to, envid, auth, orig, notify, kind, ret string) {
		s := &Session{cfg: &Config{}, ext: everything}
		c := BytesContent([]byte("x"))
		c.Inspect(t.Context())
		env := &Envelope{
			From:    from,
			Options: &smtp.MailOptions{EnvelopeID: envid, Auth: &auth, Return: smtp.DSNReturn(ret)},
			Rcpts: []Rcpt{{Address: to, Options: &smtp.RcptOptions{
				OriginalRecipient: orig, OriginalRecipientType: smtp.DSNAddressType(kind)}}},
		}
		if notify != "" {
			env.Rcpts[0].Options.Notify = []smtp.DSNNotify{smtp.DSNNotify(notify), smtp.DSNNotifySuccess}
		}
		tr := &transfer{env: env, content: c, rcpts: make([]rcptState, 1)}
		if s.judgeMessage(env, c) == nil {
			address, params := fields(t, string(s.appendMail(nil, tr)), "MAIL FROM")
			want := map[string]string{"SIZE": "3"}
			if ret != "" {
				want["RET"] = ret
			}
			if envid != "" {
				want["ENVID"] = envid
			}
			want["AUTH"] = auth
			if params["AUTH"] == "<>" {
				params["AUTH"] = ""
			}
			if tr.needsUTF8() {
				want["SMTPUTF8"] = ""
			}
			if address != from {
				t.Fatalf("%q became %q", from, address)
			}
			checkParams(t, params, want, unxtext)
		}
		if s.judgeRcpt(&env.Rcpts[0]) == nil {
			address, params := fields(t, string(s.appendRcpt(nil, &env.Rcpts[0])), "RCPT TO")
			want := map[string]string{}
			if notify != "" {
				want["NOTIFY"] = notify + ",SUCCESS"
			}
			decode := unxtext
			if orig != "" {
				want["ORCPT"] = "rfc822;" + orig
				if kind == "UTF-8" {
					want["ORCPT"], decode = "utf-8;"+strings.ToValidUTF8(orig, "\ufffd"), unxtextUTF8
					if !utf8.ValidString(orig) {
						return // each bad byte is a character of its own
					}
				}
			}
			if address != to {
				t.Fatalf("%q became %q", to, address)
			}
			checkParams(t, params, want, decode)
		}
	})
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
