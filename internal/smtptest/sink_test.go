package smtptest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const open = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"

// TestSinkDialogue: what a sink answers to a group, by the first digits of its replies, and what it has
// taken: sender, recipients, chunks and content of each message.
func TestSinkDialogue(t *testing.T) {
	tests := []struct {
		name    string
		sink    *Sink
		say     string
		replies string
		taken   string
	}{
		{"data", &Sink{}, open + "DATA\r\n.a\r\n..\r\nb\r\n.\r\n", "250 250 354 250", `a@b c@d 0 "a\r\n.\r\nb\r\n"`},
		{"empty data", &Sink{}, open + "DATA\r\n.\r\nNOOP\r\n", "250 250 354 250 250", `a@b c@d 0 ""`},
		{"only CRLF ends data", &Sink{}, open + "DATA\r\nx\n.\r\n\r\n.\n.\r.\r\n\r.\r\ny\r\n.\r\n", "250 250 354 250",
			`a@b c@d 0 "x\n.\r\n\r\n\n.\r.\r\n\r.\r\ny\r\n"`},
		{"two by data", &Sink{}, open + "DATA\r\nx\r\n.\r\n" + open + "DATA\r\ny\r\n.\r\n", "250 250 354 250 250 250 354 250",
			`a@b c@d 0 "x\r\n"; a@b c@d 0 "y\r\n"`},
		{"chunk", &Sink{}, open + "BDAT 5 LAST\r\n.\r\n.\r", "250 250 250", `a@b c@d 1 ".\r\n.\r"`},
		{"chunks", &Sink{}, open + "BDAT 3\r\nabcBDAT 2\r\nde" + "bdat 0 last\r\n", "250 250 250 250 250", `a@b c@d 3 "abcde"`},
		{"two by BDAT", &Sink{}, open + "BDAT 1 LAST\r\nxRSET\r\n" + open + "BDAT 1 LAST\r\ny", "250 250 250 250 250 250 250",
			`a@b c@d 1 "x"; a@b c@d 1 "y"`},
		{"two without RSET", &Sink{}, open + "BDAT 1 LAST\r\nx" + open + "BDAT 1 LAST\r\ny", "250 250 250 250 250 250",
			`a@b c@d 1 "x"; a@b c@d 1 "y"`},
		{"nobody takes the chunk", &Sink{}, "MAIL FROM:<a@b>\r\nRCPT TO:<permfail@d>\r\nBDAT 6 LAST\r\nNOOP\r\nMAIL FROM:<e@f>\r\nRCPT TO:<c@d>\r\nBDAT 1 LAST\r\nx",
			"250 550 503 503 503 503", ""},
		{"nobody, then RSET", &Sink{}, "MAIL FROM:<a@b>\r\nRCPT TO:<permfail@d>\r\nBDAT 6 LAST\r\nNOOP\r\nRSET\r\n" + open + "BDAT 1 LAST\r\nx",
			"250 550 503 250 250 250 250", `a@b c@d 1 "x"`},
		{"nobody, then EHLO", &Sink{}, "BDAT 0 LAST\r\nEHLO x\r\n" + open + "BDAT 1 LAST\r\nx", "503 250 250 250 250", `a@b c@d 1 "x"`},
		{"chunk after the last", &Sink{}, open + "BDAT 1 LAST\r\nxBDAT 1 LAST\r\ny" + open, "250 250 250 503 503 503", `a@b c@d 1 "x"`},
		{"DATA after BDAT", &Sink{}, open + "BDAT 1\r\nxDATA\r\nBDAT 1 LAST\r\ny", "250 250 250 503 503", ""},
		{"RCPT after BDAT", &Sink{}, open + "BDAT 1\r\nxRCPT TO:<e@f>\r\nBDAT 1 LAST\r\ny", "250 250 250 503 250", `a@b c@d 2 "xy"`},
		{"RSET between chunks", &Sink{}, open + "BDAT 1\r\nxRSET\r\n" + open + "BDAT 1 LAST\r\ny", "250 250 250 250 250 250 250", `a@b c@d 1 "y"`},
		{"BINARYMIME", &Sink{}, "MAIL FROM:<a@b> SIZE=1 body=binaryMIME\r\nRCPT TO:<c@d>\r\nDATA\r\nRSET\r\nNOOP\r\n", "250 250 501 250 250", ""},
		{"parameters", &Sink{Offer: []string{"RRVS", "deliverby 240"}}, "MAIL FROM:<a@b> SIZE=1 body=8BITMIME SMTPUTF8 RET=HDRS ENVID=x BY=1\r\nRCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;c@d RRVS=x\r\n", "250 250", ""},
		{"parameters not offered", &Sink{Hide: []string{"SIZE", "DSN", "BINARYMIME"}, Offer: []string{"REQUIRETLS"}},
			"MAIL FROM:<a@b> SIZE=1\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL FROM:<a@b> REQUIRETLS\r\nMAIL FROM:<a@b> AUTH=<>\r\n" +
				"MAIL FROM:<a@b> X=1\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d> ORCPT=x\r\nRCPT TO:<c@d> RRVS=x\r\n", "555 555 555 555 555 250 555 555", ""},
		{"bad size", &Sink{}, open + "BDAT x LAST\r\nNOOP\r\n", "250 250 501", ""},
		{"no size", &Sink{}, "BDAT\r\nNOOP\r\n", "501", ""},
		{"not last", &Sink{}, "BDAT 1 FIRST\r\nNOOP\r\n", "501", ""},
		{"no CHUNKING", &Sink{Hide: []string{"CHUNKING"}}, open + "BDAT 1 LAST\r\nx", "250 250 500", ""},
		{"out of order", &Sink{}, "RCPT TO:<c@d>\r\nDATA\r\n" + open + "MAIL FROM:<e@f>\r\nRSET\r\nRCPT TO:<c@d>\r\n", "503 503 250 250 503 250 503", ""},
		{"bare LF", &Sink{}, "NOOP\nNO\rOP\r\nNOOP\r\n", "500 500 250", ""},
		{"syntax", &Sink{}, "MAIL FROM:a@b\r\nMAIL TO:<a@b>\r\nMAIL FROM:<\"a>\\\"\"@b> SIZE=1\r\nRCPT\r\nVERYLONGVERB\r\n", "501 501 250 501 500", ""},
		{"senders", &Sink{}, "MAIL FROM:<tempfail@b>\r\nMAIL FROM:<tea@b>\r\n", "450 250", ""},
		{"LMTP", &Sink{LMTP: true, CountOnly: true}, "LHLO x\r\n" + open + "RCPT TO:<datatemp@d>\r\nBDAT 1\r\nxBDAT 1 LAST\r\ny", "250 250 250 250 250 250 451", ""},
		{"LIMITS", &Sink{Offer: []string{"LIMITS MAILMAX=2 RCPTMAX=1"}}, open + "RCPT TO:<e@f>\r\nRSET\r\n" + open + "RSET\r\n" + open, "250 250 452 250 250 250 250 421", ""},
	}
	for _, test := range tests {
		for _, size := range []int{1 << 20, 1, 3} {
			t.Run(fmt.Sprintf("%s/%d", test.name, size), func(t *testing.T) {
				sink := &Sink{Name: test.sink.Name, LMTP: test.sink.LMTP, Hide: test.sink.Hide, Offer: test.sink.Offer, CountOnly: test.sink.CountOnly}
				if got := codes(t, sink, test.say, size); got != "220 "+test.replies {
					t.Errorf("replies: %s\nwant 220 %s", got, test.replies)
				}
				if got := taken(sink); got != test.taken {
					t.Errorf("taken: %s\nwant   %s", got, test.taken)
				}
			})
		}
	}
}

