package kumo

import (
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Address is an envelope address as policies see it. The null sender has all fields empty.
type Address struct {
	User   string // without quotes
	Domain string
	Email  string // the whole, quoted where it must be
}

// Tree makes an address a string wherever a plain value is wanted.
func (a *Address) Tree() (any, error) { return a.Email, nil }

// Message is what Lua sees of a message. Values of Meta are plain trees.
type Message interface {
	ID() string
	Sender() Address
	Recipients() []Address
	Meta(key string) (any, bool)
	SetMeta(key string, v any) error
	QueueName() string
	// Data is the whole message; Lua gets a copy, and it is only asked for when Lua asks.
	Data() ([]byte, error)
	// SetData replaces the message; the slice is the callee's.
	SetData([]byte)
	// NumAttempts counts finished attempts.
	NumAttempts() int
}

// handle is a message in Lua's hands. Without a message it has expired.
type handle struct {
	m Message
}

// NewMessage makes the userdata that events and connection objects get. The message is used only by
// methods that Lua calls.
func NewMessage(L *lua.LState, m Message) *lua.LUserData {
	return &lua.LUserData{Value: &handle{m}, Env: L.Env, Metatable: moduleOf(L).messageType(L)}
}

// Expire ends what NewMessage began: a method called from now on, by a script that kept the message,
// raises an error.
func Expire(ud *lua.LUserData) {
	if h, ok := ud.Value.(*handle); ok {
		h.m = nil
	}
}

func (m *module) messageType(L *lua.LState) *lua.LTable {
	return m.metatable(L, "message", func(L *lua.LState, mt *lua.LTable) {
		methods := L.CreateTable(0, 16)
		addAll(L, methods, map[string]lua.LGFunction{
			"id":             messageID,
			"sender":         m.messageSender,
			"recipient":      m.messageRecipient,
			"recipient_list": m.messageRecipientList,
			"get_meta":       messageGetMeta,
			"set_meta":       messageSetMeta,
			"queue_name":     messageQueueName,
			"get_data":       messageGetData,
			"set_data":       messageSetData,
			"num_attempts":   messageNumAttempts,
		})
		for _, name := range spoolMethods {
			methods.RawSetString(name, L.NewFunction(func(L *lua.LState) int {
				checkMessage(L)
				return 0
			}))
		}
		rest := L.CreateTable(0, 1)
		rest.RawSetString("__index", L.NewFunction(absentMethod))
		methods.Metatable = rest
		mt.RawSetString("__index", methods)
		mt.RawSetString("__tostring", L.NewFunction(func(L *lua.LState) int {
			L.Push(lua.LString("message " + checkMessage(L).ID()))
			return 1
		}))
	})
}

// absentMethod stands for upstream's methods that are not here; any other name is nil.
func absentMethod(L *lua.LState) int {
	name := L.Get(2).String()
	for _, known := range absentMethods {
		if known == name {
			L.Push(L.NewFunction(absent("message:" + name)))
			return 1
		}
	}
	return 0
}

func checkMessage(L *lua.LState) Message {
	ud, ok := L.Get(1).(*lua.LUserData)
	if !ok {
		L.ArgError(1, "message expected: call its methods with a colon, message:id()")
	}
	h, ok := ud.Value.(*handle)
	if !ok {
		L.ArgError(1, "message expected")
	}
	if h.m == nil {
		L.RaiseError("the message is used after the call that it was passed to has ended")
	}
	return h.m
}

func messageID(L *lua.LState) int {
	L.Push(lua.LString(checkMessage(L).ID()))
	return 1
}

func (m *module) messageSender(L *lua.LState) int {
	L.Push(m.address(L, checkMessage(L).Sender()))
	return 1
}

// messageRecipient is nil, the address, or a list of them: as many as there are.
func (m *module) messageRecipient(L *lua.LState) int {
	switch list := checkMessage(L).Recipients(); len(list) {
	case 0:
		L.Push(lua.LNil)
	case 1:
		L.Push(m.address(L, list[0]))
	default:
		L.Push(m.addresses(L, list))
	}
	return 1
}

func (m *module) messageRecipientList(L *lua.LState) int {
	L.Push(m.addresses(L, checkMessage(L).Recipients()))
	return 1
}

func messageGetMeta(L *lua.LState) int {
	v, _ := checkMessage(L).Meta(L.CheckString(2))
	L.Push(luastate.FromTree(L, v))
	return 1
}

func messageSetMeta(L *lua.LState) int {
	m, key := checkMessage(L), L.CheckString(2)
	tree, err := luastate.ToTree(L.Get(3), map[string]any{})
	if err == nil {
		err = m.SetMeta(key, tree)
	}
	if err != nil {
		luastate.Raise(L, err)
	}
	return 0
}

func messageQueueName(L *lua.LState) int {
	L.Push(lua.LString(checkMessage(L).QueueName()))
	return 1
}

func messageGetData(L *lua.LState) int {
	data, err := checkMessage(L).Data()
	if err != nil {
		luastate.Raise(L, err)
	}
	L.Push(lua.LString(data))
	return 1
}

func messageSetData(L *lua.LState) int {
	checkMessage(L).SetData([]byte(L.CheckString(2)))
	return 0
}

func messageNumAttempts(L *lua.LState) int {
	L.Push(lua.LNumber(checkMessage(L).NumAttempts()))
	return 1
}

func (m *module) addresses(L *lua.LState, list []Address) *lua.LTable {
	tbl := L.CreateTable(len(list), 0)
	for _, a := range list {
		tbl.Append(m.address(L, a))
	}
	return tbl
}

func (m *module) address(L *lua.LState, a Address) *lua.LUserData {
	mt := m.metatable(L, "address", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index":    addressIndex,
			"__tostring": addressText,
			"__concat":   addressConcat,
			"__eq":       addressEqual,
		})
	})
	return &lua.LUserData{Value: &a, Env: L.Env, Metatable: mt}
}

func checkAddress(L *lua.LState, n int) *Address {
	a, ok := L.CheckUserData(n).Value.(*Address)
	if !ok {
		L.ArgError(n, "address expected")
	}
	return a
}

func addressIndex(L *lua.LState) int {
	a := checkAddress(L, 1)
	var field string
	switch name := L.Get(2).String(); name {
	case "user":
		field = a.User
	case "domain":
		field = a.Domain
	case "email":
		field = a.Email
	default:
		L.RaiseError("an address has no field %q: it has user, domain and email", name)
	}
	L.Push(lua.LString(field))
	return 1
}

func addressText(L *lua.LState) int {
	L.Push(lua.LString(checkAddress(L, 1).Email))
	return 1
}

func addressConcat(L *lua.LState) int {
	var text strings.Builder
	for i := 1; i <= 2; i++ {
		v := L.Get(i)
		if !lua.LVCanConvToString(v) {
			v = L.ToStringMeta(v)
		}
		text.WriteString(v.String())
	}
	L.Push(lua.LString(text.String()))
	return 1
}

// addressEqual ignores quotes in the local part but not its case: RFC 5321 section 2.4.
func addressEqual(L *lua.LState) int {
	a, b := checkAddress(L, 1), checkAddress(L, 2)
	L.Push(lua.LBool(a.User == b.User && strings.EqualFold(a.Domain, b.Domain)))
	return 1
}
