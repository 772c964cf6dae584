package main

import (
	"cmp"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mtadelivery/delivery"
)

// trace prints the dialogues to w, each line with the first digits of its session's id.
func trace(w io.Writer) *delivery.Trace {
	short := func(s *delivery.Session) string { return s.ID[:min(8, len(s.ID))] }
	return &delivery.Trace{
		Resolved: func(queue delivery.QueueName, plan delivery.Plan, err error) {
			for _, h := range plan.Hosts {
				fmt.Fprintf(w, "-------- plan for %s: %s\n", queue, planned(&h))
			}
			if err != nil {
				fmt.Fprintf(w, "-------- no plan for %s: %s\n", queue, oneLine(err.Error()))
			}
		},
		TLSReport: func(readyName string, r delivery.TLSReport) {
			if r.Failure != "" {
				fmt.Fprintf(w, "-------- TLS with %s (%s): %s: %s\n", cmp.Or(r.Host, r.PolicyDomain), r.PolicyType, r.Failure, oneLine(fmt.Sprint(r.Err)))
			}
		},
		Dialing: func(readyName string, to delivery.DialRequest) {
			fmt.Fprintf(w, "-------- dialing %s (%s) for %s\n", to.Address, to.Host, readyName)
		},
		Dialed: func(readyName string, to delivery.DialRequest, err error) {
			if err != nil {
				fmt.Fprintf(w, "-------- no connection to %s (%s): %s\n", to.Address, to.Host, oneLine(err.Error()))
			}
		},
		Opened: func(s *delivery.Session) {
			fmt.Fprintf(w, "%s -- ready: %s\n", short(s), where(s))
		},
		Sent: func(s *delivery.Session, line string) {
			fmt.Fprintf(w, "%s C: %s\n", short(s), oneLine(line))
		},
		Received: func(s *delivery.Session, line string) {
			fmt.Fprintf(w, "%s S: %s\n", short(s), oneLine(line))
		},
		Reused: func(s *delivery.Session) {
			fmt.Fprintf(w, "%s -- used again\n", short(s))
		},
		Throttled: func(readyName string, wait time.Duration, err error) {
			fmt.Fprintf(w, "-------- held back for %v: %s\n", wait.Round(time.Millisecond), readyName)
		},
		Closed: func(s *delivery.Session, why string) {
			fmt.Fprintf(w, "%s -- closed: %s\n", short(s), why)
		},
	}
}

// planned is a host of a plan, with what it has to offer of TLS and why.
func planned(h *delivery.PlannedHost) string {
	text := h.Host
	if h.Address != "" {
		text += " (" + h.Address + ")"
	}
	if p := h.TLS; p.Mode != "" {
		text += ": TLS " + p.Mode + " by " + p.By
		if p.DANE != "" {
			text += ", DANE " + p.DANE
		}
		if p.MTASTS != "" {
			text += ", MTA-STS " + p.MTASTS
		}
	}
	if err := cmp.Or(h.Err, h.TLS.Err); err != nil {
		text += ": " + oneLine(err.Error())
	}
	return text
}

// lockedWriter lets several goroutines write whole lines to one writer.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
