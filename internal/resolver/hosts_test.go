package resolver

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver/dnstest"
)

func TestHostsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, err := dnstest.New("elsewhere.test. A 192.0.2.9\nsmart.host.local. A 192.0.2.8\n")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "hosts")
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("# comment\n127.0.0.1 localhost\n10.1.2.3\tSmart.Host.local smart # inline\n::ffff:10.1.2.4 smart.host.local\n" +
			"2001:db8::1 six.test\nfe80::1%eth0 zone.test\nnonsense here\n10.9.9.9\n")
		c := &Client{Servers: []string{"192.0.2.53"}, Dial: server.Dial, HostsFile: file}
		defer c.Close()
		check := func(name string, typ Type, want Result, addrs ...string) {
			t.Helper()
			a := c.Lookup(t.Context(), name, typ)
			var got []string
			for _, ip := range a.Addrs {
				got = append(got, ip.String())
			}
			if a.Result != want || !slices.Equal(got, addrs) || a.Secure {
				t.Errorf("%s %v: %v %v, want %v %v", name, typ, a.Result, got, want, addrs)
			}
		}
		check("smart.host.LOCAL.", TypeA, Records, "10.1.2.3", "10.1.2.4")
		check("smart.host.local", TypeAAAA, NoData)
		check("smart", TypeA, Records, "10.1.2.3")
		check("six.test", TypeAAAA, Records, "2001:db8::1")
		check("zone.test", TypeAAAA, NXDomain)
		check("elsewhere.test", TypeA, Records, "192.0.2.9")
		check("localhost", TypeA, Records, "127.0.0.1")
		check("a.localhost", TypeAAAA, Records, "::1")
		check("localhost", TypeMX, NXDomain)
		write("10.1.2.5 smart\n")
		check("smart", TypeA, Records, "10.1.2.3")
		time.Sleep(recheck)
		check("smart", TypeA, Records, "10.1.2.5")
		check("smart.host.local", TypeA, Records, "192.0.2.8")

		plain := &Client{Servers: []string{"192.0.2.53"}, Dial: server.Dial}
		defer plain.Close()
		if path := plain.hostsPath(); path != "" {
			t.Errorf("with servers of its own it reads %s", path)
		}
		if path := (&Client{}).hostsPath(); path != defaultHostsFile {
			t.Errorf("by default it reads %q", path)
		}
	})
}

func FuzzHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n::1 a b # c\nx y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, ips := range parseHosts(text) {
			if canonical, err := canonicalName(name); err != nil || canonical != name || len(ips) == 0 {
				t.Fatalf("%q has %v", name, ips)
			}
			if slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" }) {
				t.Fatalf("%q has %v", name, ips)
			}
		}
	})
}
