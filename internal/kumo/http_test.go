package kumo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Add("X-Many", "one")
	w.Header().Add("X-Many", "two")
	fmt.Fprintf(w, "%s %s host=%s agent=%s auth=%s type=%s x=%q body=%q", r.Method, r.URL, r.Host, r.UserAgent(),
		r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header["X"], body)
}

func serve(t testing.TB, h http.HandlerFunc) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func TestHTTPRequest(t *testing.T) {
	base := serve(t, echo)
	o := stubs()
	defer o.Close()
	for _, test := range []struct{ chain, want string }{
		{"c:get(url .. '/a?b=1'):send()", `GET /a?b=1 `},
		{"c:post(url):body('x\\0ä'):send()", `body="x\x00ä"`},
		{"c:put(url):send()", "PUT / "},
		{"c:get(url):send()", "agent=delivery auth= "},
		{"c:get(url):header('User-Agent', 'mine'):send()", "agent=mine"},
		{"kumo.http.build_client{user_agent = 'policy/1'}:get(url):send()", "agent=policy/1"},
		{"c:get(url):header('X', 'a'):header('X', 'b'):send()", `x=["a" "b"]`},
		{"c:get(url):headers({X = 'a', Host = 'other.example'}):send()", "host=other.example"},
		{"c:get(url):basic_auth('u', 'p'):send()", "auth=Basic dTpw"},
		{"c:get(url):basic_auth('u'):send()", "auth=Basic dTo="},
		{"c:get(url):bearer_auth('tok'):send()", "auth=Bearer tok"},
		{"c:post(url):form_url_encoded({b = 'x y', a = 1}):send()", `type=application/x-www-form-urlencoded x=[] body="a=1&b=x+y"`},
		{"c:get(url):timeout('5 s'):timeout(5):timeout(5.5):send()", "GET"},
		{"kumo.http.build_client{timeout = '1m', pool_idle_timeout = 10, connection_verbose = false}:get(url):send()", "GET"},
	} {
		got, err := eval(t, o, "function run(u) local url, c = u, kumo.http.build_client {} return "+test.chain+":text() end", lua.LString(base))
		if err != nil || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, %v, want %s", test.chain, got, err, test.want)
		}
	}
}

func TestParseDurationOption(t *testing.T) {
	var asked []string
	o := stubs()
	o.ParseDuration = func(text string) (time.Duration, error) {
		asked = append(asked, text)
		if text == "bad" {
			return 0, errStub
		}
		return time.Minute, nil
	}
	if _, err := eval(t, o, "function run() kumo.http.build_client { timeout = '1 fortnight' }:get('x'):timeout('2 moons') end"); err != nil {
		t.Error(err)
	}
	if _, err := eval(t, o, "function run() kumo.http.build_client { timeout = 'bad' } end"); err == nil || len(asked) != 3 {
		t.Error(err, asked)
	}
}

func TestHTTPResponse(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/final", http.StatusFound)
		case "/odd":
			w.WriteHeader(599)
		case "/error":
			http.Error(w, "no", http.StatusInternalServerError)
		case "/chunked":
			w.(http.Flusher).Flush()
			io.WriteString(w, "x")
		case "/long":
			w.Write(make([]byte, 1001))
		default:
			w.Header().Add("X-Many", "one")
			w.Header().Add("X-Many", "two")
			io.WriteString(w, "a\xffb")
		}
	})
	o := stubs()
	o.MaxResponse = 1000
	defer o.Close()
	for _, test := range []struct{ path, expr, want string }{
		{"/", "r:status_code()", "200"},
		{"/", "r:status_reason()", "OK"},
		{"/", "r:status_is_success()", "true"},
		{"/", "r:status_is_client_error() or r:status_is_server_error() or r:status_is_redirection() or r:status_is_informational()", "false"},
		{"/", "#r:bytes()", "3"},
		{"/", "#r:text()", "5"},
		{"/", "r:bytes() and select(2, pcall(r.text, r))", "broken response wrapper: the body was read already"},
		{"/", "r:text() and select(2, pcall(r.bytes, r))", "broken response wrapper: the body was read already"},
		{"/", "r:text() and r:status_code() .. r:headers()['x-many'] .. r:content_length()", "200one3"},
		{"/", "r:content_length()", "3"},
		{"/chunked", "r:content_length()", "nil"},
		{"/", "r:headers()['x-MANY']", "one"},
		{"/", "r:headers().absent", "nil"},
		{"/", "(function() local t = {} for k, v in pairs(r:headers()) do if k == 'x-many' then t[#t + 1] = v end end return table.concat(t, ',') end)()", "one,two"},
		{"/redirect", "r:text()", "a\uFFFDb"},
		{"/odd", "r:status_code() .. tostring(r:status_reason()) .. tostring(r:status_is_server_error())", "599niltrue"},
		{"/error", "r:status_is_server_error()", "true"},
		{"/long", "r:status_code()", "200"},
		{"/long", "select(2, pcall(r.text, r))", "the response body is longer than 1000 bytes"},
	} {
		got, err := eval(t, o, "function run(url) local r = kumo.http.build_client {}:get(url):send() return "+test.expr+" end", lua.LString(base+test.path))
		if err != nil || got != test.want && !strings.HasSuffix(got, test.want) {
			t.Errorf("%s %s: %q, %v, want %q", test.path, test.expr, got, err, test.want)
		}
	}
}

