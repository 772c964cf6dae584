package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// corked sends what is written while it is corked in one piece.
type corked struct {
	net.Conn
	hold bool
	held bytes.Buffer
}

func (c *corked) Write(p []byte) (int, error) {
	if c.hold {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *corked) uncork() {
	c.hold = false
	c.Conn.Write(c.held.Bytes())
	c.held.Reset()
}

// TestARecordBehindTheReply: under TLS a reply that nobody asked for may lie in a record of its own
// behind the one that was read. It must not be taken for the next reply.
func TestARecordBehindTheReply(t *testing.T) {
	for name, extra := range map[string]string{"354 go": "before the content", "250 queued": "after it"} {
		t.Run(extra, func(t *testing.T) {
			ca := smtptest.CA(t)
			client, server := smtptest.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer server.Close()
				plain := bufio.NewReader(server)
				io.WriteString(server, "220 peer.test\r\n")
				plain.ReadString('\n')
				io.WriteString(server, "250-peer.test\r\n250 STARTTLS\r\n")
				plain.ReadString('\n')
				io.WriteString(server, "220 go\r\n")
				cork := &corked{Conn: server}
				c := tls.Server(cork, ca.Server(t, "peer.test"))
				r := bufio.NewReader(c)
				reply := func(text string) {
					if strings.HasPrefix(text, name) { // two records in one piece
						cork.hold = true
						io.WriteString(c, text)
						io.WriteString(c, "250 nobody asked\r\n")
						cork.uncork()
						return
					}
					io.WriteString(c, text)
				}
				r.ReadString('\n')
				reply("250-peer.test\r\n250 PIPELINING\r\n")
				for line := ""; !strings.HasPrefix(line, "DATA"); {
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
					if !strings.HasPrefix(line, "DATA") {
						reply("250 ok\r\n")
					}
				}
				reply("354 go\r\n")
				for line := ""; line != ".\r\n"; {
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
				}
				reply("250 queued\r\n")
				io.Copy(io.Discard, r)
			}()
			s, err := Open(t.Context(), client, &Config{Host: "peer.test", LocalName: "us.test", TLSConfig: &tls.Config{RootCAs: ca.Pool}})
			if err != nil {
				t.Fatal(err)
			}
			tx := s.Send(context.Background(), &Envelope{From: "a@b.test", Rcpts: []Rcpt{{Address: "c@d.test"}}}, BytesContent([]byte("Subject: x\r\n\r\n")))
			// The caller has its result before the reader has looked behind the reply. That is done without
			// letting go of the lock, which Usable does not wait for.
			s.mu.Lock()
			usable := s.Usable()
			s.mu.Unlock()
			if want := name == "250 queued"; tx.Results[0].Accepted != want || usable {
				t.Errorf("%+v, %v, usable %v", tx.Results[0], tx.Err, usable)
			}
			s.Close()
			<-done
		})
	}
}
