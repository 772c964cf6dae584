// Package proxy speaks to the proxies that connections go out through: it tells the one at the other end
// of an open connection where to connect to and from which address, by a PROXY protocol header (version 2)
// or in the SOCKS5 dialogue. It does not dial and knows nothing of what is said afterwards.
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

// Kind is what a proxy understands.
type Kind int

const (
	// HAProxy takes a PROXY protocol header of version 2 in front of the data and never answers it.
	// A destination that cannot be reached shows as a connection that closes or stays silent.
	HAProxy Kind = iota + 1
	// SOCKS5 is RFC 1928.
	SOCKS5
)

// Via is how to go through a proxy. It may be used by many goroutines at once.
type Via struct {
	Kind Kind

	// Source is the address that the proxy is to connect from. HAProxy needs one. With SOCKS5 the zero
	// Addr is a plain CONNECT, and the proxy chooses. Any other is asked for with BIND, to which CONNECT
	// follows on the same connection: RFC 1928 does not know this order, and a proxy must be made for it.
	// The handshake with another fails, or lasts as long as its context.
	Source netip.Addr

	// Username and Password are for SOCKS5 (RFC 1929), of at most 255 bytes each. They are offered
	// besides no authentication if Username is set, and sent in clear if the proxy chooses them.
	Username, Password string
}

var (
	// ErrUnplumbed: the proxy refused to bind the source address, or says that it took another. It has no
	// such address, or does not know this use of BIND.
	ErrUnplumbed = errors.New("the proxy did not bind the source address")
	// ErrRefused: the proxy refused to connect to the destination, or failed. [Error.Code] says more.
	ErrRefused = errors.New("the proxy did not connect to the destination")
	// ErrAuth: the proxy did not accept the user name and password, or none of the methods offered.
	ErrAuth = errors.New("the proxy did not authenticate us")
	// ErrFamily: the source and the destination are not of one address family, or one is of neither.
	// Nothing was sent.
	ErrFamily = errors.New("the addresses of source and destination do not fit")
)

// Error says at which step a handshake failed.
type Error struct {
	// Step is "header" with HAProxy; with SOCKS5 "method" (the choice of authentication), "auth", "bind"
	// or "connect"; empty where Kind is neither.
	Step string
	// Code is that of the reply that refused: RFC 1928 section 6, at the step "auth" the status of
	// RFC 1929. It is 0 where no reply did.
	Code byte
	// Err is the cause: one of the errors of this package, that of the connection, or the cause of the
	// context where that ended. It is never nil.
	Err error
}

func (e *Error) Error() string {
	switch e.Step {
	case "":
		return e.Err.Error()
	case stepHeader:
		return "PROXY header: " + e.Err.Error()
	}
	return "SOCKS5 " + e.Step + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

const (
	stepHeader  = "header"
	stepMethod  = "method"
	stepAuth    = "auth"
	stepBind    = "bind"
	stepConnect = "connect"
)

// Handshake asks the proxy at the other end of conn to connect to dst, and returns when what is written
// goes there: at once with HAProxy, after the proxy has connected with SOCKS5. It returns the address that
// dst sees, as far as known: with HAProxy Source and port 0; with SOCKS5 what the proxy says it connected
// from, and where it does not say Source and port 0.
//
// It ends when ctx ends, with ctx's cause, and has no other time limit. It reads nothing beyond the
// proxy's last reply, clears the deadlines of conn, and leaves closing conn to the caller. The error is of
// type *Error.
func (v *Via) Handshake(ctx context.Context, conn net.Conn, dst netip.AddrPort) (source netip.AddrPort, err error) {
	h := handshake{
		via:    v,
		conn:   conn,
		source: v.Source.Unmap(),
		dst:    netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()),
	}
	if source, err = h.run(ctx); err != nil {
		return netip.AddrPort{}, &Error{Step: h.step, Code: h.code, Err: err}
	}
	return source, nil
}

// handshake is one that is under way.
type handshake struct {
	via    *Via
	conn   net.Conn
	source netip.Addr
	dst    netip.AddrPort
	step   string
	code   byte // of the reply that refused
}

func (h *handshake) run(ctx context.Context) (netip.AddrPort, error) {
	speak := h.header
	switch h.via.Kind {
	case HAProxy:
		h.step = stepHeader
	case SOCKS5:
		h.step, speak = stepMethod, h.socks
	default:
		return netip.AddrPort{}, fmt.Errorf("no kind of proxy has number %d", h.via.Kind)
	}
	if err := h.check(); err != nil {
		return netip.AddrPort{}, err
	}
	release, err := limit(ctx, h.conn)
	if err != nil {
		return netip.AddrPort{}, err
	}
	source, err := speak()
	if ended := release(); ended != nil {
		h.code = 0
		return netip.AddrPort{}, ended
	}
	return source, err
}

// check refuses what cannot be asked of the proxy, before anything is sent to it.
func (h *handshake) check() error {
	src, dst := h.source, h.dst.Addr()
	plain := h.via.Kind == SOCKS5 && !src.IsValid()
	switch {
	case !dst.IsValid(), !plain && src.BitLen() != dst.BitLen():
		return fmt.Errorf("%w: %s to %s", ErrFamily, src, h.dst)
	case src.Zone() != "" || dst.Zone() != "":
		return fmt.Errorf("from %s to %s: a proxy cannot be told a zone", src, h.dst)
	case h.via.Kind == SOCKS5:
		return h.via.checkCredentials()
	}
	return nil
}

// limit makes what waits on conn fail when ctx ends. Release undoes it, and returns the cause of ctx if
// that has ended.
func limit(ctx context.Context, conn net.Conn) (release func() error, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("the connection takes no deadline: %w", err)
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(cut)
	})
	return func() error {
		if stop() {
			return nil
		}
		<-cut
		conn.SetDeadline(time.Time{})
		return context.Cause(ctx)
	}, nil
}

// header sends the header of the PROXY protocol (version 2, section 2.2). The proxy chooses the source's
// port.
func (h *handshake) header() (netip.AddrPort, error) {
	source := netip.AddrPortFrom(h.source, 0)
	header := proxyproto.Header{
		Version:           2,
		Command:           proxyproto.PROXY,
		TransportProtocol: proxyproto.TCPv4,
		SourceAddr:        net.TCPAddrFromAddrPort(source),
		DestinationAddr:   net.TCPAddrFromAddrPort(h.dst),
	}
	if h.source.Is6() {
		header.TransportProtocol = proxyproto.TCPv6
	}
	b, err := header.Format()
	if err != nil {
		return netip.AddrPort{}, err
	}
	_, err = h.conn.Write(b)
	return source, err
}
