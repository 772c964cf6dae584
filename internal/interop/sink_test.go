//go:build interop && linux

package interop

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// sink is an smtp-sink: it takes mail fast and throws it away, or fails where it is told to.
type sink struct {
	address string
	port    int
	server  *process
}

// startSink starts an smtp-sink for one test.
func startSink(t *testing.T, options ...string) *sink {
	t.Helper()
	port := mustFreePort(t)
	s := &sink{address: loopback(port), port: port}
	argv := append([]string{"/usr/sbin/smtp-sink", "-c"}, options...)
	s.server = serve(t, port, append(argv, "inet:"+s.address, "1000")...)
	return s
}

// sinkCounts is what smtp-sink counted: connections, QUIT commands, whole messages.
type sinkCounts struct{ sessions, quits, messages int }

var sinkLine = regexp.MustCompile(`sess=(\d+) quit=(\d+) mesg=(\d+)`)

// counts is the last line of the sink's running account.
func (s *sink) counts(t *testing.T) sinkCounts {
	t.Helper()
	f, err := os.Open(s.server.output)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	tail := make([]byte, min(info.Size(), 1024))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		t.Fatal(err)
	}
	lines := sinkLine.FindAllSubmatch(tail, -1)
	if lines == nil {
		return sinkCounts{}
	}
	number := func(i int) int {
		n, _ := strconv.Atoi(string(lines[len(lines)-1][i]))
		return n
	}
	return sinkCounts{number(1), number(2), number(3)}
}

// settled is the account when the sink has read all that was sent to it, up to the end of every
// connection.
func (s *sink) settled(t *testing.T) sinkCounts {
	t.Helper()
	mustSee(t, "the sink to read to the end", func() bool {
		open := sockets(s.port)
		return open["ESTABLISHED"]+open["CLOSE_WAIT"] == 0
	})
	return s.counts(t)
}
