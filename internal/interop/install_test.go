//go:build interop && linux

package interop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// needed are the programs that the tests run and the Debian packages they come in.
var needed = []struct{ program, pkg string }{
	{"/usr/sbin/postfix", "postfix"},
	{"/usr/sbin/smtp-sink", "postfix"},
	{"/usr/sbin/dovecot", "dovecot-core"},
	{"/usr/bin/doveadm", "dovecot-core"},
	{"/usr/lib/dovecot/lmtp", "dovecot-lmtpd"},
	{"/usr/bin/mlist", "mblaze"},
	{"/usr/bin/mhdr", "mblaze"},
	{"/usr/sbin/haproxy", "haproxy"},
	{"/usr/sbin/danted", "dante-server"},
	{"/usr/bin/microsocks", "microsocks"},
	{"/usr/sbin/unbound", "unbound"},
	{"/usr/bin/lua5.4", "lua5.4"},
}

// install installs the packages that are missing.
func install() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests need root: they start servers that change their user")
	}
	var missing []string
	for _, n := range needed {
		if _, err := os.Stat(n.program); err != nil && !slices.Contains(missing, n.pkg) {
			missing = append(missing, n.pkg)
		}
	}
	if missing == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("these tests need the Debian packages %s, and there is no apt-get to install them",
			strings.Join(missing, " "))
	}
	// Ctrl-C ends apt-get in its own way, and then us.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	allowStarts, err := forbidStarts()
	if err != nil {
		return err
	}
	defer allowStarts()
	if err := command("postfix postfix/main_mailer_type select No configuration\n", "debconf-set-selections"); err != nil {
		return err
	}
	if err := command("", "apt-get", "-qq", "update"); err != nil {
		return err
	}
	return command("", append([]string{"apt-get", "-qq", "-y", "--no-install-recommends",
		"-o", "DPkg::Lock::Timeout=120", "install"}, missing...)...)
}

// policyFile is where Debian's packages ask whether they may start what they install.
const policyFile = "/usr/sbin/policy-rc.d"

// forbidStarts keeps packages from starting their servers until allow is called. A machine that has a
// policy of its own keeps it.
func forbidStarts() (allow func(), err error) {
	f, err := os.OpenFile(policyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(policyFile)
		return nil, err
	}
	return func() { os.Remove(policyFile) }, nil
}

// command runs a program to its end. What it said is in the error.
func command(input string, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	cmd.Stdin = strings.NewReader(input)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}
