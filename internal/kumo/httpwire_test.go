package kumo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// serveTLS is a server with a certificate that nobody knows, which speaks HTTP/2 if asked to.
func serveTLS(t testing.TB, http2 bool, h http.HandlerFunc) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestHTTPVersions(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		server := serveTLS(t, http2, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/endless" {
				w.WriteHeader(http.StatusOK)
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 1<<10)); err != nil {
						return
					}
				}
				return
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %d %s %s", r.Proto, len(body), r.Header.Get("X"), r.Host)
		})
		o := stubs()
		o.HTTP, o.MaxResponse = server.Client().Transport, 100_000
		for _, test := range []struct{ chain, want string }{
			{"c:post(url):body(('x'):rep(300000)):header('X', 'y'):headers { Host = 'h.example' }:send():text()", fmt.Sprintf("HTTP/%d.%d 300000 y h.example", 1+b(http2), 1-b(http2))},
			{"select(2, pcall(function() return c:get(url .. '/endless'):send():text() end))", "the response body is longer than 100000 bytes"},
			{"c:get(url .. '/endless'):send():status_code()", "200"},
			{"kumo.http.build_client { accept_invalid_certs = true }:get(url):send():text():sub(1, 8)", fmt.Sprintf("HTTP/%d.%d", 1+b(http2), 1-b(http2))},
		} {
			got, err := eval(t, o, "function run(u) local url, c = u, kumo.http.build_client {} return "+test.chain+" end", lua.LString(server.URL))
			if err != nil || !strings.HasSuffix(got, test.want) {
				t.Errorf("%s: %s, %v, want %s", test.chain, got, err, test.want)
			}
		}
		o.Close()
		stranger := stubs()
		if _, err := eval(t, stranger, "function run(u) return kumo.http.build_client {}:get(u):send() end", lua.LString(server.URL)); err == nil ||
			!strings.Contains(err.Error(), "error sending request for url ("+server.URL) || !strings.Contains(err.Error(), "certificate") {
			t.Error(err)
		}
		stranger.Close()
	}
}

func b(v bool) int {
	if v {
		return 1
	}
	return 0
}

// TestRedirects: what is asked of whom, with which credentials, in the end.
func TestRedirects(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			code := http.StatusFound
			if r.URL.Query().Has("same") {
				code = http.StatusTemporaryRedirect
			}
			http.Redirect(w, r, to, code)
			return
		}
		if r.URL.Path == "/loop" {
			http.Redirect(w, r, "/loop", http.StatusFound)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s auth=%s cookie=%s key=%s body=%s", r.Method, r.Host, r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Header.Get("X-Key"), body)
	}
	here, there := serve(t, answer), serve(t, answer)
	safe := serveTLS(t, false, answer)
	o := stubs()
	o.HTTP = safe.Client().Transport
	host := func(url string) string { return url[strings.Index(url, "//")+2:] }
	quoted := func(url string) string {
		return strings.NewReplacer(":", "%3A", "/", "%2F", "?", "%3F", "=", "%3D").Replace(url)
	}
	for _, test := range []struct{ from, chain, want string }{
		{here + "/?to=/x", "", "POST→GET " + host(here) + " auth=Bearer t cookie=c=1 key=k body="},
		{here + "/?same&to=/x", "", "POST " + host(here) + " auth=Bearer t cookie=c=1 key=k body=b"},
		{here + "/?to=" + quoted(there), "", "POST→GET " + host(there) + " auth= cookie= key=k body="},
		{here + "/?same&to=" + quoted(there), "", "POST " + host(there) + " auth= cookie= key=k body=b"},
		{safe.URL + "/?to=" + quoted(here), "", "POST→GET " + host(here) + " auth= cookie= key=k body="},
		{safe.URL + "/?to=/x", "", "POST→GET " + host(safe.URL) + " auth=Bearer t cookie=c=1 key=k body="},
		{here + "/?to=" + quoted(there+"/?to="+quoted(here)), "", "POST→GET " + host(here) + " auth= cookie= key=k body="},
		{here + "/loop", "", "error following redirect for url (/loop): too many redirects"},
		{here + "/?to=file:///etc/passwd", "", "unsupported protocol scheme"},
		{here + "/?to=http://%25zz/", "", "failed to parse Location header"},
	} {
		got, err := eval(t, o, `function run(url)
  return kumo.http.build_client {}:post(url):bearer_auth('t'):headers { Cookie = 'c=1', ['X-Key'] = 'k' }:body('b'):send():text()
end`, lua.LString(test.from))
		if err != nil {
			got = err.Error()
		}
		if want := strings.Replace(test.want, "POST→GET", "GET", 1); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", test.from, got, want)
		}
	}
}

