package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const usageText = `usage: deliver [flags] MESSAGE...      ('-' reads standard input)

One message goes to each queue that its recipients belong to. Without -policy and -config it goes to
the MX of the domain, with every default.

The exit status is 0 if all is delivered, 69 if a recipient failed for good, 75 if one failed for now or
was not tried; 64 for bad usage, 65 for a message that cannot be sent as it is, 66 for a file that cannot
be read, 74 for results that cannot be printed, 78 for a policy or a config that is wrong.

`

// options are the flags, checked for what can be said without looking at any file.
type options struct {
	policy, config           string
	egressPath, egressSource string
	from                     string
	to                       []string
	messages                 []string
	batch                    string
	queue                    string
	meta                     map[string]any
	dns                      string
	trustAD                  bool
	ca                       string
	copies, calls            int
	timeout                  time.Duration
	dryRun, trace, json      bool
}

// bulk says whether the run ends with a summary.
func (o *options) bulk() bool { return o.copies > 1 || o.batch != "" }

// usageError is a flag that is wrong.
type usageError struct{ reason string }

func (e *usageError) Error() string { return e.reason + " (see deliver -h)" }

func (o *options) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("deliver", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run prints the error, on one line
	fs.StringVar(&o.policy, "policy", "", "the `FILE` of a Lua policy that decides")
	fs.StringVar(&o.config, "config", "", "a queue config as `JSON`, or @FILE, instead of a policy: the keys of\nkumo.make_queue_config")
	fs.StringVar(&o.egressPath, "egress-path", "", "the egress path as `JSON`: the keys of kumo.make_egress_path; wins over\nthe policy")
	fs.StringVar(&o.egressSource, "egress-source", "", "the egress source as `JSON`: the keys of kumo.make_egress_source; wins over\nthe policy")
	fs.StringVar(&o.from, "from", "", "the envelope sender `ADDR`; <> is the null sender")
	fs.Func("to", "the envelope recipients `ADDR[,ADDR...]`; may be repeated", o.addTo)
	fs.StringVar(&o.batch, "batch", "", "a `FILE` of many messages instead of -from, -to and MESSAGE: JSON lines\n"+
		`{"from":"…","to":["…"],"file":"…","queue":"…","meta":{…}}, the last two`+
		"\noptional; file is relative to the folder of FILE")
	fs.StringVar(&o.queue, "queue", "", "the queue `NAME` of all recipients: campaign:tenant@domain!routing_domain;\n"+
		"default: a queue for each recipient domain")
	fs.Func("meta", "metadata `KEY=VALUE`; may be repeated; a value that is JSON is that, else a string", o.addMeta)
	fs.StringVar(&o.dns, "dns", "", "the resolver `HOST:PORT` to ask instead of the system's")
	fs.BoolVar(&o.trustAD, "trust-ad", false, "the resolver validates DNSSEC")
	fs.StringVar(&o.ca, "ca", "", "a `FILE` of PEM roots to trust instead of the system's")
	fs.IntVar(&o.copies, "n", 1, "deliver `N` copies; then a summary, and the table only of what was not delivered")
	fs.IntVar(&o.calls, "c", 1, "make `C` calls at a time")
	fs.DurationVar(&o.timeout, "timeout", 0, "a limit `D` on the whole run, as in 90s")
	fs.BoolVar(&o.dryRun, "dry-run", false, "no connection and no file: print what would happen, as JSON")
	fs.BoolVar(&o.trace, "trace", false, "the dialogue on standard error")
	fs.BoolVar(&o.json, "json", false, "JSON lines, one for each recipient, instead of the table")
	return fs
}

func printUsage(w io.Writer) {
	fs := new(options).flags()
	fs.SetOutput(w)
	fmt.Fprint(w, usageText)
	fs.PrintDefaults()
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	fs := o.flags()
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, &usageError{err.Error()}
	}
	o.messages = fs.Args()
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if reason := o.check(given); reason != "" {
		return nil, &usageError{reason}
	}
	return o, nil
}

// check says what is wrong with the flags, if anything is.
func (o *options) check(given map[string]bool) string {
	if given["batch"] {
		for _, name := range []string{"from", "to", "queue", "meta"} {
			if given[name] {
				return fmt.Sprintf("-%s and -batch do not go together: each line of the batch has its own", name)
			}
		}
		if len(o.messages) > 0 {
			return fmt.Sprintf("MESSAGE %s and -batch do not go together: each line of the batch has its own", o.messages[0])
		}
	}
	stdin := 0
	for _, name := range o.messages {
		if name == "-" {
			stdin++
		}
	}
	switch {
	case given["policy"] && given["config"]:
		return "-policy and -config do not go together: want one of them"
	case given["policy"] && o.policy == "":
		return "-policy: the name of the file is empty"
	case given["config"] && o.config == "":
		return "-config: want JSON or @FILE"
	case given["batch"] && o.batch == "":
		return "-batch: the name of the file is empty"
	case !given["batch"] && !given["from"]:
		return "-from is missing: want an address, or <> for the null sender"
	case !given["batch"] && !given["to"]:
		return "-to is missing: want at least one recipient"
	case !given["batch"] && len(o.messages) == 0:
		return "MESSAGE is missing: want a file, or - for standard input"
	case stdin > 1:
		return "MESSAGE - is there twice: standard input can be read once"
	case o.copies < 1:
		return fmt.Sprintf("-n %d: want at least 1", o.copies)
	case o.calls < 1:
		return fmt.Sprintf("-c %d: want at least 1", o.calls)
	case o.timeout < 0 || given["timeout"] && o.timeout == 0:
		return fmt.Sprintf("-timeout %s: want more than 0", o.timeout)
	}
	if given["dns"] {
		if host, port, err := net.SplitHostPort(o.dns); err != nil || host == "" || port == "" {
			return fmt.Sprintf("-dns %s: want HOST:PORT", o.dns)
		}
	}
	return ""
}

func (o *options) addTo(list string) error {
	o.to = append(o.to, splitAddresses(list)...)
	return nil
}

// splitAddresses splits a list at the commas that are not in quotes.
func splitAddresses(list string) []string {
	var addresses []string
	start, quoted := 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			addresses = append(addresses, list[start:i])
			start = i + 1
		}
	}
	return append(addresses, list[start:])
}

func (o *options) addMeta(pair string) error {
	key, text, found := strings.Cut(pair, "=")
	if !found || key == "" {
		return errors.New("want KEY=VALUE")
	}
	if o.meta == nil {
		o.meta = map[string]any{}
	}
	var v any
	if unmarshalExact([]byte(text), &v) != nil {
		v = text
	}
	o.meta[key] = plain(v)
	return nil
}

// unmarshalExact reads one JSON value and nothing else. Unknown keys are errors; numbers are kept as
// they were written, for [plain].
func unmarshalExact(text []byte, dst any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(dst); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more after the JSON value")
	}
	return nil
}

// plain makes metadata of decoded JSON: an integer stays one, so that a template prints 42 and not
// 42.000000.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = plain(v[key])
		}
	}
	return v
}
