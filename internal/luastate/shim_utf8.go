package luastate

import (
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// maxCode is the greatest code that fits into UTF-8 as it was first defined, with up to six bytes.
const maxCode = 1<<31 - 1

func installUTF8(L *lua.LState) {
	mod := L.CreateTable(0, 6)
	setAll(L, mod, map[string]lua.LGFunction{
		"char":      utf8Char,
		"codepoint": utf8Codepoint,
		"codes":     utf8Codes,
		"len":       utf8Len,
		"offset":    utf8Offset,
	})
	mod.RawSetString("charpattern", lua.LString("[\x00-\x7F\xC2-\xFD][\x80-\xBF]*"))
	L.SetGlobal("utf8", mod)
	if loaded, ok := L.G.Registry.RawGetString("_LOADED").(*lua.LTable); ok {
		loaded.RawSetString("utf8", mod)
	}
}

// appendCode appends a code in up to six bytes, surrogates too.
func appendCode(out []byte, code int) []byte {
	if code < utf8.RuneSelf {
		return append(out, byte(code))
	}
	more := 1 // bytes after the first
	for limit := 1 << 11; code >= limit; limit <<= 5 {
		more++
	}
	lead := ^byte(0) << (7 - more)
	out = append(out, lead|byte(code>>(6*more)))
	for more--; more >= 0; more-- {
		out = append(out, 0x80|byte(code>>(6*more))&0x3f)
	}
	return out
}

// decodeCode is the code at the start of s and its length, zero if there is none. Unless lax, only what
// Unicode knows is one.
func decodeCode(s string, lax bool) (code, size int) {
	if !lax {
		r, size := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && size <= 1 {
			return 0, 0
		}
		return int(r), size
	}
	if s[0] < utf8.RuneSelf {
		return int(s[0]), 1
	}
	size = 1
	for mask := byte(0x40); s[0]&mask != 0; mask >>= 1 {
		size++
	}
	if size == 1 || size > 6 || size > len(s) {
		return 0, 0
	}
	code = int(s[0]) & (0x7f >> size)
	for i := 1; i < size; i++ {
		if !isContinuation(s, i) {
			return 0, 0
		}
		code = code<<6 | int(s[i]&0x3f)
	}
	if len(appendCode(nil, code)) != size { // written longer than it need be
		return 0, 0
	}
	return code, size
}

func utf8Char(L *lua.LState) int {
	chargeWork(L, L.GetTop())
	var out []byte
	for i := 1; i <= L.GetTop(); i++ {
		code := intArg(L, i)
		if code < 0 || code > maxCode {
			L.ArgError(i, "value out of range")
		}
		out = appendCode(out, code)
	}
	L.Push(lua.LString(out))
	return 1
}

// bytePosition makes of an index that may count from the end one that counts from the start; it is zero
// or less where that is before it.
func bytePosition(i, length int) int {
	if i >= 0 {
		return i
	}
	if -i > length {
		return 0
	}
	return length + i + 1
}

func utf8Codepoint(L *lua.LState) int {
	s := stringArg(L, 1)
	first := bytePosition(optInt(L, 2, 1), len(s))
	last := bytePosition(optInt(L, 3, first), len(s))
	if first < 1 {
		L.ArgError(2, "out of bounds")
	}
	if last > len(s) {
		L.ArgError(3, "out of bounds")
	}
	if last-first >= registryMaxSize {
		L.RaiseError("string slice too long")
	}
	chargeWork(L, last-first)
	lax := lua.LVAsBool(L.Get(4))
	n := 0
	for i := first - 1; i < last; n++ {
		code, size := decodeCode(s[i:], lax)
		if size == 0 {
			L.RaiseError("invalid UTF-8 code")
		}
		L.Push(lua.LNumber(code))
		i += size
	}
	return n
}

func utf8Len(L *lua.LState) int {
	s := stringArg(L, 1)
	first := bytePosition(optInt(L, 2, 1), len(s))
	last := bytePosition(optInt(L, 3, -1), len(s))
	if first < 1 || first > len(s)+1 {
		L.ArgError(2, "initial position out of bounds")
	}
	if last > len(s) {
		L.ArgError(3, "final position out of bounds")
	}
	chargeWork(L, last-first)
	lax := lua.LVAsBool(L.Get(4))
	n := 0
	for i := first - 1; i < last; n++ {
		_, size := decodeCode(s[i:], lax)
		if size == 0 {
			L.Push(lua.LNil)
			L.Push(lua.LNumber(i + 1))
			return 2
		}
		i += size
	}
	L.Push(lua.LNumber(n))
	return 1
}

func isContinuation(s string, i int) bool { return i < len(s) && s[i]&0xC0 == 0x80 }

// utf8Offset is where the n-th character begins, counted from byte i.
func utf8Offset(L *lua.LState) int {
	s, n := stringArg(L, 1), intArg(L, 2)
	start := 1
	if n < 0 {
		start = len(s) + 1
	}
	i := bytePosition(optInt(L, 3, start), len(s)) - 1
	if i < 0 || i > len(s) {
		L.ArgError(3, "position out of bounds")
	}
	if n != 0 && isContinuation(s, i) {
		L.RaiseError("initial position is a continuation byte")
	}
	chargeWork(L, min(max(n, -n), len(s)))
	if i, ok := nthCharacter(s, n, i); ok {
		L.Push(lua.LNumber(i + 1))
	} else {
		L.Push(lua.LNil)
	}
	return 1
}

func nthCharacter(s string, n, i int) (int, bool) {
	switch {
	case n == 0:
		for i > 0 && isContinuation(s, i) {
			i--
		}
	case n < 0:
		for ; n < 0; n++ {
			if i == 0 {
				return 0, false
			}
			for i--; i > 0 && isContinuation(s, i); i-- {
			}
		}
	default:
		for ; n > 1; n-- {
			if i >= len(s) {
				return 0, false
			}
			for i++; isContinuation(s, i); i++ {
			}
		}
	}
	return i, true
}

func utf8Codes(L *lua.LState) int {
	s, lax := stringArg(L, 1), lua.LVAsBool(L.Get(2))
	if isContinuation(s, 0) {
		L.ArgError(1, "invalid UTF-8 code")
	}
	L.Push(L.NewFunction(func(L *lua.LState) int { return utf8CodesNext(L, lax) }))
	L.Push(lua.LString(s))
	L.Push(lua.LNumber(0))
	return 3
}

func utf8CodesNext(L *lua.LState, lax bool) int {
	s, i := stringArg(L, 1), intArg(L, 2)
	if i < 0 || i > len(s) {
		L.ArgError(2, "position out of bounds")
	}
	if i > 0 {
		for ; isContinuation(s, i); i++ {
		}
	}
	if i == len(s) {
		L.Push(lua.LNil)
		return 1
	}
	code, size := decodeCode(s[i:], lax)
	if size == 0 || isContinuation(s, i+size) {
		L.RaiseError("invalid UTF-8 code")
	}
	L.Push(lua.LNumber(i + 1))
	L.Push(lua.LNumber(code))
	return 2
}