// https on a port and http on the same: only the scheme tells them apart.
func TestSameOrigin(t *testing.T) {
	var sent []*http.Request
	o := stubs()
	o.HTTP = roundTripper(func(r *http.Request) (*http.Response, error) {
		sent = append(sent, r)
		resp := &http.Response{StatusCode: 302, Header: http.Header{}, Body: http.NoBody, Request: r}
		switch len(sent) {
		case 1:
			resp.Header.Set("Location", "https://a.example:443/2")
		case 2:
			resp.Header.Set("Location", "http://a.example:443/3")
		case 3:
			resp.Header.Set("Location", "https://a.example/4")
		default:
			resp.StatusCode = 200
		}
		return resp, nil
	})
	if _, err := eval(t, o, "function run() kumo.http.build_client {}:get('https://a.example/1'):basic_auth('u', 'p'):header('Host', 'b'):send() end"); err != nil {
		t.Fatal(err)
	}
	var auth []bool
	for _, r := range sent {
		auth = append(auth, r.Header.Get("Authorization") != "")
		if r.Header.Get("Host") != "" {
			t.Error("a second Host")
		}
	}
	if fmt.Sprint(auth) != "[true true false false]" || sent[0].Host != "b" {
		t.Error(auth, sent[0].Host)
	}
}

// What would be two fields on the wire is refused here, whatever the transport.
func TestHeaderInjection(t *testing.T) {
	o := stubs()
	asked := 0
	o.HTTP = roundTripper(func(*http.Request) (*http.Response, error) { asked++; return nil, errStub })
	for _, call := range []string{
		`:header('X', 'a\r\nY: b')`, `:header('X\r\nY', 'b')`, `:header('X', 'a\nb')`, `:header('X', '\0')`, `:header('', 'a')`, `:header('X Y', 'a')`,
		`:header('Host', 'a\r\nY: b')`, `:headers { X = 'a\r\n\r\n' }`, `:bearer_auth('t\r\nY: b')`, `:header('X:', 'a')`,
	} {
		_, err := eval(t, o, "function run() kumo.http.build_client {}:get('http://a.example/')"+call+":send() end")
		if err == nil || !strings.Contains(err.Error(), "invalid header field") {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := eval(t, o, `function run() kumo.http.build_client { user_agent = 'a\r\nb: c' }:get('http://a.example/'):send() end`); err == nil || asked > 0 {
		t.Error(err, asked)
	}
	if _, err := eval(t, o, `function run() local r = kumo.http.build_client {}:get('http://a.example/') for i = 1, 100 do r:header('X' .. i, ('x'):rep(10000)) end end`); err == nil ||
		!strings.Contains(err.Error(), "the headers of the request are longer than 262144 bytes") {
		t.Error(err)
	}
}

func TestRequestIsUsedUp(t *testing.T) {
	base := serve(t, echo)
	o := stubs()
	defer o.Close()
	for _, call := range []string{"r:send()", "r:body('x')", "r:header('a', 'b')", "r:timeout(1)"} {
		_, err := eval(t, o, "function run(u) local r = kumo.http.build_client {}:get(u) r:send() "+call+" end", lua.LString(base))
		if err == nil || !strings.Contains(err.Error(), "broken request builder") {
			t.Errorf("%s: %v", call, err)
		}
	}
	// A request that was made is the client's last will.
	if _, err := eval(t, o, "function run(u) local c = kumo.http.build_client {} local r = c:get(u) c:close() r:send() end", lua.LString(base)); err != nil {
		t.Error(err)
	}
}

// A secret in a URL is not told to who reads the results.
func TestSecretsInURLs(t *testing.T) {
	o := stubs()
	o.HTTP = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errStub })
	for _, url := range []string{
		"http://user:secret@a.example/", "ftp://user:secret@a.example/", "http://user:secret@a b.example/", "http://user:secret@a.example/\x7f",
		"http://user:secret@/", "//user:secret@a.example", "http://user:secret/more@a.example/", "http://user:%secret@a.example/",
	} {
		_, err := eval(t, o, "function run(u) kumo.http.build_client {}:get(u):send() end", lua.LString(url))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
		if _, err := eval(t, o, "function run(u) kumo.http.build_url(u, {}) end", lua.LString(url)); err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("build_url %q: %v", url, err)
		}
	}
}

