// Deliver sends messages through whatever a KumoMTA policy, or a queue config, says, and prints what
// became of every recipient:
//
//	go run ./examples/deliver -policy policy.lua -from a@example.com -to b@example.com message.eml
//
// deliver -h lists the flags. What there is to learn from it for a host of one's own: host.go sets a
// Runtime up and finds the protocol of each queue, message.go makes messages and splits them by
// queue, run.go calls Deliver and stops in order.
//
// The exit status is 0 if every recipient was delivered, 69 if one failed for good, 75 if one failed
// for now or was not tried; 64 for bad usage, 65 for a message that cannot be sent as it is, 66 for a
// file that cannot be read, 74 for output that cannot be written, 78 for a policy or a config that is
// wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/mtadelivery/delivery"
)

// The exit statuses, after sysexits.
const (
	exitOK          = 0
	exitUsage       = 64
	exitData        = 65
	exitNoInput     = 66
	exitUnavailable = 69
	exitIOError     = 74
	exitTempFail    = 75
	exitConfig      = 78
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program. The end of ctx is Ctrl-C.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	status, err := deliver(ctx, args, stdin, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		printUsage(stdout)
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "deliver:", oneLine(err.Error()))
		return exitOf(err)
	}
	return status
}

func deliver(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	o, err := parseFlags(args)
	if err != nil {
		return 0, err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errTimeout)
		defer cancel()
	}
	bar := newProgress(o, stderr)
	stderr = &lockedWriter{w: stderr}

	envelopes, err := readEnvelopes(ctx, o, stdin)
	if err != nil {
		return 0, err
	}
	h, err := newHost(ctx, o, stderr)
	if err != nil {
		return 0, err
	}
	defer h.close()
	for _, e := range envelopes {
		if err := h.split(ctx, e); err != nil {
			return 0, err
		}
	}
	if o.dryRun {
		return dryRun(ctx, envelopes, stdout)
	}
	r := newReport(o, stdout)
	h.send(ctx, o, envelopes, r, bar)
	return r.status()
}

var errTimeout = errors.New("the time of -timeout is over")

// interrupted is the error of a run that was ended before anything was sent.
type interrupted struct{ cause error }

func (e *interrupted) Error() string { return "nothing was sent: " + e.cause.Error() }
func (e *interrupted) Unwrap() error { return e.cause }

// exitOf is the exit status that an error stands for.
func exitOf(err error) int {
	if _, ok := errors.AsType[*interrupted](err); ok {
		return exitTempFail
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*delivery.ConfigError](err); ok {
		return exitConfig
	}
	if _, ok := errors.AsType[*dataError](err); ok {
		return exitData
	}
	if _, ok := errors.AsType[*outputError](err); ok {
		return exitIOError
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return exitNoInput
	}
	return exitConfig // what a policy raises may be any error
}

// oneLine makes a text of strangers fit for one line of a terminal.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}
