package luastate

import (
	"slices"
	"testing"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// fuzzState runs source once and gives back its function f, to be called with limits. What f raises is
// no failure, a panic below it is.
func fuzzState(f *testing.F, source string) func(t *testing.T, args ...lua.LValue) ([]lua.LValue, error) {
	s := newState(f, source, nil)
	return func(t *testing.T, args ...lua.LValue) ([]lua.LValue, error) {
		results, err := s.Call(newWeary(5000), lua.MultRet, s.L.GetGlobal("f"), args...)
		if err != nil && errorOf(err).Panic {
			t.Fatalf("%v\n%s", err, Traceback(err))
		}
		return results, err
	}
}

// Replacing every match by itself changes nothing, as often as gmatch finds one.
func FuzzGsub(f *testing.F) {
	f.Add("key = value", "(%w+)%s*=%s*()")
	f.Add("abc", "%w*")
	f.Add("a,b,,c", "[^,]*")
	f.Add("f(x(y)z)", "%b()")
	f.Add("THE (quick) fox", "%f[%a]%a+")
	call := fuzzState(f, `function f(s, p)
		local n = 0
		for _ in s:gmatch(p) do n = n + 1 end
		return n, s:gsub(p, '%0')
	end`)
	f.Fuzz(func(t *testing.T, subject, pattern string) {
		if pattern != "" && pattern[0] == '^' { // gmatch has no anchor
			return
		}
		results, err := call(t, lua.LString(subject), lua.LString(pattern))
		if err == nil && (results[1] != lua.LString(subject) || results[0] != results[2]) {
			t.Errorf("gsub(%q, %q) = %v", subject, pattern, results)
		}
	})
}

// A format gives a text of the width that it says, or an error.
func FuzzFormat(f *testing.F) {
	for _, spec := range []string{"%5.2f", "%-+#010.3x", "%q", "%99.99s", "%%", "%d%s%c", "% .3g", "%#o", "%a", "%.0e", "%p"} {
		f.Add(spec, 3.0, "text")
	}
	call := fuzzState(f, "function f(format, n, s) return format:format(n, n, n), format:format(s, s, s) end")
	f.Fuzz(func(t *testing.T, format string, n float64, s string) {
		results, err := call(t, lua.LString(format), lua.LNumber(n), lua.LString(s))
		if err != nil || len(format) < 2 || format[0] != '%' {
			return
		}
		if spec, n := parseSpec(format[1:]); n == len(format)-1 && spec.verb != 'q' {
			if got := len(results[0].(lua.LString)); got < spec.width {
				t.Errorf("%q gives %q", format, results[0])
			}
		}
	})
}

// What was sorted is what there was, in order; and an order that makes no sense does no harm.
func FuzzSort(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over the lazy dog"), byte(3))
	f.Add(make([]byte, 200), byte(0))
	call := fuzzState(f, `function f(s, nonsense)
		local t = {s:byte(1, -1)}
		table.sort(t)
		pcall(table.sort, {s:byte(1, -1)}, function(a, b) nonsense = (nonsense * 31 + a) % 257 return nonsense % 2 == 0 end)
		pcall(table.sort, {s:byte(1, -1)}, function(a, b) return a <= b end)
		table.sort(t, function(a, b) return a > b end)
		table.sort(t)
		return string.char(table.unpack(t))
	end`)
	f.Fuzz(func(t *testing.T, content []byte, nonsense byte) {
		if len(content) > 300 {
			return
		}
		results, err := call(t, lua.LString(content), lua.LNumber(nonsense))
		if err != nil {
			return // too many comparisons for the context
		}
		slices.Sort(content)
		if results[0] != lua.LString(content) {
			t.Errorf("%q", results[0])
		}
	})
}

// What is packed has the size that packsize says, and is read back to its end.
func FuzzPack(f *testing.F) {
	for _, format := range []string{"<i1i2i4", ">!8bXi8d", "s1z", "c5x", "!4 i3 J", "=f n T"} {
		f.Add(format, int64(7), "ab")
	}
	call := fuzzState(f, `function f(format, n, s)
		local args = {}
		for option in format:gmatch('%a') do
			if option:find('[szc]') then args[#args + 1] = s
			elseif not option:find('[xX]') then args[#args + 1] = n end
		end
		local data = format:pack(table.unpack(args))
		local fixed, size = pcall(string.packsize, format)
		local back = {format:unpack(data)}
		return #data, fixed and size or #data, back[#back] - 1
	end`)
	f.Fuzz(func(t *testing.T, format string, n int64, s string) {
		results, err := call(t, lua.LString(format), lua.LNumber(n), lua.LString(s))
		if err == nil && (results[0] != results[1] || results[0] != results[2]) {
			t.Errorf("%q: %v", format, results)
		}
	})
}

// Whatever unpack reads, it ends.
func FuzzUnpack(f *testing.F) {
	f.Add("<s4", "\xff\xff\xff\x7fx", 1)
	f.Add(">i16!Xd", "0123456789abcdef", -3)
	call := fuzzState(f, "function f(format, data, at) return format:unpack(data, at) end")
	f.Fuzz(func(t *testing.T, format, data string, at int) {
		_, _ = call(t, lua.LString(format), lua.LString(data), lua.LNumber(at))
	})
}

// A code is read back as it was written; and strictly read, as Go reads it.
func FuzzUTF8(f *testing.F) {
	for _, s := range []string{"ä", "\xed\xa0\x80", "\xfd\xbf\xbf\xbf\xbf\xbf", "\xc0\x80", "\xfe", "\xff\xff"} {
		f.Add(s, 0x7fffffff)
	}
	f.Fuzz(func(t *testing.T, s string, code int) {
		if code >= 0 && code <= maxCode {
			written := string(appendCode(nil, code))
			if got, size := decodeCode(written, true); got != code || size != len(written) {
				t.Errorf("%x is read as %x of %q", code, got, written)
			}
		}
		if s == "" {
			return
		}
		if got, size := decodeCode(s, true); size > 0 && string(appendCode(nil, got)) != s[:size] {
			t.Errorf("%q is read as %x", s, got)
		}
		r, size := utf8.DecodeRuneInString(s)
		if got, n := decodeCode(s, false); n > 0 && (got != int(r) || n != size) || n == 0 && (r != utf8.RuneError || size > 1) {
			t.Errorf("%q is read as %x", s, got)
		}
	})
}
