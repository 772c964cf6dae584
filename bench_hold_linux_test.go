package delivery

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	holdSessions = flag.Int("hold", 0, "TestHold holds so many sessions at once (the figures of the README: 10000)")
	holdMessages = flag.Int("hold.messages", 1_000_000, "and then sends so many messages through 100 of them")
)

// TestHold holds many sessions to a sink in another process, sends many messages through a hundred of them,
// and says what memory that takes. Nothing may be left of it after Close.
//
//	go test . -run '^TestHold$' -v -args -hold 10000
func TestHold(t *testing.T) {
	if *holdSessions == 0 {
		t.Skip("figures, not a test: see -hold")
	}
	raiseFileLimit(t, uint64(*holdSessions+200))
	sink := startBenchSink(t)
	goroutines, files, memory, resident := runtime.NumGoroutine(), openFiles(t), heap(), residentMemory(t)
	rt := &Runtime{Egress: loopback(fmt.Sprintf(`"connection_limit": %d, "max_ready": 1000000, "max_deliveries_per_connection": 1000000000, `+
		`"idle_timeout": "1h", "enable_tls": "Disabled"`, *holdSessions))}
	c, err := ParseQueueConfig(fmt.Appendf(nil, `{"protocol": {"smtp": {"mx_list": [%q]}}}`, sink))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	report := func(when string) int64 {
		now := heap()
		n := rt.Stats().Ready[0]
		t.Logf("%-28s %5d sessions, heap %6.1f MB, resident %6.1f MB, %5d goroutines", when, n.Busy+n.Idle,
			float64(now-memory)/1e6, float64(residentMemory(t)-resident)/1e6, runtime.NumGoroutine())
		return now
	}

	// A body that waits while it is being sent keeps its session from everybody else.
	all := make(chan struct{})
	var callers sync.WaitGroup
	for range *holdSessions {
		callers.Go(func() {
			msg := messageTo("a@x.test")
			msg.Body = &held{until: all}
			if r := p.Deliver(context.Background(), msg).Results[0]; r.Status != Delivered {
				t.Errorf("%s %s %v", r.Status, r.Response, r.Err)
			}
		})
	}
	for n := 0; n < *holdSessions; time.Sleep(10 * time.Millisecond) {
		if n = rt.Stats().Ready[0].Busy; t.Failed() {
			t.FailNow()
		}
	}
	report("each carries a message:")
	close(all)
	callers.Wait()
	idle := report("all are idle:")
	t.Logf("an idle session takes %d bytes of heap", (idle-memory)/int64(*holdSessions))

	msg := messageTo("a@x.test")
	msg.Body = Bytes(benchContent)
	const steps = 10
	var first, last int64
	for step := range steps {
		began := time.Now()
		var left atomic.Int64
		left.Store(int64(*holdMessages / steps))
		for range 100 {
			callers.Go(func() {
				for left.Add(-1) >= 0 {
					if r := p.Deliver(context.Background(), msg).Results[0]; r.Status != Delivered {
						t.Errorf("%s %s %v", r.Status, r.Response, r.Err)
						return
					}
				}
			})
		}
		callers.Wait()
		took := time.Since(began)
		if last = report(fmt.Sprintf("after %d messages (%.0f/s):", (step+1)**holdMessages/steps, float64(*holdMessages/steps)/took.Seconds())); step == 0 {
			first = last
		}
	}
	if growth := last - first; growth > (first-memory)/20 {
		t.Errorf("the heap grew by %d bytes after the first %d messages", growth, *holdMessages/steps)
	}
	if err := rt.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for range 1000 { // what has ended is counted for a moment longer
		if runtime.NumGoroutine() <= goroutines && openFiles(t) <= files {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("after Close: %d goroutines (%d before), %d files (%d before), heap %.1f MB", runtime.NumGoroutine(), goroutines,
		openFiles(t), files, float64(heap()-memory)/1e6)
	if runtime.NumGoroutine() > goroutines || openFiles(t) > files {
		t.Error("something is left")
	}
}

// held is a body that is looked at without delay, and waits when it is sent.
type held struct {
	opened atomic.Int32
	until  chan struct{}
}

func (h *held) Size() int64 { return int64(len(benchContent)) }
func (h *held) Open() (io.ReadCloser, error) {
	if h.opened.Add(1) > 1 {
		<-h.until
	}
	return io.NopCloser(bytes.NewReader(benchContent)), nil
}

func raiseFileLimit(t *testing.T, need uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= need {
		return
	}
	limit.Cur, limit.Max = need, max(limit.Max, need)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Skipf("%d files at once are not allowed: %v", need, err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// residentMemory is the process's memory as the system sees it.
func residentMemory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
