package delivery

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/jinja"
)

// templateNames are the variables of a maildir_path.
var templateNames = []string{
	"meta", "queue", "campaign", "tenant", "domain", "routing_domain",
	"local_part", "domain_part", "email",
	"sender_local_part", "sender_domain_part", "sender_email",
}

// recipientNames are those of them that the recipient's address alone decides.
var recipientNames = []string{"local_part", "domain_part", "email"}

// maxSegment is the most bytes that file systems take as one name.
const maxSegment = 255

// pathTemplate is a maildir_path, compiled once and rendered for each recipient.
//
// What a value may do to a path is decided here, after rendering: it fills in a part of one segment
// and nothing else. It cannot add, remove or climb a level, whatever it holds.
type pathTemplate struct {
	compiled *jinja.Template
}

func compilePath(source string) (*pathTemplate, error) {
	if strings.ContainsRune(source, 0) {
		return nil, decode.Errorf("", "the path holds a NUL")
	}
	t, err := jinja.Compile(source, templateNames)
	if err != nil {
		return nil, decode.Errorf("", "%v", err)
	}
	return &pathTemplate{t}, nil
}

// pathError says why a path cannot be rendered.
type pathError struct {
	reason string
	// recipient: the recipient's own address makes it impossible, now and for ever.
	recipient bool
}

func (e *pathError) Error() string { return e.reason }

// render returns the absolute path for a recipient, or a *pathError.
func (t *pathTemplate) render(vars map[string]any) (string, error) {
	pieces, err := t.compiled.Execute(vars)
	if err != nil {
		return "", &pathError{reason: err.Error()}
	}
	segments, err := splitSegments(pieces)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i, s := range segments {
		if err := s.check(); err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(s.text)
	}
	if b.Len() == 0 {
		return "", &pathError{reason: "the path is empty"}
	}
	path, err := filepath.Abs(filepath.FromSlash(b.String()))
	if err != nil {
		return "", &pathError{reason: err.Error()}
	}
	return path, nil
}

// segment is what stands between two slashes of the template's own text.
type segment struct {
	text  string
	names []string // of the values in it; none: the author wrote all of it
}

// splitSegments cuts the output at the slashes of literal text. A slash in a value is refused.
func splitSegments(pieces []jinja.Piece) ([]segment, error) {
	segments := make([]segment, 1, 8)
	for _, p := range pieces {
		if p.Names == nil && !p.Missing {
			for i, text := range strings.Split(p.Text, "/") {
				if i > 0 {
					segments = append(segments, segment{})
				}
				segments[len(segments)-1].text += text
			}
			continue
		}
		if err := checkValue(&p); err != nil {
			return nil, err
		}
		last := &segments[len(segments)-1]
		last.text += p.Text
		last.names = append(last.names, p.Names...)
	}
	return segments, nil
}

// checkValue refuses a value that no segment can hold.
func checkValue(p *jinja.Piece) error {
	name := strings.Join(p.Names, ", ")
	if name == "" {
		name = fmt.Sprintf("the expression in line %d, column %d,", p.Line, p.Column)
	}
	refuse := func(what string) error {
		return &pathError{fmt.Sprintf("the value of %s %s", name, what), onlyRecipient(p.Names)}
	}
	if p.Missing {
		return refuse("is missing; a default('...') in the template would stand in for it")
	}
	for _, r := range p.Text {
		switch {
		case r == '/' || r == filepath.Separator:
			return refuse("holds a path separator")
		case r < ' ' || r == 0x7f:
			return refuse("holds a control character")
		}
	}
	return nil
}

// check refuses a segment that a value made into something else than a name.
func (s *segment) check() error {
	if s.names == nil {
		return nil
	}
	name := strings.Join(s.names, ", ")
	refuse := func(what string) error {
		return &pathError{fmt.Sprintf("the value of %s %s", name, what), onlyRecipient(s.names)}
	}
	switch {
	case s.text == "":
		return refuse("is empty")
	case s.text == "." || s.text == "..":
		return refuse(fmt.Sprintf("makes %q of a directory name", s.text))
	case len(s.text) > maxSegment:
		return refuse(fmt.Sprintf("makes a directory name of %d bytes (at most %d)", len(s.text), maxSegment))
	}
	return nil
}

// onlyRecipient says whether all of the variables come from the recipient's address.
func onlyRecipient(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(recipientNames, n) })
}

// templateVars are the variables for one recipient of an attempt.
func templateVars(a *attempt, rcpt address.Address) map[string]any {
	return map[string]any{
		"meta":               templateValue(a.msg.Meta),
		"queue":              a.queue.String(),
		"campaign":           orNil(a.queue.Campaign),
		"tenant":             orNil(a.queue.Tenant),
		"domain":             a.queue.Domain,
		"routing_domain":     orNil(a.queue.RoutingDomain),
		"local_part":         rcpt.Local,
		"domain_part":        rcpt.Domain,
		"email":              rcpt.String(),
		"sender_local_part":  a.sender.Local,
		"sender_domain_part": a.sender.Domain,
		"sender_email":       a.sender.String(),
	}
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// templateValue gives metadata the types that templates know. Numbers from JSON and from Lua are
// floating-point; a whole one is an integer to the person who wrote it.
func templateValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[key] = templateValue(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, value := range v {
			list[i] = templateValue(value)
		}
		return list
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
		return v
	case int:
		return int64(v)
	default:
		return v
	}
}
