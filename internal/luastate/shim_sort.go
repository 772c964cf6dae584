package luastate

import (
	"math/rand/v2"

	lua "github.com/yuin/gopher-lua"
)

// tableSort sorts a copy of the elements, which come back when all is done: an order function may fail,
// and may do with the table what it likes.
func tableSort(L *lua.LState) int {
	l := listArg(L, 1)
	s := sorter{L: L}
	if L.Get(2) != lua.LNil {
		s.before = L.CheckFunction(2)
	}
	n := l.len()
	if n < 2 {
		return 0
	}
	charge(L, n, 16*n)
	s.values = make([]lua.LValue, n)
	for i := range s.values {
		s.values[i] = l.get(i + 1)
	}
	s.sort(0, n-1)
	for i, v := range s.values {
		l.set(i+1, v)
	}
	return 0
}

// sorter is a quicksort. The library of Go would not notice that an order function contradicts itself.
type sorter struct {
	L      *lua.LState
	before *lua.LFunction
	values []lua.LValue
	steps  int
}

func (s *sorter) less(a, b lua.LValue) bool {
	if s.steps++; s.steps == small {
		s.steps = 0
		charge(s.L, small, 0)
	}
	if s.before != nil {
		s.L.Push(s.before)
		s.L.Push(a)
		s.L.Push(b)
		s.L.Call(2, 1)
		less := lua.LVAsBool(s.L.Get(-1))
		s.L.Pop(1)
		return less
	}
	if a, ok := a.(lua.LNumber); ok {
		if b, ok := b.(lua.LNumber); ok {
			return a < b
		}
	}
	return s.L.LessThan(a, b)
}

func (s *sorter) swap(i, j int) { s.values[i], s.values[j] = s.values[j], s.values[i] }

// sort sorts what lies from low to high. It calls itself for the smaller part only, so that the depth of
// the calls is the logarithm of their number.
func (s *sorter) sort(low, high int) {
	for high-low >= sortedByInsertion {
		middle := s.partition(low, high)
		if middle-low < high-middle {
			s.sort(low, middle-1)
			low = middle + 1
		} else {
			s.sort(middle+1, high)
			high = middle - 1
		}
	}
	s.insertion(low, high)
}

// sortedByInsertion is how few elements are sorted without being parted. It is more than the three whose
// order partition needs.
const sortedByInsertion = 8

func (s *sorter) insertion(low, high int) {
	for i := low + 1; i <= high; i++ {
		v := s.values[i]
		j := i
		for ; j > low && s.less(v, s.values[j-1]); j-- {
			s.values[j] = s.values[j-1]
		}
		s.values[j] = v
	}
}

// partition puts one element where it belongs, nothing greater before it and nothing smaller behind it.
// The first and the last element, put in order with it, keep an honest order function from going past
// them.
func (s *sorter) partition(low, high int) int {
	pivotAt := low + (high-low)/2
	if high-low > 100 {
		// From the middle half at random, so that no arrangement of the elements is the worst.
		pivotAt = low + (high-low)/4 + rand.IntN((high-low)/2)
	}
	s.order(low, pivotAt)
	s.order(low, high)
	s.order(pivotAt, high)
	pivot := s.values[pivotAt]
	s.swap(pivotAt, high-1)
	i, j := low, high-1
	for {
		for i++; s.less(s.values[i], pivot); i++ {
			if i >= high-1 {
				s.L.RaiseError(invalidOrder)
			}
		}
		for j--; s.less(pivot, s.values[j]); j-- {
			if j <= low {
				s.L.RaiseError(invalidOrder)
			}
		}
		if j < i {
			s.swap(i, high-1)
			return i
		}
		s.swap(i, j)
	}
}

const invalidOrder = "invalid order function for sorting"

func (s *sorter) order(i, j int) {
	if s.less(s.values[j], s.values[i]) {
		s.swap(i, j)
	}
}
