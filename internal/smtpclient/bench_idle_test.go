package smtpclient

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"
)

// BenchmarkIdle is what an open session holds after a message: B/session, heap and stacks. The client
// "none" is a connection alone, which is in all of the others too.
func BenchmarkIdle(b *testing.B) {
	sink := startSink(b)
	for _, client := range []string{"delivery", "go-smtp", "net/smtp", "none"} {
		perSession := -1.0
		b.Run(fmt.Sprintf("client=%s", client), func(b *testing.B) {
			if perSession < 0 {
				perSession = idleMemory(b, sink, clientSpec{client: client, mode: chunking, content: benchContent(4 << 10), peer: &Peer{}})
			}
			b.ReportMetric(perSession, "B/session")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func idleMemory(b *testing.B, sink *sinkProcess, spec clientSpec) float64 {
	const sessions = 500
	ctx, cancel := context.WithTimeout(b.Context(), benchLimit)
	defer cancel()
	conns := make([]net.Conn, sessions)
	clients := make([]benchClient, sessions)
	defer func() {
		for i := range sessions {
			if clients[i] != nil {
				clients[i].close()
			}
			if conns[i] != nil {
				conns[i].Close()
			}
		}
	}()
	before := memory()
	for i := range sessions {
		conn, err := net.DialTimeout("tcp", sink.address, 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = conn
		if spec.client == "none" {
			continue
		}
		conn.SetDeadline(time.Now().Add(benchLimit))
		if clients[i], err = spec.open(ctx, conn); err != nil {
			b.Fatal(err)
		}
		if err := clients[i].send(ctx); err != nil {
			b.Fatal(err)
		}
	}
	return float64(memory()-before) / sessions
}

// memory is what is in use when everything that can go has gone.
func memory() int64 {
	for range 3 { // a pool gives up what it holds with the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
