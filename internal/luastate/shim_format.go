package luastate

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// stringFormat is C's printf as Lua has it. Go's differs in %s of objects, %g, %x of negative numbers,
// widths of text that is not ASCII, and in complaining inside the result.
func stringFormat(L *lua.LState) int {
	format := stringArg(L, 1)
	out := text{L: L}
	for arg := 1; ; {
		at := strings.IndexByte(format, '%')
		if at < 0 {
			out.add(format)
			out.push()
			return 1
		}
		out.add(format[:at])
		format = format[at+1:]
		if strings.HasPrefix(format, "%") {
			out.addByte('%')
			format = format[1:]
			continue
		}
		spec, n := parseSpec(format)
		if n == 0 {
			L.RaiseError("invalid conversion '%%%s' to 'format'", spec.text)
		}
		format = format[n:]
		if arg++; arg > L.GetTop() {
			L.ArgError(arg, "no value")
		}
		spec.write(&out, arg)
	}
}

// formatSpec is one conversion: %[flags][width][.precision]verb. Precision is -1 where there is none.
type formatSpec struct {
	minus, plus, space, alternate, zero bool

	width, precision int
	verb             byte
	text             string // as it is written
}

// parseSpec reads a conversion after its %; n is its length, zero if it is malformed.
func parseSpec(s string) (spec formatSpec, n int) {
	spec.precision = -1
	i := spec.parseFlags(s)
	spec.width, i = parseDigits(s, i)
	if i < len(s) && s[i] == '.' {
		spec.precision, i = parseDigits(s, i+1)
	}
	spec.text = s[:min(i+1, len(s))]
	if i == len(s) || strings.IndexByte("diucxXoeEfFgGaAqsp", s[i]) < 0 {
		return spec, 0
	}
	spec.verb = s[i]
	return spec, i + 1
}

func (f *formatSpec) parseFlags(s string) (end int) {
	for i := range len(s) {
		switch s[i] {
		case '-':
			f.minus = true
		case '+':
			f.plus = true
		case ' ':
			f.space = true
		case '#':
			f.alternate = true
		case '0':
			f.zero = true
		default:
			return i
		}
	}
	return len(s)
}

// parseDigits reads at most two digits.
func parseDigits(s string, from int) (value, end int) {
	for end = from; end < len(s) && end < from+2 && isDigit(s[end]); end++ {
		value = value*10 + int(s[end]-'0')
	}
	return value, end
}

func (f *formatSpec) plain() bool { return len(f.text) == 1 }

func (f *formatSpec) write(out *text, arg int) {
	L := out.L
	var scratch [64]byte
	switch f.verb {
	case 'd', 'i':
		n := intArg(L, arg)
		if f.plain() {
			out.addBytes(strconv.AppendInt(scratch[:0], int64(n), 10))
			return
		}
		magnitude := uint64(n)
		if n < 0 {
			magnitude = -magnitude
		}
		f.writeInteger(out, f.sign(n < 0), magnitude, 10)
	case 'u':
		f.writeInteger(out, "", uint64(intArg(L, arg)), 10)
	case 'x', 'X':
		f.writeInteger(out, "", uint64(intArg(L, arg)), 16)
	case 'o':
		f.writeInteger(out, "", uint64(intArg(L, arg)), 8)
	case 'c':
		f.pad(out, string([]byte{byte(intArg(L, arg))}))
	case 's':
		s := toString(L, L.CheckAny(arg))
		if f.precision >= 0 {
			s = s[:min(len(s), f.precision)]
		}
		f.pad(out, s)
	case 'p':
		f.pad(out, pointer(L.CheckAny(arg)))
	case 'q':
		if !f.plain() {
			L.RaiseError("specifier '%%%c' cannot have modifiers", f.verb)
		}
		writeQuoted(out, arg)
	default:
		f.writeFloat(out, floatArg(L, arg))
	}
}

func (f *formatSpec) sign(negative bool) string {
	switch {
	case negative:
		return "-"
	case f.plus:
		return "+"
	case f.space:
		return " "
	}
	return ""
}

func (f *formatSpec) writeInteger(out *text, prefix string, n uint64, base int) {
	var scratch [64]byte
	digits := strconv.AppendUint(scratch[:0], n, base)
	if f.precision == 0 && n == 0 {
		digits = nil
	}
	if f.alternate && base == 16 && n != 0 {
		prefix = "0x"
	}
	if missing := f.precision - len(digits); missing > 0 {
		prefix += strings.Repeat("0", missing)
	} else if f.alternate && base == 8 && (len(digits) == 0 || digits[0] != '0') {
		prefix = "0"
	}
	if f.verb == 'X' {
		prefix, digits = strings.ToUpper(prefix), []byte(strings.ToUpper(string(digits)))
	}
	f.padNumber(out, prefix, digits, f.zero && f.precision < 0)
}

