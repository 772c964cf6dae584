package kumo

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// response is what request:send() returns. A body that could not be read is an error when Lua asks
// for it, and not before: the status may be all that a policy wants. Lua gets the body once: it need not
// be kept twice.
type response struct {
	status  int
	header  http.Header
	length  int64 // as the server said, negative if it did not
	body    []byte
	bodyErr error
	taken   bool
}

func responseMethods() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"status_code":             responseValue(func(r *response) lua.LValue { return lua.LNumber(r.status) }),
		"status_reason":           responseValue(statusReason),
		"status_is_informational": statusIs(1),
		"status_is_success":       statusIs(2),
		"status_is_redirection":   statusIs(3),
		"status_is_client_error":  statusIs(4),
		"status_is_server_error":  statusIs(5),
		"content_length":          responseValue(contentLength),
		"headers":                 responseHeaders,
		"text":                    responseText,
		"bytes":                   responseBody,
	}
}

func responseValue(value func(r *response) lua.LValue) lua.LGFunction {
	return func(L *lua.LState) int {
		L.Push(value(checkObject[*response](L, "http response")))
		return 1
	}
}

func statusIs(class int) lua.LGFunction {
	return responseValue(func(r *response) lua.LValue { return lua.LBool(r.status/100 == class) })
}

// statusReason is what HTTP calls the code; what the server called it is not passed on.
func statusReason(r *response) lua.LValue {
	if reason := http.StatusText(r.status); reason != "" {
		return lua.LString(reason)
	}
	return lua.LNil
}

func contentLength(r *response) lua.LValue {
	if r.length < 0 {
		return lua.LNil
	}
	return lua.LNumber(r.length)
}

func responseBody(L *lua.LState) int {
	L.Push(lua.LString(checkObject[*response](L, "http response").take(L)))
	return 1
}

// responseText is the body as text: whatever the server sent, it is UTF-8 then.
func responseText(L *lua.LState) int {
	r := checkObject[*response](L, "http response")
	text, err := decodeText(contextOf(L), r.take(L), r.header.Get("Content-Type"))
	if err != nil {
		luastate.Raise(L, err)
	}
	L.Push(lua.LString(text))
	return 1
}

func (r *response) take(L *lua.LState) (body []byte) {
	switch {
	case r.bodyErr != nil:
		luastate.Raise(L, r.bodyErr)
	case r.taken:
		L.RaiseError("broken response wrapper: the body was read already")
	}
	body, r.body, r.taken = r.body, nil, true
	return body
}

// responseHeaders is an object that is indexed in any case; pairs gives each value with its name in
// lower case.
func responseHeaders(L *lua.LState) int {
	r := checkObject[*response](L, "http response")
	mt := moduleOf(L).metatable(L, "http headers", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{"__index": headersIndex, "__pairs": headersPairs})
	})
	L.Push(&lua.LUserData{Value: r.header, Env: L.Env, Metatable: mt})
	return 1
}

func headersIndex(L *lua.LState) int {
	values := checkObject[http.Header](L, "http headers").Values(L.CheckString(2))
	if len(values) == 0 {
		return 0
	}
	L.Push(lua.LString(values[0]))
	return 1
}

func headersPairs(L *lua.LState) int {
	type field struct{ name, value string }
	var fields []field
	header := checkObject[http.Header](L, "http headers")
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			fields = append(fields, field{strings.ToLower(name), value})
		}
	}
	next := 0
	L.Push(L.NewFunction(func(L *lua.LState) int {
		if next == len(fields) {
			return 0
		}
		L.Push(lua.LString(fields[next].name))
		L.Push(lua.LString(fields[next].value))
		next++
		return 2
	}))
	return 1
}

// logExchange is what connection_verbose asks for: the last connection and what became of the request.
// The URL may hold a password.
func (m *module) logExchange(ctx context.Context, r *request, resp *response, err error, conn *httptrace.GotConnInfo, took time.Duration) {
	logger := m.options.Logger
	if logger == nil {
		logger = slog.Default()
	}
	attrs := []slog.Attr{slog.String("method", r.method), slog.String("url", redacted(r.url)), slog.Duration("took", took)}
	if conn != nil {
		attrs = append(attrs, slog.String("peer", conn.Conn.RemoteAddr().String()), slog.Bool("reused", conn.Reused))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", luastate.Message(err)))
	} else {
		attrs = append(attrs, slog.Int("status", resp.status))
	}
	logger.LogAttrs(ctx, slog.LevelInfo, "kumo.http", attrs...)
}

// maxShownURL bounds a URL in an error or a log: a server may redirect to one of a megabyte.
const maxShownURL = 1 << 10

// redacted is a URL without its password, as far as it is shown.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(no URL)"
	}
	shown := u.Redacted()
	if len(shown) > maxShownURL {
		shown = strings.ToValidUTF8(shown[:maxShownURL], "") + "…"
	}
	return shown
}
