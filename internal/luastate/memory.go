package luastate

import (
	"reflect"
	"runtime/metrics"
	"time"
	"unsafe"

	lua "github.com/yuin/gopher-lua"
)

// memory knows how much a state holds. Go counts memory for the whole process only, so a state is weighed, from its
// roots, when there is reason to: when functions of the library made much for it (which charge counts), or when
// the process has grown while it ran.
type memory struct {
	made  int64     // bytes that were charged since the state was weighed
	heap  uint64    // of the process, when last looked at
	rest  time.Time // until then, it takes much growth of the process
	calls int
}

// restShare bounds what weighing costs: a hundredth of the time.
const restShare = 100

// checkHeap weighs the state if the process has grown by a good part of what the state may hold.
func (r *run) checkHeap() {
	s := r.state
	if s.limits.Memory == noLimit {
		return
	}
	now := heapSize()
	grown := int64(now) - int64(s.memory.heap)
	if grown < 0 {
		s.memory.heap = now
	}
	if grown < s.limits.Memory/4 || grown < s.limits.Memory && time.Now().Before(s.memory.rest) {
		return
	}
	r.weigh()
	s.memory.heap = now
}

// made counts what a function of the library makes for the state.
func (r *run) made(bytes int) {
	s := r.state
	if s.memory.made += int64(bytes); s.memory.made/2 > s.limits.Memory/4 {
		r.weigh()
	}
}

// checkMemory looks after calls that are each too short for a tick to meet.
func (r *run) checkMemory() {
	const often = 16
	if r.state.memory.calls++; r.state.memory.calls%often == 0 {
		r.checkHeap()
	}
}

// weigh stops the run if the state holds too much.
func (r *run) weigh() {
	s := r.state
	began := time.Now()
	s.memory.made = 0
	if weigh(s.L, s.limits.Memory) > s.limits.Memory {
		r.stop(s.limits.tooMuchMemory())
	}
	took := time.Since(began)
	s.memory.rest = began.Add(took * restShare)
}

func heapSize() uint64 {
	sample := [1]metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample[:])
	return sample[0].Value.Uint64()
}

// weigh estimates the bytes that can be reached from the globals, the registry and the stacks of L, and gives up
// once they are more than enough. What userdata have inside is not counted, nor the compiled program.
func weigh(L *lua.LState, enough int64) int64 {
	w := scales{seen: map[any]struct{}{}}
	if ud, ok := L.G.Registry.RawGetString(librariesKey).(*lua.LUserData); ok {
		w.shared, _ = ud.Value.(*libraries)
	}
	w.add(L.G.MainThread)
	w.add(L)
	w.add(L.G.Global)
	w.add(L.G.Registry)
	for len(w.todo) > 0 && w.bytes <= enough {
		last := len(w.todo) - 1
		v := w.todo[last]
		w.todo = w.todo[:last]
		w.open(v)
	}
	return w.bytes
}

// shortText is the length below which a text counts wherever it stands: to know it again would take more than it does.
const shortText = 128

type scales struct {
	bytes  int64
	shared *libraries // which belong to no state alone; nil: none
	seen   map[any]struct{}
	todo   []lua.LValue
}

// add puts a value on the scales: at once if it stands for itself, and by way of todo if there is something in it.
func (w *scales) add(v lua.LValue) {
	switch v := v.(type) {
	case lua.LNumber:
		w.bytes += 8
	case lua.LString:
		w.bytes += 16
		if len(v) < shortText || w.first(unsafe.StringData(string(v))) {
			w.bytes += int64(len(v))
		}
	case *lua.LTable, *lua.LFunction, *lua.LUserData, *lua.LState:
		if w.first(v) && !w.shared.has(v) {
			w.todo = append(w.todo, v)
		}
	}
}

func (w *scales) first(key any) bool {
	n := len(w.seen)
	w.seen[key] = struct{}{}
	return len(w.seen) > n
}

// open weighs what is in a value.
func (w *scales) open(v lua.LValue) {
	switch v := v.(type) {
	case *lua.LTable:
		w.bytes += tableSize(v)
		w.add(v.Metatable)
		v.ForEach(func(key, value lua.LValue) {
			w.add(key)
			w.add(value)
		})
	case *lua.LFunction:
		w.bytes += 64
		if v.Env != nil {
			w.add(v.Env)
		}
		for _, up := range v.Upvalues {
			if up != nil {
				w.bytes += 64
				w.add(up.Value())
			}
		}
	case *lua.LUserData:
		w.bytes += 48
		w.add(v.Metatable)
	case *lua.LState:
		w.bytes += 1024
		for _, held := range registers(v) {
			w.bytes += 16
			w.add(held)
		}
	}
}

// What a table takes for its elements, by measurement: slots of arrays and of hashes (each key is in two maps and
// a list), and what the maps are made with.
const (
	slotSize  = 16
	entrySize = 120
	mapSize   = 800
)

// tableSize is what a table takes besides its keys and values. Keys that were removed still take their place.
func tableSize(tbl *lua.LTable) int64 {
	size := int64(96)
	if !inside.known() {
		return size + slotSize*int64(tbl.Len())
	}
	v := reflect.ValueOf(tbl).Elem()
	size += slotSize * int64(v.Field(inside.array).Cap())
	if keys := v.Field(inside.keys).Cap(); keys > 0 {
		size += mapSize + entrySize*int64(keys)
	}
	return size
}

// registers are all the values on the stack of a thread, those included that are there no more but for
// the collector.
func registers(L *lua.LState) []lua.LValue {
	if !inside.known() {
		return nil
	}
	array := inside.registers(L).Field(inside.values)
	return unsafe.Slice((*lua.LValue)(array.UnsafePointer()), array.Len())
}
