//go:build interop && linux

package interop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// lab is what all tests share. TestMain fills it in.
var lab struct {
	dir     string // readable by the users that servers run as
	keeper  *keeper
	program string // examples/deliver
	trusted *authority
	foreign *authority // one that issued nothing
	postfix *postfix
	dovecot *dovecot
	// Mail servers that are found by name, the resolvers that know these names, and what is to be seen there.
	hosts     *mailHosts
	names     *nameServers
	scenarios []*scenario
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(keeperDir); dir != "" {
		exit(0, keep(dir, os.Stdin))
	}
	exit(runLab(m))
}

func exit(code int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

// runLab starts what the tests share, runs them, and ends it again.
func runLab(m *testing.M) (code int, err error) {
	if err := install(); err != nil {
		return 0, err
	}
	// Servers that have dropped root must be able to come this far; a temporary directory of Go's own
	// has parents that let nobody in.
	if lab.dir, err = os.MkdirTemp("/tmp", "delivery-interop-"); err != nil {
		return 0, err
	}
	if err := os.Chmod(lab.dir, 0o711); err != nil {
		return 0, err
	}
	if lab.keeper, err = startKeeper(lab.dir); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, lab.keeper.end()) }()
	if err := startLab(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func startLab() error {
	var err error
	lab.program = filepath.Join(lab.dir, "deliver")
	build := exec.Command("go", "build", "-o", lab.program, "github.com/mtadelivery/delivery/examples/deliver")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, text)
	}
	if lab.trusted, err = newAuthority("trusted"); err != nil {
		return err
	}
	if lab.foreign, err = newAuthority("foreign"); err != nil {
		return err
	}
	if lab.dovecot, err = startDovecot(filepath.Join(lab.dir, "dovecot")); err != nil {
		return fmt.Errorf("Dovecot: %w", err)
	}
	if lab.postfix, err = startPostfix(filepath.Join(lab.dir, "postfix"), lab.dovecot.sasl); err != nil {
		return fmt.Errorf("Postfix: %w", err)
	}
	if lab.hosts, err = startMailHosts(filepath.Join(lab.dir, "hosts")); err != nil {
		return fmt.Errorf("Postfix for TLS: %w", err)
	}
	lab.scenarios = scenarios(lab.hosts)
	if lab.names, err = startNames(filepath.Join(lab.dir, "names"), lab.scenarios); err != nil {
		return fmt.Errorf("Unbound: %w", err)
	}
	return nil
}
