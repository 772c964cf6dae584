//go:build interop && linux

package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// unbound is a resolver that knows some zones, checks their signatures, and asks nobody: what is in none
// of its zones does not exist.
type unbound struct {
	address string // for UDP and TCP
	tls     string // for DNS over TLS (RFC 7858), with a certificate of lab.trusted for unboundName
	server  *process
}

// unboundName is whom the certificate of a resolver is for.
const unboundName = "dns.example.test"

// unboundUse is what a resolver is told besides its zones.
type unboundUse struct {
	anchors []string // DS records of the keys that it trusts in
	// careless: it believes everything, as a resolver does that knows nothing of DNSSEC.
	careless bool
	// silent: it gives no reason why it has no answer (RFC 8914), as it does by default.
	silent bool
	// lame are zones for which there is nobody to ask.
	lame []string
}

const unboundConf = `
server:
	interface: 127.0.0.1@PORT
	interface: 127.0.0.1@OVERTLS
	port: PORT
	tls-port: OVERTLS
	tls-service-pem: "DIR/cert.pem"
	tls-service-key: "DIR/key.pem"
	access-control: 127.0.0.0/8 allow
	so-reuseport: no
	do-daemonize: no
	username: ""
	chroot: ""
	pidfile: ""
	directory: "DIR"
	logfile: ""
	use-syslog: no
	log-servfail: yes
	val-log-level: 2
	do-ip6: no
	do-not-query-localhost: no
	trust-anchor-signaling: no
	qname-minimisation: no
	module-config: "MODULES"
	ede: EXPLAINS
	local-zone: "." static
remote-control:
	control-enable: no
`

// startUnbound starts a resolver in a new directory.
func startUnbound(dir string, zones []*zone, use unboundUse) (*unbound, error) {
	port, err1 := freeDNSPort()
	tlsPort, err2 := freePort()
	nobody, err3 := account("nobody")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	u := &unbound{address: loopback(port), tls: loopback(tlsPort)}
	conf, cert, key := filepath.Join(dir, "unbound.conf"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	text, err := use.configure(zones, dir, "PORT", fmt.Sprint(port), "OVERTLS", fmt.Sprint(tlsPort), "DIR", dir)
	if err = errors.Join(err, writeFile(conf, text), lab.trusted.issue(unboundName, cert, key)); err != nil {
		return nil, err
	}
	for _, file := range []string{cert, key} {
		if err := os.Chown(file, int(nobody.Uid), -1); err != nil {
			return nil, err
		}
	}
	if u.server, err = launch(nobody, filepath.Join(dir, "output"), "/usr/sbin/unbound", "-d", "-c", conf); err != nil {
		return nil, err
	}
	if err := errors.Join(u.server.listens(port), u.server.listens(tlsPort)); err != nil {
		said, _ := os.ReadFile(u.server.output)
		return nil, fmt.Errorf("%w\n%s", err, said)
	}
	return u, nil
}

// configure writes the zones to files and returns the configuration, with these words filled in.
func (use *unboundUse) configure(zones []*zone, dir string, words ...string) (string, error) {
	modules, explains := "validator iterator", "yes"
	if use.careless {
		modules = "iterator"
	}
	if use.silent {
		explains = "no"
	}
	var conf strings.Builder
	words = append(words, "MODULES", modules, "EXPLAINS", explains)
	conf.WriteString(strings.NewReplacer(words...).Replace(unboundConf))
	for _, anchor := range use.anchors {
		fmt.Fprintf(&conf, "server:\n\ttrust-anchor: \"%s\"\n", strings.ReplaceAll(anchor, "\t", " "))
	}
	// The validator treats what comes from a file as it would what comes from a server.
	serve := func(origin, file string) {
		fmt.Fprintf(&conf, "server:\n\tlocal-zone: %q transparent\n"+
			"auth-zone:\n\tname: %q\n\tfor-downstream: no\n\tfor-upstream: yes\n\tfallback-enabled: no\n", origin, origin)
		if file != "" {
			fmt.Fprintf(&conf, "\tzonefile: %q\n", file)
		}
	}
	for _, z := range zones {
		text, err := z.text()
		file := filepath.Join(dir, z.origin+"zone")
		if err = errors.Join(err, writeFile(file, text)); err != nil {
			return "", err
		}
		serve(z.origin, file)
	}
	for _, origin := range use.lame {
		serve(origin, "")
	}
	return conf.String(), nil
}

// freeDNSPort finds a port that is free for UDP too.
func freeDNSPort() (int, error) {
	for {
		port, err := freePort()
		if err != nil {
			return 0, err
		}
		conn, err := net.ListenPacket("udp4", loopback(port))
		if err == nil {
			return port, conn.Close()
		}
	}
}
