package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

var (
	dst4 = netip.MustParseAddrPort("198.51.100.7:25")
	dst6 = netip.MustParseAddrPort("[2001:db8::7]:25")
	src4 = netip.MustParseAddr("192.0.2.1")
	src6 = netip.MustParseAddr("2001:db8::1")
)

// The header as section 2.2 of the PROXY protocol's text lays it out.
const (
	signature = "0d0a0d0a000d0a515549540a"
	header4   = signature + "21" + "11" + "000c" + "c0000201" + "c6336407" + "0000" + "0019"
	header6   = signature + "21" + "21" + "0024" +
		"20010db8000000000000000000000001" + "20010db8000000000000000000000007" + "0000" + "0019"
)

func TestHeader(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source netip.Addr
		dst    netip.AddrPort
		want   string
	}{
		{"IPv4", src4, dst4, header4},
		{"IPv6", src6, dst6, header6},
		{"IPv4 in IPv6", netip.AddrFrom16(src4.As16()), netip.AddrPortFrom(netip.AddrFrom16(dst4.Addr().As16()), 25), header4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := smtptest.Pipe()
			via := Via{Kind: HAProxy, Source: tt.source}
			source, err := via.Handshake(t.Context(), client, tt.dst)
			if want := netip.AddrPortFrom(tt.source.Unmap(), 0); err != nil || source != want {
				t.Fatalf("Handshake: %v, %v; want %v", source, err, want)
			}
			client.Close()
			sent, err := io.ReadAll(server)
			if got := hex.EncodeToString(sent); err != nil || got != tt.want {
				t.Fatalf("sent %s, %v\nwant %s", got, err, tt.want)
			}
			header, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(sent)))
			if err != nil {
				t.Fatal(err)
			}
			from, to, ok := header.TCPAddrs()
			if !ok || header.Command != proxyproto.PROXY || from.AddrPort() != source || to.AddrPort().Addr().Unmap() != tt.dst.Addr().Unmap() || to.Port != 25 {
				t.Errorf("read back: %+v", header)
			}
		})
	}
}

// A header has no answer: what the destination says is there, untouched, and no deadline is left.
func TestHeaderLeavesConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := smtptest.Pipe()
		defer server.Close()
		defer client.Close()
		io.WriteString(server, "220 mx\r\n")
		client.SetDeadline(time.Now().Add(time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		via := Via{Kind: HAProxy, Source: src4}
		if _, err := via.Handshake(ctx, client, dst4); err != nil {
			t.Fatal(err)
		}
		mustTalk(t, client, server, "220 mx\r\n")
	})
}

// mustTalk checks, an hour later, that client reads what was said, and that the two can go on talking.
func mustTalk(t *testing.T, client, server net.Conn, said string) {
	t.Helper()
	time.Sleep(time.Hour)
	got := make([]byte, len(said))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != said {
		t.Fatalf("the destination's first words: %q, %v; want %q", got, err, said)
	}
	io.WriteString(server, "more")
	if _, err := io.ReadFull(client, got[:4]); err != nil || string(got[:4]) != "more" {
		t.Fatalf("read %q, %v", got[:4], err)
	}
	if _, err := io.WriteString(client, "QUIT\r\n"); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// A proxy that takes nothing, too little for a header even, does not hold a handshake longer than its
// context lasts.
func TestHeaderBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := smtptest.Link{Buffer: 10}.Pipe()
		defer server.Close()
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		via := Via{Kind: HAProxy, Source: src4}
		_, err := via.Handshake(ctx, client, dst4)
		mustFail(t, err, stepHeader, 0, context.DeadlineExceeded)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

// mustFail checks a handshake's error.
func mustFail(t *testing.T, err error, step string, code byte, cause error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want an *Error", err, err)
	}
	if e.Step != step || e.Code != code || e.Err == nil || cause != nil && !errors.Is(err, cause) {
		t.Fatalf("error %q: step %q, code %d; want step %q, code %d, %v", err, e.Step, e.Code, step, code, cause)
	}
	for _, sentinel := range []error{ErrUnplumbed, ErrRefused, ErrAuth, ErrFamily} {
		if errors.Is(err, sentinel) && sentinel != cause {
			t.Fatalf("error %q is also %q", err, sentinel)
		}
	}
}

