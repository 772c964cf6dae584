package luastate

import (
	"context"

	lua "github.com/yuin/gopher-lua"
)

// maxCharge bounds what one function makes at once.
const maxCharge = 16 << 20

// charge is called by Go functions in the libraries: steps is work done (about one per byte or element
// looked at), bytes is memory newly made for Lua. It raises a Lua error when the call's limits are
// exceeded or its context has ended.
func charge(L *lua.LState, steps, bytes int) {
	if ctx := L.Context(); ctx != nil && ctx.Err() != nil {
		L.RaiseError("%s", context.Cause(ctx).Error())
	}
	if bytes > maxCharge {
		L.RaiseError("not enough memory: %d bytes at once", bytes)
	}
}
