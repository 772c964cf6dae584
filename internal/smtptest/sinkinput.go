package smtptest

import (
	"bytes"
	"io"
)

// sinkInput buffers what a client sends. An idle connection holds the small buffer only.
type sinkInput struct {
	buf  []byte
	r, w int // buf[r:w] is unread
	from io.Reader
	// before is called before each read from the connection, which may take for ever.
	before func() error
}

const (
	smallInput = 4 << 10
	largeInput = 64 << 10
)

func (in *sinkInput) reset(from io.Reader) { in.from, in.r, in.w = from, 0, 0 }

// fill reads more behind what is unread, which must be less than a large buffer.
func (in *sinkInput) fill() error {
	if err := in.before(); err != nil {
		return err
	}
	if in.w == len(in.buf) && len(in.buf) < largeInput {
		larger := make([]byte, largeInput)
		in.r, in.w = 0, copy(larger, in.buf[in.r:in.w])
		in.buf = larger
	} else if in.r > 0 {
		in.r, in.w = 0, copy(in.buf, in.buf[in.r:in.w])
	}
	n, err := in.from.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

// line returns the next line with its end, valid until the next call. A line that fills the buffer comes
// in parts.
func (in *sinkInput) line() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(in.buf[in.r+searched:in.w], '\n'); i >= 0 {
			start := in.r
			in.r += searched + i + 1
			return in.buf[start:in.r], nil
		}
		searched = in.w - in.r
		if searched == largeInput {
			in.r = in.w
			return in.buf, nil
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}

// skip takes n bytes and gives them to take, if that is not nil, in pieces.
func (in *sinkInput) skip(n int64, take func([]byte)) error {
	for {
		part := int(min(n, int64(in.w-in.r)))
		if take != nil {
			take(in.buf[in.r : in.r+part])
		}
		in.r += part
		n -= int64(part)
		if n == 0 {
			return nil
		}
		if err := in.fill(); err != nil {
			return err
		}
	}
}

// untilDot takes up to and with the line that is a lone dot, and gives take, if that is not nil, what
// stands before it in pieces, its dots still doubled. The line read last must have ended with CRLF, which
// is given too: so the end is the same five bytes wherever it is. Only CRLF ends a line: whoever sends
// anything else as the end of the data waits for ever.
func (in *sinkInput) untilDot(take func([]byte)) error {
	in.r -= len("\r\n")
	for {
		data := in.buf[in.r:in.w]
		end, found := endOfData(data)
		if found {
			in.r += end + len("\r\n.\r\n")
			end += len("\r\n")
		} else {
			in.r += end
		}
		if take != nil {
			take(data[:end])
		}
		if found {
			return nil
		}
		if err := in.fill(); err != nil {
			return err
		}
	}
}

// endOfData looks for CRLF . CRLF. Where it is not found, end is where it can still begin. A dot is rarer
// in mail than a line end.
func endOfData(data []byte) (end int, found bool) {
	from := 2
	for from < len(data) {
		i := bytes.IndexByte(data[from:], '.')
		if i < 0 {
			break
		}
		dot := from + i
		if data[dot-1] == '\n' && data[dot-2] == '\r' {
			rest := data[dot+1:]
			if len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n' {
				return dot - 2, true
			}
			if len(rest) == 0 || len(rest) == 1 && rest[0] == '\r' {
				return dot - 2, false
			}
		}
		from = dot + 1
	}
	// A CRLF at the end, or a CR, may be the beginning of one.
	if n := len(data); bytes.HasSuffix(data, []byte("\r\n")) {
		return n - 2, false
	} else if n > 0 && data[n-1] == '\r' {
		return n - 1, false
	}
	return len(data), false
}

// undouble removes, in place, the dots that were added to content which begins with the CRLF before it,
// and that CRLF.
func undouble(data []byte) []byte {
	out := data[:0]
	for {
		i := bytes.Index(data, []byte("\r\n."))
		if i < 0 {
			break
		}
		out = append(out, data[:i+2]...)
		data = data[i+3:]
	}
	out = append(out, data...)
	return out[2:]
}
