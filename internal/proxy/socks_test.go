package proxy

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// turn is what the proxy must get next, and what it answers; both in hexadecimal.
type turn struct{ want, reply string }

// The turns that the dialogues below are made of.
var (
	offerNone     = turn{"05 01 00", "05 00"}
	offerBoth     = turn{"05 02 00 02", "05 00"}
	offerPassword = turn{"05 02 00 02", "05 02"}
	logIn         = turn{"01 04 75736572 06 736563726574", "01 00"} // user, secret
	bind4         = turn{"05 02 00 01 c0000201 0000", "05 00 00 01 c0000201 9c40"}
	bind6         = turn{"05 02 00 04 20010db8000000000000000000000001 0000", "05 00 00 04 20010db8000000000000000000000001 9c40"}
	connect4      = turn{"05 01 00 01 c6336407 0019", "05 00 00 01 c0000201 9c40"}
	connect6      = turn{"05 01 00 04 20010db8000000000000000000000007 0019", "05 00 00 04 20010db8000000000000000000000001 9c40"}
)

func (t turn) answered(reply string) turn { return turn{t.want, reply} }
func (t turn) with(want string) turn      { return turn{want, t.reply} }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// proxyThat has a proxy play its turns at the other end of the returned connection, and then say what the
// destination says, in one write with its last reply. Then it leaves the connection open, and all of it
// to the test.
func proxyThat(t *testing.T, turns []turn, then string) (client, server net.Conn) {
	t.Helper()
	client, server = smtptest.Pipe()
	done := make(chan struct{})
	t.Cleanup(func() {
		client.Close()
		<-done
		server.Close()
	})
	go func() {
		defer close(done)
		for i, turn := range turns {
			want := unhex(t, turn.want)
			got := make([]byte, len(want))
			n, err := io.ReadFull(server, got)
			if err == io.EOF { // the client gave up
				return
			}
			if err != nil || string(got) != string(want) {
				t.Errorf("turn %d: the proxy got %x, %v; want %x", i, got[:n], err, want)
				return
			}
			if n, _ := server.(*smtptest.PipeConn).Peek(make([]byte, 1)); n > 0 {
				t.Errorf("turn %d: the client does not wait for the reply", i)
			}
			reply := unhex(t, turn.reply)
			if i == len(turns)-1 {
				reply = append(reply, then...)
			}
			server.Write(reply)
		}
	}()
	return client, server
}

func TestSOCKS(t *testing.T) {
	const bound4, bound6 = "192.0.2.1:40000", "[2001:db8::1]:40000"
	login := func(v Via) Via { v.Username, v.Password = "user", "secret"; return v }
	for _, tt := range []struct {
		name  string
		via   Via
		dst   netip.AddrPort
		turns []turn
		want  string // the source; empty: unknown
	}{
		{"IPv4", Via{}, dst4, []turn{offerNone, connect4}, bound4},
		{"IPv6", Via{}, dst6, []turn{offerNone, connect6}, bound6},
		{"IPv4 from a source", Via{Source: src4}, dst4, []turn{offerNone, bind4, connect4}, bound4},
		{"IPv6 from a source", Via{Source: src6}, dst6, []turn{offerNone, bind6, connect6}, bound6},
		{"IPv4 in IPv6", Via{Source: netip.AddrFrom16(src4.As16())},
			netip.AddrPortFrom(netip.AddrFrom16(dst4.Addr().As16()), 25), []turn{offerNone, bind4, connect4}, bound4},
		{"password", login(Via{}), dst4, []turn{offerPassword, logIn, connect4}, bound4},
		{"password and source", login(Via{Source: src4}), dst4, []turn{offerPassword, logIn, bind4, connect4}, bound4},
		{"password not asked for", login(Via{}), dst4, []turn{offerBoth, connect4}, bound4},
		{"empty password", Via{Username: "user"}, dst4, []turn{offerPassword, logIn.with("01 04 75736572 00"), connect4}, bound4},
		{"longest credentials", Via{Username: strings.Repeat("u", 255), Password: strings.Repeat("p", 255)}, dst4,
			[]turn{offerPassword, logIn.with("01 ff" + strings.Repeat("75", 255) + "ff" + strings.Repeat("70", 255)), connect4}, bound4},
		{"password without user name", Via{Password: "secret"}, dst4, []turn{offerNone, connect4}, bound4},
		{"source of the other family", Via{}, dst4, []turn{offerNone, connect4.answered(connect6.reply)}, bound6},
		{"source in IPv6 form", Via{}, dst4,
			[]turn{offerNone, connect4.answered("05 00 00 04 00000000000000000000ffffc0000201 9c40")}, bound4},
		{"name instead of an address", Via{}, dst4, []turn{offerNone, connect4.answered("05 00 00 03 05 70726f7879 9c40")}, ""},
		{"longest name", Via{}, dst4, []turn{offerNone, connect4.answered("05 00 00 03 ff" + strings.Repeat("61", 255) + "9c40")}, ""},
		{"empty name", Via{}, dst4, []turn{offerNone, connect4.answered("05 00 00 03 00 0000")}, ""},
		{"names, and a source", Via{Source: src4}, dst4,
			[]turn{offerNone, bind4.answered("05 00 00 03 01 78 0000"), connect4.answered("05 00 00 03 01 78 0000")}, "192.0.2.1:0"},
		{"unspecified", Via{}, dst4, []turn{offerNone, connect4.answered("05 00 00 01 00000000 0000")}, ""},
		{"any source", Via{Source: netip.IPv4Unspecified()}, dst4,
			[]turn{offerNone, bind4.with("05 02 00 01 00000000 0000"), connect4}, bound4},
		{"unspecified, and a source", Via{Source: src4}, dst4,
			[]turn{offerNone, bind4.answered("05 00 00 01 00000000 0000"), connect4.answered("05 00 00 01 00000000 0000")}, "192.0.2.1:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := proxyThat(t, tt.turns, "220 mx.example\r\n")
				client.SetDeadline(time.Now().Add(-time.Second)) // one that somebody left
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				tt.via.Kind = SOCKS5
				source, err := tt.via.Handshake(ctx, client, tt.dst)
				if err != nil {
					t.Fatal(err)
				}
				var want netip.AddrPort
				if tt.want != "" {
					want = netip.MustParseAddrPort(tt.want)
				}
				if source != want {
					t.Errorf("source %v, want %v", source, want)
				}
				mustTalk(t, client, server, "220 mx.example\r\n")
			})
		})
	}
}

