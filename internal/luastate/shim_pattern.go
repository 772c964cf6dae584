package luastate

import (
	"strconv"
	"strings"

	"github.com/mtadelivery/delivery/internal/luapattern"
	lua "github.com/yuin/gopher-lua"
)

var patternFunctions = map[string]lua.LGFunction{
	"find":   stringFind,
	"match":  stringMatch,
	"gmatch": stringGmatch,
	"gsub":   stringGsub,
}

// matchMeter charges a call for the work of matching.
type matchMeter struct{ L *lua.LState }

func (m matchMeter) Step(steps int) { charge(m.L, steps, 0) }

// compilePattern prepares m to match in a call of L.
func compilePattern(L *lua.LState, m *luapattern.Matcher, subject, pattern string, anchors bool) {
	if len(pattern) > small {
		charge(L, len(pattern), 16*len(pattern))
	}
	m.Subject, m.Meter = subject, matchMeter{L}
	m.Compile(pattern, anchors)
}

func stringFind(L *lua.LState) int {
	subject, pattern := stringArg(L, 1), stringArg(L, 2)
	start := firstByte(optInt(L, 3, 1), len(subject)) - 1
	if start > len(subject) {
		L.Push(lua.LNil)
		return 1
	}
	if lua.LVAsBool(L.Get(4)) || luapattern.Literal(pattern) {
		return findPlain(L, subject, pattern, start)
	}
	var m luapattern.Matcher
	compilePattern(L, &m, subject, pattern, true)
	from, to, ok := findNext(L, &m, start)
	if !ok {
		L.Push(lua.LNil)
		return 1
	}
	L.Push(lua.LNumber(from + 1))
	L.Push(lua.LNumber(to))
	return 2 + pushCaptures(L, &m)
}

func findPlain(L *lua.LState, subject, wanted string, start int) int {
	at := strings.Index(subject[start:], wanted)
	if at < 0 {
		chargeWork(L, len(subject)-start)
		L.Push(lua.LNil)
		return 1
	}
	chargeWork(L, at)
	L.Push(lua.LNumber(start + at + 1))
	L.Push(lua.LNumber(start + at + len(wanted)))
	return 2
}

func stringMatch(L *lua.LState) int {
	subject, pattern := stringArg(L, 1), stringArg(L, 2)
	start := firstByte(optInt(L, 3, 1), len(subject)) - 1
	if start > len(subject) {
		L.Push(lua.LNil)
		return 1
	}
	var m luapattern.Matcher
	compilePattern(L, &m, subject, pattern, true)
	from, to, ok := findNext(L, &m, start)
	if !ok {
		L.Push(lua.LNil)
		return 1
	}
	return pushMatch(L, &m, from, to)
}

func findNext(L *lua.LState, m *luapattern.Matcher, start int) (from, to int, ok bool) {
	from, to, ok, err := m.Find(start)
	if err != nil {
		L.RaiseError("%s", err.Error())
	}
	return from, to, ok
}

// pushMatch pushes the captures, or the match itself where the pattern has none.
func pushMatch(L *lua.LState, m *luapattern.Matcher, from, to int) int {
	if m.Captures() == 0 {
		L.Push(Cut(m.Subject, m.Subject[from:to]))
		return 1
	}
	return pushCaptures(L, m)
}

func pushCaptures(L *lua.LState, m *luapattern.Matcher) int {
	n := m.Captures()
	for i := range n {
		L.Push(capture(m, i))
	}
	return n
}

func capture(m *luapattern.Matcher, i int) lua.LValue {
	start, end, position := m.Capture(i)
	if position {
		return lua.LNumber(start + 1)
	}
	return Cut(m.Subject, m.Subject[start:end])
}

// matches goes from match to match. An empty one right where the last one ended is none, so that
// ("abc"):gsub("%w*", "x") is "x".
type matches struct {
	luapattern.Matcher
	at       int // where to look on
	lastEnd  int // of the last match, -1 before the first
	from, to int
}

func (m *matches) next(L *lua.LState) bool {
	for m.at <= len(m.Subject) {
		from, to, ok := findNext(L, &m.Matcher, m.at)
		if !ok {
			m.at = len(m.Subject) + 1
			return false
		}
		if from == to && to == m.lastEnd {
			m.at++
			continue
		}
		m.from, m.to, m.at, m.lastEnd = from, to, to, to
		return true
	}
	return false
}

