package delivery

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
	"unique"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/egress"
	"github.com/mtadelivery/delivery/internal/mtasts"
	"github.com/mtadelivery/delivery/internal/proxy"
	"github.com/mtadelivery/delivery/internal/ready"
	"github.com/mtadelivery/delivery/internal/sessions"
	"github.com/mtadelivery/delivery/internal/smtpclient"
	"github.com/mtadelivery/delivery/internal/tlspolicy"
)

// SMTP is the smtp table of a protocol: delivery over SMTP or, where the egress path says use_lmtp,
// over LMTP. The zero value delivers to the MX of the queue's routing domain.
type SMTP struct {
	// MXList are the hosts to use instead of the domain's MX records, tried in this order. Empty: the
	// MX records.
	MXList []MXEntry `config:"mx_list"`
	// TreatMXListAsSecure counts the list as a DNSSEC-secure choice of hosts, for DANE: it changes nothing else.
	TreatMXListAsSecure bool `config:"treat_mx_list_as_secure" default:"false"`
}

// Validate says what is wrong with the table.
func (s *SMTP) Validate() error {
	_, err := s.route()
	return err
}

// notYet is the error of a value that asks for what does not exist yet.
func notYet(field, what string) error {
	return decode.Errorf(field, "%s is not available yet", what)
}

// EgressPath is what kumo.make_egress_path makes: how to speak to one site from one source. The zero
// value means every default. Durations of 0 mean the default that is named with them. Domains that share a
// site share its ready name, and so its limits and rates, also where a policy gives them different paths:
// then the limits are those of the latest message, and the rates those of the path that was asked for last.
type EgressPath struct {
	// ConnectionLimit is the most sessions at once under one ready name; default 32. See [Limits] for one
	// that several processes share.
	ConnectionLimit Limit `config:"connection_limit" default:"32"`
	// AdditionalConnectionLimits are limits by name that the sessions count against besides, together with
	// those of all ready names whose paths have a limit of that name. Sessions of SMTP and connections of custom
	// Lua are counted apart, but where [Limits] counts them.
	AdditionalConnectionLimits map[string]Limit `config:"additional_connection_limits"`
	// MaxConnectionRate is the rate at which connections are opened under one ready name. A call that would
	// have to wait for it longer than IdleTimeout, while there is no connection to wait for either, is Unsent
	// with RetryAfter.
	MaxConnectionRate Rate `config:"max_connection_rate"`
	// MaxMessageRate is the rate at which messages are sent under one ready name. A call that would have to
	// wait for it longer than IdleTimeout is Unsent with RetryAfter.
	MaxMessageRate Rate `config:"max_message_rate"`
	// AdditionalMessageRateThrottles are rates by name that messages count against besides, together with
	// those of all ready names whose paths have a throttle of that name.
	AdditionalMessageRateThrottles map[string]Rate `config:"additional_message_rate_throttles"`
	// SourceSelectionRate is the rate at which the source may be chosen for messages of one ready name, and
	// AdditionalSourceSelectionRates are rates by name, shared as above. A source for which one is used up is
	// passed over for the others of its pool; where none is left, the message is Transient (451 4.4.4).
	SourceSelectionRate            Rate            `config:"source_selection_rate"`
	AdditionalSourceSelectionRates map[string]Rate `config:"additional_source_selection_rates"`
	// MaxDeliveriesPerConnection is the most messages over one connection; default 1024.
	MaxDeliveriesPerConnection int `config:"max_deliveries_per_connection" default:"1024" min:"1"`
	// MaxRecipientsPerBatch is the most recipients in one transaction; default 100. A message with
	// more takes several, one after the other.
	MaxRecipientsPerBatch int `config:"max_recipients_per_batch" default:"100" min:"1"`
	// MaxReady is the most calls that may wait for a session under one ready name; default 1024. One
	// more is Unsent at once, to be tried again within a minute.
	MaxReady int `config:"max_ready" default:"1024" min:"1"`

	// ReconnectStrategy says where the next connection goes after one that was in use broke: to the host of the
	// plan that follows (ConnectNextHost, the default), to the same one (ReconnectSameHost), or where a new
	// plan begins (TerminateSession). Hosts that were passed over come last, and are tried all the same. It
	// does not concern hosts that cannot be connected to: there the next one is tried at once.
	ReconnectStrategy string `config:"reconnect_strategy" default:"ConnectNextHost" enum:"ConnectNextHost,ReconnectSameHost,TerminateSession"`
	// TryNextHostOnTransportError sends a message whose connection failed, or whose peer said 421, to the next
	// host of its plan within the same call; default off: it is Transient. What the peer may have already
	// (MaybeDelivered) is never sent again so.
	TryNextHostOnTransportError bool `config:"try_next_host_on_transport_error" default:"false"`
	// ConsecutiveConnectionFailuresBeforeDelay is how often in a row no host of a plan may fail to be reached
	// before all that waits under the ready name is given up too: Transient (451 4.4.1) with ScopeReadyName;
	// default 100.
	ConsecutiveConnectionFailuresBeforeDelay int `config:"consecutive_connection_failures_before_delay" default:"100" min:"1"`

	// SMTPPort is the port where neither the source nor the mx_list names one; default 25.
	SMTPPort uint16 `config:"smtp_port" default:"25" min:"1" max:"65535"`
	// EHLODomain is the name given in EHLO; it goes before that of the source and of the machine.
	EHLODomain string `config:"ehlo_domain"`
	// UseLMTP speaks LMTP (RFC 2033): one reply for each recipient after the content.
	UseLMTP bool `config:"use_lmtp" default:"false"`
	// IPLookupStrategy is Ipv4AndIpv6 (the default), Ipv4Only, Ipv6Only, Ipv4ThenIpv6 or
	// Ipv6ThenIpv4, where the second family is asked for only if the first has nothing.
	IPLookupStrategy string `config:"ip_lookup_strategy" default:"Ipv4AndIpv6" enum:"Ipv4AndIpv6,Ipv4Only,Ipv6Only,Ipv4ThenIpv6,Ipv6ThenIpv4"`
	// ProhibitedHosts are networks that no host of a plan may be in; one that is fails the message
	// permanently (550 5.4.4), and that no MTA-STS policy is fetched from. Nil: loopback and unspecified addresses;
	// empty: none.
	ProhibitedHosts []netip.Prefix `config:"prohibited_hosts" default:"[\"127.0.0.0/8\", \"::1/128\", \"0.0.0.0/32\", \"::/128\"]"`
	// SkipHosts are networks whose hosts are left out of a plan.
	SkipHosts []netip.Prefix `config:"skip_hosts" default:"[]"`

	// EnableTLS is Opportunistic (the default: STARTTLS where offered, and then the certificate must
	// be good), OpportunisticInsecure (any certificate will do), Required, RequiredInsecure or
	// Disabled. What EnableDANE and EnableMTASTS find may ask for more, and never for less than Required or
	// RequiredInsecure. See the table in the package documentation.
	EnableTLS string `config:"enable_tls" default:"Opportunistic" enum:"Opportunistic,OpportunisticInsecure,Required,RequiredInsecure,Disabled"`
	// EnableDANE looks for the TLSA records of each host (RFC 7672); default off. They count only where a
	// resolver that is trusted to validate vouches for the choice of the host, for its address and for the
	// records: see [DNS].TrustAD. Records that could not be looked up fail the host.
	EnableDANE bool `config:"enable_dane" default:"false"`
	// EnableMTASTS requires TLS where the domain's MTA-STS policy does (RFC 8461); default on. It concerns neither
	// an mx_list nor hosts with usable TLSA records. Hosts that an enforced policy does not name are not in the
	// plan, whatever the option says: see [Runtime].MTASTS.
	EnableMTASTS Switch `config:"enable_mta_sts" default:"true"`
	// RememberBrokenTLS is how long an address with which no TLS could be agreed on is spoken to in clear, where
	// TLS is opportunistic; default: not at all, or 15 minutes with the next option.
	RememberBrokenTLS Duration `config:"remember_broken_tls" min:"1ms"`
	// ReconnectInClearOnFailedHandshake connects to such an address again at once, in clear, where the mode is
	// Opportunistic; default off: the attempt at the host fails. With OpportunisticInsecure that is always so.
	ReconnectInClearOnFailedHandshake bool `config:"opportunistic_tls_reconnect_on_failed_handshake" default:"false"`
	// TLSMinVersion is the oldest version of TLS that is spoken: "1.2" (the default), "1.3", or "1.0" and "1.1" for
	// a peer that knows no better. The ciphers are Go's choice. The option is this library's own.
	TLSMinVersion string `config:"tls_min_version" default:"1.2" enum:"1.0,1.1,1.2,1.3"`
	// TLSCertificate and TLSPrivateKey are the client certificate, as PEM; both or none.
	TLSCertificate *KeySource `config:"tls_certificate"`
	TLSPrivateKey  *KeySource `config:"tls_private_key"`
	// SMTPAuthPlainUsername switches AUTH PLAIN on, with SMTPAuthPlainPassword. It is refused in
	// clear and over an unverified certificate unless the next two allow it.
	SMTPAuthPlainUsername                     string     `config:"smtp_auth_plain_username"`
	SMTPAuthPlainPassword                     *KeySource `config:"smtp_auth_plain_password"`
	AllowSMTPAuthPlainWithoutTLS              bool       `config:"allow_smtp_auth_plain_without_tls" default:"false"`
	AllowSMTPAuthPlainWithoutValidCertificate bool       `config:"allow_smtp_auth_plain_without_valid_certificate" default:"false"`

	// EnablePipelining sends commands in groups where the peer offers PIPELINING, and messages before those
	// ahead of them are answered; default on.
	EnablePipelining Switch `config:"enable_pipelining" default:"true"`
	// EnableChunking sends content by BDAT where the peer offers CHUNKING (RFC 3030); default on. The option
	// is this library's own.
	EnableChunking Switch `config:"enable_chunking" default:"true"`
	// EnableRSET allows RSET before a message that goes out by BDAT before the one ahead of it is answered;
	// default on. Off: such messages wait for each other, and RSET comes only after a transaction that may
	// still be open.
	EnableRSET Switch `config:"enable_rset" default:"true"`
	// MaxPipelinedMessages is the most messages that are on their way over one connection before the first
	// of them is answered; default 32, 1 for none. When a connection breaks, as many may have to be sent
	// again that the peer has already. The option is this library's own.
	MaxPipelinedMessages int `config:"max_pipelined_messages" default:"32" min:"1" max:"1024"`
	// LineEnds is what is done about a CR or an LF that is not part of a CRLF: "repair" (the default) sends a
	// bare LF as CRLF and a bare CR as a space, and says so in [Result.ContentChanged]; "refuse" fails the
	// message permanently (554 5.6.0). As it is, it is never sent but with BODY=BINARYMIME: it could end the
	// message for one peer and not for another. The option is this library's own.
	LineEnds string `config:"line_ends" default:"repair" enum:"repair,refuse"`
	// LongLines is what is done about lines of more than 998 octets (RFC 5321 section 4.5.3.1.6): "send" (the
	// default) sends them as they are, "refuse" fails the message permanently (554 5.6.0). The option is this
	// library's own.
	LongLines string `config:"long_lines" default:"send" enum:"send,refuse"`
	// Ignore8BitChecks sends 8-bit content and addresses to peers that offer neither 8BITMIME nor
	// SMTPUTF8, instead of failing the message.
	Ignore8BitChecks bool `config:"ignore_8bit_checks" default:"false"`

	// Timeouts. ConnectTimeout is for the connection, BannerTimeout for the greeting; the others for
	// the reply to the command they name. DataTimeout is for the reply to DATA and for each block of
	// content to be taken. DataDotTimeout is for the reply to the end of the content: 10 minutes, as
	// RFC 5321 section 4.5.3.2.6 asks. IdleTimeout is how long a connection is kept for the next
	// message, and the longest that a call waits because of a rate.
	ConnectTimeout  Duration `config:"connect_timeout" default:"60s" min:"1ms"`
	BannerTimeout   Duration `config:"banner_timeout" default:"60s" min:"1ms"`
	EHLOTimeout     Duration `config:"ehlo_timeout" default:"5m" min:"1ms"`
	STARTTLSTimeout Duration `config:"starttls_timeout" default:"5s" min:"1ms"`
	AuthTimeout     Duration `config:"auth_timeout" default:"60s" min:"1ms"`
	MailFromTimeout Duration `config:"mail_from_timeout" default:"5m" min:"1ms"`
	RcptToTimeout   Duration `config:"rcpt_to_timeout" default:"5m" min:"1ms"`
	DataTimeout     Duration `config:"data_timeout" default:"5m" min:"1ms"`
	DataDotTimeout  Duration `config:"data_dot_timeout" default:"10m" min:"1ms"`
	RSETTimeout     Duration `config:"rset_timeout" default:"5s" min:"1ms"`
	IdleTimeout     Duration `config:"idle_timeout" default:"5s" min:"1ms"`

	// SystemShutdownTimeout is how long a delivery under way may go on once [Runtime.Close] has begun; default:
	// MailFromTimeout, RcptToTimeout, DataTimeout and DataDotTimeout together.
	SystemShutdownTimeout Duration `config:"system_shutdown_timeout" min:"1ms"`
	// DispatcherProgressWatchdogTimeout bounds one call of a custom Lua send; default 10 minutes.
	// Every step of an SMTP dialogue has a timeout of its own.
	DispatcherProgressWatchdogTimeout Duration `config:"dispatcher_progress_watchdog_timeout" min:"1ms"`
	// RefreshInterval is how long the config is used before [Egress] is asked again; default 60 s.
	// With RefreshStrategy "Epoch" it is used until the policy changes.
	RefreshInterval Duration `config:"refresh_interval" default:"60s" min:"1ms"`
	RefreshStrategy string   `config:"refresh_strategy" default:"Ttl" enum:"Ttl,Epoch"`

	// ProviderName, ReadyqPoolName, the wake-up strategies and the memory policies steer the metrics,
	// threads and memory of another MTA. They are accepted, printed, and without effect.
	ProviderName             string `config:"provider_name"`
	ReadyqPoolName           string `config:"readyq_pool_name"`
	DispatcherWakeupStrategy string `config:"dispatcher_wakeup_strategy" enum:"Aggressive,Relaxed"`
	MaintainerWakeupStrategy string `config:"maintainer_wakeup_strategy" enum:"Aggressive,Relaxed"`
	LowMemoryReductionPolicy string `config:"low_memory_reduction_policy" enum:"ShrinkDataAndMeta,ShrinkData,NoShrink"`
	NoMemoryReductionPolicy  string `config:"no_memory_reduction_policy" enum:"ShrinkDataAndMeta,ShrinkData,NoShrink"`

	// What follows is known and not to be had here: a value that asks for it is refused, one that asks
	// for what is done anyway is accepted. Go's TLS has no other engine beside it and chooses its ciphers itself.
	TLSPreferOpenSSL            bool     `config:"tls_prefer_openssl" default:"false"`
	OpenSSLOptions              string   `config:"openssl_options"`
	OpenSSLCipherList           string   `config:"openssl_cipher_list"`
	OpenSSLCipherSuites         string   `config:"openssl_cipher_suites"`
	RustlsCipherSuites          []string `config:"rustls_cipher_suites"`
	AggressiveConnectionOpening bool     `config:"aggressive_connection_opening" default:"false"`
}

