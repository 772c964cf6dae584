package smtpclient

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// TestSessionMemory checks that a session holds no more after many messages than after some.
func TestSessionMemory(t *testing.T) {
	sink := &smtptest.Sink{CountOnly: true}
	defer sink.Close()
	client, server := smtptest.Pipe()
	sink.ServeConn(server)
	s, err := Open(context.Background(), client, &Config{LocalName: "client.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := heapAfter(t, s, 2_000)
	after := heapAfter(t, s, 20_000)
	const tolerance = 256 << 10 // 13 bytes a message
	if after > before+tolerance {
		t.Errorf("%d bytes are in use after 22,000 messages and %d after 2,000", after, before)
	}
}

// heapAfter is what is in use when n messages were sent by 40 callers.
func heapAfter(t *testing.T, s *Session, n int) uint64 {
	const callers = 40
	content := bytes.Repeat([]byte("text\r\n"), 100)
	env := oneTo("rcpt@example.com")
	var working sync.WaitGroup
	for range callers {
		working.Go(func() {
			for range n / callers {
				if tx := s.Send(context.Background(), env, BytesContent(content)); !tx.Results[0].Accepted {
					t.Error(tx.Err)
					return
				}
			}
		})
	}
	working.Wait()
	var m runtime.MemStats
	for range 3 { // what pools hold goes with the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
