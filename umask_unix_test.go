//go:build unix

package delivery

import "syscall"

func umask(mask int) int { return syscall.Umask(mask) }
