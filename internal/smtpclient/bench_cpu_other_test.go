//go:build !linux

package smtpclient

import (
	"errors"
	"time"
)

// cpuTime is not known here: what is derived from it is 0.
func cpuTime() time.Duration { return 0 }

func pinToOneCPU() error { return errors.ErrUnsupported }
