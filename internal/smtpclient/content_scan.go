package smtpclient

import (
	"bytes"
	"encoding/binary"
	"math"
)

// facts are what has to be known of a content before it is sent.
type facts struct {
	has8Bit   bool
	hasNUL    bool
	longLines bool // a line above maxLine
	stray     bool // a bare CR or LF
	dots      bool // a line begins with a dot
	wireSize  int64
}

// maxLine is the most that a line may have before its CRLF (RFC 5322 section 2.1.1).
const maxLine = 998

// scanSize is how much is scanned at a time: little enough that what scans it a second time, or copies
// it, finds it in the fastest cache.
const scanSize = 4 << 10

var (
	oneCR = []byte{'\r'}
	oneLF = []byte{'\n'}
)

// survey looks whether p, in which no CRLF begins before p or ends behind it, can go out unchanged: it
// holds no bare CR or LF and, unless dots do not matter, no line after the first begins with one. It also
// wants lines of at most maxLine. first and last are the places of the first and the last LF, or -1.
//
// It is quick to say yes and may say no too often. Most large contents are base64, all lines of one
// length: so it looks for the next line end where the last line's length puts it, before it searches.
// What such a jump has skipped shows in the end, when fewer line ends were found than there are.
func survey(p []byte, dotsMatter bool) (first, last int, clean bool) {
	ends := bytes.Count(p, oneLF)
	if bytes.Count(p, oneCR) != ends {
		return 0, 0, false
	}
	first, last = -1, -1
	for length := 0; ends > 0; ends-- {
		begin := last + 1
		if at := begin + length; at >= len(p) || p[at] != '\n' {
			length = bytes.IndexByte(p[begin:], '\n')
			if length < 0 {
				return 0, 0, false // a jump has skipped some
			}
		}
		last = begin + length
		if last == 0 || p[last-1] != '\r' || length > maxLine+1 {
			return 0, 0, false
		}
		if dotsMatter && last+1 < len(p) && p[last+1] == '.' {
			return 0, 0, false
		}
		if first < 0 {
			first = last
		}
	}
	return first, last, true
}

// inspector gathers facts from a content that comes in blocks.
type inspector struct {
	found  facts
	bareLF int64
	line   int64 // the length so far of the line that the next byte belongs to, without cr
	cr     bool  // a CR came, and what follows decides whether it is stray
}

func (in *inspector) add(p []byte) {
	for len(p) > 0 {
		if in.cr {
			p = in.afterCR(p)
			continue
		}
		n := min(len(p), scanSize)
		in.octets(p[:n])
		if p[n-1] == '\r' {
			in.cr = true
			in.lines(p[:n-1])
		} else {
			in.lines(p[:n])
		}
		p = p[n:]
	}
}

// afterCR decides what the CR before p was, and returns what is left of p.
func (in *inspector) afterCR(p []byte) []byte {
	in.cr = false
	if p[0] == '\n' {
		in.endLine(0)
		return p[1:]
	}
	in.found.stray = true
	in.line++
	return p
}

// octets looks for what matters wherever it stands.
func (in *inspector) octets(p []byte) {
	in.found.has8Bit = in.found.has8Bit || has8Bit(p)
	in.found.hasNUL = in.found.hasNUL || bytes.IndexByte(p, 0) >= 0
}

// lines looks at p, in which no CRLF begins before p or ends behind it.
func (in *inspector) lines(p []byte) {
	if in.line == 0 && len(p) > 0 && p[0] == '.' {
		in.found.dots = true
	}
	first, last, clean := survey(p, !in.found.dots)
	switch {
	case !clean:
		in.eachLine(p)
	case first < 0:
		in.line += int64(len(p))
	default:
		in.endLine(int64(first - 1))
		in.line = int64(len(p) - last - 1)
	}
}

// eachLine does what lines does, for a p that survey has not found clean.
func (in *inspector) eachLine(p []byte) {
	bareCR := bytes.Count(p, oneCR)
	for {
		n := bytes.IndexByte(p, '\n')
		if n < 0 {
			break
		}
		text := n
		if n > 0 && p[n-1] == '\r' {
			text--
			bareCR--
		} else {
			in.found.stray = true
			in.bareLF++
		}
		in.endLine(int64(text))
		p = p[n+1:]
		in.found.dots = in.found.dots || len(p) > 0 && p[0] == '.'
	}
	in.line += int64(len(p))
	in.found.stray = in.found.stray || bareCR > 0
}

// endLine ends the line after n more bytes of it.
func (in *inspector) endLine(n int64) {
	in.found.longLines = in.found.longLines || in.line+n > maxLine
	in.line = 0
}

// facts returns what was found in a content of that size, all of which was added.
func (in *inspector) facts(size int64) facts {
	if in.cr {
		in.cr = false
		in.found.stray = true
		in.line++
	}
	in.found.wireSize = size + in.bareLF
	if in.line > 0 {
		in.endLine(0)
		in.found.wireSize += 2
	}
	return in.found
}

func has8Bit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 64 {
		q := (*[64]byte)(p) // so that the bounds are checked once
		a := binary.NativeEndian.Uint64(q[0:]) | binary.NativeEndian.Uint64(q[8:])
		b := binary.NativeEndian.Uint64(q[16:]) | binary.NativeEndian.Uint64(q[24:])
		c := binary.NativeEndian.Uint64(q[32:]) | binary.NativeEndian.Uint64(q[40:])
		d := binary.NativeEndian.Uint64(q[48:]) | binary.NativeEndian.Uint64(q[56:])
		if (a|b|c|d)&high != 0 {
			return true
		}
		p = p[64:]
	}
	for _, c := range p {
		if c > math.MaxInt8 {
			return true
		}
	}
	return false
}
