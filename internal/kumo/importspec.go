package kumo

import (
	"errors"
	"fmt"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/header"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// maxSpecs bounds the list of import_headers: every header is held against every element.
const maxSpecs = 1000

func messageImport(L *lua.LState) int {
	h, block := checkHeaders(L, "import_headers")
	specs, err := importSpecs(L.CheckTable(2))
	if err != nil {
		luastate.Raise(L, fmt.Errorf("import_headers: %w", err))
	}
	importFields(L, h, block, specs)
	return 0
}

func importSpecs(list *lua.LTable) ([]importSpec, error) {
	tree, err := luastate.ToTree(list, []any{})
	if err != nil {
		return nil, err
	}
	elements, ok := tree.([]any)
	switch {
	case !ok:
		return nil, errors.New("want a list of tables")
	case len(elements) > maxSpecs:
		return nil, fmt.Errorf("want at most %d elements", maxSpecs)
	}
	specs := make([]importSpec, len(elements))
	for i, element := range elements {
		fields, ok := element.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("[%d]: want a table with a name", i+1)
		}
		if specs[i], err = newImportSpec(fields); err != nil {
			return nil, fmt.Errorf("[%d]: %w", i+1, err)
		}
	}
	return specs, nil
}

func newImportSpec(fields map[string]any) (importSpec, error) {
	text := map[string]string{"name": "", "match": matchLast, "transform": "snake_case", "target": ""}
	spec := importSpec{}
	for name, v := range fields {
		var ok bool
		if _, known := text[name]; known {
			text[name], ok = v.(string)
		} else if name == "remove" {
			spec.remove, ok = v.(bool)
		} else {
			return spec, fmt.Errorf("unknown field %.100q", name)
		}
		if !ok {
			return spec, fmt.Errorf("%s: unexpected value %.100v", name, v)
		}
	}

	pattern, target := text["name"], text["target"]
	prefix, isPrefix := strings.CutSuffix(pattern, "*")
	switch {
	case pattern == "":
		return spec, errors.New("name: the name of a header is required")
	case prefix == "" || strings.Contains(prefix, "*"):
		return spec, fmt.Errorf("name: %.100q: a * may only follow the beginning of a name", pattern)
	case isPrefix && target != "":
		return spec, fmt.Errorf("target: not with a name that ends in *, as %.100q", pattern)
	case isPrefix:
		spec.applies = func(f header.Field) bool { return f.HasPrefix(prefix) }
	default:
		spec.applies = func(f header.Field) bool { return f.Is(pattern) }
	}

	switch spec.match = text["match"]; spec.match {
	case matchFirst, matchLast, matchAll:
	default:
		return spec, fmt.Errorf("match: want first, last or all, got %.100q", spec.match)
	}

	switch text["transform"] {
	case "snake_case":
		spec.key = snakeCase
	case "kebab_case":
		spec.key = func(name string) string { return strings.Join(nameWords(name), "-") }
	case "camel_case":
		spec.key = func(name string) string {
			words := nameWords(name)
			return words[0] + capitalised(words[1:])
		}
	case "pascal_case":
		spec.key = func(name string) string { return capitalised(nameWords(name)) }
	default:
		return spec, fmt.Errorf("transform: want snake_case, kebab_case, camel_case or pascal_case, got %.100q", text["transform"])
	}
	if target != "" {
		spec.key = func(string) string { return target }
	}
	return spec, nil
}

// snakeCase makes x_campaign_id of X-Campaign-ID.
func snakeCase(name string) string { return strings.Join(nameWords(name), "_") }

// nameWords are the words of a header's name in small letters, at least one.
func nameWords(name string) []string {
	return strings.Split(strings.ReplaceAll(asciiLower(name), "_", "-"), "-")
}

// asciiLower leaves alone what is not ASCII: no header name is anything else, but what is in its place may be.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

func capitalised(words []string) string {
	var b strings.Builder
	for _, word := range words {
		if word != "" && 'a' <= word[0] && word[0] <= 'z' {
			b.WriteByte(word[0] - 'a' + 'A')
			word = word[1:]
		}
		b.WriteString(word)
	}
	return b.String()
}
