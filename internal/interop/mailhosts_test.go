//go:build interop && linux

package interop

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// mailHost is a server that mail is sent to by name: one address of a Postfix with many.
type mailHost struct {
	name    string // in the log, before each line: "NAME/smtpd"
	address string // without a port
	// identity is what it shows. Nil: STARTTLS is not offered, or leads to nothing.
	identity *identity
	options  string // of smtpd, one a line
}

// mailHosts is a Postfix that throws away what it gets for any domain, and has a name of its own for each
// of its addresses. The port is the same for all, because DNS names none.
type mailHosts struct {
	postfix // its dir alone
	port    int

	// With a certificate that convinces who has lab.trusted for authority:
	trusted *mailHost // issued by it
	chained *mailHost // issued by intermediate, whose certificate is sent too
	tls12   *mailHost // like trusted, with TLS 1.2 at most
	tls11   *mailHost // like trusted, with TLS 1.1 at most: no handshake comes about

	// With one that does not:
	self     *mailHost // issued by nobody, for a name that nobody asks for, and expired
	expired  *mailHost // issued by lab.trusted, whose certificate is sent too, and expired
	misnamed *mailHost // issued by lab.trusted, whose certificate is sent too, for misnamedFor
	orphan   *mailHost // issued by intermediate, whose certificate is not sent

	// Without TLS:
	plain  *mailHost // does not offer STARTTLS
	broken *mailHost // offers it, and answers it with 454

	intermediate *authority // has its certificate from lab.trusted
}

// mailHostNames are the names that the good certificates are for.
var mailHostNames = []string{"*.signed.test", "*.insecure.signed.test", "*.plain.test"}

// misnamedFor is the name that the certificate of misnamed is for.
const misnamedFor = "misnamed.signed.test"

func startMailHosts(dir string) (*mailHosts, error) {
	m := &mailHosts{postfix: postfix{dir: dir}}
	if err := m.identify(); err != nil {
		return nil, err
	}
	var err error
	if m.port, err = freePort(); err != nil {
		return nil, err
	}
	if err := m.configure(); err != nil {
		return nil, err
	}
	if err := command("", "postfix", "-c", m.etc(), "check"); err != nil {
		return nil, err
	}
	server, err := launch(nil, filepath.Join(dir, "output"), "/usr/lib/postfix/sbin/master", "-d", "-c", m.etc())
	if err != nil {
		return nil, err
	}
	if err := server.listens(m.port); err != nil {
		log, _ := os.ReadFile(m.logFile())
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return m, eventually("all addresses", func() bool { return sockets(m.port)["LISTEN"] >= len(m.all()) })
}

// all are the servers.
func (m *mailHosts) all() []*mailHost {
	return []*mailHost{m.trusted, m.chained, m.tls12, m.tls11, m.self, m.expired, m.misnamed, m.orphan, m.plain, m.broken}
}

// identify makes the servers and what they show.
func (m *mailHosts) identify() error {
	var errs []error
	host := func(name, options string, by *authority, names []string, change func(*x509.Certificate), others ...*x509.Certificate) *mailHost {
		h := &mailHost{name: name, options: options}
		var err error
		h.identity, err = by.identify(names, change, others...)
		errs = append(errs, err)
		return h
	}
	var err error
	if m.intermediate, err = lab.trusted.delegate("intermediate"); err != nil {
		return err
	}
	root, sent := lab.trusted.certificate, m.intermediate.certificate
	m.trusted = host("trusted", "", lab.trusted, mailHostNames, nil)
	m.chained = host("chained", "", m.intermediate, mailHostNames, nil, sent)
	m.tls12 = host("tls12", "smtpd_tls_protocols = <=TLSv1.2", lab.trusted, mailHostNames, nil)
	m.tls11 = host("tls11", "smtpd_tls_protocols = <=TLSv1.1", lab.trusted, mailHostNames, nil)
	m.self = host("self", "", nil, []string{"localhost.localdomain"}, past)
	m.expired = host("expired", "", lab.trusted, mailHostNames, past, root)
	m.misnamed = host("misnamed", "", lab.trusted, []string{misnamedFor}, nil, root)
	m.orphan = host("orphan", "", m.intermediate, mailHostNames, nil)
	m.plain = &mailHost{name: "plain", options: "smtpd_tls_security_level = none"}
	m.broken = &mailHost{name: "broken", options: "smtpd_tls_protocols = none at all"}
	subnet := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256)) // another run at the same time has another one
	for i, h := range m.all() {
		h.address = subnet + fmt.Sprint(i+1)
	}
	return errors.Join(errs...)
}

const mailHostsMain = `
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/mail.log
maillog_file_prefixes = DIR
myhostname = mailhosts.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:all
virtual_transport = discard:
smtpd_peername_lookup = no
enable_long_queue_ids = yes
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
`

const mailHostsMaster = `
cleanup  unix        n - n -     0 cleanup
qmgr     unix        n - n 300   1 qmgr
tlsmgr   unix        - - n 1000? 1 tlsmgr
rewrite  unix        - - n -     - trivial-rewrite
bounce   unix        - - n -     0 bounce
defer    unix        - - n -     0 bounce
trace    unix        - - n -     0 bounce
error    unix        - - n -     - error
discard  unix        - - n -     - discard
anvil    unix        - - n -     1 anvil
postlog  unix-dgram  n - n -     1 postlogd
`

func (m *mailHosts) configure() error {
	daemon, err := account("postfix")
	if err != nil {
		return err
	}
	var master strings.Builder
	for _, h := range m.all() {
		fmt.Fprintf(&master, "%s:%d inet n - n - - smtpd -o syslog_name=%s\n", h.address, m.port, h.name)
		if h.identity != nil {
			file := filepath.Join(m.etc(), h.name+".pem")
			text, err := h.identity.pem()
			if err = errors.Join(err, writeFile(file, text)); err != nil {
				return err
			}
			fmt.Fprintf(&master, "    -o smtpd_tls_chain_files=%s\n", file)
		}
		if h.options != "" {
			fmt.Fprintf(&master, "    -o { %s }\n", h.options)
		}
	}
	err = errors.Join(
		writeFile(filepath.Join(m.etc(), "main.cf"), strings.ReplaceAll(mailHostsMain, "DIR", m.dir)),
		writeFile(filepath.Join(m.etc(), "master.cf"), master.String()+mailHostsMaster))
	for name, owner := range map[string]uint32{"queue": 0, "data": daemon.Uid} {
		path := filepath.Join(m.dir, name)
		err = errors.Join(err, os.Mkdir(path, 0o755), os.Chown(path, int(owner), -1))
	}
	return err
}
