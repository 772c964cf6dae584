package egress

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLateBind: after the bind the port is still open, and the connection comes from the address.
func TestLateBind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	late := 0
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Control: func(network, address string, c syscall.RawConn) error {
		err := LateBind(network, address, c)
		c.Control(func(fd uintptr) { late, _ = unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT) })
		return err
	}}
	conn, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if late != 1 {
		t.Errorf("the option is %d", late)
	}
	if from := conn.LocalAddr().(*net.TCPAddr); !from.IP.Equal(net.IPv4(127, 0, 0, 1)) || from.Port == 0 {
		t.Errorf("connected from %v", from)
	}
}