// A server cannot fill the log, nor a script's hands, by what makes its answer an error.
func TestLongAnswersAreNotShown(t *testing.T) {
	var log strings.Builder
	o := stubs()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	long := strings.Repeat("é", 1e5)
	for _, header := range []http.Header{
		{"Location": {"/" + long}}, {"Location": {"gopher://a.example/" + long}}, {"Location": {"http://[" + long}}, {"Location": {long + "://a.example/"}},
	} {
		asked := 0
		o.HTTP = roundTripper(func(r *http.Request) (*http.Response, error) {
			if asked++; asked > 1 {
				return nil, errors.New(r.URL.String())
			}
			return &http.Response{StatusCode: http.StatusFound, Header: header, Body: http.NoBody, Request: r}, nil
		})
		log.Reset()
		_, err := eval(t, o, "function run() kumo.http.build_client { connection_verbose = true }:get('http://a.example/'):send() end")
		if err == nil || !strings.Contains(err.Error(), "for url (") || len(err.Error()) > 10000 || !utf8.ValidString(err.Error()) {
			t.Errorf("%.60s: %d bytes: %.100v", header, len(fmt.Sprint(err)), err)
		}
		if log.Len() > 30000 || log.Len() == 0 {
			t.Errorf("%.60s: a log of %d bytes", header, log.Len())
		}
		log.Reset()
		if _, err = eval(t, o, "function run(u) kumo.http.build_client { connection_verbose = true }:get(u):send() end", lua.LString("http://a.example/"+long)); err == nil || len(err.Error()) > 10000 || log.Len() > 30000 {
			t.Errorf("the script's own: %.100v, a log of %d bytes", err, log.Len())
		}
	}
}

// What a server compresses is passed on as it is, and is not asked for.
func TestNoCompression(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "\x1f\x8b"+r.Header.Get("Accept-Encoding"))
	})
	o := stubs()
	o.MaxResponse = math.MaxInt64
	defer o.Close()
	got, err := eval(t, o, "function run(u) local r = kumo.http.build_client {}:get(u):send() return r:headers()['content-encoding'] .. r:content_length() .. r:bytes() end", lua.LString(base))
	if err != nil || got != "gzip2\x1f\x8b" {
		t.Errorf("%q %v", got, err)
	}
}

// A server that changes the protocol sends no body that ends.
func TestSwitchingProtocols(t *testing.T) {
	over := make(chan struct{})
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		rw.Flush()
		<-over
	})
	defer close(over)
	o := stubs()
	defer o.Close()
	got, err := eval(t, o, "function run(u) local r = kumo.http.build_client {}:get(u):send() return r:status_code() .. r:text() .. tostring(r:status_is_informational()) end", lua.LString(base))
	if err != nil || got != "101true" {
		t.Error(got, err)
	}
}

// pipes is a network of one server in memory, for virtual time: a bubble ends only when every goroutine
// in it has, so that no connection is left.
type pipes struct {
	server http.Server
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes(h http.HandlerFunc) *pipes {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.server.Handler = h
	go p.server.Serve(p)
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inBubble runs a policy against a server in virtual time.
func inBubble(t *testing.T, h http.HandlerFunc, run func(t *testing.T, o *Options)) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes(h)
		o := stubs()
		o.HTTP = &http.Transport{DialContext: network.dial, IdleConnTimeout: poolIdleTimeout}
		run(t, o)
		o.Close()
		o.HTTP.(*http.Transport).CloseIdleConnections()
		network.server.Close()
	})
}

