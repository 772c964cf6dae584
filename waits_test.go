package delivery

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// mute is a Limits whose store does not answer.
type mute struct{ pass, hold bool }

func (m mute) Pass(ctx context.Context, _ string, _ Rate) (time.Duration, error) {
	if m.pass {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, nil
}

func (m mute) Hold(ctx context.Context, _ string, _ Limit) (func(), error) {
	if m.hold {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return func() {}, nil
}

// TestTheCallersEndAtTheStore: who gives up while the store is asked has tried nothing, and it says nothing of
// the others.
func TestTheCallersEndAtTheStore(t *testing.T) {
	for _, limits := range []mute{{pass: true}, {hold: true}} {
		t.Run(fmt.Sprintf("%+v", limits), func(t *testing.T) {
			virtual(t, `"max_message_rate": "100/s", `, smtptest.Link{}, &smtptest.Sink{}, func(t *testing.T, rt *Runtime, p Protocol) {
				rt.Limits = limits
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				r := p.Deliver(ctx, messageTo("a@x.test")).Results[0]
				if r.Status != Unsent || r.Scope != ScopeMessage || r.Err != context.DeadlineExceeded {
					t.Errorf("%s of the %s: %v", r.Status, r.Scope, r.Err)
				}
			})
		})
	}
}
