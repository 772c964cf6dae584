//go:build interop && linux

package interop

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// freePort finds a port for a server that cannot be asked which one it took. It is below the range
// from which the system takes ports for connections, so that only another server could take it, and it is
// found once only. That matters because Postfix binds with SO_REUSEPORT: two servers on one port would
// share its connections and not complain.
func freePort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(12000)
		if _, known := found.LoadOrStore(port, true); known {
			continue
		}
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port)) // on every address
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port between 20000 and 32000")
}

// found are the ports that freePort has found.
var found sync.Map

// mustFreePort is freePort for tests.
func mustFreePort(t *testing.T) int {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// socketStates are the states of /proc/net/tcp that matter here.
var socketStates = map[string]string{"01": "ESTABLISHED", "08": "CLOSE_WAIT", "0A": "LISTEN"}

// sockets counts the TCP sockets of a local port by their state.
func sockets(port int) map[string]int {
	counts := map[string]int{}
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return counts
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 3 && strings.HasSuffix(fields[1], suffix) {
			counts[socketStates[fields[3]]]++
		}
	}
	return counts
}
