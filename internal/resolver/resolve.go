package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// maxCNAMEs is how many CNAMEs are followed for one question, in one message or in several. Chains in
// use have one or two; a loop has no end.
const maxCNAMEs = 8

var errChain = errors.New("too many CNAMEs, or a loop of them")

// resolve asks the servers until q has its answer: once, or once more where a message ends in a CNAME.
// It says whether every server failed, which is no verdict on q.
func (c *Client) resolve(ctx context.Context, q question) (answer Answer, failed bool) {
	conf, err := c.settings()
	if err != nil {
		return q.fail(err), false
	}
	at, ttl, secure := q, longestTTL, true
	for hops := 0; ; {
		r, s, err := c.ask(ctx, conf, at)
		hops += r.hops
		if err == nil && hops > maxCNAMEs {
			r, err = reply{}, errChain
		}
		if err != nil {
			answer := Answer{Result: r.answer.Result, Name: at.name,
				Err: &Error{Name: q.name, Type: q.typ, Server: s.String(), Err: err}}
			if ctx.Err() != nil {
				return answer, false
			}
			answer.TTL = c.failureTTL()
			return answer, answer.Result == TempFail && !errors.Is(err, errChain)
		}
		ttl = min(ttl, r.answer.TTL)
		secure = secure && r.answer.Secure
		if r.follow {
			at.name = r.answer.Name
			continue
		}
		return c.finish(q, r.answer, ttl, secure), false
	}
}

// finish makes the answer to q of the last one of a chain.
func (c *Client) finish(q question, last Answer, ttl time.Duration, secure bool) Answer {
	last.TTL, last.Secure = ttl, secure
	last.TTL = c.bound(last, q.typ)
	if last.Name == q.name {
		last.Name = q.name // one string in the cache, not two
	}
	return last
}

// ask puts one question to one server after the other, and again, until one of them answers. If the
// error is the verdict of a validating server, the answer is Bogus and no other server is asked: a
// broken signature is no reason to look for somebody who does not check it.
func (c *Client) ask(ctx context.Context, conf settings, q question) (r reply, s server, err error) {
	servers := c.roster.order(conf.servers, time.Now())
	for range conf.attempts {
		for _, s = range servers {
			r, err = c.try(ctx, conf, s, q)
			switch {
			case err == nil:
				c.heed(conf, s, r.answer.Secure)
				return r, s, nil
			case r.answer.Result == Bogus, errors.Is(err, errChain): // the next server would say the same
				return r, s, err
			case ctx.Err() != nil:
				return r, server{}, context.Cause(ctx)
			}
			c.roster.failed(s)
		}
	}
	return r, s, err
}

// heed notes an answer, and has the server examined if it is time to.
func (c *Client) heed(conf settings, s server, secure bool) {
	if c.roster.answered(s, secure, conf.trustAD) {
		c.working.Go(func() {
			c.inTurn(c.life, func() { c.examine(c.life, conf, s) }) // unless the client closes
		})
	}
}

// try puts one question to one server: with EDNS, and without it where the server does not know it
// (RFC 6891 section 7).
func (c *Client) try(ctx context.Context, conf settings, s server, q question) (reply, error) {
	limited, cancel := context.WithTimeout(ctx, conf.timeout)
	defer cancel()
	m, err := c.converse(limited, s, newQuery(q, true))
	if err == nil && m.Rcode == dns.RcodeFormatError {
		m, err = c.converse(limited, s, newQuery(q, false))
	}
	switch {
	case err == nil, errors.Is(err, errMalformed):
		c.roster.responded(s)
	case ctx.Err() == nil:
		c.roster.wasSilent(s, time.Now())
	}
	if err != nil {
		return reply{}, err
	}
	return readReply(m, q, conf.trustAD)
}

// converse sends a query by TLS where that is the way to the server, and there alone; else by UDP, and by
// TCP if the response had no room there or is damaged.
func (c *Client) converse(ctx context.Context, s server, query *dns.Msg) (m *dns.Msg, err error) {
	if s.encrypted() {
		m, err = c.exchangeTLS(ctx, s, query)
	} else {
		m, err = c.exchange(ctx, "udp", s.address, query)
		if err == nil && !m.Truncated || err != nil && !errors.Is(err, errMalformed) {
			return m, err
		}
		m, err = c.exchange(ctx, "tcp", s.address, query)
	}
	if err == nil && m.Truncated {
		return nil, fmt.Errorf("%w: truncated over a stream", errMalformed)
	}
	return m, err
}
