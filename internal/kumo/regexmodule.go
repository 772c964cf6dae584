package kumo

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
	"github.com/mtadelivery/delivery/internal/regex"
)

// expressions keeps what was compiled last, for all states of an Options. The zero value is ready.
type expressions struct {
	mu     sync.Mutex
	known  map[string]*list.Element // of *regex.Regexp
	recent list.List                // the most recently used first
	size   int
}

// Bounds of what is kept.
const (
	maxExpressions    = 1024
	maxExpressionSize = 16 << 20
)

func (e *expressions) compile(source string) (*regex.Regexp, error) {
	if re := e.find(source); re != nil {
		return re, nil
	}
	re, err := regex.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", excerpt(source), err)
	}
	e.keep(re)
	return re, nil
}

func (e *expressions) find(source string) *regex.Regexp {
	e.mu.Lock()
	defer e.mu.Unlock()
	element := e.known[source]
	if element == nil {
		return nil
	}
	e.recent.MoveToFront(element)
	return element.Value.(*regex.Regexp)
}

func (e *expressions) keep(re *regex.Regexp) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known[re.String()] != nil {
		return // another state was faster
	}
	if e.known == nil {
		e.known = map[string]*list.Element{}
	}
	e.known[re.String()] = e.recent.PushFront(re)
	e.size += re.Size()
	for e.recent.Len() > maxExpressions || e.size > maxExpressionSize {
		old := e.recent.Remove(e.recent.Back()).(*regex.Regexp)
		delete(e.known, old.String())
		e.size -= old.Size()
	}
}

// regexFunction is kumo.regex.NAME.
func (m *module) regexFunction(name string) lua.LGFunction {
	switch name {
	case "compile":
		return m.regexCompile
	case "escape":
		return regexEscape
	}
	return nil
}

// regexCompile is kumo.regex.compile(expression).
func (m *module) regexCompile(L *lua.LState) int {
	re, err := m.options.expressions.compile(L.CheckString(1))
	if err != nil {
		fail(L, "regex.compile", err)
	}
	L.Push(m.newExpression(L, luaRegex{re}))
	return 1
}

func regexEscape(L *lua.LState) int {
	text := L.CheckString(1)
	checkLength(L, "regex.escape", len(text))
	return pushText(L, "regex.escape", regex.Escape(text))
}

// luaRegex is a compiled expression in Lua. All states share what is compiled.
type luaRegex struct{ *regex.Regexp }

func (m *module) newExpression(L *lua.LState, e luaRegex) *lua.LUserData {
	return m.object(L, "regex", e, regexMethods)
}

func (e luaRegex) freeze() thaw {
	return func(m *module, L *lua.LState) lua.LValue { return m.newExpression(L, e) }
}

// Tree makes the text of it, which compile takes.
func (e luaRegex) Tree() (any, error) { return e.String(), nil }

func regexMethods() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"is_match":    regexIsMatch,
		"captures":    regexCaptures,
		"find":        regexFind,
		"find_all":    regexFindAll,
		"replace":     func(L *lua.LState) int { return regexReplace(L, "regex:replace", 1, 3) },
		"replace_all": func(L *lua.LState) int { return regexReplace(L, "regex:replace_all", 0, 3) },
		"replacen":    func(L *lua.LState) int { return regexReplace(L, "regex:replacen", countArg(L, 3), 4) },
		"split":       regexSplit,
	}
}

func checkExpression(L *lua.LState) luaRegex { return checkObject[luaRegex](L, "regex") }

// regexFail raises what a search ended with.
func regexFail(L *lua.LState, function string, e luaRegex, err error) {
	if errors.Is(err, regex.ErrTooHard) {
		err = fmt.Errorf("%q: %w", excerpt(e.String()), err)
	}
	fail(L, function, err)
}

func regexIsMatch(L *lua.LState) int {
	e := checkExpression(L)
	ok, err := e.IsMatch(contextOf(L), L.CheckString(2))
	if err != nil {
		regexFail(L, "regex:is_match", e, err)
	}
	L.Push(lua.LBool(ok))
	return 1
}

func regexFind(L *lua.LState) int {
	e, text := checkExpression(L), L.CheckString(2)
	match, err := e.Find(contextOf(L), text)
	if err != nil {
		regexFail(L, "regex:find", e, err)
	}
	if match == nil {
		L.Push(lua.LNil)
	} else {
		L.Push(luastate.Cut(text, text[match[0]:match[1]]))
	}
	return 1
}

// regexCaptures is regex:captures(text): the groups of the first match by number, the whole match being 0, and by
// name.
func regexCaptures(L *lua.LState) int {
	e, text := checkExpression(L), L.CheckString(2)
	match, err := e.Find(contextOf(L), text)
	if err != nil {
		regexFail(L, "regex:captures", e, err)
	}
	if match == nil {
		L.Push(lua.LNil)
		return 1
	}
	tbl := L.NewTable()
	for i, name := range e.Names() {
		if match[2*i] < 0 || match[2*i] > match[2*i+1] {
			continue
		}
		v := luastate.Cut(text, text[match[2*i]:match[2*i+1]])
		tbl.RawSetInt(i, v)
		if name != "" {
			tbl.RawSetString(name, v)
		}
	}
	L.Push(tbl)
	return 1
}

func regexFindAll(L *lua.LState) int {
	const function = "regex:find_all"
	e, text := checkExpression(L), L.CheckString(2)
	found := newParts(L, function, text)
	for match, err := range e.All(contextOf(L), text) {
		if err != nil {
			regexFail(L, function, e, err)
		}
		found.add(L, text[match[0]:match[1]])
	}
	return found.push(L)
}

func regexSplit(L *lua.LState) int {
	const function = "regex:split"
	e, text := checkExpression(L), L.CheckString(2)
	fields := newParts(L, function, text)
	from := 0
	for match, err := range e.All(contextOf(L), text) {
		if err != nil {
			regexFail(L, function, e, err)
		}
		fields.add(L, text[from:max(match[0], from)])
		from = match[1]
	}
	fields.add(L, text[from:])
	return fields.push(L)
}

func regexReplace(L *lua.LState, function string, limit, n int) int {
	e, text, replacement := checkExpression(L), L.CheckString(2), L.CheckString(n)
	result, err := e.Replace(contextOf(L), text, replacement, limit, max(maxText, len(text)))
	if err != nil {
		regexFail(L, function, e, err)
	}
	L.Push(lua.LString(result))
	return 1
}
