//go:build interop && linux

package interop

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stored waits until Postfix has done all its work, and takes all the mail of the pool's users.
func (p *postfix) stored(t *testing.T) []copyOf {
	t.Helper()
	p.log(t) // every connection has ended
	mustSee(t, "an empty queue", func() bool {
		for _, queue := range []string{"incoming", "active", "deferred"} { // a message goes through them in this order
			if files, _ := filepath.Glob(filepath.Join(p.dir, "queue", queue, "*")); len(files) > 0 {
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
	c := copyOf{to: user, content: withoutTrace(text, trace...)}
	header := strings.TrimSuffix(text, c.content)
	c.from, c.id = firstOf(returnPath, header), firstOf(receivedID, header)
	// Dovecot says nothing where there were several recipients.
	if to := firstOf(deliveredTo, header); to != "" && !strings.HasPrefix(to, user+"@") {
		t.Errorf("%s has a message for %s", user, to)
	}
	return c
}

var (
	returnPath  = regexp.MustCompile(`(?m)^Return-Path: <(.*)>$`)
	deliveredTo = regexp.MustCompile(`(?m)^Delivered-To: <?(.*?)>?$`)
	receivedID  = regexp.MustCompile(`\sid (\S+?);?\n`)
)

// firstOf is what the parentheses of an expression match first.
func firstOf(r *regexp.Regexp, text string) string {
	if m := r.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}
