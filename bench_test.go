package delivery

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

var benchContent = []byte("Subject: benchmark\r\n\r\n" + strings.Repeat("0123456789012345678901234567890123456789012345678901234567890\r\n", 64))

// BenchmarkDeliver is one more message through a protocol that is warm: for SMTP over loopback TCP to
// a sink in the same process, with go-smtp's client to the same sink beside it.
func BenchmarkDeliver(b *testing.B) {
	sink := &smtptest.Sink{CountOnly: true}
	addr, err := sink.Listen()
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	rt := &Runtime{Egress: loopback("")}
	defer rt.Close(context.Background())
	policy, err := rt.ParsePolicy(b.Context(), "bench.lua", []byte(connectionWith("return 'OK'")))
	if err != nil {
		b.Fatal(err)
	}
	rt.SetPolicy(policy)
	for _, of := range []struct{ name, config string }{
		{"smtp", fmt.Sprintf(`{"protocol": {"smtp": {"mx_list": [%q]}}}`, addr)},
		{"maildir", fmt.Sprintf(`{"protocol": {"maildir_path": "%s/{{ local_part }}"}}`, b.TempDir())},
		{"lua", luaConfig},
	} {
		c, err := ParseQueueConfig([]byte(of.config))
		if err != nil {
			b.Fatal(err)
		}
		p, err := rt.Protocol(c)
		if err != nil {
			b.Fatal(err)
		}
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", of.name, callers), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(benchContent)))
				var n atomic.Int64
				b.SetParallelism(callers)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						msg := messageTo(fmt.Sprintf("user%d@example.com", n.Add(1)%16))
						msg.Body = Bytes(benchContent)
						if r := p.Deliver(b.Context(), msg).Results[0]; r.Status != Delivered {
							b.Error(r.Response)
						}
					}
				})
			})
		}
	}
	b.Run("go-smtp/callers=1", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(benchContent)))
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		c := smtp.NewClient(conn)
		defer c.Close()
		for b.Loop() {
			if err := c.SendMail("a@example.org", []string{"user@example.com"}, strings.NewReader(string(benchContent))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
