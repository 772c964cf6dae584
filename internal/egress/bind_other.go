//go:build !linux

package egress

import "syscall"

// LateBind is a control function for net.Dialer. It does nothing here: on Linux it has the port of a source
// address chosen when it connects.
func LateBind(_, _ string, _ syscall.RawConn) error { return nil }
