package maildrop

import (
	"context"
	"sync"
)

// slots bounds how many calls are in system calls, and so how many threads a disk that does not answer
// can take from the process.
type slots struct {
	free chan struct{} // holds a token for every slot that is taken

	mu   sync.Mutex
	left []func() // what callers that went away left to be tidied up
}

func newSlots(n int) *slots { return &slots{free: make(chan struct{}, n)} }

// take waits for a slot until the context ends.
func (s *slots) take(ctx context.Context) error {
	select {
	case s.free <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give gives the slot back, once it has done what others left.
func (s *slots) give() {
	for {
		s.tidy()
		<-s.free
		if !s.mustTidy() {
			return
		}
	}
}

// later has something done in a slot: by the caller now if one is free, else by the next that gives
// one back. So a caller can go while the disk hangs, and nothing is forgotten.
func (s *slots) later(work func()) {
	s.mu.Lock()
	s.left = append(s.left, work)
	s.mu.Unlock()
	if s.mustTidy() {
		s.give()
	}
}

// mustTidy takes a slot if there is something to do and a slot is free. Where none is, whoever gives
// the next one back comes by here.
func (s *slots) mustTidy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) == 0 {
		return false
	}
	select {
	case s.free <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *slots) tidy() {
	for {
		s.mu.Lock()
		left := s.left
		s.left = nil
		s.mu.Unlock()
		if len(left) == 0 {
			return
		}
		for _, work := range left {
			work()
		}
	}
}
