package egress

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// LateBind is a control function for net.Dialer: the port of a source address is chosen when it connects, and
// not when it is bound. Bound early, an address has as many connections as it has ports; late, as many to
// each destination.
func LateBind(_, _ string, conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) {
		// Kernels before 4.2 do not know it, and do without.
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
