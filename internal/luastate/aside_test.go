package luastate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// TestAFunctionThatDoesNotReturn: the caller goes on a second after the end of the context, and the state is freed when
// the function returns after all.
func TestAFunctionThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ran := false
		s := newStateWith(t, `
function f(name) if name == 'stuck' then pcall(stuck) after() end return name end
function fails() error('x') end`, Options{Unruly: true, Setup: func(L *lua.LState) error {
			L.SetGlobal("stuck", L.NewFunction(Guarded(func(*lua.LState) int { <-release; return 0 })))
			L.SetGlobal("after", L.NewFunction(func(*lua.LState) int { ran = true; return 0 }))
			return nil
		}})
		for range 3 {
			if got, err := call(t, s, "f", lua.LString("fine")); err != nil || got[0] != lua.LString("fine") {
				t.Fatal(got, err)
			}
			if _, err := call(t, s, "fails"); err == nil || errorOf(err).Line != 3 {
				t.Fatal(err)
			}
		}
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, enough)
		defer cancel()
		began := time.Now()
		_, err := s.Call(ctx, 1, s.L.GetGlobal("f"), lua.LString("stuck"))
		if took := time.Since(began); !errors.Is(err, enough) || !strings.Contains(err.Error(), "a function of the host goes on") || took != 6*time.Second {
			t.Errorf("%v after %s", err, took)
		}
		if !s.Spent() {
			t.Error("the state is taken for a good one")
		}
		if _, err := s.Call(t.Context(), 1, lua.LNil); !errors.Is(err, errClosed) {
			t.Error(err)
		}
		s.Close()
		if s.L.IsClosed() {
			t.Error("the state was freed while a function ran in it")
		}
		close(release)
		synctest.Wait()
		if !s.L.IsClosed() || ran {
			t.Error("the state was not freed, or its program went on")
		}
	})
}
