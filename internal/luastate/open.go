package luastate

import (
	"fmt"
	"runtime"
	"slices"
	"weak"

	lua "github.com/yuin/gopher-lua"
)

// Closer is what a program has open, such as a file. Only the goroutine that runs the state asks it.
type Closer interface {
	Open() bool
	Close() error
}

// CloseWith closes v with the state of L, unless the program has closed or lost it before. What is lost must be closed
// by the collector, as an [os.File] is. It is an error if the state has 64 such values and files of the library io.
func CloseWith[T any, P interface {
	*T
	Closer
}](L *lua.LState, v P) error {
	fs := filesOf(L)
	if fs == nil { // a host's own state, whose library io is not ours
		fs = newFiles(L)
	}
	if err := fs.open.room(); err != nil {
		return err
	}
	keep(&fs.open, v)
	return nil
}

// maxOpen bounds what one state has open. What a program has lost is forgotten when it is in the way.
const maxOpen = 64

// openThings are what a state has open, and some that were closed or lost since.
type openThings []holder

// holder knows of something without keeping it; nil: it is lost.
type holder interface{ held() Closer }

type weakly[T any, P interface {
	*T
	Closer
}] struct{ pointer weak.Pointer[T] }

func (w weakly[T, P]) held() Closer {
	if v := w.pointer.Value(); v != nil {
		return P(v)
	}
	return nil
}

func keep[T any, P interface {
	*T
	Closer
}](o *openThings, v P) {
	*o = append(*o, weakly[T, P]{weak.Make((*T)(v))})
}

// room is an error if nothing more can be opened.
func (o *openThings) room() error {
	if len(*o) < maxOpen || o.prune() < maxOpen {
		return nil
	}
	runtime.GC() // a program that does not close its files leaves that to the collector
	if o.prune() < maxOpen {
		return nil
	}
	return fmt.Errorf("too many open files: a state may have %d", maxOpen)
}

func (o *openThings) prune() int {
	*o = slices.DeleteFunc(*o, func(h holder) bool {
		v := h.held()
		return v == nil || !v.Open()
	})
	return len(*o)
}

// close closes what is open, with the state.
func (o *openThings) close() {
	for _, h := range *o {
		if v := h.held(); v != nil && v.Open() {
			_ = v.Close() // nobody is left to be told
		}
	}
	*o = nil
}