// Validate says what is wrong with the path, or what it asks for that is not available yet.
func (p *EgressPath) Validate() error {
	for _, option := range []struct {
		field string
		asked bool
	}{
		{"tls_prefer_openssl", p.TLSPreferOpenSSL},
		{"openssl_options", p.OpenSSLOptions != ""},
		{"openssl_cipher_list", p.OpenSSLCipherList != ""},
		{"openssl_cipher_suites", p.OpenSSLCipherSuites != ""},
		{"rustls_cipher_suites", len(p.RustlsCipherSuites) > 0},
	} {
		if option.asked {
			return decode.Errorf(option.field, "TLS is Go's here, and Go chooses the ciphers: leave the option out, and use tls_min_version where old versions are to be refused or let in")
		}
	}
	if p.AggressiveConnectionOpening {
		return notYet("aggressive_connection_opening", "connecting before there is a message")
	}
	if (p.TLSCertificate == nil) != (p.TLSPrivateKey == nil) {
		return decode.Errorf("tls_certificate", "needs tls_private_key, and the other way round")
	}
	if p.SMTPAuthPlainPassword != nil && p.SMTPAuthPlainUsername == "" {
		return decode.Errorf("smtp_auth_plain_password", "needs smtp_auth_plain_username")
	}
	return validEHLO(p.EHLODomain)
}

func validEHLO(name string) error {
	if name == "" {
		return nil
	}
	if _, err := address.ToASCII(name); err != nil {
		return decode.Errorf("ehlo_domain", "%s", reasonOf(err))
	}
	return nil
}

// ParseEgressPath reads an egress path from JSON: the keys of kumo.make_egress_path. Every default
// is filled in. The error is a [*ConfigError] that names the field.
func ParseEgressPath(text []byte) (EgressPath, error) {
	var p EgressPath
	err := parseJSON(text, &p)
	return p, err
}

// UnmarshalJSON is [ParseEgressPath].
func (p *EgressPath) UnmarshalJSON(text []byte) error {
	*p = EgressPath{}
	return parseJSON(text, p)
}

// MarshalJSON prints the path with its defaults.
func (p EgressPath) MarshalJSON() ([]byte, error) {
	decode.Defaults(&p)
	return decode.JSON(&p)
}

// KeySource says where a secret or a certificate comes from: a file, or the bytes themselves. A file is
// read whenever a connection is opened; connections that are open live on when it changes.
type KeySource struct {
	File string
	Data string
}

// Validate says whether exactly one of the two is given, in UTF-8.
func (k KeySource) Validate() error {
	switch {
	case (k.File == "") == (k.Data == ""):
		return errors.New("want the path of a file, or key_data")
	case !utf8.ValidString(k.File + k.Data):
		return errors.New("is not UTF-8")
	}
	return nil
}

// UnmarshalJSON reads the path of a file, or a table with key_data.
func (k *KeySource) UnmarshalJSON(text []byte) error {
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return err
	}
	*k = KeySource{}
	switch v := tree.(type) {
	case string:
		if v == "" {
			return decode.Errorf("", "the path of a file is empty")
		}
		k.File = v
		return nil
	case map[string]any:
		for key := range v {
			if strings.HasPrefix(key, "vault_") || strings.HasPrefix(key, "event_") {
				return notYet(key, "a key from a vault or an event")
			}
		}
		var table struct {
			Data string `config:"key_data" required:"true"`
		}
		err := decode.Decode(tree, &table)
		k.Data = table.Data
		return err
	}
	return decode.Errorf("", "want the path of a file or a table with key_data")
}

// MarshalJSON prints the source as it was written, the bytes of a key included.
func (k KeySource) MarshalJSON() ([]byte, error) {
	if k.File != "" {
		return json.Marshal(k.File)
	}
	return json.Marshal(map[string]string{"key_data": k.Data})
}

func (k *KeySource) load() ([]byte, error) {
	if k == nil {
		return nil, nil
	}
	if k.File != "" {
		return os.ReadFile(k.File)
	}
	return []byte(k.Data), nil
}

// EgressSource is what kumo.make_egress_source makes: where connections come from.
type EgressSource struct {
	Name string `config:"name" required:"true"`
	// EHLODomain is the name given in EHLO, where the path gives none.
	EHLODomain string `config:"ehlo_domain"`
	// SourceAddress is bound before connecting; hosts of the other address family are passed over.
	SourceAddress netip.Addr `config:"source_address"`
	// RemotePort goes before every other port; 0: not set.
	RemotePort uint16 `config:"remote_port" min:"1" max:"65535"`
	// TTL is how long the definition is used before [Egress] is asked again; default 60 s.
	TTL Duration `config:"ttl" default:"60s" min:"1ms"`

	// HAProxyServer, "192.0.2.1:5000", "[2001:db8::1]:5000" or "name:5000", is connected to instead of the
	// host, and told by the PROXY protocol, version 2, to connect on from HAProxySourceAddress. Both or none.
	HAProxyServer        string     `config:"ha_proxy_server"`
	HAProxySourceAddress netip.Addr `config:"ha_proxy_source_address"`
	// SOCKS5ProxyServer is a SOCKS5 proxy (RFC 1928) to connect through. With SOCKS5ProxySourceAddress it is
	// first asked to bind that address and then, on the same connection, to connect: KumoMTA's own proxy
	// understands that. Without it, any SOCKS5 proxy will do. SOCKS5ProxyUsername and SOCKS5ProxyPassword
	// (RFC 1929) go together.
	SOCKS5ProxyServer        string     `config:"socks5_proxy_server"`
	SOCKS5ProxySourceAddress netip.Addr `config:"socks5_proxy_source_address"`
	SOCKS5ProxyUsername      string     `config:"socks5_proxy_username"`
	SOCKS5ProxyPassword      *KeySource `config:"socks5_proxy_password"`
	// SuspendWhenUnplumbed and SuspendWhenProxyUnhealthy take the source out of its pools for a while when
	// SourceAddress is no address of this machine, or when the proxy cannot be used or cannot bind the address
	// that it is told to; nil: never.
	SuspendWhenUnplumbed      *Suspension `config:"suspend_when_unplumbed"`
	SuspendWhenProxyUnhealthy *Suspension `config:"suspend_when_proxy_unhealthy"`
}

// Suspension is the table of suspend_when_unplumbed and suspend_when_proxy_unhealthy.
type Suspension struct {
	// Trigger is what it takes; default Immediate.
	Trigger Trigger `config:"trigger" default:"Immediate"`
	// Duration is how long the source is passed over.
	Duration Duration `config:"duration" required:"true" min:"1ms"`
}

func (s *Suspension) rule() egress.Rule {
	rule := egress.Rule{Failures: 1, For: time.Duration(s.Duration)}
	if !s.Trigger.Immediate {
		rule.Failures, rule.Per = s.Trigger.Threshold.Limit, s.Trigger.Threshold.Per
	}
	return rule
}

// Trigger is 'Immediate' or {Threshold='N/period'}.
type Trigger struct {
	// Immediate: the first failure is enough.
	Immediate bool
	// Threshold is how many failures in how long are needed otherwise.
	Threshold Rate
}

// UnmarshalJSON reads either form.
func (t *Trigger) UnmarshalJSON(text []byte) error {
	if string(text) == `"Immediate"` {
		*t = Trigger{Immediate: true}
		return nil
	}
	tree, err := decode.ParseJSON(text)
	if err != nil {
		return err
	}
	var table struct {
		Threshold Rate `config:"Threshold" required:"true"`
	}
	if _, ok := tree.(map[string]any); !ok {
		return decode.Errorf("", `want "Immediate" or a table with Threshold`)
	}
	err = decode.Decode(tree, &table)
	*t = Trigger{Threshold: table.Threshold}
	return err
}

// MarshalJSON prints either form.
func (t Trigger) MarshalJSON() ([]byte, error) {
	if t.Immediate {
		return json.Marshal("Immediate")
	}
	return json.Marshal(map[string]Rate{"Threshold": t.Threshold})
}

// Validate says what is wrong with the source.
func (s *EgressSource) Validate() error {
	for _, a := range []struct {
		field string
		netip.Addr
	}{{"source_address", s.SourceAddress}, {"ha_proxy_source_address", s.HAProxySourceAddress}, {"socks5_proxy_source_address", s.SOCKS5ProxySourceAddress}} {
		if a.Zone() != "" {
			return decode.Errorf(a.field, "has a zone")
		}
	}
	switch {
	case s.HAProxyServer != "" && s.SOCKS5ProxyServer != "":
		return decode.Errorf("socks5_proxy_server", "a connection goes through one proxy, and there is ha_proxy_server")
	case len(s.SOCKS5ProxyUsername) > 255: // RFC 1929 section 2
		return decode.Errorf("socks5_proxy_username", "is longer than 255 octets")
	}
	for field, server := range map[string]string{"ha_proxy_server": s.HAProxyServer, "socks5_proxy_server": s.SOCKS5ProxyServer} {
		if server == "" {
			continue
		}
		if _, err := proxyTarget(server); err != nil {
			return decode.In(field, err)
		}
	}
	if err := validEHLO(s.EHLODomain); err != nil {
		return err
	}
	return s.complete()
}

