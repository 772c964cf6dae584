package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// loopback lets the tests reach their own servers.
const loopback = `{"prohibited_hosts":[]}`

const mail = "Subject: test\r\n\r\n.hidden\r\nbody\r\n"

// deliverTo runs the program as a person would.
func deliverTo(t *testing.T, ctx context.Context, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(ctx, args, strings.NewReader(mail), &out, &errs)
	return status, out.String(), errs.String()
}

// jsonLines decodes every line of the output.
func jsonLines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(text) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, v)
	}
	return lines
}

// column is what one key holds in every line.
func column(lines []map[string]any, key string) []any {
	values := make([]any, len(lines))
	for i, l := range lines {
		values[i] = l[key]
	}
	return values
}

func wantKeys(t *testing.T, line map[string]any, want string) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(line))
	if wanted := slices.Sorted(slices.Values(strings.Fields(want))); !slices.Equal(keys, wanted) {
		t.Errorf("the keys are %q, want %q", keys, wanted)
	}
}

func TestEachRecipientHasItsOwnResult(t *testing.T) {
	withCert, roots := withTLS(t)
	p := newPeer(t, withCert)
	status, out, errs := deliverTo(t, t.Context(), "-config", p.config(), "-egress-path", loopback, "-ca", roots, "-json",
		"-from", "sender@example.org", "-to", "permanent@example.com,user@example.com", "-to", "transient@EXAMPLE.com",
		write(t, "message.eml", mail))
	if status != exitUnavailable || errs != "" {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	lines := jsonLines(t, out)
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), out)
	}
	const always = "message recipient status code enhanced text command protocol peer address source session ready_name tls maybe_delivered "
	for _, l := range lines {
		wantKeys(t, l, always)
		wantKeys(t, l["tls"].(map[string]any), "version cipher verified by")
	}
	for key, want := range map[string][]any{
		"message":         {1.0, 1.0, 1.0},
		"recipient":       {"permanent@example.com", "user@example.com", "transient@example.com"},
		"status":          {"permanent", "delivered", "transient"},
		"code":            {550.0, 250.0, 451.0},
		"enhanced":        {"5.1.1", "2.0.0", "4.2.1"},
		"command":         {"RCPT", ".", "RCPT"},
		"protocol":        {"smtp", "smtp", "smtp"},
		"peer":            {"mx.example.com", "mx.example.com", "mx.example.com"},
		"address":         {p.addr, p.addr, p.addr},
		"maybe_delivered": {false, false, false},
	} {
		if got := column(lines, key); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
	if got := lines[0]["text"]; got != "no such user" {
		t.Errorf("text %q", got)
	}
	if tls := lines[1]["tls"].(map[string]any); tls["verified"] != true || tls["by"] != "pkix" || tls["version"] != "TLS 1.3" {
		t.Errorf("tls %v", tls)
	}
	if got, want := lines[1]["ready_name"], "unspecified->mx_list:"+p.addr+"@smtp_client"; got != want {
		t.Errorf("ready_name %q, want %q", got, want)
	}
	inbox := p.inbox()
	if len(inbox) != 1 || inbox[0].from != "sender@example.org" || inbox[0].content != mail || !slices.Equal(inbox[0].to, []string{"user@example.com"}) {
		t.Errorf("the peer has %q", inbox)
	}
}

func TestTable(t *testing.T) {
	p := newPeer(t)
	status, out, errs := deliverTo(t, t.Context(), "-config", p.config(), "-egress-path", loopback,
		"-from", "<>", "-to", "user@example.com,transient@example.com", "-")
	if status != exitTempFail || errs != "" {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	var rows [][]string
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Fields(line))
	}
	want := [][]string{
		{"RECIPIENT", "STATUS", "REPLY", "WHERE"},
		{"user@example.com", "delivered", "250", "2.0.0", "OK:", "queued", "smtp", "mx.example.com", p.addr},
		{"transient@example.com", "transient", "451", "4.2.1", "mailbox", "is", "busy", "smtp", "mx.example.com", p.addr},
	}
	if !slices.EqualFunc(rows, want, slices.Equal) {
		t.Errorf("the table is\n%s", out)
	}
	lines := strings.Split(out, "\n")
	if at := strings.Index(lines[0], "STATUS"); strings.Index(lines[1], "delivered") != at || strings.LastIndex(lines[2], "transient") != at {
		t.Errorf("the columns are not aligned:\n%s", out)
	}
	if inbox := p.inbox(); len(inbox) != 1 || inbox[0].from != "" || inbox[0].content != mail {
		t.Errorf("the peer has %q", inbox)
	}
}

