package smtpclient

import (
	"bytes"
	"testing"
)

// BenchmarkEncode is the worst that content can ask for: each line end has to be replaced.
func BenchmarkEncode(b *testing.B) {
	line := []byte("The quick brown fox jumps over the lazy dog, as it has done all day long.\n")
	content := bytes.Repeat(line, 100<<10/len(line))
	out := make([]byte, 0, 2*len(content))
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		var e encoder
		out = e.end(e.add(out[:0], content))
	}
}
