package mtasts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
	"github.com/mtadelivery/delivery/internal/smtptest"
)

// text is a policy host that serves a policy as this media type.
func text(mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{mediaType}
		io.WriteString(w, body)
	}
}

// Against a real HTTPS server on loopback.
func TestFetch(t *testing.T) {
	ca := smtptest.CA(t)
	good := ca.Server(t, "mta-sts.example.com")
	long := &counter{}
	for _, test := range []struct {
		name   string
		config *tls.Config // of the server; nil: a good one
		serve  http.HandlerFunc
		status Status
		want   Failure
		err    string
	}{
		{"enforce", nil, text("text/plain", enforce), Fetched, NoFailure, ""},
		{"with a character set", nil, text("text/plain; charset=utf-8", enforce), Fetched, NoFailure, ""},
		{"media type in upper case", nil, text("Text/Plain", enforce), Fetched, NoFailure, ""},
		{"broken parameter", nil, text("text/plain; charset", enforce), Fetched, NoFailure, ""},
		{"chunks", nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for line := range strings.Lines(enforce) {
				io.WriteString(w, line)
				w.(http.Flusher).Flush()
			}
		}, Fetched, NoFailure, ""},
		{"64 KiB", nil, text("text/plain", pad(enforce, maxBody)), Fetched, NoFailure, ""},
		{"interim answers", nil, func(w http.ResponseWriter, r *http.Request) {
			for range maxInterim {
				w.WriteHeader(http.StatusEarlyHints)
			}
			text("text/plain", enforce)(w, r)
		}, Fetched, NoFailure, ""},
		{"TLS 1.2", &tls.Config{Certificates: good.Certificates, MaxVersion: tls.VersionTLS12}, text("text/plain", enforce), Fetched, NoFailure, ""},
		{"name of a wildcard", ca.Server(t, "*.example.com"), text("text/plain", enforce), Fetched, NoFailure, ""},
		{"the right request", nil, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" || r.Host != "mta-sts.example.com" || r.RequestURI != "/.well-known/mta-sts.txt" ||
				r.TLS.ServerName != "mta-sts.example.com" || r.TLS.NegotiatedProtocol != "http/1.1" || !r.Close || len(r.Cookies()) != 0 {
				w.WriteHeader(http.StatusTeapot)
			}
			text("text/plain", enforce)(w, r)
		}, Fetched, NoFailure, ""},

		{"too many interim answers", nil, func(w http.ResponseWriter, r *http.Request) {
			for range maxInterim + 1 {
				w.WriteHeader(http.StatusEarlyHints)
			}
			text("text/plain", enforce)(w, r)
		}, FetchFailed, FetchError, "interim"},
		{"redirect", nil, http.RedirectHandler("/elsewhere", http.StatusFound).ServeHTTP, FetchFailed, FetchError, "302"},
		{"permanent redirect", nil, http.RedirectHandler("https://mta-sts.example.com/", http.StatusPermanentRedirect).ServeHTTP, FetchFailed, FetchError, "308"},
		{"not found", nil, http.NotFound, FetchFailed, FetchError, "404"},
		{"server error", nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, FetchFailed, FetchError, "503"},
		{"no content", nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, FetchFailed, FetchError, "204"},
		{"part", nil, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(206)
			text("text/plain", enforce)(w, r)
		}, FetchFailed, FetchError, "206"},
		{"HTML", nil, text("text/html", enforce), FetchFailed, PolicyInvalid, `"text/html"`},
		{"no media type", nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, enforce)
		}, FetchFailed, PolicyInvalid, "media type"},
		{"two media types", nil, text("text/html, text/plain", enforce), FetchFailed, PolicyInvalid, "media type"},
		{"compressed", nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			text("text/plain", enforce)(w, r)
		}, FetchFailed, PolicyInvalid, "gzip"},
		{"64 KiB and a byte", nil, text("text/plain", pad(enforce, maxBody+1)), FetchFailed, PolicyInvalid, "longer"},
		{"1 MiB", nil, long.handler(1 << 20), FetchFailed, PolicyInvalid, "longer"},
		{"endless", nil, long.handler(1 << 40), FetchFailed, PolicyInvalid, "longer"},
		{"a long header", nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", maxWire))
			text("text/plain", enforce)(w, r)
		}, FetchFailed, FetchError, "longer"},
		{"garbage", nil, text("text/plain", "nothing here"), FetchFailed, PolicyInvalid, "line 1"},
		{"cut off", nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(enforce)+1))
			text("text/plain", enforce)(w, r)
		}, FetchFailed, FetchError, "unexpected EOF"},
		{"no answer", nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, FetchFailed, FetchError, "EOF"},

		{"name of the domain", ca.Server(t, "example.com"), text("text/plain", enforce), FetchFailed, WebPKIInvalid, "certificate"},
		{"name of another", ca.Server(t, "mta-sts.example.net"), text("text/plain", enforce), FetchFailed, WebPKIInvalid, "certificate"},
		{"unknown authority", smtptest.CA(t).Server(t, "mta-sts.example.com"), text("text/plain", enforce), FetchFailed, WebPKIInvalid, "certificate"},
		{"TLS 1.1", &tls.Config{Certificates: good.Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, text("text/plain", enforce), FetchFailed, FetchError, "version"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := test.config
			if config == nil {
				config = good
			}
			c := serving(t, config.Clone(), test.serve)
			c.RootCAs = ca.Pool
			r := c.Get(t.Context(), "example.com")
			if r.Status != test.status || r.Failure() != test.want {
				t.Fatalf("%+v", r)
			}
			if test.err != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), test.err)) {
				t.Errorf("%v; want %q", r.Err, test.err)
			}
			if test.status == Fetched && !r.Policy.Matches("mx.example.com") {
				t.Errorf("%+v", r.Policy)
			}
		})
	}
	// What the sockets between hold is more than the limit.
	if long.written > 16<<20 {
		t.Errorf("%d bytes were taken of what is too long", long.written)
	}
}

