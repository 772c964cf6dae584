// Quickstart delivers one message three ways by one policy: over SMTP (to a server that is found by
// an MX record, and again by an mx_list), into Maildirs, and to a webhook through Lua. The servers are
// inside the program: nothing needs to be installed and no port to be free.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/emersion/go-maildir"
	"github.com/mtadelivery/delivery"
)

//go:embed policy.lua
var policyText []byte

const content = "From: <sender@example.org>\r\nSubject: Hello\r\n\r\nOne message, three ways out.\r\n"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	mail, err := startMailServer()
	if err != nil {
		return err
	}
	defer mail.stop()
	nameServer, stopDNS, err := startNameServer()
	if err != nil {
		return err
	}
	defer stopDNS()
	var posts atomic.Int64
	webhook := startWebhook(&posts)
	defer webhook.Close()
	maildirs, err := os.MkdirTemp("", "quickstart")
	if err != nil {
		return err
	}
	defer os.RemoveAll(maildirs)
	// Where busy@maildir.test should get a directory there is a file: a disk in trouble.
	if err := os.MkdirAll(filepath.Join(maildirs, "maildir.test"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(maildirs, "maildir.test", "busy"), nil, 0o644); err != nil {
		return err
	}
	os.Setenv("QUICKSTART_SMTP_PORT", mail.port)
	os.Setenv("QUICKSTART_MAILDIRS", maildirs)
	os.Setenv("QUICKSTART_WEBHOOK", webhook.URL)

	outcomes, err := deliver(ctx, nameServer)
	if err != nil {
		return err
	}
	fmt.Printf("\nSMTP server: %d messages. Maildir of ann: %d. Webhook: %d posts.\n",
		mail.accepted.Load(), unseen(filepath.Join(maildirs, "maildir.test", "ann")), posts.Load())
	return expect(outcomes)
}

// deliver is the part that a host would have: a runtime, a policy, and one call for each queue.
func deliver(ctx context.Context, nameServer string) ([]delivery.Outcome, error) {
	rt := &delivery.Runtime{
		Resolver: &delivery.DNS{Servers: []string{nameServer}},
		Hostname: "quickstart.test",
		Logger:   slog.New(slog.DiscardHandler), // failures are on show below
	}
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", policyText)
	if err != nil {
		return nil, err
	}
	rt.SetPolicy(policy)

	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "PROTOCOL\tRECIPIENT\tSTATUS\tREPLY")
	var outcomes []delivery.Outcome
	for _, to := range [][]string{
		{"ann@mx.test", "busy@mx.test", "nobody@mx.test"},
		{"ann@list.test", "busy@list.test", "nobody@list.test"},
		{"ann@maildir.test", "busy@maildir.test", `"../../nobody"@maildir.test`},
		{"ann@webhook.test"}, {"busy@webhook.test"}, {"nobody@webhook.test"},
	} {
		msg := &delivery.Message{ID: "hello", From: "sender@example.org", Body: delivery.Bytes(content)}
		for _, address := range to {
			msg.Recipients = append(msg.Recipients, delivery.Recipient{Address: address})
		}
		outcome, err := deliverOne(ctx, rt, policy, msg)
		if err != nil {
			return nil, err
		}
		for _, r := range outcome.Results {
			protocol := "-"
			if r.Session != nil {
				protocol = r.Session.Protocol
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", protocol, r.Recipient, r.Status, shorten(r.Response.String()))
		}
		outcomes = append(outcomes, outcome)
	}
	return outcomes, nil
}

func deliverOne(ctx context.Context, rt *delivery.Runtime, policy *delivery.Policy, msg *delivery.Message) (delivery.Outcome, error) {
	queue, err := msg.QueueName()
	if err != nil {
		return delivery.Outcome{}, err
	}
	config, err := policy.QueueConfig(ctx, queue)
	if err != nil {
		return delivery.Outcome{}, err
	}
	protocol, err := rt.Protocol(config)
	if err != nil {
		return delivery.Outcome{}, err
	}
	defer protocol.Close(ctx)
	return protocol.Deliver(ctx, msg), nil
}

func unseen(dir string) int {
	messages, err := maildir.Dir(dir).Unseen()
	if err != nil {
		return 0
	}
	return len(messages)
}

func shorten(s string) string {
	if runes := []rune(s); len(runes) > 90 {
		return string(runes[:89]) + "…"
	}
	return s
}

// expect checks that each way out showed all three outcomes, so that the program can serve as a test.
func expect(outcomes []delivery.Outcome) error {
	want := []delivery.Status{delivery.Delivered, delivery.Transient, delivery.Permanent}
	i := 0
	for _, o := range outcomes {
		for _, r := range o.Results {
			if r.Status != want[i%3] {
				return fmt.Errorf("%w: %s is %s, not %s", errUnexpected, r.Recipient, r.Status, want[i%3])
			}
			i++
		}
	}
	return nil
}
