package luastate

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/metrics"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// Shim gives L the library of Lua 5.4 as far as 5.1 lacks it or has it otherwise, and bounds what it does
// at once:
//
//   - load with a string, mode and environment; xpcall with arguments; assert with any value; error with
//     the line that its level means; rawlen; warn; pairs with __pairs, ipairs with __index, both on
//     userdata too; tostring with __tostring of userdata and __name; tonumber with exponents
//   - all of string, with the patterns of 5.4 (%g, %f, \0, an empty match right behind another is
//     none), gmatch with a start, format with %a and %p, rep with a separator, pack, packsize and
//     unpack; upper and lower change ASCII and leave every other byte alone. There is no string.dump.
//   - all of table and utf8, with metamethods where 5.4 heeds them
//   - math.type, tointeger, ult, maxinteger, mininteger, log and atan with two arguments, random
//   - os.date and time as in 5.4; io, whose files wait for nobody
//   - coroutine.close, isyieldable, running; coroutines that end with the call that resumes them, and
//     not with the one that made them
//
// What 5.1 has beyond that stays: unpack, loadstring, getfenv and setfenv, table.getn and maxn, math.pow
// and the like. os.exit, which would end the host, and os.setenv raise an error. collectgarbage counts,
// and leaves collecting to Go. NewState does all this by itself; a host may do it to a state of its own,
// after opening the libraries that it wants.
func Shim(L *lua.LState) {
	setAll(L, L.G.Global, map[string]lua.LGFunction{
		"assert":         luaAssert,
		"collectgarbage": luaCollectGarbage,
		"load":           luaLoad,
		"loadstring":     luaLoad,
		"loadfile":       luaLoadFile,
		"dofile":         luaDoFile,
		"error":          luaError,
		"next":           luaNext,
		"pcall":          luaPCall,
		"rawget":         luaRawGet,
		"rawlen":         luaRawLen,
		"rawset":         luaRawSet,
		"setmetatable":   luaSetMetatable,
		"tonumber":       luaToNumber,
		"tostring":       luaToString,
		"unpack":         tableUnpack,
		"warn":           luaWarn,
		"xpcall":         luaXPCall,
	})
	L.SetGlobal("_printregs", lua.LNil)
	L.SetGlobal("pairs", L.NewClosure(luaPairs, L.GetGlobal("next").(*lua.LFunction)))
	L.SetGlobal("ipairs", L.NewClosure(luaIPairs, L.NewFunction(luaIPairsNext)))

	extend(L, lua.TabLibName, tableFunctions)
	shimString(L)
	if mod := extend(L, lua.MathLibName, mathFunctions); mod != nil {
		mod.RawSetString("huge", lua.LNumber(math.Inf(1)))
		mod.RawSetString("maxinteger", lua.LNumber(math.MaxInt64))
		mod.RawSetString("mininteger", lua.LNumber(math.MinInt64))
	}
	extend(L, lua.OsLibName, osFunctions)
	shimCoroutines(L)
	installUTF8(L)
}

// absent is a function that is there only to say that it is not.
func absent(name string) lua.LGFunction {
	return func(L *lua.LState) int {
		L.RaiseError("%s is not available", name)
		return 0
	}
}

func setAll(L *lua.LState, tbl *lua.LTable, functions map[string]lua.LGFunction) {
	for name, fn := range functions {
		tbl.RawSetString(name, L.NewFunction(fn))
	}
}

// extend adds to a library, if it is open.
func extend(L *lua.LState, lib string, functions map[string]lua.LGFunction) *lua.LTable {
	tbl, ok := L.G.Global.RawGetString(lib).(*lua.LTable)
	if !ok {
		return nil
	}
	setAll(L, tbl, functions)
	return tbl
}

func luaAssert(L *lua.LState) int {
	if lua.LVAsBool(L.CheckAny(1)) {
		return L.GetTop()
	}
	if L.GetTop() == 1 {
		L.RaiseError("assertion failed!")
	}
	// The value itself goes on, so that assert(pcall(f)) raises what f raised.
	L.Error(L.Get(2), 0)
	return 0
}

// luaError counts levels as Lua does: 1 is where error was called, 2 where the function that called it
// was called.
func luaError(L *lua.LState) int {
	value, level := L.Get(1), optInt(L, 2, 1)
	if text, ok := value.(lua.LString); ok && level > 0 {
		if where := L.Where(level); where != "" && !strings.HasPrefix(where, "[G]") {
			value = lua.LString(where+" ") + text
		}
	}
	L.Error(value, 0)
	return 0
}

