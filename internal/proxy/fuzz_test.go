package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// A proxy may say anything. The handshake succeeds exactly when the proxy's bytes begin with a dialogue
// that succeeds, and then it has left all behind that to the destination, and has asked for all that it
// should; else its error says where it failed.
func FuzzSOCKS(f *testing.F) {
	said := func(replies ...string) (b []byte) {
		for _, r := range replies {
			b = append(b, unhex(f, r)...)
		}
		return append(b, "220 mx.example\r\n"...)
	}
	f.Add(said("05 00", connect4.reply), false, false)
	f.Add(said("05 00", connect6.reply), false, false)
	f.Add(said("05 00", bind4.reply, connect4.reply), false, true)
	f.Add(said("05 02", "01 00", bind4.reply, connect4.reply), true, true)
	f.Add(said("05 00", "05 00 00 03 02 6d78 0019", connect4.reply), true, true)
	f.Add(said("05 00", "05 00 00 03 00 0019"), true, false)
	f.Add(said("05 02", "01 01"), true, false)
	f.Add(said("05 ff"), false, true)
	f.Add(said("05 00", bind6.reply, connect4.reply), false, true)
	f.Add(said("05 00", bind4.reply, connect6.reply), false, true)
	f.Add(said("05 00", bind4.reply, "05 00 00 04 00000000000000000000ffffc0000201 9c40"), false, true)
	f.Add(said("05 00", bind4.reply, "05 00 00 01 00000000 0000"), false, true)
	f.Add(said("05 00", "05 05 00 01 00000000 0000"), false, false)
	f.Add(said("05 00", "05 00 00 02 c0000201 9c40"), false, false)
	f.Add(said("04 00"), false, false)
	f.Add([]byte{}, true, true)
	f.Fuzz(func(t *testing.T, said []byte, password, bind bool) {
		via := Via{Kind: SOCKS5}
		if password {
			via.Username, via.Password = "user", "secret"
		}
		if bind {
			via.Source = src4
		}
		client, server := smtptest.Pipe()
		server.Write(said[:min(len(said), 64<<10)])
		server.(*smtptest.PipeConn).CloseWrite()
		source, err := via.Handshake(t.Context(), client, dst4)

		rest, asked, succeeds := heard(t, said[:min(len(said), 64<<10)], password, bind)
		if succeeds != (err == nil) {
			t.Fatalf("error %v, want success: %t", err, succeeds)
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Step == "" || e.Err == nil || source != (netip.AddrPort{}) {
				t.Fatalf("%v, error %#v", source, err)
			}
			return
		}
		if left, err := io.ReadAll(client); err != nil || !bytes.Equal(left, rest) {
			t.Fatalf("left %q, %v; want %q", left, err, rest)
		}
		client.Close()
		if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, asked) {
			t.Fatalf("asked %x, %v; want %x", got, err, asked)
		}
	})
}

// heard is what the handshake should make of a proxy's bytes: what it leaves of them, and what it asks,
// if they succeed.
func heard(t *testing.T, b []byte, password, bind bool) (rest, asked []byte, succeeds bool) {
	ask := func(turns ...turn) {
		for _, turn := range turns {
			asked = append(asked, unhex(t, turn.want)...)
		}
	}
	switch {
	case !password && bytes.HasPrefix(b, []byte{5, 0}):
		b = b[2:]
		ask(offerNone)
	case password && bytes.HasPrefix(b, []byte{5, 0}):
		b = b[2:]
		ask(offerBoth)
	case password && bytes.HasPrefix(b, []byte{5, 2, 1, 0}):
		b = b[4:]
		ask(offerPassword, logIn)
	default:
		return nil, nil, false
	}
	requests := []turn{connect4}
	if bind {
		requests = []turn{bind4, connect4}
	}
	for _, request := range requests {
		ask(request)
		size := 0
		switch {
		case bytes.HasPrefix(b, []byte{5, 0, 0, 1}):
			size = 10
		case bytes.HasPrefix(b, []byte{5, 0, 0, 4}):
			size = 22
		case bytes.HasPrefix(b, []byte{5, 0, 0, 3}) && len(b) > 4:
			size = 7 + int(b[4])
		}
		if size == 0 || len(b) < size {
			return nil, nil, false
		}
		if bind && !admits(b[:size]) {
			return nil, nil, false
		}
		b = b[size:]
	}
	return b, asked, true
}

// admits says whether a reply leaves it possible that the source is src4.
func admits(reply []byte) bool {
	address := reply[4 : len(reply)-2]
	mapped := src4.As16()
	return reply[3] == 3 || bytes.Equal(address, make([]byte, len(address))) ||
		bytes.Equal(address, src4.AsSlice()) || bytes.Equal(address, mapped[:]) || bytes.Equal(address, unspecifiedMapped)
}

// unspecifiedMapped is ::ffff:0.0.0.0.
var unspecifiedMapped = []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}