// codes says a text to a sink, size bytes at a time, and returns the codes of the replies.
func codes(t testing.TB, sink *Sink, text string, size int) string {
	client, server := Pipe()
	sink.ServeConn(server)
	for b := []byte(text); len(b) > 0; {
		n, err := client.Write(b[:min(size, len(b))])
		if err != nil {
			break // it hung up
		}
		b = b[n:]
	}
	client.(*PipeConn).CloseWrite()
	all, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	client.Close()
	sink.Close()
	var codes []string
	for line := range strings.Lines(string(all)) {
		if line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return strings.Join(codes, " ")
}

func taken(sink *Sink) string {
	var all []string
	for _, m := range sink.Messages() {
		all = append(all, fmt.Sprintf("%s %s %d %q", m.From, strings.Join(m.Rcpts, ","), m.Chunks, m.Data))
	}
	return strings.Join(all, "; ")
}

func TestSinkOffers(t *testing.T) {
	client, server := Pipe()
	defer client.Close()
	sink := &Sink{Hide: []string{"DSN", "BINARYMIME"}, Offer: []string{"REQUIRETLS", "MT-PRIORITY MIXER"}, MaxSize: 7,
		Username: "u", Mechanisms: []string{"LOGIN", "PLAIN"}}
	sink.ServeConn(server)
	io.WriteString(client, "EHLO x\r\nQUIT\r\n")
	got, err := io.ReadAll(client)
	want := "220 sink.example ready\r\n250-sink.example greets x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n" +
		"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-SIZE 7\r\n250-AUTH LOGIN PLAIN\r\n250-REQUIRETLS\r\n250 MT-PRIORITY MIXER\r\n221 2.0.0 bye\r\n"
	if string(got) != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	sink.Close()
}

func TestSinkAuth(t *testing.T) {
	both, plain := []string{"PLAIN", "LOGIN"}, []string(nil)
	tests := []struct {
		name       string
		mechanisms []string
		say, want  string
	}{
		{"plain", plain, "AUTH PLAIN AHUAcA==\r\n", "235"},
		{"plain by challenge", plain, "AUTH plain\r\nAHUAcA==\r\n", "334 235"},
		{"plain, wrong", plain, "AUTH PLAIN AHUAcQ==\r\nMAIL FROM:<>\r\n", "535 530"},
		{"plain, not base64", plain, "AUTH PLAIN *\r\n", "535"},
		{"login not offered", plain, "AUTH LOGIN\r\n", "504"},
		{"login", both, "AUTH LOGIN\r\ndQ==\r\ncA==\r\nMAIL FROM:<>\r\n", "334 334 235 250"},
		{"login with the name", both, "AUTH LOGIN dQ==\r\ncA==\r\n", "334 235"},
		{"login, wrong", both, "AUTH LOGIN\r\ndQ==\r\ndQ==\r\n", "334 334 535"},
		{"twice", both, "AUTH PLAIN AHUAcA==\r\nAUTH LOGIN\r\n", "235 503"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sink := &Sink{Username: "u", Password: "p", Mechanisms: test.mechanisms}
			if got := codes(t, sink, test.say, 1<<20); got != "220 "+test.want {
				t.Errorf("%s, want 220 %s", got, test.want)
			}
		})
	}
}

