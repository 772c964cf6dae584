package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-maildir"
)

// protocolOf returns a handle on the protocol that the JSON text describes, closed with the test.
func protocolOf(t *testing.T, rt *Runtime, config string) Protocol {
	t.Helper()
	c, err := ParseQueueConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("closing the protocol: %v", err)
		}
	})
	return p
}

func newRuntime(t *testing.T) *Runtime {
	t.Helper()
	rt := &Runtime{}
	t.Cleanup(func() {
		if err := rt.Close(context.Background()); err != nil {
			t.Errorf("closing the runtime: %v", err)
		}
	})
	return rt
}

func messageTo(rcpts ...string) *Message {
	m := &Message{ID: "m1", From: "sender@example.org", Body: Bytes("Subject: hello\r\n\r\nhello\r\n")}
	for _, r := range rcpts {
		m.Recipients = append(m.Recipients, Recipient{Address: r})
	}
	return m
}

func mustJSON(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }

func TestMaildirHoldsWhatWasSent(t *testing.T) {
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ domain_part }}/{{ local_part }}")+`}}`)
	msg := messageTo("alice@example.com", "bob@example.com", "alice@example.com", `"a b"@example.com`)
	content := "Subject: bytes\nno CR above\r\n.\r\n.dot\r\nno end \xff\x00"
	msg.Body = Bytes(content)
	outcome := p.Deliver(t.Context(), msg)
	for _, r := range outcome.Results {
		if r.Status != Delivered || r.Response.Code != 200 || r.Session.Protocol != "maildir" {
			t.Errorf("%+v", r)
		}
	}
	if got := outcome.Results[3].Recipient; got != `"a b"@example.com` {
		t.Errorf("recipient %s", got)
	}
	for user, want := range map[string]int{"alice": 2, "bob": 1, "a b": 1} {
		messages, err := maildir.Dir(filepath.Join(root, "example.com", user)).Unseen()
		if err != nil || len(messages) != want {
			t.Fatalf("%s: %d messages, %v", user, len(messages), err)
		}
		for _, m := range messages {
			r, err := m.Open()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if string(got) != content || err != nil {
				t.Errorf("%s holds %q, %v", user, got, err)
			}
		}
	}
}

// tree lists every file and directory below root.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != root {
			list = append(list, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRecipientsCannotLeaveTheTree: what a recipient's address holds is one part of one name, or it
// is refused for that recipient alone, for good, and nothing is written.
func TestRecipientsCannotLeaveTheTree(t *testing.T) {
	outer := t.TempDir()
	root := filepath.Join(outer, "maildirs")
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ domain_part }}/{{ local_part }}")+`}}`)
	bad := []string{
		`"../../etc"@example.com`, `"/"@example.com`, `"/etc/passwd"@example.com`, `".."@example.com`, `"."@example.com`,
		`"a/b"@example.com`, `a/b@example.com`, `"\/x"@example.com`, strings.Repeat("x", 300) + "@example.com",
		"@example.com", "\x00@example.com", "\"a\x00b\"@example.com", "\"a\x01b\"@example.com", "a\r\nb@example.com", "a b@example.com", "<a>@example.com",
		`""@example.com`, "no-at-sign", "a@", "a@b/c", "a@..", "a@../x",
	}
	msg := messageTo(append(bad, "good@example.com")...)
	outcome := p.Deliver(t.Context(), msg)
	for i, r := range outcome.Results[:len(bad)] {
		if r.Status != Permanent || r.Response.Enhanced != (EnhancedCode{5, 1, 3}) {
			t.Errorf("%q: %s %s", bad[i], r.Status, r.Response)
		}
	}
	if last := outcome.Results[len(bad)]; last.Status != Delivered {
		t.Errorf("the good one: %s %s", last.Status, last.Response)
	}
	for _, name := range tree(t, outer) {
		if parts := strings.Split(name, "/"); len(parts) > 1 && parts[1] != "example.com" || len(parts) > 2 && parts[2] != "good" {
			t.Errorf("wrote %s", name)
		}
	}
}

