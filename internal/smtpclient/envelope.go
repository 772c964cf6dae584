package smtpclient

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// Envelope is the envelope of a message. Send does not change it. Its options are what a go-smtp server
// has received: their values stand there decoded, and are encoded here.
type Envelope struct {
	// From is the sender as it goes on the wire, without angle brackets; "" is the null sender.
	From string
	// Options may be nil.
	//   - Size is found from the content instead, and so is Body, unless it is BINARYMIME: then the content
	//     goes out octet for octet, or not at all.
	//   - UTF8 asks for SMTPUTF8, as an address does that is not ASCII.
	//   - RequireTLS asks for REQUIRETLS: a peer that does not offer it, or is not known by its certificate,
	//     does not get the message (RFC 8689).
	//   - Return, EnvelopeID and Auth go out where the peer offers DSN and AUTH, and are left out where not.
	Options *smtp.MailOptions
	Rcpts   []Rcpt
}

// Rcpt is a recipient.
type Rcpt struct {
	// Address as it goes on the wire, without angle brackets.
	Address string
	// Options may be nil.
	//   - Notify and the original recipient go out where the peer offers DSN, and are left out where not
	//     (RFC 3461 section 5.2.2).
	//   - RequireRecipientValidSince goes out where the peer offers RRVS (RFC 7293), and is left out where not.
	//   - DeliverBy and MTPriority are parameters of MAIL (RFC 2852, RFC 6710), where the peer offers
	//     DELIVERBY and MT-PRIORITY. Recipients that differ in them cannot share a transaction: those that are
	//     not like the first get a local 452 4.5.3. A peer that refuses MAIL for them is asked once more, with
	//     the parameters at RCPT. A message that must be returned when it is late does not go to a peer that
	//     promises nothing.
	Options *smtp.RcptOptions
}

// Replies that are given here instead of by the peer.
var (
	replyNUL        = Reply{554, Enhanced{5, 6, 0}, "the content holds NUL"}
	replyNoBinary   = Reply{554, Enhanced{5, 6, 3}, "the content is binary and the peer does not offer BINARYMIME with CHUNKING"}
	replyNo8Bit     = Reply{554, Enhanced{5, 6, 3}, "the content is 8-bit and the peer does not offer 8BITMIME"}
	replyNoUTF8     = Reply{554, Enhanced{5, 6, 7}, "the message needs SMTPUTF8 and the peer does not offer it"}
	replyTooBig     = Reply{552, Enhanced{5, 3, 4}, "the message is larger than the peer takes"}
	replyNoRequire  = Reply{550, Enhanced{5, 7, 30}, "the message requires TLS all the way and the peer does not offer REQUIRETLS"}
	replyNotSecure  = Reply{550, Enhanced{5, 7, 10}, "the message requires TLS with a verified certificate"}
	replyBadFrom    = Reply{553, Enhanced{5, 1, 7}, "the sender's address cannot be sent"}
	replyBadRcpt    = Reply{553, Enhanced{5, 1, 3}, "the recipient's address cannot be sent"}
	replyNoBy       = Reply{554, Enhanced{5, 4, 7}, "the message must be returned when it is late and the peer does not offer DELIVERBY"}
	replyLate       = Reply{554, Enhanced{5, 4, 7}, "the message cannot be delivered in time"}
	replyOtherParam = Reply{452, Enhanced{4, 5, 3}, "DELIVERBY or MT-PRIORITY differ: the recipient needs a transaction of its own"}
	replyBadParam   = Reply{501, Enhanced{5, 5, 4}, ""}
)

// judgeMessage says why a message cannot be sent to this peer at all, or nil.
func (s *Session) judgeMessage(env *Envelope, c *Content) *Reply {
	if r := s.judgeContent(env, c); r != nil {
		return r
	}
	opts := env.Options
	if opts == nil {
		opts = &noOptions
	}
	switch {
	case opts.RequireTLS && !s.ext.has("REQUIRETLS"):
		return &replyNoRequire
	case opts.RequireTLS && !s.verified: // RFC 8689 section 4.2.1
		return &replyNotSecure
	case !isPath(env.From) && env.From != "":
		return &replyBadFrom
	case (opts.UTF8 || !isASCII(env.From)) && !s.cfg.Ignore8BitChecks && !s.ext.has("SMTPUTF8"):
		return &replyNoUTF8
	}
	return judgeMailOptions(opts)
}