// errIncomplete is an error of a source in which each option is right, but one needs another.
var errIncomplete = errors.New("the source is incomplete")

// complete says which option needs another.
func (s *EgressSource) complete() error {
	lacks := func(field, other string) error {
		return decode.Errorf(field, "needs %s%w", other, unsaid{errIncomplete})
	}
	switch {
	case s.HAProxyServer != "" && !s.HAProxySourceAddress.IsValid():
		return lacks("ha_proxy_server", "ha_proxy_source_address")
	case s.HAProxyServer == "" && s.HAProxySourceAddress.IsValid():
		return lacks("ha_proxy_source_address", "ha_proxy_server")
	case s.SOCKS5ProxyServer == "" && s.SOCKS5ProxySourceAddress.IsValid():
		return lacks("socks5_proxy_source_address", "socks5_proxy_server")
	case s.SOCKS5ProxyServer == "" && s.SOCKS5ProxyUsername != "":
		return lacks("socks5_proxy_username", "socks5_proxy_server")
	case (s.SOCKS5ProxyUsername == "") != (s.SOCKS5ProxyPassword == nil):
		return lacks("socks5_proxy_username", "socks5_proxy_password, and the other way round")
	}
	return nil
}

// unsaid is an error that adds nothing to the text of the one that wraps it.
type unsaid struct{ error }

func (unsaid) Error() string { return "" }

func (u unsaid) Unwrap() error { return u.error }

// proxyTarget takes the address of a proxy apart.
func proxyTarget(server string) (target, error) {
	t, err := parseTarget(server)
	switch {
	case err != nil:
		return t, err
	case t.unix != "":
		return t, decode.Errorf("", "%q is no host and port", server)
	case t.port == 0:
		return t, decode.Errorf("", "%q has no port", server)
	}
	return t, nil
}

// ParseEgressSource reads a source from JSON: the keys of kumo.make_egress_source.
func ParseEgressSource(text []byte) (EgressSource, error) {
	var s EgressSource
	err := parseJSON(text, &s)
	return s, err
}

// UnmarshalJSON is [ParseEgressSource].
func (s *EgressSource) UnmarshalJSON(text []byte) error {
	*s = EgressSource{}
	return parseJSON(text, s)
}

// MarshalJSON prints the source with its defaults.
func (s EgressSource) MarshalJSON() ([]byte, error) {
	decode.Defaults(&s)
	return decode.JSON(&s)
}

// EgressPool is what kumo.make_egress_pool makes: sources to choose from, by weight.
type EgressPool struct {
	Name    string      `config:"name" required:"true"`
	Entries []PoolEntry `config:"entries" required:"true"`
	// TTL is how long the definition is used before [Egress] is asked again; default 60 s.
	TTL Duration `config:"ttl" default:"60s" min:"1ms"`
}

// PoolEntry is one source of a pool.
type PoolEntry struct {
	Name string `config:"name" required:"true"`
	// Weight is the entry's share, up to a million: nil is 1, 0 leaves the entry out.
	Weight *int `config:"weight" default:"1" min:"0" max:"1000000"`
}

func (e PoolEntry) weight() int {
	if e.Weight == nil {
		return 1
	}
	return *e.Weight
}

// ParseEgressPool reads a pool from JSON: the keys of kumo.make_egress_pool.
func ParseEgressPool(text []byte) (EgressPool, error) {
	var p EgressPool
	err := parseJSON(text, &p)
	return p, err
}

// UnmarshalJSON is [ParseEgressPool].
func (p *EgressPool) UnmarshalJSON(text []byte) error {
	*p = EgressPool{}
	return parseJSON(text, p)
}

// MarshalJSON prints the pool with its defaults.
func (p EgressPool) MarshalJSON() ([]byte, error) {
	decode.Defaults(&p)
	return decode.JSON(&p)
}

// Egress says which way mail goes out. A [Policy] is one; a host without Lua writes its own in a few
// lines. It must be safe for concurrent use. Answers are kept for their ttl or refresh_interval.
type Egress interface {
	// EgressPool defines the pool that a queue config names.
	EgressPool(ctx context.Context, name string) (EgressPool, error)
	// EgressSource defines a source of a pool.
	EgressSource(ctx context.Context, name string) (EgressSource, error)
	// EgressPath says how to speak to a site: the routing domain of the queue, the name of the source,
	// and the site's name as it stands in the ready name.
	EgressPath(ctx context.Context, routingDomain, source, site string) (EgressPath, error)
}

// unspecified names the pool and the source of a queue that names none.
const unspecified = "unspecified"

// keyed is a config with the digest of its canonical text: what a connection key is made of.
type keyed[T any] struct {
	config T
	digest string
}

func newKeyed[T any](config T) (*keyed[T], error) {
	decode.Defaults(&config)
	if err := decode.Check(&config); err != nil {
		return nil, configError(err)
	}
	text, err := decode.JSON(&config)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	return &keyed[T]{config, string(sum[:])}, nil
}

// egressFor is the Egress in force; nil: every default.
func (r *Runtime) egressFor() Egress {
	if r.Egress != nil {
		return r.Egress
	}
	if p := r.currentPolicy(); p != nil {
		return p
	}
	return nil
}

// egressAnswers are the answers of the Egress in force, for as long as each may be used.
type egressAnswers struct {
	pools   egress.Cache[string, *EgressPool]
	sources egress.Cache[string, *keyed[EgressSource]]
	paths   egress.Cache[pathName, *keyed[EgressPath]]
	// What equal answers share, so that a hundred thousand sites cost no more than their names, and an answer
	// that is given again changes nothing.
	equalSources egress.Equals[*keyed[EgressSource]]
	equalPaths   egress.Equals[*keyed[EgressPath]]
}

// maxEquals is how many different configs are held.
const maxEquals = 4096

// pathName is what an egress path is asked for by.
type pathName struct{ routing, source, site string }

// Forget drops all answers.
func (e *egressAnswers) Forget() {
	e.pools.Forget()
	e.sources.Forget()
	e.paths.Forget()
}

func (r *Runtime) egressPath(ctx context.Context, name pathName) (*keyed[EgressPath], error) {
	if k, ok := r.state.egress.paths.Known(name); ok {
		return k, nil
	}
	ctx, release := r.bound(ctx)
	defer release()
	return r.state.egress.paths.Get(ctx, name, func() (*keyed[EgressPath], time.Time, error) {
		var path EgressPath
		if e := r.egressFor(); e != nil {
			var err error
			if path, err = e.EgressPath(ctx, name.routing, name.source, name.site); err != nil {
				return nil, time.Time{}, fmt.Errorf("egress path of %s: %w", name.site, err)
			}
		}
		k, err := newKeyed(path)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("egress path of %s: %w", name.site, err)
		}
		k = r.state.egress.equalPaths.Share(k.digest, k)
		if k.config.RefreshStrategy == "Epoch" {
			return k, time.Time{}, nil
		}
		return k, time.Now().Add(time.Duration(k.config.RefreshInterval)), nil
	})
}

func (r *Runtime) egressSource(ctx context.Context, name string) (*keyed[EgressSource], error) {
	if k, ok := r.state.egress.sources.Known(name); ok {
		return k, nil
	}
	ctx, release := r.bound(ctx)
	defer release()
	return r.state.egress.sources.Get(ctx, name, func() (*keyed[EgressSource], time.Time, error) {
		source := EgressSource{Name: unspecified}
		if name != unspecified {
			e := r.egressFor()
			if e == nil {
				return nil, time.Time{}, fmt.Errorf("egress source %q: there is no Egress that defines it", name)
			}
			var err error
			if source, err = e.EgressSource(ctx, name); err != nil {
				return nil, time.Time{}, fmt.Errorf("egress source %q: %w", name, err)
			}
		}
		k, err := newKeyed(source)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("egress source %q: %w", name, err)
		}
		k = r.state.egress.equalSources.Share(k.digest, k)
		if name == unspecified {
			return k, time.Time{}, nil // nobody was asked, and nobody need be again
		}
		return k, time.Now().Add(time.Duration(k.config.TTL)), nil
	})
}

func (r *Runtime) egressPool(ctx context.Context, name string) (*EgressPool, error) {
	if p, ok := r.state.egress.pools.Known(name); ok {
		return p, nil
	}
	ctx, release := r.bound(ctx)
	defer release()
	return r.state.egress.pools.Get(ctx, name, func() (*EgressPool, time.Time, error) {
		e := r.egressFor()
		if e == nil {
			return nil, time.Time{}, fmt.Errorf("egress pool %q: there is no Egress that defines it", name)
		}
		pool, err := e.EgressPool(ctx, name)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("egress pool %q: %w", name, err)
		}
		decode.Defaults(&pool)
		if err := decode.Check(&pool); err != nil {
			return nil, time.Time{}, fmt.Errorf("egress pool %q: %w", name, configError(err))
		}
		return &pool, time.Now().Add(time.Duration(pool.TTL)), nil
	})
}

// sourcePicker chooses among the sources of a pool, in turn and by weight.
type sourcePicker struct {
	runtime *Runtime
	pool    string
	turns   egress.Turns
}

// wayFinder is an engine, asked for the way from a source. With an error the way is as complete as it could
// be made.
type wayFinder interface {
	// Asked is the name by which the pool asks for the source.
	wayFrom(ctx context.Context, a *attempt, asked string, source *keyed[EgressSource]) (*way, *PlanError)
}

// choose takes the ways from one source after another, as it is their turn, and returns the first that may
// be used and has not turned out to be full. A call that only wants to know takes no turn and counts in no
// rate.
func (p *sourcePicker) choose(ctx context.Context, a *attempt, only bool, from wayFinder) (*way, *PlanError) {
	queue := a.queue
	if p.pool == "" || p.pool == unspecified {
		if len(a.full) > 0 {
			return &way{}, p.notEligible(queue)
		}
		source, err := p.runtime.egressSource(ctx, unspecified)
		if err != nil {
			return &way{}, unresolved(queue, err)
		}
		w, failed := from.wayFrom(ctx, a, unspecified, source)
		if failed == nil && !p.runtime.eligible(w, only, true) {
			failed = p.notEligible(queue)
		}
		return w, failed
	}
	pool, err := p.runtime.egressPool(ctx, p.pool)
	if err != nil {
		return &way{}, unresolved(queue, err)
	}
	choices := make([]egress.Choice, 0, len(pool.Entries))
	for _, e := range pool.Entries {
		if !slices.Contains(a.full, e.Name) {
			choices = append(choices, egress.Choice{Name: e.Name, Weight: e.weight()})
		}
	}
	next := p.turns.Next
	if only {
		next = p.turns.Look
	}
	none := sourceless(fmt.Sprintf("no sources available for %s pool=`%s`", queue, p.pool))
	for {
		name, ok := next(choices)
		if !ok {
			return &way{}, none
		}
		choices = slices.DeleteFunc(choices, func(c egress.Choice) bool { return c.Name == name })
		source, err := p.runtime.egressSource(ctx, name)
		if err != nil { // the others may do
			none = unresolved(queue, err)
			continue
		}
		w, failed := from.wayFrom(ctx, a, name, source)
		if failed != nil || p.runtime.eligible(w, only, len(choices) == 0) {
			return w, failed
		}
		none = p.notEligible(queue)
	}
}

func (p *sourcePicker) notEligible(queue QueueName) *PlanError {
	return sourceless(fmt.Sprintf("no sources for %s pool=`%s` are eligible for selection at this time", queue, cmp.Or(p.pool, unspecified)))
}

// sourceless is the failure of a queue that has no source to send from now.
func sourceless(why string) *PlanError {
	return &PlanError{Transient, Response{Code: 451, Enhanced: EnhancedCode{4, 4, 4}, Text: safeText("delivery: " + why)}, nil}
}

