package luastate

import (
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

var stringFunctions = map[string]lua.LGFunction{
	"byte":     stringByte,
	"char":     stringChar,
	"dump":     absent("string.dump"),
	"format":   stringFormat,
	"len":      stringLen,
	"lower":    stringLower,
	"pack":     stringPack,
	"packsize": stringPackSize,
	"rep":      stringRep,
	"reverse":  stringReverse,
	"sub":      stringSub,
	"unpack":   stringUnpack,
	"upper":    stringUpper,
}

// shimString replaces the functions that take as long and as much memory as a script likes. Methods of
// strings are found in the same table.
func shimString(L *lua.LState) {
	extend(L, lua.StringLibName, stringFunctions)
	if lib := extend(L, lua.StringLibName, patternFunctions); lib != nil {
		lib.RawSetString("gfind", lua.LNil) // gmatch by the name that Lua 5.0 had for it
	}
}

func stringLen(L *lua.LState) int {
	L.Push(lua.LNumber(len(stringArg(L, 1))))
	return 1
}

func stringSub(L *lua.LState) int {
	s := stringArg(L, 1)
	first, last := firstByte(intArg(L, 2), len(s)), lastByte(optInt(L, 3, -1), len(s))
	if first > last {
		L.Push(lua.LString(""))
	} else {
		L.Push(Cut(s, s[first-1:last]))
	}
	return 1
}

func stringByte(L *lua.LState) int {
	s := stringArg(L, 1)
	start := optInt(L, 2, 1)
	first, last := firstByte(start, len(s)), lastByte(optInt(L, 3, start), len(s))
	if first > last {
		return 0
	}
	n := last - first + 1
	if n >= registryMaxSize {
		L.RaiseError("string slice too long")
	}
	growStack(L, n)
	for i := first - 1; i < last; i++ {
		L.Push(lua.LNumber(s[i]))
	}
	return n
}

// growStack makes room for n results at once, and not step by step.
func growStack(L *lua.LState, n int) {
	if n > small/16 {
		charge(L, n, 16*n)
		top := L.GetTop()
		L.SetTop(top + n)
		L.SetTop(top)
	}
}

func stringChar(L *lua.LState) int {
	n := L.GetTop()
	chargeWork(L, n)
	out := make([]byte, n)
	for i := range out {
		c := intArg(L, i+1)
		if c < 0 || c > math.MaxUint8 {
			L.ArgError(i+1, "value out of range")
		}
		out[i] = byte(c)
	}
	L.Push(lua.LString(out))
	return 1
}

func stringRep(L *lua.LState) int {
	s, n, separator := stringArg(L, 1), intArg(L, 2), optString(L, 3, "")
	unit := len(s) + len(separator)
	if n <= 0 || unit == 0 {
		L.Push(lua.LString(""))
		return 1
	}
	if n > maxText/unit+1 || n*unit-len(separator) > maxText {
		L.RaiseError(tooLarge)
	}
	size := n*unit - len(separator)
	charge(L, size, size)
	if separator == "" {
		L.Push(lua.LString(strings.Repeat(s, n)))
		return 1
	}
	var out strings.Builder
	out.Grow(size)
	out.WriteString(s)
	for range n - 1 {
		out.WriteString(separator)
		out.WriteString(s)
	}
	L.Push(lua.LString(out.String()))
	return 1
}

func stringReverse(L *lua.LState) int {
	s := stringArg(L, 1)
	charge(L, len(s), len(s))
	out := make([]byte, len(s))
	for i := range len(s) {
		out[len(s)-1-i] = s[i]
	}
	L.Push(lua.LString(out))
	return 1
}

func stringUpper(L *lua.LState) int { return mapLetters(L, 'a', 'z') }

func stringLower(L *lua.LState) int { return mapLetters(L, 'A', 'Z') }

// mapLetters changes the case of ASCII letters and of nothing else: a string is bytes, and need not be
// UTF-8.
func mapLetters(L *lua.LState, low, high byte) int {
	const caseBit = 'a' - 'A'
	s := stringArg(L, 1)
	chargeWork(L, len(s))
	same := 0
	for same < len(s) && (s[same] < low || s[same] > high) {
		same++
	}
	if same == len(s) {
		L.Push(lua.LString(s))
		return 1
	}
	charge(L, 0, len(s))
	out := []byte(s)
	for i := same; i < len(out); i++ {
		if c := out[i]; low <= c && c <= high {
			out[i] = c ^ caseBit
		}
	}
	L.Push(lua.LString(out))
	return 1
}
