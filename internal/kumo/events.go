package kumo

import (
	"context"
	"slices"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Events with many handlers: asked in the order of their registration until one returns a value.
var manyHandlers = []string{
	"get_queue_config", "requeue_message", "throttle_insert_ready_queue", "should_enqueue_log_record",
	"pre_init", "validate_config", "get_acl_definition",
}

// Upstream's events with one handler.
var oneHandler = []string{
	"init", "get_egress_path_config", "get_egress_source", "get_egress_pool", "get_listener_domain",
	"smtp_client_rewrite_delivery_status", "spool_message_enumerated", "rebind_message",
	"xfer_message_received", "http_message_generated", "tsa_init", "tsa_load_shaping_data",
}

// IsBuiltinEvent reports whether name is an event of upstream's own, which a custom_lua constructor
// must not take.
func IsBuiltinEvent(name string) bool {
	return slices.Contains(manyHandlers, name) || slices.Contains(oneHandler, name) ||
		strings.HasPrefix(name, "smtp_server_") || strings.HasPrefix(name, "http_server_") ||
		strings.HasPrefix(name, "proxy_server_")
}

type handler struct {
	fn      *lua.LFunction
	where   string
	callers []string // the lines that led to its registration, the innermost first
}

// on is kumo.on(event, fn).
func (m *module) on(L *lua.LState) int {
	event, fn := L.CheckString(1), L.CheckFunction(2)
	if m.depth > 0 || luastate.Loaded(L) {
		// A handler registered while an event is handled would exist in this state and in no other.
		L.RaiseError("kumo.on(%q) inside an event handler: handlers are registered where the policy is loaded", event)
	}
	if first := m.handlers[event]; len(first) > 0 && !slices.Contains(manyHandlers, event) {
		L.RaiseError("the event %q has a handler already, registered at %s", event, first[0].where)
	}
	m.handlers[event] = append(m.handlers[event], &handler{fn, position(L), callers(L)})
	return 0
}

// position is where the Lua code stands that is calling, "file:line".
func position(L *lua.LState) string {
	file, line := luastate.Where(L)
	if file == "" {
		return "?"
	}
	return file + ":" + strconv.Itoa(line)
}

// Handles reports whether an event has a handler.
func Handles(L *lua.LState, event string) bool { return len(moduleOf(L).handlers[event]) > 0 }

// Call runs the handlers of an event. Those of an event with many are called in the order of their
// registration, and one that returns no value passes on to the next; nil is a value. Results are all
// values that were returned. Handled is false if there is no handler or all have passed on; an event
// with one handler is handled if it has one, also without results. The error is that of
// luastate.State.Call.
func Call(ctx context.Context, s *luastate.State, event string, args ...lua.LValue) (results []lua.LValue, handled bool, err error) {
	m := moduleOf(s.L)
	m.depth++
	defer func() { m.depth-- }()
	handlers := m.handlers[event]
	for _, h := range handlers {
		results, err = s.Call(ctx, lua.MultRet, h.fn, args...)
		if err != nil {
			return nil, true, err
		}
		if len(results) > 0 {
			return results, true, nil
		}
	}
	return nil, len(handlers) > 0 && !slices.Contains(manyHandlers, event), nil
}
