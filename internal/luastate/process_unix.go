//go:build unix

package luastate

import (
	"os/exec"
	"syscall"
)

// inGroup makes the command the first of a group, which is killed as one: the shell leaves what it has started to itself.
func inGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