// eligible reports whether a way's source may be chosen now, and if so counts the choice, unless the caller
// only wants to know. The last of several sources may be full: then the message waits for it.
func (r *Runtime) eligible(w *way, only, last bool) bool {
	if _, suspended := r.state.health.Suspended(w.source.config.Name); suspended {
		return false
	}
	if !last && r.state.smtp.Waiting(w.ready)+r.state.lua.Waiting(w.ready)+int(w.name.Gathered.Load()) >= w.path.config.MaxReady {
		return false
	}
	switch {
	case w.selecting == nil:
		return true
	case only:
		return w.selecting.Ahead(time.Now(), 1) <= 0
	}
	return w.selecting.Pass(time.Now()) == 0
}

// HostError is the failure of one host or address of a plan.
type HostError struct {
	// Host is the name, Address "192.0.2.7:25"; the address is empty where none was found.
	Host    string
	Address string
	// TLS is what was asked of it.
	TLS TLSPolicy
	Err error
}

func (e *HostError) Error() string {
	if e.Address == "" {
		return fmt.Sprintf("%s: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("%s (%s): %v", e.Host, e.Address, e.Err)
}

// Unwrap returns the cause.
func (e *HostError) Unwrap() error { return e.Err }

// smtpEngine delivers by SMTP or LMTP.
type smtpEngine struct {
	runtime *Runtime
	list    *route // of the mx_list; nil: MX records
	sources sourcePicker
	ways    egress.Dated[wayName, *way] // each for as long as what the DNS said of it may be used

	mu   sync.Mutex
	open map[*smtpSession]struct{} // what this engine opened and is not closed yet
}

func newSMTPEngine(r *Runtime, c *SMTP, pool string) (*smtpEngine, error) {
	e := &smtpEngine{runtime: r, sources: sourcePicker{runtime: r, pool: pool}, open: map[*smtpSession]struct{}{}}
	e.ways.Max = maxWays
	if len(c.MXList) > 0 {
		list, err := c.route()
		if err != nil {
			return nil, decode.In("protocol.smtp", err)
		}
		e.list = list
	}
	return e, nil
}

// way is where an attempt goes: its ready name, and how and to whom to speak. It is shared by attempts, and
// so never changed once it was found.
type way struct {
	asked  string // the name by which the pool asks for the source
	ready  string
	site   string
	path   *keyed[EgressPath]
	held   egress.Held[*keyed[EgressPath]] // custom Lua: the path, as long as it may be used
	source *keyed[EgressSource]
	plan   []candidate
	keys   []string                   // the connection keys of what can be tried
	batch  unique.Handle[luaBatchKey] // custom Lua: what may go together

	name      *ready.Name
	request   sessions.Request // but for its keys
	selecting *sessions.Pace   // nil: the source may always be chosen
}

// limit completes a way by what limits it, once its ready name and its egress path are known.
func (r *Runtime) limit(w *way) {
	path := &w.path.config
	s := r.ready()
	w.name = s.names.Name(w.ready)
	w.request = sessions.Request{
		Group:       w.ready,
		Limit:       path.ConnectionLimit.internal(),
		Shared:      sharedLimits(path.AdditionalConnectionLimits),
		MaxWaiting:  path.MaxReady,
		IdleTimeout: time.Duration(path.IdleTimeout),
		Patience:    time.Duration(path.IdleTimeout),
		MaxUses:     path.MaxDeliveriesPerConnection,
		Grace:       path.grace(),
	}
	if rates := namedRates("message", w.ready, path.MaxMessageRate, path.AdditionalMessageRateThrottles); len(rates) > 0 {
		w.request.Lending = s.rates.Gate(rates...)
	}
	if rates := namedRates("connection", w.ready, path.MaxConnectionRate, nil); len(rates) > 0 {
		w.request.Opening = s.rates.Gate(rates...)
	}
	if rates := namedRates("selection", w.ready, path.SourceSelectionRate, path.AdditionalSourceSelectionRates); len(rates) > 0 {
		w.selecting = s.rates.Gate(rates...)
	}
}

// expect says how many messages a connection that is being opened is going to carry at once, by what is known
// of the host that it goes to first.
func (r *Runtime) expect(w *way) func() int {
	path := &w.path.config
	i := slices.IndexFunc(w.plan, usable)
	if i < 0 || path.EnablePipelining == Off || path.EnableRSET == Off || path.MaxPipelinedMessages == 1 {
		return nil
	}
	peer := r.state.peers.Peer(w.plan[i].peer())
	return func() int { return peer.Comfort(path.MaxPipelinedMessages) }
}

// grace is system_shutdown_timeout.
func (p *EgressPath) grace() time.Duration {
	return time.Duration(cmp.Or(p.SystemShutdownTimeout, p.MailFromTimeout+p.RcptToTimeout+p.DataTimeout+p.DataDotTimeout))
}

func sharedLimits(limits map[string]Limit) []sessions.Shared {
	var shared []sessions.Shared
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		shared = append(shared, sessions.Shared{Name: name, Limit: limits[name].internal()})
	}
	return shared
}

// namedRates are the rate of a ready name and those that it shares, with the names that they are counted
// under.
func namedRates(kind, readyName string, own Rate, shared map[string]Rate) []sessions.Named {
	var rates []sessions.Named
	if own != (Rate{}) {
		rates = append(rates, sessions.Named{Name: kind + " " + readyName, Rate: own.internal()})
	}
	for _, name := range slices.Sorted(maps.Keys(shared)) {
		rates = append(rates, sessions.Named{Name: kind + ":" + name, Rate: shared[name].internal()})
	}
	return rates
}

func (l Limit) internal() int { return int(min(l.Count, math.MaxInt)) }

func (r Rate) internal() sessions.Rate {
	return sessions.Rate{Limit: r.Limit, Per: r.Per, Burst: r.MaxBurst}
}

func (w *way) protocol() string {
	if w.path.config.UseLMTP {
		return "lmtp"
	}
	return "smtp"
}

// unopened describes the session of a way on which none was opened; nil if not even its name is known.
func (w *way) unopened() *Session {
	switch {
	case w.ready == "":
		return nil
	case w.path == nil:
		return &Session{ReadyName: w.ready, Source: w.source.config.Name, Protocol: "smtp"}
	}
	return &Session{ReadyName: w.ready, Source: w.source.config.Name, Protocol: w.protocol()}
}

// wayFrom finds the way from a source. What was found before is taken again while everything that it was
// made of holds: source, egress path, and the answers of the DNS. Equals are in random order, each time.
func (e *smtpEngine) wayFrom(ctx context.Context, a *attempt, asked string, source *keyed[EgressSource]) (*way, *PlanError) {
	name := wayName{a.queue.routing(), asked, a.msg.demand()}
	if known, ok := e.ways.Get(name); ok && known.source == source && !known.name.Gone() {
		path, err := e.runtime.egressPath(ctx, pathName{name.routing, source.config.Name, known.site})
		if err == nil && path == known.path {
			return known.shuffled(), nil
		}
	}
	w, keep, failed := e.resolve(ctx, a, asked, source)
	if t := e.runtime.Trace; t != nil && t.Resolved != nil {
		t.Resolved(a.queue, w.public(), errorOrNil(failed))
	}
	if failed != nil {
		return w, failed
	}
	if old := e.ways.Put(name, w, keep); old != nil && old.ready == w.ready && old.digest() != w.digest() && e.runtime.state.smtp.Knows(old.ready) {
		// What was opened under the old config serves nobody any more.
		e.runtime.state.smtp.Drain(func(group, key string) bool {
			return group == old.ready && strings.HasPrefix(key, old.digest())
		})
	}
	return w.shuffled(), nil
}

// errorOrNil is the error interface's nil for a pointer that is nil.
func errorOrNil(failed *PlanError) error {
	if failed == nil {
		return nil
	}
	return failed
}

// digest stands for the whole path and source, so that no option can be forgotten.
func (w *way) digest() string { return w.path.digest + w.source.digest }

// resolve makes the way for a queue from a source, and says until when what the DNS answered may be used;
// zero: the DNS was not asked.
func (e *smtpEngine) resolve(ctx context.Context, a *attempt, asked string, source *keyed[EgressSource]) (w *way, keep time.Time, failed *PlanError) {
	r := e.runtime
	ctx, release := r.bound(ctx)
	defer release()
	w = &way{asked: asked, source: source}
	dns := &datedResolver{Resolver: r.state.resolver}
	to := e.list
	if to == nil {
		if to, failed = r.routeOf(ctx, dns, a); failed != nil {
			if failed == errNullMX { // whose site has no name
				w.ready = source.config.Name + "->@smtp_client"
			}
			return w, keep, failed
		}
	}
	w.site = to.site
	w.ready = source.config.Name + "->" + to.site + "@smtp_client"
	var err error
	if w.path, err = r.egressPath(ctx, pathName{a.queue.routing(), source.config.Name, to.site}); err != nil {
		return w, keep, unresolved(a.queue, err)
	}
	r.limit(w)
	p := planner{dns: dns, path: &w.path.config, source: &source.config, self: r.isOwn, wants: a.msg.demand()}
	w.plan, failed = p.plan(ctx, to)
	r.reportPolicies(w, to)
	if failed != nil {
		return w, keep, failed
	}
	for i := range w.plan {
		w.plan[i].key = w.key(&w.plan[i])
	}
	w.keys = appendKeys(make([]string, 0, len(w.plan)), w.plan)
	w.request.Expect = r.expect(w)
	return w, to.until(dns.expires), nil
}

// shuffled is the way with those of its candidates that are equal in random order.
func (w *way) shuffled() *way {
	if !hasEquals(w.plan) {
		return w
	}
	another := &struct {
		way
		room [8]string // for its keys, which are few as a rule
	}{way: *w}
	another.plan = slices.Clone(w.plan)
	shuffleEquals(another.plan)
	another.keys = appendKeys(another.room[:0], another.plan)
	return &another.way
}

// appendKeys appends the keys of what can be tried of a plan.
func appendKeys(keys []string, plan []candidate) []string {
	for i := range plan {
		if usable(plan[i]) {
			keys = append(keys, plan[i].key)
		}
	}
	return keys
}

// wayName is what the ways of an engine differ by.
type wayName struct {
	routing, source string
	wants           demand
}

// maxWays is how many ways an engine keeps.
const maxWays = 100_000

func (e *smtpEngine) plan(ctx context.Context, a *attempt) (Plan, error) {
	w, failed := e.sources.choose(ctx, a, true, e)
	return w.public(), errorOrNil(failed)
}

// public is the way as a host may see it.
func (w *way) public() Plan {
	plan := Plan{Protocol: "smtp", ReadyName: w.ready}
	if w.path != nil {
		plan.Protocol = w.protocol()
	}
	for _, c := range w.plan {
		h := PlannedHost{Host: c.host, Err: c.err}
		if c.tls != nil {
			h.TLS = c.tls.public
		}
		if c.addr.IsValid() || c.unix != "" {
			h.Address = c.address()
		}
		plan.Hosts = append(plan.Hosts, h)
	}
	return plan
}

// deliver delivers from one source of the pool, or from another where so many chose it at the same time that
// there was no room for all of them to wait.
func (e *smtpEngine) deliver(ctx context.Context, a *attempt) {
	for done := false; !done; {
		done = e.deliverFromOne(ctx, a)
	}
}

// deliverFromOne delivers from the source whose turn it is. It tells whether the attempt is over.
func (e *smtpEngine) deliverFromOne(ctx context.Context, a *attempt) (over bool) {
	w, failed := e.sources.choose(ctx, a, false, e)
	defer func() {
		if over {
			a.countIn(w)
		}
	}()
	if failed != nil && a.noRoom != nil {
		a.settleAll(*a.noRoom)
		return true
	}
	if failed != nil {
		if err := e.runtime.ended(ctx); err != nil && failed.Status == Transient {
			a.settleAll(unsent(err))
			return true
		}
		res := failed.resultOn(w)
		if _, ok := errors.AsType[*ConfigError](failed); ok {
			a.err = failed
		}
		a.settleAll(res)
		return true
	}
	content, err := e.inspect(ctx, a.msg.Body)
	if err != nil {
		if cause := e.runtime.ended(ctx); cause != nil {
			a.settleAll(unsent(cause))
			return true
		}
		a.settleAll(Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400,
			Text: safeText("delivery: error in deliver_message: cannot read the content: " + err.Error())}})
		return true
	}
	if why := w.unfit(a, content); why != "" {
		a.settleAll(Result{Status: Permanent, Scope: ScopeMessage, Session: w.unopened(),
			Response: Response{Code: 554, Enhanced: EnhancedCode{5, 6, 0}, Text: "delivery: " + why}})
		return true
	}
	c := &carrier{engine: e, way: w, size: a.msg.Body.Size()}
	defer c.done()
	return c.transact(ctx, a, content)
}

