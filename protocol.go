// Package delivery gets mail out of a queue. It is an embeddable implementation of KumoMTA's
// protocol queue option: the host's queue manager has a message due and a queue config in hand; it
// hands both over and gets back what happened to every recipient.
//
//	var rt delivery.Runtime
//	defer rt.Close(ctx)
//	policy, err := rt.LoadPolicy(ctx, "policy.lua")    // or: config, err := delivery.ParseQueueConfig(json)
//	rt.SetPolicy(policy)
//	config, err := policy.QueueConfig(ctx, queue)      // get_queue_config
//	protocol, err := rt.Protocol(config)
//	defer protocol.Close(ctx)
//	outcome := protocol.Deliver(ctx, &delivery.Message{
//		ID: "1", From: "a@example.org", Recipients: []delivery.Recipient{{Address: "b@example.com"}},
//		Queue: queue, Body: delivery.Bytes(content),
//	})
//	for _, r := range outcome.Results {
//		fmt.Println(r.Recipient, r.Status, r.Response)
//	}
//
// # One call, one message, one outcome
//
// [Protocol.Deliver] is to mail what http.RoundTripper is to HTTP. One call is one attempt at one
// message for all of its recipients, and returns exactly once, with one [Result] for each of them in
// order: a recipient can be neither lost nor reported twice. Concurrency is the batch: call Deliver
// from as many goroutines as there is mail, and connections are opened, shared, limited and closed
// behind the call.
//
// A result is Delivered, Transient (try later), Permanent (return the mail) or Unsent (nothing was
// tried; do not count an attempt), with the reply that decided, how long to wait where the usual
// schedule does not apply, and whether the peer may have the message after all. The host owns the
// spool, the retry times and the bounces.
//
// # Three protocols
//
// A [QueueConfig] chooses one, in JSON or from Lua:
//
//   - [SMTP] (also LMTP): to the MX of the queue's routing domain, or to the hosts of an mx_list. How
//     to speak to a site is its [EgressPath]: limits, timeouts, TLS, ports. Connections are kept for
//     the next message and are only ever used again by what would have opened them.
//   - [Maildir]: a templated path for each recipient, synced to the disk before it is reported.
//   - [CustomLua]: a constructor event of the policy makes an object whose send, or send_batch, delivers.
//
// # Where a call goes, and how long it waits
//
// A call takes a connection that is idle; else it stands behind others on one, if by what was measured of the
// peer that is sooner than a new connection; else it opens one, up to connection_limit; at the limit it
// stands behind others all the same, and else it waits, in order, up to max_ready of them. A peer that takes
// half a second for each message so gets many connections, a far one deep pipelines over few. Connections are
// kept for idle_timeout and serve only what would have opened them: same config of path and source, same host,
// same address.
//
// Limits and rates are counted by ready name, and by the names in additional_connection_limits and
// additional_message_rate_throttles. A rate lets max_burst messages pass at once (its whole LIMIT where none is
// named) and the others evenly. A call waits for it no longer than idle_timeout: where that is not enough it is
// Unsent at once, with RetryAfter and [ScopeReadyName], so that the host can hold back the rest. What several
// processes share is counted by [Limits].
//
// # What simultaneous calls over SMTP share
//
// Where the peer offers
// CHUNKING, up to max_pipelined_messages whole messages are on their way over one connection before the
// first of them is answered (RFC 3030); with PIPELINING alone, the content of one goes out together with
// the commands of the next (RFC 2920). So a message costs less than one round trip, and nobody's result
// depends on anybody else's: what a peer refused only because of another message, or left unanswered
// when it said goodbye to one, is sent again within the call. The price: when a connection breaks, all
// that the peer may already have is Transient with MaybeDelivered, not one message alone. A window
// begins with 4 messages, grows while they are taken, falls to one when one is not, and a peer that does
// not bear it is remembered and served one by one. Content above 128 KiB waits until recipients were
// accepted.
//
// # What simultaneous calls of custom Lua share
//
// A connection is an object that the constructor made, in a Lua state of its own, which carries one call of send or
// send_batch at a time. It serves the policy, constructor, domain, tenant and campaign that it was made for, and
// nobody else; connection_limit spans all of a ready name, and an idle connection makes room for one that is needed.
// After an error, or kumo.reject(421, …), its close is called and the next message gets a new one; so it is when it was
// idle for idle_timeout, has carried max_deliveries_per_connection messages, or its policy was replaced.
//
// With a batch_size, messages that come at the same time go together. The first to come leads: it waits for
// min_batch_size of them, though no longer than max_batch_latency (and idle_timeout), then for a connection, and then
// takes all that have come meanwhile, up to batch_size. So batches grow where connections are busy; with more
// connections they are smaller. A call whose context ends while it waits leaves the others alone; one whose batch has
// begun waits for the result. A rate counts a batch once. What send_batch returns or raises is the result of every
// message in it, but that it may return a list with one result for each: the disposition, or {code=, message=}, where
// a code of 2yz is success.
//
// [Runtime].LuaModules are modules of the host's own, [Policy.Call] asks the policy what the library does not, and
// [Trace].LuaCalled tells of each call.
//
// # Where mail goes, and who may read it
//
// Mail goes to the domain's mail exchangers, best preference first, equals in random order; to the domain itself where
// it has none; nowhere where it says so (a null MX: 556 5.1.10), where the hosts are prohibited (550 5.4.4), or where
// they are this host and worse ([Runtime].OwnNames: 554 5.4.6). What cannot be found out now is Transient (451 4.4.4). The
// address that was checked is the one that is dialled. What three parties ask of TLS is weighed for each host:
//
//	enable_tls              no STARTTLS   it fails or stalls                     a bad certificate       refused, or meddled with
//	Disabled                in clear      -                                      -                       -
//	Opportunistic           in clear      the host fails; in clear if so said    as if it had failed     the host fails
//	OpportunisticInsecure   in clear      in clear, at once                      does not matter         the host fails
//	RequiredInsecure        the host fails, and with whatever else goes wrong; but the certificate does not matter
//	Required                the host fails, and with whatever else goes wrong
//
// "If so said": at once with opportunistic_tls_reconnect_on_failed_handshake, else from the next connection on and for as
// long as remember_broken_tls. Clear text is always a new connection; what is remembered is the address. What the host
// and the domain ask for comes before enable_tls, but never lowers what it requires:
//
//	TLSA records (DANE), usable                   Required, and the certificate matches them; MTA-STS has no say
//	TLSA records that cannot be looked up         nothing is sent to the host
//	MTA-STS, enforce                              Required; hosts that are not named are not in the plan
//	TLSA records, none of them usable             RequiredInsecure
//	MTA-STS, testing                              OpportunisticInsecure
//	the message requires TLS (RFC 8689)           Required, where DNSSEC, MTA-STS or an mx_list vouches for the host
//	the message says TLS-Required: No             OpportunisticInsecure, and neither DANE nor MTA-STS has a say
//
// DANE is only as good as the resolver's word: see [DNS].TrustAD. Which policy applied and why is in [PlannedHost] and
// [Session], and what came of it in [Trace].TLSReport, in the terms of RFC 8460.
//
// # Config is data
//
// A config that parses is a config that runs: unknown keys, wrong types, impossible values and
// values that ask for what is not available yet are refused at the parse, with a [*ConfigError] that
// names the field and, from Lua, file and line. Every default is filled in; what is printed parses to
// the same value. In Go, the zero value of every config means its defaults.
//
// A [Policy] is a KumoMTA policy file. gopher-lua runs it: Lua 5.1 with what scripts for Lua 5.4
// expect of the library. It answers get_queue_config and, as an [Egress], the events that choose
// sources and paths. [Runtime.SetPolicy] swaps policies while deliveries run. A host that runs
// gopher-lua itself installs the same module with [Runtime.InstallLua].
//
// # The runtime
//
// A [Runtime] holds what the host lends (resolver, dialer, certificate authorities, logger, trace
// hooks) and what is shared (connections, limits). Its zero value works. [Runtime.Close] bounds the
// end: after it no goroutine and no connection is left and every call has its outcome. [Runtime.Stats] has
// counts and gauges of each ready name, [Trace] hooks for each step.
//
// # Where this differs from KumoMTA, on purpose
//
//	what                             KumoMTA                  here, and why
//	a failed write to a Maildir      normal schedule          after one minute: its manual says so
//	a recipient that climbs a path   used as it is            Permanent 5.1.3: an address must not choose where a file goes
//	a value that hides a directory   used as it is            the same: ".ssh" is not for an address to name
//	a symbolic link below the root   followed                 only as far as it stays below the root: see [Maildir]
//	nil or undefined in a path       "none", or nothing       Transient, unless default('…') stands in: else mail shares a directory by accident
//	a template fails for one         the others come again    Transient for that one, after one minute: a retry must not duplicate
//	unknown key in smtp, protocol    ignored                  a config error: a misspelt mx_list must not mean the public MX
//	two protocols in one table       one of them wins         a config error: nobody means both
//	mx_list = {}                     an error                 the MX records: the list is empty
//	'[::1]:2025', dir_mode = 509.0   an error                 accepted: there is one meaning only
//	one entry does not resolve       the session cannot start the others are tried: that is what they are there for
//	a null MX among other MXs        the domain is refused    it is passed over (RFC 7505 section 3)
//	this host among a domain's MXs   not known                it and all worse ones are left out (RFC 5321 section 5.1)
//	an address twice in a plan       tried twice              once for each name, and no more where nobody answers: it would fail twice
//	2yz other than 250               not accepted             accepted: the first digit decides (RFC 5321 section 4.2.1)
//	DATA refused, RCPT 550 before    everybody gets DATA's    each recipient keeps its own reply: one of them is permanent
//	RSET refused                     the message's reply      a new connection: it says nothing about the message
//	RSET before a message            before each but the first only where the one before may still be open, or is not yet answered
//	messages on one connection       one after the other      overlapping, where the peer offers PIPELINING or CHUNKING
//	503 to MAIL, 421 to RSET or MAIL the message's reply      sent again elsewhere, where an earlier message is the reason
//	LMTP, several recipients         one reply for all        one reply for each (RFC 2033 section 4.2)
//	the reply to the content         after at most 5 minutes  10 minutes (RFC 5321 section 4.5.3.2.6): leaving earlier duplicates
//	EHLO refused with 500 or 502     the host fails           HELO (RFC 5321 section 3.2)
//	TLS fails, OpportunisticInsecure in clear on that socket  in clear on a new one: what is on the socket is anybody's guess
//	a handshake that stalls          not remembered           like one that fails: the peer is broken either way
//	broken TLS                       remembered by site       by address: one bad host says nothing of the others
//	broken TLS under Required        remembered               not: a wrong certificate must not lead others to clear text
//	MTA-STS, testing                 lowers Required          does not lower what the operator requires
//	MTA-STS without MX records       not looked for           enforced: who hides the records must not hide the policy
//	TLSA records, none usable        lowers Required          does not lower what the operator requires
//	TLSA records at an alias         at its own name only     at the end of the alias first, where that is secure (RFC 7672 2.2.3)
//	openssl_*, rustls_* options      engines and ciphers      a config error: Go's TLS chooses, tls_min_version remains
//	bare CR, bare LF in content      sent as they are         sent as a space, as CRLF: nothing can be smuggled past a lax peer
//	NUL in content                   sent as it is            Permanent 5.6.0: no message has one (RFC 5322 section 2.1), but in BINARYMIME
//	content over the peer's SIZE     sent, and refused        Permanent 5.3.4 without sending it (RFC 1870 section 6.1)
//	a plan that was tried to its end the next message fails   it goes round: the hosts that were passed come last
//	try_next_host_... on a hang-up   not done                 done, but never where the peer may have the message
//	rates, full ready queues         the queue is put back    Unsent with RetryAfter and ScopeReadyName: the queue is the host's
//	recipients left by a dead peer   come again later         go on over another connection at once
//	rewriting a 251 to a failure     the message comes again  what the peer took is Delivered: the event is not asked
//	half of a proxy pair             no proxy is used         a config error: mail would leave from the wrong address
//	both kinds of proxy              HAProxy is used          a config error: a connection goes through one
//	socks5_proxy_server alone        no proxy is used         plain CONNECT, which any SOCKS5 server understands
//	a proxy that binds another addr. not noticed              the connection fails: mail would leave from the wrong address
//	source_address of one family     the other's hosts fail   they are passed over: binding cannot work
//	a slow peer, a fast peer         sessions by queue length one more session as long as that is sooner than standing in line
//	kumo                             only by require          also a global: the manual's examples use it so
//	"campaign:@domain"               tenant is ""             tenant is nil, as without a campaign
//	send_batch                       one result for all       or a list with one for each: else one bad record repeats all others
//	min_batch_size over batch_size   waits, each time         a config error: no batch could ever have as many
//	a batch over max_deliveries      goes all the same        is split: the limit counts messages
//	spare Lua states                 8192                     128, unless set_max_spare_lua_contexts says more: one takes a tenth of a millisecond
//	libraries and kumo in Lua        can be changed           read-only once the policy is loaded: states serve one message after the other
//	os.execute, io.popen, dofile ... there                    only where [Runtime].Lua allows them: a policy delivers mail
//	a script that does not end       runs on                  1 s of its own time, 128 MiB: [Runtime].Lua
//	Lua connection after an error    cannot connect again     is made anew: the next message did nothing wrong
package delivery

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-maildir"
	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/egress"
	"github.com/mtadelivery/delivery/internal/kumo"
	"github.com/mtadelivery/delivery/internal/maildrop"
	"github.com/mtadelivery/delivery/internal/mtasts"
	"github.com/mtadelivery/delivery/internal/ready"
	"github.com/mtadelivery/delivery/internal/sessions"
	"github.com/mtadelivery/delivery/internal/smtpclient"
	"github.com/mtadelivery/delivery/internal/tlspolicy"
	lua "github.com/yuin/gopher-lua"
)

