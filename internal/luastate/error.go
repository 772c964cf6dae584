package luastate

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// Error is what went wrong in a Lua program: while it was compiled, loaded or called.
type Error struct {
	// File and Line say where. File is the chunk's name and Line is counted from one; both are empty
	// where Lua does not know (a value raised without a position).
	File string
	Line int
	// Reason is one line of text without the position, of 8 KiB at most.
	Reason string
	// Traceback has several lines, and is empty for an error of Compile.
	Traceback string
	// Thrown is the value that was raised, nil for an error of Compile. It belongs to its state.
	Thrown lua.LValue
	// Panic says that Go code panicked below Lua: the state is not to be trusted any more.
	Panic bool

	cause error
}

// Error is one line: "file:line: reason".
func (e *Error) Error() string {
	if e.File == "" {
		return e.Reason
	}
	return e.File + ":" + strconv.Itoa(e.Line) + ": " + e.Reason
}

// Unwrap gives the Go error that was raised with Raise, or the reason why the context ended.
func (e *Error) Unwrap() error { return e.cause }

// Thrown is the Lua value that err was raised with, nil if err does not come from Lua.
func Thrown(err error) lua.LValue {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Thrown
	}
	return nil
}

// Message is err in one line, "file:line: text".
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Error()
	}
	return oneLine(err.Error())
}

// Traceback is Lua's call stack at the moment of err, in several lines; empty if there is none.
func Traceback(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Traceback
	}
	return ""
}

// raised is a Go error on its way through Lua. Lua sees a userdata that prints as the text and has the
// methods of a string; the same value, caught and raised again, is still the same error.
type raised struct {
	err    error
	file   string
	line   int
	reason string
}

func (r *raised) text() string {
	if r.file == "" {
		return r.reason
	}
	return r.file + ":" + strconv.Itoa(r.line) + ": " + r.reason
}

const raisedType = "luastate.error"

// Raise raises err as a Lua error that prints as "file:line: text" and that errors.As finds again in
// what Call returns. It does not return.
func Raise(L *lua.LState, err error) {
	r := &raised{err: err, reason: bounded(err.Error())}
	if e, ok := err.(*Error); ok { // of another chunk, which it names
		r.file, r.line, r.reason = e.File, e.Line, e.Reason
	} else {
		r.file, r.line = Where(L)
	}
	L.Error(&lua.LUserData{Value: r, Metatable: raisedMetatable(L)}, 1)
}

func raisedMetatable(L *lua.LState) *lua.LTable {
	if mt, ok := L.G.Registry.RawGetString(raisedType).(*lua.LTable); ok {
		return mt
	}
	mt := L.CreateTable(0, 4)
	mt.RawSetString("__tostring", L.NewFunction(func(L *lua.LState) int {
		L.Push(lua.LString(errorText(L.Get(1))))
		return 1
	}))
	mt.RawSetString("__concat", L.NewFunction(func(L *lua.LState) int {
		L.Push(lua.LString(errorText(L.Get(1)) + errorText(L.Get(2))))
		return 1
	}))
	mt.RawSetString("__index", L.NewFunction(raisedIndex))
	mt.RawSetString("__metatable", lua.LFalse)
	L.G.Registry.RawSetString(raisedType, mt)
	return mt
}

// raisedIndex lets a script that expects a text say err:find 'x'.
func raisedIndex(L *lua.LState) int {
	view, ok := L.GetGlobal(lua.StringLibName).(*lua.LTable)
	if !ok {
		return 0
	}
	library, _ := libraryOf(view)
	method, ok := library.RawGetString(L.CheckString(2)).(*lua.LFunction)
	if !ok {
		return 0
	}
	L.Push(L.NewFunction(func(L *lua.LState) int {
		top := L.GetTop()
		L.Push(method)
		for i := 1; i <= top; i++ {
			v := L.Get(i)
			if _, isRaised := asRaised(v); isRaised {
				v = lua.LString(errorText(v))
			}
			L.Push(v)
		}
		L.Call(top, lua.MultRet)
		return L.GetTop() - top
	}))
	return 1
}