func TestHTTPErrors(t *testing.T) {
	base := serve(t, echo)
	hijacked := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
	})
	for _, test := range []struct{ source, want string }{
		{"kumo.http.build_client()", "table expected"},
		{"kumo.http.build_client { time_out = 1 }", `build_client: there is no option "time_out"`},
		{"kumo.http.build_client { timeout = 'soon' }", "build_client: timeout: want a number of seconds"},
		{"kumo.http.build_client { timeout = -1 }", "timeout: want a number of seconds"},
		{"kumo.http.build_client { user_agent = {} }", "user_agent: want a string, got a table"},
		{"kumo.http.build_client { accept_invalid_certs = 1 }", "accept_invalid_certs: want true or false"},
		{"c:get('x'):send()", "want a URL that begins with http://"},
		{"c:get('file:///etc/passwd'):send()", "want a URL that begins with http://"},
		{"c:get(':'):send()", "missing protocol scheme"},
		{"c:get(hijacked):send()", "EOF"},
		{"c:get('http://127.0.0.1:1/'):send()", "connection refused"},
		{"c:get(base):header('a b', 'c'):send()", "invalid header field name"},
		{"c:get(base):header('a', 'b\\r\\nc: d'):send()", "invalid header field value"},
		{"c:get(base):headers { a = {} }", "names and values must be strings"},
		{"c:get(base):timeout({})", "want a number of seconds"},
		{"local r = c:get(base) r:send() r:send()", "was sent already"},
		{"c:close() c:get(base):send()", "client was closed"},
		{"c.get(base)", "call its methods with a colon"},
		{"c:get(base):aws_sign_v4 {}", "request:aws_sign_v4 is not available"},
	} {
		_, err := eval(t, stubs(), fmt.Sprintf("function run() local base, hijacked, c = %q, %q, kumo.http.build_client {} %s end", base, hijacked, test.source))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "policy.lua:1: ") {
			t.Errorf("%s: %v, want %s", test.source, err, test.want)
		}
	}
}

// hang answers nothing until the client has gone or the test is over.
func hang(t testing.TB) (url string, asked <-chan struct{}) {
	seen, over := make(chan struct{}, 16), make(chan struct{})
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-over:
		}
	})
	t.Cleanup(func() { close(over) }) // runs before the server is closed
	return url, seen
}

// On a real connection too; see TestTimeouts for the rest.
func TestHTTPHangs(t *testing.T) {
	silent, asked := hang(t)
	s := newState(t, stubs(), `function wait(url, d) return kumo.http.build_client {}:get(url):timeout(d):send():status_code() end`)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the runtime closes")
	go func() {
		<-asked
		cancel(gone)
	}()
	if _, err := s.Call(ctx, 1, s.L.GetGlobal("wait"), lua.LString(silent), lua.LNumber(3600)); !errors.Is(err, gone) {
		t.Error("the call's context:", err)
	}
}

