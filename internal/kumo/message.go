package kumo

import (
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Message is what Lua sees of a message. Values of Meta are plain trees. What the methods that change
// something are told is what the ones that tell something say from then on.
type Message interface {
	ID() string
	Sender() Address
	// SetSender gets the address as text, empty for the null sender.
	SetSender(address string) error
	Recipients() []Address
	SetRecipients(addresses []string) error
	Meta(key string) (any, bool)
	SetMeta(key string, v any) error
	QueueName() string

	// Data is the whole message; Lua gets a copy, and it is only asked for when Lua asks.
	Data() ([]byte, error)
	// SetData replaces the message; the slice is the callee's.
	SetData([]byte)
	// Header is the header block of the message, as package header's Read makes it of a file. It is not
	// written to and not looked at after Expire.
	Header() ([]byte, error)
	// ReplaceHeader puts a block, which is the callee's, in the place of the message's first length bytes.
	ReplaceHeader(length int, block []byte)

	// NumAttempts counts finished attempts.
	NumAttempts() int
	// CountAttempt counts one more.
	CountAttempt()
	// SetDue is told when the next attempt is due; the zero time is as soon as possible.
	SetDue(time.Time)
	// SetSchedule is told when attempts may be made from now on; nil is at any time.
	SetSchedule(*Schedule)
}

// NewMessage makes the userdata that events and connection objects get. The message is used only by
// methods that Lua calls, and by Expire.
func NewMessage(L *lua.LState, m Message) *lua.LUserData {
	made := &struct {
		ud lua.LUserData
		h  handle
	}{
		ud: lua.LUserData{Env: L.Env, Metatable: moduleOf(L).messageType(L)},
		h:  handle{m: m},
	}
	made.ud.Value = &made.h
	return &made.ud
}

// Expire ends what NewMessage began: it hands the message what it has not been told yet, and a method
// called from now on, by a script that kept the message, raises an error.
func Expire(ud *lua.LUserData) {
	if h, ok := ud.Value.(*handle); ok && h.m != nil {
		h.flush()
		*h = handle{}
	}
}

// messageType is the metatable of messages. Their methods are made when a script first calls them.
func (m *module) messageType(L *lua.LState) *lua.LTable {
	return m.metatable(L, "message", func(L *lua.LState, mt *lua.LTable) {
		methods, rest := L.CreateTable(0, 8), L.CreateTable(0, 1)
		rest.RawSetString("__index", L.NewFunction(func(L *lua.LState) int {
			name, ok := L.Get(2).(lua.LString)
			if !ok {
				return 0
			}
			fn := m.messageMethod(string(name))
			if fn == nil {
				return 0
			}
			method := L.NewFunction(fn)
			methods.RawSetString(string(name), method)
			L.Push(method)
			return 1
		}))
		methods.Metatable = rest
		mt.RawSetString("__index", methods)
		mt.RawSetString("__tostring", L.NewFunction(func(L *lua.LState) int {
			L.Push(lua.LString("message " + checkMessage(L).m.ID()))
			return 1
		}))
	})
}

// messageMethod is the method of a name, nil if upstream has none either.
func (m *module) messageMethod(name string) lua.LGFunction {
	switch name {
	case "id":
		return messageID
	case "sender":
		return m.messageSender
	case "set_sender":
		return messageSetSender
	case "recipient":
		return m.messageRecipient
	case "recipient_list":
		return m.messageRecipientList
	case "set_recipient":
		return messageSetRecipient
	case "get_meta":
		return messageGetMeta
	case "set_meta":
		return messageSetMeta
	case "queue_name":
		return messageQueueName
	case "get_data":
		return messageGetData
	case "set_data":
		return messageSetData
	case "num_attempts":
		return messageNumAttempts
	case "increment_num_attempts":
		return messageCountAttempt
	case "set_due":
		return messageSetDue
	case "set_scheduling":
		return messageSetScheduling
	case "save", "shrink", "shrink_data", "set_force_sync":
		return messageSpool
	}
	if fn := m.headerMethod(name); fn != nil {
		return fn
	}
	for _, known := range absentMethods {
		if known == name {
			return absent("message:" + name)
		}
	}
	return nil
}

// handle is a message in Lua's hands. Without a message it has expired. What it keeps beside the message
// is what would otherwise be made again for each call of a method.
type handle struct {
	m          Message
	id         lua.LValue
	sender     *lua.LUserData
	recipients []*lua.LUserData
	content
	plan
}

func checkMessage(L *lua.LState) *handle {
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
	return h
}

func messageID(L *lua.LState) int {
	h := checkMessage(L)
	if h.id == nil {
		h.id = lua.LString(h.m.ID())
	}
	L.Push(h.id)
	return 1
}

func messageGetMeta(L *lua.LState) int {
	v, _ := checkMessage(L).m.Meta(L.CheckString(2))
	L.Push(luastate.FromTree(L, v))
	return 1
}

func messageSetMeta(L *lua.LState) int {
	h, key := checkMessage(L), L.CheckString(2)
	tree, err := luastate.ToTree(L.Get(3), map[string]any{})
	if err == nil {
		err = h.m.SetMeta(key, tree)
	}
	if err != nil {
		luastate.Raise(L, err)
	}
	return 0
}

func messageQueueName(L *lua.LState) int {
	L.Push(lua.LString(checkMessage(L).m.QueueName()))
	return 1
}

func messageNumAttempts(L *lua.LState) int {
	L.Push(lua.LNumber(checkMessage(L).m.NumAttempts()))
	return 1
}

func messageCountAttempt(L *lua.LState) int {
	checkMessage(L).m.CountAttempt()
	return 0
}

// messageSpool is for the methods that concern upstream's spool: there is nothing to do here.
func messageSpool(L *lua.LState) int {
	checkMessage(L)
	return 0
}
