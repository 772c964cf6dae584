// Package address takes envelope addresses apart and puts them back together: the paths of RFC 5321
// section 4.1.2 with the internationalised forms of RFC 6531 section 3.3.
//
// An [Address] is made by [Parse] or [ParseSender] and holds nothing but meaning: the local part
// without quotes and escapes, the domain as A-labels. So two spellings of a mailbox are equal by ==,
// and [Address.String] gives the one spelling that goes on the wire. What it gives for a parsed
// address never holds a control character and never a space or an angle bracket outside quotes: it
// cannot end a command or add a parameter to it.
package address

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLength bounds an address in its wire form, in octets. RFC 5321 section 4.5.3.1 asks for at
// least 64 for a local part and 256 for a path, and the addresses of mailing lists that encode a
// recipient in the sender (VERP) go past both in daily use. What has to hold is that a command line
// with its extension parameters (section 4.5.3.1.4) stays within what servers read, commonly 2048.
const maxLength = 1000

// Address is an envelope address taken apart. The zero Address is the null sender. Addresses are
// compared with ==, which ignores how they were quoted and heeds the case of the local part, as
// RFC 5321 section 2.4 asks.
type Address struct {
	// Local is the local part without quotes and escapes. The Postmaster without a domain
	// (RFC 5321 section 4.5.1) is "postmaster".
	Local string
	// Domain is in A-labels and in lower case, or an address literal in its brackets. It is empty for
	// the bare Postmaster and the null sender.
	Domain string
}

// Error tells why a text is no address or no domain.
type Error struct {
	Address string // the text as it was given
	Reason  string
}

// Error is safe to log: the address stands in quotes with everything unprintable escaped, and is cut
// where it is long.
func (e *Error) Error() string {
	const limit = 200
	text, more := e.Address, ""
	if len(text) > limit {
		end := limit
		for end > limit-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text, more = text[:end], "..."
	}
	return fmt.Sprintf("address: %q%s: %s", text, more, e.Reason)
}

// Parse reads a forward path without its angle brackets: never the null sender. It splits at the last
// "@". The local part may be quoted, or raw as go-smtp's server hands it on once it has removed the
// quotes: a raw one may hold anything but spaces, angle brackets and control characters, so that
// a@b@example.com is the local part a@b. A local part in quotes from end to end is always taken as
// quoted. Control characters are refused in quotes too, as is text that is not UTF-8. "Postmaster"
// in any case needs no domain. A source route (@a.example,@b.example:user@example.com) is dropped,
// as RFC 5321 section 3.6.1 allows. An address whose wire form is longer than 1000 octets is
// refused. Errors are of type *Error.
func Parse(s string) (Address, error) {
	a, reason := parse(s)
	if reason != "" {
		return Address{}, &Error{s, reason}
	}
	return a, nil
}

// ParseSender reads a reverse path: "" and "<>" are the null sender, the rest is as in [Parse].
func ParseSender(s string) (Address, error) {
	if s == "" || s == "<>" {
		return Address{}, nil
	}
	return Parse(s)
}

func parse(s string) (a Address, reason string) {
	if at := plainLocal(s); at > 0 && isPlainName(s[at+1:]) && 2*len(s) < maxLength { // as nearly all are
		return Address{s[:at], s[at+1:]}, ""
	}
	return parseAny(s)
}

func parseAny(s string) (a Address, reason string) {
	if s == "" {
		return a, "the address is empty"
	}
	if reason := unfitText(s); reason != "" {
		return a, reason
	}
	s = dropRoute(s)
	if strings.EqualFold(s, "postmaster") {
		return Address{Local: "postmaster"}, ""
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return a, "there is no @ and no domain"
	}
	if a.Local, reason = parseLocal(s[:at]); reason != "" {
		return a, reason
	}
	if a.Domain, reason = toASCII(s[at+1:]); reason != "" {
		return a, reason
	}
	// Quoting at most doubles a local part, so the exact length matters to few.
	if 2*len(a.Local)+len(a.Domain)+3 > maxLength && len(a.String()) > maxLength {
		return a, fmt.Sprintf("it is longer than %d octets", maxLength)
	}
	return a, ""
}

// unfitText names what no address may hold, in quotes or not. The controls of Unicode go the way of
// those of ASCII: some take U+0085 for the end of a line.
func unfitText(s string) (reason string) {
	if isPrintableASCII(s) { // as nearly all are
		return ""
	}
	if !utf8.ValidString(s) {
		return "it is not UTF-8"
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return fmt.Sprintf("it holds the control character %U", r)
	}
	return ""
}

// dropRoute removes the source route in front of a mailbox. What does not follow the grammar of a
// route (A-d-l in RFC 5321 section 4.1.2) is not one, and stays.
func dropRoute(s string) string {
	for hop := s; strings.HasPrefix(hop, "@"); {
		end := strings.IndexAny(hop, ",:")
		if strings.HasPrefix(hop, "@[") {
			if end = strings.IndexByte(hop, ']') + 1; end == len(hop) {
				return s
			}
		}
		if end < 1 {
			return s
		}
		if _, reason := toASCII(hop[1:end]); reason != "" {
			return s
		}
		separator, rest := hop[end], hop[end+1:]
		if separator == ':' && rest != "" && rest[0] != '@' {
			return rest
		}
		if separator != ',' {
			return s
		}
		hop = rest
	}
	return s
}

// String returns the wire form without angle brackets. It is empty for the null sender. Where
// [Address.ASCIILocal] is false, only a peer that offers SMTPUTF8 understands it.
func (a Address) String() string {
	switch {
	case a.IsNull():
		return ""
	case a.Domain == "" && a.Local == "postmaster":
		return "Postmaster"
	}
	return a.LocalString() + "@" + a.Domain
}

// Text is String, without a copy where the text that the address was parsed from is its wire form already.
func (a Address) Text(parsed string) string {
	if n := len(a.Local); len(parsed) == n+1+len(a.Domain) && a.Domain != "" && parsed[n] == '@' &&
		parsed[:n] == a.Local && parsed[n+1:] == a.Domain && a.LocalString() == a.Local {
		return parsed
	}
	return a.String()
}

// IsNull reports whether a is the null sender.
func (a Address) IsNull() bool { return a == Address{} }

// ASCIILocal reports whether the local part is ASCII. If it is not, the address needs SMTPUTF8
// (RFC 6531). The domain never does.
func (a Address) ASCIILocal() bool { return isASCII(a.Local) }

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
