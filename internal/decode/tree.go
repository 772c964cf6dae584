package decode

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Empty is an empty Lua table: an empty list, an empty map or a struct without
// fields, whichever the place asks for. JSON never yields it.
type Empty struct{}

// maxDepth bounds the nesting of a tree. No configuration comes near it, and
// without a bound a script could exhaust the stack.
const maxDepth = 64

// checkTree refuses what could not be printed as JSON and read again.
func checkTree(tree any, depth int) error {
	switch t := tree.(type) {
	case nil, bool, int64, Empty:
		return nil
	case float64:
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return Errorf("", "%v is not a finite number", t)
		}
		return nil
	case string:
		return checkUTF8(t)
	case []any:
		if depth == maxDepth {
			return errTooDeep()
		}
		for i, item := range t {
			if err := checkTree(item, depth+1); err != nil {
				return In(indexPath(i), err)
			}
		}
		return nil
	case map[string]any:
		if depth == maxDepth {
			return errTooDeep()
		}
		for _, key := range sortedKeys(t) {
			if err := checkUTF8(key); err != nil {
				return In(keyPath(key), Errorf("", "the key is not valid UTF-8"))
			}
			if err := checkTree(t[key], depth+1); err != nil {
				return In(keyPath(key), err)
			}
		}
		return nil
	}
	return Errorf("", "a value of the Go type %T has no place in a configuration", tree)
}

func errTooDeep() error { return Errorf("", "is nested more than %d deep", maxDepth) }

func checkUTF8(s string) error {
	if !utf8.ValidString(s) {
		return Errorf("", "is not valid UTF-8")
	}
	return nil
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// kindOf names what somebody wrote. The value itself is left out: it may be a
// password in the wrong place.
func kindOf(tree any) string {
	switch tree.(type) {
	case nil:
		return "nothing"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	case Empty:
		return "an empty table"
	}
	return fmt.Sprintf("a %T", tree)
}

func expected(what string, tree any) error {
	return Errorf("", "expected %s, got %s", what, kindOf(tree))
}

// plain copies a tree for a field of type any. JSON and Lua spell some values
// differently; here they become the same, so that they also print the same.
func plain(tree any) any {
	switch t := tree.(type) {
	case float64:
		if n, ok := exactInt(t); ok {
			return n
		}
		return t
	case Empty:
		return map[string]any{}
	case []any:
		list := make([]any, len(t))
		for i, item := range t {
			list[i] = plain(item)
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(t))
		for key, item := range t {
			m[key] = plain(item)
		}
		return m
	}
	return tree
}

// exactInt converts an integral float that an int64 can hold.
func exactInt(f float64) (int64, bool) {
	// 1<<63 itself is a float64 but no int64.
	if f != math.Trunc(f) || f < -1<<63 || f >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}

// appendTree prints a tree as JSON. An [Empty] is printed as a list where lists
// holds its path, else as a map.
func appendTree(text []byte, tree any, path string, lists map[string]bool) []byte {
	switch t := tree.(type) {
	case bool:
		return strconv.AppendBool(text, t)
	case int64:
		return strconv.AppendInt(text, t, 10)
	case float64:
		return appendFloat(text, t, 64)
	case string:
		return appendString(text, t)
	case Empty:
		if lists[path] {
			return append(text, "[]"...)
		}
		return append(text, "{}"...)
	case []any:
		text = append(text, '[')
		for i, item := range t {
			if i > 0 {
				text = append(text, ',')
			}
			text = appendTree(text, item, joinPath(path, indexPath(i)), lists)
		}
		return append(text, ']')
	case map[string]any:
		text = append(text, '{')
		for i, key := range sortedKeys(t) {
			if i > 0 {
				text = append(text, ',')
			}
			text = append(appendString(text, key), ':')
			text = appendTree(text, t[key], joinPath(path, keyPath(key)), lists)
		}
		return append(text, '}')
	}
	return append(text, "null"...)
}

// emptyPaths lists where a tree holds an [Empty].
func emptyPaths(tree any, path string) []string {
	var paths []string
	switch t := tree.(type) {
	case Empty:
		paths = append(paths, path)
	case []any:
		for i, item := range t {
			paths = append(paths, emptyPaths(item, joinPath(path, indexPath(i)))...)
		}
	case map[string]any:
		for key, item := range t {
			paths = append(paths, emptyPaths(item, joinPath(path, keyPath(key)))...)
		}
	}
	return paths
}

// appendFloat prints the shortest text that parses to the same float.
func appendFloat(text []byte, f float64, bits int) []byte {
	if n, ok := exactInt(f); ok {
		return strconv.AppendInt(text, n, 10)
	}
	return strconv.AppendFloat(text, f, 'g', -1, bits)
}

func appendString(text []byte, s string) []byte {
	// encoding/json writes <, > and & as escapes for the sake of HTML pages;
	// a person who reads a configuration wants to see them.
	const hex = "0123456789abcdef"
	text = append(text, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			text = append(text, '\\', c)
		case c == '\n':
			text = append(text, `\n`...)
		case c == '\r':
			text = append(text, `\r`...)
		case c == '\t':
			text = append(text, `\t`...)
		case c < ' ' || c == 0x7f:
			text = append(text, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			text = append(text, c)
		}
	}
	return append(text, '"')
}

// unmarshalJSON gives a tree to a json.Unmarshaler. JSON has no word for an
// [Empty], so each is offered as a map first, and as a list where the
// unmarshaler complains about it: by its path, or else about the whole.
func unmarshalJSON(tree any, fresh func() json.Unmarshaler) (json.Unmarshaler, error) {
	empties := emptyPaths(tree, "")
	lists := map[string]bool{}
	offer := func() (json.Unmarshaler, error) {
		u := fresh()
		return u, u.UnmarshalJSON(appendTree(nil, tree, "", lists))
	}
	u, err := offer()
	for err != nil {
		e, ok := err.(*Error)
		if !ok || lists[e.Path] || !slices.Contains(empties, e.Path) {
			break
		}
		lists[e.Path] = true
		better, still := offer()
		if s, ok := still.(*Error); ok && s.Path == e.Path {
			return nil, err // it is wrong either way
		}
		u, err = better, still
	}
	if err == nil || len(lists) == len(empties) {
		return u, err
	}
	for _, path := range empties {
		lists[path] = true
	}
	if u, err := offer(); err == nil {
		return u, nil
	}
	return nil, err
}
