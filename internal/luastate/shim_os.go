package luastate

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
)

var osFunctions = map[string]lua.LGFunction{
	"date":    osDate,
	"execute": osExecute,
	"exit":    absent("os.exit"),
	"getenv":  osGetenv,
	"setenv":  absent("os.setenv"),
	"time":    osTime,
}

func osGetenv(L *lua.LState) int {
	if value, ok := os.LookupEnv(stringArg(L, 1)); ok {
		L.Push(lua.LString(value))
	} else {
		L.Push(lua.LNil)
	}
	return 1
}

// osDate is os.date([format [, time]]) with the conversions of C99 in the locale "C".
func osDate(L *lua.LState) int {
	format := optString(L, 1, "%c")
	t := time.Now()
	if L.Get(2) != lua.LNil {
		t = time.Unix(int64(intArg(L, 2)), 0)
	}
	if rest, utc := strings.CutPrefix(format, "!"); utc {
		format, t = rest, t.UTC()
	}
	if year := t.Year(); year < -1_000_000 || year > 1_000_000 {
		L.RaiseError("date result cannot be represented in this installation")
	}
	if strings.HasPrefix(format, "*t") {
		fields := L.CreateTable(0, 9)
		setDateFields(fields, t)
		L.Push(fields)
		return 1
	}
	out := text{L: L}
	for {
		at := strings.IndexByte(format, '%')
		if at < 0 {
			out.add(format)
			out.push()
			return 1
		}
		out.add(format[:at])
		n := dateSpec(format[at+1:])
		if n == 0 {
			L.ArgError(1, "invalid conversion specifier '"+clip(format[at:], 3)+"'")
		}
		out.add(dateField(t, format[at+n]))
		format = format[at+1+n:]
	}
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// dateSpec is the length of the conversion that begins s, after its %, zero if it is none. What E and O
// ask for does not exist in the locale "C".
func dateSpec(s string) int {
	n, letters := 1, "aAbBcCdDeFgGhHIjmMnprRStTuUVwWxXyYzZ%"
	switch {
	case strings.HasPrefix(s, "E"):
		n, letters = 2, "cCxXyY"
	case strings.HasPrefix(s, "O"):
		n, letters = 2, "deHImMSuUVwWy"
	}
	if len(s) < n || strings.IndexByte(letters, s[n-1]) < 0 {
		return 0
	}
	return n
}

func dateField(t time.Time, letter byte) string {
	two := func(n int) string { return fmt.Sprintf("%02d", n) }
	switch letter {
	case 'Z':
		if t.Location() == time.UTC {
			return "GMT" // as C has it
		}
		return t.Format("MST")
	case 'a', 'A', 'b', 'B', 'h', 'c', 'D', 'e', 'F', 'p', 'r', 'R', 'T', 'x', 'X', 'z':
		return t.Format(goLayouts[letter])
	case 'C':
		return two(t.Year() / 100)
	case 'd':
		return two(t.Day())
	case 'g':
		year, _ := t.ISOWeek()
		return two(year % 100)
	case 'G':
		year, _ := t.ISOWeek()
		return strconv.Itoa(year)
	case 'H':
		return two(t.Hour())
	case 'I':
		return two((t.Hour()+11)%12 + 1)
	case 'j':
		return fmt.Sprintf("%03d", t.YearDay())
	case 'm':
		return two(int(t.Month()))
	case 'M':
		return two(t.Minute())
	case 'n':
		return "\n"
	case 'S':
		return two(t.Second())
	case 't':
		return "\t"
	case 'u':
		return strconv.Itoa((int(t.Weekday())+6)%7 + 1)
	case 'U': // weeks begin on Sunday
		return two((t.YearDay() + 6 - int(t.Weekday())) / 7)
	case 'V':
		_, week := t.ISOWeek()
		return two(week)
	case 'w':
		return strconv.Itoa(int(t.Weekday()))
	case 'W': // weeks begin on Monday
		return two((t.YearDay() + 6 - (int(t.Weekday())+6)%7) / 7)
	case 'y':
		return two(t.Year() % 100)
	case 'Y':
		return strconv.Itoa(t.Year())
	}
	return "%"
}

var goLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan", 'c': "Mon Jan _2 15:04:05 2006",
	'D': "01/02/06", 'e': "_2", 'F': "2006-01-02", 'p': "PM", 'r': "03:04:05 PM", 'R': "15:04",
	'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05", 'z': "-0700",
}

func setDateFields(fields *lua.LTable, t time.Time) {
	for name, n := range map[string]int{
		"year": t.Year(), "month": int(t.Month()), "day": t.Day(), "hour": t.Hour(), "min": t.Minute(),
		"sec": t.Second(), "yday": t.YearDay(), "wday": int(t.Weekday()) + 1,
	} {
		fields.RawSetString(name, lua.LNumber(n))
	}
	fields.RawSetString("isdst", lua.LBool(t.IsDST()))
}

// osTime is os.time([table]). Fields outside their range are carried, and the table gets the date that
// comes out.
func osTime(L *lua.LState) int {
	if L.Get(1) == lua.LNil {
		L.Push(lua.LNumber(time.Now().Unix()))
		return 1
	}
	tbl := L.CheckTable(1)
	t := time.Date(dateArg(L, tbl, "year", nil), time.Month(dateArg(L, tbl, "month", nil)), dateArg(L, tbl, "day", nil),
		dateArg(L, tbl, "hour", new(12)), dateArg(L, tbl, "min", new(0)), dateArg(L, tbl, "sec", new(0)), 0, time.Local)
	setDateFields(tbl, t)
	L.Push(lua.LNumber(t.Unix()))
	return 1
}

// dateArg is a field of the table of os.time; it must be there if absent is nil.
func dateArg(L *lua.LState, tbl *lua.LTable, name string, absent *int) int {
	v := L.GetField(tbl, name)
	switch {
	case v == lua.LNil && absent == nil:
		L.RaiseError("field '%s' missing in date table", name)
	case v == lua.LNil:
		return *absent
	}
	if text, ok := v.(lua.LString); ok {
		v = parseNumber(string(text))
	}
	n, ok := v.(lua.LNumber)
	switch {
	case !ok || !isWhole(float64(n)):
		L.RaiseError("field '%s' is not an integer", name)
	case n < -1<<31 || n >= 1<<31:
		L.RaiseError("field '%s' is out-of-bound", name)
	}
	return int(n)
}
