package kumo

import (
	"context"
	"fmt"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// maxParts bounds a list that is made of a text: the lines of the longest text that a function makes, twice.
const maxParts = 1 << 19

// textFunction is kumo.MODULE.NAME of the modules that work on text and bytes, nil if there is no such function.
func (m *module) textFunction(module, name string) lua.LGFunction {
	switch module {
	case "encode":
		return encodeFunction(name)
	case "digest":
		return m.digestFunction(name)
	case "string":
		return stringFunction(name)
	case "regex":
		return m.regexFunction(name)
	case "uuid":
		return m.uuidFunction(name)
	case "domain_map", "cidr", "regex_set_map":
		return m.mapFunction(module, name)
	}
	return nil
}

// fail raises err as one of the function.
func fail(L *lua.LState, function string, err error) {
	luastate.Raise(L, fmt.Errorf("%s: %w", function, err))
}

// countArg is an argument that must be a whole number, and not negative.
func countArg(L *lua.LState, n int) int {
	f := float64(L.CheckNumber(n))
	if !(f >= 0 && f <= 1<<53) || f != float64(int(f)) {
		L.ArgError(n, "want a whole number that is not negative")
	}
	return int(f)
}

// optCount is the same for an argument that may be absent.
func optCount(L *lua.LState, n, absent int) int {
	if L.Get(n) == lua.LNil {
		return absent
	}
	return countArg(L, n)
}

// heed says whether the context of a long loop has ended. It is called once a round, and looks now and then.
type heed struct {
	ctx   context.Context
	round int
}

func (h *heed) ended() error {
	if h.round++; h.round%1024 == 0 && h.ctx.Err() != nil {
		return context.Cause(h.ctx)
	}
	return nil
}

// parts is a list of parts of a text, in the making.
type parts struct {
	function string
	whole    string
	heed     heed
	tbl      *lua.LTable
	count    int
}

func newParts(L *lua.LState, function, whole string) *parts {
	return &parts{function: function, whole: whole, heed: heed{ctx: contextOf(L)}, tbl: L.NewTable()}
}

// add appends a string; it raises an error when they are too many, or the context has ended.
func (p *parts) add(L *lua.LState, text string) {
	err := p.heed.ended()
	if p.count++; p.count > maxParts {
		err = fmt.Errorf("there are more than %d parts", maxParts)
	}
	if err != nil {
		fail(L, p.function, err)
	}
	p.tbl.Append(luastate.Cut(p.whole, text))
}

func (p *parts) push(L *lua.LState) int {
	L.Push(p.tbl)
	return 1
}

// pushText returns a text of the length that a function may make.
func pushText(L *lua.LState, function, text string) int {
	checkLength(L, function, len(text))
	L.Push(lua.LString(text))
	return 1
}

var errTooLong = fmt.Errorf("the result is longer than %d bytes", maxText)

// checkLength raises an error for a text that is, or would be, too long.
func checkLength(L *lua.LState, function string, length int) {
	if length < 0 || length > maxText {
		fail(L, function, errTooLong)
	}
}
