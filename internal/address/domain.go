package address

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// RFC 1035 section 2.3.4: octets of a label, and of a name as text without its last dot.
const (
	maxLabel  = 63
	maxDomain = 253
)

// maxUnicodeDomain bounds what is given to IDNA, whose cost grows with the square of a label. A name
// that fits in 253 octets of A-labels is never this long in UTF-8, characters that UTS-46 drops aside.
const maxUnicodeDomain = 4 * maxDomain

// uts46 leaves the ASCII rules to us: host names with two hyphens in a row exist, and so do mail
// domains with an underscore.
var uts46 = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
	idna.StrictDomainName(false), idna.CheckHyphens(false))

// ToASCII returns the domain as A-labels in lower case, as UTS-46 makes them, without a dot at its
// end. Labels are letters, digits, hyphens inside, and underscores, which RFC 5321 does not know and
// the DNS does not mind. An address literal ([192.0.2.1], [IPv6:2001:db8::1]) is checked and returned
// as it is. Errors are of type *Error.
func ToASCII(domain string) (string, error) {
	ascii, reason := toASCII(domain)
	if reason != "" {
		return "", &Error{domain, reason}
	}
	return ascii, nil
}

func toASCII(domain string) (ascii, reason string) {
	if isPlainName(domain) { // as nearly all are
		return domain, ""
	}
	if strings.HasPrefix(domain, "[") {
		return domain, unfitLiteral(domain)
	}
	if len(domain) > maxUnicodeDomain {
		return "", fmt.Sprintf("the domain is longer than %d octets", maxDomain)
	}
	// The last dot goes before UTS-46 has its say: that may leave a label empty, and the dot before it
	// is not the root's.
	domain = trimDot(domain)
	// UTS-46 does no more than this with ASCII, but for looking into A-labels.
	ascii = strings.ToLower(domain)
	if !isASCII(domain) || strings.Contains(ascii, "xn--") {
		if !utf8.ValidString(domain) {
			return "", "the domain is not UTF-8"
		}
		var err error
		if ascii, err = uts46.ToASCII(domain); err != nil {
			return "", "the domain is not a valid internationalised name"
		}
	}
	return ascii, unfitName(ascii)
}

// isPlainName tells of a name, at one look, that it is its own A-labels: those in lower case, none of which says that it
// stands for another, and no dot at the end. Of other names it says nothing.
func isPlainName(domain string) bool {
	if len(domain) > maxDomain {
		return false
	}
	last, start := byte('.'), 0 // the byte before this one, and where its label began
	for i := range len(domain) {
		c := domain[i]
		switch {
		case c == '.':
			if last == '.' || last == '-' || i-start > maxLabel {
				return false
			}
			start = i + 1
		case !isNameText(c), c == '-' && (last == '.' || last == '-'): // two hyphens may be those of xn--
			return false
		}
		last = c
	}
	return last != '.' && last != '-' && len(domain)-start <= maxLabel
}

// trimDot removes one dot from the end, in any of the forms that UTS-46 section 2.3 takes for one.
func trimDot(domain string) string {
	for _, dot := range []string{".", "\u3002", "\uff0e", "\uff61"} {
		if rest, found := strings.CutSuffix(domain, dot); found {
			return rest
		}
	}
	return domain
}

func unfitName(domain string) (reason string) {
	switch {
	case domain == "":
		return "the domain is empty"
	case len(domain) > maxDomain:
		return fmt.Sprintf("the domain is longer than %d octets", maxDomain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		switch {
		case label == "":
			return "the domain has an empty label"
		case len(label) > maxLabel:
			return fmt.Sprintf("the domain has a label longer than %d octets", maxLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return "the domain has a label with a hyphen at its edge"
		}
		for i := range len(label) {
			if !isNameText(label[i]) {
				return fmt.Sprintf("the domain holds %q", label[i])
			}
		}
	}
	return ""
}

func isNameText(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// unfitLiteral checks an address literal (RFC 5321 section 4.1.3).
func unfitLiteral(domain string) (reason string) {
	const tag = "IPv6:"
	inner, closed := strings.CutSuffix(domain[1:], "]")
	if !closed {
		return "the address literal has no closing bracket"
	}
	want6 := len(inner) >= len(tag) && strings.EqualFold(inner[:len(tag)], tag)
	if want6 {
		inner = inner[len(tag):]
	}
	ip, err := netip.ParseAddr(inner)
	switch {
	case err != nil || ip.Zone() != "":
		return "the address literal holds no IP address"
	case ip.Is6() && !want6:
		return "the address literal lacks IPv6: before its address"
	case ip.Is4() && want6:
		return "the address literal holds no IPv6 address"
	}
	return ""
}

// SameName tells whether two A-labels or names of them are the same, whatever the case of their letters; what is empty
// is no name. It folds ASCII alone, other than strings.EqualFold, which takes the Kelvin sign for a k.
func SameName(a, b string) bool {
	if len(a) != len(b) || a == "" {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