// countIn counts the results under the way's ready name.
func (a *attempt) countIn(w *way) {
	if w.name == nil {
		return
	}
	for i := range a.rcpts {
		switch a.results[a.rcpts[i].index].Status {
		case Delivered:
			w.name.Delivered.Add(1)
		case Permanent:
			w.name.Permanent.Add(1)
		case Unsent:
			w.name.Unsent.Add(1)
		default:
			w.name.Transient.Add(1)
		}
	}
}

// unfit says why the path refuses a content, if it does.
func (w *way) unfit(a *attempt, content *smtpclient.Content) string {
	path := &w.path.config
	switch {
	case a.binary():
		return ""
	case path.LineEnds == "refuse" && content.HasStray():
		return "the content holds a CR or an LF that is not part of a CRLF"
	case path.LongLines == "refuse" && content.HasLongLines():
		return "the content holds a line of more than 998 octets"
	}
	return ""
}

// inspect makes an inspected content of a body, which is to read it where it does not lie in memory.
func (e *smtpEngine) inspect(ctx context.Context, body Body) (*smtpclient.Content, error) {
	if b, ok := body.(Bytes); ok {
		content := smtpclient.BytesContent(b)
		return content, content.Inspect(ctx)
	}
	ctx, release := e.runtime.bound(ctx)
	defer release()
	content := smtpclient.StreamContent(body.Size(), func() (io.ReadCloser, error) { return open(body) })
	return content, content.Inspect(ctx)
}

// close ends the idle connections of the engine.
func (e *smtpEngine) close() {
	groups := map[string]bool{}
	e.mu.Lock()
	for s := range e.open {
		groups[s.info.ReadyName] = true
	}
	e.mu.Unlock()
	e.runtime.state.smtp.Drain(func(group, _ string) bool { return groups[group] })
}

// carrier holds the session that an attempt is using.
type carrier struct {
	engine *smtpEngine
	way    *way
	size   int64 // of the content
	lease  *sessions.Lease[*smtpSession]
	// avoid are the keys of the hosts that have failed this message and are not gone to again.
	avoid []string
	// counted: the message has passed all rates, and counts in none again.
	counted bool
	// sending: a transaction is under way, or a panic of the host's body has left it open.
	sending bool
}

// maxAgain bounds how often one message is sent again to recipients whom nobody judged: because the session
// had ended before its turn, or broke at the message of another call.
const maxAgain = 16

// transact sends the message and settles each of its recipients: max_recipients_per_batch of them in one
// transaction, fewer where the peer takes fewer. A recipient comes into another transaction where the message
// was not judged by its own merits, where it was one too many, or where the next host is to be tried. False:
// there was no room to wait for a session, and nothing is settled.
func (c *carrier) transact(ctx context.Context, a *attempt, content *smtpclient.Content) bool {
	most := c.way.path.config.MaxRecipientsPerBatch
	env := &a.envelope
	env.From, env.Options, env.Rcpts = a.sender.Text(a.msg.From), a.msg.MailOptions, a.oneRcpt[:0]
	if n := min(len(a.rcpts), most); n > 1 {
		env.Rcpts = make([]smtpclient.Rcpt, 0, n)
	}
	left := a.rcpts
	for again := 0; len(left) > 0; {
		s, res := c.session(ctx)
		if s == nil {
			res.Session = c.way.unopened()
			if res.Err == ErrFull && !c.counted { // it never had a session
				a.full, a.noRoom = append(a.full, c.way.asked), new(res)
				return false
			}
			for i := range left {
				c.judge(ctx, a, &left[i], res)
			}
			return true
		}
		part := left[:min(len(left), most, s.maxRcpts)]
		env.Rcpts = env.Rcpts[:0]
		for _, r := range part {
			env.Rcpts = append(env.Rcpts, smtpclient.Rcpt{Address: a.results[r.index].Recipient, Options: r.options})
		}
		tx := c.send(ctx, s, env, content)
		v := verdict{tx: tx, again: tx.Again && again < maxAgain, elsewhere: c.goElsewhere(s, tx)}
		if v.again {
			again++
		}
		if i := slices.IndexFunc(tx.Results, func(r smtpclient.Result) bool { return tooMany(&r) && !r.Local }); i > 0 {
			most = min(most, i) // it need not be told again
		}
		left = c.settle(ctx, a, s, content, part, left[len(part):], v)
	}
	return true
}

// send carries out one transaction.
func (c *carrier) send(ctx context.Context, s *smtpSession, env *smtpclient.Envelope, content *smtpclient.Content) *smtpclient.Transaction {
	began := time.Now()
	c.sending = true
	tx := s.wire.Send(ctx, env, content)
	c.sending = false
	if t := c.engine.runtime.Trace; t != nil && t.Transaction != nil {
		t.Transaction(s.copyInfo(), transactionTrace(env, c.size, tx, time.Since(began)))
	}
	if !s.wire.Usable() {
		if s.wire.Broken() {
			s.broke()
		}
		c.give((*sessions.Lease[*smtpSession]).Retire) // others may still be using it
	}
	return tx
}

// verdict is what became of a transaction, and what is to be done about those of its recipients whom it has
// not settled.
type verdict struct {
	tx *smtpclient.Transaction
	// again: whom nobody judged is sent again, to any host.
	again bool
	// elsewhere: whom the connection failed, or who was told 421, or to whom this host cannot carry the message, is sent
	// to another host.
	elsewhere bool
}

// goElsewhere decides whether a message is sent to another host after its connection failed, or where this one
// does not give what it requires, and if so avoids this one.
func (c *carrier) goElsewhere(s *smtpSession, tx *smtpclient.Transaction) bool {
	failed := c.way.path.config.TryNextHostOnTransportError && slices.ContainsFunc(tx.Results, transportFailed)
	if !failed && !slices.ContainsFunc(tx.Results, lacksTLS) {
		return false
	}
	before := c.avoid
	c.avoid = append(slices.Clone(before), s.key)
	if len(c.keys()) == 0 {
		c.avoid = before
		return false
	}
	switch {
	case c.lease == nil:
	case failed:
		c.give((*sessions.Lease[*smtpSession]).Retire)
	default: // others are content with it
		c.give((*sessions.Lease[*smtpSession]).Release)
	}
	return true
}

// lacksTLS tells of a recipient to whom nothing was sent because this host does not give the message the TLS that it
// requires all the way. Each of the others may (RFC 8689 section 4.2.1).
func lacksTLS(r smtpclient.Result) bool {
	return r.Local && (r.Reply.Enhanced == smtpclient.Enhanced{5, 7, 30} || r.Reply.Enhanced == smtpclient.Enhanced{5, 7, 10})
}

// transportFailed tells of a recipient that the connection failed, or the peer left, and not for what the
// body or we ourselves did. What the peer may have is not sent to another: that would double it.
func transportFailed(r smtpclient.Result) bool {
	if r.Err == nil {
		return r.Reply.Code == 421 && !r.Local
	}
	e, ok := errors.AsType[*smtpclient.TransactionError](r.Err)
	return ok && !r.MaybeDelivered && (e.Kind == smtpclient.Timeout || e.Kind == smtpclient.Closed || e.Kind == smtpclient.Write)
}

// settle gives their results to the recipients of a transaction, and returns those that are to be tried
// in another one, the rest of the message's among them.
func (c *carrier) settle(ctx context.Context, a *attempt, s *smtpSession, content *smtpclient.Content, part, rest []recipient, v verdict) []recipient {
	info := s.describe(v.tx)
	var first, last []recipient
	takesSome := !tooMany(&v.tx.Results[0]) // else the next transaction would fare no better
	for i := range part {
		to, r := &part[i], &v.tx.Results[i]
		if v.again && r.Err != nil {
			first = append(first, *to)
			continue
		}
		res := s.resultOf(r, v.tx)
		res.Session, res.ContentChanged = info, v.tx.ContentBegan && content.Changed() && !a.binary()
		switch {
		case v.elsewhere && (lacksTLS(*r) || c.way.path.config.TryNextHostOnTransportError && transportFailed(*r)):
			to.before = new(res)
			first = append(first, *to)
		case i > 0 && !to.crowded && maybeTooMany(r), i > 0 && takesSome && tooMany(r):
			to.crowded, to.before = true, new(res)
			last = append(last, *to)
		default:
			c.judge(ctx, a, to, res)
		}
	}
	if first == nil && last == nil {
		return rest
	}
	return slices.Concat(first, rest, last)
}

// judge gives a recipient its result. One that was tried before, when nothing more can be tried, has the result
// that it had then.
func (c *carrier) judge(ctx context.Context, a *attempt, to *recipient, res Result) {
	if res.Status == Unsent && to.before != nil {
		res = *to.before
	}
	c.engine.runtime.rewrite(ctx, a, &res)
	a.settle(to, res)
}

// binary reports whether the content goes out octet for octet.
func (a *attempt) binary() bool {
	return a.msg.MailOptions != nil && a.msg.MailOptions.Body == smtp.BodyBinaryMIME
}

// session returns the session to use next. Without one the result says why.
func (c *carrier) session(ctx context.Context) (s *smtpSession, why Result) {
	if err := c.engine.runtime.ended(ctx); err != nil {
		return nil, unsent(err)
	}
	if c.lease != nil {
		if s, ok := c.lease.Session(); ok {
			return s, Result{}
		}
	}
	request := c.way.request
	request.Keys, request.Passed = c.keys(), c.counted
	lease, err := c.engine.runtime.state.smtp.Acquire(ctx, request)
	if err != nil {
		return nil, c.engine.runtime.notAcquired(c.way, err)
	}
	c.lease = lease
	if s, why = c.admitted(ctx); s == nil {
		c.give((*sessions.Lease[*smtpSession]).Release)
		return nil, why
	}
	return s, Result{}
}

// admitted is the session of the lease, opened if there is none yet, once the message has passed what other
// processes share.
func (c *carrier) admitted(ctx context.Context) (*smtpSession, Result) {
	r := c.engine.runtime
	if t := r.Trace; t != nil && t.Throttled != nil {
		if waited := c.lease.Waited(); waited > 0 {
			t.Throttled(c.way.ready, waited, nil)
		}
	}
	if !c.counted {
		if why := r.passShared(ctx, c.way); why != nil {
			return nil, *why
		}
		c.counted = true
	}
	var shared sharedRoom
	for {
		if s, ok := c.lease.Session(); ok {
			c.way.name.Reused.Add(1)
			if t := r.Trace; t != nil && t.Reused != nil {
				t.Reused(s.copyInfo())
			}
			return s, Result{}
		}
		release, wait, err := shared.hold(ctx, r, c.way)
		switch {
		case err != nil:
			return nil, r.notHeld(ctx, err)
		case wait == 0:
			return c.open(ctx, release)
		}
		if c.lease, err = c.lease.Postpone(ctx, wait); err != nil {
			return nil, r.notAcquired(c.way, shared.delayed(err))
		}
	}
}

// open opens a session and puts it into the lease. What it holds of limits that other processes share is
// released when it has ended.
func (c *carrier) open(ctx context.Context, release func()) (*smtpSession, Result) {
	e := c.engine
	var s *smtpSession
	defer func() {
		if s == nil { // it could not be opened, or something of the host's panicked
			release()
		}
	}()
	s, err := e.connect(ctx, c.way, c.avoid)
	if err != nil {
		if cause := e.runtime.endedBy(ctx, err); cause != nil {
			return nil, unsent(cause)
		}
		return nil, e.unreached(c.way, err)
	}
	s.release = release
	c.lease.Opened(s.key, s)
	return s, Result{}
}

