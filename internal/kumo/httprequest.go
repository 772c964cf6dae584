package kumo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/net/http/httpguts"

	"github.com/mtadelivery/delivery/internal/luastate"
)

const (
	defaultMaxResponse = 16 << 20

	// maxHeaders bounds the names and values of a request's headers: no server takes more.
	maxHeaders = 256 << 10
)

// request is what client:get(url) and its siblings return.
type request struct {
	client  *client
	method  string
	url     string
	header  http.Header
	size    int // of the header
	body    string
	timeout time.Duration
	sent    bool
}

func requestMethods() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"header": requestSetter(func(L *lua.LState, r *request) {
			r.addHeader(L, L.CheckString(2), L.CheckString(3))
		}),
		"headers": requestSetter(func(L *lua.LState, r *request) {
			eachText(L, 2, func(name, value string) { r.addHeader(L, name, value) })
		}),
		"timeout": requestSetter(func(L *lua.LState, r *request) {
			d, err := r.client.module.duration(L.Get(2))
			if err != nil {
				L.ArgError(2, err.Error())
			}
			r.timeout = d
		}),
		"basic_auth": requestSetter(func(L *lua.LState, r *request) {
			credentials := http.Request{Header: http.Header{}}
			credentials.SetBasicAuth(L.CheckString(2), L.OptString(3, ""))
			r.setHeader(L, "Authorization", credentials.Header.Get("Authorization"))
		}),
		"bearer_auth": requestSetter(func(L *lua.LState, r *request) {
			r.setHeader(L, "Authorization", "Bearer "+L.CheckString(2))
		}),
		"body": requestSetter(func(L *lua.LState, r *request) {
			r.body = L.CheckString(2)
		}),
		"form_url_encoded": requestSetter(func(L *lua.LState, r *request) {
			r.body = formOf(L, 2)
			r.setHeader(L, "Content-Type", "application/x-www-form-urlencoded")
		}),
		"form_multipart_data": absent("request:form_multipart_data"),
		"aws_sign_v4":         absent("request:aws_sign_v4"),
		"send":                sendRequest,
	}
}

// requestSetter is a method that changes a request and returns it.
func requestSetter(set func(L *lua.LState, r *request)) lua.LGFunction {
	return func(L *lua.LState) int {
		set(L, unsent(L))
		L.Push(L.Get(1))
		return 1
	}
}

// unsent is the request whose method was called: it is used up when it has been sent.
func unsent(L *lua.LState) *request {
	r := checkObject[*request](L, "http request")
	if r.sent {
		L.RaiseError("broken request builder: the request was sent already")
	}
	return r
}

func (r *request) addHeader(L *lua.LState, name, value string) {
	if err := checkHeader(name, value); err != nil {
		luastate.Raise(L, err)
	}
	if r.size += len(name) + len(value); r.size > maxHeaders {
		L.RaiseError("the headers of the request are longer than %d bytes", maxHeaders)
	}
	r.header.Add(name, value)
}

func (r *request) setHeader(L *lua.LState, name, value string) {
	r.header.Del(name)
	r.addHeader(L, name, value)
}

// checkHeader refuses what would be more than one header field on the wire. The transport may be the
// host's own, and need not look.
func checkHeader(name, value string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("invalid header field name %.100q", name)
	case !httpguts.ValidHeaderFieldValue(value): // which may be a secret
		return fmt.Errorf("invalid header field value for %.100q", name)
	}
	return nil
}

func sendRequest(L *lua.LState) int {
	r := unsent(L)
	r.sent = true
	resp, err := outside(L, r.exchange)
	r.header, r.body = nil, ""
	if err != nil {
		luastate.Raise(L, err)
	}
	L.Push(r.client.module.object(L, "http response", resp, responseMethods))
	return 1
}

// exchange sends the request and reads all of the response: Lua may never ask for the body, and then
// nobody would free the connection.
func (r *request) exchange(ctx context.Context) (*response, error) {
	limited, cancel := context.WithTimeoutCause(ctx, r.timeout, &slowError{r.timeout})
	defer cancel()
	started := time.Now()
	var conn atomic.Pointer[httptrace.GotConnInfo]
	if r.client.verbose {
		limited = httptrace.WithClientTrace(limited, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { conn.Store(&got) }})
	}
	resp, err := r.do(limited)
	if r.client.verbose {
		r.client.module.logExchange(ctx, r, resp, err, conn.Load(), time.Since(started))
	}
	if resp != nil && resp.bodyErr != nil && ctx.Err() != nil {
		return nil, resp.bodyErr
	}
	return resp, err
}

func (r *request) do(ctx context.Context) (*response, error) {
	req, err := r.build(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.http.Do(req)
	if err != nil {
		return nil, requestError(ctx, r.url, err)
	}
	defer resp.Body.Close()
	read := &response{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength}
	read.body, read.bodyErr = readBody(resp, r.client.module.options.MaxResponse)
	if read.bodyErr != nil {
		read.bodyErr = fmt.Errorf("error reading the response body for url (%s): %w", redacted(r.url), causeOf(ctx, read.bodyErr))
	}
	return read, nil
}

func (r *request) build(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.method, invalidURL(r.url, err))
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.Host == "" {
		return nil, fmt.Errorf("%s %q: want a URL that begins with http:// or https:// and names a host", r.method, redacted(r.url))
	}
	req.Header = r.header
	if host := r.header.Get("Host"); host != "" {
		req.Host = host
		r.header.Del("Host")
	}
	if _, ok := r.header["User-Agent"]; !ok {
		r.header.Set("User-Agent", r.client.userAgent)
	}
	return req, nil
}

// readBody reads no more than limit bytes; 0: the default.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	if limit == 0 {
		limit = defaultMaxResponse
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, nil // what follows is no body, and has no end
	}
	if resp.ContentLength <= limit {
		body, err := io.ReadAll(io.LimitReader(resp.Body, max(limit, limit+1)))
		if err != nil || int64(len(body)) <= limit {
			return body, err
		}
	}
	return nil, fmt.Errorf("the response body is longer than %d bytes", limit)
}

// requestError is a failed exchange in upstream's words. The URL is the one that failed, perhaps at the
// end of redirects.
func requestError(ctx context.Context, address string, err error) error {
	address = redacted(address)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err, address = failed.Err, redacted(failed.URL)
	}
	what := "sending request"
	if errors.Is(err, errRedirects) {
		what = "following redirect"
	}
	return fmt.Errorf("error %s for url (%s): %w", what, address, causeOf(ctx, err))
}

// causeOf is why the context ended, if it has; else err.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// slowError is the end of a request's own time.
type slowError struct{ limit time.Duration }

func (e *slowError) Error() string { return "operation timed out after " + e.limit.String() }

// Is makes it what it would be without a text of its own.
func (e *slowError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout is as net.Error has it.
func (e *slowError) Timeout() bool { return true }
