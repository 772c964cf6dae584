package sessions_test

import (
	"context"
	"fmt"
	"time"

	"github.com/mtadelivery/delivery/internal/sessions"
)

type session struct{ peer string }

func (s *session) Capacity() int { return 1 } // more, if calls may be in flight side by side
func (s *session) Alive() bool   { return true }
func (s *session) Retire()       { fmt.Println("QUIT to", s.peer) }
func (s *session) Kill()         { fmt.Println("cut", s.peer) }

func Example() {
	var pool sessions.Pool[*session]
	call := func(message string) error {
		lease, err := pool.Acquire(context.Background(), sessions.Request{
			Group:       "mx.example",
			Limit:       32,
			Keys:        []string{"192.0.2.1:25"},
			IdleTimeout: time.Minute,
			MaxUses:     1024,
		})
		if err != nil {
			return err
		}
		defer lease.Discard() // whatever happens; nothing once the lease has ended

		s, ok := lease.Session()
		if !ok {
			s = &session{peer: "192.0.2.1:25"} // dial, greet and authenticate here
			lease.Opened("192.0.2.1:25", s)
		}
		fmt.Printf("%s to %s, reused: %v\n", message, s.peer, lease.Reused())
		lease.Release()
		return nil
	}
	for _, message := range []string{"first", "second"} {
		if err := call(message); err != nil {
			fmt.Println(err)
		}
	}
	if err := pool.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// first to 192.0.2.1:25, reused: false
	// second to 192.0.2.1:25, reused: true
	// QUIT to 192.0.2.1:25
}
