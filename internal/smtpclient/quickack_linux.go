package smtpclient

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quickAck returns a function to be called before a read, or nil where it would do nothing. It has the
// kernel acknowledge at once what arrives next. A peer whose socket holds back a small reply until the one
// before is acknowledged (RFC 896) would else wait for our delayed acknowledgment, 40 ms with every
// message, and what it holds back is lost when it hangs up on input that it has not read: the 421, and
// the verdicts before it. The kernel forgets the wish after a while, so that it is renewed each time.
func quickAck(nc net.Conn) func() {
	conn, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	set := func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // best effort
	}
	return func() { rc.Control(set) }
}