var noOptions smtp.MailOptions

// judgeContent says why the peer cannot take a content, or nil.
func (s *Session) judgeContent(env *Envelope, c *Content) *Reply {
	binary, size := env.binary(), env.sizeOf(c)
	switch {
	case binary && !(s.chunks && s.ext.has("BINARYMIME")):
		return &replyNoBinary
	case c.hasNUL && !binary:
		return &replyNUL
	case s.maxSize > 0 && size > s.maxSize:
		r := replyTooBig
		r.Text = fmt.Sprintf("the message has %d bytes and the peer takes %d", size, s.maxSize)
		return &r
	case c.has8Bit && !binary && !s.cfg.Ignore8BitChecks && !s.ext.has("8BITMIME"):
		return &replyNo8Bit
	}
	return nil
}

// binary reports whether the content is to go out octet for octet (RFC 3030).
func (env *Envelope) binary() bool {
	return env.Options != nil && env.Options.Body == smtp.BodyBinaryMIME
}

// sizeOf is the size that is declared for a content.
func (env *Envelope) sizeOf(c *Content) int64 {
	if env.binary() {
		return c.size
	}
	return c.wireSize
}

// judgeRcpt says why a recipient cannot be offered to this peer, or nil.
func (s *Session) judgeRcpt(env *Envelope, i int) *Reply {
	r := &env.Rcpts[i]
	switch {
	case !isPath(r.Address):
		return &replyBadRcpt
	case !isASCII(r.Address) && !s.cfg.Ignore8BitChecks && !s.ext.has("SMTPUTF8"):
		return &replyNoUTF8
	}
	if r.Options != nil {
		if bad := judgeRcptOptions(r.Options); bad != nil {
			return bad
		}
		if late := s.judgeDeliverBy(r.Options.DeliverBy); late != nil {
			return late
		}
	}
	// Where they go may change at any moment, by what the peer answers to another message.
	if !s.paramsWithRcpt.Load() && s.offeredParams(r) != s.offeredParams(&env.Rcpts[0]) {
		return &replyOtherParam
	}
	return nil
}

// judgeDeliverBy says why a message cannot be delivered by a time, or nil. It concerns those that are to
// be returned then; about the others the sender just hears (RFC 2852 section 4.1).
func (s *Session) judgeDeliverBy(by *smtp.DeliverByOptions) *Reply {
	switch {
	case by == nil || by.Mode != smtp.DeliverByReturn:
		return nil
	case by.Time < time.Second: // it is late already
		return &replyLate
	case !s.ext.has("DELIVERBY"):
		return &replyNoBy
	case by.Time < s.ext.minDeliverBy():
		return &replyLate
	}
	return nil
}

// maxPath bounds an address, in octets. RFC 5321 section 4.5.3.1 promises room for 254; many servers take
// more, and what they take is for them to say.
const maxPath = 1024

// isPath reports whether an address can stand between angle brackets and end nothing there. Quotes hold
// the whole local part and close; outside them there is no space, backslash or angle bracket; nowhere a
// control character. The caller has parsed the address; this guards the wire whatever it is given.
func isPath(address string) bool {
	if isPlainPath(address) {
		return true
	}
	if address == "" || len(address) > maxPath || !utf8.ValidString(address) ||
		strings.ContainsFunc(address, unicode.IsControl) {
		return false
	}
	rest := address
	if address[0] == '"' {
		end := closingQuote(address)
		if end < 0 {
			return false
		}
		if rest = address[end+1:]; rest != "" && rest[0] != '@' {
			return false
		}
	} else if address[0] == '@' { // a source route, which a server drops
		return false
	}
	return !strings.ContainsFunc(rest, func(r rune) bool {
		return r == '"' || r == '\\' || r == '<' || r == '>' || unicode.IsSpace(r)
	})
}

// isPlainPath reports what isPath does of an address that holds nothing but what most addresses do.
func isPlainPath(address string) bool {
	for i := range len(address) {
		switch c := address[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == '_', c == '+', c == '=', c == '@' && i > 0:
		default:
			return false
		}
	}
	return address != "" && len(address) <= maxPath
}

// closingQuote finds the end of the quoted string that s begins with; -1 where it has none.
func closingQuote(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
