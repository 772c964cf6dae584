//go:build interop && linux

package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
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
	policies  *policyHosts
	guards    []*guarded
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
	if lab.trusted, err = newAuthority("trusted"); err != nil {
		return err
	}
	if lab.foreign, err = newAuthority("foreign"); err != nil {
		return err
	}
	starts := []func() error{buildProgram, startStores, startNamed}
	errs := make([]error, len(starts))
	var starting sync.WaitGroup
	for i, start := range starts {
		starting.Go(func() { errs[i] = start() })
	}
	starting.Wait()
	return errors.Join(errs...)
}

func buildProgram() error {
	lab.program = filepath.Join(lab.dir, "deliver")
	return command("", "go", "build", "-o", lab.program, "github.com/mtadelivery/delivery/examples/deliver")
}

// startStores starts the servers that keep mail.
func startStores() (err error) {
	if lab.dovecot, err = startDovecot(filepath.Join(lab.dir, "dovecot")); err != nil {
		return fmt.Errorf("Dovecot: %w", err)
	}
	if lab.postfix, err = startPostfix(filepath.Join(lab.dir, "postfix"), lab.dovecot.sasl); err != nil {
		return fmt.Errorf("Postfix: %w", err)
	}
	return nil
}

// startNamed starts the servers that are found by name, and the resolvers.
func startNamed() (err error) {
	if lab.hosts, err = startMailHosts(filepath.Join(lab.dir, "hosts")); err != nil {
		return fmt.Errorf("Postfix: %w", err)
	}
	lab.scenarios = scenarios(lab.hosts)
	if lab.guards, err = guards(lab.hosts); err != nil {
		return err
	}
	if lab.policies, err = startPolicyHosts(lab.guards); err != nil {
		return err
	}
	if lab.names, err = startNames(filepath.Join(lab.dir, "names"), lab.scenarios, lab.guards); err != nil {
		return fmt.Errorf("Unbound: %w", err)
	}
	return nil
}
