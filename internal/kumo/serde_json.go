package kumo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// parseJSON reads one value, comments allowed, and nothing after it.
func parseJSON(text []byte) (any, error) {
	d, err := jsonDecoder(text)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := d.Decode(&tree); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("there is no value")
		}
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("text after the value at byte %d", d.InputOffset())
	}
	return tree, nil
}

// jsonDecoder reads a text that is not too large, its comments left out. The decoder would put something else for what
// is not UTF-8.
func jsonDecoder(text []byte) (*json.Decoder, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	text = blankComments(text)
	if err := countJSON(text); err != nil {
		return nil, err
	}
	return json.NewDecoder(bytes.NewReader(text)), nil
}

func countJSON(text []byte) error {
	var c census
	for i := 0; i < len(text); i++ {
		if text[i] == '"' {
			i += stringLength(text[i:]) - 1
		} else if err := c.add(text[i]); err != nil {
			return err
		}
	}
	return nil
}

// blankComments puts spaces for // and # to the end of the line and for /* */, outside strings, so that
// the offsets in errors stay true.
func blankComments(text []byte) []byte {
	if !bytes.ContainsAny(text, "/#") {
		return text
	}
	out := bytes.Clone(text)
	for i := 0; i < len(out); {
		rest := out[i:]
		n := 1
		switch {
		case out[i] == '"':
			i += stringLength(rest)
			continue
		case out[i] == '#' || bytes.HasPrefix(rest, []byte("//")):
			if n = bytes.IndexByte(rest, '\n'); n < 0 {
				n = len(rest)
			}
		case bytes.HasPrefix(rest, []byte("/*")):
			end := bytes.Index(rest[2:], []byte("*/"))
			if end < 0 {
				return out // the decoder complains of the slash
			}
			n = end + 4
		default:
			i++
			continue
		}
		for j := range rest[:n] {
			if rest[j] != '\n' {
				rest[j] = ' '
			}
		}
		i += n
	}
	return out
}

// stringLength is the length of the JSON string that text begins with, quotes included.
func stringLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func encodeJSON(tree any) (string, error)       { return encodeIndented(tree, "") }
func encodeJSONPretty(tree any) (string, error) { return encodeIndented(tree, "  ") }

// encodeIndented sorts the keys of maps, as encoding/json does, and writes a struct{} as {}.
func encodeIndented(tree any, indent string) (string, error) {
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(tree); err != nil {
		return "", err
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
