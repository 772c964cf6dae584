package smtpclient

import (
	"context"
	"fmt"
	"testing"
)

type scanContent struct {
	name  string
	bytes []byte
}

// scanContents are contents of all sizes and of the kinds that are not treated alike.
func scanContents() []scanContent {
	const text = "The quick brown fox jumps over the lazy dog, as it has done all the day long."
	kinds := []struct {
		name  string
		lines []string
	}{
		{"CRLF", []string{text[:76] + "\r\n"}},
		{"prose", []string{text[:71] + "\r\n", text[:65] + "\r\n", text[:74] + "\r\n", text[:30] + "\r\n", "\r\n", text[:69] + "\r\n"}},
		{"LF", []string{text[:76] + "\n"}},
		{"dots", []string{"." + text[:75] + "\r\n", text[:76] + "\r\n"}},
	}
	var contents []scanContent
	for _, kind := range kinds {
		for _, size := range []int{4 << 10, 100 << 10, 1 << 20} {
			var b []byte
			for i := 0; ; i++ {
				line := kind.lines[i%len(kind.lines)]
				if len(b)+len(line) > size {
					break
				}
				b = append(b, line...)
			}
			contents = append(contents, scanContent{fmt.Sprintf("%s/%dKiB", kind.name, size>>10), b})
		}
	}
	return contents
}

func BenchmarkInspect(b *testing.B) {
	for _, content := range scanContents() {
		b.Run(content.name, func(b *testing.B) {
			b.SetBytes(int64(len(content.bytes)))
			b.ReportAllocs()
			for b.Loop() {
				if err := BytesContent(content.bytes).Inspect(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for kind, name := range []string{dotted: "dotted", chunked: "chunked", verbatim: "verbatim"} {
		for _, content := range scanContents() {
			b.Run(name+"/"+content.name, func(b *testing.B) {
				out := make([]byte, 0, 2*blockSize+16)
				b.SetBytes(int64(len(content.bytes)))
				b.ReportAllocs()
				for b.Loop() {
					e := encoder{kind: encoding(kind)}
					for rest := content.bytes; len(rest) > 0; { // as it is sent: block by block
						n := min(len(rest), blockSize)
						out = e.add(out[:0], rest[:n])
						rest = rest[n:]
					}
					out = e.end(out)
				}
			})
		}
	}
}