// policyText decides by domain and has egress of its own.
func policyText(p *peer, folder string) string {
	return fmt.Sprintf(`
local kumo = require 'kumo'
print('the policy speaks')
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain == 'maildir.example.com' then
    return kumo.make_queue_config { protocol = { maildir_path = %q .. '/{{ domain_part }}/{{ local_part }}' } }
  elseif domain == 'lua.example.com' then
    return kumo.make_queue_config { protocol = { custom_lua = { constructor = 'make.webhook' } } }
  end
  return kumo.make_queue_config { egress_pool = 'pool', protocol = { smtp = { mx_list = { '127.0.0.1:%s' } } } }
end)
kumo.on('get_egress_pool', function(name)
  return kumo.make_egress_pool { name = name, entries = { { name = 'source' } } }
end)
kumo.on('get_egress_source', function(name)
  return kumo.make_egress_source { name = name }
end)
kumo.on('get_egress_path_config', function(domain, source, site)
  return kumo.make_egress_path { prohibited_hosts = {}, enable_tls = 'Disabled' }
end)
kumo.on('make.webhook', function(domain, tenant, campaign)
  local connection = {}
  function connection:send(message)
    local user = message:recipient_list()[1].user
    if user == 'permanent' then kumo.reject(550, 'not here') end
    return 'kept for ' .. user .. ' of ' .. tostring(message:get_meta('customer'))
  end
  return connection
end)
`, folder, p.port())
}

func TestPolicySplitsByDomain(t *testing.T) {
	p := newPeer(t)
	folder := t.TempDir()
	policy := write(t, "policy.lua", policyText(p, folder))
	status, out, errs := deliverTo(t, t.Context(), "-policy", policy, "-json", "-meta", "customer=42",
		"-from", "sender@example.org",
		"-to", "a@smtp.example.com,b@maildir.example.com,permanent@lua.example.com,d@SMTP.example.com,c@lua.example.com", "-")
	if status != exitUnavailable || !strings.Contains(errs, "the policy speaks") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	lines := jsonLines(t, out)
	for key, want := range map[string][]any{
		"recipient": {"a@smtp.example.com", "b@maildir.example.com", "permanent@lua.example.com", "d@smtp.example.com", "c@lua.example.com"},
		"protocol":  {"smtp", "maildir", "lua", "smtp", "lua"},
	} {
		if got := column(lines, key); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
	if got, want := lines[0]["ready_name"], "source->mx_list:127.0.0.1:"+p.port()+"@smtp_client"; got != want {
		t.Errorf("ready_name %q, want %q", got, want)
	}
	if inbox := p.inbox(); len(inbox) != 1 || len(inbox[0].to) != 2 {
		t.Errorf("one call for the two recipients of a domain, but the peer has %q", inbox)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "maildir.example.com", "b", "new", "*"))
	if len(files) != 1 {
		t.Fatalf("%d files in the Maildir", len(files))
	}
	if content, _ := os.ReadFile(files[0]); strings.ReplaceAll(string(content), "\r\n", "\n") != strings.ReplaceAll(mail, "\r\n", "\n") {
		t.Errorf("the Maildir has %q", content)
	}
}

func TestLuaDisposition(t *testing.T) {
	policy := write(t, "policy.lua", policyText(newPeer(t), t.TempDir()))
	status, out, _ := deliverTo(t, t.Context(), "-policy", policy, "-json", "-meta", "customer=42",
		"-from", "sender@example.org", "-to", "user@lua.example.com", "-")
	lines := jsonLines(t, out)
	if status != exitOK || len(lines) != 1 {
		t.Fatalf("status %d:\n%s", status, out)
	}
	wantKeys(t, lines[0], "message recipient status code text protocol peer session ready_name maybe_delivered")
	if l := lines[0]; l["status"] != "delivered" || l["text"] != "kept for user of 42" || l["code"] != 200.0 {
		t.Errorf("got %v", l)
	}
}

func TestQueueIsOneCallForAll(t *testing.T) {
	p := newPeer(t)
	policy := write(t, "policy.lua", policyText(p, t.TempDir()))
	for _, args := range [][]string{
		{"-queue", "campaign:tenant@smtp.example.com"},
		{"-meta", "queue=tenant@smtp.example.com"},
	} {
		before := len(p.inbox())
		args = append(args, "-policy", policy, "-from", "sender@example.org", "-to", "a@lua.example.com,b@maildir.example.com", "-")
		status, out, errs := deliverTo(t, t.Context(), args...)
		inbox := p.inbox()
		if status != exitOK || len(inbox) != before+1 || len(inbox[before].to) != 2 {
			t.Errorf("%q: status %d, the peer has %q\n%s%s", args, status, inbox, out, errs)
		}
	}
}

