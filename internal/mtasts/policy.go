package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mtadelivery/delivery/internal/address"
)

const (
	// maxBody is the size that RFC 8461 section 3.3 suggests as a limit.
	maxBody = 64 << 10
	// maxPatterns bounds what each candidate host is compared with.
	maxPatterns = 1000
	// maxMaxAge is the largest max_age of RFC 8461 section 3.2 in seconds, about a year.
	maxMaxAge = 31557600
)

// Mode is what a policy asks of a sender (RFC 8461 section 5).
type Mode int

// A policy has one of these modes.
const (
	// None asks for nothing: the domain has, or wants, no policy.
	None Mode = iota
	// Testing asks for reports and forbids no delivery.
	Testing
	// Enforce forbids delivery to hosts that the policy does not name or whose certificate is not valid.
	// That is no reason to give mail up: there may be a newer policy (RFC 8461 section 5.1).
	Enforce
)

// String returns the mode as a policy spells it.
func (m Mode) String() string {
	switch m {
	case None:
		return "none"
	case Testing:
		return "testing"
	case Enforce:
		return "enforce"
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

// Policy is what a domain's policy says (RFC 8461 section 3.2). The zero value asks for nothing.
type Policy struct {
	Mode Mode
	// MX are the patterns of the hosts that mail may go to: names as A-labels, lower-case and without a
	// final dot, or "*." and such a name. It is empty only where the mode is None.
	MX []string
	// MaxAge is how long the policy may be kept, from 0 to 31557600 s.
	MaxAge time.Duration
}

// Parse reads a policy as it is published. It is strict with what a sender obeys: version, mode, max_age
// and, but for the mode none, mx must be there and well formed. Fields with other names are ignored; where
// a field other than mx is repeated the first counts; lines end with LF or CRLF, and empty ones are
// skipped. An mx pattern in Unicode is taken as its A-labels. More than 64 KiB or 1000 patterns are
// refused.
func Parse(body []byte) (Policy, error) {
	if len(body) > maxBody {
		return Policy{}, fmt.Errorf("the policy is longer than %d bytes", maxBody)
	}
	var p Policy
	var version, mode, maxAge bool
	number := 0
	for line := range bytes.Lines(body) {
		number++
		name, value, err := field(line)
		if err == nil {
			switch name {
			case "version":
				if !version && value != "STSv1" {
					err = fmt.Errorf("version %q is not STSv1", excerpt(value))
				}
				version = true
			case "mode":
				if !mode {
					p.Mode, err = parseMode(value)
				}
				mode = true
			case "max_age":
				if !maxAge {
					p.MaxAge, err = parseMaxAge(value)
				}
				maxAge = true
			case "mx":
				p.MX, err = appendPattern(p.MX, value)
			}
		}
		if err != nil {
			return Policy{}, fmt.Errorf("line %d of the policy: %w", number, err)
		}
	}
	switch {
	case !version:
		return Policy{}, errors.New("the policy has no version")
	case !mode:
		return Policy{}, errors.New("the policy has no mode")
	case !maxAge:
		return Policy{}, errors.New("the policy has no max_age")
	case len(p.MX) == 0 && p.Mode != None:
		return Policy{}, fmt.Errorf("the policy has the mode %v and no mx", p.Mode)
	}
	return p, nil
}

// field takes a line apart. The name is empty for an empty line.
func field(line []byte) (name, value string, err error) {
	text := strings.TrimSuffix(string(line), "\n")
	text = strings.TrimRight(strings.TrimSuffix(text, "\r"), " \t")
	if text == "" {
		return "", "", nil
	}
	name, value, found := strings.Cut(text, ":")
	if !found || !isFieldName(name) {
		return "", "", fmt.Errorf("%q is not a field with a name and a colon", excerpt(text))
	}
	value = strings.TrimLeft(value, " \t")
	if !isText(value) {
		return "", "", fmt.Errorf("the value of %s has a control character or is not UTF-8", name)
	}
	return name, value, nil
}

// isFieldName reports whether s is a field's name, in a policy or a record (RFC 8461 sections 3.1 and 3.2).
func isFieldName(s string) bool {
	if s == "" || len(s) > 32 || !isAlphaNum(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isAlphaNum(s[i]) && s[i] != '_' && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return true
}

func isAlphaNum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isText allows tabs, which the grammar does not have inside a value and editors do.
func isText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// excerpt is what an error quotes of a stranger's text.
func excerpt(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}

func parseMode(s string) (Mode, error) {
	for _, m := range []Mode{None, Testing, Enforce} {
		if s == m.String() {
			return m, nil
		}
	}
	return None, fmt.Errorf("mode %q is not enforce, testing or none", excerpt(s))
}

func parseMaxAge(s string) (time.Duration, error) {
	digits := s != "" && len(s) <= 10
	for i := range len(s) {
		digits = digits && '0' <= s[i] && s[i] <= '9'
	}
	if !digits {
		return 0, fmt.Errorf("max_age %q is not a number of seconds", excerpt(s))
	}
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil || seconds > maxMaxAge {
		return 0, fmt.Errorf("max_age %s is more than %d", s, maxMaxAge)
	}
	return time.Duration(seconds) * time.Second, nil
}

func appendPattern(patterns []string, s string) ([]string, error) {
	if len(patterns) >= maxPatterns {
		return nil, fmt.Errorf("there are more than %d mx", maxPatterns)
	}
	name, wildcard := strings.CutPrefix(s, "*.")
	ascii, err := address.ToASCII(name)
	if err != nil || strings.HasPrefix(name, "[") {
		return nil, fmt.Errorf("mx %q is not a host name or a pattern of one", excerpt(s))
	}
	if wildcard {
		ascii = "*." + ascii
	}
	return append(patterns, ascii), nil
}

// Matches reports whether mail may go to host: whether one of the patterns covers it (RFC 8461 section
// 4.1). "*." stands for exactly one label. Neither letter case nor a final dot counts; a host in Unicode
// is compared by its A-labels. It says nothing about the mode.
func (p Policy) Matches(host string) bool {
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if host[i] >= utf8.RuneSelf {
			ascii, err := address.ToASCII(host)
			if err != nil {
				return false
			}
			host = ascii
			break
		}
	}
	first, parent, _ := strings.Cut(host, ".")
	for _, pattern := range p.MX {
		pattern = strings.TrimSuffix(pattern, ".")
		if base, wildcard := strings.CutPrefix(pattern, "*."); wildcard {
			if first != "" && base != "" && address.SameName(parent, base) {
				return true
			}
		} else if pattern != "" && address.SameName(host, pattern) {
			return true
		}
	}
	return false
}

// String returns the policy as a domain publishes it, with CRLF after each line. What [Parse] gave it
// takes again.
func (p Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\r\nmode: %v\r\n", p.Mode)
	for _, pattern := range p.MX {
		fmt.Fprintf(&b, "mx: %s\r\n", pattern)
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", p.MaxAge/time.Second)
	return b.String()
}
