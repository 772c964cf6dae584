package kumo

import (
	"fmt"
	"net/http"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// requestTimeout is upstream's default of kumo.http.build_client.
const requestTimeout = 60 * time.Second

const defaultUserAgent = "delivery"

func (m *module) httpFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"build_client": m.buildClient, "build_url": buildURL}
}

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
	c.http.Transport, c.http.CheckRedirect = transport, redirect
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
		if c.userAgent, err = textOf(v); err == nil {
			err = checkHeader("User-Agent", c.userAgent)
		}
	case "timeout":
		c.timeout, err = c.module.duration(v)
	case "pool_idle_timeout":
		key.idle, err = c.module.duration(v)
		key.idle = idleStep(key.idle)
	case "accept_invalid_certs":
		key.insecure, err = boolOf(v)
	case "connection_verbose":
		c.verbose, err = boolOf(v)
	default:
		return fmt.Errorf("there is no option %.100q", option)
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

func newRequest(method string) lua.LGFunction {
	return func(L *lua.LState) int {
		c := checkObject[*client](L, "http client")
		if c.closed {
			L.RaiseError("client was closed")
		}
		r := &request{client: c, method: method, url: L.CheckString(2), header: http.Header{}, timeout: c.timeout}
		L.Push(c.module.object(L, "http request", r, requestMethods))
		return 1
	}
}