func TestOddLocalPartsAreNamesOfTheirOwn(t *testing.T) {
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ local_part }}")+`}}`)
	rcpts := map[string]string{
		`"{{ 7*7 }}"@example.com`:         "{{ 7*7 }}",
		`"{% include 'x' %}"@example.com`: "{% include 'x' %}",
		`o'brien&co@example.com`:          "o'brien&co",
		`-rf@example.com`:                 "-rf",
		`"a..b"@example.com`:              "a..b",
		`"a@b"@example.com`:               "a@b",
		`dömi@example.com`:                "dömi",
		`A@example.com`:                   "A",
		`%2e%2e%2f@example.com`:           "%2e%2e%2f",
		`$(id)@example.com`:               "",
	}
	for rcpt, dir := range rcpts {
		if dir == "" {
			rcpt, dir = `"$(id)"@example.com`, "$(id)"
		}
		r := p.Deliver(t.Context(), messageTo(rcpt)).Results[0]
		if r.Status != Delivered {
			t.Errorf("%s: %s", rcpt, r.Response)
			continue
		}
		if entries, err := os.ReadDir(filepath.Join(root, dir, "new")); err != nil || len(entries) != 1 {
			t.Errorf("%s: %d messages in %s, %v", rcpt, len(entries), dir, err)
		}
	}
}

// TestPathsThatOthersMakeImpossible: what the recipient cannot help is tried again after a minute.
func TestPathsThatOthersMakeImpossible(t *testing.T) {
	root := t.TempDir()
	for _, test := range []struct {
		template string
		meta     map[string]any
		from     string
		ok       string // the path below root, or
		says     string
	}{
		{template: "/{{ tenant }}", says: "tenant"},
		{template: "/{{ tenant or 'none' }}", ok: "none"},
		{template: "/{{ tenant | default('x', true) }}", ok: "x"},
		{template: "/{{ meta.folder }}/x", says: "meta.folder"},
		{template: "/{{ meta.folder }}/x", meta: map[string]any{"folder": "inbox"}, ok: "inbox/x"},
		{template: "/{{ meta.folder }}/x", meta: map[string]any{"folder": "../../x"}, says: "separator"},
		{template: "/{{ meta.folder }}/x", meta: map[string]any{"folder": ".."}, says: "meta.folder"},
		{template: "/{{ meta.folder }}/x", meta: map[string]any{"folder": ""}, says: "empty"},
		{template: "/{{ meta.n }}", meta: map[string]any{"n": 3.0}, ok: "3"},
		{template: "/{{ meta.n }}", meta: map[string]any{"n": 1.5}, ok: "1.5"},
		{template: "/{{ meta.n }}", meta: map[string]any{"n": uint16(3)}, ok: "3"},
		{template: "/{{ meta.n }}", meta: map[string]any{"n": time.Month(7)}, ok: "7"},
		{template: "/{{ meta.n }}", meta: map[string]any{"n": float32(0.5)}, ok: "0.5"},
		{template: "/{{ meta.n % 2 }}", meta: map[string]any{"n": json.Number("9007199254740993")}, ok: "1"},
		{template: "/{{ meta.n }}", meta: map[string]any{"n": json.Number("1.5")}, ok: "1.5"},
		{template: "/{{ meta.l[1] }}", meta: map[string]any{"l": []string{"a", "b"}}, ok: "b"},
		{template: "/{{ meta.m.k }}", meta: map[string]any{"m": map[string]string{"k": "v"}}, ok: "v"},
		{template: "/{{ meta.b }}", meta: map[string]any{"b": []byte("bytes")}, ok: "bytes"},
		{template: "/{{ meta.b }}", meta: map[string]any{"b": []byte("a/b")}, says: "separator"},
		{template: "/{{ meta.b }}", meta: map[string]any{"b": struct{}{}}, says: "cannot print"},
		{template: "/{{ meta.a.b }}", says: ""},
		{template: "/{{ none }}/z", says: "missing"},
		{template: "/{{ none ~ 'x' }}", says: "missing"},
		{template: "/{{ []|first }}x", says: "missing"},
		{template: "/{{ sender_local_part }}", from: "<>", says: "sender_local_part"},
		{template: "/{{ sender_domain_part }}", from: "x@example.net", ok: "example.net"},
		{template: "/{{ routing_domain or domain }}", ok: "example.com"},
		{template: "/{{ local_part[0] }}/{{ local_part|upper }}", ok: "u/USER"},
		{template: "/{{ email.split('@')[0] }}", ok: "user"},
		{template: "/{% if domain == 'example.com' %}ours{% else %}theirs{% endif %}/{{ local_part }}", ok: "ours/user"},
	} {
		p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+test.template)+`}}`)
		msg := messageTo("user@example.com")
		msg.Meta = test.meta
		if test.from != "" {
			msg.From = test.from
		}
		plan, err := p.Plan(t.Context(), msg)
		if err != nil {
			t.Fatal(err)
		}
		r := p.Deliver(t.Context(), msg).Results[0]
		if test.ok != "" {
			want := filepath.Join(root, test.ok)
			if _, err := os.Stat(filepath.Join(want, "new")); r.Status != Delivered || err != nil || plan.Paths[0].Path != want {
				t.Errorf("%s: %s, %v, planned %+v", test.template, r.Response, err, plan.Paths[0])
			}
			continue
		}
		if r.Status != Transient || r.RetryAfter != time.Minute || !strings.Contains(r.Response.Text, test.says) || plan.Paths[0].Err == nil {
			t.Errorf("%s: %s %s after %v", test.template, r.Status, r.Response, r.RetryAfter)
		}
	}
}

