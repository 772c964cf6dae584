package resolver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func inClear(addresses ...string) (servers []server) {
	for _, address := range addresses {
		servers = append(servers, server{address: address})
	}
	return servers
}

func TestParseConfig(t *testing.T) {
	loopback := inClear("127.0.0.1:53", "[::1]:53")
	for _, test := range []struct {
		text string
		want settings
	}{
		{"", settings{loopback, 5 * time.Second, 2, false}},
		{"nameserver 192.0.2.1", settings{inClear("192.0.2.1:53"), 5 * time.Second, 2, false}},
		{"# nameserver 192.0.2.9\n;nameserver 192.0.2.9\nsearch a.test\nnameserver\t192.0.2.1 # one\r\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n",
			settings{inClear("192.0.2.1:53", "[::1]:53", "[fe80::1%eth0]:53"), 5 * time.Second, 2, false}},
		{"nameserver dns.test\nnameserver\nnonsense\noptions\n", settings{loopback, 5 * time.Second, 2, false}},
		{"nameserver ::1\noptions timeout:2 attempts:3 trust-ad rotate\n", settings{inClear("[::1]:53"), 2 * time.Second, 3, true}},
		{"options timeout:0 attempts:x\noptions edns0 timeout:-1\n", settings{loopback, 5 * time.Second, 2, false}},
		{"options timeout:99 attempts:99", settings{loopback, 30 * time.Second, 5, false}},
	} {
		got, err := parseConfig(strings.NewReader(test.text))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: got %+v, %v, want %+v", test.text, got, err, test.want)
		}
	}
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "::1": "[::1]:53", "[::1]": "[::1]:53", "[::1]:5353": "[::1]:5353",
		"fe80::1%lo": "[fe80::1%lo]:53",
		"":           "", "dns.test": "", "dns.test:53": "", "192.0.2.1:": "", "192.0.2.1:0": "", "192.0.2.1:70000": "", "[::1": "", "192.0.2.1 ": "",

		"tls://192.0.2.1#dns.test":        "tls://192.0.2.1:853#dns.test",
		"tls://192.0.2.1:8853#DNS.test.":  "tls://192.0.2.1:8853#dns.test",
		"tls://[2001:db8::1]:53#dns.test": "tls://[2001:db8::1]:53#dns.test",
		"tls://2001:db8::1":               "tls://[2001:db8::1]:853#2001:db8::1",
		"tls://fe80::1%lo":                "tls://[fe80::1%lo]:853#fe80::1",
		"tls://192.0.2.1":                 "tls://192.0.2.1:853#192.0.2.1",
		"tls://192.0.2.1#192.0.2.9":       "tls://192.0.2.1:853#192.0.2.9",
		"192.0.2.1#dns.test":              "", "192.0.2.1:853#dns.test": "", "TLS://192.0.2.1": "", "https://192.0.2.1": "",
		"tls://": "", "tls://dns.test": "", "tls://#dns.test": "", "tls://192.0.2.1#": "", "tls://192.0.2.1#a b": "", "tls://192.0.2.1#a#b": "tls://192.0.2.1:853#a#b",
		"tls://192.0.2.1:0#dns.test": "", "tls://tls://192.0.2.1": "",
	} {
		got, err := parseServer(text)
		if got.String() != want || (err != nil) != (want == "") || err == nil && got.encrypted() != strings.HasPrefix(text, "tls") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
		if err == nil {
			if again, err := parseServer(got.String()); again != got || err != nil {
				t.Errorf("%q: read again as %q, %v", text, again, err)
			}
		} else if !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%q is not named: %v", text, err)
		}
	}
	c := Client{Servers: []string{"192.0.2.1", "dns.test"}}
	got := c.Lookup(t.Context(), "example.com", TypeMX)
	if got.Result != TempFail || got.Err == nil || !strings.Contains(got.Err.Error(), `"dns.test"`) {
		t.Errorf("%+v", got)
	}
}

func TestConfigFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newServer(t, "*.test. A 192.0.2.1", dnstest.Secure())
		second := newServer(t, "*.test. A 192.0.2.2", dnstest.Secure(), dnstest.Silent("silent.test"))
		path := filepath.Join(t.TempDir(), "resolv.conf")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := Client{ConfigFile: path, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			switch address {
			case "127.0.0.1:53":
				return first.Dial(ctx, network, address)
			case "192.0.2.2:53":
				return second.Dial(ctx, network, address)
			}
			return nil, errors.New("no such server")
		}}
		ask := func(name, want string, secure bool) {
			t.Helper()
			got := c.Lookup(t.Context(), name, TypeA)
			if got.Result != Records || got.Addrs[0].String() != want || got.Secure != secure {
				t.Errorf("%s: %+v, want %s", name, got, want)
			}
		}
		ask("a.test", "192.0.2.1", false) // no file: loopback
		write("nameserver 192.0.2.2\noptions trust-ad timeout:1 attempts:3")
		time.Sleep(recheck - time.Second)
		ask("b.test", "192.0.2.1", false) // it is not looked at again so soon
		time.Sleep(time.Second)
		ask("c.test", "192.0.2.2", true)
		ask("a.test", "192.0.2.2", true) // and what the other server said is forgotten
		if s := c.Stats().Servers; len(s) != 1 || s[0].Server != "192.0.2.2:53" {
			t.Errorf("servers %+v", s)
		}

		begin := time.Now()
		c.Lookup(t.Context(), "silent.test", TypeA)
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("three tries of 1 s took %v", d)
		}

		write("options trust-ad timeout:1 attempts:3\nnameserver 192.0.2.2\n# the same")
		time.Sleep(recheck)
		asked := second.Total()
		ask("d.test", "192.0.2.2", true)
		ask("a.test", "192.0.2.2", true)
		if n := second.Total() - asked; n != 1 {
			t.Errorf("%d queries after a change that changes nothing", n)
		}

		write("nameserver 192.0.2.2")
		time.Sleep(recheck)
		ask("e.test", "192.0.2.2", false)
		ask("a.test", "192.0.2.2", false)

		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(recheck)
		ask("f.test", "192.0.2.2", false) // unreadable: what was known stays

		fresh := Client{ConfigFile: path}
		var cause *os.PathError
		if got := fresh.Lookup(t.Context(), "a.test", TypeA); got.Result != TempFail || !errors.As(got.Err, &cause) {
			t.Errorf("nothing is known: %+v", got)
		}
	})
}

// What servers say that are no longer trusted is not kept, though it was asked before the file changed.
func TestConfigChangesDuringALookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "*.test. A 192.0.2.1", dnstest.Secure(), dnstest.Delay(4*time.Second))
		path := filepath.Join(t.TempDir(), "resolv.conf")
		c := Client{ConfigFile: path, Dial: s.Dial}
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("options trust-ad")
		time.Sleep(time.Second)
		c.Lookup(t.Context(), "first.test", TypeA)
		write("options none")
		slow := make(chan Answer)
		go func() { slow <- c.Lookup(t.Context(), "a.test", TypeA) }()
		time.Sleep(recheck - 4*time.Second)
		c.Lookup(t.Context(), "second.test", TypeA) // which reads the file
		if got := <-slow; !got.Secure {
			t.Errorf("asked before: %+v", got)
		}
		if got := c.Lookup(t.Context(), "a.test", TypeA); got.Result != Records || got.Secure {
			t.Errorf("asked afterwards: %+v", got)
		}
	})
}

func TestFieldsComeBeforeTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\noptions trust-ad timeout:7 attempts:4"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		client *Client
		want   settings
	}{
		{&Client{ConfigFile: path}, settings{inClear("192.0.2.1:53"), 7 * time.Second, 4, true}},
		{&Client{ConfigFile: path, Timeout: time.Second, Attempts: 1}, settings{inClear("192.0.2.1:53"), time.Second, 1, true}},
		{&Client{ConfigFile: path, Timeout: -1, Attempts: -1}, settings{inClear("192.0.2.1:53"), 7 * time.Second, 4, true}},
		{&Client{ConfigFile: path, Servers: []string{"::1"}}, settings{inClear("[::1]:53"), 5 * time.Second, 2, false}},
		{&Client{Servers: []string{"::1"}, TrustAD: true}, settings{inClear("[::1]:53"), 5 * time.Second, 2, true}},
	} {
		if got, err := test.client.settings(); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("got %+v, %v, want %+v", got, err, test.want)
		}
	}
}
