package luastate

import (
	"math"
	"math/rand/v2"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

var tableFunctions = map[string]lua.LGFunction{
	"concat": tableConcat,
	"move":   tableMove,
	"pack":   tablePack,
	"unpack": tableUnpack,
}

// tableConcat builds its result beside the stack: a stack that once held all the elements would stay at
// that size.
func tableConcat(L *lua.LState) int {
	tbl := L.CheckTable(1)
	separator := L.OptString(2, "")
	first, last := L.OptInt(3, 1), L.OptInt(4, tbl.Len())
	var text strings.Builder
	for i := first; i <= last; i++ {
		v := tbl.RawGetInt(i)
		if !lua.LVCanConvToString(v) {
			L.RaiseError("invalid value (%s) at index %d in table for 'concat'", v.Type().String(), i)
		}
		text.WriteString(v.String())
		if i < last {
			text.WriteString(separator)
		}
	}
	L.Push(lua.LString(text.String()))
	return 1
}

func tableUnpack(L *lua.LState) int {
	tbl := L.CheckTable(1)
	first, last := L.OptInt(2, 1), L.OptInt(3, tbl.Len())
	if first > last {
		return 0
	}
	n := last - first + 1
	if n <= 0 || n >= registryMaxSize {
		L.RaiseError("too many results to unpack")
	}
	// Grow the stack once and not step by step.
	top := L.GetTop()
	L.SetTop(top + n)
	L.SetTop(top)
	for i := first; i <= last; i++ {
		L.Push(tbl.RawGetInt(i))
	}
	return n
}

func tablePack(L *lua.LState) int {
	n := L.GetTop()
	tbl := L.CreateTable(n, 1)
	for i := 1; i <= n; i++ {
		tbl.RawSetInt(i, L.Get(i))
	}
	tbl.RawSetString("n", lua.LNumber(n))
	L.Push(tbl)
	return 1
}

func tableMove(L *lua.LState) int {
	from := L.CheckTable(1)
	first, last, at := L.CheckInt(2), L.CheckInt(3), L.CheckInt(4)
	to := L.OptTable(5, from)
	if n := last - first; n >= 0 && n >= math.MaxInt32 {
		L.ArgError(3, "too many elements to move")
	}
	if at > first && at <= last && to == from {
		for i := last - first; i >= 0; i-- {
			to.RawSetInt(at+i, from.RawGetInt(first+i))
		}
	} else {
		for i := 0; i <= last-first; i++ {
			to.RawSetInt(at+i, from.RawGetInt(first+i))
		}
	}
	L.Push(to)
	return 1
}

// newRandom is a state's own source, so that math.randomseed does not seed the host's.
func newRandom() *rand.PCG { return rand.NewPCG(rand.Uint64(), rand.Uint64()) }

func mathFunctions(source *rand.PCG) map[string]lua.LGFunction {
	random := rand.New(source)
	return map[string]lua.LGFunction{
		"type":      mathType,
		"tointeger": mathToInteger,
		"ult":       mathULT,
		"log":       mathLog,
		"atan":      mathAtan,
		"random":    func(L *lua.LState) int { return mathRandom(L, random) },
		"randomseed": func(L *lua.LState) int {
			if L.GetTop() == 0 {
				source.Seed(rand.Uint64(), rand.Uint64())
			} else {
				source.Seed(math.Float64bits(float64(L.CheckNumber(1))), math.Float64bits(float64(L.OptNumber(2, 0))))
			}
			return 0
		},
	}
}

func isWhole(f float64) bool {
	return f == math.Trunc(f) && f >= math.MinInt64 && f <= math.MaxInt64
}

func mathType(L *lua.LState) int {
	n, ok := L.CheckAny(1).(lua.LNumber)
	switch {
	case !ok:
		L.Push(lua.LNil)
	case isWhole(float64(n)):
		L.Push(lua.LString("integer"))
	default:
		L.Push(lua.LString("float"))
	}
	return 1
}

func mathToInteger(L *lua.LState) int {
	v := L.CheckAny(1)
	if text, ok := v.(lua.LString); ok {
		v = parseNumber(string(text))
	}
	if n, ok := v.(lua.LNumber); ok && isWhole(float64(n)) {
		L.Push(n)
	} else {
		L.Push(lua.LNil)
	}
	return 1
}

func mathULT(L *lua.LState) int {
	L.Push(lua.LBool(uint64(L.CheckInt64(1)) < uint64(L.CheckInt64(2))))
	return 1
}

func mathLog(L *lua.LState) int {
	x := float64(L.CheckNumber(1))
	switch base := float64(L.OptNumber(2, math.E)); base {
	case math.E:
		x = math.Log(x)
	case 2:
		x = math.Log2(x)
	case 10:
		x = math.Log10(x)
	default:
		x = math.Log(x) / math.Log(base)
	}
	L.Push(lua.LNumber(x))
	return 1
}

func mathAtan(L *lua.LState) int {
	L.Push(lua.LNumber(math.Atan2(float64(L.CheckNumber(1)), float64(L.OptNumber(2, 1)))))
	return 1
}

func mathRandom(L *lua.LState, random *rand.Rand) int {
	low, high := int64(1), int64(0)
	switch L.GetTop() {
	case 0:
		L.Push(lua.LNumber(random.Float64()))
		return 1
	case 1:
		if high = L.CheckInt64(1); high == 0 {
			L.Push(lua.LNumber(random.Int64()))
			return 1
		}
	default:
		low, high = L.CheckInt64(1), L.CheckInt64(2)
	}
	if low > high {
		L.ArgError(L.GetTop(), "interval is empty")
	}
	span := uint64(high) - uint64(low)
	if span != math.MaxUint64 {
		span = random.Uint64N(span + 1)
	} else {
		span = random.Uint64()
	}
	L.Push(lua.LNumber(low + int64(span)))
	return 1
}
