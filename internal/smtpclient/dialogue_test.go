package smtpclient

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

var update = flag.Bool("update", false, "write what happens into testdata/dialogue")

// TestDialogues plays the files of testdata/dialogue. Each has three parts, divided by lines "---": what
// the client is told, the dialogue as smtptest.Play reads it, and what the client reports.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	ca := smtptest.CA(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(data), "---\n")
			if len(parts) != 3 {
				t.Fatalf("%s has %d parts instead of 3", file, len(parts))
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = playFile(t, ca, parts[0], parts[1]) })
			if *update && got != parts[2] {
				parts[2] = got
				if err := os.WriteFile(file, []byte(strings.Join(parts, "---\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != parts[2] {
				t.Errorf("got:\n%s\nwant:\n%s", got, parts[2])
			}
		})
	}
}

// playFile opens a session, sends the messages, quits, and returns the report.
func playFile(t *testing.T, ca *smtptest.Authority, task, dialogue string) string {
	t.Helper()
	client, server := smtptest.Pipe()
	smtptest.Play(t, server, dialogue, ca.Server(t, "mx.example", "192.0.2.1"))
	cfg := &Config{Host: "mx.example.", LocalName: "client.example", TLSConfig: &tls.Config{RootCAs: ca.Pool}}
	var report strings.Builder
	start := time.Now()
	var sends [][]string
	for line := range strings.Lines(task) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0] == "config":
			for _, word := range words[1:] {
				configure(t, cfg, word)
			}
		case words[0] == "send":
			sends = append(sends, words[1:])
		default:
			t.Fatalf("%q is no task", line)
		}
	}
	s, err := Open(context.Background(), client, cfg)
	if err != nil {
		fmt.Fprintf(&report, "open: %s: %v\n", err.(*OpenError).Stage, err)
		return report.String() + elapsed(start)
	}
	if info := s.Info(); info.TLS != nil {
		fmt.Fprintf(&report, "tls verified=%v\n", info.Verified)
	}
	for _, words := range sends {
		env, content := message(t, words)
		tx := s.Send(context.Background(), env, content)
		reportTransaction(&report, env, tx)
		synctest.Wait() // the reader tells its caller before it looks for what nobody asked for
		fmt.Fprintf(&report, "usable=%v\n", s.Usable())
	}
	report.WriteString(elapsed(start))
	s.Quit(0)
	return report.String()
}

func elapsed(start time.Time) string {
	if d := time.Since(start); d > 0 {
		return fmt.Sprintf("after %v\n", d)
	}
	return ""
}

func configure(t *testing.T, cfg *Config, word string) {
	t.Helper()
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "lmtp":
		cfg.LMTP = true
	case "lockstep":
		cfg.DisablePipelining = true
	case "ignore8bit":
		cfg.Ignore8BitChecks = true
	case "noreset":
		cfg.NoReset = true
	case "host":
		cfg.Host = value
	case "tls":
		cfg.TLS = map[string]TLSPolicy{"disabled": TLSDisabled, "required": TLSRequired,
			"insecure": TLSOpportunisticInsecure, "requiredinsecure": TLSRequiredInsecure}[value]
		if cfg.TLS == 0 {
			t.Fatalf("no policy %q", value)
		}
	case "auth":
		user, password, _ := strings.Cut(value, ":")
		cfg.Auth = &Auth{Username: user, Password: password}
	case "authclear":
		cfg.Auth.AllowWithoutTLS = true
	case "authunverified":
		cfg.Auth.AllowUnverified = true
	default:
		t.Fatalf("no config %q", word)
	}
}

// message reads "<from> <rcpt>... key=value... "content"".
func message(t *testing.T, words []string) (*Envelope, *Content) {
	t.Helper()
	env := &Envelope{Options: &smtp.MailOptions{}}
	content := BytesContent([]byte("Subject: x\r\n\r\nhello\r\n"))
	paths := 0
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, "<"):
			address, _ := strconv.Unquote(`"` + strings.ReplaceAll(strings.Trim(word, "<>"), `"`, `\"`) + `"`)
			if paths++; paths == 1 {
				env.From = address
			} else {
				env.Rcpts = append(env.Rcpts, Rcpt{Address: address, Options: &smtp.RcptOptions{}})
			}
		case strings.HasPrefix(word, `"`):
			text, err := strconv.Unquote(word)
			if err != nil {
				t.Fatalf("%s: %v", word, err)
			}
			content = BytesContent([]byte(text))
		case key == "ret":
			env.Options.Return = smtp.DSNReturn(value)
		case key == "envid":
			env.Options.EnvelopeID = value
		case key == "auth":
			env.Options.Auth = &value
		case key == "utf8":
			env.Options.UTF8 = true
		case key == "notify":
			for n := range strings.SplitSeq(value, ",") {
				o := env.Rcpts[len(env.Rcpts)-1].Options
				o.Notify = append(o.Notify, smtp.DSNNotify(n))
			}
		case key == "orcpt":
			o := env.Rcpts[len(env.Rcpts)-1].Options
			kind, address, _ := strings.Cut(value, ";")
			o.OriginalRecipientType, o.OriginalRecipient = smtp.DSNAddressType(kind), address
		default:
			t.Fatalf("%q is no part of a message", word)
		}
	}
	return env, content
}

func reportTransaction(w *strings.Builder, env *Envelope, tx *Transaction) {
	fmt.Fprintf(w, "content began=%v", tx.ContentBegan)
	if tx.Err != nil {
		fmt.Fprintf(w, " %s at %s: %v", tx.Err.Kind, tx.Err.Command, tx.Err)
	}
	w.WriteByte('\n')
	for i, r := range tx.Results {
		fmt.Fprintf(w, "  %s: %s\n", env.Rcpts[i].Address, describe(&r))
	}
}

// describe is a result in a line.
func describe(r *Result) string {
	switch {
	case r.Accepted:
		return "accepted: " + r.Reply.String()
	case r.MaybeDelivered:
		return "maybe at " + r.Command
	case r.Err != nil:
		return "failed at " + r.Command
	case r.Local:
		return "local: " + r.Reply.String()
	}
	return fmt.Sprintf("refused at %s: %s", r.Command, r.Reply)
}
