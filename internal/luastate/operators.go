package luastate

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// luaConcat is the operator "..", of all the operands of a chain.
func luaConcat(L *lua.LState) int {
	n, size := L.GetTop(), 0
	for i := 1; i <= n; i++ {
		s, ok := L.Get(i).(lua.LString)
		if !ok {
			L.Push(concatAny(L, n))
			return 1
		}
		size += len(s)
	}
	chargeText(L, size)
	if n == 2 {
		L.Push(L.Get(1).(lua.LString) + L.Get(2).(lua.LString))
		return 1
	}
	var out strings.Builder
	out.Grow(size)
	for i := 1; i <= n; i++ {
		out.WriteString(string(L.Get(i).(lua.LString)))
	}
	L.Push(lua.LString(out.String()))
	return 1
}

// chargeText charges for a string that is to be made.
func chargeText(L *lua.LState, size int) {
	if size > maxText {
		L.RaiseError(tooLarge)
	}
	if size > small {
		charge(L, size, size)
	}
}

// concatAny joins from the right, as the operator does: all the texts in a row at once, and two operands by a
// metamethod of one of them.
func concatAny(L *lua.LState, n int) lua.LValue {
	result := L.Get(n)
	for n--; n >= 1; n-- {
		if right, ok := operandText(result); ok {
			if texts := textsBefore(L, n); len(texts) > 0 {
				n -= len(texts) - 1
				result = joinBackwards(L, texts, right)
				continue
			}
		}
		result = concatTwo(L, L.Get(n), result)
	}
	return result
}

// operandText is an operand as a text, if it can be one.
func operandText(v lua.LValue) (string, bool) {
	switch v := v.(type) {
	case lua.LString:
		return string(v), true
	case lua.LNumber:
		return numberText(float64(v)), true
	}
	return "", false
}

// textsBefore are the operands from n down to the first that is no text, in this order.
func textsBefore(L *lua.LState, n int) (texts []string) {
	for ; n >= 1; n-- {
		s, ok := operandText(L.Get(n))
		if !ok {
			break
		}
		texts = append(texts, s)
	}
	return texts
}

func joinBackwards(L *lua.LState, texts []string, last string) lua.LString {
	size := len(last)
	for _, s := range texts {
		size += len(s)
	}
	chargeText(L, size)
	var out strings.Builder
	out.Grow(size)
	for i := len(texts) - 1; i >= 0; i-- {
		out.WriteString(texts[i])
	}
	out.WriteString(last)
	return lua.LString(out.String())
}

func concatTwo(L *lua.LState, left, right lua.LValue) lua.LValue {
	method := L.GetMetaField(left, "__concat")
	if method == lua.LNil {
		method = L.GetMetaField(right, "__concat")
	}
	if method == lua.LNil {
		culprit := left
		if _, ok := operandText(left); ok {
			culprit = right
		}
		L.RaiseError("attempt to concatenate a %s value", typeName(culprit))
	}
	L.Push(method)
	L.Push(left)
	L.Push(right)
	L.Call(2, 1)
	result := L.Get(-1)
	L.Pop(1)
	return result
}

// luaCheckedKey is between a key and the table where something is to be stored.
func luaCheckedKey(L *lua.LState) int {
	L.Push(checkedKey(L, L.Get(1)))
	return 1
}

// checkedKey refuses an index that would make a table larger than all that the state may hold: up to that index,
// gopher-lua keeps a list.
func checkedKey(L *lua.LState, key lua.LValue) lua.LValue {
	n, ok := key.(lua.LNumber)
	if !ok || n <= 64*small || n >= lua.LNumber(lua.MaxArrayIndex) || !isWhole(float64(n)) {
		return key
	}
	most := int64(defaultMemory)
	if r := runOf(L); r != nil {
		most = r.state.limits.Memory
	}
	if int64(n) > most/slotSize {
		L.RaiseError("not enough memory for a table with the index %s", numberText(float64(n)))
	}
	return key
}
