package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/mtadelivery/delivery"
)

// line is what -json prints of one recipient.
type line struct {
	Message        int      `json:"message"`
	Recipient      string   `json:"recipient"`
	Status         string   `json:"status"`
	Code           int      `json:"code,omitempty"`
	Enhanced       string   `json:"enhanced,omitempty"`
	Text           string   `json:"text"`
	Command        string   `json:"command,omitempty"`
	Protocol       string   `json:"protocol"`
	Peer           string   `json:"peer,omitempty"`
	Address        string   `json:"address,omitempty"`
	Source         string   `json:"source,omitempty"`
	Proxy          string   `json:"proxy,omitempty"`
	Session        string   `json:"session"`
	ReadyName      string   `json:"ready_name"`
	TLS            *tlsLine `json:"tls,omitempty"`
	RetryAfter     float64  `json:"retry_after_s,omitempty"`
	MaybeDelivered bool     `json:"maybe_delivered"`
}

type tlsLine struct {
	Version  string `json:"version"`
	Cipher   string `json:"cipher"`
	Verified bool   `json:"verified"`
	By       string `json:"by"`
}

// lineOf is the line of one result. The kind of the queue stands in where no session tells it.
func lineOf(message int, kind string, r *delivery.Result) *line {
	l := &line{
		Message:        message,
		Recipient:      r.Recipient,
		Status:         r.Status.String(),
		Code:           r.Response.Code,
		Enhanced:       r.Response.Enhanced.String(),
		Text:           textOf(r),
		Command:        r.Response.Command,
		Protocol:       kind,
		RetryAfter:     r.RetryAfter.Seconds(),
		MaybeDelivered: r.MaybeDelivered,
	}
	if s := r.Session; s != nil {
		l.Protocol, l.Session, l.ReadyName = s.Protocol, s.ID, s.ReadyName
		l.Peer, l.Address, l.Source = s.Peer, s.RemoteAddr, s.LocalAddr
		l.Proxy = s.Proxy
		if s.TLS != nil {
			l.TLS = &tlsLine{s.TLS.Version, s.TLS.Cipher, s.TLS.Verified, s.TLS.By}
		}
	}
	return l
}

// textOf is the reply's text or, where there was no reply, the reason.
func textOf(r *delivery.Result) string {
	if r.Response.Text == "" && r.Response.Code == 0 && r.Err != nil {
		return r.Err.Error()
	}
	return r.Response.Text
}

// writeLines prints the results of a message as JSON lines, in one write.
func writeLines(out io.Writer, t *transfer) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	for i := range t.results {
		if err := e.Encode(lineOf(t.number, t.envelope.kinds[i], &t.results[i])); err != nil {
			return err
		}
	}
	_, err := out.Write(text.Bytes())
	return err
}

// table prints results for people, in columns.
type table struct {
	out  *tabwriter.Writer
	rows int
}

// tableRows is how many rows are put in columns together: columns need all their rows in memory.
const tableRows = 100

func newTable(out io.Writer) *table {
	return &table{out: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
}

func (t *table) add(r *delivery.Result) error {
	if t.rows == 0 {
		fmt.Fprintln(t.out, "RECIPIENT\tSTATUS\tREPLY\tWHERE")
	}
	reply := textOf(r)
	if r.Response.Code != 0 {
		reply = r.Response.String()
	}
	if r.MaybeDelivered {
		reply += " (it may have arrived all the same)"
	}
	_, err := fmt.Fprintf(t.out, "%s\t%s\t%s\t%s\n", oneLine(r.Recipient), r.Status, oneLine(reply), where(r.Session))
	if t.rows++; t.rows%tableRows == 0 {
		return t.out.Flush()
	}
	return err
}

func (t *table) flush() error { return t.out.Flush() }

// where says what carried a recipient: protocol, host, address, TLS.
func where(s *delivery.Session) string {
	if s == nil {
		return "-"
	}
	parts := []string{s.Protocol}
	for _, part := range []string{s.Peer, s.RemoteAddr} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if s.TLS != nil {
		parts = append(parts, s.TLS.Version)
	}
	return oneLine(strings.Join(parts, " "))
}
