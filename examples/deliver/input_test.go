package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// Bad input is one line on standard error that says what to change, and an exit status.
func TestBadInput(t *testing.T) {
	message := write(t, "message.eml", mail)
	policy := func(text string) string { return write(t, "policy.lua", text) }
	queueConfig := func(table string) string {
		return policy("kumo.on('get_queue_config', function()\n  return kumo.make_queue_config " + table + "\nend)\n")
	}
	batch := func(lines string) string { return write(t, "batch.jsonl", lines) }
	missing := filepath.Join(t.TempDir(), "missing")
	envelope := []string{"-from", "a@example.org", "-to", "b@example.com", message}

	for _, test := range []struct {
		name   string
		args   []string
		whole  bool // else a good envelope follows
		status int
		want   []string
	}{
		{"no flags", nil, true, exitUsage, []string{"-from"}},
		{"unknown flag", []string{"-nonsense"}, false, exitUsage, []string{"-nonsense"}},
		{"no sender", []string{"-to", "b@example.com", message}, true, exitUsage, []string{"-from is missing"}},
		{"no recipient", []string{"-from", "<>", message}, true, exitUsage, []string{"-to is missing"}},
		{"no message", []string{"-from", "<>", "-to", "b@example.com"}, true, exitUsage, []string{"MESSAGE is missing"}},
		{"standard input twice", []string{"-from", "<>", "-to", "b@example.com", "-", "-"}, true, exitUsage, []string{"twice"}},
		{"policy and config", []string{"-policy", missing, "-config", "{}"}, false, exitUsage, []string{"-policy and -config"}},
		{"policy without a name", []string{"-policy", ""}, false, exitUsage, []string{"-policy"}},
		{"config without text", []string{"-config", ""}, false, exitUsage, []string{"-config"}},
		{"batch without a name", []string{"-batch", ""}, true, exitUsage, []string{"-batch"}},
		{"batch and sender", []string{"-batch", missing, "-from", "<>"}, true, exitUsage, []string{"-from and -batch"}},
		{"batch and message", []string{"-batch", missing, message}, true, exitUsage, []string{"-batch", message}},
		{"no copies", []string{"-n", "0"}, false, exitUsage, []string{"-n 0"}},
		{"no calls", []string{"-c", "-1"}, false, exitUsage, []string{"-c -1"}},
		{"copies without a number", []string{"-n", "many"}, false, exitUsage, []string{"-n", "many"}},
		{"timeout without a unit", []string{"-timeout", "5"}, false, exitUsage, []string{"-timeout"}},
		{"timeout of zero", []string{"-timeout", "0s"}, false, exitUsage, []string{"-timeout"}},
		{"resolver without a port", []string{"-dns", "192.0.2.1"}, false, exitUsage, []string{"-dns 192.0.2.1", "HOST:PORT"}},
		{"metadata without a value", []string{"-meta", "tenant"}, false, exitUsage, []string{"KEY=VALUE"}},

		{"CR LF in a recipient", []string{"-from", "<>", "-to", "a@example.com\r\nRCPT TO:<b@example.com>", message}, true, exitData, []string{"-to", `\r\n`}},
		{"NUL in the sender", []string{"-from", "a\x00@example.org", "-to", "b@example.com", message}, true, exitData, []string{"-from", `\x00`}},
		{"angle brackets", []string{"-from", "<>", "-to", "<b@example.com>", message}, true, exitData, []string{"-to", "<b@example.com>"}},
		{"bare space", []string{"-from", "<>", "-to", "b c@example.com", message}, true, exitData, []string{"-to", "b c@example.com"}},
		{"empty recipient", []string{"-from", "<>", "-to", "", message}, true, exitData, []string{"-to", "empty"}},
		{"one of several", []string{"-from", "<>", "-to", "a@example.com,b c@example.com", message}, true, exitData, []string{"b c@example.com"}},
		{"metadata of the wrong kind", []string{"-meta", "tenant=42"}, false, exitData, []string{"tenant"}},

		{"missing policy", []string{"-policy", missing}, false, exitNoInput, []string{missing}},
		{"missing config", []string{"-config", "@" + missing}, false, exitNoInput, []string{"-config", missing}},
		{"missing roots", []string{"-ca", missing}, false, exitNoInput, []string{"-ca", missing}},
		{"missing message", []string{"-from", "<>", "-to", "b@example.com", missing}, true, exitNoInput, []string{missing}},
		{"missing message of many copies", []string{"-n", "2", "-from", "<>", "-to", "b@example.com", missing}, true, exitNoInput, []string{missing}},
		{"folder for a message", []string{"-from", "<>", "-to", "b@example.com", t.TempDir()}, true, exitNoInput, []string{"regular file"}},
		{"missing batch", []string{"-batch", missing}, true, exitNoInput, []string{missing}},
		{"missing file of a batch", []string{"-batch", batch("\n" + `{"from":"","to":["a@example.com"],"file":"nothing.eml"}`)}, true, exitNoInput, []string{"batch.jsonl:2", "nothing.eml"}},

		{"batch that is no JSON", []string{"-batch", batch("hello")}, true, exitData, []string{"batch.jsonl:1"}},
		{"two values on a line", []string{"-batch", batch(`{"from":"","to":["a@b"],"file":"batch.jsonl"} {}`)}, true, exitData, []string{"batch.jsonl:1"}},
		{"unknown key in a batch", []string{"-batch", batch(`{"from":"","to":["a@example.com"],"file":"batch.jsonl","cc":[]}`)}, true, exitData, []string{"batch.jsonl:1", "cc"}},
		{"batch without a sender", []string{"-batch", batch(`{"to":["a@example.com"],"file":"batch.jsonl"}`)}, true, exitData, []string{"batch.jsonl:1", "from"}},
		{"batch without a file", []string{"-batch", batch(`{"from":"","to":["a@example.com"]}`)}, true, exitData, []string{"batch.jsonl:1", "file"}},
		{"batch with an empty recipient list", []string{"-batch", batch(`{"from":"","to":[],"file":"batch.jsonl"}`)}, true, exitData, []string{"batch.jsonl:1", "recipient"}},
		{"metadata of the wrong kind in a batch", []string{"-batch", batch(`{"from":"","to":["a@example.com"],"file":"batch.jsonl","meta":{"tenant":42}}`)}, true, exitData, []string{"batch.jsonl:1", "tenant"}},

		{"roots without a certificate", []string{"-ca", message}, false, exitConfig, []string{"-ca", message, "PEM"}},
		{"config that is no JSON", []string{"-config", "{"}, false, exitConfig, []string{"-config"}},
		{"unknown key", []string{"-config", `{"protocol":{"smtp":{"mxlist":[]}}}`}, false, exitConfig, []string{"-config", "protocol.smtp.mxlist"}},
		{"two protocols", []string{"-config", `{"protocol":{"smtp":{},"maildir_path":"/x"}}`}, false, exitConfig, []string{"protocol"}},
		{"port 0", []string{"-config", `{"protocol":{"smtp":{"mx_list":["mx.example.com:0"]}}}`}, false, exitConfig, []string{"mx_list[0]", "port 0"}},
		{"Lua without a policy", []string{"-config", `{"protocol":{"custom_lua":{"constructor":"make.webhook"}}}`}, false, exitConfig, []string{"custom_lua", "-policy"}},
		{"pool without a policy", []string{"-config", `{"egress_pool":"pool","protocol":{"smtp":{"mx_list":["[127.0.0.1]"]}}}`}, false, exitConfig, []string{"egress_pool", "pool"}},
		{"egress path", []string{"-egress-path", `{"smtp_port":70000}`}, false, exitConfig, []string{"-egress-path", "smtp_port"}},
		{"egress source", []string{"-egress-source", `{"name":"a","remote_port":0}`}, false, exitConfig, []string{"-egress-source", "remote_port"}},
		{"egress source without a name", []string{"-egress-source", `{}`}, false, exitConfig, []string{"-egress-source", "name"}},
		{"egress source of no source", []string{"-egress-source", `{"name":"unspecified"}`}, false, exitConfig, []string{"-egress-source", "unspecified"}},

		{"syntax error", []string{"-policy", policy("kumo.on(\n\nend)")}, false, exitConfig, []string{"policy.lua:3"}},
		{"policy: unknown key", []string{"-policy", queueConfig("{ protocol = { smtpp = {} } }")}, false, exitConfig, []string{"policy.lua:2", "protocol.smtpp"}},
		{"policy: bad mx_list", []string{"-policy", queueConfig("{ protocol = { smtp = { mx_list = { 'a.example.com', '[1.2.3' } } } }")}, false, exitConfig, []string{"policy.lua:2", "mx_list["}},
		{"policy: port 70000", []string{"-policy", queueConfig("{ protocol = { smtp = { mx_list = { 'a.example.com:70000' } } } }")}, false, exitConfig, []string{"policy.lua:2", "70000"}},
		{"policy: dir_mode", []string{"-policy", queueConfig("{ protocol = { maildir_path = '/x', dir_mode = 999999 } }")}, false, exitConfig, []string{"policy.lua:2", "dir_mode"}},
		{"policy: template", []string{"-policy", queueConfig("{ protocol = { maildir_path = '/x/{{ local_part }' } }")}, false, exitConfig, []string{"policy.lua:2", "maildir_path"}},
		{"policy: egress path", []string{"-policy", policy(`
kumo.on('get_queue_config', function() return kumo.make_queue_config { protocol = { smtp = { mx_list = { '[127.0.0.1]' } } } } end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { smtp_port = 70000 }
end)`)}, false, exitConfig, []string{"policy.lua:4", "smtp_port"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			if !test.whole {
				args = append(args, envelope...)
			}
			status, _, errs := deliverTo(t, t.Context(), args...)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			if !strings.HasPrefix(errs, "deliver: ") || strings.Count(errs, "\n") != 1 || !strings.HasSuffix(errs, "\n") {
				t.Errorf("stderr is not one line: %q", errs)
			}
			for _, want := range test.want {
				if !strings.Contains(errs, want) {
					t.Errorf("stderr %q lacks %q", errs, want)
				}
			}
		})
	}
}