// A Protocol delivers messages in the way that one queue config says. Get one from
// [Runtime.Protocol].
//
// One call is one attempt at one message. Concurrency is the batch: a simple host calls Deliver in
// a loop, a fast one from many goroutines, and the protocol shares connections between the calls.
type Protocol interface {
	// Deliver attempts msg once for each of its recipients and reports what happened to each: the
	// outcome has exactly one result per recipient, in the order of msg.Recipients, whatever
	// happens. It never writes to msg and does not look at it after it returned. It is safe for
	// concurrent use.
	//
	// The end of ctx ends the wait for a connection or the making of one: recipients for whom
	// nothing was sent are Unsent. Once a transaction has begun it is finished under the timeouts of
	// the egress path, because leaving between the end of the content and its reply is what makes
	// duplicates (RFC 1047); only [Runtime.Close] with a context that has ended cuts it short.
	Deliver(ctx context.Context, msg *Message) Outcome

	// Plan says what Deliver would do with msg now, without doing it: the ready name and the hosts,
	// the paths or the constructor. It asks the DNS and the policy; it opens no connection and writes
	// no file. The error is a [*MessageError] or a [*PlanError]; what is known all the same is in the
	// plan. It is safe for concurrent use.
	Plan(ctx context.Context, msg *Message) (Plan, error)

	// Close gives this handle back. The last handle of a protocol waits for the deliveries under way
	// and lets the idle connections that the protocol opened end; when ctx ends first, it returns ctx's
	// error and the rest goes on. Close can be called again.
	Close(ctx context.Context) error
}

// Plan is what [Protocol.Plan] answers.
type Plan struct {
	// Protocol is "smtp", "lmtp", "maildir" or "lua".
	Protocol string
	// ReadyName is the name under which limits are counted: SOURCE->SITE@PROTOCOL.
	ReadyName string
	// Hosts are the addresses that SMTP would try, in order; one that does not resolve has an Err.
	Hosts []PlannedHost
	// Paths are the Maildirs, one for each recipient in the envelope's order.
	Paths []PlannedPath
	// Constructor is the Lua event that would make the connection.
	Constructor string
}

// PlannedHost is one stop of an SMTP plan.
type PlannedHost struct {
	// Host is the name as the MX record or the mx_list gives it.
	Host string
	// Address is "192.0.2.7:25", "[2001:db8::7]:25" or the path of a unix socket.
	Address string
	// TLS is what it has to offer before it gets a message.
	TLS TLSPolicy
	// Err says why there is no address, or why nothing may be sent to it.
	Err error
}

// PlannedPath is where one recipient's copy would go.
type PlannedPath struct {
	Recipient string
	// Path is that of the Maildir. It need not exist yet.
	Path string
	// Err says why there is no path: the recipient would be refused or deferred for it.
	Err error
}

// Dir is the Maildir for a reader, for its messages and their flags. What Deliver stores is in its new until
// Unseen moves it to cur. Its writer (Create, maildir.NewDelivery) is not the one of Deliver: it syncs nothing and
// knows no modes.
func (p PlannedPath) Dir() maildir.Dir { return maildir.Dir(p.Path) }

// Message is one message with its envelope, as the host's queue holds it.
type Message struct {
	// ID is the host's name for the message; Lua sees it as message:id().
	ID string
	// From is the envelope sender; "" and "<>" are the null sender.
	From string
	// MailOptions are the parameters of MAIL, as a go-smtp server receives them; nil: none. Over SMTP, what a
	// peer does not offer is left out where that does no harm (DSN, AUTH), and else fails the message there:
	// BINARYMIME, whose content goes out octet for octet or not at all (5.6.3), SMTPUTF8 (5.6.7) and
	// RequireTLS (RFC 8689: 5.7.30, where no host offers it; 5.7.10 without a verified certificate, or where neither
	// DNSSEC nor MTA-STS nor an mx_list vouches for the choice of the hosts; 4.7.10 where MTA-STS might, and cannot
	// be had now). Size is found from the content.
	MailOptions *smtp.MailOptions
	// Recipients are the envelope recipients. All of them go to the queue of the message: splitting
	// by domain is the host's. The same address twice is two recipients.
	Recipients []Recipient
	// Queue is the name of the queue that the message is in. The zero name stands for what the
	// metadata and the first recipient say, see [Message.QueueName].
	Queue QueueName
	// Meta is the message's metadata: nil, booleans, numbers, strings, []any and map[string]any.
	Meta map[string]any
	// TLSNotRequired: the message says "TLS-Required: No" (RFC 8689 section 5), and is to arrive even where TLS is
	// not to be had, whatever DANE or MTA-STS ask for; what an operator requires with enable_tls is required all
	// the same. With MailOptions.RequireTLS it means nothing. The library does not look for it in the header.
	TLSNotRequired bool
	// Attempts is the number of finished attempts; Lua sees it as message:num_attempts().
	Attempts int
	// Body is the content: header and body as they are to be sent.
	Body Body
}

