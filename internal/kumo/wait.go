package kumo

import (
	"context"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// outside calls what waits for other hosts, with the context of the state. Every function of this package
// that asks the network does so in here: the time that it takes is not Lua's own. Once the context has
// ended, that is the error, whatever the call made of it.
func outside[T any](L *lua.LState, call func(ctx context.Context) (T, error)) (result T, err error) {
	ctx := contextOf(L)
	luastate.Outside(L, func() { result, err = call(ctx) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}
