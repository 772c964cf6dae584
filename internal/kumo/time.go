package kumo

import (
	"errors"
	"fmt"
	"math"
	"net/mail"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// A Time of Lua is a time.Time in UTC, a TimeDelta a time.Duration, each in a userdata.

func (m *module) timeFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"sleep":               sleep,
		"now":                 m.timeNow,
		"start_timer":         m.startTimer,
		"from_unix_timestamp": m.timeFromUnix,
		"with_ymd_hms":        m.timeWithYMD,
		"parse_rfc3339":       m.timeParser("parse_rfc3339", parseRFC3339),
		"parse_rfc2822":       m.timeParser("parse_rfc2822", parseRFC2822),
		"parse_duration":      m.timeParseDuration,
	}
}

var errTimeRange = errors.New("the time would be outside the years 0 to 9999")

// pushTime returns t to Lua; what names the caller, for an error.
func (m *module) pushTime(L *lua.LState, what string, t time.Time) int {
	t = t.Round(0).UTC() // without the reading of the monotonic clock
	if year := t.Year(); year < 0 || year > 9999 {
		luastate.Raise(L, fmt.Errorf("%s: %w", what, errTimeRange))
	}
	L.Push(m.newTime(L, t))
	return 1
}

// newTime is t as Lua sees it.
func (m *module) newTime(L *lua.LState, t time.Time) *lua.LUserData {
	mt := m.metatable(L, "Time", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index":    m.timeIndex,
			"__tostring": timeText,
			"__eq":       timeEqual,
			"__add":      m.timeAdd,
			"__sub":      m.timeSub,
		})
		mt.RawSetString("format", L.NewFunction(timeFormat))
	})
	return &lua.LUserData{Value: t, Env: L.Env, Metatable: mt}
}

// newDelta is d as Lua sees it.
func (m *module) newDelta(L *lua.LState, d time.Duration) *lua.LUserData {
	mt := m.metatable(L, "TimeDelta", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index":    deltaIndex,
			"__tostring": deltaText,
			"__eq":       deltaEqual,
			"__add":      m.deltaAdd,
			"__sub":      m.deltaSub,
		})
	})
	return &lua.LUserData{Value: d, Env: L.Env, Metatable: mt}
}

func asTime(v lua.LValue) (time.Time, bool) {
	if ud, ok := v.(*lua.LUserData); ok {
		t, ok := ud.Value.(time.Time)
		return t, ok
	}
	return time.Time{}, false
}

func asDelta(v lua.LValue) (time.Duration, bool) {
	if ud, ok := v.(*lua.LUserData); ok {
		d, ok := ud.Value.(time.Duration)
		return d, ok
	}
	return 0, false
}

func checkTime(L *lua.LState, n int) time.Time {
	t, ok := asTime(L.Get(n))
	if !ok {
		L.ArgError(n, "Time expected, got "+L.Get(n).Type().String())
	}
	return t
}

func checkDelta(L *lua.LState, n int) time.Duration {
	d, ok := asDelta(L.Get(n))
	if !ok {
		L.ArgError(n, "TimeDelta expected, got "+L.Get(n).Type().String())
	}
	return d
}

func (m *module) timeNow(L *lua.LState) int { return m.pushTime(L, "now", time.Now()) }

func (m *module) timeFromUnix(L *lua.LState) int {
	seconds := float64(L.CheckNumber(1))
	if math.IsNaN(seconds) || math.Abs(seconds) > 1e12 {
		luastate.Raise(L, fmt.Errorf("from_unix_timestamp: %w", errTimeRange))
	}
	whole := math.Floor(seconds)
	return m.pushTime(L, "from_unix_timestamp", time.Unix(int64(whole), int64((seconds-whole)*1e9)))
}