// Recipient is one envelope recipient.
type Recipient struct {
	// Address is a mailbox: user@domain, without angle brackets. A local part that needs quotes may
	// come with them or, as a go-smtp server hands it on, without.
	Address string
	// Options are the parameters of RCPT, as a go-smtp server receives them; nil: none. Over SMTP they are
	// left out where the peer does not offer them, but for a DeliverBy that wants the message returned when
	// it is late: that fails the recipient (5.4.7). Recipients whose DeliverBy or MTPriority differ get
	// transactions of their own.
	Options *smtp.RcptOptions
}

// Body is the content of a message. It may be opened several times, also at the same time, and is
// read as a stream: it is never held in memory as a whole unless it is a [Bytes].
type Body interface {
	// Size is the number of bytes that a reader yields. One that yields more or fewer fails the
	// attempt: the peer is never told that such a message ended.
	Size() int64
	// Open returns a reader at the first byte.
	Open() (io.ReadCloser, error)
}

// Bytes is a [Body] in memory.
type Bytes []byte

// Size returns len(b).
func (b Bytes) Size() int64 { return int64(len(b)) }

// Open returns a reader of b.
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// File returns the named file as a [Body]. The size is taken now; the file is opened for each
// attempt and must not change meanwhile.
func File(name string) (Body, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	return fileBody{name, info.Size()}, nil
}

type fileBody struct {
	name string
	size int64
}

func (f fileBody) Size() int64                  { return f.size }
func (f fileBody) Open() (io.ReadCloser, error) { return os.Open(f.name) }

// MessageError says why a message or one of its recipients can never be sent.
type MessageError struct {
	// Field is what is wrong: "From", "Recipients[2]", "Body", "Meta.x".
	Field  string
	Reason string
}

func (e *MessageError) Error() string { return e.Field + ": " + e.Reason }

// Validate says whether the message can be sent as it is: the error is nil, or a [*MessageError]
// that names the first field for which it cannot. [Protocol.Deliver] does not need it to be called:
// there, a recipient that can never be sent is Permanent and the others are served.
func (m *Message) Validate() error {
	if _, err := m.validateWhole(); err != nil {
		return err
	}
	for i := range m.Recipients {
		if _, err := m.recipient(i); err != nil {
			return err
		}
	}
	return nil
}

// validateWhole checks what concerns all recipients, and returns the sender. The error is a *MessageError
// or nil.
func (m *Message) validateWhole() (sender address.Address, err error) {
	if len(m.Recipients) == 0 {
		return sender, &MessageError{"Recipients", "the message has no recipient"}
	}
	if m.Body == nil {
		return sender, &MessageError{"Body", "the message has no content"}
	}
	if sender, err = address.ParseSender(m.From); err != nil {
		return sender, &MessageError{"From", reasonOf(err)}
	}
	return sender, nil
}

// recipient checks one recipient. The error is a *MessageError or nil.
func (m *Message) recipient(i int) (address.Address, error) {
	a, err := address.Parse(m.Recipients[i].Address)
	if err != nil {
		return a, &MessageError{fmt.Sprintf("Recipients[%d]", i), reasonOf(err)}
	}
	return a, nil
}

func reasonOf(err error) string { return strings.TrimPrefix(err.Error(), "address: ") }

// QueueName returns the name of the queue that the message belongs to: Queue where it is set, else
// the metadata value "queue", else what the metadata values "campaign", "tenant" and
// "routing_domain" and the domain of the first recipient make up.
func (m *Message) QueueName() (QueueName, error) {
	name, complete, err := m.namedQueue()
	if complete || err != nil {
		return name, err
	}
	for i := range m.Recipients {
		if a, err := m.recipient(i); err == nil {
			name.Domain = a.Domain
			return name, nil
		}
	}
	return name, &MessageError{"Recipients", "no recipient names a domain for the queue"}
}

// namedQueue is what the message itself says of its queue. If the name is not complete, it lacks the
// domain of the first recipient.
func (m *Message) namedQueue() (name QueueName, complete bool, err error) {
	if m.Queue != (QueueName{}) {
		return m.Queue, true, nil
	}
	var from [4]string
	for i, key := range [...]string{"queue", "campaign", "tenant", "routing_domain"} {
		switch v := m.Meta[key].(type) {
		case nil:
		case string:
			from[i] = v
		default:
			return QueueName{}, false, &MessageError{"Meta." + key, fmt.Sprintf("a %T, where a queue name needs a string", v)}
		}
	}
	if from[0] != "" {
		return ParseQueueName(from[0]), true, nil
	}
	return QueueName{Campaign: from[1], Tenant: from[2], RoutingDomain: from[3]}, false, nil
}

// QueueName names a scheduled queue: campaign:tenant@domain!routing_domain, of which all but the
// domain may be missing. The domain and the routing domain may end in :PORT.
type QueueName struct {
	Campaign      string
	Tenant        string
	Domain        string
	RoutingDomain string
}

// ParseQueueName takes a queue name apart. It never fails: a name without an @ is a domain.
func ParseQueueName(s string) QueueName {
	var q QueueName
	left, right, found := strings.Cut(s, "@")
	if !found {
		left, right = "", s
	}
	if campaign, tenant, ok := strings.Cut(left, ":"); ok {
		q.Campaign, q.Tenant = campaign, tenant
	} else {
		q.Tenant = left
	}
	q.Domain, q.RoutingDomain, _ = strings.Cut(right, "!")
	return q
}

// String puts the name together again.
func (q QueueName) String() string {
	var b strings.Builder
	if q.Campaign != "" {
		b.WriteString(q.Campaign + ":")
	}
	if b.WriteString(q.Tenant); b.Len() > 0 {
		b.WriteByte('@')
	}
	b.WriteString(q.Domain)
	if q.RoutingDomain != "" {
		b.WriteString("!" + q.RoutingDomain)
	}
	return b.String()
}

// routing is the domain whose mail exchangers serve the queue.
func (q QueueName) routing() string {
	if q.RoutingDomain != "" {
		return q.RoutingDomain
	}
	return q.Domain
}

// Outcome is what happened to a message in one attempt.
type Outcome struct {
	// Results has one entry per recipient, in the envelope's order.
	Results []Result
	// Changes is what a Lua delivery changed in the message (set_meta, set_data and the like); nil: nothing. The
	// host that keeps the message for another attempt applies them.
	Changes *Changes
	// Err is what concerns no single recipient: a message that cannot be sent as it is, a closed
	// runtime, a policy that fails. The results are complete all the same.
	Err error
}

// Changes are the changes that Lua made to a message. They are wishes for what comes after this attempt,
// which was made with the message as it was.
type Changes struct {
	// Meta has the keys that were set and their new values.
	Meta map[string]any
	// Body is the new content; nil: unchanged. Where only the header changed and the message's own Body is
	// not in memory, the new one reads the rest from it, and lives as long.
	Body Body
	// From is the new envelope sender, which may be null; nil: unchanged.
	From *string
	// Recipients are to take the place of all the message's recipients; nil: unchanged.
	Recipients []string
	// Attempts is how many attempts Lua counted beside this one.
	Attempts int
	// Due is when the next attempt, if there is one, is to be made; nil: as the host's queue has it. The
	// zero time is as soon as possible.
	Due *time.Time
	// Schedule says when further attempts may be made; nil: unchanged. The zero Schedule is at any time.
	Schedule *Schedule
}

// Schedule says when attempts may be made to deliver a message: from FirstAttempt on, up to Expires, and
// on Days between Start and End. The zero value is at any time.
type Schedule struct {
	// FirstAttempt and Expires are unbounded where they are the zero time.
	FirstAttempt, Expires time.Time
	// Days are the days of the week; none: every hour of every day, and the fields below mean nothing.
	Days []time.Weekday
	// Zone is where Days, Start and End are read on the clock.
	Zone *time.Location
	// Start and End are the times of day since midnight, Start before End.
	Start, End time.Duration
}

// Next is the first time that the schedule allows, not before t. It does not look at Expires.
func (s *Schedule) Next(t time.Time) time.Time { return (*kumo.Schedule)(s).Next(t) }

// Status is what became of one recipient.
type Status int

// A recipient is in exactly one of these.
const (
	// Transient: it did not work now and may later. The zero value, so that a result that nobody
	// filled in never deletes mail.
	Transient Status = iota
	// Delivered: the peer, the disk or the Lua connection has taken responsibility.
	Delivered
	// Permanent: it will never work; the recipient's mail is to be returned.
	Permanent
	// Unsent: nothing was tried, and this is not to be counted as an attempt.
	Unsent
)

