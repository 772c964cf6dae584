package luastate

import (
	"math"

	lua "github.com/yuin/gopher-lua"
)

var tableFunctions = map[string]lua.LGFunction{
	"concat": tableConcat,
	"insert": tableInsert,
	"move":   tableMove,
	"pack":   tablePack,
	"remove": tableRemove,
	"sort":   tableSort,
	"unpack": tableUnpack,
}

// list is a table as the functions of the library see it: with its metamethods, if it has any.
type list struct {
	L   *lua.LState
	tbl *lua.LTable
	raw bool // no metatable is in the way
}

func listArg(L *lua.LState, n int) list {
	tbl := L.CheckTable(n)
	_, raw := tbl.Metatable.(*lua.LNilType)
	return list{L: L, tbl: tbl, raw: raw}
}

func (l list) len() int {
	if l.raw {
		return l.tbl.Len()
	}
	return l.L.ObjLen(l.tbl)
}

func (l list) get(i int) lua.LValue {
	switch {
	case !l.raw:
		return l.L.GetTable(l.tbl, lua.LNumber(i))
	case 1 <= i && i < lua.MaxArrayIndex:
		return l.tbl.RawGetInt(i)
	}
	return l.tbl.RawGet(lua.LNumber(i))
}

func (l list) set(i int, v lua.LValue) {
	if l.raw {
		l.tbl.RawSetInt(i, v)
	} else {
		l.L.SetTable(l.tbl, checkedKey(l.L, lua.LNumber(i)), v) // a metamethod may have said how long it is
	}
}

// chargeNow charges now and then, in a loop that goes over every i.
func (l list) chargeNow(i int) {
	const often = small / 16 // a metamethod costs more than a byte
	if i&(often-1) == 0 {
		charge(l.L, often, 0)
	}
}

// reserve charges for what a table takes that is to have the elements first to last: gopher-lua fills it
// with nils up to there.
func (l list) reserve(first, last int) {
	if first < 1 || first >= lua.MaxArrayIndex || !l.raw && l.L.GetMetaField(l.tbl, "__newindex") != lua.LNil {
		return
	}
	if missing := min(last, lua.MaxArrayIndex) - l.tbl.Len(); missing > 0 {
		charge(l.L, missing, 16*missing)
	}
}

// tableConcat builds its result beside the stack: a stack that once held all the elements would stay at
// that size.
func tableConcat(L *lua.LState) int {
	l, separator := listArg(L, 1), optString(L, 2, "")
	first := optInt(L, 3, 1)
	last := 0
	if L.Get(4) == lua.LNil {
		last = l.len()
	} else {
		last = intArg(L, 4)
	}
	out := text{L: L}
	for i := first; i <= last; i++ {
		value, ok := operandText(l.get(i))
		if !ok {
			L.RaiseError("invalid value (at index %d) in table for 'concat'", i)
		}
		out.add(value)
		if i == last {
			break // before i overflows
		}
		out.add(separator)
		l.chargeNow(i)
	}
	out.push()
	return 1
}

func tableInsert(L *lua.LState) int {
	l := listArg(L, 1)
	end := l.len() + 1
	// A table grows by one at a time: enough to charge for a thousand.
	if end&1023 == 0 {
		charge(L, 1024, 16*1024)
	}
	switch top := L.GetTop(); {
	case top == 2 && l.raw:
		l.tbl.Append(L.Get(2))
		return 0
	case top == 2:
		l.set(end, L.Get(2))
		return 0
	case top != 3:
		L.RaiseError("wrong number of arguments to 'insert'")
	}
	at := intArg(L, 2)
	if at < 1 || at > end {
		L.ArgError(2, "position out of bounds")
	}
	if l.raw {
		chargeWork(L, (end-at)/16) // a copy of 16 elements costs about one step
		l.tbl.Insert(at, L.Get(3))
		return 0
	}
	for i := end; i > at; i-- {
		l.chargeNow(i)
		l.set(i, l.get(i-1))
	}
	l.set(at, L.Get(3))
	return 0
}

func tableRemove(L *lua.LState) int {
	l := listArg(L, 1)
	size := l.len()
	at := optInt(L, 2, size)
	if at != size && (at < 1 || at > size+1) {
		L.ArgError(2, "position out of bounds")
	}
	if l.raw && 1 <= at && at <= size {
		chargeWork(L, (size-at)/16)
		L.Push(l.tbl.Remove(at))
		return 1
	}
	removed := l.get(at)
	for ; at < size; at++ {
		l.chargeNow(at)
		l.set(at, l.get(at+1))
	}
	if removed != lua.LNil {
		l.set(at, lua.LNil)
	}
	L.Push(removed)
	return 1
}

func tableUnpack(L *lua.LState) int {
	l := listArg(L, 1)
	first := optInt(L, 2, 1)
	last := 0
	if L.Get(3) == lua.LNil {
		last = l.len()
	} else {
		last = intArg(L, 3)
	}
	if first > last {
		return 0
	}
	n := last - first + 1
	if n <= 0 || n >= registryMaxSize {
		L.RaiseError("too many results to unpack")
	}
	growStack(L, n)
	for i := range n {
		L.Push(l.get(first + i))
	}
	return n
}

func tablePack(L *lua.LState) int {
	n := L.GetTop()
	charge(L, n, 16*n)
	tbl := L.CreateTable(n, 1)
	for i := 1; i <= n; i++ {
		tbl.RawSetInt(i, L.Get(i))
	}
	tbl.RawSetString("n", lua.LNumber(n))
	L.Push(tbl)
	return 1
}

func tableMove(L *lua.LState) int {
	from := listArg(L, 1)
	first, last, at := intArg(L, 2), intArg(L, 3), intArg(L, 4)
	to := from
	if L.Get(5) != lua.LNil {
		to = listArg(L, 5)
	}
	if first <= last {
		if first <= 0 && last >= math.MaxInt+first {
			L.ArgError(3, "too many elements to move")
		}
		if at > math.MaxInt-(last-first) {
			L.ArgError(4, "destination wrap around")
		}
		move(from, to, first, last, at)
	}
	L.Push(to.tbl)
	return 1
}

// move goes backwards where the elements would otherwise be overwritten before they are read.
func move(from, to list, first, last, at int) {
	n := last - first + 1
	to.reserve(max(at, 1), at+n-1)
	backwards := at > first && at <= last && to.tbl == from.tbl
	for i := range n {
		to.chargeNow(i)
		if backwards {
			i = n - 1 - i
		}
		to.set(at+i, from.get(first+i))
	}
}
