package main

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/mtadelivery/delivery"
)

// report takes the results in, prints them, and keeps what the summary and the exit status need: it
// grows with neither messages nor recipients.
type report struct {
	out   io.Writer
	json  bool
	bulk  bool
	table *table

	mu         sync.Mutex
	counts     [delivery.Unsent + 1]int // recipients, by status
	messages   int                      // that have come back
	expected   int                      // messages
	recipients int                      // expected
	latencies  histogram
	configErr  error // the first mistake in the config that only a delivery found
	writeErr   error

	start, finish usage
	sessions      uint64
}

func newReport(o *options, out io.Writer) *report {
	return &report{out: out, json: o.json, bulk: o.bulk(), table: newTable(out)}
}

// expect announces copies of an envelope. What is never reported counts as unsent.
func (r *report) expect(e *envelope, copies int) {
	r.expected += copies
	r.recipients += copies * len(e.to)
}

// latency records how long a call took, unless it did not try anything.
func (r *report) latency(d time.Duration, outcome *delivery.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range outcome.Results {
		if outcome.Results[i].Status != delivery.Unsent {
			r.latencies.add(d)
			break
		}
	}
	r.noteConfig(outcome.Err)
}

// message counts and prints a message whose results are complete.
func (r *report) message(t *transfer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages++
	for i := range t.results {
		r.counts[t.results[i].Status]++
		r.noteConfig(t.results[i].Err)
	}
	if err := r.print(t); err != nil && r.writeErr == nil {
		r.writeErr = err
	}
}

// print prints every result; in bulk the table leaves out what was delivered, because the summary
// says enough about it.
func (r *report) print(t *transfer) error {
	if r.json {
		return writeLines(r.out, t)
	}
	for i := range t.results {
		if r.bulk && t.results[i].Status == delivery.Delivered {
			continue
		}
		if err := r.table.add(&t.results[i]); err != nil {
			return err
		}
	}
	return nil
}

// noteConfig keeps an error that says that the policy or the config is wrong: egress events are
// asked only on the way.
func (r *report) noteConfig(err error) {
	if r.configErr != nil || err == nil {
		return
	}
	if _, wrong := errors.AsType[*delivery.ConfigError](err); wrong {
		r.configErr = err
	}
}

func (r *report) begin() { r.start = usageNow() }

// end completes the counts and prints the rest.
func (r *report) end(sessions uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish, r.sessions = usageNow(), sessions
	settled := 0
	for _, n := range r.counts {
		settled += n
	}
	r.counts[delivery.Unsent] += r.recipients - settled
	err := r.table.flush()
	if err == nil && r.bulk {
		err = json.NewEncoder(r.out).Encode(r.summary())
	}
	if r.writeErr == nil {
		r.writeErr = err
	}
}

// outputError is a result that could not be printed.
type outputError struct{ err error }

func (e *outputError) Error() string { return "the results cannot be written: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// status is the exit status of the run.
func (r *report) status() (int, error) {
	switch {
	case r.configErr != nil:
		return 0, r.configErr
	case r.writeErr != nil:
		return 0, &outputError{r.writeErr}
	case r.counts[delivery.Permanent] > 0:
		return exitUnavailable, nil
	case r.counts[delivery.Transient]+r.counts[delivery.Unsent] > 0:
		return exitTempFail, nil
	}
	return exitOK, nil
}

// summary is the last line of a bulk run. Rates and means are of the messages that came back.
type summary struct {
	Summary           bool    `json:"summary"`
	Messages          int     `json:"messages"`
	Recipients        int     `json:"recipients"`
	Delivered         int     `json:"delivered"`
	Transient         int     `json:"transient"`
	Permanent         int     `json:"permanent"`
	Unsent            int     `json:"unsent"`
	Seconds           float64 `json:"seconds"`
	PerSecond         float64 `json:"per_second"`
	CPUSeconds        float64 `json:"cpu_seconds"`
	MallocsPerMessage float64 `json:"mallocs_per_message"`
	BytesPerMessage   float64 `json:"bytes_per_message"`
	Sessions          uint64  `json:"sessions"`
	P50               float64 `json:"p50_ms"`
	P99               float64 `json:"p99_ms"`
}

func (r *report) summary() *summary {
	seconds := r.finish.wall.Sub(r.start.wall).Seconds()
	n := float64(max(r.messages, 1))
	return &summary{
		Summary:           true,
		Messages:          r.expected,
		Recipients:        r.recipients,
		Delivered:         r.counts[delivery.Delivered],
		Transient:         r.counts[delivery.Transient],
		Permanent:         r.counts[delivery.Permanent],
		Unsent:            r.counts[delivery.Unsent],
		Seconds:           round(seconds, 1e6),
		PerSecond:         round(float64(r.messages)/max(seconds, 1e-9), 10),
		CPUSeconds:        round((r.finish.cpu - r.start.cpu).Seconds(), 1e6),
		MallocsPerMessage: round(float64(r.finish.mallocs-r.start.mallocs)/n, 10),
		BytesPerMessage:   round(float64(r.finish.bytes-r.start.bytes)/n, 1),
		Sessions:          r.sessions,
		P50:               round(r.latencies.quantile(0.50).Seconds()*1e3, 1e3),
		P99:               round(r.latencies.quantile(0.99).Seconds()*1e3, 1e3),
	}
}

// round rounds x to so many parts of one.
func round(x, parts float64) float64 { return math.Round(x*parts) / parts }

// usage is what the process had used at one moment.
type usage struct {
	wall           time.Time
	cpu            time.Duration
	mallocs, bytes uint64
}

func usageNow() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Now(), cpuTime(), m.Mallocs, m.TotalAlloc}
}
