package smtpclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// FuzzDialogue feeds a session from a seed. Whatever the peer says, each recipient has exactly one of a
// reply and an error, and nobody is accepted whose peer has not said 2yz behind our end of data.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte("220 a\r\n250 b\r\n250 c\r\n250 d\r\n250 e\r\n354 f\r\n250 g\r\n"))
	f.Add([]byte("220 a\r\n250-b\r\n250 PIPELINING\r\n250 c\r\n550 d\r\n250 e\r\n354 f\r\n250 g\r\n"))
	f.Add([]byte("220 a\r\n250 b\r\n421 c\r\n"))
	f.Add([]byte("220 a\r\n502 b\r\n250 c\r\n250 c\r\n250 d\r\n451 e\r\n354 f\r\n250-g\r\n250 h\r\n250 reset\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		// One reply for each command or group: the seed's replies come as they are read.
		conn := &repliesConn{said: said}
		s, err := Open(context.Background(), conn, &Config{LocalName: "c"})
		if err != nil {
			var oe *OpenError
			if !errors.As(err, &oe) || (oe.Reply == nil) == (oe.Err == nil) {
				t.Fatalf("%#v", err)
			}
			return
		}
		for range 3 {
			ended := bytes.Count(conn.heard, []byte("\r\n.\r\n"))
			tx := s.Send(context.Background(), &Envelope{Rcpts: []Rcpt{{Address: "a@b"}, {Address: "c@d"}}}, BytesContent([]byte("content\r\n")))
			ended = bytes.Count(conn.heard, []byte("\r\n.\r\n")) - ended
			for i, r := range tx.Results {
				if (r.Err != nil) == (r.Reply.Code != 0) || r.Err != nil && tx.Err == nil {
					t.Fatalf("recipient %d: %+v", i, r)
				}
				if r.Accepted && (r.Reply.Code/100 != 2 || ended != 1 || !tx.ContentBegan) {
					t.Fatalf("recipient %d was accepted: %+v", i, r)
				}
				if r.MaybeDelivered && (ended != 1 || r.Err == nil) {
					t.Fatalf("recipient %d may be delivered: %+v", i, r)
				}
			}
		}
		s.Close()
	})
}

// repliesConn yields a reply line by line, and none before something was written.
type repliesConn struct {
	said  []byte
	heard []byte
}

func (c *repliesConn) Read(b []byte) (int, error) {
	if len(c.said) == 0 {
		return 0, io.EOF
	}
	n := bytes.IndexByte(c.said, '\n') + 1
	if n == 0 {
		n = len(c.said)
	}
	n = copy(b, c.said[:n])
	c.said = c.said[n:]
	return n, nil
}

func (c *repliesConn) Write(b []byte) (int, error) {
	c.heard = append(c.heard, b...)
	return len(b), nil
}
func (c *repliesConn) Close() error                     { return nil }
func (c *repliesConn) LocalAddr() net.Addr              { return nil }
func (c *repliesConn) RemoteAddr() net.Addr             { return nil }
func (c *repliesConn) SetDeadline(time.Time) error      { return nil }
func (c *repliesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *repliesConn) SetWriteDeadline(time.Time) error { return nil }
