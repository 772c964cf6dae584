package resolver

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	clearPort = 53
	tlsPort   = 853 // RFC 7858 section 3.1
	tlsScheme = "tls://"
)

// server is a recursive server and the way to it.
type server struct {
	address string // with a port
	name    string // in its certificate, a domain name or an IP address; empty: no TLS
}

func (s server) encrypted() bool { return s.name != "" }

// String is the server as it stands in [Client.Servers].
func (s server) String() string {
	if s.encrypted() {
		return tlsScheme + s.address + "#" + s.name
	}
	return s.address
}

// parseServer reads an element of [Client.Servers]. A name where an address belongs is none: who would
// resolve it?
func parseServer(text string) (server, error) {
	rest, encrypted := strings.CutPrefix(text, tlsScheme)
	if !encrypted {
		at, ok := parseAddress(text, clearPort)
		switch {
		case ok:
			return server{address: at.String()}, nil
		case strings.Contains(text, "#"):
			return server{}, fmt.Errorf("server %q: a name to verify wants %s before the address", text, tlsScheme)
		}
		return server{}, fmt.Errorf("server %q: want an IP address, with or without a port", text)
	}
	rest, name, named := strings.Cut(rest, "#")
	at, ok := parseAddress(rest, tlsPort)
	if !ok {
		return server{}, fmt.Errorf("server %q: want an IP address after %s, with or without a port", text, tlsScheme)
	}
	if !named {
		return server{at.String(), at.Addr().WithZone("").String()}, nil
	}
	name, err := canonicalName(name)
	if err != nil {
		return server{}, fmt.Errorf("server %q: the name after #: %w", text, err)
	}
	return server{at.String(), name}, nil
}

// parseAddress reads an IP address with a port, or without one.
func parseAddress(text string, port uint16) (netip.AddrPort, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil && at.Port() != 0 {
		return at, true
	}
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		text = text[1 : len(text)-1]
	}
	ip, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(ip, port), err == nil
}

// ServerStats is what is known of one server.
type ServerStats struct {
	// Server is the server as [Client.Servers] writes it, with its port.
	Server string
	// Answers is how many answers it gave, of which Secure were with an AD bit that is believed; Failures
	// is how many tries at it failed: silence, refusals, and what could not be read.
	Answers, Secure, Failures uint64
	// NeverSecure: the server is trusted to validate DNSSEC, and does not: it has never set the AD bit,
	// not even for the records of the root zone. No answer of it is secure, so that DANE is never used.
	NeverSecure bool
}

const (
	// aside is how long a server that was silent is asked after the others.
	aside = 30 * time.Second

	// insecureAnswers is how many answers without AD a trusted server may give, having never set it, until
	// it is asked for something that is surely signed; if that fails, after twice as many, and so on. It is
	// a power of two.
	insecureAnswers = 16
)

// roster has what is known of the servers. Its zero value is ready, and safe for concurrent use.
type roster struct {
	mu     sync.Mutex
	states map[server]*serverState
}

type serverState struct {
	stats    ServerStats
	silent   bool      // it did not respond when it was asked last
	retry    time.Time // when a silent server is asked again in its place
	insecure int       // answers without AD, while none had it
	sound    bool      // it sets the AD bit
}

// with calls use with what is known of a server, under the lock.
func (r *roster) with(s server, use func(*serverState)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.states[s]
	if state == nil {
		if r.states == nil {
			r.states = make(map[server]*serverState)
		}
		state = &serverState{stats: ServerStats{Server: s.String()}}
		r.states[s] = state
	}
	use(state)
}

// order puts those servers last that did not respond lately. When such a server is due again, one caller
// has it in its place, so that not everybody waits for it at once.
func (r *roster) order(servers []server, now time.Time) []server {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first, last []server
	for _, s := range servers {
		state := r.states[s]
		switch {
		case state == nil || !state.silent:
			first = append(first, s)
		case !now.Before(state.retry):
			state.retry = now.Add(aside)
			first = append(first, s)
		default:
			last = append(last, s)
		}
	}
	return append(first, last...)
}

// responded notes that a server said something, whatever it was.
func (r *roster) responded(s server) {
	r.with(s, func(state *serverState) { state.silent = false })
}

// wasSilent notes that it did not.
func (r *roster) wasSilent(s server, now time.Time) {
	r.with(s, func(state *serverState) { state.silent, state.retry = true, now.Add(aside) })
}

func (r *roster) failed(s server) {
	r.with(s, func(state *serverState) { state.stats.Failures++ })
}

// answered notes an answer, with or without the AD bit, and says whether it is time to doubt that the
// server, if it is trusted, ever sets it.
func (r *roster) answered(s server, secure, trusted bool) (doubtful bool) {
	r.with(s, func(state *serverState) {
		state.stats.Answers++
		if secure {
			state.stats.Secure++
			state.sound, state.stats.NeverSecure = true, false
		}
		if trusted && !state.sound && !state.stats.NeverSecure {
			state.insecure++
			n := state.insecure
			doubtful = n >= insecureAnswers && n&(n-1) == 0
		}
	})
	return doubtful
}

// judge notes what the AD bit of a signed answer says of the server, and whether that is bad news.
func (r *roster) judge(s server, secure bool) (news bool) {
	r.with(s, func(state *serverState) {
		if state.sound = state.sound || secure; !state.sound {
			news, state.stats.NeverSecure = !state.stats.NeverSecure, true
		}
	})
	return news
}

func (r *roster) stats() []ServerStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []ServerStats
	for _, state := range r.states {
		all = append(all, state.stats)
	}
	slices.SortFunc(all, func(a, b ServerStats) int { return cmp.Compare(a.Server, b.Server) })
	return all
}

func (r *roster) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.states)
}
