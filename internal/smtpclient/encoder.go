package smtpclient

import "bytes"

// encoding is a way to put content on the wire.
type encoding uint8

const (
	// dotted is for DATA: CRLF line ends, doubled dots, and a lone dot at the end (RFC 5321 section 4.5.2).
	dotted encoding = iota
	// chunked is for BDAT: CRLF line ends, and nothing else is changed (RFC 3030 section 2).
	chunked
	// verbatim is for BDAT with BINARYMIME: octet for octet (RFC 3030 section 3).
	verbatim
)

// encoder turns content into what goes over the wire after DATA or BDAT. It is used once, from the
// beginning, with blocks of any size. What is dotted and what is chunked is the same content for the peer.
type encoder struct {
	kind    encoding
	midLine bool
	cr      bool  // a CR came, and what follows decides what becomes of it
	written int64 // octets as RFC 1870 counts them
}

// add appends the encoded src to dst: at most two bytes for each of src, and one for a CR held back.
func (e *encoder) add(dst, src []byte) []byte {
	if e.kind == verbatim {
		e.written += int64(len(src))
		return append(dst, src...)
	}
	for len(src) > 0 {
		if e.cr {
			dst, src = e.afterCR(dst, src)
			continue
		}
		n := min(len(src), scanSize)
		if src[n-1] == '\r' {
			e.cr = true
			dst = e.lines(dst, src[:n-1])
		} else {
			dst = e.lines(dst, src[:n])
		}
		src = src[n:]
	}
	return dst
}

// pass takes note of a part of the content, or all of it, that was sent as it is; see Content.asIs. An
// encoder that passes never adds, but its end has the line end that may be missing.
func (e *encoder) pass(src []byte) {
	if len(src) == 0 {
		return
	}
	e.written += int64(len(src))
	e.midLine = e.kind != verbatim && src[len(src)-1] != '\n'
}

// end appends the end of the content: the CRLF that is missing, and the lone dot; six bytes at most.
func (e *encoder) end(dst []byte) []byte {
	if e.cr {
		dst = e.blank(dst)
	}
	if e.midLine {
		dst = e.endLine(dst)
	}
	if e.kind == dotted {
		dst = append(dst, ".\r\n"...)
	}
	return dst
}

// afterCR decides what becomes of the CR before src, and returns what is left of src.
func (e *encoder) afterCR(dst, src []byte) ([]byte, []byte) {
	e.cr = false
	if src[0] == '\n' {
		return e.endLine(dst), src[1:]
	}
	return e.blank(dst), src
}

// lines appends p, in which no CRLF begins before p or ends behind it.
func (e *encoder) lines(dst, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	if e.kind == dotted && !e.midLine && p[0] == '.' {
		dst = append(dst, '.')
	}
	if _, _, clean := survey(p, e.kind == dotted); !clean {
		return e.eachLine(dst, p)
	}
	e.midLine = p[len(p)-1] != '\n'
	e.written += int64(len(p))
	return append(dst, p...)
}

// eachLine does what lines does, for a p that survey has not found clean and whose first dot is doubled.
// What needs no change between two line ends that do goes out in one piece.
func (e *encoder) eachLine(dst, p []byte) []byte {
	begin, dots, bareCR := len(dst), 0, bytes.Count(p, oneCR)
	same := 0 // where the piece begins
	for at := 0; ; at++ {
		n := bytes.IndexByte(p[at:], '\n')
		if n < 0 {
			break
		}
		at += n
		if at > 0 && p[at-1] == '\r' {
			bareCR--
		} else {
			dst = append(append(dst, p[same:at]...), '\r')
			same = at
		}
		if e.kind == dotted && at+1 < len(p) && p[at+1] == '.' {
			dst = append(append(dst, p[same:at+1]...), '.')
			same = at + 1
			dots++
		}
	}
	dst = append(dst, p[same:]...)
	if bareCR > 0 {
		blankBareCRs(dst[begin:])
	}
	e.midLine = p[len(p)-1] != '\n'
	e.written += int64(len(dst) - begin - dots)
	return dst
}

// blankBareCRs replaces each CR that no LF follows by a space.
func blankBareCRs(p []byte) {
	for {
		cr := bytes.IndexByte(p, '\r')
		if cr < 0 {
			return
		}
		if cr+1 == len(p) || p[cr+1] != '\n' {
			p[cr] = ' '
		}
		p = p[cr+1:]
	}
}

func (e *encoder) endLine(dst []byte) []byte {
	e.midLine = false
	e.written += 2
	return append(dst, "\r\n"...)
}

// blank appends the space that stands for a CR that was held back.
func (e *encoder) blank(dst []byte) []byte {
	e.midLine = true
	e.written++
	return append(dst, ' ')
}
