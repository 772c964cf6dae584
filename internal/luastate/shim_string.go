package luastate

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// maxRepeat bounds what string.rep makes: Go cannot recover from memory running out.
const maxRepeat = 256 << 20

var stringFunctions = map[string]lua.LGFunction{
	"format":   stringFormat,
	"rep":      stringRep,
	"pack":     absent("string.pack"),
	"unpack":   absent("string.unpack"),
	"packsize": absent("string.packsize"),
}

func stringRep(L *lua.LState) int {
	text, n, separator := L.CheckString(1), L.CheckInt(2), L.OptString(3, "")
	if n <= 0 {
		L.Push(lua.LString(""))
		return 1
	}
	if unit := len(text) + len(separator); unit > 0 && n > maxRepeat/unit {
		L.RaiseError("resulting string too large")
	}
	L.Push(lua.LString(strings.Repeat(text+separator, n-1) + text))
	return 1
}

// stringFormat is C's printf as Lua has it. Go's differs in %s of objects, %g, %x of negative numbers,
// widths of text that is not ASCII, and in complaining inside the result.
func stringFormat(L *lua.LState) int {
	format := L.CheckString(1)
	var out []byte
	arg := 1
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			out = append(out, format[i])
			continue
		}
		if i++; i < len(format) && format[i] == '%' {
			out = append(out, '%')
			continue
		}
		spec, n := parseSpec(format[i:])
		if n == 0 {
			L.RaiseError("invalid conversion '%%%s' to 'format'", clip(format[i:], 10))
		}
		i += n - 1
		if arg++; arg > L.GetTop() {
			L.ArgError(arg, "no value")
		}
		out = spec.append(out, L, arg)
	}
	L.Push(lua.LString(out))
	return 1
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// formatSpec is one conversion: %[flags][width][.precision]verb. Precision is -1 where there is none.
type formatSpec struct {
	flags            string
	width, precision int
	verb             byte
}

// parseSpec reads a conversion after its %; n is its length, zero if it is malformed.
func parseSpec(s string) (spec formatSpec, n int) {
	i := 0
	for i < len(s) && strings.IndexByte("-+ #0", s[i]) >= 0 {
		i++
	}
	spec.flags = s[:i]
	number := func() int {
		start := i
		for i < len(s) && i < start+2 && isDigit(s[i]) {
			i++
		}
		v, _ := strconv.Atoi(s[start:i])
		return v
	}
	spec.width, spec.precision = number(), -1
	if i < len(s) && s[i] == '.' {
		i++
		spec.precision = number()
	}
	if i == len(s) || strings.IndexByte("diucxXoeEfFgGqs", s[i]) < 0 {
		return spec, 0
	}
	spec.verb = s[i]
	return spec, i + 1
}

func (f formatSpec) append(out []byte, L *lua.LState, arg int) []byte {
	switch f.verb {
	case 'd', 'i', 'u':
		return fmt.Appendf(out, f.goFormat("d"), wholeArg(L, arg))
	case 'x', 'X', 'o':
		return fmt.Appendf(out, f.goFormat(string(f.verb)), uint64(wholeArg(L, arg)))
	case 'c':
		return f.pad(out, string([]byte{byte(wholeArg(L, arg))}))
	case 's':
		text := toString(L, L.Get(arg))
		if f.precision >= 0 {
			text = clip(text, f.precision)
		}
		return f.pad(out, text)
	case 'q':
		return appendQuoted(out, L, arg)
	}
	return f.appendFloat(out, float64(L.CheckNumber(arg)))
}

func (f formatSpec) appendFloat(out []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		text := numberText(x)
		if x > 0 && strings.Contains(f.flags, "+") {
			text = "+" + text
		}
		return f.pad(out, text)
	}
	if f.precision < 0 {
		f.precision = 6 // C's; Go would write as many digits as it takes
	}
	if (f.verb == 'g' || f.verb == 'G') && f.precision == 0 {
		f.precision = 1
	}
	return fmt.Appendf(out, f.goFormat(string(f.verb)), x)
}

func (f formatSpec) goFormat(verb string) string {
	format := "%" + f.flags
	if f.width > 0 {
		format += strconv.Itoa(f.width)
	}
	if f.precision >= 0 {
		format += "." + strconv.Itoa(f.precision)
	}
	return format + verb
}

// pad counts bytes, where Go would count characters.
func (f formatSpec) pad(out []byte, text string) []byte {
	blank := strings.Repeat(" ", max(f.width-len(text), 0))
	if strings.Contains(f.flags, "-") {
		return append(append(out, text...), blank...)
	}
	return append(append(out, blank...), text...)
}

func wholeArg(L *lua.LState, arg int) int64 {
	n := float64(L.CheckNumber(arg))
	if !isWhole(n) {
		L.ArgError(arg, "number has no integer representation")
	}
	if n >= math.MaxInt64 {
		return math.MaxInt64 // math.maxinteger, rounded up to a float
	}
	return int64(n)
}

// appendQuoted writes a value so that Lua reads it back.
func appendQuoted(out []byte, L *lua.LState, arg int) []byte {
	text, ok := L.Get(arg).(lua.LString)
	if !ok {
		switch v := L.Get(arg); v.Type() {
		case lua.LTNil, lua.LTBool, lua.LTNumber:
			return append(out, toString(L, v)...)
		default:
			L.ArgError(arg, "value has no literal form")
		}
	}
	out = append(out, '"')
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\\' || c == '\n':
			out = append(out, '\\', c)
		case c < ' ' || c == 0x7f:
			if i+1 < len(text) && isDigit(text[i+1]) {
				out = fmt.Appendf(out, `\%03d`, c)
			} else {
				out = fmt.Appendf(out, `\%d`, c)
			}
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}