func (f *formatSpec) writeFloat(out *text, x float64) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		name := strings.TrimPrefix(numberText(x), "-")
		if 'A' <= f.verb && f.verb <= 'Z' {
			name = strings.ToUpper(name)
		}
		f.padNumber(out, f.sign(x < 0), []byte(name), false)
		return
	}
	var scratch [128]byte
	sign := f.sign(math.Signbit(x))
	digits := f.appendFloat(scratch[:0], math.Abs(x))
	if prefix := digits[:min(2, len(digits))]; string(prefix) == "0x" || string(prefix) == "0X" {
		sign, digits = sign+string(prefix), digits[2:]
	}
	f.padNumber(out, sign, digits, f.zero)
}

func (f *formatSpec) appendFloat(out []byte, x float64) []byte {
	verb, precision := f.verb, f.precision
	if verb == 'a' || verb == 'A' {
		return appendHexFloat(out, verb, precision, x)
	}
	if precision < 0 {
		precision = 6 // C's; Go would write as many digits as it takes
	}
	switch {
	case f.alternate:
		return fmt.Appendf(out, "%#.*"+string(rune(verb)), precision, x)
	case verb == 'F':
		verb = 'f'
	case (verb == 'g' || verb == 'G') && precision == 0:
		precision = 1
	}
	return strconv.AppendFloat(out, x, verb, precision, 64)
}

// appendHexFloat writes C's %a, whose exponent has no zero in front.
func appendHexFloat(out []byte, verb byte, precision int, x float64) []byte {
	out = strconv.AppendFloat(out, x, verb-'a'+'x', precision, 64)
	if n := len(out); n > 2 && out[n-2] == '0' && !isDigit(out[n-3]) {
		out = append(out[:n-2], out[n-1])
	}
	return out
}

// padNumber puts zeros between the sign and the digits, or blanks around them.
func (f *formatSpec) padNumber(out *text, prefix string, digits []byte, zeros bool) {
	missing := max(f.width-len(prefix)-len(digits), 0)
	blanks := !zeros && !f.minus
	if blanks {
		out.add(blank[:missing])
	}
	out.add(prefix)
	if zeros && !f.minus {
		out.add(strings.Repeat("0", missing))
	}
	out.addBytes(digits)
	if f.minus {
		out.add(blank[:missing])
	}
}

// blank is as wide as a width can be.
var blank = strings.Repeat(" ", 99)

// pad counts bytes, where Go would count characters.
func (f *formatSpec) pad(out *text, s string) {
	missing := max(f.width-len(s), 0)
	if !f.minus {
		out.add(blank[:missing])
	}
	out.add(s)
	if f.minus {
		out.add(blank[:missing])
	}
}

// pointer tells objects apart.
func pointer(v lua.LValue) string {
	switch v := v.(type) {
	case *lua.LTable, *lua.LFunction, *lua.LUserData, *lua.LState:
		return fmt.Sprintf("%p", v)
	}
	return "(null)"
}

// writeQuoted writes a value so that Lua reads it back.
func writeQuoted(out *text, arg int) {
	switch v := out.L.CheckAny(arg).(type) {
	case lua.LString:
		quote(out, string(v))
	case lua.LNumber:
		out.add(numberLiteral(float64(v)))
	case *lua.LNilType, lua.LBool:
		out.add(v.String())
	default:
		out.L.ArgError(arg, "value has no literal form")
	}
}

// numberLiteral is an expression: Lua has no literal for what is no finite number.
func numberLiteral(x float64) string {
	switch {
	case math.IsNaN(x):
		return "(0/0)"
	case math.IsInf(x, 0):
		return fmt.Sprintf("(%d/0)", int(math.Copysign(1, x)))
	case isWhole(x):
		return numberText(x)
	}
	return strconv.FormatFloat(x, 'g', -1, 64) // with all its digits
}

func quote(out *text, s string) {
	out.addByte('"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != 0x7f && c != '"' && c != '\\' {
			continue
		}
		out.add(s[done:i])
		done = i + 1
		switch {
		case c == '"' || c == '\\' || c == '\n':
			out.addByte('\\')
			out.addByte(c)
		case i+1 < len(s) && isDigit(s[i+1]):
			out.add(fmt.Sprintf(`\%03d`, c))
		default:
			out.add(`\` + strconv.Itoa(int(c)))
		}
	}
	out.add(s[done:])
	out.addByte('"')
}