func (m *module) timeWithYMD(L *lua.LState) int {
	var n [6]int
	for i := range n {
		v := float64(L.CheckNumber(i + 1))
		if v != math.Trunc(v) || v < 0 || v > 9999 {
			L.ArgError(i+1, "want a whole number from 0 to 9999, got "+L.Get(i+1).String())
		}
		n[i] = int(v)
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	// Date makes the 31st of a shorter month one of the next.
	if got := [6]int{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()}; got != n {
		luastate.Raise(L, fmt.Errorf("with_ymd_hms: there is no %04d-%02d-%02d %02d:%02d:%02d", n[0], n[1], n[2], n[3], n[4], n[5]))
	}
	return m.pushTime(L, "with_ymd_hms", t)
}

func (m *module) timeParser(name string, parse func(string) (time.Time, error)) lua.LGFunction {
	return func(L *lua.LState) int {
		text := L.CheckString(1)
		t, err := parse(text)
		if err != nil {
			luastate.Raise(L, fmt.Errorf("%s: %q is no such time", name, excerpt(text)))
		}
		return m.pushTime(L, name, t)
	}
}

// parseRFC3339 takes a space for the T, which RFC 3339 section 5.6 allows to read better.
func parseRFC3339(text string) (time.Time, error) {
	text = strings.ToUpper(text)
	if len(text) > 10 && text[10] == ' ' {
		text = text[:10] + "T" + text[11:]
	}
	return time.Parse(time.RFC3339Nano, text)
}

// parseRFC2822 reads the zones of RFC 5322 section 4.3 by name too, which net/mail would take for UTC.
func parseRFC2822(text string) (time.Time, error) {
	if len(text) > 256 {
		return time.Time{}, errors.New("it is too long")
	}
	zoned, comment, _ := strings.Cut(text, "(")
	fields := strings.Fields(zoned)
	if len(fields) > 1 {
		last := &fields[len(fields)-1]
		if offset, ok := zoneOffsets[strings.ToUpper(*last)]; ok {
			*last = offset
		} else if c := (*last)[0]; c != '+' && c != '-' {
			*last = "-0000"
		}
	}
	zoned = strings.Join(fields, " ")
	if comment != "" {
		zoned += " (" + comment
	}
	return mail.ParseDate(zoned)
}

var zoneOffsets = map[string]string{
	"UT": "+0000", "GMT": "+0000", "EDT": "-0400", "EST": "-0500", "CDT": "-0500", "CST": "-0600",
	"MDT": "-0600", "MST": "-0700", "PDT": "-0700", "PST": "-0800",
}

// timeParseDuration takes what every duration of a policy may be, and negative numbers.
func (m *module) timeParseDuration(L *lua.LState) int {
	var d time.Duration
	var err error
	switch v := L.Get(1).(type) {
	case lua.LNumber:
		var ok bool
		if d, ok = secondsToDuration(math.Abs(float64(v))); !ok {
			err = fmt.Errorf("%s seconds are out of range", v)
		}
		if v < 0 {
			d = -d
		}
	case lua.LString:
		d, err = m.parseDuration(string(v))
	default:
		L.ArgError(1, "want a number of seconds or a text as '5 minutes', got "+v.Type().String())
	}
	if err != nil {
		luastate.Raise(L, fmt.Errorf("parse_duration: %w", err))
	}
	L.Push(m.newDelta(L, d))
	return 1
}

func (m *module) timeIndex(L *lua.LState) int {
	t := checkTime(L, 1)
	var v lua.LValue
	switch name := L.Get(2).String(); name {
	case "year":
		v = lua.LNumber(t.Year())
	case "month":
		v = lua.LNumber(t.Month())
	case "day":
		v = lua.LNumber(t.Day())
	case "hour":
		v = lua.LNumber(t.Hour())
	case "minute":
		v = lua.LNumber(t.Minute())
	case "second":
		v = lua.LNumber(t.Second())
	case "unix_timestamp":
		v = lua.LNumber(t.Unix())
	case "unix_timestamp_millis":
		v = lua.LNumber(t.UnixMilli())
	case "rfc2822":
		v = lua.LString(t.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	case "rfc3339":
		v = lua.LString(t.Format("2006-01-02T15:04:05") + fraction(t) + "+00:00")
	case "elapsed":
		v = m.newDelta(L, time.Since(t))
	case "format":
		v = m.types["Time"].RawGetString(name)
	default:
		L.RaiseError("a Time has no field %q", excerpt(name))
	}
	L.Push(v)
	return 1
}

// fraction is the part below the second with 3, 6 or 9 digits, as many as it takes.
func fraction(t time.Time) string {
	switch n := t.Nanosecond(); {
	case n == 0:
		return ""
	case n%1e6 == 0:
		return fmt.Sprintf(".%03d", n/1e6)
	case n%1e3 == 0:
		return fmt.Sprintf(".%06d", n/1e3)
	default:
		return fmt.Sprintf(".%09d", n)
	}
}

func timeText(L *lua.LState) int {
	t := checkTime(L, 1)
	L.Push(lua.LString(t.Format("2006-01-02 15:04:05") + fraction(t) + " UTC"))
	return 1
}

func timeEqual(L *lua.LState) int {
	L.Push(lua.LBool(checkTime(L, 1).Equal(checkTime(L, 2))))
	return 1
}

func (m *module) timeAdd(L *lua.LState) int {
	return m.pushTime(L, "Time + TimeDelta", checkTime(L, 1).Add(checkDelta(L, 2)))
}

func (m *module) timeSub(L *lua.LState) int {
	t := checkTime(L, 1)
	if d, ok := asDelta(L.Get(2)); ok {
		if d == math.MinInt64 { // which has no opposite
			luastate.Raise(L, fmt.Errorf("a Time minus a TimeDelta: %w", errDeltaRange))
		}
		return m.pushTime(L, "Time - TimeDelta", t.Add(-d))
	}
	other, ok := asTime(L.Get(2))
	if !ok {
		L.ArgError(2, "Time or TimeDelta expected, got "+L.Get(2).Type().String())
	}
	d := t.Sub(other)
	if !other.Add(d).Equal(t) { // it stops at what a duration holds
		luastate.Raise(L, fmt.Errorf("a Time minus a Time: %w", errDeltaRange))
	}
	L.Push(m.newDelta(L, d))
	return 1
}

var errDeltaRange = errors.New("the TimeDelta would be longer than 292 years")

func deltaIndex(L *lua.LState) int {
	d := checkDelta(L, 1)
	var v lua.LValue
	switch name := L.Get(2).String(); name {
	case "seconds":
		v = lua.LNumber(d.Seconds())
	case "milliseconds":
		v = lua.LNumber(d.Milliseconds())
	case "microseconds":
		v = lua.LNumber(d.Microseconds())
	case "nanoseconds":
		v = lua.LNumber(d.Nanoseconds())
	case "human":
		v = lua.LString(decode.FormatDuration(d))
	default:
		L.RaiseError("a TimeDelta has no field %q", excerpt(name))
	}
	L.Push(v)
	return 1
}

func deltaText(L *lua.LState) int {
	L.Push(lua.LString(decode.FormatDuration(checkDelta(L, 1))))
	return 1
}

func deltaEqual(L *lua.LState) int {
	L.Push(lua.LBool(checkDelta(L, 1) == checkDelta(L, 2)))
	return 1
}

func (m *module) deltaAdd(L *lua.LState) int {
	a, b := checkDelta(L, 1), checkDelta(L, 2)
	sum := a + b
	if (sum > a) != (b > 0) && b != 0 {
		luastate.Raise(L, fmt.Errorf("the sum of TimeDeltas: %w", errDeltaRange))
	}
	L.Push(m.newDelta(L, sum))
	return 1
}

func (m *module) deltaSub(L *lua.LState) int {
	a, b := checkDelta(L, 1), checkDelta(L, 2)
	difference := a - b
	if (difference < a) != (b > 0) && b != 0 {
		luastate.Raise(L, fmt.Errorf("a TimeDelta minus a TimeDelta: %w", errDeltaRange))
	}
	L.Push(m.newDelta(L, difference))
	return 1
}

// timer is what start_timer makes. Nobody collects what it measures: its method done tells the policy.
type timer struct {
	start time.Time
	done  bool
}

// startTimer is kumo.time.start_timer(label).
func (m *module) startTimer(L *lua.LState) int {
	L.CheckString(1)
	mt := m.metatable(L, "timer", func(L *lua.LState, mt *lua.LTable) {
		methods := L.CreateTable(0, 1)
		methods.RawSetString("done", L.NewFunction(timerDone))
		mt.RawSetString("__index", methods)
	})
	L.Push(&lua.LUserData{Value: &timer{start: time.Now()}, Env: L.Env, Metatable: mt})
	return 1
}

// timerDone is the number of seconds that have passed, the first time, and nil then.
func timerDone(L *lua.LState) int {
	t, ok := L.CheckUserData(1).Value.(*timer)
	switch {
	case !ok:
		L.ArgError(1, "timer expected")
	case t.done:
		L.Push(lua.LNil)
	default:
		t.done = true
		L.Push(lua.LNumber(time.Since(t.start).Seconds()))
	}
	return 1
}
