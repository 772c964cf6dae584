package kumo

import (
	"context"
	"strings"
)

// domainIndex finds values by domain names. A name that nothing in the map is at or below of is found by the
// wildcard at its closest ancestor, and only there, as in the DNS: RFC 4592 section 3.3.1. Case does not matter.
type domainIndex struct{ root domainNode }

type domainNode struct {
	value    mapped
	set      bool
	children map[string]*domainNode
}

func (*domainIndex) name() string    { return "domain_map.new" }
func (*domainIndex) empty() mapIndex { return &domainIndex{} }

func (d *domainIndex) get(_ context.Context, name string) (mapped, error) {
	node := &d.root
	for rest, more := strings.ToLower(name), true; more; {
		var label string
		label, rest, more = lastLabel(rest)
		child := node.children[label]
		if child == nil {
			if wild := node.children["*"]; wild != nil {
				return wild.value, nil
			}
			return mapped{}, nil
		}
		node = child
	}
	return node.value, nil
}

func (d *domainIndex) set(name string, v mapped) error {
	node := &d.root
	for rest, more := strings.ToLower(name), true; more; {
		var label string
		label, rest, more = lastLabel(rest)
		child := node.children[label]
		if child == nil {
			if node.children == nil {
				node.children = map[string]*domainNode{}
			}
			child = &domainNode{}
			node.children[label] = child
		}
		node = child
	}
	node.value, node.set = v, true
	return nil
}

// lastLabel cuts the last label off; more is whether there is one in front of it.
func lastLabel(name string) (label, rest string, more bool) {
	at := strings.LastIndexByte(name, '.')
	if at < 0 {
		return name, "", false
	}
	return name[at+1:], name[:at], true
}

func (d *domainIndex) each(yield func(string, mapped) error) error { return d.root.each("", yield) }

func (n *domainNode) each(suffix string, yield func(string, mapped) error) error {
	for label, child := range n.children {
		name := label + suffix
		if child.set {
			if err := yield(name, child.value); err != nil {
				return err
			}
		}
		if err := child.each("."+name, yield); err != nil {
			return err
		}
	}
	return nil
}
