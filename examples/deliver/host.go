package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/mtadelivery/delivery"
)

// closeTimeout is how long the runtime may take to finish what is under way.
const closeTimeout = time.Second

// host is a runtime with what decides for it, and the queues that were needed so far.
type host struct {
	runtime delivery.Runtime
	dns     *delivery.DNS
	policy  *delivery.Policy      // nil: the config below is that of every queue
	config  *delivery.QueueConfig // nil: the policy decides
	egress  egress
	queues  map[delivery.QueueName]*queue
}

// queue is a queue with its protocol.
type queue struct {
	name     delivery.QueueName
	config   delivery.QueueConfig
	protocol delivery.Protocol
}

// newHost sets a runtime up as the flags say. What policies print and log, and the trace, go to logs.
func newHost(ctx context.Context, o *options, logs io.Writer) (*host, error) {
	h := &host{dns: &delivery.DNS{TrustAD: o.trustAD}, queues: map[delivery.QueueName]*queue{}}
	h.runtime.Resolver = h.dns
	h.runtime.Egress = &h.egress
	h.runtime.Stdout = logs
	h.runtime.Logger = slog.New(slog.NewTextHandler(logs, nil))
	h.dns.Logger = h.runtime.Logger
	if o.dns != "" {
		h.dns.Servers = []string{o.dns}
	}
	if o.trace {
		h.runtime.Trace = trace(logs)
	}
	err := h.configure(ctx, o)
	if err != nil {
		h.close()
		if ctx.Err() != nil {
			err = &interrupted{context.Cause(ctx)}
		}
		return nil, err
	}
	return h, nil
}

// configure reads what the flags name: roots, policy or config, egress.
func (h *host) configure(ctx context.Context, o *options) (err error) {
	if o.ca != "" {
		if h.runtime.RootCAs, err = readRoots(o.ca); err != nil {
			return err
		}
	}
	if o.egressPath != "" {
		path, err := delivery.ParseEgressPath([]byte(o.egressPath))
		if err != nil {
			return fmt.Errorf("-egress-path: %w", err)
		}
		h.egress.path = &path
	}
	if o.egressSource != "" {
		source, err := delivery.ParseEgressSource([]byte(o.egressSource))
		if err == nil && source.Name == "unspecified" {
			err = &delivery.ConfigError{Field: "name", Reason: `"unspecified" stands for no source at all: want another name`}
		}
		if err != nil {
			return fmt.Errorf("-egress-source: %w", err)
		}
		h.egress.source = &source
	}
	if o.policy != "" {
		if h.policy, err = h.runtime.LoadPolicy(ctx, o.policy); err != nil {
			return err
		}
		h.runtime.SetPolicy(h.policy)
		h.egress.policy = h.policy
		return nil
	}
	h.config, err = readConfig(o.config)
	return err
}

func readRoots(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, &delivery.ConfigError{Field: "-ca", Reason: name + " holds no certificate: want PEM"}
	}
	return roots, nil
}

// readConfig reads the queue config of -config; "" is the one with every default.
func readConfig(text string) (*delivery.QueueConfig, error) {
	source := []byte(text)
	if name, isFile := strings.CutPrefix(text, "@"); isFile {
		var err error
		if source, err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("-config: %w", err)
		}
	} else if text == "" {
		source = []byte("{}")
	}
	c, err := delivery.ParseQueueConfig(source)
	if err != nil {
		return nil, fmt.Errorf("-config: %w", err)
	}
	if c.Protocol.CustomLua != nil {
		return nil, &delivery.ConfigError{Field: "-config: protocol.custom_lua",
			Reason: "there is no policy to define the constructor: want -policy instead"}
	}
	return &c, nil
}

// close ends the runtime, in order if the peers let it within closeTimeout.
func (h *host) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	h.runtime.Close(ctx)
	h.dns.Close()
}

// nowhere is the queue of addresses that can never be sent: they have no domain to ask a policy for,
// and Deliver refuses them without looking further. No address has this domain.
var nowhere = delivery.QueueName{Domain: "."}

// split makes one call for each queue that the recipients of an envelope belong to.
func (h *host) split(ctx context.Context, e *envelope) error {
	calls := map[delivery.QueueName]int{}
	for i, r := range e.to {
		name, err := e.queueOf(r)
		if err != nil {
			return err
		}
		place, known := calls[name]
		if !known {
			q, err := h.queue(ctx, name)
			if err != nil {
				return err
			}
			place = len(e.calls)
			calls[name] = place
			e.calls = append(e.calls, call{queue: q})
		}
		c := &e.calls[place]
		c.recipients = append(c.recipients, r)
		c.places = append(c.places, i)
		e.kinds = append(e.kinds, c.queue.kind())
	}
	return nil
}

// queueOf is the queue of one recipient: the one that was asked for, else the one that the metadata
// and the recipient's domain make up.
func (e *envelope) queueOf(r delivery.Recipient) (delivery.QueueName, error) {
	alone := delivery.Message{Queue: e.queue, Meta: e.meta, Recipients: []delivery.Recipient{r}}
	name, err := alone.QueueName()
	if wrong, ok := errors.AsType[*delivery.MessageError](err); ok {
		if wrong.Field == "Recipients" {
			return nowhere, nil
		}
		return name, &dataError{e.where, err}
	}
	return name, err
}

// queue returns the queue of a name. Its config is asked for once.
func (h *host) queue(ctx context.Context, name delivery.QueueName) (*queue, error) {
	if q := h.queues[name]; q != nil {
		return q, nil
	}
	q := &queue{name: name}
	var err error
	switch {
	case name == nowhere:
	case h.config != nil:
		q.config = *h.config
	default:
		q.config, err = h.policy.QueueConfig(ctx, name)
	}
	if err == nil {
		q.protocol, err = h.runtime.Protocol(h.egress.applied(q.config))
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, &interrupted{context.Cause(ctx)}
		}
		return nil, fmt.Errorf("queue %s: %w", name, err)
	}
	h.queues[name] = q
	return q, nil
}

// kind names the protocol of the queue, for results that no session carried.
func (q *queue) kind() string {
	switch p := q.config.Protocol; {
	case p.Maildir != nil:
		return "maildir"
	case p.CustomLua != nil:
		return "lua"
	}
	return "smtp"
}
