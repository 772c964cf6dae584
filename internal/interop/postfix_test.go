//go:build interop && linux

package interop

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// postfixName is what Postfix calls itself, and whom its certificate is for.
const postfixName = "mx.example.test"

// postfix is a Postfix that keeps mail for example.test in one Maildir for each user, throws away what
// is for discard.test, and refuses what is for some users of either.
type postfix struct {
	dir string
	// Addresses: STARTTLS is offered; is not offered; is demanded, and so is AUTH.
	smtp, clear, auth string
	// Two more with STARTTLS: one that bears any number of errors, and one with the limits of a default
	// configuration that does not take its time to answer errors.
	patient, strict string
	// And one for a proxy that says by the PROXY protocol whom it speaks for.
	proxied string
}

// postfixUsers are those with a Maildir; each test has its own.
var postfixUsers = strings.Fields(`first bytes-1 bytes-2 bytes-3 bytes-4 bytes-5 bytes-6 bytes-7 bytes-8
	in-clear unverified no-starttls after-refusal login by-policy
	pool-1 pool-2 pool-3 pool-4 pool-5 pool-6 pool-7 pool-8
	haproxy socks`)

// postfixTrace are the header fields that Postfix puts on top.
var postfixTrace = []string{"Return-Path", "X-Original-To", "Delivered-To", "Received"}

// postfixQueued is what Postfix says of a message that it took, by DATA or by BDAT, with the name of the
// queue file.
var postfixQueued = regexp.MustCompile(`^Ok: (?:\d+ bytes )?queued as ([0-9A-Za-z]+)$`)

// postfixRefusals are recipients with a will of their own, and what Postfix answers.
const postfixRefusals = `
/^nobody[-@]/  550 5.1.1 There is nobody of that name
/^grey[-@]/    450 4.2.0 Greylisted, come back later
`

// startPostfix starts Postfix in a new directory. The socket is where Dovecot checks passwords.
func startPostfix(dir, saslSocket string) (*postfix, error) {
	p := &postfix{dir: dir}
	ports := make([]int, 6)
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	for i, address := range []*string{&p.smtp, &p.clear, &p.auth, &p.patient, &p.strict, &p.proxied} {
		*address = loopback(ports[i])
	}
	if err := p.configure(saslSocket); err != nil {
		return nil, err
	}
	// check makes the directories of the queue. The usual start would detach the server from us.
	if err := command("", "postfix", "-c", p.etc(), "check"); err != nil {
		return nil, err
	}
	server, err := launch(nil, filepath.Join(dir, "output"), "/usr/lib/postfix/sbin/master", "-d", "-c", p.etc())
	if err != nil {
		return nil, err
	}
	for _, port := range ports {
		if err := server.listens(port); err != nil {
			log, _ := os.ReadFile(p.logFile())
			return nil, fmt.Errorf("%w\n%s", err, log)
		}
	}
	return p, nil
}

func (p *postfix) etc() string     { return filepath.Join(p.dir, "etc") }
func (p *postfix) logFile() string { return filepath.Join(p.dir, "mail.log") }

func (p *postfix) configure(saslSocket string) error {
	nobody, err := account("nobody")
	if err != nil {
		return err
	}
	daemon, err := account("postfix")
	if err != nil {
		return err
	}
	var users strings.Builder
	for _, u := range postfixUsers {
		fmt.Fprintf(&users, "%s@example.test %s/\n", u, u)
	}
	fill := strings.NewReplacer("DIR", p.dir, "UID", fmt.Sprint(nobody.Uid), "GID", fmt.Sprint(nobody.Gid),
		"NAME", postfixName, "SASL", saslSocket, "SMTP", p.smtp, "CLEAR", p.clear, "AUTH", p.auth,
		"PATIENT", p.patient, "STRICT", p.strict, "PROXIED", p.proxied).Replace
	for name, content := range map[string]string{
		"etc/main.cf": fill(postfixMain), "etc/master.cf": fill(postfixMaster),
		"etc/users": users.String(), "etc/refusals": postfixRefusals,
	} {
		if err := writeFile(filepath.Join(p.dir, name), content); err != nil {
			return err
		}
	}
	for name, owner := range map[string]uint32{"queue": 0, "data": daemon.Uid, "mail": nobody.Uid} {
		path := filepath.Join(p.dir, name)
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chown(path, int(owner), -1)); err != nil {
			return err
		}
	}
	return lab.trusted.issue(postfixName, filepath.Join(p.etc(), "cert.pem"), filepath.Join(p.etc(), "key.pem"))
}

const postfixMain = `
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/mail.log
maillog_file_prefixes = DIR
myhostname = NAME
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
default_transport = error:5.1.2 nothing leaves this server
virtual_mailbox_domains = example.test, discard.test
virtual_mailbox_maps = texthash:DIR/etc/users, inline:{ @discard.test=none }
virtual_mailbox_base = DIR/mail
virtual_mailbox_limit = 0
virtual_uid_maps = static:UID
virtual_gid_maps = static:GID
virtual_transport = virtual
transport_maps = inline:{ discard.test=discard: }
smtpd_peername_lookup = no
smtpd_client_port_logging = yes
enable_long_queue_ids = yes
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:DIR/etc/refusals
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = DIR/etc/cert.pem
smtpd_tls_key_file = DIR/etc/key.pem
smtpd_tls_loglevel = 1
smtpd_sasl_type = dovecot
smtpd_sasl_path = SASL
`

