package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/mtadelivery/delivery"
)

// planLine is what -dry-run prints of one call: a queue and its recipients.
type planLine struct {
	Queue       string               `json:"queue"`
	ReadyName   string               `json:"ready_name"`
	Config      delivery.QueueConfig `json:"config"`
	Recipients  []string             `json:"recipients"`
	Protocol    string               `json:"protocol"`
	Plan        []planHost           `json:"plan,omitempty"`
	Paths       map[string]string    `json:"paths,omitempty"`
	Constructor string               `json:"constructor,omitempty"`
	// Error says why the recipients could not be served, Errors why one of them could not.
	Error  string            `json:"error,omitempty"`
	Errors map[string]string `json:"errors,omitempty"`
}

type planHost struct {
	Host    string `json:"host"`
	Address string `json:"address,omitempty"`
	Error   string `json:"error,omitempty"`
}

// dryRun prints the plan of each call. The exit status is 69 if a message can never be sent, and 75
// if there is no plan for another reason.
func dryRun(ctx context.Context, envelopes []*envelope, out io.Writer) (status int, err error) {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, e := range envelopes {
		for i := range e.calls {
			c := &e.calls[i]
			plan, planErr := c.plan(ctx, e)
			l := lineOfPlan(c, &plan, planErr)
			if err := enc.Encode(l); err != nil {
				return 0, &outputError{err}
			}
			if _, wrong := errors.AsType[*delivery.ConfigError](planErr); wrong {
				return 0, planErr
			}
			if never(planErr) {
				status = exitUnavailable
			} else if status == exitOK && (l.Error != "" || l.Errors != nil) {
				status = exitTempFail
			}
		}
	}
	return status, nil
}

// never says whether a message with this error can never be sent: for what it is, or for where it is
// to go.
func never(err error) bool {
	if plan, ok := errors.AsType[*delivery.PlanError](err); ok {
		return plan.Status == delivery.Permanent
	}
	_, ok := errors.AsType[*delivery.MessageError](err)
	return ok
}

func (c *call) plan(ctx context.Context, e *envelope) (delivery.Plan, error) {
	msg := c.message(e, "")
	if c.queue.name == nowhere {
		return delivery.Plan{}, msg.Validate()
	}
	return c.queue.protocol.Plan(ctx, msg)
}

func lineOfPlan(c *call, plan *delivery.Plan, err error) *planLine {
	l := &planLine{
		Queue:       c.queue.name.String(),
		ReadyName:   plan.ReadyName,
		Config:      c.queue.config,
		Protocol:    plan.Protocol,
		Constructor: plan.Constructor,
	}
	if l.Protocol == "" {
		l.Protocol = c.queue.kind()
	}
	if err != nil {
		l.Error = err.Error()
	}
	for _, r := range c.recipients {
		l.Recipients = append(l.Recipients, r.Address)
	}
	for _, h := range plan.Hosts {
		l.Plan = append(l.Plan, planHost{h.Host, h.Address, errorText(h.Err)})
	}
	for _, p := range plan.Paths {
		if p.Err != nil {
			put(&l.Errors, p.Recipient, p.Err.Error())
		} else {
			put(&l.Paths, p.Recipient, p.Path)
		}
	}
	return l
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// put makes the map at its first entry.
func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}
