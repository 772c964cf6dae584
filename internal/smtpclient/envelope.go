package smtpclient

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// Envelope is the envelope of a message. Send does not change it.
type Envelope struct {
	// From is the sender as it goes on the wire, without angle brackets; "" is the null sender.
	From string
	// Options: Body and Size are found from the content instead. UTF8 asks for SMTPUTF8. Return,
	// EnvelopeID and Auth go out where the peer offers DSN and AUTH, and are left out where not. May be
	// nil.
	Options *smtp.MailOptions
	Rcpts   []Rcpt
}

// Rcpt is a recipient.
type Rcpt struct {
	// Address as it goes on the wire, without angle brackets.
	Address string
	// Options: Notify and the original recipient go out where the peer offers DSN, and are left out where
	// not (RFC 3461 section 5.2.2). May be nil.
	Options *smtp.RcptOptions
}

// Replies that are given here instead of by the peer.
var (
	replyNUL      = Reply{554, Enhanced{5, 6, 0}, "the content holds NUL"}
	replyNo8Bit   = Reply{554, Enhanced{5, 6, 3}, "the content is 8-bit and the peer does not offer 8BITMIME"}
	replyNoUTF8   = Reply{554, Enhanced{5, 6, 7}, "the message needs SMTPUTF8 and the peer does not offer it"}
	replyTooBig   = Reply{552, Enhanced{5, 3, 4}, "the message is larger than the peer takes"}
	replyBadFrom  = Reply{553, Enhanced{5, 1, 7}, "the sender's address cannot be sent"}
	replyBadRcpt  = Reply{553, Enhanced{5, 1, 3}, "the recipient's address cannot be sent"}
	replyBadParam = Reply{501, Enhanced{5, 5, 4}, ""}
)

// judgeMessage says why a message cannot be sent to this peer at all, or nil.
func (s *Session) judgeMessage(env *Envelope, c *Content) *Reply {
	switch asked := env.Options != nil && env.Options.UTF8; {
	case c.hasNUL:
		return &replyNUL
	case s.ext.maxSize() > 0 && c.wireSize > s.ext.maxSize():
		r := replyTooBig
		r.Text = fmt.Sprintf("the message has %d bytes and the peer takes %d", c.wireSize, s.ext.maxSize())
		return &r
	case c.has8Bit && !s.cfg.Ignore8BitChecks && !s.ext.has("8BITMIME"):
		return &replyNo8Bit
	case !isPath(env.From) && env.From != "":
		return &replyBadFrom
	case (asked || !isASCII(env.From)) && !s.cfg.Ignore8BitChecks && !s.ext.has("SMTPUTF8"):
		return &replyNoUTF8
	case env.Options != nil && !slices.Contains([]smtp.DSNReturn{"", smtp.DSNReturnFull, smtp.DSNReturnHeaders}, env.Options.Return):
		return badParam("RET", string(env.Options.Return))
	}
	return nil
}

// judgeRcpt says why a recipient cannot be offered to this peer, or nil.
func (s *Session) judgeRcpt(r *Rcpt) *Reply {
	if !isPath(r.Address) {
		return &replyBadRcpt
	}
	if !isASCII(r.Address) && !s.cfg.Ignore8BitChecks && !s.ext.has("SMTPUTF8") {
		return &replyNoUTF8
	}
	if r.Options == nil {
		return nil
	}
	for _, n := range r.Options.Notify {
		switch n {
		case smtp.DSNNotifyNever, smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
		default:
			return badParam("NOTIFY", string(n))
		}
	}
	switch r.Options.OriginalRecipientType {
	case "", smtp.DSNAddressTypeRFC822, smtp.DSNAddressTypeUTF8:
		return nil
	}
	return badParam("ORCPT", string(r.Options.OriginalRecipientType))
}

func badParam(keyword, value string) *Reply {
	r := replyBadParam
	r.Text = fmt.Sprintf("%s cannot be %q", keyword, value)
	return &r
}

