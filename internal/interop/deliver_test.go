//go:build interop && linux

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// result is a line that deliver -json prints: all the fields that there may be.
type result struct {
	Message        int     `json:"message"`
	Recipient      string  `json:"recipient"`
	Status         string  `json:"status"`
	Code           int     `json:"code"`
	Enhanced       string  `json:"enhanced"`
	Text           string  `json:"text"`
	Command        string  `json:"command"`
	Protocol       string  `json:"protocol"`
	Peer           string  `json:"peer"`
	Address        string  `json:"address"`
	Source         string  `json:"source"`
	Proxy          string  `json:"proxy"`
	Session        string  `json:"session"`
	ReadyName      string  `json:"ready_name"`
	TLS            *tlsOf  `json:"tls"`
	RetryAfter     float64 `json:"retry_after_s"`
	MaybeDelivered bool    `json:"maybe_delivered"`
}

type tlsOf struct {
	Version  string `json:"version"`
	Cipher   string `json:"cipher"`
	Verified bool   `json:"verified"`
	By       string `json:"by"`
}

// summary is the last line of a run with -n or -batch.
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
	Sessions          int     `json:"sessions"`
	P50               float64 `json:"p50_ms"`
	P99               float64 `json:"p99_ms"`
}

// run is what a run of deliver left behind.
type run struct {
	status         int
	results        []result
	summary        summary // of a bulk run
	stdout, stderr string
}

// deliver runs examples/deliver with -json to its end.
func deliver(t *testing.T, args ...string) *run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := finish(t, exec.CommandContext(ctx, lab.program, append([]string{"-json"}, args...)...))
	if err := ctx.Err(); err != nil {
		t.Fatalf("deliver %q hung\n%s", args, r.stderr)
	}
	return r
}

// finish runs a command that is deliver and reads what it printed.
func finish(t *testing.T, cmd *exec.Cmd) *run {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	r := &run{status: cmd.ProcessState.ExitCode()}
	r.read(t, stdout.String(), stderr.String())
	return r
}

// read takes the output apart. A field that the tests do not know is an error.
func (r *run) read(t *testing.T, stdout, stderr string) {
	t.Helper()
	r.stdout, r.stderr = stdout, stderr
	for line := range strings.Lines(stdout) {
		var err error
		switch {
		case strings.HasPrefix(line, `{"summary":true`):
			err = decodeExact(line, &r.summary)
		case strings.HasPrefix(line, `{"message":`):
			r.results = append(r.results, result{})
			err = decodeExact(line, &r.results[len(r.results)-1])
		}
		if err != nil {
			t.Fatalf("%v in %s", err, line)
		}
	}
}

func decodeExact(line string, dst any) error {
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	return d.Decode(dst)
}

// exited checks the exit status.
func (r *run) exited(t *testing.T, status int) {
	t.Helper()
	if r.status != status {
		t.Fatalf("exit status %d, want %d\nstdout: %s\nstderr: %s", r.status, status, r.stdout, r.stderr)
	}
}

// statuses are those of the results, in order.
func (r *run) statuses() string {
	var all []string
	for i := range r.results {
		all = append(all, r.results[i].Status)
	}
	return strings.Join(all, " ")
}

// all checks that there are n results and every one has this status.
func (r *run) all(t *testing.T, n int, status string) {
	t.Helper()
	if want := strings.TrimSpace(strings.Repeat(status+" ", n)); r.statuses() != want {
		t.Fatalf("got %q, want %q\nstdout: %s\nstderr: %s", r.statuses(), want, r.stdout, r.stderr)
	}
}

// fields is a table of a config.
type fields map[string]any

func (f fields) json() string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // only the tests' own literals come here
	}
	return string(text)
}

// via is the -config that sends mail to these hosts.
func via(hosts ...any) string {
	return fields{"protocol": fields{"smtp": fields{"mx_list": hosts}}}.json()
}

// named is an mx_list entry with a name and an address.
func named(name, address string) any { return fields{"name": name, "addr": address} }

// path is the -egress-path with these fields. Loopback is prohibited unless one says otherwise.
func path(f fields) string {
	all := fields{"prohibited_hosts": []string{}, "rset_timeout": "1m", "starttls_timeout": "1m"} // see patient
	for key, value := range f {
		all[key] = value
	}
	return all.json()
}

// messageFile writes a message to a file.
func messageFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "message.eml")
	if err := writeFile(name, content); err != nil {
		t.Fatal(err)
	}
	return name
}

// smallMessage is for tests that do not care what they send.
const smallMessage = "From: sender@sender.test\r\nTo: somebody@example.test\r\nSubject: small\r\n\r\nThe body.\r\n"

// withoutTrace is a stored message without what the server put on top, which is said by the names of
// its header fields.
func withoutTrace(stored string, names ...string) string {
	for {
		line, rest, found := strings.Cut(stored, "\n")
		name, _, isField := strings.Cut(line, ":")
		ours := true
		for _, n := range names {
			ours = ours && !(isField && strings.EqualFold(n, name))
		}
		if !found || ours {
			return stored
		}
		for stored = rest; strings.HasPrefix(stored, " ") || strings.HasPrefix(stored, "\t"); {
			_, stored, _ = strings.Cut(stored, "\n")
		}
	}
}

// unixLines is the text as servers store it.
func unixLines(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }
