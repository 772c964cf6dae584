//go:build unix

package smtpclient

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketPeeker looks at a socket. A read with a deadline would not do: with one in the past it fails even
// when data is there. What a look needs is made once, for there is one before each message sent with
// DATA.
type socketPeeker struct {
	conn syscall.RawConn
	look func(fd uintptr)
	buf  []byte
	n    int
	err  error
}

// newSocketPeeker returns nil for a connection that is no socket.
func newSocketPeeker(nc net.Conn) *socketPeeker {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	p := &socketPeeker{conn: rc}
	p.look = func(fd uintptr) {
		p.n, _, p.err = unix.Recvfrom(int(fd), p.buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}
	return p
}

func (p *socketPeeker) Peek(buf []byte) (int, error) {
	p.buf = buf
	if err := p.conn.Control(p.look); err != nil {
		return 0, err
	}
	switch n, err := p.n, p.err; {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		return 0, nil
	case errors.Is(err, unix.ENOTSOCK):
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}
