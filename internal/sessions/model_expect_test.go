package sessions

import (
	"fmt"
	"slices"
	"strings"
)

// What the model knows of calls that wait by choice, for sessions that are being opened: see [Request.Expect].

// expectation is a random Expect.
func (m *model) expectation() func() int {
	n := []int{0, 1, 2, 3, 8}[m.rng.IntN(5)]
	if m.chance(50) {
		return nil
	}
	return func() int { return n }
}

// each is how many calls a session is going to serve, as the call expects.
func (c *modelCall) each() int {
	if c.request.Expect == nil {
		return 1
	}
	each := max(c.request.Expect(), 1)
	if c.request.MaxUses > 0 {
		each = min(each, c.request.MaxUses)
	}
	return each
}

// comes tells whether what is being opened may be going to serve the n-th call that waits, as the call expects. That
// it expects nothing of what begins later is for stories to show: from outside it is not to be told when the pool
// came to ask it.
func (g *modelGroup) comes(c *modelCall, n int) bool {
	each := c.each()
	if each < 2 {
		return false
	}
	for _, h := range g.held {
		if h.session == nil && !h.drained && h.request.MaxUses != 1 && len(h.request.Keys) > 0 &&
			slices.Contains(c.request.Keys, h.request.Keys[0]) {
			n -= each - 1
		}
	}
	return n <= 0
}

// contented tells whether all who wait may wait although there is room.
func (g *modelGroup) contented() bool {
	for i, c := range g.queue {
		if !g.comes(c, i+1) {
			return false
		}
	}
	return true
}

// expectations puts into words what those who wait expect.
func (g *modelGroup) expectations() string {
	var b strings.Builder
	for _, c := range g.queue {
		fmt.Fprintf(&b, "call %d %v expects %d; ", c.number, c.request.Keys, c.each())
	}
	for _, h := range g.held {
		if h.session == nil {
			fmt.Fprintf(&b, "call %d %v opens one for %d uses, drained %v; ", h.number, h.request.Keys, h.request.MaxUses, h.drained)
		}
	}
	return b.String()
}