// TestSinkLarge: content larger than any buffer, at every phase against its end.
func TestSinkLarge(t *testing.T) {
	for n := range 8 {
		content := strings.Repeat("x", largeInput-len(open)-20+n) + "\r\n" + strings.Repeat("y\r\n..z\r\n", 40_000)
		sink := &Sink{}
		say := fmt.Sprintf("%sDATA\r\n%s.\r\n%sBDAT %d LAST\r\n%s", open, content, open, len(content), content)
		if got := codes(t, sink, say, 1<<20); got != "220 250 250 354 250 250 250 250" {
			t.Fatal(got)
		}
		m := sink.Messages()
		if want := strings.ReplaceAll(content, "\r\n..", "\r\n."); string(m[0].Data) != want {
			t.Errorf("%d: DATA brought %d bytes, want %d", n, len(m[0].Data), len(want))
		}
		if string(m[1].Data) != content {
			t.Errorf("%d: BDAT brought %d bytes, want %d", n, len(m[1].Data), len(content))
		}
	}
}

// TestSinkWaits: replies that are ready go out before the wait of the end of data.
func TestSinkWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &Sink{Delay: time.Minute, CountOnly: true}
		client, server := Pipe()
		sink.ServeConn(server)
		start := time.Now()
		io.WriteString(client, strings.Repeat(open+"BDAT 1 LAST\r\nx", 3))
		buf := make([]byte, 1000)
		for i, want := range []string{"220 250 250", "250 250 250", "250 250 250", "250"} {
			time.Sleep(time.Duration(i)*time.Minute - time.Since(start))
			synctest.Wait() // until the sink waits too
			n, err := client.Read(buf)
			var got []string
			for line := range strings.Lines(string(buf[:n])) {
				got = append(got, line[:3])
			}
			if strings.Join(got, " ") != want || time.Since(start) != time.Duration(i)*time.Minute {
				t.Errorf("after %v: %v, %v", time.Since(start), got, err)
			}
		}
		if messages, rcpts, commands := sink.Counts(); messages != 3 || rcpts != 3 || commands != 9 {
			t.Errorf("%d messages, %d recipients, %d commands", messages, rcpts, commands)
		}
		client.Close()
		sink.Close()
	})
}

