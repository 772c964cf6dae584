package kumo

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// A node of the parser takes some 200 bytes, and two bytes of text can make one.
const (
	maxYAML           = 4 << 20
	maxYAMLMarks      = 500_000
	maxYAMLDirectives = 1000
)

// parseYAML reads one document of YAML 1.2 as upstream does: dates are strings, a merge key is a key like any
// other, a key that is no string is its text, and a tag of the document's own is an error. No document is nil.
func parseYAML(text []byte) (tree any, err error) {
	if err := countYAML(text); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			tree, err = nil, fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	var documents []yaml.Node
	limits := loaderlimits.New(loaderlimits.DepthValue(maxParsedDepth))
	err = yaml.Load(text, &documents, yaml.WithV4Defaults(), yaml.WithAllDocuments(), yaml.WithPlugin(limits))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	case len(documents) == 0:
		return nil, nil
	case len(documents) > 1:
		return nil, fmt.Errorf("there are %d documents, and only one can be read", len(documents))
	}
	var w yamlWalker
	return w.value(&documents[0])
}

// countYAML bounds the number of nodes from above, and that of directives, each of which the parser compares with all
// others. What stands in a string is counted too, but only marks that YAML could mean are. Besides those of ASCII it
// has the line breaks U+0085, U+2028 and U+2029.
func countYAML(text []byte) error {
	marks, directives := 0, 0
	for i, b := range text {
		switch b {
		case '[', '{', ',':
			marks++
		case ':', '-', '?':
			if i+1 == len(text) || bytes.IndexByte([]byte(" \t\r\n\xc2\xe2"), text[i+1]) >= 0 {
				marks++
			}
		case '%':
			if i == 0 || bytes.IndexByte([]byte("\r\n\x85\xa8\xa9"), text[i-1]) >= 0 {
				directives++
			}
		}
	}
	switch {
	case marks > maxYAMLMarks:
		return fmt.Errorf("it has more than %d values", maxYAMLMarks)
	case directives > maxYAMLDirectives:
		return fmt.Errorf("more than %d lines begin with %%", maxYAMLDirectives)
	}
	return nil
}

// yamlWalker makes a tree of nodes. An alias is walked again each time, so the values are counted here.
type yamlWalker struct{ depth, values, bytes int }

func (w *yamlWalker) value(n *yaml.Node) (any, error) {
	w.values++
	w.bytes += len(n.Value)
	switch {
	case w.values > maxParsedValues:
		return nil, fmt.Errorf("line %d: with its aliases it has more than %d values", n.Line, maxParsedValues)
	case w.bytes > maxText:
		return nil, fmt.Errorf("line %d: with its aliases it is longer than %d MiB", n.Line, maxText>>20)
	case w.depth > maxParsedDepth:
		return nil, fmt.Errorf("line %d: it is nested more than %d deep", n.Line, maxParsedDepth)
	}
	w.depth++
	defer func() { w.depth-- }()
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil, nil
		}
		return w.value(n.Content[0])
	case yaml.AliasNode:
		return w.value(n.Alias)
	case yaml.SequenceNode:
		return w.list(n)
	case yaml.MappingNode:
		return w.fields(n)
	case yaml.ScalarNode:
		return yamlScalar(n)
	}
	return nil, nil
}

func (w *yamlWalker) list(n *yaml.Node) (any, error) {
	if err := checkTag(n, "!!seq"); err != nil {
		return nil, err
	}
	list := make([]any, len(n.Content))
	for i, item := range n.Content {
		var err error
		if list[i], err = w.value(item); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (w *yamlWalker) fields(n *yaml.Node) (any, error) {
	if err := checkTag(n, "!!map"); err != nil {
		return nil, err
	}
	fields := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a list or a map cannot be a key", n.Content[i].Line)
		}
		if _, twice := fields[key.Value]; twice {
			return nil, fmt.Errorf("line %d: the key %q is there twice", n.Content[i].Line, excerpt(key.Value))
		}
		w.bytes += len(key.Value)
		var err error
		if fields[key.Value], err = w.value(n.Content[i+1]); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

func checkTag(n *yaml.Node, want string) error {
	if tag := n.ShortTag(); tag != want {
		return fmt.Errorf("line %d: the tag %s has no meaning here", n.Line, excerpt(tag))
	}
	return nil
}

func yamlScalar(n *yaml.Node) (v any, err error) {
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return nil, nil
	case "!!str", "!!timestamp", "!!merge", "!!binary":
		return n.Value, nil
	case "!!int", "!!float", "!!bool":
		err = n.Decode(&v)
		if err != nil {
			err = fmt.Errorf("line %d: %q is no %s", n.Line, excerpt(n.Value), tag[2:])
		}
		return v, err
	}
	return nil, checkTag(n, "")
}

// encodeYAML writes the keys in their order, one value a line.
func encodeYAML(tree any) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be written: %v", p)
		}
	}()
	out, err := yaml.Dump(withIntegers(tree, struct{}{}), yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	return string(out), err
}