// String returns "transient", "delivered", "permanent" or "unsent".
func (s Status) String() string {
	switch s {
	case Transient:
		return "transient"
	case Delivered:
		return "delivered"
	case Permanent:
		return "permanent"
	case Unsent:
		return "unsent"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// Scope says what else a result would hold for.
type Scope int

// Scopes, from the narrowest on.
const (
	// ScopeRecipient: this recipient of this message.
	ScopeRecipient Scope = iota
	// ScopeMessage: every recipient of this message.
	ScopeMessage
	// ScopeReadyName: everything under this ready name; the host can hold back the rest.
	ScopeReadyName
)

// String returns "recipient", "message" or "ready name".
func (s Scope) String() string {
	switch s {
	case ScopeRecipient:
		return "recipient"
	case ScopeMessage:
		return "message"
	case ScopeReadyName:
		return "ready name"
	}
	return fmt.Sprintf("Scope(%d)", int(s))
}

// Result is what happened to one recipient in one attempt.
type Result struct {
	// Recipient is the address in its wire form: quoted where it needs to be, with A-labels. An
	// address that can never be sent stands as the host gave it.
	Recipient string
	Status    Status
	// Response is the reply that decided; without one (Unsent) its code is 0.
	Response Response
	// RetryAfter is how long to wait where the normal schedule does not apply. For Transient zero
	// means the normal schedule, for Unsent at once.
	RetryAfter time.Duration
	Scope      Scope
	// MaybeDelivered: the peer may have the message all the same, because the connection broke after
	// the last byte of the content and before the reply to it. Sending again may make a duplicate.
	MaybeDelivered bool
	// ContentChanged: a bare LF went out as CRLF, or a bare CR as a space (SMTP only).
	ContentChanged bool
	// Session is what carried the recipient. Where no connection was had it has no ID, but the protocol
	// and the ready name if they are known; else it is nil. Results share it: it must not be changed.
	Session *Session
	// Err is the cause where no reply decided, for errors.Is and errors.As.
	Err error
}

// Response is the reply of a server, or one of our own in the same form. For Maildir and Lua the
// code is 200, or 400 and above for a failure, and the text is the disposition.
type Response struct {
	Code     int
	Enhanced EnhancedCode
	// Text is the reply's text without codes, lines joined with "\n". It is valid UTF-8 without
	// control characters, whatever the peer sent.
	Text string
	// Command is the verb that was answered: MAIL, RCPT, DATA (for the 354), "." (for the end of the
	// content, also where BDAT carried it), RSET; empty where none was.
	Command string
}

// String returns code, enhanced code and text on one line.
func (r Response) String() string {
	s := fmt.Sprintf("%03d", r.Code)
	if e := r.Enhanced.String(); e != "" {
		s += " " + e
	}
	return s + " " + strings.ReplaceAll(r.Text, "\n", " ")
}

// EnhancedCode is an enhanced mail system status code (RFC 3463): class, subject, detail. The zero
// value stands for none.
type EnhancedCode [3]int

// String returns "5.1.1", or "" for none.
func (e EnhancedCode) String() string {
	if e == (EnhancedCode{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2])
}

// Session describes the connection that carried a recipient.
type Session struct {
	// ID is unique to the session, 32 hexadecimal digits; empty if none was opened. A session whose connection
	// broke goes on under its ID over the next one, as reconnect_strategy says.
	ID string
	// Protocol is "smtp", "lmtp", "maildir" or "lua".
	Protocol  string
	ReadyName string
	// Source is the name of the egress source.
	Source string
	// Peer is the name of the host as the plan had it; for Lua "Lua via " and the constructor.
	Peer string
	// RemoteAddr and LocalAddr are "host:port"; empty where there is no connection. Through a proxy they are
	// the peer's and, as far as the proxy tells, the one that the peer sees: with port 0 where only the address
	// is known.
	RemoteAddr string
	LocalAddr  string
	// Proxy is the "host:port" of the proxy that the connection goes through; empty: there is none.
	Proxy string
	// TLS is nil in clear.
	TLS *TLSInfo
	// TLSPolicy is what was asked of the peer, and why.
	TLSPolicy TLSPolicy
	// Transcript has the last lines of the dialogue if the delivery failed: "C: " and "S: " lines,
	// without credentials and content.
	Transcript []string
}

// TLSInfo describes the encryption of a session.
type TLSInfo struct {
	// Version and Cipher are named as in RFC 8446: "TLS 1.3", "TLS_AES_128_GCM_SHA256".
	Version string
	Cipher  string
	// Verified: the certificate was checked and is the peer's.
	Verified bool
	// By is what it was checked against: "dane" (the host's TLSA records), "mta-sts" (the certificate authorities,
	// because the domain's policy asks for it), "pkix" (the certificate authorities) or "none".
	By string
}

// TLSPolicy says what TLS a host has to offer before it gets a message, and why: what the operator, the domain
// and the message ask for together.
type TLSPolicy struct {
	// Mode is one of enable_tls: "Opportunistic", "OpportunisticInsecure", "Required", "RequiredInsecure",
	// "Disabled". It is empty where it is not known.
	Mode string
	// By says whom the mode is due to: "enable_tls" (the operator), "dane" (the host), "mta-sts" (the domain),
	// "requiretls" or "tls-required" (the message: RFC 8689).
	By string
	// DANE is what was found of the host's TLSA records: "ok" (the certificate has to match them), "unusable" (there are
	// some, of no use: TLS with any certificate), "none" (there are none, and that is certain, or nobody vouches for
	// the answer), "insecure_chain" (nobody vouches for the host's address), "not_applicable" (nobody vouches for the
	// choice of the host, or it is an address), "tempfail" (it could not be found out: nothing is sent). Empty:
	// enable_dane is off.
	DANE string
	// MTASTS is the mode of the domain's policy: "enforce", "testing" or "none". Empty: it has none that is known,
	// or it has no say here.
	MTASTS string
	// Err says why DANE is "tempfail", or why no MTA-STS policy could be had.
	Err error
}

// Errors of what was not tried, for errors.Is.
var (
	// ErrClosed is the error of what comes after Close.
	ErrClosed = errors.New("delivery: closed")
	// ErrFull is the error of a message for which there was no room to wait: max_ready.
	ErrFull = errors.New("delivery: too many messages wait for a connection (max_ready)")
)

// ThrottledError is the error of a message that a rate or a limit of its egress path sent away.
type ThrottledError struct {
	ReadyName string
	// Option is the one that did: "max_message_rate" stands for additional_message_rate_throttles too, and
	// "max_connection_rate" for limits that other processes hold.
	Option string
	// RetryAfter is when there is room for it, by what is known now.
	RetryAfter time.Duration
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("delivery: %s of %s: room in %v", e.Option, e.ReadyName, e.RetryAfter.Round(time.Millisecond))
}

// ConfigError says what is wrong with a config.
type ConfigError struct {
	// Field is the path of the field: "protocol.smtp.mx_list[2]"; empty if it is the whole.
	Field string
	// Reason says what is wrong with it and what would be right.
	Reason string
	// File and Line say where in a policy the config was made; empty and 0 for JSON, and 0 where no line
	// is to blame: for an event that has no handler, say.
	File string
	Line int
	// Err is the cause, where there is one: a context that ended, for instance. May be nil.
	Err error
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

func (e *ConfigError) Error() string {
	s := e.Reason
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	switch {
	case e.File != "" && e.Line > 0:
		s = fmt.Sprintf("%s:%d: %s", e.File, e.Line, s)
	case e.File != "":
		s = e.File + ": " + s
	}
	return s
}

// configError gives an error of the decoder its public form.
func configError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*decode.Error](err); ok {
		return &ConfigError{Field: e.Path, Reason: e.Reason, Err: e.Err}
	}
	return &ConfigError{Reason: err.Error()}
}

// Switch is a boolean option with a default of its own, so that the zero value means the default.
type Switch int8

// The values of a [Switch].
const (
	Default Switch = iota
	On
	Off
)

// Validate says whether the switch is one of its three values.
func (s Switch) Validate() error {
	if s < Default || s > Off {
		return fmt.Errorf("%d is none of Default, On and Off", int(s))
	}
	return nil
}

// MarshalJSON gives true or false; [Default] is left out of a printed config.
func (s Switch) MarshalJSON() ([]byte, error) { return json.Marshal(s == On) }

// UnmarshalJSON reads true or false.
func (s *Switch) UnmarshalJSON(text []byte) error {
	var on bool
	if json.Unmarshal(text, &on) != nil {
		return errors.New("want true or false")
	}
	*s = Off
	if on {
		*s = On
	}
	return nil
}

// Duration is a length of time in a config: a number of seconds, or a text such as "1h 30m",
// "2 days", "1.5s" with the units of KumoMTA.
type Duration time.Duration

// String prints the duration in a form that parses back: "1h 30m".
func (d Duration) String() string { return decode.FormatDuration(time.Duration(d)) }

// MarshalText prints like String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text form.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := decode.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// UnmarshalJSON reads a number of seconds or a text.
func (d *Duration) UnmarshalJSON(text []byte) error {
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return err
	}
	v, err := decode.Duration(tree)
	*d = Duration(v)
	return err
}

// Rate is a throttle: "[local:]LIMIT/[K]UNIT[,max_burst=B]", as in "100/min" or "20/30s,max_burst=1".
// The zero Rate stands for none.
type Rate struct {
	Limit int64
	// Per is the period: K times the unit.
	Per time.Duration
	// MaxBurst is how many may go at once; 0: Limit.
	MaxBurst int64
	// Local: not shared with other processes, where a store for sharing exists.
	Local bool
}

// String prints the rate in its text form.
func (r Rate) String() string { return decode.Rate(r).String() }

// MarshalText prints like String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the text form.
func (r *Rate) UnmarshalText(text []byte) error {
	v, err := decode.ParseRate(string(text))
	*r = Rate(v)
	return err
}