// FuzzSinkData: whatever a client says by DATA, the sink takes what a server takes that looks at it line
// by line, however it arrives.
func FuzzSinkData(f *testing.F) {
	f.Add([]byte("hello\r\n.\r\nNOOP\r\n"), 7)
	f.Add([]byte(".\r\n"), 1)
	f.Add([]byte("\r\n.\r\r\n.\n\r\n.\r\n..\r\n"), 2)
	f.Fuzz(func(t *testing.T, said []byte, size int) {
		want, ended := byLine(said)
		sink := &Sink{}
		codes(t, sink, open+"DATA\r\n"+string(said), min(max(size, 1), 100))
		got := sink.Messages()
		if ended != (len(got) > 0) {
			t.Fatalf("%q ended: %v", said, len(got) > 0)
		}
		if ended && !bytes.Equal(got[0].Data, want) {
			t.Errorf("%q gave %q, want %q", said, got[0].Data, want)
		}
	})
}

func byLine(b []byte) (data []byte, ended bool) {
	for {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		if !ok {
			return nil, false
		}
		if string(line) == "." {
			return data, true
		}
		data = append(append(data, bytes.TrimPrefix(line, []byte("."))...), "\r\n"...)
		b = rest
	}
}

// script is a connection whose client says the same thing again and again.
type script struct {
	net.Conn // nil: nothing else is asked of it
	text     string
	at, left int
}

func (c *script) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(b) && c.left > 0 {
		k := copy(b[n:], c.text[c.at:])
		n, c.at = n+k, c.at+k
		if c.at == len(c.text) {
			c.at, c.left = 0, c.left-1
		}
	}
	return n, nil
}

func (c *script) Write(b []byte) (int, error) { return len(b), nil }

func rendered(how string, size int) string {
	head := "MAIL FROM:<sender@example.org> SIZE=4096 BODY=8BITMIME\r\nRCPT TO:<rcpt@example.com>\r\n"
	body := strings.Repeat("The quick brown fox jumps over the lazy dog, as it has done all day.\r\n", size/70+1)[:size-2] + "\r\n"
	if how == "BDAT" {
		return fmt.Sprintf("RSET\r\n%sBDAT %d LAST\r\n%s", head, len(body), body)
	}
	return head + "DATA\r\n" + body + ".\r\n"
}

// TestSinkIsLean: a message that is only counted is not worth an allocation.
func TestSinkIsLean(t *testing.T) {
	for _, how := range []string{"BDAT", "DATA"} {
		const messages = 1000
		sink := &Sink{CountOnly: true}
		got := testing.AllocsPerRun(10, func() {
			newSinkSession(sink, &script{text: rendered(how, 4096), left: messages}).serve()
		})
		if n, _, _ := sink.Counts(); n != 11*messages {
			t.Fatalf("%d messages", n)
		}
		if got > 50 { // of the session
			t.Errorf("%s: %.0f allocations for %d messages", how, got, messages)
		}
	}
}

// BenchmarkSink is what the sink costs by itself, without a connection.
func BenchmarkSink(b *testing.B) {
	for _, how := range []string{"BDAT", "DATA"} {
		for _, size := range []int{4 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("%s/size=%d", how, size), func(b *testing.B) {
				b.ReportAllocs()
				text := rendered(how, size)
				b.SetBytes(int64(len(text)))
				sink := &Sink{CountOnly: true}
				newSinkSession(sink, &script{text: text, left: b.N}).serve()
				if n, _, _ := sink.Counts(); n != int64(b.N) {
					b.Fatalf("%d messages of %d", n, b.N)
				}
			})
		}
	}
}
