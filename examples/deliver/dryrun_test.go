package main

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func TestDryRun(t *testing.T) {
	p := newPeer(t)
	folder := t.TempDir()
	policy := write(t, "policy.lua", policyText(p, folder))
	status, out, _ := deliverTo(t, t.Context(), "-policy", policy, "-dry-run", "-from", "sender@example.org",
		"-to", "a@smtp.example.com,b@maildir.example.com,c@lua.example.com,d@smtp.example.com", "-")
	lines := jsonLines(t, out)
	if status != exitOK || len(lines) != 3 {
		t.Fatalf("status %d:\n%s", status, out)
	}
	const common = "queue ready_name config recipients protocol "
	for i, want := range []struct {
		keys, queue, protocol string
		recipients            []any
	}{
		{"plan", "smtp.example.com", "smtp", []any{"a@smtp.example.com", "d@smtp.example.com"}},
		{"paths", "maildir.example.com", "maildir", []any{"b@maildir.example.com"}},
		{"constructor", "lua.example.com", "lua", []any{"c@lua.example.com"}},
	} {
		l := lines[i]
		wantKeys(t, l, common+want.keys)
		if l["queue"] != want.queue || l["protocol"] != want.protocol || !slices.Equal(l["recipients"].([]any), want.recipients) {
			t.Errorf("got %v, want %v", l, want)
		}
	}
	if got, want := fmt.Sprint(lines[0]["plan"]), "[map[address:"+p.addr+" host:127.0.0.1]]"; got != want {
		t.Errorf("plan %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(lines[1]["paths"]), "map[b@maildir.example.com:"+folder+"/maildir.example.com/b]"; got != want {
		t.Errorf("paths %s, want %s", got, want)
	}
	if lines[2]["constructor"] != "make.webhook" {
		t.Errorf("constructor %v", lines[2]["constructor"])
	}
	config := lines[0]["config"].(map[string]any)
	mxList := config["protocol"].(map[string]any)["smtp"].(map[string]any)["mx_list"]
	if fmt.Sprint(mxList) != "[127.0.0.1:"+p.port()+"]" || config["retry_interval"] == nil || config["egress_pool"] != "pool" {
		t.Errorf("config %v", config)
	}
	if entries, _ := os.ReadDir(folder); len(entries) > 0 || p.sessions > 0 {
		t.Errorf("the dry run made %v and %d sessions", entries, p.sessions)
	}
}

func TestDryRunOfWhatHasNoPlan(t *testing.T) {
	dns := dnstest.Start(t, "mx.example.com. A 192.0.2.1\n")
	status, out, _ := deliverTo(t, t.Context(), "-dns", dns.Addr(), "-dry-run", "-from", "<>", "-to", "a@example.com",
		"-config", `{"protocol":{"smtp":{"mx_list":["mx.example.com","gone.example.com:2525"]}}}`, "-")
	if status != exitOK {
		t.Errorf("one host of two resolves: status %d", status)
	}
	plan := jsonLines(t, out)[0]["plan"].([]any)
	if len(plan) != 2 {
		t.Fatalf("plan %v", plan)
	}
	if good := plan[0].(map[string]any); good["address"] != "192.0.2.1:25" || len(good) != 2 {
		t.Errorf("got %v", good)
	}
	bad := plan[1].(map[string]any)
	if wantKeys(t, bad, "host error"); bad["host"] != "gone.example.com" {
		t.Errorf("got %v", bad)
	}

	status, out, _ = deliverTo(t, t.Context(), "-dns", dns.Addr(), "-dry-run", "-from", "<>", "-to", "a@example.com",
		"-config", `{"protocol":{"smtp":{"mx_list":["gone.example.com"]}}}`, "-")
	if l := jsonLines(t, out)[0]; status != exitTempFail || l["error"] == nil {
		t.Errorf("no host resolves: status %d, %v", status, l)
	}

	batch := write(t, "batch.jsonl", `{"from":"","to":["<x>@example.com"],"file":"batch.jsonl"}`)
	status, out, _ = deliverTo(t, t.Context(), "-dns", dns.Addr(), "-dry-run", "-batch", batch)
	if l := jsonLines(t, out)[0]; status != exitUnavailable || l["error"] == nil {
		t.Errorf("an address that can never be sent: status %d, %v", status, l)
	}
}
