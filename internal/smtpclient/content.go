package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Content is the content of a message. It is inspected once and can then be sent many times, over
// several sessions at once too. Only Inspect changes it, and must not run beside anything else.
//
// It goes out with CRLF line ends and no other CR or LF, whatever it holds: a stray one could end the
// message early for a peer that is lax about line ends, and begin another one. A bare LF becomes CRLF,
// a bare CR a space; a CRLF is added at the end where none is. Only with BINARYMIME (RFC 3030 section 3)
// does it go out octet for octet.
type Content struct {
	bytes []byte // nil for a stream
	size  int64
	open  func() (io.ReadCloser, error)

	inspected bool
	facts
}

// BytesContent is a content in memory. b must not change while it is in use.
func BytesContent(b []byte) *Content {
	return &Content{bytes: b, size: int64(len(b))}
}

// StreamContent is a content that can be read from its beginning any number of times, each time size
// bytes. A reader that yields more or fewer, or fails, fails the transaction: the peer is never told that
// such a message ended.
func StreamContent(size int64, open func() (io.ReadCloser, error)) *Content {
	return &Content{size: size, open: open}
}

// Has8Bit reports whether any byte is above 127. It and the methods below answer for a content that
// Inspect has succeeded with.
func (c *Content) Has8Bit() bool { return c.has8Bit }

// HasNUL reports whether any byte is zero, which only BINARYMIME can carry.
func (c *Content) HasNUL() bool { return c.hasNUL }

// HasLongLines reports whether any line has more than 998 bytes before its line end (RFC 5321 section
// 4.5.3.1.6, RFC 5322 section 2.1.1). A bare LF ends a line too, a bare CR does not.
func (c *Content) HasLongLines() bool { return c.longLines }

// HasStray reports whether there is a CR or an LF that is not part of a CRLF.
func (c *Content) HasStray() bool { return c.stray }

// Changed reports whether what goes out differs from what came in by more than a CRLF at the end: a bare
// CR or LF is replaced. With BINARYMIME nothing is changed, whatever Changed reports.
func (c *Content) Changed() bool { return c.stray }

// WireSize is the size as RFC 1870 section 3 counts it: as it is sent, without the doubled dots and the
// final one. With BINARYMIME it is the content's own size instead.
func (c *Content) WireSize() int64 { return c.wireSize }

// sizeAs is the number of octets that an encoder of that kind must have written in the end.
func (c *Content) sizeAs(kind encoding) int64 {
	if kind == verbatim {
		return c.size
	}
	return c.wireSize
}

// asIs reports whether an encoder of that kind would do no more than copy, up to the content's end, so
// that the content can be sent from where it lies. A stream never can: it may read differently the next
// time.
func (c *Content) asIs(kind encoding) bool {
	switch {
	case c.open != nil, !c.inspected:
		return false
	case kind == verbatim:
		return true
	}
	return !c.stray && (kind == chunked || !c.dots)
}

// Inspect reads the content once, to learn what Send must know. It does nothing where it has succeeded
// before. The error is the reader's, what is wrong with the size, or ctx's cause.
func (c *Content) Inspect(ctx context.Context) error {
	if c.inspected {
		return nil
	}
	var in inspector
	if c.open == nil {
		in.add(c.bytes)
		c.facts = in.facts(c.size)
		c.inspected = true
		return nil
	}
	b := outboxes.Get().(*outbox)
	defer outboxes.Put(b)
	err := c.read(b.borrowBlock(), func(p []byte) error {
		in.add(p)
		return context.Cause(ctx)
	})
	if err != nil {
		return err
	}
	c.facts = in.facts(c.size)
	c.inspected = true
	return nil
}

// read opens the stream and gives it to take block by block. It fails where the stream does not yield
// the size that was promised, and with take's error where take does.
func (c *Content) read(block []byte, take func([]byte) error) (err error) {
	r, err := c.open()
	if err != nil {
		return fmt.Errorf("opening the body: %w", err)
	}
	defer r.Close()
	var total int64
	for idle := 0; ; {
		n, err := r.Read(block)
		if n < 0 || n > len(block) {
			return errors.New("the body's reader returned an impossible count")
		}
		total += int64(n)
		if total > c.size {
			return fmt.Errorf("the body holds more than the %d bytes it should", c.size)
		}
		if n > 0 {
			idle = 0
			if err := take(block[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && total < c.size:
			return fmt.Errorf("the body holds %d bytes instead of %d: %w", total, c.size, io.ErrUnexpectedEOF)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading the body: %w", err)
		case n == 0:
			if idle++; idle >= 100 {
				return fmt.Errorf("reading the body: %w", io.ErrNoProgress)
			}
		}
	}
}