// Validate says what is wrong with a rate that was made in Go.
func (r Rate) Validate() error {
	if r != (Rate{}) && (r.Limit < 1 || r.Per <= 0 || r.MaxBurst < 0) {
		return fmt.Errorf("a rate needs a limit of at least 1 and a period")
	}
	return nil
}

// Limit is a number of things at once: an integer of at least 1, or a text with the prefix "local:".
// The zero Limit stands for the default.
type Limit struct {
	Count int64
	// Local: not shared with other processes, where a store for sharing exists.
	Local bool
}

// MarshalJSON prints a number, or a text for a local limit.
func (l Limit) MarshalJSON() ([]byte, error) {
	if l.Local {
		return json.Marshal(decode.Limit(l).String())
	}
	return json.Marshal(l.Count)
}

// UnmarshalJSON reads a number or a text.
func (l *Limit) UnmarshalJSON(text []byte) error {
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return err
	}
	v, err := decode.ParseLimit(tree)
	*l = Limit(v)
	return err
}

// Validate says what is wrong with a limit that was made in Go.
func (l Limit) Validate() error {
	if l != (Limit{}) && l.Count < 1 {
		return fmt.Errorf("%d is out of range (1 at least)", l.Count)
	}
	return nil
}

// QueueConfig is what kumo.make_queue_config makes: how the messages of one queue leave, and how
// the host should keep them meanwhile. It is plain data: printable, comparable by its JSON text.
// The zero value, like an empty table, means SMTP to the MX of the domain with every default.
type QueueConfig struct {
	// Protocol is how messages leave.
	Protocol ProtocolConfig `config:"protocol"`

	// RetryInterval, MaxRetryInterval, MaxAge, EgressPool, MaxMessageRate, ReapInterval,
	// RefreshInterval and RefreshStrategy, but for EgressPool, are for the host's queue: they are
	// parsed, defaulted and handed over. See [QueueConfig.RetryDelay].

	// RetryInterval is the wait after the first failure; it doubles with each further one.
	RetryInterval Duration `config:"retry_interval" default:"20m" min:"1s"`
	// MaxRetryInterval bounds the doubling; 0: it is not bounded.
	MaxRetryInterval Duration `config:"max_retry_interval" min:"1s"`
	// MaxAge is how long a message may stay in the queue.
	MaxAge Duration `config:"max_age" default:"7days" min:"1s"`
	// EgressPool names the pool of sources that [Egress] knows; "": the one source "unspecified".
	EgressPool string `config:"egress_pool"`
	// MaxMessageRate is the rate at which the host lets messages of the queue become due.
	MaxMessageRate Rate `config:"max_message_rate"`
	// ReapInterval is how long the host keeps an empty queue.
	ReapInterval Duration `config:"reap_interval" default:"10m" min:"1s"`
	// RefreshInterval is how often the host asks for the config again if RefreshStrategy is "Ttl".
	RefreshInterval Duration `config:"refresh_interval" default:"1m" min:"1s"`
	// RefreshStrategy is "Ttl", by time, or "Epoch", when the policy changes.
	RefreshStrategy string `config:"refresh_strategy" default:"Ttl" enum:"Ttl,Epoch"`

	// Strategy, TimerwheelTickInterval, ProviderName and ShrinkPolicy steer the memory, threads and
	// metrics of another MTA. They are accepted, printed, and without effect.
	Strategy               string        `config:"strategy" default:"SingletonTimerWheel" enum:"TimerWheel,SkipList,SingletonTimerWheel,SingletonTimerWheelV2"`
	TimerwheelTickInterval Duration      `config:"timerwheel_tick_interval" min:"1ms"`
	ProviderName           string        `config:"provider_name"`
	ShrinkPolicy           []ShrinkEntry `config:"shrink_policy"`
}

// ShrinkEntry is one entry of shrink_policy. It is accepted and without effect.
type ShrinkEntry struct {
	Interval Duration `config:"interval" required:"true"`
	Policy   string   `config:"policy" required:"true" enum:"ShrinkDataAndMeta,ShrinkData,NoShrink"`
}

// ProtocolConfig is the protocol table of a queue config. Exactly one of the three is set; the zero
// value stands for SMTP to the MX of the domain.
type ProtocolConfig struct {
	SMTP      *SMTP      `config:"smtp"`
	Maildir   *Maildir   `config:",inline"`
	CustomLua *CustomLua `config:"custom_lua"`
}

// Validate says whether no more than one protocol is chosen.
func (p ProtocolConfig) Validate() error {
	var chosen []string
	if p.SMTP != nil {
		chosen = append(chosen, "smtp")
	}
	if p.Maildir != nil {
		chosen = append(chosen, "maildir_path")
	}
	if p.CustomLua != nil {
		chosen = append(chosen, "custom_lua")
	}
	switch len(chosen) {
	case 0:
		return decode.Errorf("", "no protocol in the table: want one of smtp, maildir_path, custom_lua")
	case 1:
		return nil
	}
	return decode.Errorf("", "%s are two protocols: want one", strings.Join(chosen, " and "))
}

// ParseQueueConfig reads a queue config from JSON: the keys of kumo.make_queue_config. Every default
// is filled in. The error is a [*ConfigError] that names the field.
func ParseQueueConfig(text []byte) (QueueConfig, error) {
	var c QueueConfig
	err := parseJSON(text, &c)
	return c, err
}

// UnmarshalJSON is [ParseQueueConfig].
func (c *QueueConfig) UnmarshalJSON(text []byte) error {
	*c = QueueConfig{}
	return parseJSON(text, c)
}

// MarshalJSON prints the config with its defaults; the text parses to the same value. Two configs
// are equal if their texts are.
func (c QueueConfig) MarshalJSON() ([]byte, error) {
	c.fill()
	return decode.JSON(&c)
}

// String prints the config as JSON.
func (c QueueConfig) String() string {
	text, err := c.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// RetryDelay is how long to wait before the next attempt after that many failed ones, the first
// included: RetryInterval, doubled with each further failure, no more than MaxRetryInterval. A host
// adds some jitter of its own, so that what failed together does not return together.
func (c QueueConfig) RetryDelay(failures int) time.Duration {
	c.fill()
	delay := time.Duration(c.RetryInterval).Truncate(time.Second)
	limit := time.Duration(c.MaxRetryInterval).Truncate(time.Second)
	if limit == 0 {
		limit = max(delay, time.Duration(c.MaxAge))
	}
	for range failures - 1 {
		if delay *= 2; delay >= limit {
			return limit
		}
	}
	return min(delay, limit)
}

// fill puts the defaults in: a config built in Go is then as one that was parsed.
func (c *QueueConfig) fill() {
	if c.Protocol == (ProtocolConfig{}) {
		c.Protocol.SMTP = &SMTP{}
	}
	decode.Defaults(c)
}

// checked returns the config with its defaults, or what is wrong with it.
func (c QueueConfig) checked() (QueueConfig, error) {
	c.fill()
	return c, configError(decode.Check(&c))
}

// parseJSON reads text into the config that dst points to.
func parseJSON(text []byte, dst any) error {
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return configError(err)
	}
	return decodeConfig(tree, dst)
}

// decodeConfig reads a tree, from JSON or from Lua, into the config that dst points to.
func decodeConfig(tree, dst any) error {
	if c, ok := dst.(*QueueConfig); ok {
		// No protocol at all means SMTP, an empty table is a mistake: the default has to be there
		// before the fields are checked.
		table, _ := tree.(map[string]any)
		if table["protocol"] == nil {
			c.Protocol.SMTP = &SMTP{}
		}
		if protocol, ok := table["protocol"].(map[string]any); ok && protocol["xfer"] != nil {
			return configError(notYet("protocol.xfer", "a transfer to another node"))
		}
	}
	return configError(decode.Decode(tree, dst))
}

// A Runtime holds what all protocols of a host share: what the host lends them (the fields), the
// connections and the limits. Its zero value works; set the fields before the first call and leave
// them alone afterwards. A Runtime must not be copied. Its methods are safe for concurrent use.
type Runtime struct {
	// Resolver answers DNS questions; nil: a [DNS] that asks the servers of /etc/resolv.conf.
	Resolver Resolver
	// Dial opens connections, to mail hosts, to proxies and, at port 443, to the hosts of MTA-STS policies; nil:
	// net.Dialer. It is given the resolved address, after it was checked against prohibited_hosts: it must not look
	// up anything again.
	Dial func(ctx context.Context, to DialRequest) (net.Conn, error)
	// RootCAs are the certificate authorities to trust; nil: the system's.
	RootCAs *x509.CertPool
	// Logger receives what a policy logs and what concerns no single delivery; nil: slog.Default().
	Logger *slog.Logger
	// Egress says which sources and egress paths to use; nil: the policy of [Runtime.SetPolicy] if
	// it handles the events, else the defaults.
	Egress Egress
	// Limits counts what several processes share; nil: each runtime counts for itself.
	Limits Limits
	// Trace receives events; nil: none.
	Trace *Trace
	// Hostname is the name that EHLO gives where neither path nor source names one; "": the name of
	// the machine.
	Hostname string
	// MTASTS says how the policies of domains are looked for (RFC 8461).
	MTASTS MTASTS
	// OwnNames and OwnAddresses are this host's. A mail exchanger that is one of them is left out of the hosts of a
	// domain, and so are all that are as good or worse (RFC 5321 section 5.1): where none remains, the message is
	// Permanent (554 5.4.6). An mx_list is left as it is.
	OwnNames     []string
	OwnAddresses []netip.Addr
	// HTTP carries the requests of kumo.http; nil: a transport of the runtime's own, with RootCAs.
	HTTP http.RoundTripper
	// HTTPProhibitedHosts are networks that the runtime's own transport does not connect to, so that no URL which a
	// message had a part in reaches them; nil: none. With any, the transport uses no proxy of the environment, as that
	// would connect for it. It means nothing where the host lends HTTP.
	HTTPProhibitedHosts []netip.Prefix
	// LuaModules are the host's own modules for its policies, by the name that require takes. The function is
	// called when a state requires it for the first time, and returns the module, as after
	// [lua.LState.PreloadModule]: a table of functions, say, some of which make userdata of the host's. They
	// run in many states at once, so what they share must be safe for that; what waits should obey L.Context():
	// a call that has not returned a second after the end of that is given up, as if it had failed, with its goroutine.
	// A panic in one ends the call of Lua that it happened in, whatever the script does to catch it: a message is
	// Transient, and the state is not used again. A file of the same name beside the policy is
	// not found; a name that require knows already is an error of LoadPolicy.
	LuaModules map[string]lua.LGFunction
	// Lua bounds what policies may take, and says what of the standard library they have.
	Lua LuaLimits
	// Stdout is where print and io.write in a policy write, from several goroutines at once; nil: os.Stdout.
	Stdout io.Writer

	start sync.Once
	state runtimeState
}

