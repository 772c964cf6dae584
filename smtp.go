package delivery

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
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
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/egress"
	"github.com/mtadelivery/delivery/internal/sessions"
	"github.com/mtadelivery/delivery/internal/smtpclient"
)

// SMTP is the smtp table of a protocol: delivery over SMTP or, where the egress path says use_lmtp,
// over LMTP. The zero value delivers to the MX of the queue's routing domain.
type SMTP struct {
	// MXList are the hosts to use instead of the domain's MX records, tried in this order. Empty: the
	// MX records.
	MXList []MXEntry `config:"mx_list"`
	// TreatMXListAsSecure counts the list as a DNSSEC-secure choice of hosts, for DANE. It is refused
	// until there is DANE.
	TreatMXListAsSecure bool `config:"treat_mx_list_as_secure" default:"false"`
}

// Validate says what is wrong with the table.
func (s *SMTP) Validate() error {
	if s.TreatMXListAsSecure {
		return notYet("treat_mx_list_as_secure", "DANE")
	}
	_, err := listRoute(s.MXList)
	return err
}

// notYet is the error of a value that asks for what does not exist yet.
func notYet(field, what string) error {
	return decode.Errorf(field, "%s is not available yet", what)
}

// EgressPath is what kumo.make_egress_path makes: how to speak to one site from one source. The zero
// value means every default. Durations of 0 mean the default that is named with them.
type EgressPath struct {
	// ConnectionLimit is the most sessions at once under one ready name; default 32.
	ConnectionLimit Limit `config:"connection_limit" default:"32"`
	// MaxDeliveriesPerConnection is the most messages over one connection; default 1024.
	MaxDeliveriesPerConnection int `config:"max_deliveries_per_connection" default:"1024" min:"1"`
	// MaxRecipientsPerBatch is the most recipients in one transaction; default 100. A message with
	// more takes several, one after the other.
	MaxRecipientsPerBatch int `config:"max_recipients_per_batch" default:"100" min:"1"`
	// MaxReady is the most calls that may wait for a session under one ready name; default 1024. One
	// more is Unsent at once, to be tried again within a minute.
	MaxReady int `config:"max_ready" default:"1024" min:"1"`

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
	// permanently (550 5.4.4). Nil: loopback and unspecified addresses; empty: none.
	ProhibitedHosts []netip.Prefix `config:"prohibited_hosts" default:"[\"127.0.0.0/8\", \"::1/128\", \"0.0.0.0/32\", \"::/128\"]"`
	// SkipHosts are networks whose hosts are left out of a plan.
	SkipHosts []netip.Prefix `config:"skip_hosts" default:"[]"`

	// EnableTLS is Opportunistic (the default: STARTTLS where offered, and then the certificate must
	// be good), OpportunisticInsecure (any certificate will do), Required, RequiredInsecure or
	// Disabled. A handshake that fails fails the host: mail never goes on in clear after it.
	EnableTLS string `config:"enable_tls" default:"Opportunistic" enum:"Opportunistic,OpportunisticInsecure,Required,RequiredInsecure,Disabled"`
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
	// message.
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

	// What follows is known and not available yet: a value that asks for it is refused, one that asks
	// for what is done anyway is accepted.

	// EnableDANE and EnableMTASTS: refused when on.
	EnableDANE   bool   `config:"enable_dane" default:"false"`
	EnableMTASTS Switch `config:"enable_mta_sts"`
	// ReconnectStrategy: after a connection broke, the next message begins its plan anew, which is
	// TerminateSession; the others are refused.
	ReconnectStrategy string `config:"reconnect_strategy" enum:"TerminateSession,ConnectNextHost,ReconnectSameHost"`
	// The rest of the table: refused when set.
	AdditionalConnectionLimits             map[string]Limit `config:"additional_connection_limits"`
	MaxConnectionRate                      Rate             `config:"max_connection_rate"`
	MaxMessageRate                         Rate             `config:"max_message_rate"`
	AdditionalMessageRateThrottles         map[string]Rate  `config:"additional_message_rate_throttles"`
	SourceSelectionRate                    Rate             `config:"source_selection_rate"`
	AdditionalSourceSelectionRates         map[string]Rate  `config:"additional_source_selection_rates"`
	ConsecutiveConnectionFailuresThreshold int              `config:"consecutive_connection_failures_before_delay" min:"1"`
	TryNextHostOnTransportError            bool             `config:"try_next_host_on_transport_error" default:"false"`
	RememberBrokenTLS                      Duration         `config:"remember_broken_tls" min:"1ms"`
	ReconnectInClearOnFailedHandshake      bool             `config:"opportunistic_tls_reconnect_on_failed_handshake" default:"false"`
	TLSPreferOpenSSL                       bool             `config:"tls_prefer_openssl" default:"false"`
	OpenSSLOptions                         string           `config:"openssl_options"`
	OpenSSLCipherList                      string           `config:"openssl_cipher_list"`
	OpenSSLCipherSuites                    string           `config:"openssl_cipher_suites"`
	RustlsCipherSuites                     []string         `config:"rustls_cipher_suites"`
	SystemShutdownTimeout                  Duration         `config:"system_shutdown_timeout" min:"1ms"`
	AggressiveConnectionOpening            bool             `config:"aggressive_connection_opening" default:"false"`
}

