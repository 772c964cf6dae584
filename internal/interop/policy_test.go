//go:build interop && linux

package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// writePolicy copies the policy of testdata and writes peers.lua beside it.
func writePolicy(t *testing.T, maildirs string) string {
	t.Helper()
	dir := t.TempDir()
	source, err := os.ReadFile("testdata/policy.lua")
	err = errors.Join(err,
		writeFile(filepath.Join(dir, "policy.lua"), string(source)),
		writeFile(filepath.Join(dir, "peers.lua"), fmt.Sprintf(
			"return { postfix_name = '%s', postfix = '%s', lmtp = '%s', maildirs = '%s' }\n",
			postfixName, lab.postfix.smtp, lab.dovecot.lmtp, maildirs)))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "policy.lua")
}

// A message for five recipients takes four ways out of one policy, and is refused on a fifth.
func TestPolicy(t *testing.T) {
	maildirs := filepath.Join(t.TempDir(), "maildirs")
	content := "From: sender@sender.test\r\nSubject: by policy\r\n\r\n.\r\nThe body.\r\n"
	r := deliver(t, "-policy", writePolicy(t, maildirs), "-ca", lab.trusted.file, "-from", "sender@sender.test",
		"-to", "by-policy@example.test,by-policy@dovecot.test,by-policy@maildir.test,by-policy@lua.test,somebody@refused.test",
		messageFile(t, content))
	r.exited(t, 69)
	var got []string
	for _, res := range r.results {
		got = append(got, fmt.Sprintf("%s %s %s %d", res.Protocol, res.Recipient, res.Status, res.Code))
	}
	if want := []string{
		"smtp by-policy@example.test delivered 250",
		"lmtp by-policy@dovecot.test delivered 250",
		"maildir by-policy@maildir.test delivered 200",
		"lua by-policy@lua.test delivered 200",
		"lua somebody@refused.test permanent 550",
	}; !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %q\nwant %q\n%s", got, want, r.stdout)
	}
	if res := r.results[0]; res.TLS == nil || !res.TLS.Verified ||
		res.ReadyName != "relay-1->mx_list:"+lab.postfix.smtp+"@smtp_client" {
		t.Errorf("got %+v, want verified TLS and the source relay-1", res)
	}
	if want := fmt.Sprintf("%d bytes for by-policy@lua.test", len(content)); r.results[3].Text != want {
		t.Errorf("disposition %q, want %q", r.results[3].Text, want)
	}
	if res := r.results[4]; res.Text != "somebody is not wanted" {
		t.Errorf("got %+v, want what kumo.reject said", res)
	}

	stored := lab.postfix.mail(t, "by-policy")
	if !strings.Contains(stored, "Received: from relay-1.sender.test (unknown [127.0.0.1])\n") {
		t.Errorf("Postfix heard another EHLO than the source's:\n%s", stored)
	}
	checkSame(t, withoutTrace(stored, postfixTrace...), unixLines(content))
	checkSame(t, withoutTrace(lab.dovecot.mail(t, "by-policy"), dovecotTrace...), unixLines(content))
	checkSame(t, takeMessage(t, filepath.Join(maildirs, "maildir.test", "by-policy")), content)
	checkMode(t, filepath.Join(maildirs, "maildir.test", "by-policy"), os.ModeDir|os.ModeSetgid|0o775)
}

// planOf is a line of -dry-run.
type planOf struct {
	Queue       string              `json:"queue"`
	ReadyName   string              `json:"ready_name"`
	Config      map[string]any      `json:"config"`
	Recipients  []string            `json:"recipients"`
	Protocol    string              `json:"protocol"`
	Plan        []map[string]string `json:"plan"`
	Paths       map[string]string   `json:"paths"`
	Constructor string              `json:"constructor"`
}

// The same policy says what it would do, and nothing happens.
func TestPolicyDryRun(t *testing.T) {
	log := lab.postfix.log(t)
	maildirs := filepath.Join(t.TempDir(), "maildirs")
	policy := writePolicy(t, maildirs)
	r := deliver(t, "-dry-run", "-policy", policy, "-ca", lab.trusted.file, "-from", "sender@sender.test",
		"-to", "a@example.test,b@maildir.test,c@example.test,d@dovecot.test,e@lua.test", messageFile(t, smallMessage))
	r.exited(t, 0)
	want := []planOf{
		{Queue: "example.test", Recipients: []string{"a@example.test", "c@example.test"}, Protocol: "smtp",
			ReadyName: "relay-1->mx_list:" + lab.postfix.smtp + "@smtp_client",
			Plan:      []map[string]string{{"host": postfixName, "address": lab.postfix.smtp}}},
		{Queue: "maildir.test", Recipients: []string{"b@maildir.test"}, Protocol: "maildir",
			Paths: map[string]string{"b@maildir.test": maildirs + "/maildir.test/b"}},
		{Queue: "dovecot.test", Recipients: []string{"d@dovecot.test"}, Protocol: "lmtp",
			ReadyName: "unspecified->mx_list:" + lab.dovecot.lmtp + "@smtp_client",
			Plan:      []map[string]string{{"host": "lmtp.dovecot.test", "address": lab.dovecot.lmtp}}},
		{Queue: "lua.test", Recipients: []string{"e@lua.test"}, Protocol: "lua", Constructor: "make.counter"},
	}
	var got []planOf
	for line := range strings.Lines(r.stdout) {
		var p planOf
		if err := decodeExact(line, &p); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		got = append(got, p)
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), r.stdout)
	}
	configs := []string{
		`{"smtp":{"mx_list":[{"name":"` + postfixName + `","addr":"` + lab.postfix.smtp + `"}],"treat_mx_list_as_secure":false}}`,
		`{"maildir_path":"` + maildirs + `/{{ domain_part }}/{{ local_part }}","dir_mode":1533,"file_mode":436}`,
		`{"smtp":{"mx_list":[{"name":"lmtp.dovecot.test","addr":"` + lab.dovecot.lmtp + `"}],"treat_mx_list_as_secure":false}}`,
		`{"custom_lua":{"constructor":"make.counter"}}`,
	}
	for i := range want {
		config := got[i].Config
		var protocol any
		if err := json.Unmarshal([]byte(configs[i]), &protocol); err != nil {
			t.Fatal(err)
		}
		if !contains(config["protocol"], protocol) {
			t.Errorf("the protocol is %v, want at least %v", config["protocol"], protocol)
		}
		// What the policy says, and a default.
		if config["retry_interval"] != "5m" || config["max_age"] != "7days" && config["max_age"] != "7d" {
			t.Errorf("the config is %v", config)
		}
		got[i].Config = nil
		if i == 1 || i == 3 { // ready names of ways without hosts are for people
			got[i].ReadyName = ""
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
	if _, err := os.Stat(maildirs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v, want that it does not exist", maildirs, err)
	}
	if text := log.text(t); strings.Contains(text, "connect from") {
		t.Errorf("Postfix was connected to:\n%s", text)
	}
}

// contains says whether a decoded JSON value has everything of another one.
func contains(got, want any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return reflect.DeepEqual(got, want)
	}
	g, ok := got.(map[string]any)
	if !ok {
		return false
	}
	for key := range w {
		if !contains(g[key], w[key]) {
			return false
		}
	}
	return true
}