func TestSOCKSRefusals(t *testing.T) {
	type row struct {
		name  string
		via   Via
		turns []turn
		step  string
		code  byte
		want  error  // nil: none of ours
		text  string // in the error's
	}
	user := Via{Username: "user", Password: "secret"}
	rows := []row{
		{"no method", Via{}, []turn{offerNone.answered("05 ff")}, stepMethod, 0, ErrAuth, "there is no user name"},
		{"no method, password", user, []turn{offerBoth.answered("05 ff")}, stepMethod, 0, ErrAuth, "takes neither"},
		{"password not offered", Via{}, []turn{offerNone.answered("05 02")}, stepMethod, 0, ErrAuth, "method 0x02"},
		{"GSSAPI", user, []turn{offerBoth.answered("05 01")}, stepMethod, 0, ErrAuth, "method 0x01"},
		{"SOCKS4", Via{}, []turn{offerNone.answered("00 5b")}, stepMethod, 0, nil, "version 0 instead of 5"},
		{"HTTP", Via{}, []turn{offerNone.answered(hex.EncodeToString([]byte("HTTP/1.0 400 Bad Request\r\n\r\n")))}, stepMethod, 0, nil, "version 72"},
		{"SMTP", Via{}, []turn{offerNone.answered(hex.EncodeToString([]byte("220 mx.example\r\n")))}, stepMethod, 0, nil, "version 50"},
		{"wrong password", user, []turn{offerPassword, logIn.answered("01 01")}, stepAuth, 1, ErrAuth, `wrong user name or password (status 1)`},
		{"wrong password, 255", user, []turn{offerPassword, logIn.answered("01 ff")}, stepAuth, 255, ErrAuth, "status 255"},
		{"login of version 5", user, []turn{offerPassword, logIn.answered("05 00")}, stepAuth, 0, nil, "version 5 instead of 1"},
		{"bind of version 4", Via{Source: src4}, []turn{offerNone, bind4.answered("04 00 00 01 c0000201 0000")}, stepBind, 0, nil, "version 4"},
		{"connect of version 4", Via{}, []turn{offerNone, connect4.answered("04 00 00 01 c0000201 0000")}, stepConnect, 0, nil, "version 4"},
		{"reserved byte", Via{}, []turn{offerNone, connect4.answered("05 00 01 01 c0000201 0000")}, stepConnect, 0, nil, "0x01 where zero belongs"},
		{"address type 0", Via{}, []turn{offerNone, connect4.answered("05 00 00 00 c0000201 0000")}, stepConnect, 0, nil, "unknown type 0x00"},
		{"address type 2", Via{Source: src4}, []turn{offerNone, bind4.answered("05 00 00 02 c0000201 0000")}, stepBind, 0, nil, "unknown type 0x02"},
		{"bind of another address", Via{Source: src4}, []turn{offerNone, bind4.answered("05 00 00 01 c0000202 9c40")},
			stepBind, 0, ErrUnplumbed, "source address 192.0.2.1, but 192.0.2.2"},
		{"bind of another family", Via{Source: src4}, []turn{offerNone, bind4.answered(bind6.reply)},
			stepBind, 0, ErrUnplumbed, "source address 192.0.2.1, but 2001:db8::1"},
		{"a stranger connected to what was bound", Via{Source: src4}, []turn{offerNone, bind4, connect4.answered("05 00 00 01 cb007109 9c40")},
			stepConnect, 0, ErrUnplumbed, "source address 192.0.2.1, but 203.0.113.9"},
		{"refusal, then nothing", Via{}, []turn{offerNone, connect4.answered("05 05")}, stepConnect, 5, ErrRefused, "connection refused"},
		{"refusal with a wrong address", Via{}, []turn{offerNone, connect4.answered("05 05 ff 00")}, stepConnect, 5, ErrRefused, "connection refused"},
	}
	for code, text := range map[byte]string{
		1: "general failure", 2: "not allowed", 3: "network unreachable", 4: "host unreachable", 5: "connection refused",
		6: "TTL", 7: "command not supported", 8: "address type not supported", 9: ": code 9", 255: ": code 255",
	} {
		refusal := fmt.Sprintf("05 %02x 00 01 00000000 0000", code)
		rows = append(rows,
			row{fmt.Sprintf("bind, code %d", code), Via{Source: src4}, []turn{offerNone, bind4.answered(refusal)},
				stepBind, code, ErrUnplumbed, "source address 192.0.2.1: "},
			row{fmt.Sprintf("connect, code %d", code), Via{}, []turn{offerNone, connect4.answered(refusal)},
				stepConnect, code, ErrRefused, "destination 198.51.100.7:25: "},
			row{fmt.Sprintf("connect after bind, code %d", code), Via{Source: src4}, []turn{offerNone, bind4, connect4.answered(refusal)},
				stepConnect, code, ErrRefused, text})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, _ := proxyThat(t, tt.turns, "") // and says nothing more
				tt.via.Kind = SOCKS5
				_, err := tt.via.Handshake(t.Context(), client, dst4)
				mustFail(t, err, tt.step, tt.code, tt.want)
				if !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %q does not say %q", err, tt.text)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("error %q has the password", err)
				}
			})
		})
	}
}

