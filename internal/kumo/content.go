package kumo

import (
	"bytes"
	"fmt"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// content is what a handle knows of the content of its message. The header block is taken apart once for
// all that reads it, and edits gather in it until somebody wants to see the message: so the body is not
// read for the sake of the header, and not copied for each edit.
type content struct {
	block  *header.Block // nil: not read yet
	length int           // of the header block in the message
	edited bool          // block is not the one in the message
}

// maxLines bounds a header block, each line of which may be a field that becomes a table of Lua's: a hundred times
// the bytes that it was.
const maxLines = 1 << 16

// headers is the header block. The error names what is called.
func (h *handle) headers(what string) (*header.Block, error) {
	if h.block == nil {
		data, err := h.m.Header()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		if bytes.Count(data, []byte("\n")) > maxLines {
			return nil, fmt.Errorf("%s: the header block has more than %d lines", what, maxLines)
		}
		h.block = header.Parse(data)
		h.length = len(h.block.Bytes())
	}
	return h.block, nil
}

// edit puts an edited block into the place of the one before.
func (h *handle) edit(block *header.Block) {
	if block != h.block {
		h.block, h.edited = block, true
	}
}

// flush tells the message of the edits.
func (h *handle) flush() {
	if h.edited {
		h.m.ReplaceHeader(h.length, h.block.Bytes())
		h.length, h.edited = len(h.block.Bytes()), false
	}
}

func messageGetData(L *lua.LState) int {
	h := checkMessage(L)
	h.flush()
	data, err := h.m.Data()
	if err != nil {
		luastate.Raise(L, err)
	}
	L.Push(lua.LString(data))
	return 1
}

func messageSetData(L *lua.LState) int {
	h, data := checkMessage(L), L.CheckString(2)
	h.content = content{}
	h.m.SetData([]byte(data))
	return 0
}
