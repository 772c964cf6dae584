package delivery

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/mtadelivery/delivery/internal/address"
	headers "github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/kumo"
)

// Schedule says when attempts may be made to deliver a message: from FirstAttempt on, up to Expires, and
// on Days between Start and End. The zero value is at any time.
type Schedule struct {
	// FirstAttempt and Expires are unbounded where they are the zero time.
	FirstAttempt, Expires time.Time
	// Days are the days of the week; none: every hour of every day, and the fields below mean nothing.
	Days []time.Weekday
	// Zone is where Days, Start and End are read on the clock.
	Zone *time.Location
	// Start and End are the times of day since midnight, Start before End.
	Start, End time.Duration
}

// Next is the first time that the schedule allows, not before t. It does not look at Expires.
func (s *Schedule) Next(t time.Time) time.Time { return (*kumo.Schedule)(s).Next(t) }

// luaAddress is an address as Lua sees it; text is what it was parsed from, if that is at hand.
func luaAddress(a address.Address, text string) kumo.Address {
	return kumo.Address{User: a.Local, Domain: a.Domain, Email: a.Text(text)}
}

// SetSender and its siblings record what Lua changes, as SetMeta does.
func (m *luaMessage) SetSender(text string) error {
	a, err := address.ParseSender(text)
	if err != nil {
		return err
	}
	m.sender, m.change().From = &a, new(a.String())
	return nil
}

func (m *luaMessage) SetRecipients(list []string) error {
	parsed, texts := make([]address.Address, len(list)), make([]string, len(list))
	for i, text := range list {
		a, err := address.Parse(text)
		if err != nil {
			return err
		}
		parsed[i], texts[i] = a, a.String()
	}
	m.rcpts, m.change().Recipients = parsed, texts
	return nil
}

func (m *luaMessage) CountAttempt() { m.change().Attempts++ }

func (m *luaMessage) SetDue(t time.Time) { m.change().Due = &t }

// DelayBy is for throttles that put a message off.
func (m *luaMessage) DelayBy(d time.Duration) error {
	m.SetDue(time.Now().Add(d))
	return nil
}

func (m *luaMessage) SetSchedule(s *kumo.Schedule) {
	if s == nil {
		s = &kumo.Schedule{}
	}
	m.change().Schedule = (*Schedule)(s)
}

// body is the content as Lua left it.
func (m *luaMessage) body() Body {
	if m.changes != nil && m.changes.Body != nil {
		return m.changes.Body
	}
	return m.attempt.msg.Body
}

// Header reads no more of the content than it must.
func (m *luaMessage) Header() ([]byte, error) {
	body := m.body()
	if b, ok := body.(Bytes); ok {
		n, ended := headers.Length(b[:min(len(b), headers.MaxBlock)])
		if !ended && len(b) > n {
			return nil, headers.ErrTooLong
		}
		return b[:n:n], nil
	}
	r, err := open(body)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return headers.Read(r)
}

// ReplaceHeader leaves the rest of the content where it is, unless it is in memory: there the host may use
// its bytes again once it has the outcome.
func (m *luaMessage) ReplaceHeader(length int, block []byte) {
	body := m.body()
	if b, ok := body.(Bytes); ok {
		m.change().Body = Bytes(append(block[:len(block):len(block)], b[length:]...))
		return
	}
	if e, ok := body.(*editedBody); ok && length == len(e.header) {
		m.change().Body = &editedBody{block, e.body, e.skip}
		return
	}
	m.change().Body = &editedBody{block, body, int64(length)}
}

// editedBody is a body with another header in the place of its first bytes.
type editedBody struct {
	header []byte
	body   Body
	skip   int64
}

func (e *editedBody) Size() int64 { return int64(len(e.header)) + e.body.Size() - e.skip }

func (e *editedBody) Open() (io.ReadCloser, error) {
	r, err := open(e.body)
	if err != nil {
		return nil, err
	}
	if s, ok := r.(io.Seeker); ok {
		_, err = s.Seek(e.skip, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r, e.skip)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("the message's own body: %w", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(e.header), r), r}, nil
}
