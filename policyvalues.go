package delivery

import (
	"context"

	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/kumo"
)

// Plain is what kumo.invoke_get_egress_source and invoke_get_egress_pool show of the config.
func (o *opaque[T]) Plain() (any, error) { return decode.Tree(&o.config) }

// mailExchangers tells a policy's kumo.shaping where the mail of a domain goes, as a delivery would find it before
// it leaves hosts out.
func (r *Runtime) mailExchangers(ctx context.Context, domain string) (kumo.MailExchangers, error) {
	to, failed := domainRoute(ctx, r.state.resolver, QueueName{Domain: domain})
	switch {
	case failed == errNullMX:
		return kumo.MailExchangers{}, nil
	case failed != nil:
		return kumo.MailExchangers{}, failed
	}
	mx := kumo.MailExchangers{Site: to.site}
	for _, group := range to.hosts {
		for _, host := range group {
			mx.Hosts = append(mx.Hosts, host.name)
		}
	}
	return mx, nil
}
