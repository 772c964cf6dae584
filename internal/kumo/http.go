package kumo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Upstream's defaults of kumo.http.build_client.
const (
	requestTimeout  = 60 * time.Second
	poolIdleTimeout = 90 * time.Second
)

const (
	defaultUserAgent   = "delivery"
	defaultMaxResponse = 16 << 20
)

// transportKey tells the transports of an Options apart.
type transportKey struct {
	insecure bool
	idle     time.Duration
}

// transport finds or makes what carries a client's requests. The clients of all states share it, and
// with it the connections.
func (o *Options) transport(key transportKey) (http.RoundTripper, error) {
	if o.HTTP != nil && key == (transportKey{idle: poolIdleTimeout}) {
		return o.HTTP, nil
	}
	base, ok := o.HTTP.(*http.Transport)
	switch {
	case ok:
	case o.HTTP == nil:
		base = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64}
	case key.insecure:
		return nil, errors.New("accept_invalid_certs is not available: the host has its own HTTP transport")
	default:
		return o.HTTP, nil // how long its connections stay is the host's affair
	}
	store := o.Transports
	if store == nil {
		store = &o.own
	}
	return store.get(key, base), nil
}

// Transports are the transports that policies have asked for by other settings than the host's. Many
// Options may share one. The zero value is ready for use, by many goroutines.
type Transports struct {
	mu   sync.Mutex
	made map[transportKey]*http.Transport
}

func (s *Transports) get(key transportKey, base *http.Transport) *http.Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.made[key]; ok {
		return t
	}
	t := base.Clone()
	t.IdleConnTimeout = key.idle
	if key.insecure {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{}
		}
		t.TLSClientConfig.InsecureSkipVerify = true // the policy has asked for it by name
	}
	if s.made == nil {
		s.made = map[transportKey]*http.Transport{}
	}
	s.made[key] = t
	return t
}

// Close closes the idle connections. Requests that are under way end with their calls.
func (s *Transports) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.made {
		t.CloseIdleConnections()
	}
}

// Close closes the transports that this Options has made for itself: those of Options.Transports and
// Options.HTTP are the host's to close.
func (o *Options) Close() { o.own.Close() }

// client is what kumo.http.build_client returns.
type client struct {
	module    *module
	http      http.Client
	userAgent string
	timeout   time.Duration
	verbose   bool
	closed    bool
}

// buildClient is kumo.http.build_client{...}.
func (m *module) buildClient(L *lua.LState) int {
	c := &client{module: m, userAgent: defaultUserAgent, timeout: requestTimeout}
	key := transportKey{idle: poolIdleTimeout}
	L.CheckTable(1).ForEach(func(k, v lua.LValue) {
		if err := c.set(&key, k.String(), v); err != nil {
			luastate.Raise(L, fmt.Errorf("kumo.http.build_client: %w", err))
		}
	})
	transport, err := m.options.transport(key)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("kumo.http.build_client: %w", err))
	}
	c.http.Transport = transport
	L.Push(m.object(L, "http client", c, clientMethods))
	return 1
}

func clientMethods() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"get":   newRequest(http.MethodGet),
		"post":  newRequest(http.MethodPost),
		"put":   newRequest(http.MethodPut),
		"close": closeClient,
	}
}

