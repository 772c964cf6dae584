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
//
// Whoever works for long calls it often enough: the steps themselves are not counted, the clock is.
func charge(L *lua.LState, steps, bytes int) {
	if bytes > maxCharge {
		L.RaiseError("not enough memory: %d bytes at once", bytes)
	}
	ctx := L.Context()
	if ctx == nil {
		return
	}
	if c, ok := ctx.(*callContext); ok {
		if c.run.sign.CompareAndSwap(asked, running) {
			c.run.state.wind()
			c.run.checkHeap()
		}
		c.run.made(bytes)
	}
	if ctx.Err() != nil {
		L.RaiseError("%s", context.Cause(ctx).Error())
	}
}