// unreached is the result of a message for which no host could be reached.
func (e *smtpEngine) unreached(w *way, err error) Result {
	res := Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{
		Code: 400, Text: safeText("delivery: failed to connect to any candidate hosts: " + inCommon(&w.source.config, err) + oneLine(err))}}
	if tooOften := w.unreached(err); tooOften != nil {
		res.Scope = ScopeReadyName
		e.runtime.state.smtp.Refuse(w.ready, tooOften)
	}
	return res
}

// unreached counts a call for which no connection could be made. When that has been so too often in a row, the
// error is for whoever waits for one.
func (w *way) unreached(err error) *PlanError {
	n := w.name.Unreached()
	if n <= w.path.config.ConsecutiveConnectionFailuresBeforeDelay {
		return nil
	}
	return &PlanError{Transient, Response{Code: 451, Enhanced: EnhancedCode{4, 4, 1},
		Text: safeText(fmt.Sprintf("delivery: no host could be reached %d times in a row: %s", n, oneLine(err)))}, err}
}

// notAcquired is the result of a call that got no session.
func (r *Runtime) notAcquired(w *way, err error) Result {
	if failed, ok := errors.AsType[*PlanError](err); ok {
		return failed.result()
	}
	if delayed, ok := errors.AsType[*sessions.Delayed](err); ok {
		which := "max_message_rate"
		if delayed.Opening {
			which = "max_connection_rate"
		}
		return r.throttled(w, which, delayed.RetryAfter)
	}
	switch {
	case errors.Is(err, sessions.ErrClosed):
		return unsent(ErrClosed)
	case errors.Is(err, sessions.ErrFull):
		return Result{Status: Unsent, Scope: ScopeReadyName, RetryAfter: fullDelay(), Err: ErrFull}
	}
	return unsent(err)
}

// throttled is the result of a call that a rate or a limit sends away.
func (r *Runtime) throttled(w *way, which string, wait time.Duration) Result {
	err := &ThrottledError{ReadyName: w.ready, Option: which, RetryAfter: wait}
	w.name.Throttled.Add(1)
	if t := r.Trace; t != nil && t.Throttled != nil {
		t.Throttled(w.ready, wait, err)
	}
	return Result{Status: Unsent, Scope: ScopeReadyName, RetryAfter: wait, Err: err}
}

// give ends the lease in one of its ways.
func (c *carrier) give(back func(*sessions.Lease[*smtpSession])) {
	if c.lease != nil {
		back(c.lease)
		c.lease = nil
	}
}

// done gives the session back for the next message.
func (c *carrier) done() {
	switch {
	case c.lease == nil:
	case c.sending:
		c.lease.Retire()
	default:
		c.lease.Release()
	}
}

// keys are those of the hosts that may serve the message.
func (c *carrier) keys() []string {
	if len(c.avoid) == 0 {
		return c.way.keys
	}
	return slices.DeleteFunc(slices.Clone(c.way.keys), func(key string) bool { return slices.Contains(c.avoid, key) })
}

// key is the connection key of a candidate: all that made the connection what it is.
func (w *way) key(c *candidate) string {
	key := w.digest() + c.host + "\x00" + c.address()
	if c.tls != nil {
		key += "\x00" + c.tls.key()
	}
	return key
}

// connect opens a session to the first host of the plan that lets it, but for those to avoid. It goes on
// with the plan of a session that has just broken, if there is one.
func (e *smtpEngine) connect(ctx context.Context, w *way, avoid []string) (*smtpSession, error) {
	ctx, release := e.runtime.opening(ctx, w.request.Grace)
	defer release()
	chain, _ := w.name.Successor()
	chain.ID = cmp.Or(chain.ID, newID())
	var failures []error
	var silent []string // addresses where nobody answered: under another name nobody would either
	for _, c := range w.inOrder(chain, avoid) {
		if c.err != nil {
			failures = append(failures, c.failed(c.err))
			continue
		}
		if slices.Contains(silent, c.address()) {
			continue
		}
		if !slices.Contains(chain.Tried, c.key) { // a session that reconnects to the same host does so without end
			chain.Tried = append(chain.Tried, c.key)
		}
		clear := c.tls.opportunistic() && e.runtime.state.brokenTLS.Is(c.peer())
		s, err := e.connectTo(ctx, w, c, chain, clear)
		if err != nil && !clear && e.runtime.inClearAfter(ctx, w, c, err) {
			failures = append(failures, c.failed(err))
			s, err = e.connectTo(ctx, w, c, chain, true) // never on the connection where TLS was tried
		}
		if err == nil {
			w.name.Reached()
			return s, nil
		}
		failures = append(failures, c.failed(err))
		if _, spoken := errors.AsType[*smtpclient.OpenError](err); !spoken {
			silent = append(silent, c.address())
		}
		if ctx.Err() != nil {
			failures = append(failures, context.Cause(ctx))
			break
		}
	}
	return nil, errors.Join(failures...)
}

// inOrder are the candidates in the order in which a session is to try them: those that it has tried come
// last.
func (w *way) inOrder(chain ready.Chain, avoid []string) []*candidate {
	var first, untried, tried []*candidate
	for i := range w.plan {
		c := &w.plan[i]
		switch {
		case c.err != nil:
			untried = append(untried, c)
		case slices.Contains(avoid, c.key):
		case c.key == chain.First:
			first = append(first, c)
		case slices.Contains(chain.Tried, c.key):
			tried = append(tried, c)
		default:
			untried = append(untried, c)
		}
	}
	return slices.Concat(first, untried, tried)
}

// inClearAfter tells whether an address is to be spoken to in clear, at once, after TLS could not be agreed on
// with it; and remembers it. A handshake that stalls has failed.
func (r *Runtime) inClearAfter(ctx context.Context, w *way, c *candidate, err error) bool {
	if !c.tls.opportunistic() || ctx.Err() != nil || !tlsFailed(err) {
		return false
	}
	path := &w.path.config
	within := time.Duration(path.RememberBrokenTLS)
	if within == 0 && path.ReconnectInClearOnFailedHandshake {
		within = brokenTLSWithin
	}
	r.state.brokenTLS.Note(c.peer(), within)
	return path.ReconnectInClearOnFailedHandshake || c.tls.rule.Mode == tlspolicy.OpportunisticInsecure
}

// brokenTLSWithin is remember_broken_tls where only opportunistic_tls_reconnect_on_failed_handshake is said.
const brokenTLSWithin = 15 * time.Minute

// tlsFailed: the peer offered TLS, and it came to nothing, other than by a refusal or by what somebody on the way
// put in.
func tlsFailed(err error) bool {
	failed, ok := errors.AsType[*smtpclient.OpenError](err)
	if !ok {
		return false
	}
	broken, _ := errors.AsType[*smtpclient.TransactionError](failed.Err)
	switch failed.Stage {
	case smtpclient.StageTLS:
		return true
	case smtpclient.StageEHLO:
		return failed.UnderTLS
	case smtpclient.StageStartTLS:
		return broken != nil && (broken.Kind == smtpclient.Timeout || broken.Kind == smtpclient.Closed)
	}
	return false
}

// connectTo opens a session to one address: connection, greeting, EHLO, TLS, AUTH. In clear means without the
// TLS that the rule for the host would use if it could.
func (e *smtpEngine) connectTo(ctx context.Context, w *way, c *candidate, chain ready.Chain, clear bool) (*smtpSession, error) {
	r := e.runtime
	s := &smtpSession{engine: e, way: w, key: c.key, chain: chain,
		info: Session{ID: chain.ID, Protocol: w.protocol(), ReadyName: w.ready, Peer: c.host, Source: w.source.config.Name, TLSPolicy: c.tls.public}}
	cfg, err := r.clientConfig(w, c, s)
	if err != nil {
		return nil, err
	}
	s.verifiedBy = c.tls.secure(cfg)
	if clear {
		cfg.TLS = smtpclient.TLSDisabled
	}
	cfg.Began = time.Now()
	conn, source, err := r.dial(ctx, w, c)
	if err != nil {
		if ended(ctx) == nil { // else it failed because nobody waits for it any more
			r.blame(&w.source.config, err)
		}
		return nil, err
	}
	s.wire, err = smtpclient.Open(ctx, conn, cfg)
	told := false
	defer func() {
		if !told && s.wire != nil { // a hook panicked
			s.wire.Close()
		}
	}()
	if !clear && ctx.Err() == nil {
		r.reportTLS(s, c, err)
	}
	if err != nil {
		return nil, err
	}
	s.opened()
	if w.source.config.proxy() != "" && c.unix == "" {
		s.info.Proxy, s.info.RemoteAddr = s.info.RemoteAddr, c.address()
		if s.info.LocalAddr = ""; source.IsValid() && !source.Addr().IsUnspecified() {
			s.info.LocalAddr = source.String()
		}
	}
	if t := r.Trace; t != nil && t.Opened != nil {
		t.Opened(s.copyInfo())
	}
	told = true
	e.mu.Lock()
	e.open[s] = struct{}{}
	e.mu.Unlock()
	return s, nil
}

// reportTLS tells what came of TLS with a host.
func (r *Runtime) reportTLS(s *smtpSession, c *candidate, err error) {
	t := r.Trace
	if t == nil || t.TLSReport == nil || c.tls.rule.Mode == tlspolicy.Disabled {
		return
	}
	report := c.tls.report
	report.Address = c.address()
	if err != nil {
		failed, ok := errors.AsType[*smtpclient.OpenError](err)
		if !ok || failed.Stage == smtpclient.StageBanner || failed.Stage == smtpclient.StageAuth || failed.Stage == smtpclient.StageEHLO && !failed.UnderTLS {
			return // it did not come to TLS, or went beyond it
		}
		report.Failure, report.Err = tlsFailure(err), err
	} else {
		info := s.wire.Info()
		report.Source, report.Sent = info.LocalAddr, true
		switch {
		case info.TLS == nil:
			report.Failure, report.Err = "starttls-not-supported", errors.New("the peer does not offer STARTTLS")
		case report.Failure != "": // of the policy itself
		case info.Doubt != nil:
			report.Failure, report.Err = tlsFailure(info.Doubt), info.Doubt
		}
	}
	t.TLSReport(s.info.ReadyName, report)
}

// reportPolicies tells which policies could not be had: of the domain, and of its hosts.
func (r *Runtime) reportPolicies(w *way, to *route) {
	t := r.Trace
	if t == nil || t.TLSReport == nil {
		return
	}
	if to.sts != nil && to.sts.Failure() != mtasts.NoFailure {
		t.TLSReport(w.ready, TLSReport{Domain: to.domain, PolicyType: "sts", PolicyDomain: to.domain,
			Failure: to.sts.Failure().String(), Err: to.sts.Err})
	}
	told := map[*hostTLS]bool{} // the addresses of a host have one
	for _, c := range w.plan {
		if c.tls != nil && c.tls.rule.Refuse == tlspolicy.DANEUnknown && !told[c.tls] {
			told[c.tls] = true
			t.TLSReport(w.ready, c.tls.report)
		}
	}
}

// tlsFailure is a failure as RFC 8460 section 4.3 names it.
func tlsFailure(err error) string {
	if named, ok := errors.AsType[interface {
		error
		FailureType() string
	}](err); ok {
		return named.FailureType()
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return "certificate-expired"
		}
		return "certificate-not-trusted"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "certificate-not-trusted"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "certificate-host-mismatch"
	}
	failed, ok := errors.AsType[*smtpclient.OpenError](err)
	if errors.Is(err, smtpclient.ErrNoSTARTTLS) || ok && failed.Stage == smtpclient.StageStartTLS && failed.Reply != nil {
		return "starttls-not-supported"
	}
	return "validation-failure"
}

// dial connects to a candidate within connect_timeout, through the source's proxy if it has one. It returns
// the address that the candidate sees, where the proxy tells.
func (r *Runtime) dial(ctx context.Context, w *way, c *candidate) (conn net.Conn, source netip.AddrPort, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.path.config.ConnectTimeout))
	defer cancel()
	to := DialRequest{Network: c.network(), Address: c.address(), Host: c.host}
	if c.unix != "" {
		conn, err = r.connect(ctx, w.ready, to)
		return conn, source, err
	}
	to.Source = w.source.config.SourceAddress
	if w.source.config.proxy() != "" {
		return r.dialThrough(ctx, w, c, to)
	}
	conn, err = r.connect(ctx, w.ready, to)
	return conn, source, err
}