func TestHTTPTransports(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(echo))
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var log bytes.Buffer
	own := stubs()
	own.Logger = slog.New(slog.NewTextHandler(&log, nil))
	hosts := stubs()
	hosts.HTTP = server.Client().Transport
	const get = "function run(url) return kumo.http.build_client { %s }:get(url):send():status_code() end"
	for _, test := range []struct {
		o            *Options
		options, err string
	}{
		{own, "", "certificate"},
		{own, "accept_invalid_certs = true, connection_verbose = true", ""},
		{hosts, "", ""},
		{hosts, "pool_idle_timeout = 1", ""},
		{hosts, "accept_invalid_certs = true", ""},
	} {
		got, err := eval(t, test.o, fmt.Sprintf(get, test.options), lua.LString(server.URL))
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) || err == nil && got != "200" {
			t.Errorf("%s: %s, %v", test.options, got, err)
		}
	}
	if len(own.own.made) != 2 || !strings.Contains(log.String(), "status=200") {
		t.Errorf("%d transports, log %s", len(own.own.made), &log)
	}
	own.Close()
	hosts.Close()

	foreign := stubs()
	foreign.HTTP = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errStub })
	if _, err := eval(t, foreign, fmt.Sprintf(get, ""), lua.LString(server.URL)); !errors.Is(err, errStub) {
		t.Error(err)
	}
	if _, err := eval(t, foreign, fmt.Sprintf(get, "accept_invalid_certs = true"), lua.LString(server.URL)); err == nil ||
		!strings.Contains(err.Error(), "accept_invalid_certs is not available") {
		t.Error(err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The webhook policy from end to end: what the service says becomes what the policy says.
func TestWebhook(t *testing.T) {
	source, err := os.ReadFile("testdata/webhook.lua")
	if err != nil {
		t.Fatal(err)
	}
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			http.Error(w, "later", http.StatusTooManyRequests)
		case "/broken":
			http.Error(w, "oops", http.StatusInternalServerError)
		case "/wrong":
			http.Error(w, "what", http.StatusBadRequest)
		default:
			echo(w, r)
		}
	})
	s := newState(t, stubs(), string(source))
	results, _, err := Call(t.Context(), s, "make.hook", lua.LString("hook"), lua.LString("tenant"), lua.LNil)
	if err != nil {
		t.Fatal(err)
	}
	connection := results[0]
	send, err := s.Index(t.Context(), connection, "send")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path, want string
		code       int
	}{
		{"/ok", `POST /ok host=`, 0}, {"/busy", "429 Too Many Requests: later", 400},
		{"/broken", "500 Internal Server Error: oops", 400}, {"/wrong", "400 Bad Request: what", 500},
		{"/ok", `{\"from\":\"from@b.example\",\"id\":\"0123\",\"tenant\":\"tenant\",\"to\":[\"\\\"jane doe\\\"@a.example\"],\"tries\":3}`, 0},
	} {
		m := NewMessage(s.L, &letter{to: []Address{jane}, meta: map[string]any{"url": base + test.path}})
		results, err := s.Call(t.Context(), 1, send, connection, m)
		rejection, rejected := AsRejection(err)
		switch {
		case test.code != 0:
			if !rejected || rejection.Code != test.code || !strings.Contains(rejection.Text, test.want) {
				t.Errorf("%s: %v, %v", test.path, rejection, err)
			}
		case err != nil || !strings.Contains(results[0].String(), test.want):
			t.Errorf("%s: %v, %v", test.path, results, err)
		}
	}
	for _, name := range []string{"close"} {
		method, err := s.Index(t.Context(), connection, name)
		if err == nil {
			_, err = s.Call(t.Context(), 0, method, connection)
		}
		if err != nil {
			t.Error(name, err)
		}
	}
}

// Many states of one program and one Options at once.
func TestPoolOfPolicies(t *testing.T) {
	base := serve(t, echo)
	source, err := os.ReadFile("testdata/webhook.lua")
	if err != nil {
		t.Fatal(err)
	}
	program, err := luastate.Compile("webhook.lua", source)
	if err != nil {
		t.Fatal(err)
	}
	o := stubs()
	o.Ignored = func(string) {}
	pool := &luastate.Pool{MaxUses: 5, New: func(ctx context.Context) (*luastate.State, error) {
		return program.NewState(ctx, luastate.Options{Limits: luastate.Limits{Running: -1}, Setup: func(L *lua.LState) error {
			Install(L, o)
			return nil
		}})
	}}
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 20 {
				if err := deliverOnce(t.Context(), pool, base); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	pool.Close()
	o.Close()
}

func deliverOnce(ctx context.Context, pool *luastate.Pool, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := pool.Get(ctx)
	if err != nil {
		return err
	}
	defer pool.Put(s)
	if _, _, err := Call(ctx, s, "init"); err != nil {
		return err
	}
	results, _, err := Call(ctx, s, "make.hook", lua.LString("hook"))
	if err != nil {
		return err
	}
	send, err := s.Index(ctx, results[0], "send")
	if err != nil {
		return err
	}
	m := NewMessage(s.L, &letter{to: []Address{jane}, meta: map[string]any{"url": url}})
	defer Expire(m)
	_, err = s.Call(ctx, 1, send, results[0], m)
	return err
}