// MTASTS says how the MTA-STS policies of domains are looked for (RFC 8461). The zero value looks for that of each
// domain, with MX records or without, whether or not the egress path has enable_mta_sts. The first
// message to a domain with a policy waits until that is fetched, no longer than 20 s; later it is kept as long as it
// says, asked for again ahead of its end, and never given up because a new one cannot be had.
type MTASTS struct {
	// Off: no policy is looked for.
	Off bool
	// Store keeps policies over a restart; nil: they are kept in memory.
	Store PolicyStore
	// ProhibitedHosts are networks that no policy is fetched from. Nil: those of the domain's egress path;
	// empty: none.
	ProhibitedHosts []netip.Prefix
}

// PolicyStore keeps MTA-STS policies over a restart. Its methods are called concurrently, for one domain one after
// the other, and should end when ctx does. A store that fails is logged, and mail goes on without it. What is
// loaded is checked again.
type PolicyStore interface {
	// Load returns what was saved last for a domain, or an error that is or wraps [ErrNoPolicy].
	Load(ctx context.Context, domain string) (PolicyEntry, error)
	// Save keeps an entry in place of what was there. Nothing is deleted: an entry may go when it has expired.
	Save(ctx context.Context, domain string, entry PolicyEntry) error
}

// PolicyEntry is an MTA-STS policy as it was fetched.
type PolicyEntry struct {
	ID      string    // of the TXT record that led to it
	Policy  []byte    // its text
	Fetched time.Time // when that was fetched
	Expires time.Time // when it ends
}

// ErrNoPolicy is the error of a [PolicyStore] that has no policy of a domain.
var ErrNoPolicy = mtasts.ErrNotFound

// DialRequest is what [Runtime.Dial] is asked for.
type DialRequest struct {
	// Network is "tcp" or "unix".
	Network string
	// Address is "192.0.2.7:25", "[2001:db8::7]:25", or the path of a unix socket.
	Address string
	// Host is the name that the address was found under.
	Host string
	// Source is the local address to bind; the zero Addr leaves the choice to the system.
	Source netip.Addr
	// Beyond is the address that is to be reached through the proxy at Address; empty: there is no proxy.
	Beyond string
}

// Limits counts what several processes share: the rates and the connection limits of egress paths that are
// not marked "local:". Each runtime keeps to them for itself besides, so that calls wait in order and the
// store is asked no more often than need be. [LocalLimits] is one for runtimes of the same process. It must be
// safe for concurrent use, and return when ctx ends.
type Limits interface {
	// Pass counts one event under a rate and returns 0, or counts nothing and returns after how long to ask
	// again.
	Pass(ctx context.Context, name string, rate Rate) (wait time.Duration, err error)
	// Hold takes one of the limit, or returns nil if there is none left. Release gives it back; it is called
	// once, and must not block for long. A store should give back by itself what a process held that is gone.
	Hold(ctx context.Context, name string, limit Limit) (release func(), err error)
}

// LocalLimits is a [Limits] in memory. The zero value is ready for use. It must not be copied.
type LocalLimits struct {
	rates sessions.Rates

	mu   sync.Mutex
	held map[string]int64
}

// Pass counts one event.
func (l *LocalLimits) Pass(_ context.Context, name string, rate Rate) (time.Duration, error) {
	return l.rates.Gate(sessions.Named{Name: name, Rate: rate.internal()}).Pass(time.Now()), nil
}

// Hold takes one of a limit.
func (l *LocalLimits) Hold(_ context.Context, name string, limit Limit) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] >= limit.Count {
		return nil, nil
	}
	if l.held == nil {
		l.held = map[string]int64{}
	}
	l.held[name]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held[name]--; l.held[name] == 0 {
			delete(l.held, name)
		}
	}, nil
}

// Trace is a set of hooks in the manner of net/http/httptrace: each may be nil, each may be called
// from several goroutines at once and must return quickly. Credentials and content are not shown. What a hook
// is given is its own; what it does not ask for is not made.
type Trace struct {
	// Resolved is called when a way was looked for in the DNS and the policy, with what Plan would answer. A
	// way that is still known is taken again without it.
	Resolved func(queue QueueName, plan Plan, err error)
	// Throttled is called for a call that a rate held up for a time, and with a [*ThrottledError] for one that
	// is sent away until then.
	Throttled func(readyName string, wait time.Duration, err error)
	// Dialing is called before a connection is opened.
	Dialing func(readyName string, to DialRequest)
	// Dialed is called when it is open, or with the error.
	Dialed func(readyName string, to DialRequest, err error)
	// Stage is called when a stage of the opening dialogue has ended: "banner", "EHLO", "STARTTLS", "TLS",
	// "AUTH". What is known of the session only later is not in s yet.
	Stage func(s *Session, stage string, took time.Duration, err error)
	// TLSReport is called when it has turned out what TLS there is with a host, for good or bad; and when the policy
	// for a host or a domain could not be had. A host that counts these for a day has what SMTP TLS reports are made
	// of (RFC 8460).
	TLSReport func(readyName string, report TLSReport)
	// Opened is called when a session is ready for its first message, and Reused when it is lent to a message
	// again, or to one more at the same time.
	Opened func(s *Session)
	Reused func(s *Session)
	// Sent and Received are called for each line of a dialogue.
	Sent     func(s *Session, line string)
	Received func(s *Session, line string)
	// Reply is called for each reply in a transaction, with how long it was the one that was due.
	Reply func(s *Session, reply Response, took time.Duration)
	// Transaction is called when a transaction has ended.
	Transaction func(s *Session, t TransactionTrace)
	// LuaCalled is called after each call of a policy: of an event that it handles, or of a method of a connection.
	LuaCalled func(c LuaCall)
	// Closed is called when a session has ended. Why is "idle" (nobody needed it for idle_timeout), "worn" (it
	// has served max_deliveries_per_connection), "drained" (its config changed, its protocol was closed, or it
	// broke), "crowded" (it made room for another), "closing" (of the runtime) or "cut".
	Closed func(s *Session, why string)
}

// TLSReport is what one attempt to speak TLS with a host came to, in the terms of RFC 8460.
type TLSReport struct {
	// Domain is the routing domain of the message; empty for an mx_list.
	Domain string
	// PolicyType is "tlsa", "sts" or "no-policy-found", and PolicyDomain whose policy it is: the host's with "tlsa",
	// else that of the mail.
	PolicyType   string
	PolicyDomain string
	// Policy are its lines: TLSA records as in a zone file, or those of the policy file.
	Policy []string
	// Host and Address are the peer's, Source is ours; empty where it did not come to that.
	Host    string
	Address string
	Source  string
	// Failure is the type of failure (section 4.3): "starttls-not-supported", "certificate-host-mismatch",
	// "certificate-expired", "certificate-not-trusted", "validation-failure", "tlsa-invalid", "dnssec-invalid",
	// "dane-required", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid". Empty: success.
	Failure string
	// Err says more; nil: success.
	Err error
	// Sent: the session was opened all the same, because the policy does not require TLS or does not require the
	// certificate to be good.
	Sent bool
}

// TransactionTrace is what became of one transaction.
type TransactionTrace struct {
	// Recipients were offered, Accepted of them delivered to.
	Recipients, Accepted int
	// Bytes is the size of the content.
	Bytes int64
	// Took is the time from the call to the last reply, the time in line included.
	Took time.Duration
	// Err is what the connection failed with.
	Err error
}

func transactionTrace(env *smtpclient.Envelope, size int64, tx *smtpclient.Transaction, took time.Duration) TransactionTrace {
	t := TransactionTrace{Recipients: len(env.Rcpts), Bytes: size, Took: took}
	for i := range tx.Results {
		if tx.Results[i].Accepted {
			t.Accepted++
		}
	}
	if tx.Err != nil {
		t.Err = tx.Err
	}
	return t
}