// dialThrough connects to a candidate through the first address of the proxy that lets it.
func (r *Runtime) dialThrough(ctx context.Context, w *way, c *candidate, to DialRequest) (net.Conn, netip.AddrPort, error) {
	via, err := w.source.config.via()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	server, err := proxyTarget(w.source.config.proxy())
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	addrs := []netip.Addr{server.addr}
	if !server.addr.IsValid() {
		at := lookupAddrs(ctx, r.state.resolver, server.name, "")
		if at.err != nil {
			return nil, netip.AddrPort{}, &proxyError{server.name, at.err}
		}
		addrs = at.addrs
	}
	var failures []error
	for _, addr := range addrs {
		if to.Source.IsValid() && addr.Unmap().Is4() != to.Source.Unmap().Is4() {
			failures = append(failures, fmt.Errorf("source_address %s is of another address family than the proxy's %s", to.Source, addr))
			continue
		}
		to.Host, to.Address, to.Beyond = server.name, netip.AddrPortFrom(addr.Unmap(), server.port).String(), c.address()
		conn, err := r.connect(ctx, w.ready, to)
		if err == nil {
			source, err := via.Handshake(ctx, conn, c.addr)
			if err == nil {
				return conn, source, nil
			}
			conn.Close()
			failures = append(failures, &proxyError{to.Address, err})
		} else {
			failures = append(failures, &proxyError{to.Address, err})
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, netip.AddrPort{}, errors.Join(failures...)
}

// proxyError is a failure of a proxy, or of the way to it.
type proxyError struct {
	server string
	err    error
}

func (e *proxyError) Error() string { return "proxy " + e.server + ": " + e.err.Error() }
func (e *proxyError) Unwrap() error { return e.err }

// connect makes one connection.
func (r *Runtime) connect(ctx context.Context, readyName string, to DialRequest) (net.Conn, error) {
	t := r.Trace
	if t != nil && t.Dialing != nil {
		t.Dialing(readyName, to)
	}
	conn, err := r.socket(ctx, to)
	if t != nil && t.Dialed != nil {
		told := false
		defer func() {
			if !told && err == nil { // the hook panicked, and nobody is going to have the connection
				conn.Close()
			}
		}()
		t.Dialed(readyName, to, err)
		told = true
	}
	return conn, err
}

// socket is a connection made by the host's dialer, or the system's.
func (r *Runtime) socket(ctx context.Context, to DialRequest) (net.Conn, error) {
	if r.Dial != nil {
		conn, err := r.Dial(ctx, to)
		if conn == nil && err == nil {
			err = errors.New("the dialer returned no connection")
		}
		return conn, err
	}
	var d net.Dialer
	if to.Source.IsValid() {
		d.LocalAddr, d.Control = net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Source, 0)), egress.LateBind
	}
	return d.DialContext(ctx, to.Network, to.Address)
}

// proxy is the proxy that connections go through; empty: none.
func (s *EgressSource) proxy() string { return cmp.Or(s.HAProxyServer, s.SOCKS5ProxyServer) }

// proxySource is the address that the proxy connects from; invalid: it is the proxy's to choose.
func (s *EgressSource) proxySource() netip.Addr {
	if s.HAProxyServer != "" {
		return s.HAProxySourceAddress
	}
	return s.SOCKS5ProxySourceAddress
}

// via says what to tell the proxy.
func (s *EgressSource) via() (*proxy.Via, error) {
	if s.HAProxyServer != "" {
		return &proxy.Via{Kind: proxy.HAProxy, Source: s.HAProxySourceAddress}, nil
	}
	password, err := s.SOCKS5ProxyPassword.load()
	if err != nil {
		return nil, fmt.Errorf("socks5_proxy_password: %w", err)
	}
	return &proxy.Via{Kind: proxy.SOCKS5, Source: s.SOCKS5ProxySourceAddress, Username: s.SOCKS5ProxyUsername, Password: string(password)}, nil
}

// blame suspends a source as its rules say, where it is to blame for a connection that failed.
func (r *Runtime) blame(s *EgressSource, err error) {
	var rule *Suspension
	switch _, proxied := errors.AsType[*proxyError](err); {
	case s.SourceAddress.IsValid() && isUnplumbed(err):
		rule = s.SuspendWhenUnplumbed
	case proxied && !proxyIsWell(err):
		rule = s.SuspendWhenProxyUnhealthy
	}
	if rule != nil && r.state.health.Failed(s.Name, rule.rule()) {
		r.logger().Warn("egress source is suspended", "source", s.Name, "for", rule.Duration.String(), "error", err)
	}
}

// isUnplumbed: the address to bind is none of this machine's. To connect may fail in the same words, for want
// of a port or of a route.
func isUnplumbed(err error) bool {
	call, ok := errors.AsType[*os.SyscallError](err)
	return errors.Is(err, syscall.EADDRNOTAVAIL) && (!ok || call.Syscall == "bind")
}

// proxyIsWell: the proxy has answered all that is for itself to answer, and refuses the destination, or was
// still trying to reach it.
func proxyIsWell(err error) bool {
	failed, ok := errors.AsType[*proxy.Error](err)
	return ok && failed.Step == "connect" && !errors.Is(err, proxy.ErrUnplumbed)
}

// inCommon says what the failures of all hosts have in common, if that says more than they do.
func inCommon(s *EgressSource, err error) string {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	every := func(is func(error) bool) bool {
		return !slices.ContainsFunc(all, func(err error) bool { return !is(err) })
	}
	throughProxy := func(err error) bool { _, ok := errors.AsType[*proxyError](err); return ok }
	switch {
	case s.SourceAddress.IsValid() && every(isUnplumbed):
		return "source_address is no address of this machine: "
	case every(func(err error) bool { return errors.Is(err, proxy.ErrUnplumbed) }):
		return "the proxy cannot use the source address that it is told to: "
	case every(func(err error) bool { return throughProxy(err) && !proxyIsWell(err) }):
		return "the proxy cannot be used: "
	}
	return ""
}

// clientConfig says to the wire engine what the egress path says to us.
func (r *Runtime) clientConfig(w *way, c *candidate, s *smtpSession) (*smtpclient.Config, error) {
	path := &w.path.config
	name, err := address.ToASCII(cmp.Or(path.EHLODomain, w.source.config.EHLODomain, r.hostname()))
	if err != nil {
		return nil, fmt.Errorf("EHLO name: %w", err)
	}
	cfg := &smtpclient.Config{
		Host:              c.host,
		LocalName:         name,
		LMTP:              path.UseLMTP,
		TLS:               tlsModes[c.tls.rule.Mode],
		TLSConfig:         &tls.Config{RootCAs: r.RootCAs, MinVersion: tlsVersions[path.TLSMinVersion]},
		DisablePipelining: path.EnablePipelining == Off,
		DisableChunking:   path.EnableChunking == Off,
		MaxPipelined:      path.MaxPipelinedMessages,
		Peer:              r.state.peers.Peer(c.peer()),
		NoReset:           path.EnableRSET == Off,
		Ignore8BitChecks:  path.Ignore8BitChecks,
		Timeouts: smtpclient.Timeouts{
			Banner:   time.Duration(path.BannerTimeout),
			EHLO:     time.Duration(path.EHLOTimeout),
			StartTLS: time.Duration(path.STARTTLSTimeout),
			Auth:     time.Duration(path.AuthTimeout),
			MailFrom: time.Duration(path.MailFromTimeout),
			RcptTo:   time.Duration(path.RcptToTimeout),
			Data:     time.Duration(path.DataTimeout),
			DataDot:  time.Duration(path.DataDotTimeout),
			Reset:    time.Duration(path.RSETTimeout),
			Quit:     min(time.Duration(path.IdleTimeout), quitTimeout),
		},
	}
	if t := r.Trace; t != nil && (t.Sent != nil || t.Received != nil || t.Stage != nil || t.Reply != nil) {
		cfg.Trace = &smtpclient.Trace{}
		if t.Stage != nil {
			cfg.Trace.Stage = func(stage smtpclient.Stage, took time.Duration, err error) {
				t.Stage(s.copyInfo(), stage.String(), took, err)
			}
		}
		if t.Reply != nil {
			cfg.Trace.Reply = func(command string, reply smtpclient.Reply, took time.Duration) {
				t.Reply(s.copyInfo(), responseOf(&reply, command), took)
			}
		}
		if t.Sent != nil {
			cfg.Trace.Sent = func(line string) { t.Sent(s.copyInfo(), line) }
		}
		if t.Received != nil {
			cfg.Trace.Received = func(line string) { t.Received(s.copyInfo(), line) }
		}
	}
	if path.TLSCertificate != nil {
		cert, err := loadCertificate(path.TLSCertificate, path.TLSPrivateKey)
		if err != nil {
			return nil, fmt.Errorf("tls_certificate: %w", err)
		}
		cfg.TLSConfig.Certificates = []tls.Certificate{cert}
	}
	if path.SMTPAuthPlainUsername != "" {
		password, err := path.SMTPAuthPlainPassword.load()
		if err != nil {
			return nil, fmt.Errorf("smtp_auth_plain_password: %w", err)
		}
		cfg.Auth = &smtpclient.Auth{
			Username:        path.SMTPAuthPlainUsername,
			Password:        string(password),
			AllowWithoutTLS: path.AllowSMTPAuthPlainWithoutTLS,
			AllowUnverified: path.AllowSMTPAuthPlainWithoutValidCertificate,
		}
	}
	return cfg, nil
}

// quitTimeout bounds the wait for the reply to QUIT: nothing depends on it any more.
const quitTimeout = 2 * time.Second

var tlsModes = [...]smtpclient.TLSPolicy{
	tlspolicy.Opportunistic:         smtpclient.TLSOpportunistic,
	tlspolicy.OpportunisticInsecure: smtpclient.TLSOpportunisticInsecure,
	tlspolicy.Required:              smtpclient.TLSRequired,
	tlspolicy.RequiredInsecure:      smtpclient.TLSRequiredInsecure,
	tlspolicy.Disabled:              smtpclient.TLSDisabled,
}

var tlsVersions = map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func loadCertificate(cert, key *KeySource) (tls.Certificate, error) {
	certPEM, err := cert.load()
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := key.load()
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// smtpSession is a session in the pool.
type smtpSession struct {
	engine *smtpEngine
	way    *way // on which it was opened
	key    string
	chain  ready.Chain // what it goes on with if it breaks
	wire   *smtpclient.Session
	info   Session // not changed once the session is open: results share it
	// verifiedBy is what its certificate is checked against.
	verifiedBy string
	release    func() // gives back what it holds of limits that other processes share
	broken     sync.Once
	ended      sync.Once
	// maxRcpts is how many recipients the peer takes in one transaction.
	maxRcpts int
}

// Capacity is how many messages may be on their way or in line.
func (s *smtpSession) Capacity() int { return s.wire.Capacity() }

// Comfort is how many may be before a new connection serves the next one sooner.
func (s *smtpSession) Comfort() int { return s.wire.Comfort() }

// Alive looks whether the peer has hung up or said goodbye while nobody listened.
func (s *smtpSession) Alive() bool {
	if s.wire.Usable() && s.wire.Idle() == nil {
		return true
	}
	s.broke()
	return false
}

// broke lets the next connection go on where this one broke: reconnect_strategy. A session that has tried
// every host of its plan has no successor.
func (s *smtpSession) broke() {
	s.broken.Do(func() {
		path := &s.way.path.config
		chain, within := s.chain, time.Duration(path.IdleTimeout)
		switch path.ReconnectStrategy {
		case "ReconnectSameHost":
			chain.First = s.key
		case "TerminateSession":
			within = 0
		default:
			untried := func(key string) bool { return !slices.Contains(chain.Tried, key) }
			if !slices.ContainsFunc(s.way.keys, untried) {
				within = 0
			}
		}
		s.way.name.Broke(chain, within)
	})
}

// Retire says QUIT.
func (s *smtpSession) Retire(why sessions.Reason) {
	s.wire.Quit(0) // for as long as the config says
	s.end(string(why))
}

// Kill cuts the connection.
func (s *smtpSession) Kill() {
	s.wire.Close()
	s.end("cut")
}

func (s *smtpSession) end(why string) {
	s.ended.Do(func() {
		e := s.engine
		e.mu.Lock()
		delete(e.open, s)
		e.mu.Unlock()
		s.release()
		if t := e.runtime.Trace; t != nil && t.Closed != nil {
			t.Closed(s.copyInfo(), why)
		}
	})
}

// opened completes the description by what is known only now.
func (s *smtpSession) opened() {
	info := s.wire.Info()
	s.maxRcpts = cmp.Or(info.MaxRcpts, math.MaxInt)
	s.info.RemoteAddr, s.info.LocalAddr = info.RemoteAddr, info.LocalAddr
	if s.info.LocalAddr == "@" { // the end of a unix socket has no name
		s.info.LocalAddr = ""
	}
	if state := info.TLS; state != nil {
		s.info.TLS = &TLSInfo{
			Version: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), Verified: info.Verified, By: "none"}
		if info.Verified {
			s.info.TLS.By = s.verifiedBy
		}
	}
}

