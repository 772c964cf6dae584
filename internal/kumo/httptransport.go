package kumo

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// poolIdleTimeout is upstream's default of pool_idle_timeout, and that of a transport of the host's.
const poolIdleTimeout = 90 * time.Second

// transportKey tells the transports of an Options apart.
type transportKey struct {
	insecure bool
	idle     time.Duration
}

// transport finds or makes what carries a client's requests. The clients of all states share it, and
// with it the connections.
func (o *Options) transport(key transportKey) (http.RoundTripper, error) {
	if o.HTTP != nil && key == (transportKey{idle: poolIdleTimeout}) {
		return o.HTTP, nil
	}
	base, ok := o.HTTP.(*http.Transport)
	switch {
	case ok:
	case o.HTTP == nil:
		base = plainTransport()
	case key.insecure:
		return nil, errors.New("accept_invalid_certs is not available: the host has its own HTTP transport")
	default:
		return o.HTTP, nil // how long its connections stay is the host's affair
	}
	store := o.Transports
	if store == nil {
		store = &o.own
	}
	return store.get(key, base), nil
}

// plainTransport bounds by itself what a request's context does not: a dial goes on when its request has
// ended, as another may use the connection.
func plainTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // as upstream, which passes on what the server sends
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

// idleSteps are the times that connections are kept for, in ascending order: each is a transport with
// connections of its own, and a script may ask for any number of different times.
var idleSteps = [...]time.Duration{
	time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second,
	45 * time.Second, time.Minute, poolIdleTimeout, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	30 * time.Minute, time.Hour,
}

// idleStep is the longest step that is no longer than d; zero, which is not at all, below the first.
func idleStep(d time.Duration) (step time.Duration) {
	for _, s := range idleSteps {
		if s <= d {
			step = s
		}
	}
	return step
}

// Transports are the transports that policies have asked for by other settings than the host's, thirty
// at most. Many Options may share one. The zero value is ready for use, by many goroutines.
type Transports struct {
	mu   sync.Mutex
	made map[transportKey]*http.Transport
}

func (s *Transports) get(key transportKey, base *http.Transport) *http.Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.made[key]; ok {
		return t
	}
	t := base.Clone()
	t.IdleConnTimeout, t.DisableKeepAlives = key.idle, key.idle == 0
	if key.insecure {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{}
		}
		t.TLSClientConfig.InsecureSkipVerify = true // the policy has asked for it by name
	}
	if s.made == nil {
		s.made = map[transportKey]*http.Transport{}
	}
	s.made[key] = t
	return t
}

// Close closes the idle connections, and gives up those that are being opened for nobody. Requests that
// are under way end with their calls.
func (s *Transports) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.made {
		t.CloseIdleConnections()
	}
}

// Close closes the transports that this Options has made for itself: those of Options.Transports and
// Options.HTTP are the host's to close.
func (o *Options) Close() { o.own.Close() }

// maxRedirects is upstream's limit.
const maxRedirects = 10

var errRedirects = errors.New("too many redirects")

// redirect is asked before a redirect is followed. What proves who asks goes to the server that the
// policy named and to no other, nor to the same host on another port or in clear; the standard library
// looks at the host's name alone.
func redirect(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirects
	}
	first := via[0].URL
	away := !sameOrigin(first, next.URL)
	for _, r := range via[1:] { // who was sent away and comes back does so at another's word
		away = away || !sameOrigin(first, r.URL)
	}
	if away {
		for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization", "Www-Authenticate"} {
			next.Header.Del(name)
		}
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && a.Hostname() == b.Hostname() && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