const slowPolicy = `
function wait(options, limit)
  local r = kumo.http.build_client(options):get('http://a.example/')
  if limit then r:timeout(limit) end
  return r:send():status_code()
end
function body(limit)
  local r = kumo.http.build_client({}):get('http://a.example/'):timeout(limit):send()
  local ok, err = pcall(r.text, r)
  return r:status_code() .. tostring(err)
end`

// silent answers nothing until the client has gone.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// stalled answers with a part of a body.
func stalled(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "10")
	io.WriteString(w, "abc")
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func TestTimeouts(t *testing.T) {
	for _, test := range []struct {
		options string
		limit   lua.LValue
		want    time.Duration
	}{
		{"{}", lua.LNil, time.Minute},
		{"{ timeout = '3 s' }", lua.LNil, 3 * time.Second},
		{"{ timeout = '3 s' }", lua.LString("2h"), 2 * time.Hour},
		{"{ timeout = 0 }", lua.LNil, 0},
		{"{ pool_idle_timeout = 5, connection_verbose = true }", lua.LNumber(1.5), 1500 * time.Millisecond},
	} {
		inBubble(t, silent, func(t *testing.T, o *Options) {
			o.Logger = slog.New(slog.DiscardHandler)
			s := newState(t, o, slowPolicy+"\noptions = "+test.options)
			began := time.Now()
			_, err := s.Call(t.Context(), 1, s.L.GetGlobal("wait"), s.L.GetGlobal("options"), test.limit)
			if took := time.Since(began); took != test.want || !errors.Is(err, context.DeadlineExceeded) ||
				!strings.Contains(err.Error(), "error sending request for url (http://a.example/): operation timed out after "+test.want.String()) {
				t.Errorf("%s: after %v: %v", test.options, took, err)
			}
			s.Close()
		})
	}
	inBubble(t, stalled, func(t *testing.T, o *Options) {
		s := newState(t, o, slowPolicy)
		began := time.Now()
		got, err := s.Call(t.Context(), 1, s.L.GetGlobal("body"), lua.LNumber(7))
		want := "error reading the response body for url (http://a.example/): operation timed out after 7s"
		if took := time.Since(began); err != nil || took != 7*time.Second || !strings.HasPrefix(got[0].String(), "200") || !strings.HasSuffix(got[0].String(), want) {
			t.Error(took, got, err)
		}
		s.Close()
	})
}

// The end of a call ends its request at once, before the head of a response and in its body, and says why.
func TestCallEnds(t *testing.T) {
	gone := errors.New("the runtime closes")
	for name, handler := range map[string]http.HandlerFunc{"wait": silent, "body": stalled} {
		inBubble(t, handler, func(t *testing.T, o *Options) {
			s := newState(t, o, slowPolicy)
			ctx, cancel := context.WithCancelCause(t.Context())
			began := time.Now()
			time.AfterFunc(5*time.Second, func() { cancel(gone) })
			args := []lua.LValue{s.L.NewTable(), lua.LNil}
			if name == "body" {
				args = []lua.LValue{lua.LNumber(600)}
			}
			_, err := s.Call(ctx, 1, s.L.GetGlobal(name), args...)
			if took := time.Since(began); took != 5*time.Second || !errors.Is(err, gone) {
				t.Errorf("%s: after %v: %v", name, took, err)
			}
			s.Close()
		})
	}
}

// Responses that nobody reads cost no connection: one serves them all, and goes when its time has come.
func TestUnreadResponses(t *testing.T) {
	opened := 0
	synctest.Test(t, func(t *testing.T) {
		network := newPipes(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 100_000)) })
		o := stubs()
		o.HTTP = &http.Transport{DialContext: func(ctx context.Context, n, a string) (net.Conn, error) {
			opened++
			return network.dial(ctx, n, a)
		}}
		s := newState(t, o, "local c = kumo.http.build_client { pool_idle_timeout = 7 } function run() for i = 1, 50 do c:get('http://a.example/'):send() end end")
		if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("run")); err != nil || opened != 1 {
			t.Error(opened, err)
		}
		s.Close()
		time.Sleep(5 * time.Second) // 7 s are 5 s: see idleSteps
		network.server.Shutdown(t.Context())
		network.Close()
		// Nothing was closed: the bubble ends because the connection's time is over.
	})
}

