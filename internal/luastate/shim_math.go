package luastate

import (
	"math"
	"math/rand/v2"

	lua "github.com/yuin/gopher-lua"
)

// randomKey is where a state has a source of its own, so that math.randomseed does not seed the host's.
const randomKey = "luastate.random"

func randomOf(L *lua.LState) *rand.PCG {
	if ud, ok := L.G.Registry.RawGetString(randomKey).(*lua.LUserData); ok {
		if source, ok := ud.Value.(*rand.PCG); ok {
			return source
		}
	}
	source := rand.NewPCG(rand.Uint64(), rand.Uint64())
	L.G.Registry.RawSetString(randomKey, &lua.LUserData{Value: source, Metatable: lua.LNil})
	return source
}

var mathFunctions = map[string]lua.LGFunction{
	"type":       mathType,
	"tointeger":  mathToInteger,
	"ult":        mathULT,
	"log":        mathLog,
	"atan":       mathAtan,
	"modf":       mathModf,
	"random":     func(L *lua.LState) int { return mathRandom(L, rand.New(randomOf(L))) },
	"randomseed": mathRandomSeed,
}

func mathRandomSeed(L *lua.LState) int {
	if L.GetTop() == 0 {
		randomOf(L).Seed(rand.Uint64(), rand.Uint64())
		return 0
	}
	second := 0.0
	if L.Get(2) != lua.LNil {
		second = floatArg(L, 2)
	}
	randomOf(L).Seed(math.Float64bits(floatArg(L, 1)), math.Float64bits(second))
	return 0
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
	L.Push(lua.LBool(uint64(intArg(L, 1)) < uint64(intArg(L, 2))))
	return 1
}

func mathLog(L *lua.LState) int {
	x, base := floatArg(L, 1), math.E
	if L.Get(2) != lua.LNil {
		base = floatArg(L, 2)
	}
	switch base {
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
	y, x := floatArg(L, 1), 1.0
	if L.Get(2) != lua.LNil {
		x = floatArg(L, 2)
	}
	L.Push(lua.LNumber(math.Atan2(y, x)))
	return 1
}

// mathModf gives back nothing after the point where there is nothing before it that ends.
func mathModf(L *lua.LState) int {
	x := floatArg(L, 1)
	whole, rest := math.Modf(x)
	if math.IsInf(x, 0) {
		whole, rest = x, 0
	}
	L.Push(lua.LNumber(whole))
	L.Push(lua.LNumber(rest))
	return 2
}

func mathRandom(L *lua.LState, random *rand.Rand) int {
	low, high := int64(1), int64(0)
	switch L.GetTop() {
	case 0:
		L.Push(lua.LNumber(random.Float64()))
		return 1
	case 1:
		if high = int64(intArg(L, 1)); high == 0 {
			L.Push(lua.LNumber(random.Int64()))
			return 1
		}
	case 2:
		low, high = int64(intArg(L, 1)), int64(intArg(L, 2))
	default:
		L.RaiseError("wrong number of arguments")
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
