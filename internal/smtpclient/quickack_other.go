//go:build !linux

package smtpclient

import "net"

// quickAck does nothing where the system has no such option.
func quickAck(net.Conn) func() { return nil }
