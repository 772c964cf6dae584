package luastate

import (
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

func installUTF8(L *lua.LState) {
	mod := L.CreateTable(0, 6)
	setAll(L, mod, map[string]lua.LGFunction{
		"char":      utf8Char,
		"codepoint": utf8Codepoint,
		"len":       utf8Len,
		"offset":    utf8Offset,
	})
	mod.RawSetString("codes", L.NewClosure(utf8Codes, L.NewFunction(utf8CodesNext)))
	mod.RawSetString("charpattern", lua.LString("[%z\x01-\x7F\xC2-\xFD][\x80-\xBF]*"))
	L.SetGlobal("utf8", mod)
	if loaded, ok := L.G.Registry.RawGetString("_LOADED").(*lua.LTable); ok {
		loaded.RawSetString("utf8", mod)
	}
}

func utf8Char(L *lua.LState) int {
	var out []byte
	for i := 1; i <= L.GetTop(); i++ {
		code := L.CheckInt(i)
		if code < 0 || code > utf8.MaxRune {
			L.ArgError(i, "value out of range")
		}
		out = utf8.AppendRune(out, rune(code))
	}
	L.Push(lua.LString(out))
	return 1
}

// bytePosition makes an index into s, which may count from its end, one from its start (from one on).
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
	text := L.CheckString(1)
	first := bytePosition(L.OptInt(2, 1), len(text))
	last := bytePosition(L.OptInt(3, first), len(text))
	if first < 1 {
		L.ArgError(2, "out of bounds")
	}
	if last > len(text) {
		L.ArgError(3, "out of bounds")
	}
	n := 0
	for i := first - 1; i < last; n++ {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size <= 1 {
			L.RaiseError("invalid UTF-8 code")
		}
		L.Push(lua.LNumber(r))
		i += size
	}
	return n
}

func utf8Len(L *lua.LState) int {
	text := L.CheckString(1)
	first := bytePosition(L.OptInt(2, 1), len(text))
	last := bytePosition(L.OptInt(3, -1), len(text))
	if first < 1 || first > len(text)+1 {
		L.ArgError(2, "initial position out of bounds")
	}
	if last > len(text) {
		L.ArgError(3, "final position out of bounds")
	}
	n := 0
	for i := first - 1; i < last; n++ {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size <= 1 {
			L.Push(lua.LNil)
			L.Push(lua.LNumber(i + 1))
			return 2
		}
		i += size
	}
	L.Push(lua.LNumber(n))
	return 1
}

func isContinuation(text string, i int) bool { return i < len(text) && text[i]&0xC0 == 0x80 }

// utf8Offset is where the n-th character begins, counted from byte i.
func utf8Offset(L *lua.LState) int {
	text, n := L.CheckString(1), L.CheckInt(2)
	start := 1
	if n <= 0 {
		start = len(text) + 1
	}
	i := bytePosition(L.OptInt(3, start), len(text)) - 1
	if i < 0 || i > len(text) {
		L.ArgError(3, "position out of bounds")
	}
	if n != 0 && isContinuation(text, i) {
		L.RaiseError("initial position is a continuation byte")
	}
	if i, ok := nthCharacter(text, n, i); ok {
		L.Push(lua.LNumber(i + 1))
	} else {
		L.Push(lua.LNil)
	}
	return 1
}

func nthCharacter(text string, n, i int) (int, bool) {
	switch {
	case n == 0:
		for i > 0 && isContinuation(text, i) {
			i--
		}
	case n < 0:
		for ; n < 0; n++ {
			if i == 0 {
				return 0, false
			}
			for i--; i > 0 && isContinuation(text, i); i-- {
			}
		}
	default:
		for ; n > 1; n-- {
			if i >= len(text) {
				return 0, false
			}
			for i++; isContinuation(text, i); i++ {
			}
		}
	}
	return i, true
}

func utf8Codes(L *lua.LState) int {
	text := L.CheckString(1)
	L.Push(L.Get(lua.UpvalueIndex(1)))
	L.Push(lua.LString(text))
	L.Push(lua.LNumber(0))
	return 3
}

func utf8CodesNext(L *lua.LState) int {
	text, i := L.CheckString(1), L.CheckInt(2)
	if i > 0 {
		_, size := utf8.DecodeRuneInString(text[i-1:])
		i += size - 1
	}
	if i >= len(text) {
		return 0
	}
	r, size := utf8.DecodeRuneInString(text[i:])
	if r == utf8.RuneError && size <= 1 {
		L.RaiseError("invalid UTF-8 code")
	}
	L.Push(lua.LNumber(i + 1))
	L.Push(lua.LNumber(r))
	return 2
}
