package delivery

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBadConfigsNameTheField(t *testing.T) {
	for _, test := range []struct {
		parse       func([]byte) error
		text        string
		field, says string
	}{
		{queueConfig, `{"protocl": {}}`, "protocl", `did you mean "protocol"`},
		{queueConfig, `{"protocol": {}}`, "protocol", "no protocol in the table"},
		{queueConfig, `{"protocol": {"smtp": {}, "maildir_path": "/m"}}`, "protocol", "two protocols"},
		{queueConfig, `{"protocol": {"xfer": {"target": "http://x"}}}`, "protocol.xfer", "not available yet"},
		{queueConfig, `{"protocol": {"smpt": {}}}`, "protocol.smpt", `did you mean "smtp"`},
		{queueConfig, `{"protocol": {"smtp": {"mxlist": []}}}`, "protocol.smtp.mxlist", `did you mean "mx_list"`},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": "a.example"}}}`, "protocol.smtp.mx_list", "list"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": ["a.example", "b.example", "c.example:70000"]}}}`, "protocol.smtp.mx_list[2]", "port 70000 is out of range"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": ["a.example:0"]}}}`, "protocol.smtp.mx_list[0]", "port 0 is out of range"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": ["a..example"]}}}`, "protocol.smtp.mx_list[0]", "not a host name"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": ["[10.0.0.1"]}}}`, "protocol.smtp.mx_list[0]", "brackets"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": [17]}}}`, "protocol.smtp.mx_list[0]", "want a host name"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": [{"name": "a.example", "addr": "b.example"}]}}}`, "protocol.smtp.mx_list[0].addr", "not an IP address"},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": [{"name": "a.example", "adr": "10.0.0.1"}]}}}`, "protocol.smtp.mx_list[0].adr", `did you mean "addr"`},
		{queueConfig, `{"protocol": {"smtp": {"mx_list": [{"name": "a.example", "is_secure": true}]}}}`, "protocol.smtp.mx_list[0].addr", "required"},
		{queueConfig, `{"protocol": {"maildir_path": "/m/{{ local_part"}}`, "protocol.maildir_path", "line 1"},
		{queueConfig, `{"protocol": {"maildir_path": "/m/{{ locl_part }}"}}`, "protocol.maildir_path", "local_part"},
		{queueConfig, `{"protocol": {"maildir_path": ""}}`, "protocol.maildir_path", ""},
		{queueConfig, `{"protocol": {"dir_mode": 509}}`, "protocol.maildir_path", "required"},
		{queueConfig, `{"protocol": {"maildir_path": "/m", "dir_mode": 999999}}`, "protocol.dir_mode", "999999"},
		{queueConfig, `{"protocol": {"maildir_path": "/m", "unsafe_values": "escape"}}`, "protocol.unsafe_values", "refuse, encode"},
		{queueConfig, `{"protocol": {"unsafe_values": "encode"}}`, "protocol.maildir_path", "required"},
		{queueConfig, `{"protocol": {"maildir_path": "/m", "add_return_path": "yes"}}`, "protocol.add_return_path", ""},
		{queueConfig, `{"protocol": {"maildir_path": "/m", "file_mode": "9"}}`, "protocol.file_mode", "9"},
		{queueConfig, `{"protocol": {"custom_lua": {}}}`, "protocol.custom_lua.constructor", "required"},
		{queueConfig, `{"protocol": {"custom_lua": {"constructor": "init"}}}`, "protocol.custom_lua.constructor", "has a meaning already"},
		{queueConfig, `{"protocol": {"custom_lua": {"constructor": "make.it", "batch_size": 10, "min_batch_size": 11}}}`, "protocol.custom_lua.min_batch_size", "more than the batch_size of 10"},
		{queueConfig, `{"protocol": {"custom_lua": {"constructor": "make.it", "batch_size": 0}}}`, "protocol.custom_lua.batch_size", "less than 1"},
		{queueConfig, `{"retry_interval": "20 minuts"}`, "retry_interval", "minuts"},
		{queueConfig, `{"retry_interval": -1}`, "retry_interval", ""},
		{queueConfig, `{"retry_interval": "0"}`, "retry_interval", ""},
		{queueConfig, `{"max_message_rate": "100/fortnight"}`, "max_message_rate", "fortnight"},
		{queueConfig, `{"strategy": "Heap"}`, "strategy", "TimerWheel"},
		{queueConfig, `{"retry_interval": "1m", "retry_interval": "2m"}`, "retry_interval", "twice"},
		{queueConfig, `{} {}`, "", ""},
		{queueConfig, `[]`, "", ""},
		{egressPath, `{"enable_tls": "opportunistic"}`, "enable_tls", "Opportunistic"},
		{egressPath, `{"smtp_port": 0}`, "smtp_port", ""},
		{egressPath, `{"smtp_port": 70000}`, "smtp_port", "70000"},
		{egressPath, `{"smtp_port": "25"}`, "smtp_port", ""},
		{egressPath, `{"connection_limit": 0}`, "connection_limit", ""},
		{egressPath, `{"prohibited_hosts": ["10.0.0.0/33"]}`, "prohibited_hosts[0]", ""},
		{egressPath, `{"prohibited_hosts": ["localhost"]}`, "prohibited_hosts[0]", ""},
		{egressPath, `{"idle_timeout": "5 parsecs"}`, "idle_timeout", "parsecs"},
		{egressPath, `{"max_message_rate": "0/s"}`, "max_message_rate", ""},
		{egressPath, `{"additional_message_rate_throttles": {"all": "100"}}`, "additional_message_rate_throttles.all", "LIMIT/PERIOD"},
		{egressPath, `{"additional_connection_limits": {"all": 0}}`, "additional_connection_limits.all", ""},
		{egressPath, `{"reconnect_strategy": "ReconnectAnyHost"}`, "reconnect_strategy", "ReconnectSameHost"},
		{egressPath, `{"tls_min_version": "1"}`, "tls_min_version", "1.2"},
		{egressPath, `{"tls_prefer_openssl": true}`, "tls_prefer_openssl", "tls_min_version"},
		{egressPath, `{"openssl_options": "NO_TICKET"}`, "openssl_options", "leave the option out"},
		{egressPath, `{"openssl_cipher_list": "HIGH"}`, "openssl_cipher_list", "leave the option out"},
		{egressPath, `{"openssl_cipher_suites": "TLS_AES_128_GCM_SHA256"}`, "openssl_cipher_suites", "leave the option out"},
		{egressPath, `{"rustls_cipher_suites": ["TLS13_AES_128_GCM_SHA256"]}`, "rustls_cipher_suites", "leave the option out"},
		{egressPath, `{"aggressive_connection_opening": true}`, "aggressive_connection_opening", "not available yet"},
		{egressPath, `{"remember_broken_tls": "0s"}`, "remember_broken_tls", ""},
		{egressPath, `{"tls_certificate": "/etc/cert.pem"}`, "tls_certificate", "tls_private_key"},
		{egressPath, `{"smtp_auth_plain_password": {"vault_mount": "x"}, "smtp_auth_plain_username": "u"}`, "smtp_auth_plain_password.vault_mount", "not available yet"},
		{egressPath, `{"smtp_auth_plain_password": {"key_data": "x"}}`, "smtp_auth_plain_password", "smtp_auth_plain_username"},
		{egressPath, `{"ehlo_domain": "not a name"}`, "ehlo_domain", ""},
		{egressSource, `{}`, "name", "required"},
		{egressSource, `{"name": "a", "source_address": "10.0.0.300"}`, "source_address", ""},
		{egressSource, `{"name": "a", "ha_proxy_source_address": "10.0.0.1"}`, "ha_proxy_source_address", "ha_proxy_server"},
		{egressSource, `{"name": "a", "ha_proxy_server": "10.0.0.1:5000"}`, "ha_proxy_server", "ha_proxy_source_address"},
		{egressSource, `{"name": "a", "ha_proxy_server": "10.0.0.1", "ha_proxy_source_address": "10.0.0.2"}`, "ha_proxy_server", "no port"},
		{egressSource, `{"name": "a", "ha_proxy_server": "/run/proxy", "ha_proxy_source_address": "10.0.0.2"}`, "ha_proxy_server", "no host and port"},
		{egressSource, `{"name": "a", "ha_proxy_server": "10.0.0.1:5000", "ha_proxy_source_address": "10.0.0.2:0"}`, "ha_proxy_source_address", ""},
		{egressSource, `{"name": "a", "socks5_proxy_server": "10.0.0.1:port"}`, "socks5_proxy_server", "no port number"},
		{egressSource, `{"name": "a", "socks5_proxy_source_address": "10.0.0.1"}`, "socks5_proxy_source_address", "socks5_proxy_server"},
		{egressSource, `{"name": "a", "socks5_proxy_server": "10.0.0.1:1080", "socks5_proxy_username": "u"}`, "socks5_proxy_username", "socks5_proxy_password"},
		{egressSource, `{"name": "a", "socks5_proxy_username": "u", "socks5_proxy_password": {"key_data": "x"}}`, "socks5_proxy_username", "socks5_proxy_server"},
		{egressSource, `{"name": "a", "socks5_proxy_server": "10.0.0.1:1080", "ha_proxy_server": "10.0.0.1:5000", "ha_proxy_source_address": "10.0.0.2"}`, "socks5_proxy_server", "one proxy"},
		{egressSource, `{"name": "a", "ha_proxy_server": "10.0.0.1:1", "ha_proxy_source_address": "fe80::1%eth0"}`, "ha_proxy_source_address", "zone"},
		{egressSource, `{"name": "a", "socks5_proxy_server": "10.0.0.1:1", "socks5_proxy_source_address": "fe80::1%eth0"}`, "socks5_proxy_source_address", "zone"},
		{egressSource, `{"name": "a", "suspend_when_unplumbed": {"trigger": "Immediate"}}`, "suspend_when_unplumbed.duration", "required"},
		{egressSource, `{"name": "a", "suspend_when_unplumbed": {"trigger": "Sometimes", "duration": "1m"}}`, "suspend_when_unplumbed.trigger", "Immediate"},
		{egressPool, `{"name": "a"}`, "entries", "required"},
		{egressPool, `{"name": "a", "entries": [{"name": "b", "weight": -1}]}`, "entries[0].weight", ""},
	} {
		err := test.parse([]byte(test.text))
		e, ok := errors.AsType[*ConfigError](err)
		if !ok {
			t.Errorf("%s: %v, want a ConfigError", test.text, err)
			continue
		}
		if e.Field != test.field || !strings.Contains(e.Error(), test.says) {
			t.Errorf("%s:\n got field %q, %q\nwant field %q, saying %q", test.text, e.Field, e.Error(), test.field, test.says)
		}
		if strings.Contains(e.Error(), "\n") {
			t.Errorf("%s: more than one line: %q", test.text, e.Error())
		}
	}
}

func queueConfig(text []byte) error  { _, err := ParseQueueConfig(text); return err }
func egressPath(text []byte) error   { _, err := ParseEgressPath(text); return err }
func egressSource(text []byte) error { _, err := ParseEgressSource(text); return err }
func egressPool(text []byte) error   { _, err := ParseEgressPool(text); return err }

func TestConfigsPrintAsTheyParse(t *testing.T) {
	for _, text := range []string{
		`{}`,
		`{"protocol": {"smtp": {}}}`,
		`{"protocol": {"smtp": {"mx_list": []}}}`,
		`{"protocol": {"smtp": {"mx_list": ["smart.host.local", {"name": "mx.example.com", "addr": "10.0.0.1:2025"}, "[::1]:25", "/run/lmtp.sock"]}}}`,
		`{"protocol": {"maildir_path": "/m/{{ domain_part }}/{{ local_part }}", "dir_mode": "2775", "file_mode": 436}}`,
		`{"protocol": {"maildir_path": "/m/{{ local_part }}", "unsafe_values": "encode", "add_return_path": true, "add_delivered_to": true}}`,
		`{"protocol": {"custom_lua": {"constructor": "make.webhook"}}, "max_message_rate": "local:1_000/5min,max_burst=1"}`,
		`{"retry_interval": 90, "max_retry_interval": "1h30m", "egress_pool": "a", "shrink_policy": [{"interval": "1h", "policy": "NoShrink"}]}`,
	} {
		roundTrip[QueueConfig](t, ParseQueueConfig, text)
	}
	for _, text := range []string{
		`{}`,
		`{"prohibited_hosts": []}`,
		`{"connection_limit": "local:1,000", "enable_pipelining": false, "enable_mta_sts": false, "reconnect_strategy": "TerminateSession"}`,
		`{"enable_dane": true, "enable_mta_sts": true, "remember_broken_tls": "1h", "opportunistic_tls_reconnect_on_failed_handshake": true, "tls_min_version": "1.3"}`,
		`{"tls_certificate": "/c.pem", "tls_private_key": {"key_data": "secret"}, "smtp_auth_plain_username": "u"}`,
	} {
		roundTrip[EgressPath](t, ParseEgressPath, text)
	}
	roundTrip[EgressSource](t, ParseEgressSource, `{"name": "a", "source_address": "::1", "remote_port": 2525}`)
	roundTrip[EgressSource](t, ParseEgressSource, `{"name": "a", "suspend_when_unplumbed": {"duration": "5m"}}`)
	roundTrip[EgressPool](t, ParseEgressPool, `{"name": "a", "entries": [{"name": "b"}, {"name": "c", "weight": 0}]}`)
}

func roundTrip[T any](t *testing.T, parse func([]byte) (T, error), text string) {
	t.Helper()
	first, err := parse([]byte(text))
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return
	}
	printed, err := json.Marshal(first)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return
	}
	second, err := parse(printed)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("%s\nprints as %s\nwhich parses to %+v, %v\nand not to %+v", text, printed, second, err, first)
	}
}

func TestDefaults(t *testing.T) {
	c, err := ParseQueueConfig([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	want := QueueConfig{
		Protocol:      ProtocolConfig{SMTP: &SMTP{}},
		RetryInterval: Duration(20 * time.Minute), MaxAge: Duration(7 * 24 * time.Hour),
		ReapInterval: Duration(10 * time.Minute), RefreshInterval: Duration(time.Minute), RefreshStrategy: "Ttl",
		Strategy: "SingletonTimerWheel",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if zero := (QueueConfig{}).String(); zero != c.String() {
		t.Errorf("the zero value prints as %s, an empty table as %s", zero, c)
	}
	p, err := ParseEgressPath([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(p)
	const printed = `{"connection_limit":32,"max_deliveries_per_connection":1024,"max_recipients_per_batch":100,"max_ready":1024,` +
		`"reconnect_strategy":"ConnectNextHost","try_next_host_on_transport_error":false,"consecutive_connection_failures_before_delay":100,` +
		`"smtp_port":25,"use_lmtp":false,"ip_lookup_strategy":"Ipv4AndIpv6","prohibited_hosts":["127.0.0.0/8","::1","0.0.0.0","::"],` +
		`"skip_hosts":[],"enable_tls":"Opportunistic","enable_dane":false,"enable_mta_sts":true,` +
		`"opportunistic_tls_reconnect_on_failed_handshake":false,"tls_min_version":"1.2","allow_smtp_auth_plain_without_tls":false,"allow_smtp_auth_plain_without_valid_certificate":false,` +
		`"enable_pipelining":true,"enable_chunking":true,"enable_rset":true,"max_pipelined_messages":32,` +
		`"line_ends":"repair","long_lines":"send","ignore_8bit_checks":false,` +
		`"connect_timeout":"1m","banner_timeout":"1m","ehlo_timeout":"5m","starttls_timeout":"5s","auth_timeout":"1m","mail_from_timeout":"5m",` +
		`"rcpt_to_timeout":"5m","data_timeout":"5m","data_dot_timeout":"10m","rset_timeout":"5s","idle_timeout":"5s",` +
		`"refresh_interval":"1m","refresh_strategy":"Ttl",` +
		`"tls_prefer_openssl":false,"aggressive_connection_opening":false}`
	if string(text) != printed {
		t.Errorf("got  %s\nwant %s", text, printed)
	}
}

func TestRetryDelay(t *testing.T) {
	minutes := func(c QueueConfig, n int) (list []int) {
		for i := range n {
			list = append(list, int(c.RetryDelay(i+1)/time.Minute))
		}
		return list
	}
	if got := minutes(QueueConfig{}, 5); !reflect.DeepEqual(got, []int{20, 40, 80, 160, 320}) {
		t.Errorf("default: %v", got)
	}
	capped := QueueConfig{RetryInterval: Duration(20 * time.Minute), MaxRetryInterval: Duration(time.Hour)}
	if got := minutes(capped, 5); !reflect.DeepEqual(got, []int{20, 40, 60, 60, 60}) {
		t.Errorf("capped: %v", got)
	}
	if got := (QueueConfig{}).RetryDelay(1000); got != 7*24*time.Hour {
		t.Errorf("after 1000 failures: %v", got)
	}
}

func TestQueueNames(t *testing.T) {
	for text, want := range map[string]QueueName{
		"example.com":                        {Domain: "example.com"},
		"tenant@example.com":                 {Tenant: "tenant", Domain: "example.com"},
		"campaign:tenant@example.com":        {Campaign: "campaign", Tenant: "tenant", Domain: "example.com"},
		"campaign:@example.com":              {Campaign: "campaign", Domain: "example.com"},
		"c:t@example.com!mx.example.net:587": {"c", "t", "example.com", "mx.example.net:587"},
		"example.com:2525":                   {Domain: "example.com:2525"},
	} {
		if got := ParseQueueName(text); got != want || got.String() != text {
			t.Errorf("%s: %+v, prints as %s", text, got, got)
		}
	}
	for _, test := range []struct {
		msg  Message
		want string
	}{
		{Message{Recipients: []Recipient{{Address: "b@Example.COM"}, {Address: "c@example.net"}}}, "example.com"},
		{Message{Recipients: []Recipient{{Address: "b@example.com"}}, Meta: map[string]any{"tenant": "t", "campaign": "c", "routing_domain": "r.example"}}, "c:t@example.com!r.example"},
		{Message{Meta: map[string]any{"queue": "t@elsewhere", "tenant": "u"}}, "t@elsewhere"},
		{Message{Queue: QueueName{Domain: "set"}, Meta: map[string]any{"queue": "t@elsewhere"}}, "set"},
	} {
		if got, err := test.msg.QueueName(); err != nil || got.String() != test.want {
			t.Errorf("%+v: %s, %v, want %s", test.msg, got, err, test.want)
		}
	}
	if _, err := (&Message{Meta: map[string]any{"tenant": 7.0}}).QueueName(); err == nil {
		t.Error("a tenant that is a number was accepted")
	}
}

func TestConfigsMadeInGoAreChecked(t *testing.T) {
	rt := newRuntime(t)
	for name, c := range map[string]QueueConfig{
		"mode":       {Protocol: ProtocolConfig{Maildir: &Maildir{Path: "/m", DirMode: new(Mode(0o77777))}}},
		"rate":       {MaxMessageRate: Rate{Limit: -5}},
		"duration":   {RetryInterval: -1},
		"two":        {Protocol: ProtocolConfig{SMTP: &SMTP{}, Maildir: &Maildir{Path: "/m"}}},
		"entry":      {Protocol: ProtocolConfig{SMTP: &SMTP{MXList: []MXEntry{{}}}}},
		"event name": {Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: "init"}}},
	} {
		if p, err := rt.Protocol(c); err == nil {
			p.Close(t.Context())
			t.Errorf("%s was accepted", name)
		} else if _, ok := errors.AsType[*ConfigError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, p := range map[string]EgressPath{
		"limit":  {ConnectionLimit: Limit{Count: -1}},
		"local":  {ConnectionLimit: Limit{Local: true}},
		"switch": {EnablePipelining: 9},
		"key":    {SMTPAuthPlainUsername: "u", SMTPAuthPlainPassword: &KeySource{}},
		"bytes":  {SMTPAuthPlainUsername: "u", SMTPAuthPlainPassword: &KeySource{Data: "\xff"}},
	} {
		if _, err := newKeyed(p); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	lua := &CustomLua{Constructor: "make.it"}
	if _ = (QueueConfig{Protocol: ProtocolConfig{CustomLua: lua}}).String(); lua.BatchSize != 0 {
		t.Error("printing a config has changed it")
	}
}