// serving is a cache to whom every host is an HTTPS server on loopback.
func serving(t testing.TB, config *tls.Config, serve http.HandlerFunc) *Cache {
	server := httptest.NewUnstartedServer(serve)
	server.TLS = config
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	c := &Cache{
		Lookup: func(context.Context, string) resolver.Answer {
			return resolver.Answer{Result: resolver.Records, TXT: []string{"v=STSv1; id=1"}}
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	t.Cleanup(func() {
		closed(t, c)
		server.Close()
	})
	return c
}

// counter serves bodies that are too long, and counts how much of them is taken.
type counter struct{ written int64 }

func (c *counter) handler(size int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		line := []byte("a: " + strings.Repeat("x", 1020) + "\n")
		for size -= int64(len(enforce)); size > 0; size -= int64(len(line)) {
			n, err := w.Write(line)
			c.written += int64(n)
			if err != nil {
				return
			}
		}
	}
}

func TestExpiredCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mta-sts.example.com"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c := serving(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, text("text/plain", enforce))
	c.RootCAs = x509.NewCertPool()
	c.RootCAs.AddCert(cert)
	r := c.Get(t.Context(), "example.com")
	if r.Status != FetchFailed || r.Failure() != WebPKIInvalid || !strings.Contains(r.Err.Error(), "expired") {
		t.Errorf("%+v", r)
	}
}

// What no server of net/http would say.
func TestStrangeAnswers(t *testing.T) {
	plain := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		want  Failure
	}{
		{"until the connection ends", func(conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"+enforce)
			conn.(*tls.Conn).CloseWrite()
		}, NoFailure},
		{"cut off without an end of TLS", func(conn net.Conn) {
			fmt.Fprint(conn, plain+"\r\n"+enforce)
			conn.(*tls.Conn).NetConn().Close()
		}, FetchError},
		{"cut off where the limit is", func(conn net.Conn) {
			fmt.Fprint(conn, plain+"X: ", strings.Repeat("x", maxWire-len(plain)-30), "\r\n\r\n"+enforce)
			conn.(*tls.Conn).CloseWrite()
		}, FetchError},
		{"no HTTP", saying(enforce), FetchError},
		{"SMTP", saying("220 mx.example.com ESMTP\r\n"), FetchError},
		{"a body for no size", saying(plain + "Content-Length: -1\r\n\r\n" + enforce), FetchError},
		{"two sizes", saying(plain + "Content-Length: 10\r\nContent-Length: 20\r\n\r\n" + enforce), FetchError},
		{"a size that is a lie", saying(plain + "Content-Length: 1000000000000\r\n\r\n" + enforce), PolicyInvalid},
		{"broken chunks", saying(plain + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + enforce), FetchError},
		{"a header without an end", func(conn net.Conn) {
			fmt.Fprint(conn, plain)
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(conn, "X-%d: %d\r\n", i, i); err != nil {
					return
				}
			}
		}, FetchError},
		{"interim answers without an end", func(conn net.Conn) {
			for {
				if _, err := fmt.Fprint(conn, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return
				}
			}
		}, FetchError},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, "1", "", func(t *testing.T, w *world, c *Cache) {
				w.serve = test.serve
				if r := c.Get(t.Context(), "example.com"); r.Failure() != test.want || (r.Status == Fetched) != (test.want == NoFailure) {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestTimeLimit(t *testing.T) {
	for _, test := range []struct {
		name string
		slow func(w *world)
	}{
		{"no answer", func(w *world) { w.serve = stalls }},
		{"no handshake", func(w *world) {
			w.config = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				time.Sleep(time.Hour)
				return nil, errDown
			}}
		}},
		{"a byte a second", func(w *world) {
			w.serve = func(conn net.Conn) {
				for _, b := range []byte(ok(enforce)) {
					if _, err := conn.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}
		}},
	} {
		for _, limit := range []time.Duration{0, time.Second} {
			t.Run(fmt.Sprint(test.name, limit), func(t *testing.T) {
				inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
					c.Timeout = limit
					test.slow(w)
					begin := time.Now()
					r := expect(t, c, FetchFailed, None)
					if d := time.Since(begin); d != c.timeout() || r.Failure() != FetchError {
						t.Errorf("%v after %v", r.Err, d)
					}
				})
			})
		}
	}
}

// A dial that ends with its context ends the fetch, and keeps its reason.
func TestTimeLimitOfDial(t *testing.T) {
	inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
		c.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			<-ctx.Done()
			return nil, errDown
		}
		begin := time.Now()
		r := expect(t, c, FetchFailed, None)
		if d := time.Since(begin); d != defaultTimeout {
			t.Errorf("after %v", d)
		}
		for _, want := range []string{errDown.Error(), context.DeadlineExceeded.Error()} {
			if !strings.Contains(r.Err.Error(), want) {
				t.Errorf("%v does not say %q", r.Err, want)
			}
		}
		synctest.Wait()
	})
}
