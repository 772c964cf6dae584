package delivery

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/mtadelivery/delivery/internal/address"
)

// FuzzPath: whatever a recipient, a sender and metadata hold, the path is two names below the root, or
// there is none. Encoded, there is always one, and what was encoded can be told from it.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"user", `"../../etc"`, `".."`, "a/b", `"a b"`, "dömi", `"{{ 7*7 }}"`, "\x00", strings.Repeat("x", 300), "‥", "／etc",
		"a%2Fb", "%~", strings.Repeat("ü", 200), "\xff", strings.Repeat("/", 90)} {
		f.Add(seed+"@example.com", "sender@example.org", "folder")
		f.Add("user@example.com", seed+"@example.org", seed)
	}
	var templates [2]*pathTemplate
	for i, unsafeValues := range []string{"refuse", "encode"} {
		var err error
		if templates[i], err = compilePath("/maildirs/{{ meta.k }}/u-{{ local_part }}.d", unsafeValues); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, to, from, meta string) {
		msg := &Message{From: from, Recipients: []Recipient{{Address: to}}, Meta: map[string]any{"k": meta}, Body: Bytes("x")}
		a, err := newAttempt(msg)
		if err != nil || len(a.rcpts) == 0 {
			return
		}
		local := a.rcpts[0].Local
		var refused error
		for i, template := range templates {
			at, err := template.of(a).render(a.rcpts[0].Address)
			if err != nil {
				if refused = err; template.encode {
					t.Fatalf("%q with %q: %v", to, meta, err)
				}
				continue
			}
			names := strings.Split(at.rel, "/")
			if at.root != "/maildirs" || len(names) != 2 || filepath.Clean(at.rel) != at.rel || !filepath.IsLocal(at.rel) {
				t.Fatalf("%q with %q goes to %q", to, meta, at)
			}
			for _, name := range names {
				if name == "" || name[0] == '.' || strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name) || len(name) > maxSegment {
					t.Fatalf("%q with %q goes to %q", to, meta, at)
				}
			}
			middle, affixes := strings.CutPrefix(names[1], "u-")
			middle, suffix := strings.CutSuffix(middle, ".d")
			switch {
			case !affixes || !suffix:
				t.Fatalf("%q loses what the template says: %q", to, at)
			case i == 0 && (middle != local || names[0] != meta):
				t.Fatalf("%q with %q goes to %q", to, meta, at)
			case i == 1 && (!encodes(middle, local) || !encodes(names[0], meta)):
				t.Fatalf("%q with %q goes to %q, which stands for something else", to, meta, at)
			case i == 1 && refused == nil && !strings.Contains(at.rel, "%") && (middle != local || names[0] != meta):
				t.Fatalf("%q with %q needs no encoding and goes to %q", to, meta, at)
			}
		}
	})
}

// encodes says whether a name, read as the documentation says, stands for the value and nothing else.
func encodes(name, value string) bool {
	if name == "%_" {
		return value == ""
	}
	name, digest, cut := strings.Cut(name, "%~")
	decoded, err := url.PathUnescape(name)
	if err != nil {
		return false
	}
	if cut {
		return strings.HasPrefix(value, decoded) && digest == fmt.Sprintf("%x", sha256.Sum256([]byte(value)))
	}
	return decoded == value
}

// FuzzDeliveryHeaders: whatever the addresses, two lines go in front of the content, and they say who.
func FuzzDeliveryHeaders(f *testing.F) {
	for _, seed := range []string{"user", `"a b"`, "a\r\nX: y", `"a\` + "\r\n" + `b"`, "a\u0085b", "\"\u2028\"", "dömi", "a>b", `"<>"`, "\x00"} {
		f.Add(seed+"@example.com", "sender@example.org")
		f.Add("user@example.com", seed+"@example.org")
	}
	m := &Maildir{AddReturnPath: true, AddDeliveredTo: true}
	f.Fuzz(func(t *testing.T, to, from string) {
		a, err := newAttempt(&Message{From: from, Recipients: []Recipient{{Address: to}}, Body: Bytes("x")})
		if err != nil || len(a.rcpts) == 0 {
			return
		}
		text := m.headers(a.sender, a.rcpts[0].Address)
		sender, rest, _ := strings.Cut(strings.TrimPrefix(text, "Return-Path: <"), ">\r\nDelivered-To: ")
		rcpt, rest, _ := strings.Cut(rest, "\r\n")
		if again, err := address.ParseSender(sender); err != nil || again != a.sender {
			t.Fatalf("%q from %q: %q", to, from, text)
		}
		if again, err := address.Parse(rcpt); err != nil || again != a.rcpts[0].Address {
			t.Fatalf("%q from %q: %q", to, from, text)
		}
		if lines := strings.Split(text, "\r\n"); len(lines) != 3 || rest != "" || strings.ContainsFunc(strings.Join(lines, ""), unicode.IsControl) {
			t.Fatalf("%q from %q: %q", to, from, text)
		}
	})
}