// A connection that is being opened for a request that has ended is given up by Close.
func TestDialIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := stubs()
		o.HTTP = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		s := newState(t, o, slowPolicy)
		options := s.L.NewTable()
		options.RawSetString("pool_idle_timeout", lua.LNumber(5))
		if _, err := s.Call(t.Context(), 1, s.L.GetGlobal("wait"), options, lua.LNumber(3)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		s.Close()
		o.Close()
	})
}

func TestTransportsAreBounded(t *testing.T) {
	o := stubs()
	defer o.Close()
	if _, err := eval(t, o, `function run()
  for i = 0, 20000 do
    kumo.http.build_client { pool_idle_timeout = i / 3, accept_invalid_certs = i % 2 == 0 }
  end
end`); err != nil {
		t.Fatal(err)
	}
	if n := len(o.own.made); n > 2*(len(idleSteps)+1) {
		t.Error(n, "transports")
	}
	for d, want := range map[time.Duration]time.Duration{0: 0, time.Second - 1: 0, time.Second: time.Second, 95 * time.Second: 90 * time.Second, 1000 * time.Hour: time.Hour} {
		if got := idleStep(d); got != want {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
	}
}

// What the server says of its text, and what it is.
func TestText(t *testing.T) {
	for _, test := range []struct{ contentType, body, want string }{
		{"text/plain", "grün", "grün"},
		{"", "gr\xfcn", "gr\uFFFDn"},
		{"text/plain; charset=iso-8859-1", "gr\xfcn \x80", "grün €"}, // the web's iso-8859-1 is windows-1252
		{"text/plain; charset=\"Windows-1252\"", "gr\xfcn", "grün"},
		{"text/plain; charset=utf-16le", "g\x00r\x00\xfc\x00", "grü"},
		{"text/plain; charset=utf-8", "\xff\xfeg\x00", "g"},
		{"text/plain; charset=iso-8859-1", "\xef\xbb\xbfgrün", "grün"},
		{"application/json", "\xfe\xff\x00g\xd8\x00", "g\uFFFD"},
		{"text/plain; charset=shift_jis", "\x82\xa0", "あ"},
		{"text/plain; charset=nonsense", "gr\xfcn", "gr\uFFFDn"},
		{"text/plain; charset", "gr\xfcn", "gr\uFFFDn"},
		{"text/plain", "", ""},
	} {
		o := stubs()
		o.HTTP = roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {test.contentType}}, Request: r,
				Body: io.NopCloser(strings.NewReader(test.body)), ContentLength: -1}, nil
		})
		got, err := eval(t, o, "function run() return kumo.http.build_client {}:get('http://a.example/'):send():text() end")
		if err != nil || got != test.want {
			t.Errorf("%s, %q: %q, %v, want %q", test.contentType, test.body, got, err, test.want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if text, err := decodeText(ended, []byte("gr\xfcn"), ""); !errors.Is(err, context.Canceled) {
		t.Error(text, err)
	}
}

// One Options, many states, all kinds of clients at once.
func TestManyStates(t *testing.T) {
	server := serveTLS(t, true, echo)
	o := stubs()
	o.DNS = knownDNS
	var states sync.WaitGroup
	for i := range 16 {
		states.Go(func() {
			s, err := tryState(t.Context(), o, `
function run(url, i)
  local c = kumo.http.build_client { accept_invalid_certs = true, pool_idle_timeout = i }
  for n = 1, 10 do
    assert(c:post(url):form_url_encoded({ n = n, i = i }):timeout('60s'):send():text():find('i=' .. i .. '&n=' .. n, 1, true))
    assert(kumo.dns.lookup_mx('a.example').hosts[1] == 'mx.a.example.')
  end
end`)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("run"), lua.LString(server.URL), lua.LNumber(i)); err != nil {
				t.Error(err)
			}
		})
	}
	states.Wait()
	o.Close()
}
