package luastate

import (
	"bufio"
	"errors"
	"io"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// fileRead is read of a file, with the formats of Lua 5.4 and their stars of 5.1.
func fileRead(L *lua.LState) int {
	f := checkFile(L, 1)
	formats := make([]lua.LValue, 0, 4)
	for i := 2; i <= L.GetTop(); i++ {
		formats = append(formats, readFormat(L, i))
	}
	if len(formats) == 0 {
		formats = append(formats, lua.LString("l"))
	}
	return f.readAll(L, formats)
}

// readFormat is an argument that says what to read: n, l, L, a, or how many bytes.
func readFormat(L *lua.LState, n int) lua.LValue {
	switch format := L.Get(n).(type) {
	case lua.LNumber:
		if size := intArg(L, n); size < 0 || size > maxText {
			L.ArgError(n, "size out of range")
		}
		return format
	case lua.LString:
		if short := strings.TrimPrefix(string(format), "*"); short != "" && strings.Contains("nlLa", short[:1]) {
			return lua.LString(short[:1])
		}
	}
	L.ArgError(n, "invalid format")
	return nil
}

// readAll reads one format after the other, until one finds nothing.
func (f *file) readAll(L *lua.LState, formats []lua.LValue) int {
	if f.standard() {
		L.Push(lua.LNil) // nobody types anything
		return 1
	}
	if f.in == nil {
		f.in = bufio.NewReader(f.f)
	}
	for i, format := range formats {
		var v lua.LValue
		var err error
		switch format {
		case lua.LString("n"):
			v, err = f.readNumber(L)
		case lua.LString("l"):
			v, err = f.readLine(L, false)
		case lua.LString("L"):
			v, err = f.readLine(L, true)
		case lua.LString("a"):
			v, err = f.readRest(L)
		default:
			v, err = f.readBytes(L, int(format.(lua.LNumber)))
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return ioFailed(L, err)
		}
		L.Push(v)
		if v == lua.LNil {
			return i + 1
		}
	}
	return len(formats)
}

// readLine reads to the end of a line, or of the file.
func (f *file) readLine(L *lua.LState, keepEnd bool) (lua.LValue, error) {
	line, any := text{L: L}, false
	for {
		var part []byte
		var err error
		f.waiting(L, func() { part, err = f.in.ReadSlice('\n') })
		any = any || len(part) > 0
		ended := len(part) > 0 && part[len(part)-1] == '\n'
		if ended && !keepEnd {
			part = part[:len(part)-1]
		}
		line.addBytes(part)
		switch {
		case ended, errors.Is(err, io.EOF) && any:
			return line.value(), nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return lua.LNil, err
		}
	}
}

// readRest reads to the end of the file.
func (f *file) readRest(L *lua.LState) (lua.LValue, error) {
	const piece = 64 << 10
	rest, buffer := text{L: L}, make([]byte, piece)
	for {
		var n int
		var err error
		f.waiting(L, func() { n, err = f.in.Read(buffer) })
		rest.addBytes(buffer[:n])
		switch {
		case errors.Is(err, io.EOF):
			return rest.value(), nil
		case err != nil:
			return lua.LNil, err
		}
	}
}

// readBytes reads as many bytes as there are, up to n.
func (f *file) readBytes(L *lua.LState, n int) (lua.LValue, error) {
	if n == 0 {
		var err error
		f.waiting(L, func() { _, err = f.in.Peek(1) })
		if err != nil {
			return lua.LNil, err
		}
		return lua.LString(""), nil
	}
	charge(L, n, n)
	var content strings.Builder
	var err error
	f.waiting(L, func() { _, err = io.CopyN(&content, f.in, int64(n)) })
	if content.Len() == 0 {
		return lua.LNil, err
	}
	return lua.LString(content.String()), nil
}

// readNumber reads what a number can begin with, as Lua 5.4 does: what follows stays, even if that was none.
func (f *file) readNumber(L *lua.LState) (lua.LValue, error) {
	r := numberReader{f: f, L: L}
	for r.peek() && strings.IndexByte(luaSpace, r.next) >= 0 {
		r.skip()
	}
	r.oneOf("+-")
	digits, exponent := "0123456789", "eE"
	if r.oneOf("0") {
		if r.oneOf("xX") {
			digits, exponent = "0123456789abcdefABCDEF", "pP"
		}
	}
	r.many(digits)
	if r.oneOf(".") {
		r.many(digits)
	}
	if r.oneOf(exponent) {
		r.oneOf("+-")
		r.many("0123456789")
	}
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return lua.LNil, r.err
	}
	if len(r.text) > maxNumber {
		return lua.LNil, nil
	}
	return parseNumber(string(r.text)), nil
}

// maxNumber is the longest text that is read as a number.
const maxNumber = 200

type numberReader struct {
	f    *file
	L    *lua.LState
	next byte
	text []byte
	err  error
}

func (r *numberReader) peek() bool {
	if r.err != nil || len(r.text) > maxNumber {
		return false
	}
	var next []byte
	r.f.waiting(r.L, func() { next, r.err = r.f.in.Peek(1) })
	if r.err != nil {
		return false
	}
	r.next = next[0]
	return true
}

func (r *numberReader) skip() { r.f.in.ReadByte() }

func (r *numberReader) oneOf(set string) bool {
	if !r.peek() || strings.IndexByte(set, r.next) < 0 {
		return false
	}
	r.text = append(r.text, r.next)
	r.skip()
	return true
}

func (r *numberReader) many(set string) {
	for r.oneOf(set) {
	}
}

// fileLines goes over what is left of a file.
func fileLines(L *lua.LState) int {
	checkFile(L, 1)
	ud := L.CheckUserData(1)
	return pushLines(L, ud, false)
}

// pushLines returns a function that reads the formats behind the first argument each time.
func pushLines(L *lua.LState, ud *lua.LUserData, closing bool) int {
	var formats []lua.LValue
	for i := 2; i <= L.GetTop(); i++ {
		formats = append(formats, readFormat(L, i))
	}
	if len(formats) == 0 {
		formats = append(formats, lua.LString("l"))
	}
	f := ud.Value.(*file)
	L.Push(L.NewFunction(func(L *lua.LState) int {
		if !f.Open() {
			L.RaiseError("file is already closed")
		}
		top := L.GetTop()
		n := f.readAll(L, formats)
		if L.Get(top+1) != lua.LNil {
			return n
		}
		if text, ok := L.Get(top + 2).(lua.LString); ok && n == 3 {
			L.RaiseError("%s", string(text))
		}
		if closing && !f.standard() {
			_ = f.Close()
		}
		L.SetTop(top)
		L.Push(lua.LNil)
		return 1
	}))
	return 1
}
