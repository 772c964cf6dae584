package kumo

import (
	"fmt"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// maxEventArgs bounds the arguments that a policy gives an event of its own.
const maxEventArgs = 100

// ask runs the handlers of an event in this very state, as Call does from outside. What a handler raises goes up
// from here.
func (m *module) ask(L *lua.LState, event string, args ...lua.LValue) (results []lua.LValue, handled bool) {
	m.depth++
	defer func() { m.depth-- }()
	defer forbidYield(L)()
	handlers := m.handlers[event]
	top := L.GetTop()
	for _, h := range handlers {
		L.Push(h.fn)
		for _, arg := range args {
			L.Push(arg)
		}
		L.Call(len(args), lua.MultRet)
		for i := top + 1; i <= L.GetTop(); i++ {
			results = append(results, L.Get(i))
		}
		L.SetTop(top)
		if len(results) > 0 {
			return results, true
		}
	}
	return nil, len(handlers) > 0 && !slices.Contains(manyHandlers, event)
}

// forbidYield makes coroutine.yield an error until restore is called: the machine cannot leave a Go function and come
// back into it.
func forbidYield(L *lua.LState) (restore func()) {
	parent := L.Parent
	L.Parent = nil
	return func() { L.Parent = parent }
}

// Plainer is a value of Options.Make whose fields Lua cannot index and the functions invoke_get_* show all the same.
type Plainer interface{ Plain() (any, error) }

// plainConfig is a config as a table of its own, with its defaults.
func plainConfig(value any) (any, error) {
	switch v := value.(type) {
	case luastate.Treer:
		return v.Tree()
	case Plainer:
		return v.Plain()
	}
	return nil, fmt.Errorf("a value of the type %T has no fields to show", value)
}

// invoke asks the policy for a config and returns it as a table. Without an answer it is the one with all defaults,
// or an error if required.
func (m *module) invoke(L *lua.LState, event, maker string, required bool, args ...lua.LValue) int {
	var value any
	results, handled := m.ask(L, event, args...)
	switch {
	case handled && len(results) > 0:
		var ok bool
		if value, ok = Config(results[0]); !ok {
			L.RaiseError("the event %s returned a %s, not what kumo.%s makes", event, results[0].Type().String(), maker)
		}
	case handled:
		L.RaiseError("the event %s returned nothing", event)
	case required:
		L.RaiseError("the event %s has no handler", event)
	default:
		value = m.makeDefault(L, maker, m.options.Empty)
	}
	tree, err := plainConfig(value)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("invoke_%s: %w", event, err))
	}
	L.Push(luastate.FromTree(L, tree))
	return 1
}

func (m *module) makeDefault(L *lua.LState, maker string, from any) any {
	makeValue, ok := m.options.Make[maker]
	if !ok {
		L.RaiseError("kumo.%s is not available here", maker)
	}
	value, err := makeValue(from)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("kumo.%s: %w", maker, err))
	}
	return value
}

// invokeQueueConfig is kumo.invoke_get_queue_config(queue name).
func (m *module) invokeQueueConfig(L *lua.LState) int {
	domain, tenant, campaign, routing := splitQueueName(L.CheckString(1))
	return m.invoke(L, "get_queue_config", "make_queue_config", false, domain, tenant, campaign, routing)
}

// invokePathConfig is kumo.invoke_get_egress_path_config(routing domain, source, site).
func (m *module) invokePathConfig(L *lua.LState) int {
	return m.invoke(L, "get_egress_path_config", "make_egress_path", false,
		lua.LString(L.CheckString(1)), lua.LString(L.CheckString(2)), lua.LString(L.CheckString(3)))
}

// unspecified is the name of the pool and of the source that no event is asked for.
const unspecified = "unspecified"

// invokeSource is kumo.invoke_get_egress_source(name).
func (m *module) invokeSource(L *lua.LState) int {
	name := L.CheckString(1)
	if name == unspecified {
		return m.pushDefault(L, "make_egress_source", map[string]any{"name": name})
	}
	return m.invoke(L, "get_egress_source", "make_egress_source", true, lua.LString(name))
}

// invokePool is kumo.invoke_get_egress_pool(name); without a name it is the built-in pool.
func (m *module) invokePool(L *lua.LState) int {
	name := L.OptString(1, unspecified)
	if name == unspecified {
		return m.pushDefault(L, "make_egress_pool", map[string]any{"name": name,
			"entries": []any{map[string]any{"name": unspecified}}})
	}
	return m.invoke(L, "get_egress_pool", "make_egress_pool", true, lua.LString(name))
}

func (m *module) pushDefault(L *lua.LState, maker string, from any) int {
	tree, err := plainConfig(m.makeDefault(L, maker, from))
	if err != nil {
		luastate.Raise(L, err)
	}
	L.Push(luastate.FromTree(L, tree))
	return 1
}

// splitQueueName takes campaign:tenant@domain!routing_domain apart; what is not there is nil.
func splitQueueName(name string) (domain, tenant, campaign, routing lua.LValue) {
	tenant, campaign, routing = lua.LNil, lua.LNil, lua.LNil
	rest := name
	if left, right, ok := strings.Cut(name, "@"); ok {
		rest = right
		first, second, both := strings.Cut(left, ":")
		if both {
			campaign, tenant = lua.LString(first), lua.LString(second)
		} else {
			tenant = lua.LString(left)
		}
	}
	host, way, ok := strings.Cut(rest, "!")
	if ok {
		routing = lua.LString(way)
	}
	return lua.LString(host), tenant, campaign, routing
}
