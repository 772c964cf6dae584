package kumo

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// plan is what a call has said about the times of further attempts.
type plan struct {
	schedule *Schedule
	due      time.Time
}

// messageSetDue returns the time that results, which a schedule may have moved.
func messageSetDue(L *lua.LState) int {
	h := checkMessage(L)
	due, err := dueOf(L.Get(2))
	if err != nil {
		L.ArgError(2, err.Error())
	}
	if h.schedule != nil {
		if due.IsZero() {
			due = time.Now()
		}
		due = h.schedule.Next(due)
	}
	h.setDue(due)
	if due.IsZero() {
		L.Push(lua.LNil)
	} else {
		L.Push(lua.LString(due.UTC().Format(time.RFC3339Nano)))
	}
	return 1
}

// dueOf reads a time; nil is the zero time.
func dueOf(v lua.LValue) (time.Time, error) {
	switch v := v.(type) {
	case *lua.LNilType:
		return time.Time{}, nil
	case lua.LString:
		if t, err := time.Parse(time.RFC3339, string(v)); err == nil {
			return t, nil
		}
		return time.Time{}, fmt.Errorf("time expected as 2026-01-31T12:00:00Z, got %.100q", string(v))
	case *lua.LUserData:
		if t, ok := v.Value.(time.Time); ok {
			return t, nil
		}
	}
	return time.Time{}, errors.New("time expected as a string or nil")
}

func (h *handle) setDue(due time.Time) {
	h.due = due
	h.m.SetDue(due)
}

func messageSetScheduling(L *lua.LState) int {
	h := checkMessage(L)
	if L.Get(2) == lua.LNil {
		h.schedule = nil
		h.m.SetSchedule(nil)
		L.Push(lua.LNil)
		return 1
	}
	tree, err := luastate.ToTree(L.Get(2), map[string]any{})
	var s *Schedule
	if err == nil {
		s, err = parseSchedule(tree)
	}
	if err != nil {
		luastate.Raise(L, fmt.Errorf("set_scheduling: %w", err))
	}
	return h.setSchedule(L, s)
}

// setSchedule returns the schedule to Lua. The next attempt moves to a time that it allows.
func (h *handle) setSchedule(L *lua.LState, s *Schedule) int {
	h.schedule = s
	h.m.SetSchedule(s)
	due := h.due
	if due.IsZero() {
		due = time.Now()
	}
	h.setDue(s.Next(due))
	L.Push(luastate.FromTree(L, s.tree()))
	return 1
}

// maxScheduling bounds the text of a header with a schedule.
const maxScheduling = 4096

// messageImportScheduling reads a schedule from a header that holds JSON. It returns nil where there is no
// such header.
func messageImportScheduling(L *lua.LState) int {
	h, block := checkHeaders(L, "import_scheduling_header")
	name, remove := L.CheckString(2), L.OptBool(3, false)
	f, ok := block.First(name)
	if !ok {
		L.Push(lua.LNil)
		return 1
	}
	text := f.Text()
	s, err := parseScheduleText(text)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%.100s from header %s is not a valid Scheduling header: %w", text, name, err))
	}
	if remove {
		h.edit(block.Remove(func(f header.Field) bool { return f.Is(name) }))
	}
	return h.setSchedule(L, s)
}

func parseScheduleText(text string) (*Schedule, error) {
	if len(text) > maxScheduling {
		return nil, fmt.Errorf("it is longer than %d bytes", maxScheduling)
	}
	var tree any
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		return nil, err
	}
	return parseSchedule(tree)
}