func TestFlagsWinOverThePolicysEgress(t *testing.T) {
	p := newPeer(t)
	policy := write(t, "policy.lua", `
kumo.on('get_queue_config', function() return kumo.make_queue_config { protocol = { smtp = { mx_list = { '127.0.0.1:1' } } } } end)
kumo.on('get_egress_path_config', function() error('not to be asked') end)
`)
	status, out, errs := deliverTo(t, t.Context(), "-policy", policy, "-json", "-egress-path", loopback,
		"-egress-source", fmt.Sprintf(`{"name":"mine","remote_port":%s,"source_address":"127.0.0.1"}`, p.port()),
		"-from", "sender@example.org", "-to", "user@example.com", "-")
	if status != exitOK || errs != "" {
		t.Fatalf("status %d, stderr %q\n%s", status, errs, out)
	}
	l := jsonLines(t, out)[0]
	if got, want := l["ready_name"], "mine->mx_list:127.0.0.1:1@smtp_client"; got != want {
		t.Errorf("ready_name %q, want %q", got, want)
	}
	if source, _ := l["source"].(string); !strings.HasPrefix(source, "127.0.0.1:") {
		t.Errorf("source %q", source)
	}
}

func TestResolver(t *testing.T) {
	p := newPeer(t)
	dns := dnstest.Start(t, "example.com. MX 10 mx.example.com.\nmx.example.com. A 127.0.0.1\n")
	status, out, errs := deliverTo(t, t.Context(), "-dns", dns.Addr(), "-trust-ad", "-json",
		"-egress-path", fmt.Sprintf(`{"prohibited_hosts":[],"smtp_port":%s}`, p.port()),
		"-from", "sender@example.org", "-to", "user@example.com", "-")
	if status != exitOK || errs != "" {
		t.Fatalf("status %d, stderr %q\n%s", status, errs, out)
	}
	if l := jsonLines(t, out)[0]; l["peer"] != "mx.example.com" || l["address"] != p.addr {
		t.Errorf("got %v", l)
	}
}

func TestTrace(t *testing.T) {
	p := newPeer(t)
	status, _, errs := deliverTo(t, t.Context(), "-config", p.config(), "-egress-path", loopback, "-trace",
		"-from", "sender@example.org", "-to", "user@example.com", "-")
	if status != exitOK {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"dialing " + p.addr, " C: EHLO ", " S: 220 ", " C: MAIL FROM:<sender@example.org>", "-- ready: smtp mx.example.com", "-- closed"} {
		if !strings.Contains(errs, want) {
			t.Errorf("the trace lacks %q:\n%s", want, errs)
		}
	}
	if strings.Contains(errs, "hidden") {
		t.Errorf("the trace shows content:\n%s", errs)
	}
}

func TestTraceHidesCredentials(t *testing.T) {
	sink := &smtptest.Sink{Username: "somebody", Password: "open sesame"}
	addr, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	status, out, errs := deliverTo(t, t.Context(), "-trace", "-from", "<>", "-to", "user@example.com",
		"-config", fmt.Sprintf(`{"protocol":{"smtp":{"mx_list":[%q]}}}`, addr),
		"-egress-path", `{"prohibited_hosts":[],"smtp_auth_plain_username":"somebody",
			"smtp_auth_plain_password":{"key_data":"open sesame"},"allow_smtp_auth_plain_without_tls":true}`, "-")
	if messages := sink.Messages(); status != exitOK || len(messages) != 1 || messages[0].User != "somebody" {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	secret := base64.StdEncoding.EncodeToString([]byte("\x00somebody\x00open sesame"))
	if !strings.Contains(errs, "C: AUTH PLAIN") || strings.Contains(errs, secret) || strings.Contains(errs, "sesame") {
		t.Errorf("the trace is\n%s", errs)
	}
}

func TestLMTP(t *testing.T) {
	p := newPeer(t, func(_ *peer, s *smtp.Server) { s.LMTP = true })
	status, out, errs := deliverTo(t, t.Context(), "-config", p.config(), "-json",
		"-egress-path", `{"prohibited_hosts":[],"use_lmtp":true}`, "-from", "<>", "-to", "user@example.com", "-")
	if status != exitOK {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	if l := jsonLines(t, out)[0]; l["protocol"] != "lmtp" || l["status"] != "delivered" {
		t.Errorf("got %v", l)
	}
}

func TestOutputThatFails(t *testing.T) {
	p := newPeer(t)
	for _, flags := range [][]string{{"-json"}, {}, {"-n", "2"}, {"-dry-run"}} {
		var errs bytes.Buffer
		args := append(flags, "-config", p.config(), "-egress-path", loopback, "-from", "<>", "-to", "a@example.com", "-")
		status := run(t.Context(), args, strings.NewReader(mail), brokenWriter{}, &errs)
		if status != exitIOError || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%q: status %d, stderr %q", flags, status, &errs)
		}
	}
}
