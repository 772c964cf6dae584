package smtpclient

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// benchLimit is when a benchmark's connections are cut, so that nothing hangs.
const benchLimit = 2 * time.Minute

var pin = flag.Bool("pin", false, "bind benchmarks and their sink to one CPU, so that their ratios are of work")

// BenchmarkWork is a message of 4 KiB over loopback TCP to a sink in another process: msgs/s, and the CPU
// time of a message here (client-us/msg) and there (sink-us/msg). Clients that take one caller for each
// connection have one, whatever callers says. The raw client is the floor: it writes transactions that
// were rendered before and counts replies, with callers of them on their way (with DATA, one).
//
//	go test ./internal/smtpclient -run '^$' -bench Work -cpu 1 -args -pin
func BenchmarkWork(b *testing.B) {
	sink := startSink(b)
	content := benchContent(4 << 10)
	for _, mode := range []string{chunking, pipelining} {
		for _, conns := range []int{1, 10, 100} {
			for _, callers := range []int{40, 1} {
				for _, client := range []string{"delivery", "go-smtp", "net/smtp", "raw"} {
					name := fmt.Sprintf("%s/conns=%d/callers=%d/client=%s", mode, conns, callers, client)
					bench(b, name, sink, conns, callers, clientSpec{client: client, mode: mode, content: content})
				}
			}
		}
	}
}

// BenchmarkLarge is a message of 100 KiB, where the bytes cost more than the dialogue.
func BenchmarkLarge(b *testing.B) {
	sink := startSink(b)
	content := benchContent(100 << 10)
	for _, mode := range []string{chunking, pipelining} {
		for _, callers := range []int{8, 1} {
			for _, client := range []string{"delivery", "go-smtp", "net/smtp", "raw"} {
				name := fmt.Sprintf("%s/callers=%d/client=%s", mode, callers, client)
				bench(b, name, sink, 1, callers, clientSpec{client: client, mode: mode, content: content})
			}
		}
	}
}

// BenchmarkSend is one connection in every mode, with content in memory and from a reader.
func BenchmarkSend(b *testing.B) {
	sink := startSink(b)
	content := benchContent(4 << 10)
	for _, mode := range []string{chunking, pipelining, lockstep} {
		for _, shape := range []string{"bytes", "stream"} {
			for _, callers := range []int{1, 40} {
				name := fmt.Sprintf("%s/%s/callers=%d", mode, shape, callers)
				bench(b, name, sink, 1, callers, clientSpec{client: "delivery", mode: mode, content: content, stream: shape == "stream"})
			}
		}
	}
}

// bench runs one client over connections that stay open and warm while b.N grows.
func bench(b *testing.B, name string, sink *sinkProcess, conns, callers int, spec clientSpec) {
	var f *fleet
	b.Run(name, func(b *testing.B) {
		if *pin {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		}
		if f == nil {
			f = newFleet(b, sink, conns, callers, spec)
		}
		f.measure(b)
	})
	if f != nil {
		f.close()
	}
}

// fleet is a number of connections with their callers.
type fleet struct {
	sink  *sinkProcess
	size  int                                    // of a message
	run   []func(claim func(want int) int) error // the callers
	limit *time.Timer                            // cuts all connections

	mu    sync.Mutex
	onCut []func()
}

func newFleet(b *testing.B, sink *sinkProcess, conns, callers int, spec clientSpec) *fleet {
	spec.peer = &Peer{}
	f := &fleet{sink: sink, size: len(spec.content)}
	f.limit = time.AfterFunc(benchLimit, f.cut)
	for range conns {
		if err := f.dial(b.Context(), callers, &spec); err != nil {
			f.close()
			b.Fatal(err)
		}
	}
	if err := f.send(int64(max(100*conns, 2*len(f.run)))); err != nil {
		f.close()
		b.Fatal("warming up: ", err)
	}
	return f
}

func (f *fleet) dial(ctx context.Context, callers int, spec *clientSpec) error {
	conn, err := net.DialTimeout("tcp", f.sink.address, 10*time.Second)
	if err != nil {
		return err
	}
	f.add(func() { conn.Close() })
	if spec.client == "raw" {
		c, err := openRaw(conn, spec, callers)
		if err == nil {
			f.run = append(f.run, c.run)
		}
		return err
	}
	c, err := spec.open(ctx, conn)
	if err != nil {
		return err
	}
	f.add(c.close)
	if !spec.concurrent() {
		callers = 1
	}
	for range callers {
		f.run = append(f.run, func(claim func(int) int) error {
			for claim(1) > 0 {
				// The connection is cut when it takes too long, which needs no context.
				if err := c.send(context.Background()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return nil
}

func (f *fleet) add(close func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCut = append(f.onCut, close)
}

func (f *fleet) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, do := range f.onCut {
		do()
	}
	f.onCut = nil
}

func (f *fleet) close() {
	f.limit.Stop()
	f.cut()
}

// send has the callers send so many messages.
func (f *fleet) send(messages int64) error {
	claim := claimFrom(messages)
	failed := make([]error, len(f.run))
	var callers sync.WaitGroup
	for i, run := range f.run {
		callers.Go(func() { failed[i] = run(claim) })
	}
	callers.Wait()
	return errors.Join(failed...)
}

func (f *fleet) measure(b *testing.B) {
	f.limit.Reset(benchLimit)
	b.ReportAllocs()
	b.SetBytes(int64(f.size))
	sinkBefore, messagesBefore, err := f.sink.usage()
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC() // nobody pays for what was before
	before := cpuTime()
	b.ResetTimer()
	if err := f.send(int64(b.N)); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	spent := cpuTime() - before
	sinkAfter, messagesAfter, err := f.sink.usage()
	if err != nil {
		b.Fatal(err)
	}
	if got := messagesAfter - messagesBefore; got != int64(b.N) {
		b.Fatalf("the sink took %d messages of %d", got, b.N)
	}
	n := float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/n, "client-us/msg")
	b.ReportMetric(float64((sinkAfter-sinkBefore).Nanoseconds())/1e3/n, "sink-us/msg")
}
