//go:build interop && linux

package interop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// A keeper is a second process of the test program. It stops the servers that are left and removes
// the directory when its input ends: that is when the tests are over, and also when they were
// interrupted, killed or ended by a time limit, where no code of their own runs any more.
type keeper struct {
	mu    sync.Mutex
	input io.WriteCloser
	cmd   *exec.Cmd
	said  bytes.Buffer
}

// keeperDir is the environment variable that makes a process a keeper of the directory in it.
const keeperDir = "DELIVERY_INTEROP_KEEPER"

func startKeeper(dir string) (*keeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k := &keeper{cmd: exec.Command(self)}
	k.cmd.Env = append(os.Environ(), keeperDir+"="+dir)
	k.cmd.Stderr = &k.said
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	if k.input, err = k.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return k, k.cmd.Start()
}

// watch tells the keeper about a process group that has begun, forget that it has ended.
func (k *keeper) watch(group int)  { k.tell('+', group) }
func (k *keeper) forget(group int) { k.tell('-', group) }

func (k *keeper) tell(what rune, group int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fmt.Fprintf(k.input, "%c%d\n", what, group)
}

// end ends the input and waits until the keeper has done its work.
func (k *keeper) end() error {
	k.input.Close()
	if err := k.cmd.Wait(); err != nil {
		return fmt.Errorf("the keeper: %w\n%s", err, &k.said)
	}
	return nil
}

// keep is the whole life of a keeper.
func keep(dir string, input io.Reader) error {
	var groups []int
	for lines := bufio.NewScanner(input); lines.Scan(); {
		group, err := strconv.Atoi(lines.Text()[1:])
		if err != nil {
			return err
		}
		if groups = append(groups, group); lines.Text()[0] == '-' {
			groups = slices.DeleteFunc(groups, func(g int) bool { return g == group })
		}
	}
	var errs []error
	for _, group := range slices.Backward(groups) { // a server may use those that were started before it
		errs = append(errs, endGroup(group))
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// endGroup ends a process group and returns when none of it is left.
func endGroup(group int) error {
	gone := func() bool { return !groupLives(group) }
	if gone() {
		return nil
	}
	syscall.Kill(-group, syscall.SIGTERM)
	err := eventually(fmt.Sprintf("the end of process group %d", group), gone)
	if err != nil {
		syscall.Kill(-group, syscall.SIGKILL)
		err = errors.Join(err, eventually("its end after a kill", gone))
	}
	return err
}

// groupLives says whether a process group has any process that is more than a zombie: orphans are
// reaped by the system's init, in its own time.
func groupLives(group int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// PID (NAME) STATE PPID PGRP ..., and the name may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && !strings.Contains("ZX", fields[0]) {
			return true
		}
	}
	return false
}
