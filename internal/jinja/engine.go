package jinja

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/flosch/pongo2/v6"
)

// What is no loop and has none in it needs no engine: it is a step (run.go).
// The template that pongo2 executes holds only {% if x(0) %}, {{ x(1) }} and
// {% for i in x(2) %}: its structure is the author's, its leaves are numbers.
// The function x of the context runs the op of that number. Steps before a tag
// are part of the tag's op, so that a call is made for each tag and one more for
// what follows the last. The ops collect the pieces; pongo2's own output stays
// empty, which leaves its escaping, its idea of printing and its comments
// without effect.

// op is what one call of x does.
type op interface{}

type (
	opSteps     []step
	opCondition struct {
		before opSteps
		branch *branch
	}
	opLoop struct {
		before opSteps
		loop   *forNode
	}
)

type translator struct {
	source  strings.Builder
	ops     []op
	pending opSteps
}

// translate makes what the template executes of its statements.
func (t *Template) translate(nodes []node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = position{1, 1}.errorf("the template engine failed: %v", p)
		}
	}()
	var tr translator
	tr.nodes(nodes)
	if len(tr.ops) == 0 {
		t.steps = tr.take()
		return nil
	}
	tr.flush()
	t.engine, err = newSet().FromString(tr.source.String())
	if err != nil {
		return position{1, 1}.errorf("the template engine refused its source: %v", err)
	}
	t.ops, t.answers = tr.ops, newAnswers()
	return nil
}

// bannedTags are all tags of pongo2 but if and for. None can occur in a source
// that is generated; banned, they could do nothing if one did.
var bannedTags = []string{
	"autoescape", "block", "comment", "cycle", "extends", "filter", "firstof", "ifchanged", "ifequal",
	"ifnotequal", "import", "include", "lorem", "macro", "now", "set", "spaceless", "ssi", "templatetag",
	"widthratio", "with",
}

// newSet returns a set of its own for each template: a set refuses bans once it
// has a template, and pongo2's default set reads files.
func newSet() *pongo2.TemplateSet {
	set := pongo2.NewSet("jinja", noFiles{})
	for _, tag := range bannedTags {
		// It fails only for a tag that pongo2 does not have.
		_ = set.BanTag(tag)
	}
	return set
}

// noFiles is a template loader that finds nothing.
type noFiles struct{}

func (noFiles) Abs(_, name string) string          { return name }
func (noFiles) Get(path string) (io.Reader, error) { return nil, errors.New("no files here") }

func (tr *translator) op(o op) string {
	tr.ops = append(tr.ops, o)
	return "x(" + strconv.Itoa(len(tr.ops)-1) + ")"
}

func (tr *translator) write(format string, args ...any) {
	fmt.Fprintf(&tr.source, format, args...)
}

// take returns the steps gathered so far, for the op that is to run them.
func (tr *translator) take() opSteps {
	steps := tr.pending
	tr.pending = nil
	return steps
}

// flush writes the call that runs the steps gathered so far.
func (tr *translator) flush() {
	if steps := tr.take(); len(steps) > 0 {
		tr.write("{{ %s }}", tr.op(steps))
	}
}

func (tr *translator) nodes(nodes []node) {
	for _, n := range nodes {
		switch n := n.(type) {
		case *forNode:
			tr.forNode(n)
		case *ifNode:
			if n.loops() {
				tr.ifNode(n)
				continue
			}
			tr.pending = append(tr.pending, n)
		case step:
			tr.pending = append(tr.pending, n)
		}
	}
}

// loops tells whether there is a loop in one of the branches.
func (n *ifNode) loops() bool {
	return anyLoop(n.otherwise) || slices.ContainsFunc(n.branches, func(b branch) bool { return anyLoop(b.body) })
}

func anyLoop(nodes []node) bool {
	return slices.ContainsFunc(nodes, func(n node) bool {
		switch n := n.(type) {
		case *forNode:
			return true
		case *ifNode:
			return n.loops()
		}
		return false
	})
}

func (tr *translator) ifNode(n *ifNode) {
	word := "if"
	for i := range n.branches {
		tr.write("{%% %s %s %%}", word, tr.op(opCondition{tr.take(), &n.branches[i]}))
		tr.nodes(n.branches[i].body)
		tr.flush()
		word = "elif"
	}
	if len(n.otherwise) > 0 {
		tr.write("{%% else %%}")
		tr.nodes(n.otherwise)
		tr.flush()
	}
	tr.write("{%% endif %%}")
}

func (tr *translator) forNode(n *forNode) {
	tr.write("{%% for i in %s %%}", tr.op(opLoop{tr.take(), n}))
	tr.pending = opSteps{advance{n}}
	tr.nodes(n.body)
	tr.flush()
	if len(n.otherwise) > 0 {
		tr.write("{%% empty %%}")
		tr.nodes(n.otherwise)
		tr.flush()
	}
	tr.write("{%% endfor %%}")
}

// run executes the template.
func (t *Template) run(vars map[string]any, print Print) (pieces []Piece, err error) {
	r := &run{template: t, vars: vars, print: print, pieces: make([]Piece, 0, t.statements)}
	if t.slots > 0 {
		r.slots = make([]value, t.slots)
	}
	if t.loops > 0 {
		r.loops = make([]loopState, t.loops)
	}
	defer func() {
		if p := recover(); p != nil {
			pieces, err = nil, &RuntimeError{Reason: fmt.Sprintf("the template engine failed: %v", p)}
		}
	}()
	if t.steps != nil {
		if err := t.steps.do(r); err != nil {
			return nil, err
		}
		return r.pieces, nil
	}
	err = t.engine.ExecuteWriterUnbuffered(pongo2.Context{"x": r.call}, io.Discard)
	switch {
	case r.err != nil:
		return nil, r.err
	case err != nil:
		return nil, &RuntimeError{Reason: "the template engine failed: " + err.Error()}
	}
	return r.pieces, nil
}

// answers are what ops return, made once: pongo2 only reads them. They are
// "safe", so that pongo2 does not think of escaping them.
type answers struct{ nothing, yes, no *pongo2.Value }

func newAnswers() answers {
	return answers{pongo2.AsSafeValue(""), pongo2.AsSafeValue(true), pongo2.AsSafeValue(false)}
}

// call runs one op for pongo2. What it returns to be printed is empty.
func (r *run) call(number int) (*pongo2.Value, error) {
	t := r.template
	answer := t.answers.nothing
	switch o := t.ops[number].(type) {
	case opSteps:
		r.err = o.do(r)
	case opCondition:
		if r.err = o.before.do(r); r.err != nil {
			break
		}
		var v value
		v, r.err = r.evaluate(&o.branch.whole)
		answer = t.answers.no
		if v.truth() {
			answer = t.answers.yes
		}
	case opLoop:
		if r.err = o.before.do(r); r.err != nil {
			break
		}
		var rounds int
		rounds, r.err = o.loop.begin(r)
		answer = pongo2.AsSafeValue(make([]struct{}, rounds))
	}
	return answer, r.err
}

func (steps opSteps) do(r *run) error {
	for _, s := range steps {
		if err := s.do(r); err != nil {
			return err
		}
	}
	return nil
}
