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
	server  *process
}

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
	interface: 127.0.0.1
	port: PORT
	access-control: 127.0.0.0/8 allow
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
	port, err := freeDNSPort()
	if err != nil {
		return nil, err
	}
	u := &unbound{address: loopback(port)}
	conf := filepath.Join(dir, "unbound.conf")
	text, err := use.configure(dir, port, zones)
	if err = errors.Join(err, writeFile(conf, text)); err != nil {
		return nil, err
	}
	nobody, err := account("nobody")
	if err != nil {
		return nil, err
	}
	if u.server, err = launch(nobody, filepath.Join(dir, "output"), "/usr/sbin/unbound", "-d", "-c", conf); err != nil {
		return nil, err
	}
	if err := u.server.listens(port); err != nil {
		said, _ := os.ReadFile(u.server.output)
		return nil, fmt.Errorf("%w\n%s", err, said)
	}
	return u, nil
}

// configure writes the zones to files and returns the configuration.
func (use *unboundUse) configure(dir string, port int, zones []*zone) (string, error) {
	modules, explains := "validator iterator", "yes"
	if use.careless {
		modules = "iterator"
	}
	if use.silent {
		explains = "no"
	}
	var conf strings.Builder
	conf.WriteString(strings.NewReplacer("PORT", fmt.Sprint(port), "DIR", dir, "MODULES", modules, "EXPLAINS", explains).
		Replace(unboundConf))
	for _, anchor := range use.anchors {
		fmt.Fprintf(&conf, "server:\n\ttrust-anchor: \"%s\"\n", strings.ReplaceAll(anchor, "\t", " "))
	}
	for _, z := range zones {
		text, err := z.text()
		file := filepath.Join(dir, z.origin+"zone")
		if err = errors.Join(err, writeFile(file, text)); err != nil {
			return "", err
		}
		fmt.Fprintf(&conf, "server:\n\tlocal-zone: \"%s\" transparent\n"+
			"auth-zone:\n\tname: \"%s\"\n\tzonefile: \"%s\"\n\tfor-downstream: no\n\tfor-upstream: yes\n\tfallback-enabled: no\n",
			z.origin, z.origin, file)
	}
	for _, origin := range use.lame {
		fmt.Fprintf(&conf, "server:\n\tlocal-zone: \"%s\" transparent\nauth-zone:\n\tname: \"%s\"\n"+
			"\tfor-downstream: no\n\tfor-upstream: yes\n\tfallback-enabled: no\n", origin, origin)
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
