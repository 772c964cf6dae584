package smtpclient

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// maxParameter bounds the value of a parameter as it is encoded, in octets, so that a command stays below
// 4096 whatever else it holds. Few servers would take a line of that length.
const maxParameter = 1900

func badParam(keyword, value string) *Reply {
	r := replyBadParam
	r.Text = fmt.Sprintf("%s cannot be %.200q", keyword, value)
	return &r
}

// judgeMailOptions says which of the message's parameters has no form on the wire, or nil.
func judgeMailOptions(o *smtp.MailOptions) *Reply {
	switch o.Body {
	case "", smtp.Body7Bit, smtp.Body8BitMIME, smtp.BodyBinaryMIME:
	default:
		return badParam("BODY", string(o.Body))
	}
	switch o.Return {
	case "", smtp.DSNReturnFull, smtp.DSNReturnHeaders:
	default:
		return badParam("RET", string(o.Return))
	}
	if !isPrintable(o.EnvelopeID) || xtextLen(o.EnvelopeID) > maxParameter {
		return badParam("ENVID", o.EnvelopeID)
	}
	return nil
}

// judgeRcptOptions says which of a recipient's parameters has no form on the wire, or nil.
func judgeRcptOptions(o *smtp.RcptOptions) *Reply {
	for i, n := range o.Notify {
		switch n {
		case smtp.DSNNotifyNever, smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
		default:
			return badParam("NOTIFY", string(n))
		}
		if slices.Contains(o.Notify[:i], n) || n == smtp.DSNNotifyNever && len(o.Notify) > 1 {
			return badParam("NOTIFY", fmt.Sprint(o.Notify))
		}
	}
	switch o.OriginalRecipientType {
	case "", smtp.DSNAddressTypeRFC822, smtp.DSNAddressTypeUTF8:
	default:
		return badParam("ORCPT", string(o.OriginalRecipientType))
	}
	if !isOriginalRecipient(o.OriginalRecipient) {
		return badParam("ORCPT", o.OriginalRecipient)
	}
	if since := o.RequireRecipientValidSince; !since.IsZero() && (since.UTC().Year() < 0 || since.UTC().Year() > 9999) {
		return badParam("RRVS", since.String())
	}
	if p := o.MTPriority; p != nil && (*p < -9 || *p > 9) {
		return badParam("MT-PRIORITY", strconv.Itoa(*p))
	}
	return judgeBy(o.DeliverBy)
}

// maxBy is the longest time that BY can hold: nine digits (RFC 2852 section 4).
const maxBy = 999_999_999 * time.Second

func judgeBy(by *smtp.DeliverByOptions) *Reply {
	switch {
	case by == nil:
		return nil
	case by.Mode != smtp.DeliverByNotify && by.Mode != smtp.DeliverByReturn:
		return badParam("BY", string(by.Mode))
	case by.Time > maxBy || by.Time < -maxBy:
		return badParam("BY", by.Time.String())
	}
	return nil
}

// mailParams are the parameters of MAIL that go-smtp's types hold with each recipient.
type mailParams struct {
	hasBy       bool
	by          smtp.DeliverByOptions
	hasPriority bool
	priority    int
}

// mailParams returns those that this peer is told with MAIL.
func (s *Session) mailParams(r *Rcpt) (p mailParams) {
	if s.paramsWithRcpt.Load() {
		return p
	}
	return s.offeredParams(r)
}

// offeredParams returns those that this peer offers to take.
func (s *Session) offeredParams(r *Rcpt) (p mailParams) {
	if r.Options == nil {
		return p
	}
	if by := r.Options.DeliverBy; by != nil && s.ext.has("DELIVERBY") {
		p.hasBy, p.by = true, *by
	}
	if priority := r.Options.MTPriority; priority != nil && s.ext.has("MT-PRIORITY") {
		p.hasPriority, p.priority = true, *priority
	}
	return p
}

// movesParams reports whether a peer refused MAIL for want of understanding its parameters, so that the
// transaction can be begun anew with them at RCPT: where go-smtp's types hold them, some servers read
// them. It says so once in a session.
func (s *Session) movesParams(r *reply) bool {
	switch r.code {
	case 500, 501, 504, 555:
		s.paramsWithRcpt.Store(true)
		return true
	}
	return false
}

// append appends the parameters.
func (p *mailParams) append(b []byte) []byte {
	if p.hasBy {
		b = strconv.AppendInt(append(b, " BY="...), int64(p.by.Time/time.Second), 10)
		b = append(append(b, ';'), p.by.Mode...)
		if p.by.Trace {
			b = append(b, 'T')
		}
	}
	if p.hasPriority {
		b = strconv.AppendInt(append(b, " MT-PRIORITY="...), int64(p.priority), 10)
	}
	return b
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
	ext := s.ext
	b = append(b, "MAIL FROM:<"...)
	b = append(b, t.env.From...)
	b = append(b, '>')
	if ext.has("SIZE") {
		b = strconv.AppendInt(append(b, " SIZE="...), t.env.sizeOf(t.content), 10)
	}
	switch {
	case t.env.binary():
		b = append(b, " BODY=BINARYMIME"...)
	case t.content.has8Bit && ext.has("8BITMIME"):
		b = append(b, " BODY=8BITMIME"...)
	}
	if ext.has("SMTPUTF8") && t.needsUTF8() {
		b = append(b, " SMTPUTF8"...)
	}
	if t.env.Options != nil {
		b = appendMailOptions(b, ext, t.env.Options)
	}
	params := s.mailParams(&t.env.Rcpts[0])
	t.withParams = params != (mailParams{})
	return params.append(b)
}

