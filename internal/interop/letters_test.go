//go:build interop && linux

package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mtadelivery/delivery"
)

// fate is what a server does about a recipient.
type fate struct {
	status  delivery.Status
	code    int
	command string
}

var (
	taken    = fate{delivery.Delivered, 250, "."}
	unknown  = fate{delivery.Permanent, 550, "RCPT"}
	greyed   = fate{delivery.Transient, 450, "RCPT"}
	overFull = fate{delivery.Permanent, 552, "."}
)

// addressee is a recipient of a letter and what is going to become of it.
type addressee struct {
	address string
	fate
}

// letter is one message of a mailing. Its number is in everything that belongs to it.
type letter struct {
	number  int
	from    string
	to      []addressee
	content string
}

// mailing is a number of letters and the results of sending them.
type mailing struct {
	letters []*letter
	results [][]delivery.Result // of each letter
}

// writing says what letters a mailing is to have.
type writing struct {
	domain  string
	first   int // number
	letters int
	// refused are recipients that are not taken: names with an end of their own.
	refused []addressee
	// refusals is the part of the letters, in percent, of which every recipient is refused, beside each
	// fifth one.
	refusals int
	twice    bool // some letters have a recipient twice
	small    bool // no letter is larger than 1 KiB
}

// write makes the letters: from one to four recipients each, some of which are refused, and of every
// fifth letter all. It makes the same ones each time.
func (w writing) write() *mailing {
	random := rand.New(rand.NewPCG(uint64(w.first), 0))
	m := &mailing{results: make([][]delivery.Result, w.letters)}
	for number := w.first; number < w.first+w.letters; number++ {
		l := &letter{number: number, from: fmt.Sprintf("s%d@sender.test", number), content: w.content(random, number)}
		nobody := number%5 == 0 || random.IntN(100) < w.refusals
		users := random.Perm(len(poolUsers))
		for i := range 1 + random.IntN(4) {
			if nobody || i > 0 && random.IntN(3) == 0 {
				r := w.refused[random.IntN(len(w.refused))]
				if nobody && r.command != "RCPT" {
					r = w.refused[0]
				}
				if strings.HasSuffix(r.address, "-") {
					r.address += fmt.Sprintf("%d-%d", number, i)
				}
				r.address += "@" + w.domain
				l.to = append(l.to, r)
				continue
			}
			l.to = append(l.to, addressee{poolUsers[users[i]] + "@" + w.domain, taken})
		}
		if w.twice && number%7 == 0 {
			l.to = append(l.to, l.to[0])
		}
		random.Shuffle(len(l.to), func(i, j int) { l.to[i], l.to[j] = l.to[j], l.to[i] })
		m.letters = append(m.letters, l)
	}
	return m
}

// poolUsers are users with mailboxes that mailings fill.
var poolUsers = strings.Fields("pool-1 pool-2 pool-3 pool-4 pool-5 pool-6 pool-7 pool-8")

// content is from 100 bytes to 40 KiB long, most of it short; each fiftieth one has 300 KiB, which is more
// than is sent before the recipients were answered.
func (w writing) content(random *rand.Rand, number int) string {
	size := 100 << random.IntN(9)
	size += random.IntN(size)
	switch size = min(size, 40<<10); {
	case w.small:
		size = min(size, 1<<10)
	case number%50 == 7:
		size = 300 << 10
	}
	var b strings.Builder
	fmt.Fprintf(&b, "From: s%d@sender.test\r\nSubject: letter %d\r\n\r\n", number, number)
	for n := 0; b.Len() < size; n++ {
		switch random.IntN(12) {
		case 0:
			b.WriteString(".\r\n")
		case 1:
			b.WriteString("..\r\n")
		case 2:
			b.WriteString("\r\n.")
		case 3:
			b.WriteString("Gr\xfc\xc3\xbc\xdfe ")
		}
		fmt.Fprintf(&b, "%d/%d %s\r\n", number, n, strings.Repeat("x.", random.IntN(80)))
	}
	if number%3 == 0 {
		b.WriteString(".") // the server ends the line
	}
	return b.String()
}