// isPath reports whether an address can stand between angle brackets and end nothing there: no control
// character, and spaces and angle brackets only within quotes that close. The caller has parsed the
// address; this guards the wire whatever it is given.
func isPath(address string) bool {
	quoted := false
	for i := 0; i < len(address); i++ {
		switch c := address[i]; {
		case c < ' ' || c == 0x7f:
			return false
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
			if i == len(address) || address[i] < ' ' || address[i] == 0x7f {
				return false
			}
		case (c == ' ' || c == '<' || c == '>') && !quoted:
			return false
		}
	}
	return address != "" && !quoted && utf8.ValidString(address)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// needsUTF8 reports whether the message needs SMTPUTF8 (RFC 6531 section 3.4) on behalf of any address
// that is going to be offered.
func (t *transfer) needsUTF8() bool {
	if t.env.Options != nil && t.env.Options.UTF8 || !isASCII(t.env.From) {
		return true
	}
	for i := range t.env.Rcpts {
		if t.rcpts[i] != rcptLocal && !isASCII(t.env.Rcpts[i].Address) {
			return true
		}
	}
	return false
}

// appendMail appends the MAIL command without CRLF.
func (s *Session) appendMail(b []byte, t *transfer) []byte {
	ext, opts := s.ext, t.env.Options
	b = append(b, "MAIL FROM:<"...)
	b = append(b, t.env.From...)
	b = append(b, '>')
	if ext.has("SIZE") {
		b = strconv.AppendInt(append(b, " SIZE="...), t.content.wireSize, 10)
	}
	if t.content.has8Bit && ext.has("8BITMIME") {
		b = append(b, " BODY=8BITMIME"...)
	}
	if ext.has("SMTPUTF8") && t.needsUTF8() {
		b = append(b, " SMTPUTF8"...)
	}
	if opts == nil {
		return b
	}
	if ext.has("DSN") {
		if opts.Return != "" {
			b = append(append(b, " RET="...), opts.Return...)
		}
		if opts.EnvelopeID != "" {
			b = appendXtext(append(b, " ENVID="...), opts.EnvelopeID)
		}
	}
	if ext.has("AUTH") && opts.Auth != nil {
		b = append(b, " AUTH="...)
		if *opts.Auth == "" {
			return append(b, "<>"...)
		}
		b = appendXtext(b, *opts.Auth)
	}
	return b
}

// appendRcpt appends the RCPT command of a recipient without CRLF.
func (s *Session) appendRcpt(b []byte, r *Rcpt) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, r.Address...)
	b = append(b, '>')
	if r.Options == nil || !s.ext.has("DSN") {
		return b
	}
	for i, n := range r.Options.Notify {
		if i == 0 {
			b = append(b, " NOTIFY="...)
		} else {
			b = append(b, ',')
		}
		b = append(b, n...)
	}
	if r.Options.OriginalRecipient == "" {
		return b
	}
	if r.Options.OriginalRecipientType == smtp.DSNAddressTypeUTF8 {
		return appendUTF8Xtext(append(b, " ORCPT=utf-8;"...), r.Options.OriginalRecipient)
	}
	return appendXtext(append(b, " ORCPT=rfc822;"...), r.Options.OriginalRecipient)
}

// isXchar: RFC 3461 section 4.
func isXchar(c byte) bool { return '!' <= c && c <= '~' && c != '+' && c != '=' }

// appendXtext encodes by RFC 3461 section 4.
func appendXtext(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; isXchar(c) {
			b = append(b, c)
		} else {
			b = append(b, '+', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// appendUTF8Xtext encodes as utf-8-addr-xtext (RFC 6533 section 3), which is ASCII and good for any peer.
func appendUTF8Xtext(b []byte, s string) []byte {
	for _, r := range s {
		if r < utf8.RuneSelf && isXchar(byte(r)) && r != '\\' {
			b = append(b, byte(r))
			continue
		}
		b = fmt.Appendf(b, `\x{%02X}`, r)
	}
	return b
}
