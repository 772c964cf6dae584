package delivery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/smtpclient"
	"github.com/mtadelivery/delivery/internal/smtptest"
	"golang.org/x/sys/unix"
)

var pin = flag.Bool("pin", false, "bind BenchmarkDeliverSMTP and its sink to one CPU, so that its ratios are of work")

// BenchmarkDeliverSMTP is a message of 4 KiB through a protocol that is warm, over loopback TCP to a sink
// in another process: msgs/s, and the CPU time of a message on this side of the wire (client-us/msg). All
// callers share one protocol whose connection_limit is conns. Beside it stand the wire engine alone, which
// is handed its connections and an envelope made before, and go-smtp's client, which takes one caller for
// each connection.
//
//	go test . -run '^$' -bench DeliverSMTP -cpu 1 -args -pin
func BenchmarkDeliverSMTP(b *testing.B) {
	if *pin {
		pinToOneCPU(b)
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	sink := startBenchSink(b)
	for _, mode := range []string{"chunking", "pipelining"} {
		for _, conns := range []int{1, 10, 100} {
			for _, callers := range []int{40, 1} {
				b.Run(fmt.Sprintf("%s/conns=%d/callers=%d/client=delivery", mode, conns, callers), func(b *testing.B) {
					send := benchDelivery(b, sink, mode, conns)
					measureSending(b, conns*callers, func(int) error { return send(b.Context()) })
				})
				b.Run(fmt.Sprintf("%s/conns=%d/callers=%d/client=engine", mode, conns, callers), func(b *testing.B) {
					sessions := make([]*smtpclient.Session, conns)
					for i := range sessions {
						sessions[i] = benchEngine(b, sink, mode)
					}
					measureSending(b, conns*callers, func(caller int) error { return benchSend(b.Context(), sessions[caller%conns]) })
				})
			}
			b.Run(fmt.Sprintf("%s/conns=%d/callers=1/client=go-smtp", mode, conns), func(b *testing.B) {
				clients := make([]*smtp.Client, conns)
				for i := range clients {
					clients[i] = benchGoSMTP(b, sink)
				}
				measureSending(b, conns, func(caller int) error {
					return clients[caller].SendMail("sender@example.org", []string{"rcpt@example.com"}, bytes.NewReader(benchContent))
				})
			})
		}
	}
}

// benchDelivery returns what sends one message through a protocol that has so many connections.
func benchDelivery(b *testing.B, sink, mode string, conns int) (send func(context.Context) error) {
	rt := &Runtime{Hostname: "client.example", Egress: loopback(fmt.Sprintf(
		`"connection_limit": %d, "max_ready": 100000, "max_deliveries_per_connection": 1000000000, "enable_tls": "Disabled", "enable_chunking": %t`,
		conns, mode == "chunking"))}
	b.Cleanup(func() { rt.Close(context.Background()) })
	c, err := ParseQueueConfig(fmt.Appendf(nil, `{"protocol": {"smtp": {"mx_list": [%q]}}}`, sink))
	if err != nil {
		b.Fatal(err)
	}
	p, err := rt.Protocol(c)
	if err != nil {
		b.Fatal(err)
	}
	msg := messageTo("rcpt@example.com")
	msg.Body = Bytes(benchContent)
	return func(ctx context.Context) error {
		if r := &p.Deliver(ctx, msg).Results[0]; r.Status != Delivered {
			return fmt.Errorf("%s: %s (%w)", r.Status, r.Response, r.Err)
		}
		return nil
	}
}

func benchEngine(b *testing.B, sink, mode string) *smtpclient.Session {
	conn, err := net.Dial("tcp", sink)
	if err != nil {
		b.Fatal(err)
	}
	s, err := smtpclient.Open(b.Context(), conn, &smtpclient.Config{Host: "sink.example", LocalName: "client.example",
		TLS: smtpclient.TLSDisabled, Peer: &smtpclient.Peer{}, DisableChunking: mode != "chunking"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

var benchEnvelope = &smtpclient.Envelope{From: "sender@example.org", Rcpts: []smtpclient.Rcpt{{Address: "rcpt@example.com"}}}

func benchSend(ctx context.Context, s *smtpclient.Session) error {
	tx := s.Send(ctx, benchEnvelope, smtpclient.BytesContent(benchContent))
	if r := &tx.Results[0]; !r.Accepted {
		return fmt.Errorf("%s: %s (%w)", r.Command, r.Reply, r.Err)
	}
	return nil
}

func benchGoSMTP(b *testing.B, sink string) *smtp.Client {
	conn, err := net.Dial("tcp", sink)
	if err != nil {
		b.Fatal(err)
	}
	c := smtp.NewClient(conn)
	b.Cleanup(func() { c.Close() })
	return c
}

// measureSending has so many callers send b.N messages, after as many as warm the connections.
func measureSending(b *testing.B, callers int, send func(caller int) error) {
	b.ReportAllocs()
	b.SetBytes(int64(len(benchContent)))
	if err := sendMessages(callers, max(2000, 10*callers), send); err != nil {
		b.Fatal("warming up: ", err)
	}
	runtime.GC() // nobody pays for what was before
	before := cpuTime(b)
	b.ResetTimer()
	if err := sendMessages(callers, b.N, send); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1e3/n, "client-us/msg")
}

func sendMessages(callers, messages int, send func(caller int) error) error {
	var left atomic.Int64
	left.Store(int64(messages))
	failed := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for failed[i] == nil && left.Add(-1) >= 0 {
				failed[i] = send(i)
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// cpuTime is what this process has used, user and system.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pinToOneCPU binds all threads of this process, and the processes that it starts, to one CPU.
func pinToOneCPU(b *testing.B) {
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		b.Fatal(err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, thread := range threads {
		var id int
		if _, err := fmt.Sscan(thread.Name(), &id); err != nil {
			b.Fatal(err)
		}
		if err := unix.SchedSetaffinity(id, &one); err != nil && !errors.Is(err, unix.ESRCH) {
			b.Fatal(err)
		}
	}
}

// benchSink is the environment variable that makes a sink of the test binary.
const benchSink = "DELIVERY_BENCH_SINK"

// TestBenchSink is the sink's process. It ends with its input.
func TestBenchSink(t *testing.T) {
	if os.Getenv(benchSink) == "" {
		t.Skip("BenchmarkDeliverSMTP runs this, in a process of its own")
	}
	sink := &smtptest.Sink{CountOnly: true}
	address, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	fmt.Printf("sink %s\n", address)
	io.Copy(io.Discard, os.Stdin)
}

// startBenchSink returns the address of a sink in a process of its own, which ends with the benchmark.
func startBenchSink(b testing.TB) string {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestBenchSink$", "-test.timeout=1h")
	cmd.Env = append(os.Environ(), benchSink+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			b.Error("the sink: ", err)
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if address, found := strings.CutPrefix(lines.Text(), "sink "); found {
			return address
		}
	}
	b.Fatal("the sink has ended")
	return ""
}
