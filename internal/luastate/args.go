package luastate

import (
	"math"

	lua "github.com/yuin/gopher-lua"
)

// intArg is an argument that must be a whole number, or a string that reads as one.
func intArg(L *lua.LState, n int) int {
	return toInt(L, n, L.Get(n))
}

func toInt(L *lua.LState, n int, v lua.LValue) int {
	f, ok := v.(lua.LNumber)
	if i := int(f); ok && lua.LNumber(i) == f {
		return i
	}
	return toIntSlowly(L, n, v)
}

func toIntSlowly(L *lua.LState, n int, v lua.LValue) int {
	if text, ok := v.(lua.LString); ok {
		v = parseNumber(string(text))
	}
	f, ok := v.(lua.LNumber)
	if !ok {
		L.TypeError(n, lua.LTNumber)
	}
	switch {
	case !isWhole(float64(f)):
		L.ArgError(n, "number has no integer representation")
	case f == math.MaxInt64:
		return math.MaxInt // math.maxinteger, rounded up to a float
	}
	return int(f)
}

func optInt(L *lua.LState, n, absent int) int {
	v := L.Get(n)
	if v == lua.LNil {
		return absent
	}
	return toInt(L, n, v)
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

// stringArg is an argument that must be a string or a number.
func stringArg(L *lua.LState, n int) string {
	text, ok := operandText(L.Get(n))
	if !ok {
		L.TypeError(n, lua.LTString)
	}
	return text
}

func optString(L *lua.LState, n int, absent string) string {
	if L.Get(n) == lua.LNil {
		return absent
	}
	return stringArg(L, n)
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
