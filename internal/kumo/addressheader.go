package kumo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// addressList is a header that holds addresses, as policies see it.
type addressList struct{ entries []header.Entry }

// addressEntry is one address of it.
type addressEntry struct{ header.Mailbox }

// What cannot be said of a list that is not one address.
var (
	errNoAddress  = errors.New("no addresses")
	errGroup      = errors.New("is not a simple address")
	errNotOnlyOne = errors.New("is not a simple single address")
)

func (l *addressList) single() (*addressEntry, error) {
	switch {
	case len(l.entries) == 0:
		return nil, errNoAddress
	case len(l.entries) > 1:
		return nil, errNotOnlyOne
	case l.entries[0].IsGroup:
		return nil, errGroup
	}
	return &addressEntry{l.entries[0].Members[0]}, nil
}

// Tree is the form that upstream's JSON has.
func (l *addressList) Tree() (any, error) {
	list := make([]any, len(l.entries))
	for i, e := range l.entries {
		members := make([]any, len(e.Members))
		for j, m := range e.Members {
			members[j] = mailboxTree(m)
		}
		if e.IsGroup {
			list[i] = map[string]any{"Group": map[string]any{"name": orNil(e.Name), "addresses": members}}
		} else {
			list[i] = map[string]any{"Address": members[0]}
		}
	}
	return list, nil
}

// Tree is the form that upstream's JSON has.
func (e *addressEntry) Tree() (any, error) { return mailboxTree(e.Mailbox), nil }

func mailboxTree(m header.Mailbox) map[string]any {
	return map[string]any{"name": orNil(m.Name), "address": m.Email()}
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// addressHeader is get_address_header and its siblings; what is the method that was called.
func (m *module) addressHeader(L *lua.LState, what, name string) int {
	_, block := checkHeaders(L, what)
	f, ok := block.First(name)
	if !ok {
		L.Push(lua.LNil)
		return 1
	}
	entries, err := f.Addresses()
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%s: %w", what, err))
	}
	mt := m.metatable(L, "address header", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{"__index": m.addressListIndex, "__tostring": treeText, "__concat": concat})
	})
	L.Push(&lua.LUserData{Value: &addressList{entries}, Env: L.Env, Metatable: mt})
	return 1
}

func (m *module) addressListIndex(L *lua.LState) int {
	l, ok := L.CheckUserData(1).Value.(*addressList)
	if !ok {
		L.ArgError(1, "address header expected")
	}
	field := L.Get(2).String()
	if field == "list" {
		L.Push(m.addressEntries(L, l))
		return 1
	}
	e, err := l.single()
	switch {
	case !isEntryField(field):
		L.RaiseError("an address header has no field %.100q: it has user, domain, email, name and list", field)
	case err != nil:
		L.RaiseError("%s: %s", field, err)
	}
	L.Push(e.field(field))
	return 1
}

// addressEntries is the field list: all addresses, those in groups too.
func (m *module) addressEntries(L *lua.LState, l *addressList) *lua.LTable {
	mt := m.metatable(L, "address entry", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{"__index": addressEntryIndex, "__tostring": treeText, "__concat": concat, "__eq": addressEntryEqual})
	})
	list := L.CreateTable(len(l.entries), 0)
	for _, e := range l.entries {
		for _, member := range e.Members {
			list.Append(&lua.LUserData{Value: &addressEntry{member}, Env: L.Env, Metatable: mt})
		}
	}
	return list
}

func checkEntry(L *lua.LState, n int) *addressEntry {
	e, ok := L.CheckUserData(n).Value.(*addressEntry)
	if !ok {
		L.ArgError(n, "address of a header expected")
	}
	return e
}

func addressEntryIndex(L *lua.LState) int {
	e, field := checkEntry(L, 1), L.Get(2).String()
	if !isEntryField(field) {
		L.RaiseError("an address has no field %.100q: it has user, domain, email and name", field)
	}
	L.Push(e.field(field))
	return 1
}

func isEntryField(name string) bool {
	return name == "user" || name == "domain" || name == "email" || name == "name"
}

func (e *addressEntry) field(name string) lua.LValue {
	switch {
	case name == "user":
		return lua.LString(e.User)
	case name == "domain":
		return lua.LString(e.Domain)
	case name == "email":
		return lua.LString(e.Email())
	case e.Name == "":
		return lua.LNil
	}
	return lua.LString(e.Name)
}

// addressEntryEqual looks at where mail would go; the names do not matter.
func addressEntryEqual(L *lua.LState) int {
	a, b := checkEntry(L, 1), checkEntry(L, 2)
	L.Push(lua.LBool(a.User == b.User && strings.EqualFold(a.Domain, b.Domain)))
	return 1
}

// treeText is the tostring of what has a tree: JSON.
func treeText(L *lua.LState) int {
	t, ok := L.CheckUserData(1).Value.(luastate.Treer)
	if !ok {
		L.ArgError(1, "address header expected")
	}
	tree, err := t.Tree()
	if err != nil {
		luastate.Raise(L, err)
	}
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(tree); err != nil {
		luastate.Raise(L, err)
	}
	L.Push(lua.LString(strings.TrimSuffix(text.String(), "\n")))
	return 1
}