func (s *smtpSession) copyInfo() *Session {
	info := s.info
	return &info
}

// describe describes the session for a result, with the transcript if anything went wrong.
func (s *smtpSession) describe(tx *smtpclient.Transaction) *Session {
	if tx.Transcript == nil {
		return &s.info
	}
	info := s.copyInfo()
	info.Transcript = tx.Transcript
	return info
}

// resultOf judges what the wire engine reports of one recipient: the one place where a reply becomes
// a status.
func (s *smtpSession) resultOf(r *smtpclient.Result, tx *smtpclient.Transaction) Result {
	if r.Err != nil {
		return s.resultOfFailure(r, tx)
	}
	res := Result{
		Scope:    ScopeMessage,
		Response: responseOf(&r.Reply, r.Command),
	}
	if r.Command == "RCPT" || r.Accepted {
		res.Scope = ScopeRecipient
	}
	switch code := r.Reply.Code; {
	case r.Accepted:
		res.Status = Delivered
	case r.Command == "RCPT" && tooManyRecipients(&r.Reply), code >= 200 && code < 300: // 2yz here: out of step
		res.Status = Transient
	default:
		res.Status = statusOf(code)
	}
	return res
}

// responseOf is a reply with the command that it answers. The end of the content is "." whether DATA
// carried it or BDAT.
func responseOf(r *smtpclient.Reply, command string) Response {
	if command == "BDAT" {
		command = "."
	}
	return Response{r.Code, EnhancedCode(r.Enhanced), r.Text, command}
}

// tooManyRecipients: X.5.3 under any code, and 552 without an enhanced code, which RFC 5321 section
// 4.5.3.1.10 says to take for 452.
func tooManyRecipients(r *smtpclient.Reply) bool {
	return surelyTooMany(r) || r.Code == 552 && r.Enhanced == smtpclient.Enhanced{}
}

func surelyTooMany(r *smtpclient.Reply) bool { return r.Enhanced[1] == 5 && r.Enhanced[2] == 3 }

// tooMany tells of a recipient that was certainly one too many in its transaction.
func tooMany(r *smtpclient.Result) bool {
	return r.Err == nil && (r.Command == "RCPT" || r.Local) && surelyTooMany(&r.Reply)
}

// maybeTooMany tells of a recipient that may have been: 452 and 552 without an enhanced code are said of full
// mailboxes too.
func maybeTooMany(r *smtpclient.Result) bool {
	return r.Err == nil && r.Command == "RCPT" && (r.Reply.Code == 452 || r.Reply.Code == 552) && r.Reply.Enhanced == smtpclient.Enhanced{}
}

// resultOfFailure is the result of a recipient for whom no reply decided.
func (s *smtpSession) resultOfFailure(r *smtpclient.Result, tx *smtpclient.Transaction) Result {
	res := Result{Status: Transient, Scope: ScopeMessage, MaybeDelivered: r.MaybeDelivered, Err: r.Err,
		Response: responseOf(&smtpclient.Reply{Code: 400, Text: safeText("delivery: failed to send message: " + oneLine(r.Err))}, r.Command)}
	switch {
	case tx.Err == nil:
	case tx.Err.Kind == smtpclient.Unsent:
		res.Status, res.Response = Unsent, Response{}
	case tx.Err.Reply != nil:
		res.Response = responseOf(tx.Err.Reply, r.Command)
		if res.Response.Code >= 500 || res.Response.Code < 400 { // not a reply to this message
			res.Response.Code, res.Response.Enhanced = 400, EnhancedCode{}
		}
	case tx.Err.Kind == smtpclient.Timeout:
		res.Response.Code, res.Response.Enhanced = 421, EnhancedCode{4, 4, 2}
		res.Response.Text = safeText(fmt.Sprintf("delivery: failed to send message to %s %s (%s): %s",
			s.info.ReadyName, s.info.Peer, s.info.RemoteAddr, oneLine(r.Err)))
	}
	return res
}

// rewrite lets the policy give a reply another code: smtp_client_rewrite_delivery_status. It is not asked about
// replies that accept, whatever their code: the peer has the message, and no code changes that.
func (r *Runtime) rewrite(ctx context.Context, a *attempt, res *Result) {
	if res.Err != nil || res.Status == Delivered {
		return
	}
	p := r.currentPolicy()
	if p == nil || !p.rewrites {
		return
	}
	ctx, release := r.bound(context.WithoutCancel(ctx)) // the message was judged, whoever still waits for it
	defer release()
	was := res.Response.Code
	code, err := p.rewriteStatus(ctx, res.Response, a.queue)
	switch {
	case err != nil:
		r.logger().Error("policy: the status of a delivery is not rewritten", "error", err)
	case code != 0 && code != was:
		res.Response.Code = code
		res.Response.Text += fmt.Sprintf(" (delivery: status was rewritten from %d -> %d)", was, code)
		res.Status = statusOf(code)
	}
}

// statusOf is what a reply code means for a recipient: RFC 5321 section 4.2.1, but that 3yz and 503 show that
// we are out of step with the peer, which is nothing the message can help.
func statusOf(code int) Status {
	switch {
	case code >= 200 && code < 300:
		return Delivered
	case code >= 300 && code < 500, code == 503:
		return Transient
	}
	return Permanent
}

// passShared lets a message pass the rates that other processes share. A result says why it may not.
func (r *Runtime) passShared(ctx context.Context, w *way) *Result {
	if r.Limits == nil {
		return nil
	}
	path := &w.path.config
	return r.passAll(ctx, w, "max_message_rate", sharedRates("message", w.ready, path.MaxMessageRate, path.AdditionalMessageRateThrottles))
}

// passAll passes one rate after the other, the slowest first, and waits for them no longer than idle_timeout.
func (r *Runtime) passAll(ctx context.Context, w *way, option string, rates []namedRate) *Result {
	ctx, release := r.opening(ctx, w.request.Grace)
	defer release()
	patience := time.Duration(w.path.config.IdleTimeout)
	for _, rate := range rates {
		for {
			wait, err := r.Limits.Pass(ctx, rate.name, rate.Rate)
			switch {
			case err != nil && ctx.Err() != nil:
				return new(unsent(context.Cause(ctx)))
			case err != nil:
				return new(storeFailed(err))
			case wait > patience:
				return new(r.throttled(w, option, wait))
			}
			if wait <= 0 {
				break
			}
			wait = max(wait, time.Millisecond)
			patience -= wait
			if err := sleep(ctx, wait); err != nil {
				return new(unsent(err))
			}
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// notHeld is the result of a message for whose connection the store was asked in vain.
func (r *Runtime) notHeld(ctx context.Context, err error) Result {
	if cause := r.endedBy(ctx, err); cause != nil {
		return unsent(cause)
	}
	return storeFailed(err)
}

// storeFailed is the result of a message that could not be counted where other processes count too.
func storeFailed(err error) Result {
	return Result{Status: Transient, Scope: ScopeReadyName, Err: err,
		Response: Response{Code: 400, Text: safeText("delivery: error in deliver_message: " + oneLine(err))}}
}

// sharedRoom is the search of one call for room for a connection in what other processes share too.
type sharedRoom struct {
	since time.Time     // when there was none for the first time
	wait  time.Duration // after how long there is to be some, by what was said last
}

// hold holds a new connection's share. Where there is none, it says after how long to ask again: when that is
// longer than idle_timeout, or the call has asked for as long, a moment longer than it may wait. No longer, for
// others of the ready name do not ask meanwhile.
func (s *sharedRoom) hold(ctx context.Context, r *Runtime, w *way) (release func(), wait time.Duration, err error) {
	release, wait, err = r.holdShared(ctx, w)
	if wait == 0 || err != nil {
		return release, wait, err
	}
	now := time.Now()
	if s.since.IsZero() {
		s.since = now
	}
	s.wait = wait
	if patience := w.request.Patience; wait > patience || now.Sub(s.since)+wait > patience {
		wait = patience + 1
	}
	return nil, wait, nil
}

// delayed is the error of a call that was postponed in vain, with what is known of when there is room.
func (s *sharedRoom) delayed(err error) error {
	if d, ok := errors.AsType[*sessions.Delayed](err); ok && d.Opening {
		return &sessions.Delayed{RetryAfter: max(d.RetryAfter, s.wait), Opening: true}
	}
	return err
}

// holdShared holds a new connection's share of what other processes share too. Where there is no room, it
// says after how long to ask again.
func (r *Runtime) holdShared(ctx context.Context, w *way) (release func(), wait time.Duration, err error) {
	if r.Limits == nil {
		return func() {}, 0, nil
	}
	ctx, done := r.opening(ctx, w.request.Grace)
	defer done()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	path := &w.path.config
	var held []func()
	giveBack := func() {
		for _, give := range held {
			give()
		}
	}
	defer func() {
		if release == nil { // no room, an error, or the store panicked
			giveBack()
		}
	}()
	limits := map[string]Limit{"connections " + w.ready: path.ConnectionLimit}
	for name, limit := range path.AdditionalConnectionLimits {
		limits["connections:"+name] = limit
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) { // in the same order everywhere
		if limits[name].Local {
			continue
		}
		give, err := r.Limits.Hold(ctx, name, limits[name])
		switch {
		case err != nil:
			if give != nil {
				give()
			}
			return nil, 0, err
		case give == nil:
			return nil, holdAgain, nil
		}
		held = append(held, give)
	}
	if rate := path.MaxConnectionRate; rate != (Rate{}) && !rate.Local {
		if wait, err = r.Limits.Pass(ctx, "connection "+w.ready, rate); wait > 0 || err != nil {
			return nil, wait, err
		}
	}
	return giveBack, 0, nil
}

// holdAgain is after how long room is asked for again that another process has: nobody tells when it comes
// free.
const holdAgain = time.Second

// namedRate is a rate with the name that it is counted under.
type namedRate struct {
	name string
	Rate
}

// sharedRates are those of a path's rates that other processes share, the slowest first.
func sharedRates(kind, readyName string, own Rate, additional map[string]Rate) []namedRate {
	var rates []namedRate
	if own != (Rate{}) && !own.Local {
		rates = append(rates, namedRate{kind + " " + readyName, own})
	}
	for name, rate := range additional {
		if !rate.Local {
			rates = append(rates, namedRate{kind + ":" + name, rate})
		}
	}
	slices.SortFunc(rates, func(a, b namedRate) int {
		perSecond := func(r Rate) float64 { return float64(r.Limit) / r.Per.Seconds() }
		return cmp.Or(cmp.Compare(perSecond(a.Rate), perSecond(b.Rate)), cmp.Compare(a.name, b.name))
	})
	return rates
}

// oneLine is an error's text fit for a reply: errors that were joined stand behind each other.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", ", ") }

// fullDelay is when a message is tried again for which there was no room to wait: at some moment of
// the next minute, so that those who were refused together do not return together.
func fullDelay() time.Duration { return rand.N(time.Minute) }
