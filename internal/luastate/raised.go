package luastate

import lua "github.com/yuin/gopher-lua"

// Raised is the Go error that a raised Lua value stands for: one of Raise. Ok is false for what a program raised
// itself.
func Raised(v lua.LValue) (err error, ok bool) {
	r, ok := asRaised(v)
	if !ok {
		return nil, false
	}
	return r.err, true
}