// FuzzQueueConfig: what parses prints as text that parses to the same.
func FuzzQueueConfig(f *testing.F) {
	for _, seed := range []string{`{}`, `{"protocol": {"smtp": {"mx_list": ["a:25", {"name": "b", "addr": "[::1]:25"}]}}}`,
		`{"protocol": {"maildir_path": "/m/{{ email }}", "dir_mode": "775"}}`, `{"protocol": {"custom_lua": {"constructor": "x"}}, "max_age": "1h 30m"}`,
		`{"max_message_rate": "1/s,max_burst=2", "retry_interval": 1.5, "shrink_policy": []}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := ParseQueueConfig([]byte(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error of several lines: %q", err)
			}
			return
		}
		second, err := ParseQueueConfig([]byte(first.String()))
		if err != nil || second.String() != first.String() {
			t.Fatalf("%s\nprints as %s\nwhich parses to %s, %v", text, first, second, err)
		}
	})
}

// FuzzTarget: an entry of an mx_list is a name, an address or a socket, and only one of them.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"host", "host:25", "[::1]:25", "::1", "10.0.0.1:2025", "/run/x", "[IPv6:::1]", "host:99999", "a\r\nb", "[fe80::1%eth0]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := parseTarget(text)
		if err != nil {
			return
		}
		if target.name == "" || target.addr.IsValid() && target.unix != "" || target.addr.Is4In6() ||
			!target.addr.IsValid() && target.unix == "" && strings.ContainsAny(target.name, " \r\n\x00/@:[]") {
			t.Fatalf("%q is taken for %+v", text, target)
		}
	})
}

// FuzzRoute: whatever the DNS says of a domain, a plan holds no address twice, none that is prohibited or our own,
// no more than there may be, and better hosts before worse ones.
func FuzzRoute(f *testing.F) {
	f.Add([]byte{3, 10, 0, 20, 1, 10, 2, 1, 1, 192, 0, 2, 1, 1, 1, 192, 0, 2, 2, 1, 2, 192, 0, 2, 3, 127, 0, 0, 1})
	f.Add([]byte("\x01\x00\x06"))
	f.Add([]byte{2, 5, 0, 5, 0, 1, 1, 192, 0, 2, 99})
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() (b byte) {
			if len(data) > 0 {
				b, data = data[0], data[1:]
			}
			return b
		}
		answer := func() DNSAnswer { return DNSAnswer{Result: DNSResult(next() % 5), Secure: next()&1 != 0} }
		hosts := []string{"a.test", "b.test", "c.d.test", "x.test", "us.test", "xn--dmi-sna.test", "."}
		exchangers := answer()
		preference := map[string]uint16{}
		for range next() % 100 {
			mx := MXRecord{Preference: uint16(next()), Host: hosts[int(next())%len(hosts)]}
			exchangers.MX = append(exchangers.MX, mx)
			if best, ok := preference[mx.Host]; !ok || mx.Preference < best {
				preference[mx.Host] = mx.Preference
			}
		}
		z := zone{"x.test MX": exchangers}
		for _, host := range hosts {
			for _, typ := range []string{"A", "AAAA"} {
				a := answer()
				for range next() % 40 {
					ip := netip.AddrFrom4([4]byte{next(), next(), next(), next()})
					if typ == "AAAA" {
						ip = netip.AddrFrom16([16]byte{next(), 15: next(), 10: 0xff, 11: 0xff, 12: next()})
					}
					a.Addrs = append(a.Addrs, ip)
				}
				z[host+" "+typ] = a
			}
		}
		own := netip.MustParseAddr("192.0.2.99")
		rt := &Runtime{Resolver: z, MTASTS: MTASTS{Off: true}, OwnNames: []string{"us.test"}, OwnAddresses: []netip.Addr{own}}
		rt.ready()
		defer rt.Close(t.Context())
		p, err := rt.Protocol(QueueConfig{})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := p.Plan(t.Context(), messageTo("a@x.test"))
		if err != nil {
			return
		}
		seen, usable, worst := map[string]bool{}, 0, uint16(0)
		for _, h := range plan.Hosts {
			if h.Err != nil {
				continue
			}
			usable++
			ip := netip.MustParseAddrPort(h.Address).Addr()
			switch key := h.Host + " " + h.Address; {
			case seen[key]:
				t.Fatalf("%s twice", key)
			case ip.IsLoopback(), ip.IsUnspecified(), ip.Is4In6(), ip == own, h.Host == "us.test", h.Host == ".":
				t.Fatalf("%s must not be tried", key)
			case exchangers.Result == DNSRecords && preference[h.Host] < worst:
				t.Fatalf("%s after hosts of preference %d: %+v", key, worst, plan.Hosts)
			default:
				seen[key], worst = true, max(worst, preference[h.Host])
			}
		}
		if usable == 0 || usable > maxCandidates {
			t.Fatalf("%d addresses", usable)
		}
	})
}