// set takes one option.
func (c *client) set(key *transportKey, option string, v lua.LValue) (err error) {
	switch option {
	case "user_agent":
		c.userAgent, err = textOf(v)
	case "timeout":
		c.timeout, err = c.module.duration(v)
	case "pool_idle_timeout":
		key.idle, err = c.module.duration(v)
	case "accept_invalid_certs":
		key.insecure, err = boolOf(v)
	case "connection_verbose":
		c.verbose, err = boolOf(v)
	default:
		return fmt.Errorf("there is no option %q", option)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	return nil
}

func textOf(v lua.LValue) (string, error) {
	text, ok := v.(lua.LString)
	if !ok {
		return "", fmt.Errorf("want a string, got a %s", v.Type().String())
	}
	return string(text), nil
}

func boolOf(v lua.LValue) (bool, error) {
	b, ok := v.(lua.LBool)
	if !ok {
		return false, fmt.Errorf("want true or false, got a %s", v.Type().String())
	}
	return bool(b), nil
}

// object is a userdata with methods.
func (m *module) object(L *lua.LState, name string, value any, methods func() map[string]lua.LGFunction) *lua.LUserData {
	mt := m.metatable(L, name, func(L *lua.LState, mt *lua.LTable) {
		table := L.CreateTable(0, 16)
		addAll(L, table, methods())
		mt.RawSetString("__index", table)
	})
	return &lua.LUserData{Value: value, Env: L.Env, Metatable: mt}
}

func checkObject[T any](L *lua.LState, what string) T {
	ud, _ := L.Get(1).(*lua.LUserData)
	if ud != nil {
		if v, ok := ud.Value.(T); ok {
			return v
		}
	}
	L.ArgError(1, what+" expected: call its methods with a colon")
	var none T // ArgError does not return
	return none
}

func closeClient(L *lua.LState) int {
	// The connections are shared; they stay for other clients until they have been idle for long enough.
	checkObject[*client](L, "http client").closed = true
	return 0
}

// request is what client:get(url) and its siblings return.
type request struct {
	client  *client
	method  string
	url     string
	header  http.Header
	body    string
	timeout time.Duration
	sent    bool
}

func newRequest(method string) lua.LGFunction {
	return func(L *lua.LState) int {
		c := checkObject[*client](L, "http client")
		r := &request{client: c, method: method, url: L.CheckString(2), header: http.Header{}, timeout: c.timeout}
		L.Push(c.module.object(L, "http request", r, requestMethods))
		return 1
	}
}

func requestMethods() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"header": requestSetter(func(L *lua.LState, r *request) {
			r.header.Add(L.CheckString(2), L.CheckString(3))
		}),
		"headers": requestSetter(func(L *lua.LState, r *request) {
			eachText(L, func(name, value string) { r.header.Add(name, value) })
		}),
		"timeout": requestSetter(func(L *lua.LState, r *request) {
			d, err := r.client.module.duration(L.Get(2))
			if err != nil {
				L.ArgError(2, err.Error())
			}
			r.timeout = d
		}),
		"basic_auth": requestSetter(func(L *lua.LState, r *request) {
			credentials := http.Request{Header: r.header}
			credentials.SetBasicAuth(L.CheckString(2), L.OptString(3, ""))
		}),
		"bearer_auth": requestSetter(func(L *lua.LState, r *request) {
			r.header.Set("Authorization", "Bearer "+L.CheckString(2))
		}),
		"body": requestSetter(func(L *lua.LState, r *request) {
			r.body = L.CheckString(2)
		}),
		"form_url_encoded": requestSetter(func(L *lua.LState, r *request) {
			form := url.Values{}
			eachText(L, form.Add)
			r.body = form.Encode()
			r.header.Set("Content-Type", "application/x-www-form-urlencoded")
		}),
		"form_multipart_data": absent("request:form_multipart_data"),
		"aws_sign_v4":         absent("request:aws_sign_v4"),
		"send":                sendRequest,
	}
}

// requestSetter is a method that changes a request and returns it.
func requestSetter(set func(L *lua.LState, r *request)) lua.LGFunction {
	return func(L *lua.LState) int {
		set(L, checkObject[*request](L, "http request"))
		L.Push(L.Get(1))
		return 1
	}
}

// eachText visits the fields of the table that is the second argument.
func eachText(L *lua.LState, visit func(name, value string)) {
	L.CheckTable(2).ForEach(func(k, v lua.LValue) {
		if !lua.LVCanConvToString(k) || !lua.LVCanConvToString(v) {
			L.ArgError(2, "names and values must be strings, got "+k.Type().String()+" and "+v.Type().String())
		}
		visit(k.String(), v.String())
	})
}

func sendRequest(L *lua.LState) int {
	r := checkObject[*request](L, "http request")
	c := r.client
	switch {
	case r.sent:
		L.RaiseError("the request was sent already: build a new one")
	case c.closed:
		L.RaiseError("the http client is closed")
	}
	r.sent = true
	ctx, cancel := context.WithTimeout(contextOf(L), r.timeout)
	defer cancel()
	started := time.Now()
	resp, err := r.do(ctx)
	if c.verbose {
		c.module.logExchange(ctx, r, resp, err, time.Since(started))
	}
	if err != nil {
		luastate.Raise(L, err)
	}
	L.Push(c.module.object(L, "http response", resp, responseMethods))
	return 1
}

func (r *request) do(ctx context.Context) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.Host == "" {
		return nil, fmt.Errorf("%s %q: want a URL that begins with http:// or https:// and names a host", r.method, r.url)
	}
	req.Header = r.header
	if host := r.header.Get("Host"); host != "" {
		req.Host = host
	}
	if r.header.Get("User-Agent") == "" {
		r.header.Set("User-Agent", r.client.userAgent)
	}
	resp, err := r.client.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	// The body is read at once: Lua may never ask for it, and then nobody would free the connection.
	limit := r.client.module.options.MaxResponse
	if limit == 0 {
		limit = defaultMaxResponse
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		err = fmt.Errorf("%s %q: response body: %w", r.method, r.url, err)
	case int64(len(body)) > limit:
		err = fmt.Errorf("%s %q: the response body is longer than %d bytes", r.method, r.url, limit)
	}
	return &response{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, body: body, bodyErr: err}, nil
}
