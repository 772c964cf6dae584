package kumo

import (
	"context"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	lua "github.com/yuin/gopher-lua"
)

// normalizeResponse is kumo.string.normalize_smtp_response(text).
func normalizeResponse(L *lua.LState) int {
	const function = "string.normalize_smtp_response"
	text, err := normalizeReply(contextOf(L), L.CheckString(1))
	if err != nil {
		fail(L, function, err)
	}
	return pushText(L, function, text)
}

// maxReplyWord is how long a word of a reply may be to be looked at: RFC 5321 section 4.5.3.1.5 has 512 bytes for
// the whole line.
const maxReplyWord = 1024

// normalizeReply puts tokens for what differs from one message to the next in replies that mean the same, so that
// they can be counted together: {timestamp}, {uuid}, {hash}, {ipaddr}, {base64}, {email}, {duration}. Runs of white
// space become one space; brackets around words go.
func normalizeReply(ctx context.Context, text string) (string, error) {
	var out strings.Builder
	h := heed{ctx: ctx}
	inDuration := false
	for word := range strings.FieldsFuncSeq(withoutBrackets(text), isASCIISpace) {
		if err := h.ended(); err != nil {
			return "", err
		}
		duration := isDuration(word)
		if duration && inDuration {
			continue
		}
		inDuration = duration
		if out.Len() > 0 {
			out.WriteByte(' ')
		}
		if duration {
			word = "{duration}"
		} else if len(word) <= maxReplyWord {
			word = normalizeWord(word)
		}
		out.WriteString(word)
	}
	return out.String(), nil
}