// stored is the content as a server keeps it.
func (l *letter) stored() string {
	text := unixLines(l.content)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// message is the letter as the library takes it. Every fourth content is read as a stream.
func (l *letter) message() *delivery.Message {
	msg := &delivery.Message{ID: fmt.Sprint(l.number), From: l.from, Body: delivery.Bytes(l.content)}
	if l.number%4 == 0 {
		msg.Body = stream(l.content)
	}
	for _, to := range l.to {
		msg.Recipients = append(msg.Recipients, delivery.Recipient{Address: to.address})
	}
	return msg
}

// stream is a body that is not in memory, as far as the library knows.
type stream []byte

func (s stream) Size() int64                  { return int64(len(s)) }
func (s stream) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s)), nil }

// send delivers all letters, so many at a time, and keeps the results.
func (m *mailing) send(t *testing.T, protocol delivery.Protocol, callers int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var next atomic.Int64
	var posts sync.WaitGroup
	for range callers {
		posts.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(m.letters)); i = next.Add(1) - 1 {
				out := protocol.Deliver(ctx, m.letters[i].message())
				if out.Err != nil {
					t.Errorf("letter %d: %v", m.letters[i].number, out.Err)
				}
				m.results[i] = out.Results
			}
		})
	}
	posts.Wait()
}

// checkResults checks that each recipient has the result that is its own. The text of a refusal names
// the recipient, so that a neighbour's cannot be taken for it.
func (m *mailing) checkResults(t *testing.T) {
	t.Helper()
	for i, l := range m.letters {
		if len(m.results[i]) != len(l.to) {
			t.Fatalf("letter %d: %d results, want %d", l.number, len(m.results[i]), len(l.to))
		}
		for j, to := range l.to {
			r := &m.results[i][j]
			got := fate{r.Status, r.Response.Code, r.Response.Command}
			if got != to.fate || r.Recipient != to.address || r.MaybeDelivered || r.Err != nil {
				t.Errorf("letter %d, recipient %d: got %+v\nwant %s %v\n%s", l.number, j, *r, to.address, to.fate, transcriptOf(r))
			}
			if to.fate != taken && !strings.Contains(r.Response.Text, "<"+to.address+">") {
				t.Errorf("letter %d, %s: the reply is another's: %q", l.number, to.address, r.Response.Text)
			}
		}
		if t.Failed() && i > 10 {
			t.FailNow() // there is enough to read
		}
	}
}

func transcriptOf(r *delivery.Result) string {
	if r.Session == nil {
		return ""
	}
	return strings.Join(r.Session.Transcript, "\n")
}

// copyOf is a message that a server has stored: what it wrote on top, and the content.
type copyOf struct {
	from, to string
	trace    string
	content  string
}

// checkStored checks that each recipient that was to be taken has one copy with the letter's own sender
// and bytes, and that there are no others. tokens finds in the reply to a letter what its copy must have
// in its trace.
func (m *mailing) checkStored(t *testing.T, copies []copyOf, token func(text string) string) {
	t.Helper()
	byNumber := map[int]*letter{}
	tokens := map[string][]string{} // of letter and recipient
	for i, l := range m.letters {
		byNumber[l.number] = l
		for j, to := range l.to {
			if to.fate == taken {
				key := fmt.Sprint(l.number, to.address)
				tokens[key] = append(tokens[key], token(m.results[i][j].Response.Text))
			}
		}
	}
	for _, c := range copies {
		var number int
		if _, subject, ok := strings.Cut(c.content, "\nSubject: letter "); ok {
			fmt.Sscan(subject, &number)
		}
		l := byNumber[number]
		if l == nil {
			t.Fatalf("%s has a letter with the number %d, which is none of these: %.200q", c.to, number, c.content)
		}
		key := fmt.Sprint(number, c.to)
		at := slices.IndexFunc(tokens[key], func(token string) bool { return strings.Contains(c.trace, token) })
		if at < 0 {
			t.Errorf("%s has letter %d once too often, or with a reply that was another's: want one of %q in\n%s",
				c.to, number, tokens[key], c.trace)
		} else {
			tokens[key] = slices.Delete(tokens[key], at, at+1)
		}
		if c.from != l.from {
			t.Errorf("letter %d at %s is from %s, want %s", number, c.to, c.from, l.from)
		}
		checkSame(t, c.content, l.stored())
	}
	for key, left := range tokens {
		if len(left) > 0 {
			t.Errorf("letter and recipient %s: %d copies are missing", key, len(left))
		}
	}
}
