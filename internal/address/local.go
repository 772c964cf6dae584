package address

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// LocalString returns the local part in its wire form: as it is where it is a dot-string, else as a
// quoted string. It is empty for the null sender.
func (a Address) LocalString() string {
	if isDotString(a.Local) || a.IsNull() {
		return a.Local
	}
	return quote(a.Local)
}

// parseLocal reads a local part, quoted or raw. The text has no control characters.
func parseLocal(s string) (local, reason string) {
	local, quoted := unquote(s)
	if !quoted {
		local = s
		for _, r := range s {
			switch {
			case r == '<' || r == '>':
				return "", "there is an angle bracket outside quotes"
			case unicode.IsSpace(r):
				return "", "there is a space outside quotes"
			}
		}
	}
	if local == "" {
		return "", "the local part is empty"
	}
	return local, ""
}

// plainLocal is the length of the local part that s begins with, if it is of such characters alone as mean themselves
// wherever they stand, and an @ follows; else -1.
func plainLocal(s string) int {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '@':
			return i
		case !isNameText(c) && (c < 'A' || c > 'Z') && c != '.' && c != '+' && c != '=':
			return -1
		}
	}
	return -1
}

// unquote reads a quoted string (RFC 5321 section 4.1.2). ok is false where s is not one from end to
// end.
func unquote(s string) (text string, ok bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	inner := s[1 : len(s)-1]
	if !strings.ContainsAny(inner, `"\`) {
		return inner, true
	}
	var b strings.Builder
	b.Grow(len(inner))
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '"':
			return "", false
		case '\\':
			// The backslash before the closing quote escapes it: the string goes on, and has no end.
			if i++; i == len(inner) {
				return "", false
			}
		}
		b.WriteByte(inner[i])
	}
	return b.String(), true
}

// quote writes a quoted string, with a backslash before what cannot stand without one.
func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2 + strings.Count(s, `"`) + strings.Count(s, `\`))
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isDotString reports whether a local part may go without quotes: atoms with single dots between
// them (RFC 5321 section 4.1.2, and RFC 6531 section 3.3 for what is not ASCII).
func isDotString(s string) bool {
	afterDot := true
	for _, r := range s {
		if r == '.' {
			if afterDot {
				return false
			}
			afterDot = true
			continue
		}
		if !isAtomText(r) {
			return false
		}
		afterDot = false
	}
	return !afterDot
}

// isAtomText holds for the atext of RFC 5322 section 3.2.3 and for what is not ASCII. The spaces of
// Unicode would be lawful there; they get quotes, because a server may well split at them.
func isAtomText(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return !unicode.IsSpace(r)
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}
