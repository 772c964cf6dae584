package kumo

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// A dotted key makes a table per dot, and the parser keeps the whole key for each of them.
const (
	maxTOML     = 4 << 20
	maxTOMLDots = 32
)

// parseTOML reads a document. Dates and times become strings.
func parseTOML(text []byte) (any, error) {
	tree, _, err := decodeTOML(text)
	return tree, err
}

// decodeTOML also gives the order of the keys.
func decodeTOML(text []byte) (fields map[string]any, meta toml.MetaData, err error) {
	if int64(len(text)) > maxTOML {
		return nil, meta, fmt.Errorf("it is longer than %d bytes", maxTOML)
	}
	if err := countTOML(text); err != nil {
		return nil, meta, err
	}
	defer func() {
		// What the parser takes for a mistake of its own is one in the text for us.
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	meta, err = toml.Decode(string(text), &fields)
	if err != nil {
		if e, ok := errors.AsType[toml.ParseError](err); ok {
			err = fmt.Errorf("line %d: %w", e.Position.Line, err)
		}
		return nil, meta, err
	}
	if fields == nil {
		fields = map[string]any{}
	}
	for name, v := range fields {
		fields[name] = withoutDates(v)
	}
	return fields, meta, nil
}

// countTOML bounds what the parser will build of a text, from above.
func countTOML(text []byte) error {
	var c census
	dots := 0
	for i := 0; i < len(text); i++ {
		switch b := text[i]; b {
		case '#':
			if end := bytes.IndexByte(text[i:], '\n'); end < 0 {
				return nil
			} else {
				i += end - 1
			}
		case '"', '\'':
			i += tomlStringLength(text[i:]) - 1
		case '.':
			c.values++
			if dots++; dots > maxTOMLDots {
				return fmt.Errorf("a key has more than %d dots", maxTOMLDots)
			}
		case '\n':
			dots = 0
		case '=':
			c.values++
			dots = 0
		case '[', ']', '{', '}', ',':
			dots = 0
			if err := c.add(b); err != nil {
				return err
			}
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}

// tomlStringLength is the length of the string that text begins with, quotes included. An unfinished one on a line
// ends with the line: the parser complains of it.
func tomlStringLength(text []byte) int {
	quote := text[0]
	if long := bytes.Repeat([]byte{quote}, 3); bytes.HasPrefix(text, long) {
		for i := 3; i < len(text); i++ {
			switch {
			case text[i] == '\\' && quote == '"':
				i++
			case bytes.HasPrefix(text[i:], long):
				// It may have quotes of its own before those that end it.
				for i += 3; i < len(text) && text[i] == quote; i++ {
				}
				return i
			}
		}
		return len(text)
	}
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote:
			return i + 1
		case text[i] == '\n':
			return i
		}
	}
	return len(text)
}

// withoutDates writes dates and times as TOML does, and gives lists of tables the type of other lists.
func withoutDates(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format(dateLayout(v.Location().String()))
	case map[string]any:
		for name, inner := range v {
			v[name] = withoutDates(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = withoutDates(inner)
		}
	case []map[string]any:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = withoutDates(inner)
		}
		return list
	}
	return v
}

// dateLayout tells by the name that the parser gives a location which parts the text had.
func dateLayout(location string) string {
	switch location {
	case "datetime-local":
		return "2006-01-02T15:04:05.999999999"
	case "date-local":
		return time.DateOnly
	case "time-local":
		return "15:04:05.999999999"
	}
	return time.RFC3339Nano
}

// emptyTable is an empty table on the line of its key.
type emptyTable struct{}

func (emptyTable) MarshalTOML() ([]byte, error) { return []byte("{}"), nil }

func encodeTOML(tree any) (string, error)       { return encodeTOMLWith(tree, map[string]any{}, "") }
func encodeTOMLPretty(tree any) (string, error) { return encodeTOMLWith(tree, map[string]any{}, "  ") }
func encodeTOMLCompact(tree any) (string, error) {
	return encodeTOMLWith(tree, emptyTable{}, "")
}

// encodeTOMLWith writes the keys in their order.
func encodeTOMLWith(tree, empty any, indent string) (text string, err error) {
	if tree == (any)(struct{}{}) {
		return "", nil
	}
	fields, ok := tree.(map[string]any)
	if !ok {
		return "", errors.New("a document is a table with named fields")
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be written: %v", p)
		}
	}()
	var out strings.Builder
	e := toml.NewEncoder(&out)
	e.Indent = indent
	if err := e.Encode(withIntegers(fields, empty)); err != nil {
		return "", err
	}
	return out.String(), nil
}

// withIntegers makes a number without a fraction an integer, for Lua's numbers do not tell, and puts what the
// encoder wants for an empty table.
func withIntegers(v, empty any) any {
	switch v := v.(type) {
	case struct{}:
		return empty
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
			return int64(v)
		}
	case map[string]any:
		for name, inner := range v {
			v[name] = withIntegers(inner, empty)
		}
	case []any:
		for i, inner := range v {
			v[i] = withIntegers(inner, empty)
		}
	}
	return v
}