// Stats is what [Runtime.Stats] answers.
type Stats struct {
	// Opened is the number of sessions opened so far.
	Opened uint64
	// Ready has the ready names in use, sorted by name. One in which nothing happens for ten minutes leaves
	// the list when others come, and its counts begin anew when it comes back.
	Ready []ReadyStats
}

// ReadyStats are the gauges and counters of one ready name.
type ReadyStats struct {
	Name string
	// Busy sessions carry a message, Idle ones wait for one, Opening ones are being opened.
	Busy, Idle, Opening int
	// InFlight is the number of calls that share the busy sessions, where a batch counts as one; Waiting is that
	// of calls that wait for one, or for others to go in a batch with.
	InFlight, Waiting int
	// Limit is connection_limit as of the last call; 0 where there is neither session nor call.
	Limit int
	// Delivered, Transient, Permanent and Unsent count recipients.
	Delivered, Transient, Permanent, Unsent uint64
	// Opened counts sessions, Reused the calls that took one which others had used or were using, Broken the
	// sessions whose connection broke or whose peer left, Failed the calls for which no host could be reached,
	// Throttled the calls that a rate or a limit sent away.
	Opened, Reused, Broken, Failed, Throttled uint64
}

// runtimeState is what a runtime keeps between calls.
type runtimeState struct {
	mu     sync.RWMutex // for reading by every delivery
	closed bool
	live   map[string]*liveProtocol
	calls  sync.WaitGroup // deliveries under way
	policy atomic.Pointer[Policy]
	serial uint64 // of the last policy that was loaded

	egress    egressAnswers
	health    egress.Health // of sources
	names     ready.Book
	rates     sessions.Rates
	brokenTLS tlspolicy.Broken
	policies  mtasts.Cache
	smtp      sessions.Pool[*smtpSession]
	peers     smtpclient.Peers
	lua       sessions.Pool[*luaSession]
	drop      maildrop.Drop
	attempts  sync.Pool // of *attempt, for further messages
	resolver  Resolver
	own       io.Closer       // the resolver, if it is ours
	http      *http.Transport // if it is ours
	// transports are what policies asked for beside it.
	transports kumo.Transports
	throttles  kumo.Throttles     // of kumo.make_throttle: they outlive the policy
	closing    context.Context    // ends when Close begins
	begin      context.CancelFunc // ends it
	since      time.Time          // when Close began; written before closing ends
	killed     context.Context    // ends when Close stops waiting
	kill       context.CancelFunc // ends it
}

// ready makes what the zero value lacks, at the first call.
func (r *Runtime) ready() *runtimeState {
	r.start.Do(func() {
		s := &r.state
		s.live = map[string]*liveProtocol{}
		s.egress.equalSources.Max, s.egress.equalPaths.Max = maxEquals, maxEquals
		s.closing, s.begin = context.WithCancel(context.Background())
		s.killed, s.kill = context.WithCancel(context.Background())
		if s.resolver = r.Resolver; s.resolver == nil {
			dns := &DNS{Logger: r.Logger}
			s.resolver, s.own = dns, dns
		}
		if r.HTTP == nil {
			s.http = ownTransport(r.RootCAs, r.HTTPProhibitedHosts)
		}
		r.lookForPolicies(&s.policies)
	})
	return &r.state
}

// nextSerial numbers the policies of the runtime.
func (s *runtimeState) nextSerial() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	return s.serial
}

func (r *Runtime) logger() *slog.Logger {
	if r.Logger != nil {
		return r.Logger
	}
	return slog.Default()
}

// engine is what a kind of protocol is to a handle: the one switch over kinds, in newEngine, makes it.
type engine interface {
	// deliver settles every recipient of a. What it waits for ends with ctx, and when Close stops waiting:
	// see [Runtime.bound].
	deliver(ctx context.Context, a *attempt)
	plan(ctx context.Context, a *attempt) (Plan, error)
	close() // ends the idle connections that it opened
}

// newEngine is the one place where the kinds of protocol are told apart.
func (r *Runtime) newEngine(c QueueConfig) (engine, error) {
	switch p := c.Protocol; {
	case p.Maildir != nil:
		e, err := newMaildirEngine(p.Maildir, &r.ready().drop)
		return boundEngine{e, r}, err
	case p.CustomLua != nil:
		return newLuaEngine(r, p.CustomLua, c.EgressPool), nil
	default:
		return newSMTPEngine(r, p.SMTP, c.EgressPool)
	}
}

// liveProtocol is an engine with the handles on it.
type liveProtocol struct {
	engine  engine
	key     string
	handles int
	calls   sync.WaitGroup
}

// Protocol returns a handle on the protocol that c describes. Configs that agree in what concerns
// delivery share one protocol, with its connections; each handle must be closed. The error is a
// [*ConfigError], or [ErrClosed].
func (r *Runtime) Protocol(c QueueConfig) (Protocol, error) {
	s := r.ready()
	c, err := c.checked()
	if err != nil {
		return nil, err
	}
	key := QueueConfig{Protocol: c.Protocol, EgressPool: c.EgressPool}.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	live := s.live[key]
	if live == nil {
		// A copy of its own, whatever the host does with c from now on.
		own, err := ParseQueueConfig([]byte(key))
		if err != nil {
			return nil, err
		}
		e, err := r.newEngine(own)
		if err != nil {
			return nil, configError(err)
		}
		live = &liveProtocol{engine: e, key: key}
		s.live[key] = live
	}
	live.handles++
	return &handle{runtime: r, live: live}, nil
}

// SetPolicy makes p the policy whose constructors custom Lua calls and whose egress events are
// asked where [Runtime.Egress] is nil; nil: none. It can be called while deliveries run: those under
// way end with the policy they began with, and connections made by the old policy are not used for
// new messages.
func (r *Runtime) SetPolicy(p *Policy) {
	s := r.ready()
	old := s.policy.Swap(p)
	s.egress.Forget()
	s.lua.Drain(nil)
	if old != nil && old != p {
		old.states.Empty() // it can make others, if the host asks it for more
	}
}

func (r *Runtime) currentPolicy() *Policy {
	return r.state.policy.Load()
}

// Stats returns counts and gauges of the moment.
func (r *Runtime) Stats() Stats {
	s := r.ready()
	names := map[string]*ReadyStats{}
	at := func(name string) *ReadyStats {
		if names[name] == nil {
			names[name] = &ReadyStats{Name: name}
		}
		return names[name]
	}
	for _, groups := range [][]sessions.GroupStats{s.smtp.Stats(), s.lua.Stats()} {
		for _, g := range groups {
			n := at(g.Group)
			n.Busy, n.Idle, n.Opening, n.InFlight, n.Waiting, n.Limit = g.Lent, g.Idle, g.Opening, g.Calls, g.Waiting, g.Limit
		}
	}
	for _, name := range s.names.All() {
		n, c := at(name.String()), name.Counts()
		n.Delivered, n.Transient, n.Permanent, n.Unsent = c.Delivered, c.Transient, c.Permanent, c.Unsent
		n.Opened, n.Reused, n.Broken, n.Failed, n.Throttled = c.Opened, c.Reused, c.Broken, c.Failed, c.Throttled
		n.Waiting += int(name.Gathered.Load())
	}
	stats := Stats{Opened: s.smtp.Totals().Opened + s.lua.Totals().Opened}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		stats.Ready = append(stats.Ready, *names[name])
	}
	return stats
}

// Close ends the runtime. Calls that wait for a session are answered Unsent, deliveries under way
// are waited for, for as long as their path's system_shutdown_timeout, idle sessions are ended in order. When
// that time is over, or ctx ends first, what is still under way is
// cut: Transient, with MaybeDelivered where the last byte of content may have left; Close then
// returns ctx's error. Afterwards no goroutine and no connection is left, and every call of Deliver
// has returned, unless a [Body] or a Go function that Lua calls does not: after 5 s Close leaves that
// behind and says so. Close can be called again.
func (r *Runtime) Close(ctx context.Context) error {
	s := r.ready()
	s.mu.Lock()
	if !s.closed {
		s.closed, s.since = true, time.Now()
	}
	s.mu.Unlock()
	s.begin()

	stop := context.AfterFunc(ctx, s.kill)
	var errs [4]error
	var pools sync.WaitGroup
	pools.Go(func() { errs[0] = s.smtp.Close(ctx) })
	pools.Go(func() { errs[1] = s.lua.Close(ctx) })
	pools.Wait()
	errs[2] = s.waitForCalls()
	if err := errors.Join(errs[:]...); err == nil && !stop() {
		errs[2] = context.Cause(ctx) // it cut what was under way
	}
	s.kill()
	errs[3] = s.policies.Close(ctx)
	if s.own != nil {
		s.own.Close()
	}
	s.transports.Close()
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
	return errors.Join(errs[:]...)
}

// afterKill is how long Close waits, once everything was cut, for what nobody can cut: a [Body] that
// does not return, a Go function that a policy calls.
const afterKill = 5 * time.Second

var errStuck = errors.New("delivery: a delivery does not return")

// waitForCalls waits for the deliveries under way; after the kill no longer than afterKill.
func (s *runtimeState) waitForCalls() error {
	returned := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(returned)
	}()
	select {
	case <-returned:
		return nil
	case <-s.killed.Done():
	}
	patience := time.NewTimer(afterKill)
	defer patience.Stop()
	select {
	case <-returned:
		return nil
	case <-patience.C:
		return errStuck
	}
}

