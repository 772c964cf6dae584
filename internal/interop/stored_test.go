//go:build interop && linux

package interop

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stored waits until Postfix has done all its work, and takes all the mail of the pool's users.
func (p *postfix) stored(t *testing.T) []copyOf {
	t.Helper()
	p.log(t) // every connection has ended
	mustSee(t, "an empty queue", func() bool {
		for _, queue := range []string{"incoming", "active", "deferred"} { // a message goes through them in this order
			if files, _ := filepath.Glob(filepath.Join(p.dir, "queue", queue, "*")); queue != "deferred" && len(files) > 0 {
				return false
			}
		}
		return true
	})
	return takeCopies(t, filepath.Join(p.dir, "mail"), postfixTrace)
}

// stored waits for the end of every connection, and takes all the mail of the pool's users.
func (d *dovecot) stored(t *testing.T) []copyOf {
	t.Helper()
	mustSee(t, "the end of all connections to Dovecot", func() bool {
		open := sockets(d.port)
		return open["ESTABLISHED"]+open["CLOSE_WAIT"] == 0
	})
	return takeCopies(t, filepath.Join(d.dir, "mail"), dovecotTrace)
}

// takeCopies removes all the new messages of the pool's users.
func takeCopies(t *testing.T, mail string, trace []string) []copyOf {
	t.Helper()
	var copies []copyOf
	for _, user := range poolUsers {
		files, err := filepath.Glob(filepath.Join(mail, user, "new", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			content, err := os.ReadFile(name)
			if err = errors.Join(err, os.Remove(name)); err != nil {
				t.Fatal(err)
			}
			copies = append(copies, newCopy(t, user, string(content), trace))
		}
	}
	return copies
}

// newCopy takes a stored message apart.
func newCopy(t *testing.T, user, text string, trace []string) copyOf {
	t.Helper()
	c := copyOf{content: withoutTrace(text, trace...)}
	c.trace = strings.TrimSuffix(text, c.content)
	c.from = traceField(c.trace, "Return-Path")
	c.to = traceField(c.trace, "Delivered-To")
	if local, _, _ := strings.Cut(c.to, "@"); local != user {
		t.Errorf("%s has a message for %s", user, c.to)
	}
	return c
}

// traceField is an address of a header.
func traceField(header, name string) string {
	for line := range strings.Lines(header) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.Trim(strings.TrimSpace(value), "<>")
		}
	}
	return ""
}