// whole is a dialogue with every step; ends are how many of the proxy's bytes end each.
var (
	whole     = []turn{offerPassword, logIn, bind4, connect4}
	wholeVia  = Via{Kind: SOCKS5, Source: src4, Username: "user", Password: "secret"}
	wholeEnds = []struct {
		step string
		end  int
	}{{stepMethod, 2}, {stepAuth, 4}, {stepBind, 14}, {stepConnect, 24}}
)

// stepOf is the step that the proxy's n-th byte, counted from 0, belongs to.
func stepOf(n int) string {
	for _, s := range wholeEnds {
		if n < s.end {
			return s.step
		}
	}
	return ""
}

// partOf is the dialogue as far as the proxy's first n bytes.
func partOf(n int) (turns []turn) {
	for _, turn := range whole {
		reply := strings.ReplaceAll(turn.reply, " ", "")
		size := min(n, len(reply)/2)
		turns = append(turns, turn.answered(reply[:2*size]))
		if n -= size; size < len(reply)/2 {
			break
		}
	}
	return turns
}

// Every way in which a proxy may stop, after each of its bytes.
func TestSOCKSBroken(t *testing.T) {
	reason := errors.New("the host shuts down")
	for _, how := range []struct {
		name string
		stop func(server *smtptest.PipeConn, cancel context.CancelCauseFunc)
		took time.Duration
		want error
	}{
		{"close", func(s *smtptest.PipeConn, _ context.CancelCauseFunc) { s.Close() }, time.Second, nil},
		{"half close", func(s *smtptest.PipeConn, _ context.CancelCauseFunc) { s.CloseWrite() }, time.Second, io.ErrUnexpectedEOF},
		{"reset", func(s *smtptest.PipeConn, _ context.CancelCauseFunc) { s.Reset() }, time.Second, syscall.ECONNRESET},
		{"silence", func(*smtptest.PipeConn, context.CancelCauseFunc) {}, time.Minute, context.DeadlineExceeded},
		{"cancel", func(_ *smtptest.PipeConn, cancel context.CancelCauseFunc) { cancel(reason) }, time.Second, reason},
	} {
		t.Run(how.name, func(t *testing.T) {
			for n := range wholeEnds[len(wholeEnds)-1].end {
				synctest.Test(t, func(t *testing.T) {
					client, server := proxyThat(t, partOf(n), "")
					bounded, cancelTimer := context.WithTimeout(t.Context(), time.Minute)
					defer cancelTimer()
					ctx, cancel := context.WithCancelCause(bounded)
					defer cancel(nil)
					began := time.Now()
					stopper := time.AfterFunc(time.Second, func() { how.stop(server.(*smtptest.PipeConn), cancel) })
					defer stopper.Stop()
					_, err := wholeVia.Handshake(ctx, client, dst4)
					mustFail(t, err, stepOf(n), 0, how.want)
					if how.want == io.ErrUnexpectedEOF && !strings.Contains(err.Error(), "the proxy hung up") {
						t.Errorf("after %d bytes: error %q", n, err)
					}
					if took := time.Since(began); took != how.took {
						t.Errorf("after %d bytes: took %s, want %s", n, took, how.took)
					}
					if err := client.Close(); err != nil {
						t.Errorf("after %d bytes: the connection was not left to the caller: %v", n, err)
					}
				})
			}
		})
	}
}

