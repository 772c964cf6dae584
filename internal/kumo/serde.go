package kumo

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// format is one of the languages of kumo.serde.
type format struct {
	name  string // as it stands in the names of the functions
	limit int64  // of what is parsed, in bytes
	parse func(text []byte) (tree any, err error)
}

var (
	jsonFormat = format{"json", maxFile, parseJSON}
	tomlFormat = format{"toml", maxTOML, parseTOML}
	yamlFormat = format{"yaml", maxYAML, parseYAML}
)

// jsonFunctions are in kumo.serde, and in kumo by their old names.
var jsonFunctions = map[string]lua.LGFunction{
	"json_load":          jsonFormat.loadFunction,
	"json_parse":         jsonFormat.parseFunction,
	"json_encode":        encoder("json_encode", encodeJSON),
	"json_encode_pretty": encoder("json_encode_pretty", encodeJSONPretty),
}

// loadFunction is kumo.serde.FORMAT_load(file).
func (f format) loadFunction(L *lua.LState) int {
	path := L.CheckString(1)
	text, err := readFile(path, f.limit)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%s_load: reading file %w", f.name, err))
	}
	tree, err := f.parse(text)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%s_load: parsing %s as %s: %w", f.name, path, f.name, err))
	}
	L.Push(luastate.FromTree(L, detached(tree)))
	return 1
}

// parseFunction is kumo.serde.FORMAT_parse(text).
func (f format) parseFunction(L *lua.LState) int {
	text := L.CheckString(1)
	if int64(len(text)) > f.limit {
		luastate.Raise(L, fmt.Errorf("%s_parse: the text is longer than %d bytes", f.name, f.limit))
	}
	tree, err := f.parse([]byte(text))
	if err != nil {
		luastate.Raise(L, fmt.Errorf("%s_parse: parsing %q as %s: %w", f.name, excerpt(text), f.name, err))
	}
	L.Push(luastate.FromTree(L, detached(tree)))
	return 1
}

// detached is a tree whose strings are copies: some parsers cut them from the text, all of which each would keep.
func detached(tree any) any {
	switch tree := tree.(type) {
	case string:
		return strings.Clone(tree)
	case []any:
		for i, v := range tree {
			tree[i] = detached(v)
		}
	case map[string]any:
		own := make(map[string]any, len(tree))
		for name, v := range tree {
			own[strings.Clone(name)] = detached(v)
		}
		return own
	}
	return tree
}

// encoder is the function kumo.serde.NAME(value). In the tree that encode gets, an empty table is a struct{}.
func encoder(name string, encode func(tree any) (string, error)) lua.LGFunction {
	return func(L *lua.LState) int {
		tree, err := luastate.ToJSONTree(L.CheckAny(1), struct{}{})
		if err == nil {
			err = checkText(tree)
		}
		var text string
		if err == nil {
			text, err = encode(tree)
		}
		if err != nil {
			luastate.Raise(L, fmt.Errorf("%s: %w", name, err))
		}
		L.Push(lua.LString(text))
		return 1
	}
}

// checkText refuses what none of the languages can hold and their encoders would replace silently.
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

// Bounds of what is parsed. They are looked at before a parser is let in, because what it builds takes many times
// the memory of the text, and because some recurse.
const (
	maxParsedDepth  = 128 // upstream's
	maxParsedValues = 1 << 20
)

// census counts what a text nests and separates, as far as it bounds depth and number of its values.
type census struct{ depth, values int }

// add takes a byte that is in no string and no comment into account.
func (c *census) add(b byte) error {
	switch b {
	case '[', '{':
		c.depth++
		c.values++
	case ']', '}':
		c.depth--
	case ',':
		c.values++
	}
	return c.check()
}

func (c *census) check() error {
	switch {
	case c.depth > maxParsedDepth:
		return fmt.Errorf("it is nested more than %d deep", maxParsedDepth)
	case c.values > maxParsedValues:
		return fmt.Errorf("it has more than %d values", maxParsedValues)
	}
	return nil
}