func TestMaildirFailuresAreTriedAgainInAMinute(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "bob"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root+"/{{ local_part }}")+`}}`)
	outcome := p.Deliver(t.Context(), messageTo("alice@example.com", "bob@example.com", "carol@example.com"))
	var got []Status
	for _, r := range outcome.Results {
		got = append(got, r.Status)
	}
	if want := []Status{Delivered, Transient, Delivered}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	bob := outcome.Results[1]
	if !errors.Is(bob.Err, syscall.ENOTDIR) || bob.RetryAfter != time.Minute || bob.Response.Code != 400 {
		t.Errorf("%+v", bob)
	}
}

// broken is a body that fails after some bytes.
type broken struct{ size int64 }

func (b broken) Size() int64 { return b.size }
func (b broken) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("Subject: half\r\n"), failing{})), nil
}

type failing struct{}

var errDisk = errors.New("the disk is gone")

func (failing) Read([]byte) (int, error) { return 0, errDisk }

func TestMaildirNeverHoldsHalfAMessage(t *testing.T) {
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root)+`}}`)
	msg := messageTo("alice@example.com")
	msg.Body = broken{1000}
	if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Transient || !errors.Is(r.Err, errDisk) {
		t.Errorf("%+v", r)
	}
	msg.Body = short{}
	if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Transient {
		t.Errorf("a body shorter than it said: %+v", r)
	}
	if left := tree(t, root); !slices.Equal(left, []string{"cur", "new", "tmp"}) {
		t.Errorf("left behind: %v", left)
	}
}

// short is a body that yields less than it said.
type short struct{}

func (short) Size() int64                  { return 100 }
func (short) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("short")), nil }

