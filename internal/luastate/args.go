package luastate

import (
	"math"

	lua "github.com/yuin/gopher-lua"
)

// intArg is an argument that must be a whole number, or a string that reads as one.
func intArg(L *lua.LState, n int) int {
	v := L.Get(n)
	if text, ok := v.(lua.LString); ok {
		v = parseNumber(string(text))
	}
	f, ok := v.(lua.LNumber)
	if !ok {
		L.TypeError(n, lua.LTNumber)
	}
	if i := int(f); lua.LNumber(i) == f {
		return i
	}
	if !isWhole(float64(f)) {
		L.ArgError(n, "number has no integer representation")
	}
	return math.MaxInt64 // math.maxinteger, rounded up to a float
}

func optInt(L *lua.LState, n, absent int) int {
	if L.Get(n) == lua.LNil {
		return absent
	}
	return intArg(L, n)
}

// floatArg is an argument that must be a number, or a string that reads as one.
func floatArg(L *lua.LState, n int) float64 {
	v := L.Get(n)
	if text, ok := v.(lua.LString); ok {
		v = parseNumber(string(text))
	}
	f, ok := v.(lua.LNumber)
	if !ok {
		L.TypeError(n, lua.LTNumber)
	}
	return float64(f)
}

// optString is an argument that must be a string or a number.
func optString(L *lua.LState, n int, absent string) string {
	if L.Get(n) == lua.LNil {
		return absent
	}
	return L.CheckString(n)
}

// firstByte makes of a Lua position, which counts from the end if negative, one that counts from the
// start of a text, one or more.
func firstByte(i, length int) int {
	switch {
	case i > 0:
		return i
	case i == 0 || i < -length:
		return 1
	}
	return length + i + 1
}

// lastByte is the same for the end of a range, zero to length.
func lastByte(i, length int) int {
	switch {
	case i > length:
		return length
	case i >= 0:
		return i
	case i < -length:
		return 0
	}
	return length + i + 1
}
