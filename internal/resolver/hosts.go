package resolver

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const defaultHostsFile = "/etc/hosts"

// hostsTTL is how long an answer that no server gave may be kept.
const hostsTTL = recheck

// fromHosts answers a question for addresses without asking anybody: localhost is loopback (RFC 6761
// section 6.3), and the names of the hosts file have the addresses that it gives them.
func (c *Client) fromHosts(q question) (Answer, bool) {
	if q.typ != TypeA && q.typ != TypeAAAA {
		return Answer{}, false
	}
	var known []netip.Addr
	if q.name == "localhost" || strings.HasSuffix(q.name, ".localhost") {
		known = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	} else if path := c.hostsPath(); path != "" {
		known = c.hosts.lookup(path, q.name, time.Now())
	}
	if known == nil {
		return Answer{}, false
	}
	a := Answer{Result: NoData, Name: q.name, TTL: hostsTTL}
	for _, ip := range known {
		if ip.Is4() == (q.typ == TypeA) {
			a.Result, a.Addrs = Records, append(a.Addrs, ip)
		}
	}
	return a, true
}

// hostsPath is the hosts file to read: servers that were named by hand are asked alone.
func (c *Client) hostsPath() string {
	switch {
	case c.HostsFile != "":
		return c.HostsFile
	case len(c.Servers) > 0:
		return ""
	}
	return defaultHostsFile
}

// hostsFile keeps what was read from a file like hosts(5). Its zero value is ready, and safe for
// concurrent use.
type hostsFile struct {
	mu      sync.Mutex
	checked time.Time
	names   map[string][]netip.Addr
}

// lookup returns the addresses of a name; nil if the file does not have it.
func (f *hostsFile) lookup(path, name string, now time.Time) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.checked.IsZero() || now.Sub(f.checked) >= recheck {
		f.checked = now
		if text, err := os.ReadFile(path); err == nil { // a file that is not there has no names
			f.names = parseHosts(text)
		}
	}
	return f.names[name]
}

// parseHosts reads lines of an address and its names. What is no address, or has a zone, is passed
// over.
func parseHosts(text []byte) map[string][]netip.Addr {
	names := map[string][]netip.Addr{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil || ip.Zone() != "" {
			continue
		}
		for _, field := range fields[1:] {
			if name, err := canonicalName(field); err == nil {
				names[name] = append(names[name], ip.Unmap())
			}
		}
	}
	return names
}