const postfixMaster = `
SMTP     inet        n - n -     - smtpd
CLEAR    inet        n - n -     - smtpd -o smtpd_tls_security_level=none
AUTH     inet        n - n -     - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes
    -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
PATIENT  inet        n - n -     - smtpd -o smtpd_soft_error_limit=100000 -o smtpd_hard_error_limit=100000
    -o smtpd_junk_command_limit=100000
STRICT   inet        n - n -     - smtpd -o smtpd_error_sleep_time=0
PROXIED  inet        n - n -     - smtpd -o smtpd_upstream_proxy_protocol=haproxy
pickup   unix        n - n 60    1 pickup
cleanup  unix        n - n -     0 cleanup
qmgr     unix        n - n 300   1 qmgr
tlsmgr   unix        - - n 1000? 1 tlsmgr
rewrite  unix        - - n -     - trivial-rewrite
bounce   unix        - - n -     0 bounce
defer    unix        - - n -     0 bounce
trace    unix        - - n -     0 bounce
proxymap unix        - - n -     - proxymap
showq    unix        n - n -     - showq
error    unix        - - n -     - error
retry    unix        - - n -     - error
discard  unix        - - n -     - discard
virtual  unix        - n n -     - virtual
anvil    unix        - - n -     1 anvil
postlog  unix-dgram  n - n -     1 postlogd
`

// writeFile writes a file and makes the directory that it is in.
func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// mail waits for the one message that a user should have, and takes it.
func (p *postfix) mail(t *testing.T, user string) string {
	t.Helper()
	maildir := filepath.Join(p.dir, "mail", user)
	mustSee(t, "the mail of "+user, func() bool {
		files, _ := os.ReadDir(filepath.Join(maildir, "new"))
		return len(files) > 0
	})
	return takeMessage(t, maildir)
}

// log begins to watch the log, when all that came before is in it: the lines are written by a process
// of their own, in the order in which it gets them, and the last ones of a connection are sent when the
// client has long gone on.
func (p *postfix) log(t *testing.T) *postfixLog {
	t.Helper()
	l := &postfixLog{file: p.logFile()}
	mark := rand.Text()
	if err := command("", "postlog", "-c", p.etc(), mark); err != nil {
		t.Fatal(err)
	}
	mustSee(t, "the log of Postfix to be complete", func() bool {
		text := l.text(t)
		return strings.Contains(text, mark) &&
			strings.Count(text, ": connect from ") == strings.Count(text, ": disconnect from ")
	})
	l.from = len(l.text(t))
	return l
}

// postfixLog is the part of the log that was written since a certain moment.
type postfixLog struct {
	file string
	from int
}

func (l *postfixLog) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(l.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text[l.from:])
}

// postfixClient is how Postfix notes who sent a message, by the name of the queue file. Such names are not used
// again, because they are of the long kind.
var postfixClient = regexp.MustCompile(`: ([0-9A-Za-z]+): client=unknown\[(\S+?)\]:(\d+)`)

// clients are the addresses and ports that messages came from, by the names of the queue files, at the end
// of n connections.
func (l *postfixLog) clients(t *testing.T, n int) map[string]netip.AddrPort {
	t.Helper()
	l.dialogues(t, n)
	found := map[string]netip.AddrPort{}
	for _, m := range postfixClient.FindAllStringSubmatch(l.text(t), -1) {
		client, err := netip.ParseAddrPort(net.JoinHostPort(m[2], m[3]))
		if err != nil {
			t.Fatalf("%v in %s", err, m[0])
		}
		found[m[1]] = client
	}
	return found
}

// postfixDialogue is how Postfix sums a connection up: how often it accepted which command.
type postfixDialogue map[string]string

var postfixDisconnect = regexp.MustCompile(`: disconnect from \S+ (.*)`)

// newDialogue reads the line in which a connection is summed up.
func newDialogue(line string) postfixDialogue {
	d := postfixDialogue{}
	for _, pair := range strings.Fields(postfixDisconnect.FindStringSubmatch(line)[1]) {
		command, count, _ := strings.Cut(pair, "=")
		d[command] = count
	}
	return d
}

// dialogues waits for the end of n connections.
func (l *postfixLog) dialogues(t *testing.T, n int) []postfixDialogue {
	t.Helper()
	var found []postfixDialogue
	mustSee(t, "the end of connections in the log of Postfix", func() bool {
		found = nil
		for _, line := range postfixDisconnect.FindAllString(l.text(t), -1) {
			found = append(found, newDialogue(line))
		}
		return len(found) >= n
	})
	if len(found) > n {
		t.Fatalf("%d connections, want %d: %v", len(found), n, found)
	}
	return found
}