// What cannot be asked for is refused before the proxy hears anything.
func TestNothingSent(t *testing.T) {
	long := strings.Repeat("x", 256)
	gone, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the host shuts down")
	cancel(reason)
	for _, tt := range []struct {
		name string
		ctx  context.Context
		via  Via
		dst  netip.AddrPort
		step string
		want error
	}{
		{"HAProxy without source", t.Context(), Via{Kind: HAProxy}, dst4, stepHeader, ErrFamily},
		{"HAProxy, IPv4 to IPv6", t.Context(), Via{Kind: HAProxy, Source: src4}, dst6, stepHeader, ErrFamily},
		{"HAProxy, IPv6 to IPv4", t.Context(), Via{Kind: HAProxy, Source: src6}, dst4, stepHeader, ErrFamily},
		{"HAProxy, nowhere", t.Context(), Via{Kind: HAProxy, Source: src4}, netip.AddrPort{}, stepHeader, ErrFamily},
		{"SOCKS5, IPv4 to IPv6", t.Context(), Via{Kind: SOCKS5, Source: src4}, dst6, stepMethod, ErrFamily},
		{"SOCKS5, IPv6 to IPv4", t.Context(), Via{Kind: SOCKS5, Source: src6}, dst4, stepMethod, ErrFamily},
		{"SOCKS5, nowhere", t.Context(), Via{Kind: SOCKS5}, netip.AddrPort{}, stepMethod, ErrFamily},
		{"zone of the source", t.Context(), Via{Kind: HAProxy, Source: netip.MustParseAddr("fe80::1%eth0")}, dst6, stepHeader, nil},
		{"zone of the destination", t.Context(), Via{Kind: SOCKS5}, netip.MustParseAddrPort("[fe80::1%eth0]:25"), stepMethod, nil},
		{"long user name", t.Context(), Via{Kind: SOCKS5, Username: long}, dst4, stepMethod, nil},
		{"long password", t.Context(), Via{Kind: SOCKS5, Username: "user", Password: long}, dst4, stepMethod, nil},
		{"no kind", t.Context(), Via{Source: src4}, dst4, "", nil},
		{"unknown kind", t.Context(), Via{Kind: 3, Source: src4}, dst4, "", nil},
		{"ended context, HAProxy", gone, Via{Kind: HAProxy, Source: src4}, dst4, stepHeader, reason},
		{"ended context, SOCKS5", gone, Via{Kind: SOCKS5}, dst4, stepMethod, reason},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := smtptest.Pipe()
			_, err := tt.via.Handshake(tt.ctx, client, tt.dst)
			mustFail(t, err, tt.step, 0, tt.want)
			client.Close()
			if sent, err := io.ReadAll(server); err != nil || len(sent) > 0 {
				t.Errorf("the proxy got %q, %v", sent, err)
			}
		})
	}
}

// noDeadlines is a connection whose waits cannot be bounded.
type noDeadlines struct{ net.Conn }

var errNoDeadline = errors.New("no deadlines here")

func (noDeadlines) SetDeadline(time.Time) error { return errNoDeadline }

func TestConnectionWithoutDeadlines(t *testing.T) {
	client, _ := smtptest.Pipe()
	via := Via{Kind: SOCKS5}
	_, err := via.Handshake(t.Context(), noDeadlines{client}, dst4)
	mustFail(t, err, stepMethod, 0, errNoDeadline)
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  Error
		want string
	}{
		{Error{Step: stepHeader, Err: io.EOF}, "PROXY header: EOF"},
		{Error{Step: stepConnect, Err: io.EOF}, "SOCKS5 connect: EOF"},
		{Error{Err: io.EOF}, "EOF"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