func stringGmatch(L *lua.LState) int {
	subject, pattern := stringArg(L, 1), stringArg(L, 2)
	m := &matches{at: firstByte(optInt(L, 3, 1), len(subject)) - 1, lastEnd: -1}
	// A "^" would end the iteration before it began: here it is a byte.
	compilePattern(L, &m.Matcher, subject, pattern, false)
	L.Push(L.NewFunction(func(L *lua.LState) int {
		m.Meter = matchMeter{L} // it may be another coroutine that goes on
		if !m.next(L) {
			L.Push(lua.LNil)
			return 1
		}
		return pushMatch(L, &m.Matcher, m.from, m.to)
	}))
	return 1
}

// gsub is one call of string.gsub.
type gsub struct {
	matches
	L           *lua.LState
	replacement lua.LValue
	verbatim    bool // the replacement is a text without captures in it
	result      text
}

func stringGsub(L *lua.LState) int {
	subject, pattern := stringArg(L, 1), stringArg(L, 2)
	g := gsub{L: L, replacement: L.Get(3)}
	switch v := g.replacement.(type) {
	case lua.LNumber:
		g.replacement, g.verbatim = lua.LString(numberText(float64(v))), true
	case lua.LString:
		g.verbatim = strings.IndexByte(string(v), '%') < 0
	case *lua.LTable, *lua.LFunction:
	default:
		L.ArgError(3, "string/function/table expected, got "+v.Type().String())
	}
	limit := optInt(L, 4, len(subject)+1)
	g.lastEnd, g.result.L = -1, L
	compilePattern(L, &g.Matcher, subject, pattern, true)

	n, done := 0, 0
	for n < limit && g.next(L) {
		if n++; g.changes(done) {
			done = g.to
		}
		if pattern != "" && pattern[0] == '^' {
			break
		}
	}
	if done == 0 && g.result.out.Len() == 0 {
		L.Push(lua.LString(subject)) // nothing has changed
	} else {
		g.result.add(subject[done:])
		g.result.push()
	}
	L.Push(lua.LNumber(n))
	return 2
}

// changes writes what comes instead of the match, after what lies between done and the match. Where the
// replacement says that the match is to stay, it writes nothing.
func (g *gsub) changes(done int) bool {
	var value lua.LValue
	switch r := g.replacement.(type) {
	case lua.LString:
		g.result.add(g.Subject[done:g.from])
		if g.verbatim {
			g.result.add(string(r))
		} else {
			g.fill(string(r))
		}
		return true
	case *lua.LTable:
		value = g.lookUp(r)
	case *lua.LFunction:
		g.L.Push(r)
		g.L.Call(pushMatch(g.L, &g.Matcher, g.from, g.to), 1)
		value = g.L.Get(-1)
		g.L.Pop(1)
	}
	if text, ok := operandText(value); ok {
		g.result.add(g.Subject[done:g.from])
		g.result.add(text)
		return true
	}
	if lua.LVAsBool(value) {
		g.L.RaiseError("invalid replacement value (a %s)", value.Type().String())
	}
	return false
}

func (g *gsub) lookUp(tbl *lua.LTable) lua.LValue {
	var key lua.LValue
	if g.Captures() > 0 {
		key = capture(&g.Matcher, 0)
	} else {
		key = Cut(g.Subject, g.Subject[g.from:g.to])
	}
	if tbl.Metatable == lua.LNil {
		return tbl.RawGet(key)
	}
	return g.L.GetTable(tbl, key)
}

const invalidUse = "invalid use of '%' in replacement string"

// fill writes a replacement with captures in it: %0 is the match, %1 to %9 are the captures.
func (g *gsub) fill(replacement string) {
	for {
		at := strings.IndexByte(replacement, '%')
		if at < 0 {
			g.result.add(replacement)
			return
		}
		g.result.add(replacement[:at])
		if replacement = replacement[at+1:]; replacement == "" {
			g.L.RaiseError("%s", invalidUse)
		}
		switch c := replacement[0]; {
		case c == '%':
			g.result.addByte('%')
		case c == '0' || c == '1' && g.Captures() == 0:
			g.result.add(g.Subject[g.from:g.to])
		case '1' <= c && c <= '9':
			g.addCapture(int(c - '1'))
		default:
			g.L.RaiseError("%s", invalidUse)
		}
		replacement = replacement[1:]
	}
}

func (g *gsub) addCapture(i int) {
	if i >= g.Captures() {
		g.L.RaiseError("invalid capture index %%%d in replacement string", i+1)
	}
	start, end, position := g.Capture(i)
	if position {
		g.result.add(strconv.Itoa(start + 1))
	} else {
		g.result.add(g.Subject[start:end])
	}
}
