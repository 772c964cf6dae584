package delivery

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"
)

// gateway is a proxy that connects on. It speaks SOCKS5, with CONNECT alone or after BIND on the same
// connection, or hears the PROXY protocol.
type gateway struct {
	headers            bool   // the PROXY protocol
	username, password string // of whom offers credentials
	strict             bool   // nobody is let in without
	refuse             byte   // the reply to CONNECT; 0: what becomes of it
	mute               bool   // there is no reply to CONNECT
	untold             bool   // the reply to CONNECT does not tell the address
	dial               func(from netip.Addr, to string) (net.Conn, error)

	mu      sync.Mutex
	told    []string // what it was asked: "auth", "BIND 127.0.0.1:0", "CONNECT 127.0.0.1:25", "PROXY 127.0.0.1:0 127.0.0.1:25"
	local   []string // the addresses that its connections come from
	open    []io.Closer
	closed  bool
	serving sync.WaitGroup
}

// listen serves on loopback until the test ends.
func (g *gateway) listen(t *testing.T) string {
	t.Helper()
	g.dial = func(from netip.Addr, to string) (net.Conn, error) {
		var d net.Dialer
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		return d.Dial("tcp", to)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); g.close() })
	g.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.serve(conn)
		}
	})
	return l.Addr().String()
}

// serve serves a connection. It returns at once.
func (g *gateway) serve(conn net.Conn) {
	if g.keep(conn) {
		g.serving.Go(func() {
			defer conn.Close()
			g.pass(conn)
		})
	}
}

// keep has a connection closed in the end, or now.
func (g *gateway) keep(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		conn.Close()
		return false
	}
	g.open = append(g.open, conn)
	return true
}

func (g *gateway) close() {
	g.mu.Lock()
	g.closed = true
	for _, c := range g.open {
		c.Close()
	}
	g.mu.Unlock()
	g.serving.Wait()
}

func (g *gateway) note(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, fmt.Sprintf(format, args...))
}

// heard is all that it was asked.
func (g *gateway) heard() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.told, ", ")
}

// lastFrom is where its last connection comes from.
func (g *gateway) lastFrom() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.local) == 0 {
		return "nowhere"
	}
	return g.local[len(g.local)-1]
}

// pass has the dialogue and then passes on what both sides say.
func (g *gateway) pass(conn net.Conn) {
	r := bufio.NewReader(conn)
	var onward net.Conn
	if g.headers {
		onward = g.header(r)
	} else if g.admit(conn, r) {
		onward = g.requests(conn, r)
	}
	if onward == nil || !g.keep(onward) {
		return
	}
	g.serving.Go(func() {
		defer conn.Close()
		io.Copy(conn, onward)
	})
	defer onward.Close()
	io.Copy(onward, r)
}

func (g *gateway) connect(from netip.Addr, to string) (net.Conn, error) {
	onward, err := g.dial(from, to)
	if err == nil {
		g.mu.Lock()
		g.local = append(g.local, onward.LocalAddr().String())
		g.mu.Unlock()
	}
	return onward, err
}

// header reads the header and connects; where it cannot, it can only hang up.
func (g *gateway) header(r *bufio.Reader) net.Conn {
	h, err := proxyproto.Read(r)
	if err != nil {
		g.note("no header: %v", err)
		return nil
	}
	g.note("PROXY %s %s", h.SourceAddr, h.DestinationAddr)
	onward, err := g.connect(h.SourceAddr.(*net.TCPAddr).AddrPort().Addr(), h.DestinationAddr.String())
	if err != nil {
		return nil
	}
	return onward
}

// admit has the part of the SOCKS5 dialogue that is about credentials.
func (g *gateway) admit(conn net.Conn, r *bufio.Reader) bool {
	read := func(n int) []byte { b := make([]byte, n); io.ReadFull(r, b); return b }
	methods := read(int(read(2)[1]))
	switch {
	case g.username != "" && bytes.IndexByte(methods, 2) >= 0:
		conn.Write([]byte{5, 2})
		username := read(int(read(2)[1]))
		password := read(int(read(1)[0]))
		g.note("auth")
		if string(username) != g.username || string(password) != g.password {
			conn.Write([]byte{1, 1})
			return false
		}
		conn.Write([]byte{1, 0})
	case g.strict:
		conn.Write([]byte{5, 0xff})
		return false
	default:
		conn.Write([]byte{5, 0})
	}
	return true
}

// requests answers BIND and CONNECT, and returns the connection onward.
func (g *gateway) requests(conn net.Conn, r *bufio.Reader) net.Conn {
	reply := func(code byte, bound netip.AddrPort) {
		text := append([]byte{5, code, 0, 1}, bound.Addr().AsSlice()...)
		if bound.Addr().Is6() {
			text[3] = 4
		}
		conn.Write(append(text, byte(bound.Port()>>8), byte(bound.Port())))
	}
	nothing := netip.MustParseAddrPort("0.0.0.0:0")
	var from netip.Addr
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil
		}
		rest := make([]byte, map[byte]int{1: 4, 4: 16}[head[3]]+2)
		if _, err := io.ReadFull(r, rest); err != nil {
			return nil
		}
		ip, _ := netip.AddrFromSlice(rest[:len(rest)-2])
		to := netip.AddrPortFrom(ip, uint16(rest[len(rest)-2])<<8|uint16(rest[len(rest)-1]))
		if head[1] == 2 {
			g.note("BIND %s", to)
			l, err := net.Listen("tcp", to.String())
			if err != nil {
				reply(1, nothing)
				return nil
			}
			l.Close()
			from = ip
			reply(0, to)
			continue
		}
		g.note("CONNECT %s", to)
		switch {
		case g.mute:
			io.Copy(io.Discard, r)
			return nil
		case g.refuse != 0:
			reply(g.refuse, nothing)
			return nil
		}
		onward, err := g.connect(from, to.String())
		if err != nil {
			reply(5, nothing)
			return nil
		}
		bound := nothing
		if a, err := netip.ParseAddrPort(onward.LocalAddr().String()); err == nil && !g.untold {
			bound = a
		}
		reply(0, bound)
		return onward
	}
}

// ours is an address of this machine that nobody would take by himself.
func ours() string {
	if runtime.GOOS == "linux" {
		return "127.0.0.2"
	}
	return "127.0.0.1"
}