// Validate says what is wrong with the path, or what it asks for that is not available yet.
func (p *EgressPath) Validate() error {
	for _, missing := range []struct {
		asked       bool
		field, what string
	}{
		{p.EnableDANE, "enable_dane", "DANE"},
		{p.EnableMTASTS == On, "enable_mta_sts", "MTA-STS"},
		{p.ReconnectStrategy != "" && p.ReconnectStrategy != "TerminateSession", "reconnect_strategy", "any strategy but TerminateSession"},
		{len(p.AdditionalConnectionLimits) > 0, "additional_connection_limits", "a limit shared by several ready names"},
		{p.MaxConnectionRate != Rate{}, "max_connection_rate", "a connection rate"},
		{p.MaxMessageRate != Rate{}, "max_message_rate", "a message rate"},
		{len(p.AdditionalMessageRateThrottles) > 0, "additional_message_rate_throttles", "a message rate"},
		{p.SourceSelectionRate != Rate{}, "source_selection_rate", "a source selection rate"},
		{len(p.AdditionalSourceSelectionRates) > 0, "additional_source_selection_rates", "a source selection rate"},
		{p.ConsecutiveConnectionFailuresThreshold != 0, "consecutive_connection_failures_before_delay", "a delay after failed connections"},
		{p.TryNextHostOnTransportError, "try_next_host_on_transport_error", "trying the next host within one attempt"},
		{p.RememberBrokenTLS != 0, "remember_broken_tls", "a memory of broken TLS"},
		{p.ReconnectInClearOnFailedHandshake, "opportunistic_tls_reconnect_on_failed_handshake", "reconnecting in clear"},
		{p.TLSPreferOpenSSL, "tls_prefer_openssl", "a TLS engine other than Go's"},
		{p.OpenSSLOptions != "", "openssl_options", "a TLS engine other than Go's"},
		{p.OpenSSLCipherList != "", "openssl_cipher_list", "a choice of ciphers"},
		{p.OpenSSLCipherSuites != "", "openssl_cipher_suites", "a choice of ciphers"},
		{len(p.RustlsCipherSuites) > 0, "rustls_cipher_suites", "a choice of ciphers"},
		{p.SystemShutdownTimeout != 0, "system_shutdown_timeout", "a shutdown bound of a path (Runtime.Close is bounded by its context)"},
		{p.AggressiveConnectionOpening, "aggressive_connection_opening", "connecting before there is a message"},
	} {
		if missing.asked {
			return notYet(missing.field, missing.what)
		}
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

	// Proxies and automatic suspension are known and not available yet: they are refused when set.
	HAProxyServer             string      `config:"ha_proxy_server"`
	HAProxySourceAddress      string      `config:"ha_proxy_source_address"`
	SOCKS5ProxyServer         string      `config:"socks5_proxy_server"`
	SOCKS5ProxySourceAddress  string      `config:"socks5_proxy_source_address"`
	SOCKS5ProxyUsername       string      `config:"socks5_proxy_username"`
	SOCKS5ProxyPassword       *KeySource  `config:"socks5_proxy_password"`
	SuspendWhenUnplumbed      *Suspension `config:"suspend_when_unplumbed"`
	SuspendWhenProxyUnhealthy *Suspension `config:"suspend_when_proxy_unhealthy"`
}

// Suspension is the table of suspend_when_unplumbed and suspend_when_proxy_unhealthy.
type Suspension struct {
	Trigger  Trigger  `config:"trigger" required:"true"`
	Duration Duration `config:"duration" required:"true"`
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

// Validate says what is wrong with the source, or what it asks for that is not available yet.
func (s *EgressSource) Validate() error {
	for _, pair := range [...][4]string{
		{s.HAProxyServer, s.HAProxySourceAddress, "ha_proxy_server", "ha_proxy_source_address"},
		{s.SOCKS5ProxyServer, s.SOCKS5ProxySourceAddress, "socks5_proxy_server", "socks5_proxy_source_address"},
		{s.SOCKS5ProxyUsername, "", "socks5_proxy_username", ""},
	} {
		server, source := pair[0], pair[1]
		switch {
		case source != "" && server == "":
			return decode.Errorf(pair[3], "needs %s", pair[2])
		case server != "":
			return notYet(pair[2], "a proxy")
		}
	}
	switch {
	case s.SOCKS5ProxyPassword != nil:
		return notYet("socks5_proxy_password", "a proxy")
	case s.SuspendWhenUnplumbed != nil:
		return notYet("suspend_when_unplumbed", "automatic suspension")
	case s.SuspendWhenProxyUnhealthy != nil:
		return notYet("suspend_when_proxy_unhealthy", "automatic suspension")
	case s.SourceAddress.Zone() != "":
		return decode.Errorf("source_address", "has a zone")
	}
	return validEHLO(s.EHLODomain)
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
	// Weight is the entry's share: nil is 1, 0 leaves the entry out.
	Weight *int `config:"weight" default:"1" min:"0"`
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
}

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

var errNoSource = errors.New("no sources available: no entry of the pool has a weight above 0")

func (p *sourcePicker) pick(ctx context.Context) (*keyed[EgressSource], error) {
	if p.pool == "" || p.pool == unspecified {
		return p.runtime.egressSource(ctx, unspecified)
	}
	pool, err := p.runtime.egressPool(ctx, p.pool)
	if err != nil {
		return nil, err
	}
	choices := make([]egress.Choice, len(pool.Entries))
	for i, e := range pool.Entries {
		choices[i] = egress.Choice{Name: e.Name, Weight: e.weight()}
	}
	name, ok := p.turns.Next(choices)
	if !ok {
		return nil, errNoSource
	}
	return p.runtime.egressSource(ctx, name)
}

// HostError is the failure of one host or address of a plan.
type HostError struct {
	// Host is the name, Address "192.0.2.7:25"; the address is empty where none was found.
	Host    string
	Address string
	Err     error
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
	ways    knownWays

	mu   sync.Mutex
	open map[*smtpSession]struct{} // what this engine opened and is not closed yet
}

func newSMTPEngine(r *Runtime, c *SMTP, pool string) (*smtpEngine, error) {
	e := &smtpEngine{runtime: r, sources: sourcePicker{runtime: r, pool: pool}, open: map[*smtpSession]struct{}{}}
	if len(c.MXList) > 0 {
		list, err := listRoute(c.MXList)
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
	ready  string
	site   string
	path   *keyed[EgressPath]
	source *keyed[EgressSource]
	plan   []candidate
	keys   []string // the connection keys of what can be tried
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
		return &Session{ReadyName: w.ready, Protocol: "smtp"}
	}
	return &Session{ReadyName: w.ready, Protocol: w.protocol()}
}

// find finds the way for a queue. With an error the way is as complete as it could be made. What was found
// before is taken again while everything that it was made of holds: source, egress path, and the answers of
// the DNS. Equals are in random order, each time.
func (e *smtpEngine) find(ctx context.Context, queue QueueName) (*way, *PlanError) {
	source, err := e.sources.pick(ctx)
	if err != nil {
		return &way{}, unresolved(queue, err)
	}
	name := wayName{queue.routing(), source.config.Name}
	if known := e.ways.get(name); known != nil && known.source == source {
		path, err := e.runtime.egressPath(ctx, pathName{name.routing, name.source, known.site})
		if err == nil && path == known.path {
			return known.shuffled(), nil
		}
	}
	w, keep, failed := e.resolve(ctx, queue, source)
	if failed != nil {
		return w, failed
	}
	e.ways.put(name, w, keep)
	return w.shuffled(), nil
}

// resolve makes the way for a queue from a source, and says until when what the DNS answered may be used;
// zero: the DNS was not asked.
func (e *smtpEngine) resolve(ctx context.Context, queue QueueName, source *keyed[EgressSource]) (w *way, keep time.Time, failed *PlanError) {
	ctx, release := e.runtime.bound(ctx)
	defer release()
	w = &way{source: source}
	dns := &datedResolver{Resolver: e.runtime.state.resolver}
	to := e.list
	if to == nil {
		if to, failed = domainRoute(ctx, dns, queue); failed != nil {
			if failed == errNullMX { // whose site has no name
				w.ready = source.config.Name + "->@smtp_client"
			}
			return w, keep, failed
		}
	}
	w.site = to.site
	w.ready = source.config.Name + "->" + to.site + "@smtp_client"
	var err error
	if w.path, err = e.runtime.egressPath(ctx, pathName{queue.routing(), source.config.Name, to.site}); err != nil {
		return w, keep, unresolved(queue, err)
	}
	if w.plan, failed = connectionPlan(ctx, dns, to, &w.path.config, &source.config); failed != nil {
		return w, keep, failed
	}
	for i := range w.plan {
		w.plan[i].key = w.key(&w.plan[i])
	}
	w.keys = keysOf(w.plan)
	return w, dns.expires, nil
}

// shuffled is the way with those of its candidates that are equal in random order.
func (w *way) shuffled() *way {
	if !hasEquals(w.plan) {
		return w
	}
	another := *w
	another.plan = slices.Clone(w.plan)
	shuffleEquals(another.plan)
	another.keys = keysOf(another.plan)
	return &another
}

func keysOf(plan []candidate) []string {
	keys := make([]string, 0, len(plan))
	for i := range plan {
		if usable(plan[i]) {
			keys = append(keys, plan[i].key)
		}
	}
	return keys
}

// knownWays are the ways that were found, each for as long as what the DNS said of it may be used. When
// there are too many it begins anew.
type knownWays struct {
	mu   sync.RWMutex
	ways map[wayName]knownWay
}

// wayName is what the ways of an engine differ by.
type wayName struct{ routing, source string }

type knownWay struct {
	way     *way
	expires time.Time // zero: never
}

const maxKnownWays = 10_000

// get returns nil where no way is known.
func (k *knownWays) get(name wayName) *way {
	k.mu.RLock()
	known := k.ways[name]
	k.mu.RUnlock()
	if !known.expires.IsZero() && !time.Now().Before(known.expires) {
		return nil
	}
	return known.way
}

func (k *knownWays) put(name wayName, w *way, expires time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ways == nil || len(k.ways) >= maxKnownWays {
		k.ways = map[wayName]knownWay{}
	}
	k.ways[name] = knownWay{w, expires}
}

func (e *smtpEngine) plan(ctx context.Context, a *attempt) (Plan, error) {
	w, failed := e.find(ctx, a.queue)
	plan := Plan{Protocol: "smtp", ReadyName: w.ready}
	if w.path != nil {
		plan.Protocol = w.protocol()
	}
	for _, c := range w.plan {
		h := PlannedHost{Host: c.host, Err: c.err}
		if c.addr.IsValid() || c.unix != "" {
			h.Address = c.address()
		}
		plan.Hosts = append(plan.Hosts, h)
	}
	if failed != nil {
		return plan, failed
	}
	return plan, nil
}

func (e *smtpEngine) deliver(ctx context.Context, a *attempt) {
	w, failed := e.find(ctx, a.queue)
	if failed != nil {
		if err := e.runtime.ended(ctx); err != nil && failed.Status == Transient {
			a.settleAll(unsent(err))
			return
		}
		res := failed.result()
		res.Session = w.unopened()
		if _, ok := errors.AsType[*ConfigError](failed); ok {
			a.err = failed
		}
		a.settleAll(res)
		return
	}
	content, err := e.inspect(ctx, a.msg.Body)
	if err != nil {
		if cause := e.runtime.ended(ctx); cause != nil {
			a.settleAll(unsent(cause))
			return
		}
		a.settleAll(Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{Code: 400,
			Text: safeText("delivery: cannot read the content: " + err.Error())}})
		return
	}
	if why := w.unfit(a, content); why != "" {
		a.settleAll(Result{Status: Permanent, Scope: ScopeMessage, Session: w.unopened(),
			Response: Response{Code: 554, Enhanced: EnhancedCode{5, 6, 0}, Text: "delivery: " + why}})
		return
	}
	c := &carrier{engine: e, way: w}
	defer c.done()
	for batch := range slices.Chunk(a.rcpts, w.path.config.MaxRecipientsPerBatch) {
		c.transact(ctx, a, content, batch)
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
	lease  *sessions.Lease[*smtpSession]
	// sending: a transaction is under way, or a panic of the host's body has left it open.
	sending bool
}

// maxAgain bounds how often one message is sent again to recipients whom nobody judged: because the session
// had ended before its turn, or broke at the message of another call.
const maxAgain = 16

// transact sends the message to a batch of recipients and settles each of them. It takes a transaction
// more where the peer takes fewer recipients in one, or where the message was not judged by its own
// merits.
func (c *carrier) transact(ctx context.Context, a *attempt, content *smtpclient.Content, batch []recipient) {
	env := &smtpclient.Envelope{From: a.sender.String(), Options: a.msg.MailOptions,
		Rcpts: make([]smtpclient.Rcpt, 0, len(batch))}
	left := batch
	for again := 0; len(left) > 0; {
		s, res := c.session(ctx)
		if s == nil {
			res.Session = c.way.unopened()
			for i := range left {
				a.settle(&left[i], res)
			}
			return
		}
		part := left[:min(len(left), s.maxRcpts)]
		env.Rcpts = env.Rcpts[:0]
		for _, r := range part {
			env.Rcpts = append(env.Rcpts, smtpclient.Rcpt{Address: a.results[r.index].Recipient, Options: r.options})
		}
		c.sending = true
		tx := s.wire.Send(ctx, env, content)
		c.sending = false
		if !s.wire.Usable() {
			c.give((*sessions.Lease[*smtpSession]).Retire) // others may still be using it
		}
		once := tx.Again && again < maxAgain
		if once {
			again++
		}
		left = c.settle(a, s, tx, content, part, left[len(part):], once)
	}
}

// settle gives their results to the recipients of a transaction, and returns those that are to be tried
// in another one, the rest of the batch among them.
func (c *carrier) settle(a *attempt, s *smtpSession, tx *smtpclient.Transaction, content *smtpclient.Content, part, rest []recipient, again bool) []recipient {
	info := s.describe(tx)
	var left []recipient
	for i := range part {
		r := &tx.Results[i]
		if again && r.Err != nil || i > 0 && r.Local && tooManyRecipients(&r.Reply) {
			left = append(left, part[i])
			continue
		}
		res := c.way.resultOf(r, tx)
		res.Session, res.ContentChanged = info, tx.ContentBegan && content.Changed() && !a.binary()
		a.settle(&part[i], res)
	}
	if len(left) == 0 {
		return rest
	}
	return append(left, rest...)
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
	path := &c.way.path.config
	lease, err := c.engine.runtime.state.smtp.Acquire(ctx, sessions.Request{
		Group:       c.way.ready,
		Limit:       int(path.ConnectionLimit.Count),
		MaxWaiting:  path.MaxReady,
		Keys:        c.way.keys,
		IdleTimeout: time.Duration(path.IdleTimeout),
		MaxUses:     path.MaxDeliveriesPerConnection,
	})
	if err != nil {
		return nil, notAcquired(err)
	}
	c.lease = lease
	if s, ok := lease.Session(); ok {
		return s, Result{}
	}
	s, key, err := c.engine.connect(ctx, c.way)
	if err != nil {
		c.give((*sessions.Lease[*smtpSession]).Discard)
		if cause := c.engine.runtime.ended(ctx); cause != nil {
			return nil, unsent(cause)
		}
		return nil, Result{Status: Transient, Scope: ScopeMessage, Err: err, Response: Response{
			Code: 400, Text: safeText("delivery: failed to connect to any candidate hosts: " + oneLine(err))}}
	}
	lease.Opened(key, s)
	return s, Result{}
}

// notAcquired is the result of a call that got no session.
func notAcquired(err error) Result {
	switch {
	case errors.Is(err, sessions.ErrClosed):
		return unsent(ErrClosed)
	case errors.Is(err, sessions.ErrFull):
		return Result{Status: Unsent, Scope: ScopeReadyName, RetryAfter: fullDelay(), Err: err}
	}
	return unsent(err)
}

// give ends the lease in one of its ways.
func (c *carrier) give(back func(*sessions.Lease[*smtpSession])) {
	back(c.lease)
	c.lease = nil
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

// key is the connection key of a candidate: all that made the connection what it is. Digests stand
// for the whole path and source, so that no option can be forgotten.
func (w *way) key(c *candidate) string {
	return w.path.digest + w.source.digest + c.host + "\x00" + c.address()
}

// connect opens a session to the first host of the plan that lets it.
func (e *smtpEngine) connect(ctx context.Context, w *way) (*smtpSession, string, error) {
	ctx, release := e.runtime.bound(ctx)
	defer release()
	var failures []error
	for i := range w.plan {
		c := &w.plan[i]
		if c.err != nil {
			failures = append(failures, &HostError{Host: c.host, Err: c.err})
			continue
		}
		s, err := e.connectTo(ctx, w, c)
		if err == nil {
			return s, c.key, nil
		}
		failures = append(failures, &HostError{Host: c.host, Address: c.address(), Err: err})
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", errors.Join(failures...)
}

// connectTo opens a session to one address: connection, greeting, EHLO, TLS, AUTH.
func (e *smtpEngine) connectTo(ctx context.Context, w *way, c *candidate) (*smtpSession, error) {
	r := e.runtime
	s := &smtpSession{engine: e, info: Session{ID: newID(), Protocol: w.protocol(), ReadyName: w.ready, Peer: c.host}}
	cfg, err := r.clientConfig(w, c, s)
	if err != nil {
		return nil, err
	}
	conn, err := r.dial(ctx, w, c)
	if err != nil {
		return nil, err
	}
	if s.wire, err = smtpclient.Open(ctx, conn, cfg); err != nil {
		return nil, err
	}
	s.opened()
	e.mu.Lock()
	e.open[s] = struct{}{}
	e.mu.Unlock()
	if t := r.Trace; t != nil && t.Opened != nil {
		t.Opened(s.copyInfo())
	}
	return s, nil
}

// dial connects to a candidate within connect_timeout.
func (r *Runtime) dial(ctx context.Context, w *way, c *candidate) (conn net.Conn, err error) {
	to := DialRequest{Network: c.network(), Address: c.address(), Host: c.host}
	if c.unix == "" {
		to.Source = w.source.config.SourceAddress
	}
	if t := r.Trace; t != nil {
		if t.Dialing != nil {
			t.Dialing(w.ready, to)
		}
		if t.Dialed != nil {
			defer func() { t.Dialed(w.ready, to, err) }()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.path.config.ConnectTimeout))
	defer cancel()
	if r.Dial != nil {
		conn, err := r.Dial(ctx, to)
		if conn == nil && err == nil {
			err = errors.New("the dialer returned no connection")
		}
		return conn, err
	}
	var d net.Dialer
	if to.Source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Source, 0))
	}
	return d.DialContext(ctx, to.Network, to.Address)
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
		TLS:               tlsPolicies[path.EnableTLS],
		TLSConfig:         &tls.Config{RootCAs: r.RootCAs},
		DisablePipelining: path.EnablePipelining == Off,
		DisableChunking:   path.EnableChunking == Off,
		MaxPipelined:      path.MaxPipelinedMessages,
		Peer:              r.state.peers.get(c.network() + " " + c.address()),
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
	if t := r.Trace; t != nil && (t.Sent != nil || t.Received != nil) {
		cfg.Trace = &smtpclient.Trace{}
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

var tlsPolicies = map[string]smtpclient.TLSPolicy{
	"Opportunistic":         smtpclient.TLSOpportunistic,
	"OpportunisticInsecure": smtpclient.TLSOpportunisticInsecure,
	"Required":              smtpclient.TLSRequired,
	"RequiredInsecure":      smtpclient.TLSRequiredInsecure,
	"Disabled":              smtpclient.TLSDisabled,
}

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
	wire   *smtpclient.Session
	info   Session // not changed once the session is open: results share it
	ended  sync.Once
	// maxRcpts is how many recipients the peer takes in one transaction.
	maxRcpts int
}

// Capacity is how many messages may be on their way or in line.
func (s *smtpSession) Capacity() int { return s.wire.Capacity() }

// Comfort is one: a new session is opened for the next message as long as one may be.
func (s *smtpSession) Comfort() int { return 1 }

// Alive looks whether the peer has hung up or said goodbye while nobody listened.
func (s *smtpSession) Alive() bool { return s.wire.Usable() && s.wire.Idle() == nil }

// Retire says QUIT.
func (s *smtpSession) Retire(sessions.Reason) {
	s.wire.Quit(0) // for as long as the config says
	s.end()
}

// Kill cuts the connection.
func (s *smtpSession) Kill() {
	s.wire.Close()
	s.end()
}

func (s *smtpSession) end() {
	s.ended.Do(func() {
		e := s.engine
		e.mu.Lock()
		delete(e.open, s)
		e.mu.Unlock()
		if t := e.runtime.Trace; t != nil && t.Closed != nil {
			t.Closed(s.copyInfo())
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
			s.info.TLS.By = "pkix"
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
func (w *way) resultOf(r *smtpclient.Result, tx *smtpclient.Transaction) Result {
	if r.Err != nil {
		return w.broken(r, tx)
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
	case r.Command == "RCPT" && tooManyRecipients(&r.Reply):
		res.Status = Transient
	case code >= 200 && code < 500, code == 503: // 2yz, 3yz and 503 here: out of step with the peer
		res.Status = Transient
	default:
		res.Status = Permanent
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

// tooManyRecipients: 4.5.3 under any code, and 552 without an enhanced code, which RFC 5321 section
// 4.5.3.1.10 says to take for 452.
func tooManyRecipients(r *smtpclient.Reply) bool {
	return r.Enhanced[1] == 5 && r.Enhanced[2] == 3 || r.Code == 552 && r.Enhanced == smtpclient.Enhanced{}
}

// broken is the result of a recipient for whom no reply decided.
func (w *way) broken(r *smtpclient.Result, tx *smtpclient.Transaction) Result {
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
		res.Response.Text = safeText(fmt.Sprintf("delivery: failed to send message to %s: %s", w.ready, oneLine(r.Err)))
	}
	return res
}

// oneLine is an error's text fit for a reply: errors that were joined stand behind each other.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", ", ") }

// knownPeers holds what is known of peers, by network and address. It is bounded: one more drops those
// that were not asked for within an hour, or any.
type knownPeers struct {
	mu    sync.Mutex
	peers map[string]*knownPeer
}

type knownPeer struct {
	smtpclient.Peer
	asked time.Time
}

const maxKnownPeers = 10_000

func (k *knownPeers) get(address string) *smtpclient.Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	p := k.peers[address]
	if p == nil {
		k.makeRoom(now)
		p = &knownPeer{}
		k.peers[address] = p
	}
	p.asked = now
	return &p.Peer
}

// makeRoom makes room for one more. The lock is held.
func (k *knownPeers) makeRoom(now time.Time) {
	if k.peers == nil {
		k.peers = map[string]*knownPeer{}
	}
	if len(k.peers) < maxKnownPeers {
		return
	}
	maps.DeleteFunc(k.peers, func(_ string, p *knownPeer) bool { return now.Sub(p.asked) > time.Hour })
	for address := range k.peers {
		if len(k.peers) < maxKnownPeers {
			return
		}
		delete(k.peers, address)
	}
}

// fullDelay is when a message is tried again for which there was no room to wait: at some moment of
// the next minute, so that those who were refused together do not return together.
func fullDelay() time.Duration { return rand.N(time.Minute) }
