package luastate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		program, err := Compile("policy.lua", nil)
		if err != nil {
			t.Fatal(err)
		}
		made := 0
		p := &Pool{MaxSpare: 2, MaxUses: 3, New: func(ctx context.Context) (*State, error) {
			made++
			return program.NewState(ctx, Options{Limits: patient})
		}}
		get := func() *State {
			t.Helper()
			s, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}

		a := get()
		p.Put(a)
		if b := get(); b != a {
			t.Error("a spare state is not used again")
		}
		p.Put(a)
		get()
		p.Put(a)
		if !a.closed {
			t.Error("a state is used more than MaxUses times")
		}

		x, y, z := get(), get(), get()
		p.Put(x)
		p.Put(y)
		p.Put(z)
		if x.closed || y.closed || !z.closed {
			t.Error("not exactly MaxSpare states are kept")
		}
		if got := get(); got != y {
			t.Error("the warmest state is not first")
		}
		time.Sleep(defaultMaxAge)
		p.Put(y)
		if !y.closed || !x.closed {
			t.Error("states that are too old are kept")
		}
		if made != 4 {
			t.Errorf("%d states were made, want 4", made)
		}

		dropped, out, kept := get(), get(), get()
		p.Drop(dropped)
		p.Put(kept)
		p.Close()
		p.Put(out)
		if !dropped.closed || !kept.closed || !out.closed {
			t.Error("Close leaves states open")
		}
		if _, err := p.Get(t.Context()); !errors.Is(err, ErrPoolClosed) {
			t.Error(err)
		}
		p.Close()
	})
}

func TestPoolNewFails(t *testing.T) {
	want := errors.New("no state")
	p := &Pool{New: func(context.Context) (*State, error) { return nil, want }}
	if _, err := p.Get(t.Context()); !errors.Is(err, want) {
		t.Error(err)
	}
}

func TestPoolWithoutLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		program, err := Compile("policy.lua", nil)
		if err != nil {
			t.Fatal(err)
		}
		newState := func(ctx context.Context) (*State, error) { return program.NewState(ctx, Options{Limits: patient}) }
		p := &Pool{New: newState, MaxUses: -1, MaxAge: -1}
		first, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			p.Put(first)
			time.Sleep(time.Hour)
			if s, err := p.Get(t.Context()); s != first || err != nil {
				t.Fatal("a state without limits is not used again:", err)
			}
		}
		none := &Pool{New: newState, MaxSpare: -1}
		none.Put(first)
		if !first.closed {
			t.Error("a pool without spare states keeps one")
		}
	})
}