func asRaised(v lua.LValue) (*raised, bool) {
	if ud, ok := v.(*lua.LUserData); ok {
		r, ok := ud.Value.(*raised)
		return r, ok
	}
	return nil, false
}

func errorText(v lua.LValue) string {
	if r, ok := asRaised(v); ok {
		return r.text()
	}
	return v.String()
}

// Where is the position of the Lua code that called the running Go function; file is empty where no
// Lua code did.
func Where(L *lua.LState) (file string, line int) {
	for level := 1; ; level++ {
		dbg, ok := L.GetStack(level)
		if !ok {
			return "", 0
		}
		if _, err := L.GetInfo("Sl", dbg, lua.LNil); err != nil {
			return "", 0
		}
		if dbg.Source != "" {
			return dbg.Source, dbg.CurrentLine
		}
	}
}

// fromLua makes an Error of what a protected call returned; text is the raised value as Lua prints it.
func fromLua(api *lua.ApiError, text string) *Error {
	e := &Error{
		Traceback: api.StackTrace,
		Thrown:    api.Object,
		Panic:     api.Type == lua.ApiErrorPanic,
	}
	if r, ok := asRaised(api.Object); ok {
		e.cause, e.File, e.Line, e.Reason = r.err, r.file, r.line, oneLine(r.reason)
	} else {
		e.Reason = oneLine(text)
		// A text may look as if it began with a position: "dial tcp 192.0.2.1:25: refused".
		if file, line, rest := splitPosition(e.Reason); strings.Contains(e.Traceback, file+":") {
			e.File, e.Line, e.Reason = file, line, rest
		}
	}
	if e.Panic {
		// A call stack that grows as it is needed panics at its limit; that harms nothing.
		if e.Reason == callStackOverflow {
			e.Reason, e.Panic = "stack overflow", false
		} else {
			e.Reason = "panic: " + e.Reason
		}
	}
	if e.File == "" && api.Type == lua.ApiErrorPanic {
		e.File, e.Line = firstPosition(api.StackTrace)
	}
	return e
}

// splitPosition takes "file:line: " off the front of a text.
func splitPosition(text string) (file string, line int, rest string) {
	for from := 0; ; {
		colon := strings.IndexByte(text[from:], ':')
		if colon < 0 {
			return "", 0, text
		}
		colon += from
		digits := text[colon+1:]
		end := strings.IndexByte(digits, ':')
		if end > 0 {
			if n, err := strconv.Atoi(digits[:end]); err == nil && n > 0 && digits[0] != '+' && colon > 0 {
				return text[:colon], n, strings.TrimPrefix(digits[end+1:], " ")
			}
		}
		from = colon + 1
	}
}

// firstPosition is the innermost line of Lua in a traceback.
func firstPosition(traceback string) (file string, line int) {
	_, lines, _ := strings.Cut(traceback, "stack traceback:")
	for entry := range strings.Lines(lines) {
		if file, line, _ := splitPosition(strings.TrimSpace(entry)); file != "" {
			return file, line
		}
	}
	return "", 0
}

// maxReason bounds the text of an error. It is often what a stranger's server said, and goes to results and logs.
const maxReason = 8 << 10

// bounded cuts off what is too long.
func bounded(text string) string {
	if len(text) <= maxReason {
		return text
	}
	text = text[:maxReason-len("…")]
	for range utf8.UTFMax - 1 { // a character that was cut in two
		if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
			break
		}
		text = text[:len(text)-1]
	}
	return text + "…"
}

// oneLine joins the lines of a text and takes out what would break a log or a reply.
func oneLine(text string) string {
	text = bounded(text)
	if strings.IndexFunc(text, isControl) < 0 {
		return text
	}
	return strings.Join(strings.FieldsFunc(text, isControl), " ")
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
