package delivery

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzPath: whatever a recipient, a sender and metadata hold, the path is two names below the root, or
// there is none.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"user", `"../../etc"`, `".."`, "a/b", `"a b"`, "dömi", `"{{ 7*7 }}"`, "\x00", strings.Repeat("x", 300), "‥", "／etc"} {
		f.Add(seed+"@example.com", "sender@example.org", "folder")
		f.Add("user@example.com", seed+"@example.org", seed)
	}
	template, err := compilePath("/maildirs/{{ domain_part }}/{{ meta.k or sender_local_part }}-{{ local_part }}")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to, from, meta string) {
		msg := &Message{From: from, Recipients: []Recipient{{Address: to}}, Meta: map[string]any{"k": meta}, Body: Bytes("x")}
		a, err := newAttempt(msg)
		if err != nil || len(a.rcpts) == 0 {
			return
		}
		path, err := template.render(templateVars(a, a.rcpts[0].Address))
		if err != nil {
			return
		}
		rel, ok := strings.CutPrefix(filepath.ToSlash(path), "/maildirs/")
		names := strings.Split(rel, "/")
		if !ok || len(names) != 2 {
			t.Fatalf("%q from %q with %q goes to %q", to, from, meta, path)
		}
		for _, name := range names {
			if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "\x00\n\r") || len(name) > maxSegment {
				t.Fatalf("%q from %q with %q goes to %q", to, from, meta, path)
			}
		}
		if !strings.HasSuffix(names[1], "-"+a.rcpts[0].Local) {
			t.Fatalf("%q goes to %q", to, path)
		}
	})
}

// FuzzQueueConfig: what parses prints as text that parses to the same.
func FuzzQueueConfig(f *testing.F) {
	for _, seed := range []string{`{}`, `{"protocol": {"smtp": {"mx_list": ["a:25", {"name": "b", "addr": "[::1]:25"}]}}}`,
		`{"protocol": {"maildir_path": "/m/{{ email }}", "dir_mode": "775"}}`, `{"protocol": {"custom_lua": {"constructor": "x"}}, "max_age": "1h 30m"}`,
		`{"max_message_rate": "1/s,max_burst=2", "retry_interval": 1.5, "shrink_policy": []}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := ParseQueueConfig([]byte(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error of several lines: %q", err)
			}
			return
		}
		second, err := ParseQueueConfig([]byte(first.String()))
		if err != nil || second.String() != first.String() {
			t.Fatalf("%s\nprints as %s\nwhich parses to %s, %v", text, first, second, err)
		}
	})
}

// FuzzTarget: an entry of an mx_list is a name, an address or a socket, and only one of them.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"host", "host:25", "[::1]:25", "::1", "10.0.0.1:2025", "/run/x", "[IPv6:::1]", "host:99999", "a\r\nb", "[fe80::1%eth0]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := parseTarget(text)
		if err != nil {
			return
		}
		if target.name == "" || target.addr.IsValid() && target.unix != "" || target.addr.Is4In6() ||
			!target.addr.IsValid() && target.unix == "" && strings.ContainsAny(target.name, " \r\n\x00/@:[]") {
			t.Fatalf("%q is taken for %+v", text, target)
		}
	})
}