// drip hands out what it reads one byte a second.
type drip struct{ net.Conn }

func (d drip) Read(b []byte) (int, error) {
	if len(b) > 0 {
		time.Sleep(time.Second)
		b = b[:1]
	}
	return d.Conn.Read(b)
}

// A slow proxy has until the context ends, which no byte postpones.
func TestSOCKSDrip(t *testing.T) {
	for _, tt := range []struct {
		limit time.Duration
		want  error
		step  string
	}{
		{25 * time.Second, nil, ""},
		{20*time.Second + time.Millisecond, context.DeadlineExceeded, stepConnect},
		{5*time.Second + time.Millisecond, context.DeadlineExceeded, stepBind},
	} {
		t.Run(tt.limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := proxyThat(t, whole, "220 mx\r\n")
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				source, err := wholeVia.Handshake(ctx, drip{client}, dst4)
				if tt.want != nil {
					mustFail(t, err, tt.step, 0, tt.want)
					return
				}
				if err != nil || source != netip.MustParseAddrPort("192.0.2.1:40000") {
					t.Fatalf("%v, %v", source, err)
				}
				mustTalk(t, client, server, "220 mx\r\n")
			})
		})
	}
}

// lastByte ends the context when a number of bytes have been read.
type lastByte struct {
	net.Conn
	cancel context.CancelCauseFunc
	left   int
}

func (l *lastByte) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.left -= n; l.left == 0 {
		l.cancel(nil)
	}
	return n, err
}

// A context that ends together with the dialogue ends the handshake, and no deadline comes later.
func TestSOCKSCancelledAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := proxyThat(t, whole, "220 mx\r\n")
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := wholeVia.Handshake(ctx, &lastByte{client, cancel, 24}, dst4)
		mustFail(t, err, stepConnect, 0, context.Canceled)
		mustTalk(t, client, server, "220 mx\r\n")
	})
}

// The context's cause stands for itself, without the code of a refusal that came with it.
func TestSOCKSCancelledAtRefusal(t *testing.T) {
	client, _ := proxyThat(t, []turn{offerNone, connect4.answered("05 05")}, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	via := Via{Kind: SOCKS5}
	_, err := via.Handshake(ctx, &lastByte{client, cancel, 4}, dst4)
	mustFail(t, err, stepConnect, 0, context.Canceled)
}

// mute fails the write that its count leads to.
type mute struct {
	net.Conn
	writes int
}

func (m *mute) Write(b []byte) (int, error) {
	if m.writes--; m.writes < 0 {
		return 0, syscall.EPIPE
	}
	return m.Conn.Write(b)
}

func TestSOCKSWriteFails(t *testing.T) {
	for writes, step := range []string{stepMethod, stepAuth, stepBind, stepConnect} {
		client, _ := proxyThat(t, whole, "")
		_, err := wholeVia.Handshake(t.Context(), &mute{client, writes}, dst4)
		mustFail(t, err, step, 0, syscall.EPIPE)
	}
}
