package kumo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// headerMethod is the method of a message that concerns its header, nil if there is none of that name.
func (m *module) headerMethod(name string) lua.LGFunction {
	switch name {
	case "get_first_named_header_value":
		return messageFirstHeader
	case "get_all_named_header_values":
		return messageNamedHeaders
	case "get_all_headers":
		return messageAllHeaders
	case "get_address_header":
		return func(L *lua.LState) int { return m.addressHeader(L, "get_address_header", L.CheckString(2)) }
	case "from_header":
		return func(L *lua.LState) int { return m.addressHeader(L, "from_header", "From") }
	case "to_header":
		return func(L *lua.LState) int { return m.addressHeader(L, "to_header", "To") }
	case "prepend_header":
		return func(L *lua.LState) int { return addHeader(L, "prepend_header", (*header.Block).Prepend) }
	case "append_header":
		return func(L *lua.LState) int { return addHeader(L, "append_header", (*header.Block).Append) }
	case "remove_all_named_headers":
		return messageRemoveNamed
	case "remove_x_headers":
		return messageRemoveX
	case "import_x_headers":
		return messageImportX
	case "import_headers":
		return messageImport
	case "import_scheduling_header":
		return messageImportScheduling
	}
	return nil
}

// checkHeaders is the message that is the first argument, and its header.
func checkHeaders(L *lua.LState, what string) (*handle, *header.Block) {
	h := checkMessage(L)
	block, err := h.headers(what)
	if err != nil {
		luastate.Raise(L, err)
	}
	return h, block
}

// eachField visits the fields in their order, and looks now and then whether the call is to end.
func eachField(ctx context.Context, block *header.Block, visit func(header.Field)) error {
	for i, f := range block.Fields() {
		if i%256 == 255 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		visit(f)
	}
	return nil
}

// mustEachField is eachField for a Lua function.
func mustEachField(L *lua.LState, block *header.Block, visit func(header.Field)) {
	if err := eachField(contextOf(L), block, visit); err != nil {
		luastate.Raise(L, err)
	}
}

func messageFirstHeader(L *lua.LState) int {
	_, block := checkHeaders(L, "get_first_named_header_value")
	if f, ok := block.First(L.CheckString(2)); ok {
		L.Push(lua.LString(f.Text()))
	} else {
		L.Push(lua.LNil)
	}
	return 1
}

func messageNamedHeaders(L *lua.LState) int {
	_, block := checkHeaders(L, "get_all_named_header_values")
	name, values := L.CheckString(2), L.CreateTable(1, 0)
	mustEachField(L, block, func(f header.Field) {
		if f.Is(name) {
			values.Append(lua.LString(f.Text()))
		}
	})
	L.Push(values)
	return 1
}

func messageAllHeaders(L *lua.LState) int {
	_, block := checkHeaders(L, "get_all_headers")
	all := L.CreateTable(len(block.Fields()), 0)
	mustEachField(L, block, func(f header.Field) {
		pair := L.CreateTable(2, 0)
		pair.Append(lua.LString(f.Name()))
		pair.Append(lua.LString(f.Text()))
		all.Append(pair)
	})
	L.Push(all)
	return 1
}

func addHeader(L *lua.LState, what string, add func(b *header.Block, name, value string, encode bool) (*header.Block, error)) int {
	h, block := checkHeaders(L, what)
	edited, err := add(block, L.CheckString(2), L.CheckString(3), L.OptBool(4, false))
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%s: %w", what, err))
	}
	h.edit(edited)
	return 0
}

func messageRemoveNamed(L *lua.LState) int {
	h, block := checkHeaders(L, "remove_all_named_headers")
	name := L.CheckString(2)
	h.edit(block.Remove(func(f header.Field) bool { return f.Is(name) }))
	return 0
}

func messageRemoveX(L *lua.LState) int {
	h, block := checkHeaders(L, "remove_x_headers")
	h.edit(block.Remove(namedOrX(L)))
	return 0
}

// namedOrX is the choice of remove_x_headers and import_x_headers: the names in the list that is the
// second argument, or else what begins with X-.
func namedOrX(L *lua.LState) func(header.Field) bool {
	list := L.OptTable(2, nil)
	if list == nil || list.Len() == 0 {
		return func(f header.Field) bool { return f.HasPrefix("X-") }
	}
	if list.Len() > maxLines { // which is read without a look at the context
		L.ArgError(2, fmt.Sprintf("there are more than %d names", maxLines))
	}
	names := map[string]bool{}
	for i := 1; i <= list.Len(); i++ {
		name, ok := list.RawGetInt(i).(lua.LString)
		if !ok {
			L.ArgError(2, fmt.Sprintf("header name expected as element %d of the list", i))
		}
		names[asciiLower(string(name))] = true
	}
	return func(f header.Field) bool { return names[asciiLower(f.Name())] }
}

// messageImportX sets the metadata of the headers that are chosen. Where there are several of a name the
// last counts, or the first if the third argument says so.
func messageImportX(L *lua.LState) int {
	h, block := checkHeaders(L, "import_x_headers")
	chosen, first := namedOrX(L), L.OptBool(3, false)
	match := matchLast
	if first {
		match = matchFirst
	}
	importFields(L, h, block, []importSpec{{applies: chosen, match: match, key: snakeCase}})
	return 0
}

// How many of the headers of a name are imported.
const (
	matchFirst = "first"
	matchLast  = "last"
	matchAll   = "all"
)

// importSpec says which headers become metadata, and how.
type importSpec struct {
	applies func(header.Field) bool
	match   string
	key     func(name string) string
	remove  bool
}

// imported is what one key of the metadata gets.
type imported struct {
	key    string
	match  string
	values []any
}

// importFields sets metadata from headers. A header belongs to the first spec that applies to it.
func importFields(L *lua.LState, h *handle, block *header.Block, specs []importSpec) {
	var all []*imported
	var gone []bool // the fields, as far as we are
	known := make([]map[string]*imported, len(specs))
	mustEachField(L, block, func(f header.Field) {
		i := slices.IndexFunc(specs, func(s importSpec) bool { return s.applies(f) })
		gone = append(gone, i >= 0 && specs[i].remove)
		if i < 0 {
			return
		}
		key := specs[i].key(f.Name())
		entry := known[i][key]
		switch {
		case entry == nil:
			if known[i] == nil {
				known[i] = map[string]*imported{}
			}
			entry = &imported{key: key, match: specs[i].match}
			known[i][key] = entry
			all = append(all, entry)
		case entry.match == matchFirst:
			return
		case entry.match == matchLast:
			entry.values = entry.values[:0]
		}
		// Metadata is text, whatever the message is.
		entry.values = append(entry.values, strings.ToValidUTF8(f.Text(), "\uFFFD"))
	})
	for _, entry := range all {
		var v any = entry.values
		if entry.match != matchAll {
			v = entry.values[0]
		}
		if err := h.m.SetMeta(entry.key, v); err != nil {
			luastate.Raise(L, err)
		}
	}
	i := -1
	h.edit(block.Remove(func(header.Field) bool {
		i++
		return gone[i]
	}))
}
