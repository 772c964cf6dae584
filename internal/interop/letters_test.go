//go:build interop && linux

package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
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
	doubts  map[string]int      // how often a result said that the server may have a copy all the same
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
	small    bool // no letter is larger than 1 KiB
}

// write makes the letters: from one to four recipients each, some of which are refused, and of every
// fifth letter all; of every seventh one is named twice. It makes the same ones each time.
func (w writing) write() *mailing {
	random := rand.New(rand.NewPCG(uint64(w.first), 0))
	m := &mailing{doubts: map[string]int{}}
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
		if number%7 == 0 {
			l.to = append(l.to, l.to[0])
		}
		random.Shuffle(len(l.to), func(i, j int) { l.to[i], l.to[j] = l.to[j], l.to[i] })
		m.letters = append(m.letters, l)
		m.results = append(m.results, make([]delivery.Result, len(l.to)))
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

// message is the letter as the library takes it, for some of its recipients. Every fourth content is read
// as a stream.
func (l *letter) message(to []int) *delivery.Message {
	msg := &delivery.Message{ID: fmt.Sprint(l.number), From: l.from, Body: delivery.Bytes(l.content)}
	if l.number%4 == 0 {
		msg.Body = stream(l.content)
	}
	for _, j := range to {
		msg.Recipients = append(msg.Recipients, delivery.Recipient{Address: l.to[j].address})
	}
	return msg
}

// stream is a body that is not in memory, as far as the library knows.
type stream []byte

func (s stream) Size() int64                  { return int64(len(s)) }
func (s stream) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s)), nil }

// send delivers the letters to all recipients whose fate is not fulfilled, so many letters at a time, and
// keeps the results.
func (m *mailing) send(t *testing.T, protocol delivery.Protocol, callers int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var next atomic.Int64
	var posts sync.WaitGroup
	for range callers {
		posts.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(m.letters); i = int(next.Add(1)) - 1 {
				open := m.open(i)
				if len(open) == 0 {
					continue
				}
				out := protocol.Deliver(ctx, m.letters[i].message(open))
				if out.Err != nil || len(out.Results) != len(open) {
					t.Errorf("letter %d: %d results for %d recipients, and %v", m.letters[i].number, len(out.Results), len(open), out.Err)
					return
				}
				for at, j := range open {
					m.results[i][j] = out.Results[at]
				}
			}
		})
	}
	posts.Wait()
}

// open are the recipients of a letter that do not have the result that they are to have.
func (m *mailing) open(i int) []int {
	var open []int
	for j, to := range m.letters[i].to {
		if to.fate != fateOf(&m.results[i][j]) {
			open = append(open, j)
		}
	}
	return open
}

// left is how many recipients do not have the result that they are to have.
func (m *mailing) left() (n int) {
	for i := range m.letters {
		n += len(m.open(i))
	}
	return n
}

// checkLeft checks that the recipients who are left wait for a reason that lies in the connection, and
// counts those of whom the server may have a copy.
func (m *mailing) checkLeft(t *testing.T) {
	t.Helper()
	for i, l := range m.letters {
		for _, j := range m.open(i) {
			r, to := &m.results[i][j], l.to[j]
			switch {
			case r.Status == delivery.Transient && r.MaybeDelivered && r.Response.Code == 400:
				m.doubts[copyKey(l.number, to.address)]++
			case r.Status == delivery.Transient && !r.MaybeDelivered && r.Response.Code == 421:
			default:
				t.Fatalf("letter %d, recipient %d: got %+v\nwant %s %v, or a connection that ended\n%s",
					l.number, j, *r, to.address, to.fate, transcriptOf(r))
			}
		}
	}
}

func fateOf(r *delivery.Result) fate { return fate{r.Status, r.Response.Code, r.Response.Command} }

// checkResults checks that each recipient has the result that is its own. The text of a refusal names
// the recipient, so that a neighbour's cannot be taken for it.
func (m *mailing) checkResults(t *testing.T) {
	t.Helper()
	for i, l := range m.letters {
		for j, to := range l.to {
			r := &m.results[i][j]
			if fateOf(r) != to.fate || r.Recipient != to.address || r.MaybeDelivered || r.Err != nil {
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

// copyOf is a message that a server has stored.
type copyOf struct {
	from, to string // the sender's address, the name of the user who has it
	id       string // by which the server speaks of it, in its reply and in what it writes on top
	content  string
}

// checkStored checks that each recipient that was to be taken has one copy with the letter's own sender
// and bytes, and that there are no others. saved finds the id of the copy in the reply that told of it.
func (m *mailing) checkStored(t *testing.T, copies []copyOf, saved *regexp.Regexp) {
	t.Helper()
	byNumber := map[int]*letter{}
	ids := map[string][]string{} // that are to be stored, by letter and recipient
	for i, l := range m.letters {
		byNumber[l.number] = l
		for j, to := range l.to {
			if to.fate != taken {
				continue
			}
			text := m.results[i][j].Response.Text
			id := saved.FindStringSubmatch(text)
			if id == nil {
				t.Fatalf("letter %d, %s: the reply tells no id: %q", l.number, to.address, text)
			}
			// Who is named twice is answered twice and gets one copy, from these servers.
			if key := copyKey(l.number, to.address); !slices.Contains(ids[key], id[1]) {
				ids[key] = append(ids[key], id[1])
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
		key := copyKey(number, c.to)
		switch at := slices.Index(ids[key], c.id); {
		case at >= 0:
			ids[key] = slices.Delete(ids[key], at, at+1)
		case m.doubts[key] > 0:
			m.doubts[key]--
		default:
			t.Errorf("%s has a copy with the id %s, want those of %v", key, c.id, ids[key])
		}
		if c.from != l.from {
			t.Errorf("%s is from %s, want %s", key, c.from, l.from)
		}
		checkSame(t, c.content, l.stored())
	}
	for key, left := range ids {
		if len(left) > 0 {
			t.Errorf("%s is missing, with the ids %v", key, left)
		}
	}
}

// copyKey names a letter's copy for a recipient, who is known by the local part of the address.
func copyKey(number int, to string) string {
	user, _, _ := strings.Cut(to, "@")
	return fmt.Sprintf("letter %d for %s", number, user)
}
