package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// The words of RFC 1928 and RFC 1929.
const (
	version5    = 5
	noAuth      = 0
	userPass    = 2
	noneOfThem  = 0xff
	authVersion = 1

	connect = 1
	bind    = 2

	ipv4       = 1
	domainName = 3
	ipv6       = 4
)

// socks is the dialogue with a SOCKS5 proxy. What is read is read to the byte: the destination may speak first,
// right behind the proxy's last word.
type socks struct{ conn net.Conn }

// greet agrees on a method and, if it is that, authenticates.
func (s *socks) greet(username, password string) error {
	methods := []byte{version5, 1, noAuth}
	if username != "" {
		methods = []byte{version5, 2, noAuth, userPass}
	}
	var chosen [2]byte
	if err := s.ask(methods, chosen[:]); err != nil {
		return &Error{Step: "method", Err: err}
	}
	switch {
	case chosen[0] != version5:
		return &Error{Step: "method", Err: fmt.Errorf("the proxy speaks version %d of SOCKS", chosen[0])}
	case chosen[1] == noAuth:
		return nil
	case chosen[1] == userPass && username != "":
		return s.authenticate(username, password)
	case chosen[1] == noneOfThem:
		return &Error{Step: "method", Err: ErrAuth}
	}
	return &Error{Step: "method", Err: fmt.Errorf("the proxy chose method %d, which was not offered", chosen[1])}
}

func (s *socks) authenticate(username, password string) error {
	if len(username) > 255 || len(password) > 255 || password == "" {
		return &Error{Step: "auth", Err: errors.New("username and password need 1 to 255 octets")}
	}
	request := []byte{authVersion, byte(len(username))}
	request = append(request, username...)
	request = append(request, byte(len(password)))
	request = append(request, password...)
	var reply [2]byte
	if err := s.ask(request, reply[:]); err != nil {
		return &Error{Step: "auth", Err: err}
	}
	if reply[1] != 0 {
		return &Error{Step: "auth", Err: ErrAuth}
	}
	return nil
}

// request makes one request and returns the address in the reply; it is not valid if that is a name.
func (s *socks) request(step string, command byte, addr netip.AddrPort) (netip.AddrPort, error) {
	kind := byte(ipv4)
	if addr.Addr().Is6() {
		kind = ipv6
	}
	text := append([]byte{version5, command, 0, kind}, addr.Addr().AsSlice()...)
	text = append(text, byte(addr.Port()>>8), byte(addr.Port()))
	var head [4]byte
	if err := s.ask(text, head[:]); err != nil {
		return netip.AddrPort{}, &Error{Step: step, Err: err}
	}
	switch {
	case head[0] != version5:
		return netip.AddrPort{}, &Error{Step: step, Err: fmt.Errorf("the proxy speaks version %d of SOCKS", head[0])}
	case head[1] != 0 && command == bind:
		return netip.AddrPort{}, &Error{Step: step, Code: head[1], Err: ErrUnplumbed}
	case head[1] != 0:
		return netip.AddrPort{}, &Error{Step: step, Code: head[1], Err: ErrRefused}
	}
	bound, err := s.address(head[3])
	if err != nil {
		return netip.AddrPort{}, &Error{Step: step, Err: err}
	}
	return bound, nil
}

// address reads an address of a kind.
func (s *socks) address(kind byte) (netip.AddrPort, error) {
	var size int
	switch kind {
	case ipv4:
		size = 4
	case ipv6:
		size = 16
	case domainName:
		var n [1]byte
		if _, err := io.ReadFull(s.conn, n[:]); err != nil {
			return netip.AddrPort{}, err
		}
		size = int(n[0])
	default:
		return netip.AddrPort{}, fmt.Errorf("the proxy named an address of kind %d", kind)
	}
	text := make([]byte, size+2)
	if _, err := io.ReadFull(s.conn, text); err != nil {
		return netip.AddrPort{}, err
	}
	if kind == domainName {
		return netip.AddrPort{}, nil
	}
	ip, _ := netip.AddrFromSlice(text[:size])
	return netip.AddrPortFrom(ip.Unmap(), uint16(text[size])<<8|uint16(text[size+1])), nil
}

// ask writes a message and reads so many bytes of the answer.
func (s *socks) ask(text, answer []byte) error {
	if _, err := s.conn.Write(text); err != nil {
		return err
	}
	if _, err := io.ReadFull(s.conn, answer); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	return nil
}

// replyText is what RFC 1928 section 6 means by a code.
func replyText(code byte) string {
	texts := [...]string{1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
		5: "connection refused", 6: "TTL expired", 7: "command not supported", 8: "address type not supported"}
	if int(code) < len(texts) {
		return texts[code]
	}
	return fmt.Sprintf("reply %d", code)
}
