package kumo

import (
	"fmt"
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

func (m *module) messageSender(L *lua.LState) int {
	h := checkMessage(L)
	if h.sender == nil {
		h.sender = m.address(L, h.m.Sender())
	}
	L.Push(h.sender)
	return 1
}

// messageRecipient is nil, the address, or a list of them: as many as there are.
func (m *module) messageRecipient(L *lua.LState) int {
	switch list := checkMessage(L).recipientObjects(L, m); len(list) {
	case 0:
		L.Push(lua.LNil)
	case 1:
		L.Push(list[0])
	default:
		L.Push(listOf(L, list))
	}
	return 1
}

func (m *module) messageRecipientList(L *lua.LState) int {
	L.Push(listOf(L, checkMessage(L).recipientObjects(L, m)))
	return 1
}

func (h *handle) recipientObjects(L *lua.LState, m *module) []*lua.LUserData {
	if h.recipients == nil {
		for _, a := range h.m.Recipients() {
			h.recipients = append(h.recipients, m.address(L, a))
		}
	}
	return h.recipients
}

func listOf(L *lua.LState, objects []*lua.LUserData) *lua.LTable {
	tbl := L.CreateTable(len(objects), 0)
	for _, object := range objects {
		tbl.Append(object)
	}
	return tbl
}

func messageSetSender(L *lua.LState) int {
	h := checkMessage(L)
	text, ok := addressOf(L.Get(2))
	if !ok {
		L.ArgError(2, "address expected: a string, or what message:sender() returns")
	}
	if err := h.m.SetSender(text); err != nil {
		luastate.Raise(L, fmt.Errorf("set_sender: %w", err))
	}
	h.sender = nil
	return 0
}

// maxRecipients bounds the list of set_recipient, which is read without a look at the context.
const maxRecipients = 1 << 16

// messageSetRecipient takes an address, or a list of them.
func messageSetRecipient(L *lua.LState) int {
	h := checkMessage(L)
	var list []string
	if tbl, ok := L.Get(2).(*lua.LTable); ok {
		if tbl.Len() > maxRecipients {
			L.ArgError(2, fmt.Sprintf("there are more than %d addresses", maxRecipients))
		}
		for i := 1; i <= tbl.Len(); i++ {
			text, ok := addressOf(tbl.RawGetInt(i))
			if !ok {
				L.ArgError(2, fmt.Sprintf("address expected as element %d of the list", i))
			}
			list = append(list, text)
		}
	} else if text, ok := addressOf(L.Get(2)); ok {
		list = append(list, text)
	}
	if len(list) == 0 {
		L.ArgError(2, "address or list of addresses expected")
	}
	if err := h.m.SetRecipients(list); err != nil {
		luastate.Raise(L, fmt.Errorf("set_recipient: %w", err))
	}
	h.recipients = nil
	return 0
}

// addressOf is an envelope address in a Lua value, as text.
func addressOf(v lua.LValue) (text string, ok bool) {
	switch v := v.(type) {
	case lua.LString:
		return string(v), true
	case *lua.LUserData:
		if a, ok := v.Value.(*Address); ok {
			return a.Email, true
		}
	}
	return "", false
}

func (m *module) address(L *lua.LState, a Address) *lua.LUserData {
	mt := m.metatable(L, "address", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index":    addressIndex,
			"__tostring": addressText,
			"__concat":   concat,
			"__eq":       addressEqual,
		})
	})
	made := &struct {
		ud lua.LUserData
		a  Address
	}{lua.LUserData{Env: L.Env, Metatable: mt}, a}
	made.ud.Value = &made.a
	return &made.ud
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
		L.RaiseError("an address has no field %.100q: it has user, domain and email", name)
	}
	L.Push(lua.LString(field))
	return 1
}

func addressText(L *lua.LState) int {
	L.Push(lua.LString(checkAddress(L, 1).Email))
	return 1
}

// maxConcat bounds what concat makes, in bytes.
const maxConcat = 16 << 20

// concat is the operator .. for what tostring can show.
func concat(L *lua.LState) int {
	var parts [2]string
	for i := range parts {
		v := L.Get(i + 1)
		if !lua.LVCanConvToString(v) {
			v = L.ToStringMeta(v)
		}
		parts[i] = v.String()
	}
	if len(parts[0])+len(parts[1]) > maxConcat {
		L.RaiseError("the result of .. is longer than %d bytes", maxConcat)
	}
	L.Push(lua.LString(parts[0] + parts[1]))
	return 1
}

// addressEqual ignores quotes in the local part but not its case: RFC 5321 section 2.4.
func addressEqual(L *lua.LState) int {
	a, b := checkAddress(L, 1), checkAddress(L, 2)
	L.Push(lua.LBool(a.User == b.User && strings.EqualFold(a.Domain, b.Domain)))
	return 1
}
