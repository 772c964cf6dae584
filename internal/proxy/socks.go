package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// Of RFC 1928 and, for authVersion, RFC 1929.
const (
	socksVersion = 5
	authVersion  = 1

	methodNone     = 0x00
	methodPassword = 0x02
	methodNoneFits = 0xff

	commandConnect = 1
	commandBind    = 2

	addressIPv4   = 1
	addressDomain = 3
	addressIPv6   = 4

	succeeded = 0
)

// socks holds the SOCKS5 dialogue. Each request waits for the reply to the one before: a proxy may refuse
// to read ahead.
func (h *handshake) socks() (netip.AddrPort, error) {
	if err := h.authenticate(); err != nil {
		return netip.AddrPort{}, err
	}
	if h.source.IsValid() {
		h.step = stepBind
		bound, err := h.request(commandBind, netip.AddrPortFrom(h.source, 0), ErrUnplumbed)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if err := h.confirm(bound); err != nil {
			return netip.AddrPort{}, err
		}
	}
	h.step = stepConnect
	bound, err := h.request(commandConnect, h.dst, ErrRefused)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !known(bound) {
		return netip.AddrPortFrom(h.source, 0), nil
	}
	return bound, h.confirm(bound)
}

// confirm refuses a bound address that is not the source asked for. It is more than the wrong way out: a
// server that takes BIND as RFC 1928 means it waits for a connection, and its second reply, which we would
// take for the one to CONNECT, says that some stranger has come.
func (h *handshake) confirm(bound netip.AddrPort) error {
	if !h.source.IsValid() || h.source.IsUnspecified() || !known(bound) || bound.Addr() == h.source {
		return nil
	}
	return fmt.Errorf("%w %s, but %s", ErrUnplumbed, h.source, bound.Addr())
}

// known says whether a reply's address tells anything: some proxies keep it to themselves.
func known(bound netip.AddrPort) bool { return bound.IsValid() && !bound.Addr().IsUnspecified() }

// authenticate agrees on a method (RFC 1928 section 3) and follows it.
func (h *handshake) authenticate() error {
	offer := []byte{socksVersion, 1, methodNone}
	if h.via.Username != "" {
		offer = []byte{socksVersion, 2, methodNone, methodPassword}
	}
	if _, err := h.conn.Write(offer); err != nil {
		return err
	}
	choice, err := h.answer(socksVersion)
	switch {
	case err != nil:
		return err
	case choice == methodNone:
		return nil
	case choice == methodPassword && h.via.Username != "":
		return h.logIn()
	case choice == methodNoneFits && h.via.Username == "":
		return fmt.Errorf("%w: it wants authentication, and there is no user name", ErrAuth)
	case choice == methodNoneFits:
		return fmt.Errorf("%w: it takes neither a user name nor a client without one", ErrAuth)
	}
	return fmt.Errorf("%w: it chose method %#02x, which was not offered", ErrAuth, choice)
}

// logIn sends user name and password (RFC 1929 section 2).
func (h *handshake) logIn() error {
	h.step = stepAuth
	name, password := h.via.Username, h.via.Password
	b := append([]byte{authVersion, byte(len(name))}, name...)
	b = append(append(b, byte(len(password))), password...)
	if _, err := h.conn.Write(b); err != nil {
		return err
	}
	status, err := h.answer(authVersion)
	if err != nil {
		return err
	}
	if status != succeeded {
		h.code = status
		return fmt.Errorf("%w: wrong user name or password (status %d)", ErrAuth, status)
	}
	return nil
}

// checkCredentials refuses what has no room in RFC 1929's fields.
func (v *Via) checkCredentials() error {
	const most = 255
	if len(v.Username) > most || len(v.Password) > most {
		return fmt.Errorf("user name or password is longer than %d bytes", most)
	}
	return nil
}

// request asks for a command and reads the reply, with the address in it (RFC 1928 sections 4 and 6);
// refusal is the error for any but success.
func (h *handshake) request(command byte, address netip.AddrPort, refusal error) (netip.AddrPort, error) {
	b := []byte{socksVersion, command, 0, addressIPv4}
	if address.Addr().Is6() {
		b[3] = addressIPv6
	}
	b = binary.BigEndian.AppendUint16(append(b, address.Addr().AsSlice()...), address.Port())
	if _, err := h.conn.Write(b); err != nil {
		return netip.AddrPort{}, err
	}
	code, err := h.answer(socksVersion)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if code != succeeded {
		// What else is in the reply means nothing, and may never come.
		h.code = code
		return netip.AddrPort{}, fmt.Errorf("%w %s: %s", refusal, wanted(command, address), codeText(code))
	}
	return h.boundAddress()
}

// wanted is what a request is about: a source has no port yet.
func wanted(command byte, address netip.AddrPort) string {
	if command == commandBind {
		return address.Addr().String()
	}
	return address.String()
}

// answer reads what every reply begins with: a version, and a byte that decides.
func (h *handshake) answer(version byte) (byte, error) {
	var b [2]byte
	if err := h.read(b[:]); err != nil {
		return 0, err
	}
	if b[0] != version {
		return 0, fmt.Errorf("the proxy answered with version %d instead of %d", b[0], version)
	}
	return b[1], nil
}

// boundAddress reads the rest of a reply. The address is not valid if it is a domain name, whose meaning
// RFC 1928 leaves to the proxy.
func (h *handshake) boundAddress() (netip.AddrPort, error) {
	var b [255 + 2]byte // of the longest address, which is a name, and the port
	if err := h.read(b[:2]); err != nil {
		return netip.AddrPort{}, err
	}
	reserved, kind := b[0], b[1]
	if reserved != 0 {
		return netip.AddrPort{}, fmt.Errorf("the proxy's reply has %#02x where zero belongs", reserved)
	}
	var length int
	switch kind {
	case addressIPv4:
		length = 4
	case addressIPv6:
		length = 16
	case addressDomain:
		if err := h.read(b[:1]); err != nil {
			return netip.AddrPort{}, err
		}
		length = int(b[0])
	default:
		return netip.AddrPort{}, fmt.Errorf("the proxy's reply has an address of unknown type %#02x", kind)
	}
	if err := h.read(b[:length+2]); err != nil {
		return netip.AddrPort{}, err
	}
	if kind == addressDomain {
		return netip.AddrPort{}, nil
	}
	address, _ := netip.AddrFromSlice(b[:length])
	return netip.AddrPortFrom(address.Unmap(), binary.BigEndian.Uint16(b[length:])), nil
}

// read fills b, and reads not one byte more: behind the last reply the destination may already have
// spoken.
func (h *handshake) read(b []byte) error {
	_, err := io.ReadFull(h.conn, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the proxy hung up: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// codeText says what a reply code means (RFC 1928 section 6).
func codeText(code byte) string {
	texts := [...]string{
		1: "general failure",
		2: "not allowed by its rules",
		3: "network unreachable",
		4: "host unreachable",
		5: "connection refused",
		6: "TTL expired",
		7: "command not supported",
		8: "address type not supported",
	}
	if int(code) < len(texts) {
		return fmt.Sprintf("%s (code %d)", texts[code], code)
	}
	return fmt.Sprintf("code %d", code)
}
