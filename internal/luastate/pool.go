package luastate

import (
	"context"
	"errors"
	"sync"
	"time"
)

// What a Pool does where its fields are zero. Uses and age are upstream's.
const (
	defaultMaxSpare = 128
	defaultMaxUses  = 1024
	defaultMaxAge   = 300 * time.Second
)

// ErrPoolClosed is what Get returns after Close.
var ErrPoolClosed = errors.New("the pool of Lua states is closed")

// Pool keeps states that nobody uses for those who come next. It makes as many as are asked for; how
// many there may be is the caller's affair. It runs no goroutine: a spare state that has grown too old
// goes when the pool is next used.
type Pool struct {
	// New makes a state when there is no spare one. It is required.
	New func(ctx context.Context) (*State, error)
	// MaxSpare is how many unused states are kept: 128 if zero, none if negative.
	MaxSpare int
	// MaxUses is how often a state is handed out: 1024 times if zero, without limit if negative.
	MaxUses int
	// MaxAge is how long a state is handed out after it was made: 300 s if zero, for ever if negative.
	MaxAge time.Duration

	mu     sync.Mutex
	spare  []*State // the most recently used last: it is the next to go out
	swept  time.Time
	closed bool
}

// Get hands out a spare state or a new one. It goes back with Put or, if it is not to be used again,
// with Drop.
func (p *Pool) Get(ctx context.Context) (*State, error) {
	s, err := p.take()
	if err != nil {
		return nil, err
	}
	if s == nil {
		if s, err = p.New(ctx); err != nil {
			return nil, err
		}
	}
	s.uses++
	return s, nil
}

func (p *Pool) take() (*State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrPoolClosed
	}
	now := time.Now()
	p.sweep(now)
	for len(p.spare) > 0 {
		last := len(p.spare) - 1
		s := p.spare[last]
		p.spare[last] = nil
		p.spare = p.spare[:last]
		if !p.worn(s, now) {
			return s, nil
		}
		s.Close()
	}
	return nil, nil
}

// Put gives a state back for others to use. One that is used up, or for which there is no room, is
// closed.
func (p *Pool) Put(s *State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.sweep(now)
	if p.closed || s.closed || p.worn(s, now) || len(p.spare) >= limit(p.MaxSpare, defaultMaxSpare, 0) {
		s.Close()
		return
	}
	p.spare = append(p.spare, s)
}

// Drop closes a state that came from Get: after an error nobody knows what it left behind.
func (p *Pool) Drop(s *State) { s.Close() }

// Empty closes the spare states. The pool goes on.
func (p *Pool) Empty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.spare {
		s.Close()
	}
	p.spare = nil
}

// Close closes the spare states. One that is out is closed when it is put back.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.spare {
		s.Close()
	}
	p.spare = nil
}

func (p *Pool) worn(s *State, now time.Time) bool {
	const forever = 1<<63 - 1
	return s.Spent() || s.uses >= limit(p.MaxUses, defaultMaxUses, int(^uint(0)>>1)) ||
		now.Sub(s.made) >= limit(p.MaxAge, defaultMaxAge, time.Duration(forever))
}

// sweep closes the spare states that have grown too old, now and then.
func (p *Pool) sweep(now time.Time) {
	if now.Sub(p.swept) < limit(p.MaxAge, defaultMaxAge, time.Hour)/16 {
		return
	}
	p.swept = now
	kept := p.spare[:0]
	for _, s := range p.spare {
		if p.worn(s, now) {
			s.Close()
		} else {
			kept = append(kept, s)
		}
	}
	clear(p.spare[len(kept):])
	p.spare = kept
}

func limit[T ~int | ~int64](value, zero, negative T) T {
	switch {
	case value == 0:
		return zero
	case value < 0:
		return negative
	}
	return value
}
