// Package jinja compiles and executes a subset of the Jinja template language
// with the meaning that minijinja gives it. Every expression is scanned,
// parsed and checked here, at compile time. pongo2 executes the structure of a
// template that has loops, from a source that is generated and holds nothing
// that the author of the template wrote; what has no loops is done at once.
//
// The subset is closed: what is not listed below is refused by [Compile], with
// its name and position, and never rendered in some other way.
//
//   - text, {{ expression }}, {# comment #}, {% raw %}, whitespace control
//     ({{- -}}), one newline at the very end dropped
//   - {% if %} {% elif %} {% else %}, {% for x in list %} with else and
//     loop.index and its like, {% set x = expression %} outside loops
//   - strings, numbers, true, false, none, lists, maps with literal keys
//   - names, attributes, subscripts and slices (strings by characters)
//   - or and not, comparisons, in, is, ~ + - * / // %, a if c else b
//   - the filters, tests and methods of the tables in filters.go, tests.go and
//     methods.go
//
// Values are data: they are never looked at as template text. A value that is
// none or undefined is not printed as "none" or as nothing, but reported as a
// [Piece] that is Missing, so that the caller can refuse the output; text that
// a filter or an operator makes of such a value is Missing as well.
//
// Nothing is registered process-wide, no file is ever read, and the global
// switches of pongo2 are left alone.
package jinja

import (
	"fmt"
	"slices"

	"github.com/flosch/pongo2/v6"
)

// Error says why and where [Compile] refused a template. Line and Column count
// from 1, Column in characters, in the source as it was written.
type Error struct {
	Line, Column int
	Reason       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// RuntimeError says why [Template.Execute] could not finish. Line is 0 where
// the position is not known. Names are the variables of the expression that
// failed, as in [Piece], nil if it has none. Content tells that a text was no
// number: another text in its place could do, while a value of a kind that the
// expression does not take is more likely the template's mistake.
type RuntimeError struct {
	Line, Column int
	Names        []string
	Content      bool
	Reason       string
}

func (e *RuntimeError) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// A Piece is a part of the output together with where it came from.
type Piece struct {
	Text string
	// Names are the variables whose values this piece came from, as written and
	// with their attributes ("local_part", "meta.user"): all names of the whole
	// expression. A variable of {% set %} or {% for %} stands for the names it
	// was made from. Nil means that the piece is the template's own text. The
	// slice belongs to the template and must not be changed.
	Names []string
	// Missing tells that none or an undefined value would have been printed, or
	// text made from one, and no default caught it. Text is empty then.
	Missing bool
	// Line and Column are the place in the source, counted as in [Error].
	Line, Column int
}

// Template is a compiled template. It is immutable and safe for concurrent use.
type Template struct {
	names  []string
	prefix string
	// literal is the output of a template without expressions, and not nil then.
	literal []Piece

	// steps are a template without loops, and not nil then.
	steps opSteps

	engine     *pongo2.Template
	ops        []op
	answers    answers
	statements int // of the outermost level: about as many as there are pieces
	slots      int
	loops      int
}

// Compile parses and checks source. names lists the variables that exist; any
// other name, unless set or for binds it, is refused. Every error is an [*Error].
func Compile(source string, names []string) (*Template, error) {
	items, err := scan(source)
	if err != nil {
		return nil, err
	}
	p := &parser{items: items, known: names}
	nodes, err := p.parse()
	if err != nil {
		return nil, err
	}
	t := &Template{
		names:  p.uses.list,
		prefix: leadingText(nodes),
		slots:  p.slots,
		loops:  p.loops,

		statements: len(nodes),
	}
	if t.literal = onlyText(nodes); t.literal != nil {
		return t, nil
	}
	if err := t.translate(nodes); err != nil {
		return nil, err
	}
	return t, nil
}

// Names returns every variable that the template uses, with its attribute path
// ("meta.user"), each once, in the order of the source.
func (t *Template) Names() []string { return slices.Clone(t.names) }

// Literal returns the whole output and true if the template consists of nothing
// but text. Executing such a template involves no engine.
func (t *Template) Literal() (string, bool) {
	if t.literal == nil {
		return "", false
	}
	return t.prefix, true
}

// Prefix returns the literal text with which every output begins: all text
// before the first expression or tag.
func (t *Template) Prefix() string { return t.prefix }

// Execute renders the template. vars holds the values of the variables: string,
// bool, int, int64, float64, nil, map[string]any and []any; one that is not in
// the map is undefined. The map and what it holds are only read. The output is
// at most 64 KiB, and the work is bounded. Every error is a [*RuntimeError].
func (t *Template) Execute(vars map[string]any) ([]Piece, error) {
	return t.execute(vars, nil)
}

func (t *Template) execute(vars map[string]any, print Print) ([]Piece, error) {
	if t.literal != nil {
		return slices.Clone(t.literal), nil
	}
	return t.run(vars, print)
}
