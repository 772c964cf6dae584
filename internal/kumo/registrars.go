package kumo

import (
	"log/slog"
	"strconv"

	lua "github.com/yuin/gopher-lua"
)

// maxFrames bounds the calls of a stack that are looked at.
const maxFrames = 50

// frame is one call of a stack.
type frame struct {
	debug *lua.Debug
	file  string
	line  int
}

// stack are the calls that are under way from a level on (1: the caller of the running function).
func stack(L *lua.LState, level int) []frame {
	var frames []frame
	for ; len(frames) < maxFrames; level++ {
		dbg, ok := L.GetStack(level)
		if !ok {
			break
		}
		if _, err := L.GetInfo("Snl", dbg, lua.LNil); err != nil {
			break
		}
		frames = append(frames, frame{dbg, dbg.Source, dbg.CurrentLine})
	}
	return frames
}

// callers are the lines of Lua that have led here, "file:line", the innermost first.
func callers(L *lua.LState) []string {
	var lines []string
	for _, f := range stack(L, 1) {
		if f.file != "" {
			lines = append(lines, f.file+":"+strconv.Itoa(f.line))
		}
	}
	return lines
}

// traceback is kumo.traceback(level): the calls that are under way as a list of tables, from the level on (1: the
// caller).
func traceback(L *lua.LState) int {
	list := L.NewTable()
	for _, f := range stack(L, max(L.OptInt(1, 1), 0)) {
		tbl := L.CreateTable(0, 8)
		what := "Lua"
		if f.file == "" {
			what, f.file, f.line = "C", "=[C]", -1
		}
		tbl.RawSetString("event", lua.LString("Call"))
		tbl.RawSetString("what", lua.LString(what))
		tbl.RawSetString("source", lua.LString(f.file))
		tbl.RawSetString("short_src", lua.LString(f.file))
		tbl.RawSetString("curr_line", lua.LNumber(f.line))
		tbl.RawSetString("line_defined", lua.LNumber(f.debug.LineDefined))
		tbl.RawSetString("last_line_defined", lua.LNumber(f.debug.LastLineDefined))
		if f.debug.Name != "" {
			tbl.RawSetString("name", lua.LString(f.debug.Name))
		}
		list.Append(tbl)
	}
	L.Push(list)
	return 1
}

// eventRegistrars is kumo.get_event_registrars(event): for each handler, the lines that led to its registration.
func (m *module) eventRegistrars(L *lua.LState) int {
	handlers := m.handlers[L.CheckString(1)]
	if len(handlers) == 0 {
		L.Push(lua.LNil)
		return 1
	}
	list := L.CreateTable(len(handlers), 0)
	for _, h := range handlers {
		lines := L.CreateTable(len(h.callers), 0)
		for _, line := range h.callers {
			lines.Append(lua.LString(line))
		}
		list.Append(lines)
	}
	L.Push(list)
	return 1
}

// validationFailed is kumo.validation_failed(): the policy has found a mistake in what it was given.
func (m *module) validationFailed(L *lua.LState) int {
	m.options.invalid.Store(true)
	m.options.logger().LogAttrs(contextOf(L), slog.LevelWarn, "the policy says that validation failed", slog.String("at", position(L)))
	return 0
}

// ValidationFailed reports whether a policy has called kumo.validation_failed, as the handlers of validate_config do
// that find a mistake.
func (o *Options) ValidationFailed() bool { return o.invalid.Load() }

func (o *Options) logger() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.Default()
}

// noLimit is what kumo.get_memory_* return: there is none here.
func noLimit(L *lua.LState) int {
	L.Push(lua.LNil)
	return 1
}
