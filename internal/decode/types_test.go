package decode

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// The types of a small configuration that has every kind of field.

type server struct {
	Name     string            `config:"name" required:"true"`
	Port     uint16            `config:"port" default:"25" min:"1" max:"65535"`
	Family   string            `config:"family" default:"Both" enum:"Both,V4,V6"`
	Timeout  time.Duration     `config:"timeout" default:"1m" min:"1s" max:"10m"`
	Idle     idleDuration      `config:"idle" default:"5s"`
	Ratio    float64           `config:"ratio" min:"0.5" max:"2"`
	Retries  *int              `config:"retries" default:"3" min:"0" max:"9"`
	Denied   []netip.Prefix    `config:"denied" default:"[\"127.0.0.0/8\",\"::1\"]"`
	Source   netip.Addr        `config:"source"`
	Limits   map[string]int64  `config:"limits"`
	Verify   toggle            `config:"verify" default:"true"`
	Lazy     bool              `config:"lazy"`
	Next     *server           `config:"next"`
	Routes   []route           `config:"routes"`
	ByName   map[string]route  `config:"by_name"`
	Extra    any               `config:"extra"`
	Headers  map[header]string `config:"headers"`
	Letter   letter            `config:"letter"`
	Mailbox  *mailbox          `config:",inline"`
	Common   common            `config:",inline"`
	internal string            // not a part of the configuration
	Untagged int
}

type idleDuration time.Duration

type header string

// mailbox is inlined as a pointer.
type mailbox struct {
	Path string `config:"mailbox_path" required:"true"`
	Mode int    `config:"mailbox_mode"`
}

func (m *mailbox) Validate() error {
	if m.Mode != 0 && m.Path == "/" {
		return Errorf("mailbox_mode", "does not go with the path %s", m.Path)
	}
	return nil
}

// common is inlined as a value.
type common struct {
	TTL int32 `config:"ttl" default:"60"`
}

// route has rules of its own.
type route struct {
	To     string `config:"to" required:"true"`
	Weight int    `config:"weight" default:"1" min:"1"`
}

var errLoop = errors.New("leads back here")

func (r route) Validate() error {
	switch r.To {
	case "loop":
		return errLoop
	case "heavy":
		return Errorf("weight", "%d is too heavy: %w", r.Weight, errLoop)
	}
	return nil
}

// toggle is a bool with a default of true.
type toggle int8

const (
	unset toggle = iota
	on
	off
)

func (t *toggle) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case "true":
		*t = on
	case "false":
		*t = off
	default:
		return errors.New("expected true or false")
	}
	return nil
}

func (t toggle) MarshalJSON() ([]byte, error) { return json.Marshal(t == on) }

// letter has a textual form.
type letter struct{ r rune }

func (l *letter) UnmarshalText(text []byte) error {
	runes := []rune(string(text))
	if len(runes) != 1 {
		return errors.New("expected one letter")
	}
	l.r = runes[0]
	return nil
}

func (l letter) MarshalText() ([]byte, error) { return []byte(string(l.r)), nil }

// IsZero says that the letter "0" is nothing.
func (l letter) IsZero() bool { return l.r == 0 || l.r == '0' }

// host is a string or a struct of lists and maps, and delegates to this package
// from its own methods.
type host struct {
	Name    string         `config:"name" required:"true"`
	Ports   []int          `config:"ports"`
	Options map[string]int `config:"options"`
}

func (h *host) UnmarshalJSON(data []byte) error {
	tree, err := ParseJSON(data)
	if err != nil {
		return err
	}
	if name, ok := tree.(string); ok {
		h.Name = name
		return nil
	}
	return Decode(tree, h)
}

func (h host) MarshalJSON() ([]byte, error) {
	if h.Ports == nil && h.Options == nil {
		return json.Marshal(h.Name)
	}
	return JSON(h)
}

// words is a list that may be written as one string.
type words []string

func (w *words) UnmarshalJSON(data []byte) error {
	if strings.HasPrefix(string(data), "[") {
		return json.Unmarshal(data, (*[]string)(w))
	}
	var line string
	if err := json.Unmarshal(data, &line); err != nil {
		return err
	}
	*w = strings.Fields(line)
	return nil
}

func (w words) MarshalJSON() ([]byte, error) { return json.Marshal([]string(w)) }

// pause is a duration whose methods are those of both encodings.
type pause int64

func (p *pause) UnmarshalJSON(data []byte) error {
	tree, err := ParseJSON(data)
	if err != nil {
		return err
	}
	d, err := Duration(tree)
	*p = pause(d)
	return err
}

func (p pause) MarshalJSON() ([]byte, error) { return json.Marshal(FormatDuration(time.Duration(p))) }

// textDuration is a duration with a textual form of its own.
type textDuration int64

func (d *textDuration) UnmarshalText(text []byte) error {
	if string(text) != "soon" {
		return errors.New("expected soon")
	}
	*d = textDuration(time.Second)
	return nil
}