// TestDeliveryHeaders: what an MDA puts in front is each recipient's own, is one line each, counts in the size, and
// leaves the content as it is.
func TestDeliveryHeaders(t *testing.T) {
	const content = "Return-Path: <old@example.org>\r\nSubject: hello\n\nhello\x00"
	for _, test := range []struct {
		options, from, to, body, want string
	}{
		{``, "sender@example.org", "a@example.com", content, content},
		{`, "add_return_path": false, "add_delivered_to": false`, "sender@example.org", "a@example.com", content, content},
		{`, "add_return_path": true`, "sender@example.org", "a@example.com", content, "Return-Path: <sender@example.org>\r\n" + content},
		{`, "add_return_path": true`, "", "a@example.com", content, "Return-Path: <>\r\n" + content},
		{`, "add_return_path": true`, "<>", "a@example.com", "", "Return-Path: <>\r\n"},
		{`, "add_delivered_to": true`, "sender@example.org", "User@Example.COM", content, "Delivered-To: User@example.com\r\n" + content},
		{`, "add_delivered_to": true`, "sender@example.org", `"a b"@example.com`, "\r\nx", "Delivered-To: \"a b\"@example.com\r\n\r\nx"},
		{`, "add_return_path": true, "add_delivered_to": true`, `"x> y: <"@example.org`, `"u\s\er"@example.com`, content,
			"Return-Path: <\"x> y: <\"@example.org>\r\nDelivered-To: user@example.com\r\n" + content},
		{`, "add_return_path": true, "add_delivered_to": true`, "dömi@example.org", "Postmaster", content,
			"Return-Path: <dömi@example.org>\r\nDelivered-To: Postmaster\r\n" + content},
		{`, "add_delivered_to": true`, "", "a@example.com", " b@example.com\r\n", "Delivered-To: a@example.com\r\n\r\n b@example.com\r\n"},
		{`, "add_return_path": true`, "", "a@example.com", "\tx", "Return-Path: <>\r\n\r\n\tx"},
	} {
		root := t.TempDir()
		p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root)+test.options+`}}`)
		msg := messageTo(test.to)
		msg.From, msg.Body = test.from, Bytes(test.body)
		for range 2 { // a retry, or another recipient, opens the body again
			if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Delivered {
				t.Errorf("%s from %q to %q: %s", test.options, test.from, test.to, r.Response)
			}
		}
		files, err := os.ReadDir(filepath.Join(root, "new"))
		if err != nil || len(files) != 2 {
			t.Fatalf("%d files, %v", len(files), err)
		}
		for _, f := range files {
			got, err := os.ReadFile(filepath.Join(root, "new", f.Name()))
			if string(got) != test.want || err != nil {
				t.Errorf("%s from %q to %q: %q, %v, want %q", test.options, test.from, test.to, got, err, test.want)
			}
			if !strings.HasSuffix(f.Name(), fmt.Sprintf(",S=%d", len(test.want))) {
				t.Errorf("%s holds %d bytes", f.Name(), len(test.want))
			}
		}
	}
}

func TestDeliveryHeadersOfABodyThatFails(t *testing.T) {
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root)+`, "add_return_path": true}}`)
	msg := messageTo("alice@example.com")
	for _, body := range []Body{broken{1000}, short{}, failsAtOnce{}} {
		msg.Body = body
		if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Transient || r.Err == nil {
			t.Errorf("%T: %+v", body, r)
		}
	}
	for _, name := range tree(t, root) {
		if strings.Contains(name, "/") {
			t.Errorf("left behind: %s", name)
		}
	}
}

// failsAtOnce is a body that opens and cannot be read.
type failsAtOnce struct{}

func (failsAtOnce) Size() int64                  { return 100 }
func (failsAtOnce) Open() (io.ReadCloser, error) { return io.NopCloser(failing{}), nil }

// TestDeliveryHeadersOfABodyWithoutEnd: a body whose reader comes to nothing, not even an end, fails.
func TestDeliveryHeadersOfABodyWithoutEnd(t *testing.T) {
	root := t.TempDir()
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root)+`, "add_return_path": true}}`)
	msg := messageTo("alice@example.com")
	msg.Body = idle{}
	if r := p.Deliver(t.Context(), msg).Results[0]; r.Status != Transient || !errors.Is(r.Err, io.ErrNoProgress) {
		t.Errorf("%+v", r)
	}
}

// idle is a body that yields neither content nor its end.
type idle struct{}

func (idle) Size() int64                  { return 100 }
func (idle) Open() (io.ReadCloser, error) { return io.NopCloser(idle{}), nil }
func (idle) Read([]byte) (int, error)     { return 0, nil }

func TestMaildirModes(t *testing.T) {
	defer umask(umask(0o077))
	root := filepath.Join(t.TempDir(), "a", "b")
	p := protocolOf(t, newRuntime(t), `{"protocol": {"maildir_path": `+mustJSON(root)+`, "dir_mode": "2775", "file_mode": 436}}`)
	if r := p.Deliver(t.Context(), messageTo("alice@example.com")).Results[0]; r.Status != Delivered {
		t.Fatal(r.Response)
	}
	for _, dir := range []string{"..", ".", "cur", "new", "tmp"} {
		info, err := os.Stat(filepath.Join(root, dir))
		if err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o775 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	files, _ := os.ReadDir(filepath.Join(root, "new"))
	if info, err := files[0].Info(); err != nil || info.Mode() != 0o664 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
}
