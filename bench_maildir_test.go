package delivery

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkMaildir delivers 4 KiB to recipients with Maildirs of their own, in directories that are fresh each time:
// one call after the other, sixteen at a time, and one call for all of them.
func BenchmarkMaildir(b *testing.B) {
	for _, bench := range []struct {
		name       string
		options    string
		calls      int
		recipients int
	}{
		{"1 call", "", 1, 1},
		{"16 calls", "", 16, 1},
		{"256 recipients", "", 1, 256},
		{"1 call, no_sync", `, "no_sync": true`, 1, 1},
	} {
		b.Run(bench.name, func(b *testing.B) {
			root, err := os.MkdirTemp(b.TempDir(), "")
			if err != nil {
				b.Fatal(err)
			}
			var rt Runtime
			c, err := ParseQueueConfig([]byte(`{"protocol": {"maildir_path": ` + mustJSON(filepath.Join(root, "{{ local_part }}")) + bench.options + `}}`))
			if err != nil {
				b.Fatal(err)
			}
			p, err := rt.Protocol(c)
			if err != nil {
				b.Fatal(err)
			}
			defer rt.Close(b.Context())
			defer p.Close(b.Context())
			body := Bytes(strings.Repeat("0123456789abcde\n", 256))
			messages := make([]*Message, bench.calls)
			for i := range messages {
				var rcpts []string
				for n := range bench.recipients {
					rcpts = append(rcpts, fmt.Sprintf("user%d-%d@example.com", i, n))
				}
				messages[i] = messageTo(rcpts...)
				messages[i].Body = body
				deliverAll(b, p, messages[i]) // which makes the Maildirs
			}
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			together(bench.calls, b.N, func(int) {
				deliverAll(b, p, messages[int(next.Add(1))%len(messages)])
			})
			b.ReportMetric(float64(b.N*bench.recipients)/b.Elapsed().Seconds(), "copies/s")
		})
	}
}

func deliverAll(b *testing.B, p Protocol, msg *Message) {
	for _, r := range p.Deliver(b.Context(), msg).Results {
		if r.Status != Delivered {
			b.Errorf("%+v", r)
		}
	}
}
