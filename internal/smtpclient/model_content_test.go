package smtpclient

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// modelText is the text of many messages: a header of their own makes each unlike any other.
type modelText struct{ raw, normal []byte }

// modelTexts are texts of all sizes, with all that is odd about line ends and dots.
func modelTexts(seed uint64) []modelText {
	rng := rand.New(rand.NewPCG(seed, 7))
	sizes := []int{0, 1, 2, 3, 1000, 4096, 8190, 16 << 10, 32 << 10, 64 << 10, 200 << 10}
	for range 60 {
		sizes = append(sizes, rng.IntN(300))
	}
	texts := make([]modelText, len(sizes))
	for i, size := range sizes {
		raw := make([]byte, 0, size+20)
		for len(raw) < size {
			raw = append(raw, modelScrap(rng, i%4)...)
		}
		raw = raw[:size]
		texts[i] = modelText{raw, normal(raw)}
	}
	return texts
}

// modelScrap is a piece of text: the higher the oddity, the odder.
func modelScrap(rng *rand.Rand, oddity int) string {
	line := "The quick brown fox jumps over the lazy dog, as it has done all day.\r\n"
	if rng.IntN(4) > 0 {
		return line[rng.IntN(len(line)-2):]
	}
	scraps := []string{"\r\n", ".\r\n", "\r\n.\r\n", "..", "x", "\r\nMAIL\r\n", // oddity 0 and 1
		"\n", "\r", "\n.\n", "\r\r\n", "\n\r\n.\r", // 2
		"\xe4\xf6", "é", "\x80\n"} // 3
	return scraps[rng.IntN([]int{6, 6, 11, 14}[oddity])]
}

// modelBody is what is wrong with a body, or nothing.
type modelBody int

const (
	bodySound modelBody = iota
	bodyShort
	bodyLong
	bodyFails
	bodyDoesNotOpen
	bodyChanges // as long as it said, but not on the wire
	modelBodies
)

var errModelBody = errors.New("the disk is broken")

// newModelContent makes the content of a message. A bad body is sound when it is inspected, or not.
func (r *modelRun) newModelContent(rng *rand.Rand, m *modelMessage) *Content {
	n := len(r.texts)
	if rng.IntN(50) > 0 {
		n -= 11 // the small ones come last
	}
	text := r.texts[len(r.texts)-1-rng.IntN(n)]
	header := fmt.Appendf(nil, "%sMessage: %d\r\n", []string{"", "", ".", "X-"}[rng.IntN(4)], m.number)
	if len(text.raw) == 0 && rng.IntN(2) == 0 {
		header = nil
	}
	var h maphash.Hash
	h.SetSeed(r.book.seed)
	h.Write(header)
	h.Write(text.normal)
	m.hash, m.size = h.Sum64(), int64(len(header)+len(text.normal))
	raw := append(header, text.raw...)
	if m.bad {
		return badContent(rng, raw)
	}
	if rng.IntN(8) > 0 {
		return BytesContent(raw)
	}
	pause := time.Duration(0)
	if rng.IntN(10) == 0 {
		pause = time.Duration(rng.IntN(int(10 * time.Second)))
	}
	return StreamContent(int64(len(raw)), func() (io.ReadCloser, error) {
		return &modelReader{b: raw, pause: pause}, nil
	})
}

func badContent(rng *rand.Rand, raw []byte) *Content {
	what := 1 + modelBody(rng.IntN(int(modelBodies)-1))
	if len(raw) < 10 {
		raw = bytes.Repeat([]byte("bad body\n"), 3)
	}
	at := 1 + rng.IntN(len(raw)-1)
	sound := int32(min(1, rng.IntN(4))) // readings before the fault shows
	if what == bodyChanges {
		sound = 1
		raw = bytes.ReplaceAll(raw, []byte("\n"), []byte("x"))
	}
	var opened atomic.Int32
	return StreamContent(int64(len(raw)), func() (io.ReadCloser, error) {
		if opened.Add(1) <= sound {
			return &modelReader{b: raw}, nil
		}
		switch what {
		case bodyShort:
			return &modelReader{b: raw[:at]}, nil
		case bodyLong:
			return &modelReader{b: append(raw[:len(raw):len(raw)], 'x')}, nil
		case bodyFails:
			return &modelReader{b: raw[:at], err: errModelBody}, nil
		case bodyChanges:
			return &modelReader{b: append(raw[:len(raw)-1:len(raw)-1], '\n')}, nil
		}
		return nil, errModelBody
	})
}

// modelReader yields what it holds, in pieces where it pauses.
type modelReader struct {
	b     []byte
	pause time.Duration
	err   error
}

func (r *modelReader) Close() error { return nil }

func (r *modelReader) Read(b []byte) (int, error) {
	if r.pause > 0 {
		time.Sleep(r.pause)
		b = b[:min(len(b), 1+len(r.b)/2)]
	}
	if len(r.b) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		return 0, io.EOF
	}
	n := copy(b, r.b)
	r.b = r.b[n:]
	return n, nil
}
