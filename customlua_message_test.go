package delivery

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// deliverLua delivers one message by a send method with this body.
func deliverLua(t *testing.T, msg *Message, body string) Outcome {
	t.Helper()
	rt, log := quiet(t)
	withPolicy(t, rt, connectionWith(body))
	outcome := protocolOf(t, rt, luaConfig).Deliver(t.Context(), msg)
	if outcome.Results[0].Status != Delivered {
		t.Logf("%s: %s\n%s", body, outcome.Results[0].Response, log)
	}
	return outcome
}

// bigBody is a body that is not in memory: a header, and then as much as nobody wants to read.
type bigBody struct {
	header string
	rest   int64
	read   atomic.Int64
	open   atomic.Int64
}

func (b *bigBody) Size() int64 { return int64(len(b.header)) + b.rest }

func (b *bigBody) Open() (io.ReadCloser, error) {
	b.open.Add(1)
	r := io.MultiReader(strings.NewReader(b.header), io.LimitReader(zeros{}, b.rest))
	return &bigReader{b, r}, nil
}

type bigReader struct {
	body *bigBody
	io.Reader
}

func (r *bigReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.body.read.Add(int64(n))
	return n, err
}

func (r *bigReader) Close() error {
	r.body.open.Add(-1)
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// What concerns the header leaves the rest of the message where it is.
func TestLuaHeadersOfABigMessage(t *testing.T) {
	body := &bigBody{header: "From: a@b.example\r\nX-Job: 7\r\nSubject: hi\r\n\r\n", rest: 1 << 40}
	msg := messageTo("a@hook.test")
	msg.Body = body
	outcome := deliverLua(t, msg, `
		for i = 1, 10 do assert(message:get_first_named_header_value 'subject' == 'hi') end
		message:import_headers { { name = 'X-Job', remove = true } }
		message:prepend_header('X-Seen', 'yes')
		message:append_header('X-Last', 'no')
		message:prepend_header('X-Top', message:from_header().domain)
		return message:get_meta 'x_job'`)
	if got := outcome.Results[0].Response.Text; got != "7" {
		t.Fatal(got)
	}
	if n := body.read.Load(); n > 64<<10 {
		t.Errorf("%d bytes were read", n)
	}
	const want = "X-Top: b.example\r\nX-Seen: yes\r\nFrom: a@b.example\r\nSubject: hi\r\nX-Last: no\r\n\r\n"
	changed := outcome.Changes.Body
	if size := int64(len(want)) + 1<<40; changed.Size() != size {
		t.Errorf("its size is %d, want %d", changed.Size(), size)
	}
	for range 2 {
		r, err := changed.Open()
		if err != nil {
			t.Fatal(err)
		}
		begin := make([]byte, len(want)+3)
		if _, err := io.ReadFull(r, begin); err != nil || string(begin) != want+"\x00\x00\x00" {
			t.Errorf("%q, %v", begin, err)
		}
		r.Close()
	}
	if n := body.open.Load(); n != 0 {
		t.Errorf("%d readers are open", n)
	}
}

func TestLuaReadsNoMoreThanItNeeds(t *testing.T) {
	body := &bigBody{header: "A: 1\r\n\r\n", rest: 1 << 40}
	msg := messageTo("a@hook.test")
	msg.Body = body
	deliverLua(t, msg, "message:set_meta('k', message:id() .. message:sender().email .. message:queue_name()) return 'OK'")
	if body.read.Load() > 0 {
		t.Errorf("%d bytes were read", body.read.Load())
	}
	outcome := deliverLua(t, msg, "message:set_data 'B: 2\\r\\n\\r\\nshort' message:append_header('C', '3') return message:get_data()")
	if got := string(outcome.Changes.Body.(Bytes)); got != "B: 2\r\nC: 3\r\n\r\nshort" || body.read.Load() > 0 {
		t.Errorf("%q, %d bytes were read", got, body.read.Load())
	}

	msg.Body = &bigBody{header: strings.Repeat("A: 1\r\n", 1<<18), rest: 0}
	outcome = deliverLua(t, msg, "local ok, err = pcall(message.get_all_headers, message) return tostring(err)")
	if got := outcome.Results[0].Response.Text; !strings.Contains(got, "the header block is longer than 1048576 bytes") {
		t.Error(got)
	}
	msg.Body = Bytes(strings.Repeat("A: 1\r\n", 1<<18))
	outcome = deliverLua(t, msg, "local ok, err = pcall(message.get_all_headers, message) return tostring(err)")
	if got := outcome.Results[0].Response.Text; !strings.Contains(got, "the header block is longer than 1048576 bytes") {
		t.Error(got)
	}
}

// A change of the header comes back as one body, whatever the body was.
func TestLuaChangesTheHeader(t *testing.T) {
	const content = "A: 1\r\nB: 2\r\n\r\nbody\r\n"
	name := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := File(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []Body{Bytes(content), file} {
		msg := messageTo("a@hook.test")
		msg.Body = body
		outcome := deliverLua(t, msg, `
			message:remove_all_named_headers 'a'
			local before = message:get_data()
			message:prepend_header('C', '3')
			return before .. message:get_data()`)
		if got := outcome.Results[0].Response.Text; got != "B: 2    body  C: 3  B: 2    body  " {
			t.Errorf("%T: %q", body, got)
		}
		changed := outcome.Changes.Body
		r, err := changed.Open()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != "C: 3\r\nB: 2\r\n\r\nbody\r\n" || changed.Size() != int64(len(got)) {
			t.Errorf("%T: %q of %d, %v", body, got, changed.Size(), err)
		}
		if b, ok := body.(Bytes); ok {
			if string(b) != content {
				t.Errorf("the host's message was written to: %q", b)
			}
			copy(b, bytes.Repeat([]byte("x"), len(b))) // the host uses its memory again
			if string(changed.(Bytes)) != string(got) {
				t.Errorf("the change lives in the host's memory: %q", changed)
			}
		}
		// What was changed can be delivered, and changed again.
		msg.Body = changed
		outcome = deliverLua(t, msg, "message:append_header('D', '4') return message:get_data()")
		if got := outcome.Results[0].Response.Text; got != "C: 3  B: 2  D: 4    body  " {
			t.Errorf("%T, again: %q", body, got)
		}
	}
	// Reading alone changes nothing.
	if outcome := deliverLua(t, messageTo("a@hook.test"), "message:remove_x_headers() return message:get_first_named_header_value('Subject') or 'none'"); outcome.Changes != nil {
		t.Errorf("%+v", outcome.Changes)
	}
}

func TestLuaChangesTheEnvelope(t *testing.T) {
	msg := messageTo(`"a b"@hook.test`, "c@hook.test")
	msg.Attempts = 2
	outcome := deliverLua(t, msg, `
		message:set_sender ''
		message:set_recipient { 'x@Y.example', message:recipient_list()[1] }
		message:increment_num_attempts()
		message:set_scheduling { dow = 'Mon', tz = 'America/Phoenix', start = '09:00:00', ['end'] = '17:00:00' }
		message:set_due '2023-03-28T10:00:00Z'
		return table.concat({ message:sender().email, message:recipient()[1].email, message:recipient()[2].user, message:num_attempts() }, ' ')`)
	if got := outcome.Results[0].Response.Text; got != " x@y.example a b 3" {
		t.Error(got)
	}
	// The results are those of the message as it was.
	if len(outcome.Results) != 2 || outcome.Results[1].Recipient != "c@hook.test" {
		t.Errorf("%+v", outcome.Results)
	}
	c := outcome.Changes
	if c.From == nil || *c.From != "" || !slices.Equal(c.Recipients, []string{"x@y.example", `"a b"@hook.test`}) || c.Attempts != 1 {
		t.Errorf("%+v", c)
	}
	if c.Due == nil || c.Due.UTC().Format(time.RFC3339) != "2023-04-03T16:00:00Z" {
		t.Error(c.Due)
	}
	if s := c.Schedule; s == nil || fmt.Sprint(s.Days, s.Zone, s.Start, s.End) != "[Monday] America/Phoenix 9h0m0s 17h0m0s" ||
		s.Next(*c.Due) != *c.Due || !s.Next(c.Due.Add(24*time.Hour)).Equal(c.Due.Add(7*24*time.Hour)) {
		t.Errorf("%+v", s)
	}

	outcome = deliverLua(t, msg, "message:set_scheduling(nil) message:set_due(nil) return 'OK'")
	if c := outcome.Changes; c.Schedule == nil || len(c.Schedule.Days) > 0 || c.Due == nil || !c.Due.IsZero() || c.From != nil || c.Recipients != nil {
		t.Errorf("%+v", c)
	}
	for _, statement := range []string{"message:set_sender 'nobody'", "message:set_sender 'a@b.example>\\r\\nRCPT'", "message:set_recipient ''", "message:set_recipient {'a@b.example', '<>'}"} {
		outcome := deliverLua(t, msg, "assert(not pcall(function() "+statement+" end)) return message:sender().email .. #message:recipient_list()")
		if got := outcome.Results[0].Response.Text; got != "sender@example.org2" || outcome.Changes != nil {
			t.Errorf("%s: %s, %+v", statement, got, outcome.Changes)
		}
	}
}
