package resolver

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	defaultConfigFile = "/etc/resolv.conf"
	defaultTimeout    = 5 * time.Second
	defaultAttempts   = 2

	// recheck is how often the file is looked at, at most.
	recheck = 5 * time.Second

	// What resolv.conf(5) caps silently.
	maxFileServers  = 3
	maxFileTimeout  = 30
	maxFileAttempts = 5
)

// settings say whom to ask, and how.
type settings struct {
	servers  []server
	timeout  time.Duration
	attempts int
	trustAD  bool
}

// settings are those of the fields, and of the file for what they leave open.
func (c *Client) settings() (settings, error) {
	s := settings{timeout: defaultTimeout, attempts: defaultAttempts}
	for _, text := range c.Servers {
		server, err := parseServer(text)
		if err != nil {
			return settings{}, err
		}
		s.servers = append(s.servers, server)
	}
	if len(c.Servers) == 0 {
		var changed bool
		var err error
		if s, changed, err = c.file.read(cmp.Or(c.ConfigFile, defaultConfigFile), time.Now()); err != nil {
			return settings{}, err
		}
		if changed { // other servers may know other names, and may be trusted less
			c.forget()
			c.roster.clear()
		}
	}
	if c.Timeout > 0 {
		s.timeout = c.Timeout
	}
	if c.Attempts > 0 {
		s.attempts = c.Attempts
	}
	s.trustAD = s.trustAD || c.TrustAD
	return s, nil
}

// configFile keeps what was read from a file. Its zero value is ready, and safe for concurrent use.
type configFile struct {
	mu      sync.Mutex
	checked time.Time
	known   bool
	last    settings
}

// read returns the settings of the file and whether they replace others. A file that cannot be read is
// an error at first; later its last settings stay.
func (f *configFile) read(path string, now time.Time) (s settings, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known && now.Sub(f.checked) < recheck {
		return f.last, false, nil
	}
	s, err = load(path)
	if err != nil {
		if !f.known {
			return settings{}, false, fmt.Errorf("name servers are not known: %w", err)
		}
		s = f.last
	}
	changed = f.known && !s.equal(f.last)
	f.last, f.checked, f.known = s, now, true
	return s, changed, nil
}

func load(path string) (settings, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return parseConfig(strings.NewReader(""))
	}
	if err != nil {
		return settings{}, err
	}
	defer file.Close()
	return parseConfig(file)
}

// parseConfig reads resolv.conf(5). What it does not know it passes over, as every reader of that file
// does.
func parseConfig(r io.Reader) (settings, error) {
	s := settings{timeout: defaultTimeout, attempts: defaultAttempts}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		words := strings.Fields(line)
		switch {
		case len(words) < 2:
		case words[0] == "nameserver":
			if ip, err := netip.ParseAddr(words[1]); err == nil && len(s.servers) < maxFileServers {
				s.servers = append(s.servers, server{address: netip.AddrPortFrom(ip, clearPort).String()})
			}
		case words[0] == "options":
			for _, option := range words[1:] {
				s.option(option)
			}
		}
	}
	if len(s.servers) == 0 {
		s.servers = []server{{address: "127.0.0.1:53"}, {address: "[::1]:53"}}
	}
	return s, lines.Err()
}

func (s *settings) option(text string) {
	name, value, _ := strings.Cut(text, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "trust-ad":
		s.trustAD = true
	case err != nil || n < 1:
	case name == "timeout":
		s.timeout = time.Duration(min(n, maxFileTimeout)) * time.Second
	case name == "attempts":
		s.attempts = min(n, maxFileAttempts)
	}
}

func (s settings) equal(t settings) bool {
	return slices.Equal(s.servers, t.servers) &&
		s.timeout == t.timeout && s.attempts == t.attempts && s.trustAD == t.trustAD
}
