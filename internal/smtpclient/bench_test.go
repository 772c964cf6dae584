package smtpclient

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

func BenchmarkSend(b *testing.B) {
	line := []byte("The quick brown fox jumps over the lazy dog, as it has done all day long.\r\n")
	content := bytes.Repeat(line, 4096/len(line)+1)[:4094]
	content = append(content, "\r\n"...)
	for _, link := range []string{"memory", "loopback"} {
		for _, mode := range []string{"pipelined", "lockstep"} {
			for _, shape := range []string{"bytes", "stream"} {
				b.Run(link+"/"+mode+"/"+shape, func(b *testing.B) {
					sink := &smtptest.Sink{CountOnly: true}
					defer sink.Close()
					cfg := &Config{LocalName: "c", DisablePipelining: mode == "lockstep"}
					s := benchSession(b, sink, link, cfg)
					defer s.Close()
					env := oneTo("rcpt@example.com")
					b.ReportAllocs()
					b.SetBytes(int64(len(content)))
					for b.Loop() {
						c := BytesContent(content)
						if shape == "stream" {
							c = StreamContent(int64(len(content)), func() (io.ReadCloser, error) {
								return io.NopCloser(bytes.NewReader(content)), nil
							})
						}
						if tx := s.Send(context.Background(), env, c); !tx.Results[0].Accepted {
							b.Fatal(tx.Err)
						}
					}
				})
			}
		}
	}
}

func benchSession(b *testing.B, sink *smtptest.Sink, link string, cfg *Config) *Session {
	if link == "loopback" {
		address, err := sink.Listen()
		if err != nil {
			b.Fatal(err)
		}
		return dial(b, address, cfg)
	}
	client, server := smtptest.Pipe()
	sink.ServeConn(server)
	s, err := Open(context.Background(), client, cfg)
	if err != nil {
		b.Fatal(err)
	}
	return s
}