// luaCollectGarbage leaves collecting to Go, whose collector a script would only stop.
func luaCollectGarbage(L *lua.LState) int {
	switch option := optString(L, 1, "collect"); option {
	case "count":
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		L.Push(lua.LNumber(float64(sample[0].Value.Uint64()) / 1024))
	case "isrunning":
		L.Push(lua.LTrue)
	case "collect", "step", "stop", "restart", "setpause", "setstepmul", "incremental", "generational":
		L.Push(lua.LNumber(0))
	default:
		L.ArgError(1, "invalid option '"+option+"'")
	}
	return 1
}

// maxChunk bounds what load compiles: compiling cannot be stopped, and its time grows with the square of
// the number of constants.
const maxChunk = 64 << 10

// luaLoad is load(chunk [, name [, mode [, env]]]), the chunk a string or a function that returns it
// piece by piece.
func luaLoad(L *lua.LState) int {
	source, name := "", "=(load)"
	switch chunk := L.CheckAny(1).(type) {
	case lua.LString:
		source, name = string(chunk), string(chunk)
	case *lua.LFunction:
		source = readPieces(L, chunk)
	default:
		L.TypeError(1, lua.LTString)
	}
	if mode := optString(L, 3, "bt"); !strings.Contains(mode, "t") {
		L.Push(lua.LNil)
		L.Push(lua.LString("attempt to load a text chunk (mode is '" + mode + "')"))
		return 2
	}
	return loadInto(L, displayName(optString(L, 2, name)), []byte(source), 4)
}

// readPieces calls a reader function until it has no more.
func readPieces(L *lua.LState, reader *lua.LFunction) string {
	source := text{L: L}
	for {
		L.Push(reader)
		L.Call(0, 1)
		piece := L.Get(-1)
		L.Pop(1)
		if piece == lua.LNil || piece == lua.LString("") {
			return source.out.String()
		}
		if piece.Type() != lua.LTString {
			L.RaiseError("reader function must return a string")
		}
		source.add(string(piece.(lua.LString)))
	}
}

func loadInto(L *lua.LState, name string, source []byte, envArg int) int {
	if len(source) > maxChunk {
		L.Push(lua.LNil)
		L.Push(lua.LString(fmt.Sprintf("%s: chunk has more than %d bytes", name, maxChunk)))
		return 2
	}
	charge(L, 16*len(source), 64*len(source))
	proto, err := compile(name, source)
	if err != nil {
		L.Push(lua.LNil)
		L.Push(lua.LString(err.Error()))
		return 2
	}
	fn := L.NewFunctionFromProto(proto)
	if L.GetTop() >= envArg {
		fn.Env = L.CheckTable(envArg)
	}
	L.Push(fn)
	return 1
}

// displayName is a chunk's name as errors show it: "=name" and "@file" without the mark, anything else
// as the text that it is.
func displayName(name string) string {
	if name != "" && (name[0] == '=' || name[0] == '@') {
		return name[1:]
	}
	first, _, more := strings.Cut(name, "\n")
	if len(first) > 40 {
		first, more = first[:40], true
	}
	if more {
		first += "..."
	}
	return `[string "` + first + `"]`
}

func luaLoadFile(L *lua.LState) int {
	path := stringArg(L, 1)
	source, err := readSource(path, maxSource)
	if err != nil {
		L.Push(lua.LNil)
		L.Push(lua.LString(err.Error()))
		return 2
	}
	return loadInto(L, path, source, 3)
}

func luaDoFile(L *lua.LState) int {
	path := stringArg(L, 1)
	source, err := readSource(path, maxSource)
	if err != nil {
		Raise(L, err)
	}
	proto, err := compile(path, source)
	if err != nil {
		Raise(L, err)
	}
	top := L.GetTop()
	L.Push(L.NewFunctionFromProto(proto))
	L.Call(0, lua.MultRet)
	return L.GetTop() - top
}

func printer(w io.Writer) lua.LGFunction {
	return func(L *lua.LState) int {
		var line []byte
		for i := 1; i <= L.GetTop(); i++ {
			if i > 1 {
				line = append(line, '\t')
			}
			word := toString(L, L.Get(i))
			charge(L, len(word), len(word))
			line = append(line, word...)
		}
		line = append(line, '\n')
		if _, err := w.Write(line); err != nil {
			Raise(L, fmt.Errorf("print: %w", err))
		}
		return 0
	}
}

func luaRawLen(L *lua.LState) int {
	switch v := L.CheckAny(1).(type) {
	case *lua.LTable:
		L.Push(lua.LNumber(v.Len()))
	case lua.LString:
		L.Push(lua.LNumber(len(v)))
	default:
		L.ArgError(1, "table or string expected")
	}
	return 1
}

func luaToString(L *lua.LState) int {
	L.Push(lua.LString(toString(L, L.CheckAny(1))))
	return 1
}

