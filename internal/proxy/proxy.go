// Package proxy speaks to the proxies that connections go out through: the PROXY protocol, version 2, and
// SOCKS5. It knows neither mail nor names: it is given a connection to the proxy and the address beyond.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// Kind is how a proxy is spoken to.
type Kind int

const (
	// HAProxy is told source and destination in one header, and does not answer.
	HAProxy Kind = iota
	// SOCKS5 is asked to connect (RFC 1928).
	SOCKS5
)

// Via says what to tell a proxy.
type Via struct {
	Kind Kind
	// Source is the address that the proxy is to connect from. HAProxy needs it. A SOCKS5 proxy is first asked
	// to BIND it, and then on the same connection to CONNECT; without it, CONNECT is all.
	Source netip.Addr
	// Username and Password are offered to a SOCKS5 proxy besides no authentication (RFC 1929), if there is a
	// Username.
	Username, Password string
}

// Errors of a proxy, for errors.Is.
var (
	// ErrUnplumbed: the proxy cannot use Source.
	ErrUnplumbed = errors.New("the proxy cannot bind the source address")
	// ErrRefused: the proxy did not get a connection to the destination. The proxy itself is well.
	ErrRefused = errors.New("the proxy did not connect")
	// ErrAuth: the proxy wants other credentials.
	ErrAuth = errors.New("the proxy does not accept the credentials")
)

// Error says at which step a proxy failed.
type Error struct {
	// Step is "header", "method", "auth", "bind" or "connect".
	Step string
	// Code is what a SOCKS5 proxy replied (RFC 1928 section 6); 0: nothing, or nothing that was meant as a refusal.
	Code byte
	Err  error
}

func (e *Error) Error() string {
	if e.Code != 0 {
		return fmt.Sprintf("%s: %v (%s)", e.Step, e.Err, replyText(e.Code))
	}
	return fmt.Sprintf("%s: %v", e.Step, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Handshake asks the proxy at the other end of conn for a connection to dst. When it returns without an error,
// conn is that connection: nothing beyond the proxy's own words was read from it, and it has no deadline. The
// source is the address that dst sees, as far as the proxy tells; its port is 0 where only the address is known.
//
// It ends with ctx. With an error, conn is of no use any more and is the caller's to close.
func (v *Via) Handshake(ctx context.Context, conn net.Conn, dst netip.AddrPort) (source netip.AddrPort, err error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	from := v.Source.Unmap()
	if from.IsValid() && from.Is4() != dst.Addr().Is4() {
		return source, &Error{Step: "header", Err: fmt.Errorf("the source address %s is of another address family than %s", from, dst.Addr())}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = &Error{Step: "connect", Err: context.Cause(ctx)}
		}
		if ctx.Err() != nil && err != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		if err == nil {
			err = conn.SetDeadline(time.Time{})
		}
	}()
	if v.Kind == HAProxy {
		return v.header(conn, from, dst)
	}
	s := &socks{conn: conn}
	if err := s.greet(v.Username, v.Password); err != nil {
		return source, err
	}
	if from.IsValid() {
		if source, err = s.request("bind", bind, netip.AddrPortFrom(from, 0)); err != nil {
			return source, err
		}
	}
	bound, err := s.request("connect", connect, dst)
	switch {
	case err != nil:
		return source, err
	case from.IsValid() && !bound.Addr().IsValid(), from.IsValid() && bound.Addr().IsUnspecified():
		return netip.AddrPortFrom(from, 0), nil
	}
	return bound, nil
}

// header sends the PROXY header.
func (v *Via) header(conn net.Conn, from netip.Addr, dst netip.AddrPort) (netip.AddrPort, error) {
	if !from.IsValid() {
		return netip.AddrPort{}, &Error{Step: "header", Err: errors.New("there is no source address")}
	}
	source := netip.AddrPortFrom(from, 0)
	text, err := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(dst)).Format()
	if err != nil {
		return source, &Error{Step: "header", Err: err}
	}
	if _, err := conn.Write(text); err != nil {
		return source, &Error{Step: "header", Err: err}
	}
	return source, nil
}