func appendMailOptions(b []byte, ext extensions, o *smtp.MailOptions) []byte {
	if o.RequireTLS && ext.has("REQUIRETLS") {
		b = append(b, " REQUIRETLS"...)
	}
	if ext.has("DSN") {
		if o.Return != "" {
			b = append(append(b, " RET="...), o.Return...)
		}
		if o.EnvelopeID != "" {
			b = appendXtext(append(b, " ENVID="...), o.EnvelopeID)
		}
	}
	if ext.has("AUTH") && o.Auth != nil {
		b = appendAuthor(append(b, " AUTH="...), *o.Auth)
	}
	return b
}

// appendAuthor appends the identity that vouches for the message (RFC 4954 section 5). What is no mailbox
// that could stand there goes as "<>", nobody: that is what any server may take it for.
func appendAuthor(b []byte, mailbox string) []byte {
	mailbox = quoteLocal(mailbox)
	if !isPrintable(mailbox) || !isPath(mailbox) || xtextLen(mailbox) > maxParameter/2 {
		return append(b, "<>"...)
	}
	return appendXtext(b, mailbox)
}

// quoteLocal gives a local part back the quotes that go-smtp's server takes off.
func quoteLocal(mailbox string) string {
	at := strings.LastIndexByte(mailbox, '@')
	if at < 0 || strings.HasPrefix(mailbox, `"`) || !strings.ContainsAny(mailbox[:at], " \"\\()<>[]:;,@") {
		return mailbox
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(mailbox[:at]) + `"` + mailbox[at:]
}

// appendRcpt appends the RCPT command of a recipient without CRLF.
func (s *Session) appendRcpt(b []byte, r *Rcpt) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, r.Address...)
	b = append(b, '>')
	if r.Options == nil {
		return b
	}
	if s.ext.has("DSN") {
		b = appendDSN(b, r.Options)
	}
	if since := r.Options.RequireRecipientValidSince; s.ext.has("RRVS") && !since.IsZero() {
		b = since.UTC().AppendFormat(append(b, " RRVS="...), time.RFC3339)
	}
	if s.paramsWithRcpt.Load() {
		params := s.offeredParams(r)
		b = params.append(b)
	}
	return b
}

func appendDSN(b []byte, o *smtp.RcptOptions) []byte {
	for i, n := range o.Notify {
		if i == 0 {
			b = append(b, " NOTIFY="...)
		} else {
			b = append(b, ',')
		}
		b = append(b, n...)
	}
	switch original := o.OriginalRecipient; {
	case original == "":
		return b
	case o.OriginalRecipientType == smtp.DSNAddressTypeUTF8 || !isPrintable(original):
		return appendUTF8Xtext(append(b, " ORCPT=utf-8;"...), original)
	default:
		return appendXtext(append(b, " ORCPT=rfc822;"...), original)
	}
}

// isOriginalRecipient reports whether an address has a form as utf-8-addr-xtext (RFC 6533 section 3),
// which leaves out the control characters in which lines end.
func isOriginalRecipient(s string) bool {
	bad := func(r rune) bool { return r == 0 || 0x0A <= r && r <= 0x0F || 0x1A <= r && r <= 0x1F }
	return utf8.ValidString(s) && !strings.ContainsFunc(s, bad) && utf8XtextLen(s) <= maxParameter
}

// isPrintable: RFC 3461 section 4.4 asks it of envelope identifiers.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
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

// xtextLen is how many octets appendXtext makes of s.
func xtextLen(s string) int {
	n := len(s)
	for i := range len(s) {
		if !isXchar(s[i]) {
			n += len("+") + 1
		}
	}
	return n
}

// appendUTF8Xtext encodes as utf-8-addr-xtext (RFC 6533 section 3), which is ASCII and good for any peer.
func appendUTF8Xtext(b []byte, s string) []byte {
	for _, r := range s {
		if isUTF8Xchar(r) {
			b = append(b, byte(r))
			continue
		}
		b = fmt.Appendf(b, `\x{%02X}`, r)
	}
	return b
}

func isUTF8Xchar(r rune) bool { return r < utf8.RuneSelf && isXchar(byte(r)) && r != '\\' }

// utf8XtextLen is at least how many octets appendUTF8Xtext makes of s.
func utf8XtextLen(s string) (n int) {
	for _, r := range s {
		if isUTF8Xchar(r) {
			n++
		} else {
			n += len(`\x{10FFFF}`)
		}
	}
	return n
}