// toString is tostring(v), __tostring included.
func toString(L *lua.LState, v lua.LValue) string {
	switch v := v.(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return numberText(float64(v))
	}
	if fn := L.GetMetaField(v, "__tostring"); fn != lua.LNil {
		L.Push(fn)
		L.Push(v)
		L.Call(1, 1)
		text := L.Get(-1)
		L.Pop(1)
		if !lua.LVCanConvToString(text) {
			L.RaiseError("'__tostring' must return a string")
		}
		return text.String()
	}
	if name, ok := L.GetMetaField(v, "__name").(lua.LString); ok {
		return string(name) + ": " + pointer(v)
	}
	return v.String()
}

// numberText is a number as Lua prints it: with 14 digits, which hide what a float cannot hold, and whole numbers with
// all of theirs.
func numberText(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case isWhole(f) && f < math.MaxInt64:
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', 14, 64)
}

func luaToNumber(L *lua.LState) int {
	v := L.CheckAny(1)
	text, isText := v.(lua.LString)
	chargeWork(L, len(text))
	switch {
	case L.Get(2) != lua.LNil:
		base := intArg(L, 2)
		if base < 2 || base > 36 {
			L.ArgError(2, "base out of range")
		}
		L.Push(parseInBase(stringArg(L, 1), base))
	case isText:
		L.Push(parseNumber(string(text)))
	case v.Type() == lua.LTNumber:
		L.Push(v)
	default:
		L.Push(lua.LNil)
	}
	return 1
}

const luaSpace = " \t\n\v\f\r"

// parseInBase reads a whole number. One that is too big for 64 bits loses its upper bits, as in Lua 5.4.
func parseInBase(text string, base int) lua.LValue {
	digits, negative := strings.CutPrefix(strings.Trim(text, luaSpace), "-")
	if digits == "" {
		return lua.LNil
	}
	n := uint64(0)
	for i := range len(digits) {
		digit := 36
		switch c := digits[i]; {
		case isDigit(c):
			digit = int(c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'z':
			digit = int(c|0x20-'a') + 10
		}
		if digit >= base {
			return lua.LNil
		}
		n = n*uint64(base) + uint64(digit)
	}
	if negative {
		n = -n
	}
	return lua.LNumber(int64(n))
}

// parseNumber reads a Lua number; Go's own words (inf, nan, 1_000, 0b1) are none.
func parseNumber(text string) lua.LValue {
	text = strings.Trim(text, luaSpace)
	digits := strings.TrimLeft(text, "+-")
	hexadecimal := len(digits) > 2 && (digits[:2] == "0x" || digits[:2] == "0X")
	if len(text)-len(digits) > 1 || strings.Contains(digits, "_") {
		return lua.LNil
	}
	if hexadecimal {
		if n, err := strconv.ParseUint(digits[2:], 16, 64); err == nil {
			if text[0] == '-' {
				return -lua.LNumber(n)
			}
			return lua.LNumber(n)
		}
		if !strings.ContainsAny(digits, "pP") {
			text += "p0" // Go wants the exponent that Lua leaves out
		}
	} else if strings.Trim(digits, "0123456789.eE+-") != "" {
		return lua.LNil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return lua.LNil
	}
	return lua.LNumber(f)
}

func luaPairs(L *lua.LState) int {
	v := L.CheckAny(1)
	if tbl, ok := v.(*lua.LTable); !ok || tbl.Metatable != lua.LNil {
		if fn := L.GetMetaField(v, "__pairs"); fn != lua.LNil {
			L.Push(fn)
			L.Push(v)
			L.Call(1, 3)
			return 3
		}
	}
	L.CheckTable(1)
	L.Push(L.Get(lua.UpvalueIndex(1)))
	L.Push(v)
	L.Push(lua.LNil)
	return 3
}

func luaIPairs(L *lua.LState) int {
	v := L.CheckAny(1)
	if v.Type() != lua.LTTable && L.GetMetaField(v, "__index") == lua.LNil {
		L.TypeError(1, lua.LTTable)
	}
	L.Push(L.Get(lua.UpvalueIndex(1)))
	L.Push(v)
	L.Push(lua.LNumber(0))
	return 3
}

func luaIPairsNext(L *lua.LState) int {
	v, i := L.Get(1), intArg(L, 2)+1
	var value lua.LValue
	if tbl, ok := v.(*lua.LTable); ok && tbl.Metatable == lua.LNil {
		value = tbl.RawGetInt(i)
	} else {
		value = L.GetTable(v, lua.LNumber(i))
	}
	if value == lua.LNil {
		return 0
	}
	L.Push(lua.LNumber(i))
	L.Push(value)
	return 2
}