// withoutBrackets puts a space for a bracket in front of a word, and for the one that closes it at the end of a word,
// with what follows it.
func withoutBrackets(text string) string {
	if !strings.ContainsAny(text, "[({") {
		return text
	}
	out := make([]byte, 0, len(text))
	open := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		starts := len(out) == 0 || isASCIISpace(rune(out[len(out)-1]))
		switch {
		case starts && strings.IndexByte("[({", c) >= 0:
			out = append(out, ' ')
			open++
		case open > 0 && strings.IndexByte("])}", c) >= 0 && endsWord(text[i+1:]):
			out = append(out, ' ')
			open--
			i++
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func endsWord(rest string) bool {
	return rest == "" || isASCIISpace(rune(rest[0])) || rest[0] < utf8.RuneSelf && isPunctuation(rest[0])
}

func isPunctuation(c byte) bool {
	return c > ' ' && c < 0x7F && !isAlphanumeric(c)
}

func isAlphanumeric(c byte) bool { return isDigit(c) || isLetter(c) }
func isDigit(c byte) bool        { return '0' <= c && c <= '9' }
func isLetter(c byte) bool       { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// normalizeWord looks at the word, without punctuation around it if that says nothing, and at what follows an equals
// sign in it, and so on, a few times.
func normalizeWord(word string) string {
	prefix := ""
	rest := word
	for range 8 {
		if token := tokenOf(rest); token != "" {
			return prefix + token
		}
		core := strings.Trim(rest, `<>"',.;:!?`)
		if token := tokenOf(core); token != "" {
			at := strings.Index(rest, core)
			return prefix + rest[:at] + token + rest[at+len(core):]
		}
		_, after, found := strings.Cut(rest, "=")
		if !found {
			return word
		}
		rest = after
		prefix = word[:len(word)-len(rest)]
	}
	return word
}

// tokenOf is what stands for a word, empty if it stays.
func tokenOf(word string) string {
	switch {
	case isISODuration(word):
		return "{duration}"
	case isTimestamp(word):
		return "{timestamp}"
	case uuid.Validate(word) == nil:
		return "{uuid}"
	case isHash(word):
		return "{hash}"
	case isAddress(word):
		return "{ipaddr}"
	case isBase64(word):
		return "{base64}"
	case isEmail(word):
		return "{email}"
	}
	return ""
}

func isTimestamp(word string) bool {
	_, err := time.Parse(time.RFC3339, word)
	return err == nil
}

// isHash finds names of messages, queues and processes: letters and digits, more than two of each.
func isHash(word string) bool {
	if len(word) < 8 {
		return false
	}
	letters, digits := 0, 0
	for i := range len(word) {
		switch c := word[i]; {
		case isLetter(c):
			letters++
		case isDigit(c):
			digits++
		case c != '-' && c != '.' && c != '_':
			return false
		}
	}
	return letters > 2 && digits > 2
}

// isAddress finds IP addresses, also with a port.
func isAddress(word string) bool {
	if _, err := netip.ParseAddr(word); err == nil {
		return true
	}
	_, err := netip.ParseAddrPort(word)
	return err == nil
}

// isBase64 finds base64 in either alphabet. Many words of prose would be valid; what tells them apart is padding, a
// digit among letters of both cases, or case that changes as it does in no word.
func isBase64(word string) bool {
	if len(word) < 8 || len(word)%4 != 0 {
		return false
	}
	core := strings.TrimRight(word, "=")
	if len(word)-len(core) > 2 {
		return false
	}
	upper, lower, digit, rises := false, false, false, 0
	for i := range len(core) {
		switch c := core[i]; {
		case 'a' <= c && c <= 'z':
			lower = true
		case 'A' <= c && c <= 'Z':
			upper = true
			if i > 0 && 'a' <= core[i-1] && core[i-1] <= 'z' {
				rises++
			}
		case isDigit(c):
			digit = true
		case strings.IndexByte("+/-_", c) < 0:
			return false
		}
	}
	return len(core) < len(word) || upper && lower && (digit || rises > 1)
}

// isEmail finds what looks like a mailbox with a domain name, or an address in brackets.
func isEmail(word string) bool {
	at := strings.LastIndexByte(word, '@')
	if at <= 0 || !isLocalPart(word[:at]) {
		return false
	}
	domain := word[at+1:]
	if strings.HasPrefix(domain, "[") && strings.HasSuffix(domain, "]") {
		return isAddress(strings.TrimPrefix(strings.Trim(domain, "[]"), "IPv6:"))
	}
	labels := strings.Split(domain, ".")
	for _, label := range labels {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
				return false
			}
		}
	}
	return len(labels) > 1
}

func isLocalPart(s string) bool {
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return true
	}
	for i := range len(s) {
		if c := s[i]; c < utf8.RuneSelf && !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) < 0 {
			return false
		}
	}
	return true
}

// durationUnits are those in which upstream and others write durations.
var durationUnits = []string{"ns", "us", "ms", "s", "m", "h", "day", "days", "month", "months", "year", "years"}

// isDuration finds one number with its unit: "999ms".
func isDuration(word string) bool {
	n := 0
	for n < len(word) && isDigit(word[n]) {
		n++
	}
	if n == 0 || n == len(word) || len(word)-n > 6 {
		return false
	}
	for _, unit := range durationUnits {
		if word[n:] == unit {
			return true
		}
	}
	return false
}

// isISODuration finds durations of ISO 8601: P1Y2M3DT4H5M6S.
func isISODuration(word string) bool {
	rest, ok := strings.CutPrefix(word, "P")
	if !ok || rest == "" {
		return false
	}
	date, clock, timed := strings.Cut(rest, "T")
	if timed && clock == "" {
		return false
	}
	return isQuantities(date, "YMWD") && isQuantities(clock, "HMS")
}

// isQuantities finds numbers, each with a unit, in the order of units.
func isQuantities(s, units string) bool {
	for s != "" {
		n := 0
		for n < len(s) && (isDigit(s[n]) || n > 0 && s[n] == '.') {
			n++
		}
		if n == 0 || n == len(s) {
			return false
		}
		at := strings.IndexByte(units, s[n])
		if at < 0 {
			return false
		}
		s, units = s[n+1:], units[at+1:]
	}
	return true
}
