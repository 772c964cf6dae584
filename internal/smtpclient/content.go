package smtpclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Content is the content of a message. It is inspected once and can then be sent many times, over
// several sessions at once too. Only Inspect changes it, and must not run beside anything else.
//
// It goes out with CRLF line ends and no other CR or LF, whatever it holds: a stray one could end the
// message early for a peer that is lax about line ends, and begin another one. A bare LF becomes CRLF,
// a bare CR a space; a CRLF is added at the end where none is.
type Content struct {
	bytes []byte // nil for a stream
	size  int64
	open  func() (io.ReadCloser, error)

	inspected bool
	facts
}

// facts are what has to be known of a content before it is sent.
type facts struct {
	has8Bit, hasNUL bool
	changed         bool // a bare CR or LF gets replaced
	asIs            bool // it can be sent as it is, without a change or a dot doubled
	wireSize        int64
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

// Has8Bit reports whether any byte is above 127. Inspect must have succeeded, for the next two too.
func (c *Content) Has8Bit() bool { return c.has8Bit }

// Changed reports whether what goes out differs from what came in by more than a CRLF at the end: a bare
// CR or LF is replaced.
func (c *Content) Changed() bool { return c.changed }

// WireSize is the size as RFC 1870 section 3 counts it: as it is sent, without the doubled dots and the
// final one.
func (c *Content) WireSize() int64 { return c.wireSize }

// Inspect reads the content once, to learn what Send must know. It does nothing where it has succeeded
// before. The error is the reader's, what is wrong with the size, or ctx's cause.
func (c *Content) Inspect(ctx context.Context) error {
	if c.inspected {
		return nil
	}
	in := inspector{last: '\n', lineStart: true}
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
	c.asIs = false // a stream may read differently the next time
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

// inspector gathers facts from a content that comes in blocks. It counts instead of looking at each
// byte: where there are as many CRLFs as CRs and as LFs, none is bare.
type inspector struct {
	cr, lf, crlf int64
	high, nul    bool
	dots         bool // a line begins with a dot
	last         byte // the last byte; '\n' before the first
	lineStart    bool // the next byte begins a line
	endsInCRLF   bool
}

func (in *inspector) add(p []byte) {
	if len(p) == 0 {
		return
	}
	in.high = in.high || has8Bit(p)
	in.nul = in.nul || bytes.IndexByte(p, 0) >= 0
	in.dots = in.dots || in.lineStart && p[0] == '.' || bytes.Contains(p, []byte("\n."))
	split := in.last == '\r' && p[0] == '\n'
	in.cr += int64(bytes.Count(p, []byte{'\r'}))
	in.lf += int64(bytes.Count(p, []byte{'\n'}))
	in.crlf += int64(bytes.Count(p, []byte("\r\n")))
	if split {
		in.crlf++
	}
	in.endsInCRLF = bytes.HasSuffix(p, []byte("\r\n")) || split && len(p) == 1
	in.last = p[len(p)-1]
	in.lineStart = in.last == '\n'
}

func (in *inspector) facts(size int64) facts {
	f := facts{has8Bit: in.high, hasNUL: in.nul, changed: in.cr != in.crlf || in.lf != in.crlf}
	f.wireSize = size + (in.lf - in.crlf)
	if in.last != '\n' {
		f.wireSize += 2
	}
	f.asIs = !f.changed && !in.dots && (size == 0 || in.endsInCRLF)
	return f
}

func has8Bit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		if (binary.NativeEndian.Uint64(p)|binary.NativeEndian.Uint64(p[8:])|
			binary.NativeEndian.Uint64(p[16:])|binary.NativeEndian.Uint64(p[24:]))&high != 0 {
			return true
		}
		p = p[32:]
	}
	for _, c := range p {
		if c > math.MaxInt8 {
			return true
		}
	}
	return false
}

var space = []byte(" ")

// encoder turns content into what goes over the wire after DATA. It is used once, from the beginning.
type encoder struct {
	plain   bool // for BDAT: no dots are doubled, and none ends it
	midLine bool
	cr      bool  // a CR came, and what follows decides what becomes of it
	written int64 // octets as RFC 1870 counts them
}

// add appends the encoded src to dst: at most two bytes for each of src, and one for a CR held back.
func (e *encoder) add(dst, src []byte) []byte {
	for len(src) > 0 {
		if e.cr {
			e.cr = false
			if src[0] == '\n' {
				dst, src = e.endLine(dst), src[1:]
				continue
			}
			dst = e.text(dst, space)
		}
		if src[0] == '.' && !e.midLine && !e.plain {
			dst = append(dst, '.')
		}
		line := src
		lf := bytes.IndexByte(src, '\n')
		if lf >= 0 {
			line = src[:lf]
		}
		if cr := bytes.IndexByte(line, '\r'); cr >= 0 {
			dst = e.text(dst, line[:cr])
			src = src[cr+1:]
			e.cr = true
			continue
		}
		dst = e.text(dst, line)
		src = src[len(line):]
		if lf >= 0 {
			dst, src = e.endLine(dst), src[1:]
		}
	}
	return dst
}

// end appends the end of the content: the CRLF that is missing, and the lone dot.
func (e *encoder) end(dst []byte) []byte {
	if e.cr {
		dst = e.text(dst, space)
	}
	if e.midLine {
		dst = e.endLine(dst)
	}
	if e.plain {
		return dst
	}
	return append(dst, ".\r\n"...)
}

func (e *encoder) endLine(dst []byte) []byte {
	e.midLine = false
	e.written += 2
	return append(dst, "\r\n"...)
}

// text appends a part of a line.
func (e *encoder) text(dst, part []byte) []byte {
	if len(part) > 0 {
		e.midLine = true
		e.written += int64(len(part))
	}
	return append(dst, part...)
}
