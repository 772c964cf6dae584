package kumo

import (
	"fmt"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// maxTimeFormat bounds a format, because one byte of it may become twenty of the result.
const maxTimeFormat = 64 << 10

// timeFormat is Time:format(format).
func timeFormat(L *lua.LState) int {
	t, format := checkTime(L, 1), L.CheckString(2)
	if len(format) > maxTimeFormat {
		luastate.Raise(L, fmt.Errorf("format: it is longer than %d bytes", maxTimeFormat))
	}
	L.Push(lua.LString(strftime(t, format)))
	return 1
}

// strftime knows what upstream's formatter knows. What it does not know stays as it is.
func strftime(t time.Time, format string) string {
	var out strings.Builder
	for len(format) > 0 {
		at := strings.IndexByte(format, '%')
		if at < 0 {
			break
		}
		out.WriteString(format[:at])
		format = format[at:]
		text, length := directive(t, format)
		if length == 0 {
			text, length = "%", 1
		}
		out.WriteString(text)
		format = format[length:]
	}
	out.WriteString(format)
	return out.String()
}

// directive formats what the format begins with; a length of 0 says that it is none that is known.
func directive(t time.Time, format string) (text string, length int) {
	for _, fixed := range []struct {
		name, layout string
	}{
		{"%.3f", ".000"}, {"%.6f", ".000000"}, {"%.9f", ".000000000"},
		{"%:::z", "-07"}, {"%::z", "-07:00:00"}, {"%:z", "-07:00"}, {"%#z", "-07"},
	} {
		if strings.HasPrefix(format, fixed.name) {
			return t.Format(fixed.layout), len(fixed.name)
		}
	}
	if strings.HasPrefix(format, "%.f") {
		return fraction(t), 3
	}
	for _, digits := range []string{"3", "6", "9"} {
		if strings.HasPrefix(format, "%"+digits+"f") {
			return fmt.Sprintf("%09d", t.Nanosecond())[:digits[0]-'0'], 3
		}
	}
	length = 2
	var padding byte
	if len(format) > 2 && strings.IndexByte("-_0", format[1]) >= 0 {
		padding = format[1]
		length = 3
	}
	if len(format) < length {
		return "", 0
	}
	letter := format[length-1]
	if n, width, pad, ok := timeNumber(t, letter); ok {
		if padding != 0 {
			pad = padding
		}
		return padNumber(n, width, pad), length
	}
	if padding != 0 {
		return "", 0
	}
	text, ok := timeWord(t, letter)
	if !ok {
		return "", 0
	}
	return text, length
}

func padNumber(n, width int, pad byte) string {
	switch pad {
	case '-':
		return fmt.Sprint(n)
	case '_':
		return fmt.Sprintf("%*d", width, n)
	}
	return fmt.Sprintf("%0*d", width, n)
}

// timeNumber is a directive that is a number, with its usual width and padding.
func timeNumber(t time.Time, letter byte) (n, width int, pad byte, ok bool) {
	isoYear, isoWeek := t.ISOWeek()
	hour12 := (t.Hour()+11)%12 + 1
	switch letter {
	case 'Y':
		return t.Year(), 4, '0', true
	case 'C':
		return t.Year() / 100, 2, '0', true
	case 'y':
		return t.Year() % 100, 2, '0', true
	case 'G':
		return isoYear, 4, '0', true
	case 'g':
		return isoYear % 100, 2, '0', true
	case 'q':
		return (int(t.Month()) + 2) / 3, 1, '0', true
	case 'm':
		return int(t.Month()), 2, '0', true
	case 'd':
		return t.Day(), 2, '0', true
	case 'e':
		return t.Day(), 2, '_', true
	case 'j':
		return t.YearDay(), 3, '0', true
	case 'H':
		return t.Hour(), 2, '0', true
	case 'k':
		return t.Hour(), 2, '_', true
	case 'I':
		return hour12, 2, '0', true
	case 'l':
		return hour12, 2, '_', true
	case 'M':
		return t.Minute(), 2, '0', true
	case 'S':
		return t.Second(), 2, '0', true
	case 'f':
		return t.Nanosecond(), 9, '0', true
	case 'w':
		return int(t.Weekday()), 1, '0', true
	case 'u':
		return (int(t.Weekday())+6)%7 + 1, 1, '0', true
	case 'U':
		return (t.YearDay() + 6 - int(t.Weekday())) / 7, 2, '0', true
	case 'W':
		return (t.YearDay() + 6 - (int(t.Weekday())+6)%7) / 7, 2, '0', true
	case 'V':
		return isoWeek, 2, '0', true
	case 's':
		return int(t.Unix()), 1, '0', true
	}
	return 0, 0, 0, false
}

// timeWord is a directive that is more than a number.
func timeWord(t time.Time, letter byte) (text string, ok bool) {
	switch letter {
	case '+':
		return t.Format("2006-01-02T15:04:05") + fraction(t) + "+00:00", true
	case '%':
		return "%", true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case 'P':
		return strings.ToLower(t.Format("PM")), true
	}
	layout, ok := timeLayouts[letter]
	return t.Format(layout), ok
}

var timeLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'p': "PM", 'Z': "UTC", 'z': "-0700",
	'D': "01/02/06", 'x': "01/02/06", 'F': "2006-01-02", 'v': "_2-Jan-2006", 'R': "15:04", 'T': "15:04:05",
	'X': "15:04:05", 'r': "03:04:05 PM", 'c': "Mon Jan _2 15:04:05 2006",
}
