package kumo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// jsonFunctions are in kumo, by their old names, and in kumo.serde.
var jsonFunctions = map[string]lua.LGFunction{
	"json_load":          jsonLoad,
	"json_parse":         jsonParse,
	"json_encode":        func(L *lua.LState) int { return jsonEncode(L, "") },
	"json_encode_pretty": func(L *lua.LState) int { return jsonEncode(L, "  ") },
}

func jsonLoad(L *lua.LState) int {
	path := L.CheckString(1)
	text, err := os.ReadFile(path)
	if err != nil {
		luastate.Raise(L, err)
	}
	tree, err := parseJSON(text)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%s: %w", path, err))
	}
	L.Push(luastate.FromTree(L, tree))
	return 1
}

func jsonParse(L *lua.LState) int {
	tree, err := parseJSON([]byte(L.CheckString(1)))
	if err != nil {
		luastate.Raise(L, fmt.Errorf("json_parse: %w", err))
	}
	L.Push(luastate.FromTree(L, tree))
	return 1
}

// parseJSON reads one value, comments allowed, and nothing after it.
func parseJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(blankComments(text)))
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

func jsonEncode(L *lua.LState, indent string) int {
	// An empty table is an object: encoding/json writes an empty struct so.
	tree, err := luastate.ToTree(L.CheckAny(1), struct{}{})
	if err == nil {
		err = checkText(tree)
	}
	var text string
	if err == nil {
		text, err = encodeJSON(tree, indent)
	}
	if err != nil {
		luastate.Raise(L, fmt.Errorf("json_encode: %w", err))
	}
	L.Push(lua.LString(text))
	return 1
}

func encodeJSON(tree any, indent string) (string, error) {
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(tree); err != nil {
		return "", err
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// checkText refuses what JSON cannot hold and encoding/json would replace silently.
func checkText(tree any) error {
	switch tree := tree.(type) {
	case string:
		if !utf8.ValidString(tree) {
			return errors.New("a string is not UTF-8: encode it, for example as base64, or send it as it is")
		}
	case []any:
		for i, v := range tree {
			if err := checkText(v); err != nil {
				return fmt.Errorf("[%d]: %w", i+1, err)
			}
		}
	case map[string]any:
		for name, v := range tree {
			if err := checkText(name); err != nil {
				return err
			}
			if err := checkText(v); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}