// handle is a counted reference to a live protocol.
type handle struct {
	runtime *Runtime
	live    *liveProtocol
	closed  bool // guarded by the runtime's lock
}

// enter counts a call in, unless it comes too late.
func (h *handle) enter() bool {
	s := &h.runtime.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	if h.closed || s.closed {
		return false
	}
	h.live.calls.Add(1)
	s.calls.Add(1)
	return true
}

func (h *handle) leave() {
	h.live.calls.Done()
	h.runtime.state.calls.Done()
}

func (h *handle) Deliver(ctx context.Context, msg *Message) Outcome {
	if !h.enter() {
		return Outcome{Results: unsentResults(msg, ErrClosed), Err: ErrClosed}
	}
	defer h.leave()
	attempts := &h.runtime.state.attempts
	a, ok := attempts.Get().(*attempt)
	if !ok {
		a = new(attempt)
	}
	if err := a.begin(msg); err != nil {
		return Outcome{Results: a.results, Err: err}
	}
	if len(a.rcpts) > 0 {
		h.live.engine.deliver(ctx, a)
	}
	outcome := Outcome{Results: a.results, Changes: a.changes, Err: a.err}
	if a.spent {
		a.clear()
		attempts.Put(a)
	}
	return outcome
}

func (h *handle) Plan(ctx context.Context, msg *Message) (Plan, error) {
	if !h.enter() {
		return Plan{}, ErrClosed
	}
	defer h.leave()
	a, err := newAttempt(msg)
	if err != nil {
		return Plan{}, err
	}
	if len(a.rcpts) == 0 {
		return Plan{}, a.results[0].Err
	}
	ctx, release := h.runtime.bound(ctx)
	defer release()
	return h.live.engine.plan(ctx, a)
}

// bound makes a context that also ends when Close stops waiting. The sessions of a pool end then by
// themselves, and whoever waits for one.
func (r *Runtime) bound(ctx context.Context) (bounded context.Context, release func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.state.killed, func() { cancel(ErrClosed) })
	return bounded, func() {
		stop()
		cancel(nil)
	}
}

// opening is bound for what comes before a session is open, which no pool can end yet: once Close has begun,
// the context ends after a time of grace.
func (r *Runtime) opening(ctx context.Context, grace time.Duration) (bounded context.Context, release func()) {
	s := &r.state
	bounded, cancel := context.WithCancelCause(ctx)
	killed := context.AfterFunc(s.killed, func() { cancel(ErrClosed) })
	closing := context.AfterFunc(s.closing, func() {
		timer := time.NewTimer(time.Until(s.since.Add(grace)))
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(ErrClosed)
		case <-bounded.Done():
		}
	})
	return bounded, func() {
		killed()
		closing()
		cancel(nil)
	}
}

// endedBy is the cause of the end of a delivery that failed with err because it ended; nil if it failed otherwise.
func (r *Runtime) endedBy(ctx context.Context, err error) error {
	if errors.Is(err, ErrClosed) {
		return ErrClosed
	}
	return r.ended(ctx)
}

// boundEngine is an engine whose deliveries take long enough to be bound as a whole.
type boundEngine struct {
	engine
	runtime *Runtime
}

func (b boundEngine) deliver(ctx context.Context, a *attempt) {
	ctx, release := b.runtime.bound(ctx)
	defer release()
	b.engine.deliver(ctx, a)
}

// ended is the cause of the end of a delivery's context, or ErrClosed once Close has stopped waiting; nil
// while it may go on.
func (r *Runtime) ended(ctx context.Context) error {
	if err := ended(ctx); err != nil {
		return err
	}
	if r.state.killed.Err() != nil {
		return ErrClosed
	}
	return nil
}

// ended is the cause of a context's end; nil while it lives. A deadline that has passed is an end,
// even if the context has not noticed: a dialer may have.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

func (h *handle) Close(ctx context.Context) error {
	s, live := &h.runtime.state, h.live
	s.mu.Lock()
	if !h.closed {
		h.closed = true
		live.handles--
	}
	last := live.handles == 0
	if last && s.live[live.key] == live {
		delete(s.live, live.key)
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	if e, ok := live.engine.(interface{ hurry() }); ok {
		e.hurry()
	}
	drained := make(chan struct{})
	go func() {
		live.calls.Wait()
		live.engine.close()
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempt is one call of Deliver on its way through an engine.
type attempt struct {
	msg     *Message
	queue   QueueName
	sender  address.Address
	rcpts   []recipient // those that can be sent at all
	results []Result    // one for each of msg.Recipients
	changes *Changes
	err     error
	policy  *Policy // whose constructors it uses
	spent   bool    // nobody holds it any more, once deliver has returned: another message may have it

	// full are the sources of the pool that turned out to have no room for it, and noRoom is its result of
	// the last of them.
	full   []string
	noRoom *Result

	one      [1]recipient // where rcpts lie if there is one
	envelope smtpclient.Envelope
	oneRcpt  [1]smtpclient.Rcpt // likewise
	lua      *luaCall           // of the attempt that was here before it; nil: there was none
}

// clear makes it ready for another message.
func (a *attempt) clear() {
	call := a.lua
	if call != nil {
		*call = luaCall{}
	}
	*a = attempt{lua: call}
}

// recipient is a recipient that an engine serves.
type recipient struct {
	index int // in the message's envelope and in the results
	address.Address
	options *smtp.RcptOptions
	// crowded: it may have been one too many in a transaction already.
	crowded bool
	// before is its result of a transaction after which another was to do better; nil: there was none.
	before *Result
}

// newAttempt is a first attempt.
func newAttempt(msg *Message) (*attempt, error) {
	a := new(attempt)
	return a, a.begin(msg)
}

// begin checks the message. With an error no recipient can be served, and the results say so;
// without one, those that can never be sent have their result already.
func (a *attempt) begin(msg *Message) error {
	a.msg, a.results = msg, make([]Result, len(msg.Recipients))
	for i := range a.results {
		a.results[i].Recipient = msg.Recipients[i].Address
	}
	var err error
	if a.sender, err = msg.validateWhole(); err != nil {
		for i := range a.results {
			a.results[i].refuse(err, ScopeMessage)
		}
		return err
	}
	if a.rcpts = a.one[:0]; len(msg.Recipients) > 1 {
		a.rcpts = make([]recipient, 0, len(msg.Recipients))
	}
	for i := range msg.Recipients {
		addr, err := msg.recipient(i)
		if err != nil {
			a.results[i].refuse(err, ScopeRecipient)
			continue
		}
		a.results[i].Recipient = addr.Text(msg.Recipients[i].Address)
		a.rcpts = append(a.rcpts, recipient{index: i, Address: addr, options: msg.Recipients[i].Options})
	}
	if len(a.rcpts) == 0 {
		return nil // each has its result, and there is no domain to name a queue after
	}
	queue, complete, err := msg.namedQueue()
	if err != nil {
		for i := range a.rcpts {
			a.results[a.rcpts[i].index].refuse(err, ScopeMessage)
		}
		return err
	}
	if !complete {
		queue.Domain = a.rcpts[0].Domain
	}
	a.queue = queue
	return nil
}

// refuse makes the result that of a message or recipient that can never be sent.
func (r *Result) refuse(err error, scope Scope) {
	code := EnhancedCode{5, 1, 3} // RFC 3463: bad destination mailbox address syntax
	text := err.Error()
	if e, ok := errors.AsType[*MessageError](err); ok {
		if scope == ScopeRecipient {
			text = e.Reason // which recipient is plain from the result that it stands in
		}
		switch {
		case e.Field == "From":
			code = EnhancedCode{5, 1, 7} // bad sender's mailbox address syntax
		case e.Field == "Body":
			code = EnhancedCode{5, 6, 0} // other or undefined media error
		case strings.HasPrefix(e.Field, "Meta"): // a mistake of the host, not of the mail
			*r = Result{Recipient: r.Recipient, Status: Transient, Scope: scope, Err: err, Response: Response{
				Code: 451, Enhanced: EnhancedCode{4, 3, 5}, Text: safeText("delivery: " + err.Error())}}
			return
		}
	}
	r.Status, r.Scope, r.Err = Permanent, scope, err
	r.Response = Response{Code: 554, Enhanced: code, Text: safeText("delivery: " + text)}
}

// settleAll gives every recipient that the engine serves the same result.
func (a *attempt) settleAll(res Result) {
	for i := range a.rcpts {
		a.settle(&a.rcpts[i], res)
	}
}

// settle gives one recipient its result.
func (a *attempt) settle(r *recipient, res Result) {
	res.Recipient = a.results[r.index].Recipient
	a.results[r.index] = res
}

// unsent is the result of a recipient for whom nothing was tried.
func unsent(err error) Result { return Result{Status: Unsent, Scope: ScopeMessage, Err: err} }

func unsentResults(msg *Message, err error) []Result {
	results := make([]Result, len(msg.Recipients))
	for i := range results {
		results[i] = unsent(err)
		results[i].Recipient = msg.Recipients[i].Address
	}
	return results
}

// newID returns 128 random bits in hexadecimal.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// hostname is the name that EHLO gives by default.
func (r *Runtime) hostname() string {
	if r.Hostname != "" {
		return r.Hostname
	}
	if name, err := os.Hostname(); err == nil {
		if _, err := address.ToASCII(name); err == nil {
			return name
		}
	}
	return "localhost"
}
