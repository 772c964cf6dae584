package luastate

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// maxText bounds a string that a library function makes.
const maxText = 16 << 20

const tooLarge = "resulting string too large"

// Cut is part of a text, as a value. A short part of a long text is a copy: it would keep all of the text otherwise, and
// nobody could see what it takes.
func Cut(whole, part string) lua.LString {
	if len(whole) > small && len(part) < len(whole)/2 {
		part = strings.Clone(part)
	}
	return lua.LString(part)
}

// small is work that one instruction may do without being charged for it.
const small = 4096

// chargeWork charges for looking at n bytes or elements, if they are many.
func chargeWork(L *lua.LState, n int) {
	if n > small {
		charge(L, n, 0)
	}
}

// text is a result in the making. What it needs is charged before it is taken, in steps that grow with
// the text.
type text struct {
	L       *lua.LState
	out     strings.Builder
	charged int
	next    int // the length that needs the next charge
}

// reserve is called before n bytes are written.
func (t *text) reserve(n int) {
	if n > maxText || t.out.Len()+n > maxText {
		t.L.RaiseError(tooLarge)
	}
	if need := t.out.Len() + n; need > max(t.next, small) {
		t.charge(need)
	}
}

func (t *text) charge(need int) {
	charge(t.L, need-t.charged, need-t.charged)
	t.charged = need
	t.next = need + need/4
}

func (t *text) add(s string) {
	t.reserve(len(s))
	t.out.WriteString(s)
}

func (t *text) addBytes(s []byte) {
	t.reserve(len(s))
	t.out.Write(s)
}

func (t *text) addByte(c byte) {
	t.reserve(1)
	t.out.WriteByte(c)
}

// value ends the text.
func (t *text) value() lua.LString {
	if rest := t.out.Len() - t.charged; rest > 0 {
		charge(t.L, rest, rest)
	}
	return lua.LString(t.out.String())
}

// push ends the text and leaves it on the stack.
func (t *text) push() { t.L.Push(t.value()) }
