package maildrop

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkStore is the cost of a durable message of 4 KiB: one writer and 16, into one Maildir, and
// one writer into Maildirs that do not exist.
func BenchmarkStore(b *testing.B) {
	message := text(strings.Repeat("0123456789abcde\n", 256))
	b.Run("one writer", func(b *testing.B) {
		dir := makeMaildir(b, b.TempDir())
		var d Drop
		b.ReportAllocs()
		for b.Loop() {
			if _, err := d.Store(b.Context(), dir, message); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("16 writers", func(b *testing.B) {
		dir := makeMaildir(b, b.TempDir())
		var d Drop
		b.ReportAllocs()
		b.SetParallelism(8) // times GOMAXPROCS
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := d.Store(b.Context(), dir, message); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("new maildirs", func(b *testing.B) {
		root, i := b.TempDir(), 0
		var d Drop
		b.ReportAllocs()
		for b.Loop() {
			i++
			if _, err := d.Store(b.Context(), filepath.Join(root, strconv.Itoa(i)), message); err != nil {
				b.Fatal(err)
			}
		}
	})
}
