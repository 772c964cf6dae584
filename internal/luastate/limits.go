package luastate

import (
	"errors"
	"fmt"
	"time"
)

// Limits bounds what a state may take of its host. The zero value has the defaults.
type Limits struct {
	// Running is how long Lua itself may run in one call; what Outside waits for is not counted. It is
	// counted in fiftieths, by whether the state is found running: 1 s if zero, without limit if negative.
	Running time.Duration
	// Memory is how many bytes a state may hold: 128 MiB if zero, without limit if negative. See the
	// package documentation for how closely it is kept.
	Memory int64
}

const (
	defaultRunning = time.Second
	defaultMemory  = 128 << 20
	noLimit        = 1<<63 - 1
)

func (l Limits) withDefaults() Limits {
	return Limits{
		Running: limit(l.Running, defaultRunning, noLimit),
		Memory:  limit(l.Memory, defaultMemory, noLimit),
	}
}

// What ends a call whatever its program does to catch it, and leaves a state that is not to be used again. An
// *Error wraps one of them.
var (
	// ErrTooLong is a call in which Lua ran for longer than Limits.Running. It is an ErrLimit.
	ErrTooLong error = limitError("ran too long")
	// ErrTooMuchMemory is a state that holds more than Limits.Memory. It is an ErrLimit.
	ErrTooMuchMemory error = limitError("not enough memory")
	// ErrPanic is a panic of Go code below Lua.
	ErrPanic = errors.New("panic")
)

// ErrLimit is any of the Limits, when it was broken.
var ErrLimit = errors.New("a limit of Lua is broken")

type limitError string

func (e limitError) Error() string { return string(e) }

func (e limitError) Is(target error) bool { return target == ErrLimit }

func (l Limits) tooLong() error {
	return fmt.Errorf("%w: more than %s", ErrTooLong, l.Running)
}

func (l Limits) tooMuchMemory() error {
	if l.Memory < 1<<20 {
		return fmt.Errorf("%w: more than %d bytes", ErrTooMuchMemory, l.Memory)
	}
	return fmt.Errorf("%w: more than %d MiB", ErrTooMuchMemory, l.Memory>>20)
}
