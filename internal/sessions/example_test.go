package sessions_test

import (
	"context"
	"fmt"
	"time"

	"github.com/mtadelivery/delivery/internal/sessions"
)

type session struct{ peer string }

func (s *session) Capacity() int          { return 1 } // more, if calls may be in flight side by side
func (s *session) Comfort() int           { return 1 }
func (s *session) Alive() bool            { return true }
func (s *session) Retire(sessions.Reason) { fmt.Println("QUIT to", s.peer) }
func (s *session) Kill()                  { fmt.Println("cut", s.peer) }

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

// pipe is a session on which several calls may be in flight.
type pipe struct{ window int }

func (s *pipe) Capacity() int          { return s.window }
func (s *pipe) Comfort() int           { return s.window }
func (s *pipe) Alive() bool            { return true }
func (s *pipe) Retire(sessions.Reason) { fmt.Println("QUIT") }
func (s *pipe) Kill()                  { fmt.Println("cut") }

// At the limit calls share a session that has room.
func Example_sharing() {
	var pool sessions.Pool[*pipe]
	request := sessions.Request{Group: "mx.example", Limit: 1, Keys: []string{"192.0.2.1:25"}}
	var leases []*sessions.Lease[*pipe]
	for range 3 {
		lease, err := pool.Acquire(context.Background(), request)
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, ok := lease.Session(); !ok {
			lease.Opened("192.0.2.1:25", &pipe{window: 3})
		}
		leases = append(leases, lease)
	}
	for _, group := range pool.Stats() {
		fmt.Printf("%d calls on %d session\n", group.Calls, group.Lent)
	}
	for _, lease := range leases {
		lease.Release() // the last one ends the session: the request has no IdleTimeout
	}
	if err := pool.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 3 calls on 1 session
	// QUIT
}
