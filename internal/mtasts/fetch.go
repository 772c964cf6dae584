package mtasts

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	path = "/.well-known/mta-sts.txt"
	// maxWire bounds all that is read of an answer, its header and the framing of its chunks included.
	maxWire = 4 * maxBody
	// maxInterim bounds the 1xx answers before the one that counts (RFC 9110 section 15.2).
	maxInterim = 5
)

// Failure is why a policy could not be had, in the terms of RFC 8460 section 4.3.2.2.
type Failure int

const (
	// NoFailure: nothing failed, or nothing that a report to the domain has a word for.
	NoFailure Failure = iota
	// FetchError: no answer with a policy was had from the policy host.
	FetchError
	// PolicyInvalid: what the policy host served is no valid policy.
	PolicyInvalid
	// WebPKIInvalid: the certificate of the policy host is not valid for its name.
	WebPKIInvalid
)

// String returns the result type of RFC 8460; it is empty for NoFailure.
func (f Failure) String() string {
	switch f {
	case NoFailure:
		return ""
	case FetchError:
		return "sts-policy-fetch-error"
	case PolicyInvalid:
		return "sts-policy-invalid"
	case WebPKIInvalid:
		return "sts-webpki-invalid"
	}
	return "Failure(" + strconv.Itoa(int(f)) + ")"
}

// Error is why the policy of a domain, or whether it has one, is not known.
type Error struct {
	Domain  string
	Failure Failure // NoFailure if it was the TXT record, or ourselves
	Err     error
}

func (e *Error) Error() string {
	if e.Failure == NoFailure {
		return fmt.Sprintf("MTA-STS of %s: %v", e.Domain, e.Err)
	}
	return fmt.Sprintf("MTA-STS of %s: %v: %v", e.Domain, e.Failure, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// fetch asks the domain's policy host for its policy. The conversation is one request on one connection
// and needs nothing that net/http's client would have to be kept from: redirects, proxies, cookies,
// caches, idle connections and the goroutines of all these.
func (c *Cache) fetch(ctx context.Context, domain string) (Policy, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	body, err := c.get(ctx, "mta-sts."+domain)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return Policy{}, nil, &Error{domain, failure(err), err}
	}
	policy, err := Parse(body)
	if err != nil {
		return Policy{}, nil, &Error{domain, PolicyInvalid, err}
	}
	return policy, body, nil
}

// errInvalid marks an answer that arrived and holds no policy.
var errInvalid = errors.New("the answer is not a policy")

func failure(err error) Failure {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return WebPKIInvalid
	case errors.Is(err, errInvalid):
		return PolicyInvalid
	}
	return FetchError
}

// get returns the policy that host serves.
func (c *Cache) get(ctx context.Context, host string) ([]byte, error) {
	dial := c.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(ctx, "tcp", net.JoinHostPort(host, "443"))
	if err != nil {
		return nil, err
	}
	// The TLS connection's own Close would wait for a peer that does not read.
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()

	conn := tls.Client(untilNotified{raw}, &tls.Config{
		ServerName: host,
		RootCAs:    c.RootCAs,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: MTA-STS\r\n"+
		"Accept: text/plain\r\nConnection: close\r\n\r\n", path, host)
	if err != nil {
		return nil, err
	}
	answer, err := readAnswer(bufio.NewReader(&bounded{conn, maxWire}))
	if err != nil {
		return nil, err
	}
	return policyBody(answer)
}

// readAnswer reads the header of the answer that counts.
func readAnswer(r *bufio.Reader) (*http.Response, error) {
	for range maxInterim + 1 {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode/100 != 1 {
			return answer, nil
		}
	}
	return nil, errors.New("there are too many interim answers")
}

// policyBody returns the body of an answer as RFC 8461 section 3.3 wants it: 200, text/plain, and of
// bounded size. It does not read a body that it does not return, nor much beyond the bound.
func policyBody(answer *http.Response) ([]byte, error) {
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the policy host answered with %d", answer.StatusCode)
	}
	// A parameter that is not well formed is still only a parameter.
	media, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || media != "text/plain" {
		return nil, fmt.Errorf("%w: its media type is %q", errInvalid, excerpt(answer.Header.Get("Content-Type")))
	}
	if coding := answer.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, fmt.Errorf("%w: it is encoded as %q", errInvalid, excerpt(coding))
	}
	if answer.ContentLength > maxBody {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errInvalid, maxBody)
	}
	return io.ReadAll(io.LimitReader(answer.Body, maxBody+1)) // one more, for Parse to refuse
}

// untilNotified is the connection below TLS, whose end is an error: crypto/tls lets it pass for the peer's
// own end of data, and anybody on the way can bring it about (RFC 9112 section 9.8).
type untilNotified struct{ net.Conn }

func (c untilNotified) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

var errCut = errors.New("the connection ended without an end of TLS")

// bounded fails at its end, where io.LimitReader would let what was cut off pass for the whole.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxWire)
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
