package resolver

import (
	"context"

	"github.com/miekg/dns"
)

// rootSOA is asked of a server that is trusted to validate and never says that it did: the root zone is
// signed, and every server that validates has its key.
var rootSOA = question{".", Type(dns.TypeSOA)}

// examine asks a server for what is surely signed, and reports it if the AD bit is missing there too. A
// server that fails to answer is not judged, but examined again when it has given twice as many answers.
//
// The number of insecure answers proves nothing by itself, for few domains are signed; nor does the root
// alone, for a private network may have its own, and sign only what is below it. Both together are right
// but for a private root over zones that are signed and were not asked for yet: then one warning is
// wrong, and [ServerStats] is mended by the first secure answer.
func (c *Client) examine(ctx context.Context, conf settings, s server) {
	ctx, cancel := context.WithTimeout(ctx, conf.timeout)
	defer cancel()
	m, err := c.converse(ctx, s, newQuery(rootSOA, true))
	if err != nil || m.Rcode != dns.RcodeSuccess || !has(m, rootSOA.name, rootSOA.typ) {
		return
	}
	if news := c.roster.judge(s, m.AuthenticatedData); news && c.Logger != nil {
		c.Logger.WarnContext(ctx, "the name server is trusted to validate DNSSEC, but never sets the AD bit: "+
			"no answer is secure, and DANE is not used", "server", s.String())
	}
}
