package main

import (
	"context"
	"fmt"

	"github.com/mtadelivery/delivery"
)

// egress is the policy's egress, or every default without one, with what the flags put in its place.
type egress struct {
	policy *delivery.Policy
	path   *delivery.EgressPath
	source *delivery.EgressSource
}

// flagPool is the pool of a queue that names none, when there is a source from the flags.
const flagPool = "-egress-source"

// applied is the config with a pool that leads to the source of the flags.
func (e *egress) applied(c delivery.QueueConfig) delivery.QueueConfig {
	if e.source != nil {
		c.EgressPool = flagPool
	}
	return c
}

func (e *egress) EgressPool(ctx context.Context, name string) (delivery.EgressPool, error) {
	switch {
	case e.source != nil:
		return delivery.EgressPool{Name: name, Entries: []delivery.PoolEntry{{Name: e.source.Name}}}, nil
	case e.policy != nil:
		return e.policy.EgressPool(ctx, name)
	}
	return delivery.EgressPool{}, &delivery.ConfigError{Field: "egress_pool",
		Reason: fmt.Sprintf("nothing defines the pool %q: want -policy, or -egress-source", name)}
}

func (e *egress) EgressSource(ctx context.Context, name string) (delivery.EgressSource, error) {
	if e.source != nil {
		return *e.source, nil
	}
	return e.policy.EgressSource(ctx, name) // only a pool of the policy's leads here
}

func (e *egress) EgressPath(ctx context.Context, routingDomain, source, site string) (delivery.EgressPath, error) {
	switch {
	case e.path != nil:
		return *e.path, nil
	case e.policy != nil:
		return e.policy.EgressPath(ctx, routingDomain, source, site)
	}
	return delivery.EgressPath{}, nil
}
