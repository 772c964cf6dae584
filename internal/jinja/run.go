package jinja

import "fmt"

const (
	maxOutput = 64 << 10
	// maxWork bounds an execution: evaluated expressions, rounds of loops and
	// bytes of text made.
	maxWork = 1 << 20
)

// run is the state of one execution.
type run struct {
	template *Template
	vars     map[string]any
	slots    []value
	loops    []loopState
	pieces   []Piece
	output   int
	work     int
	print    Print // nil: as Execute does
	// err is what stopped the execution; pongo2 would keep only its text.
	err error
}

// loopState is where a {% for %} stands.
type loopState struct {
	items value // a list or a string's characters
	index int
	count int
}

func (r *run) fail(at position, format string, args ...any) error {
	return &RuntimeError{Line: at.line, Column: at.column, Reason: fmt.Sprintf(format, args...)}
}

// spend accounts for n units of work.
func (r *run) spend(at position, n int) error {
	r.work += n
	if n < 0 || r.work > maxWork {
		return r.fail(at, "the template makes too much work of these values")
	}
	return nil
}

// count accounts for counting the characters of a string, on the way to one of them or to the last: much faster
// than making text of them.
func (r *run) count(at position, v value) error {
	if v.kind != kindString {
		return nil
	}
	return r.spend(at, len(v.str)/16)
}

// add adds a piece to the output.
func (r *run) add(p Piece) error {
	r.output += len(p.Text)
	if r.output > maxOutput {
		return r.fail(position{p.Line, p.Column}, "the output is longer than %d bytes", maxOutput)
	}
	r.pieces = append(r.pieces, p)
	return nil
}

// evaluate evaluates a statement's expression and names its variables in an
// error.
func (r *run) evaluate(e *whole) (value, error) {
	if err := r.spend(e.at, e.cost); err != nil {
		return value{}, err
	}
	v, err := e.expr.eval(r)
	return v, e.named(err)
}

// named adds the names of an expression to its error.
func (e *whole) named(err error) error {
	if failure, ok := err.(*RuntimeError); ok {
		failure.Names = e.names
	}
	return err
}

// step is a statement that is no structure: one after the other they make an
// op of the generated template.
type step interface{ do(r *run) error }

func (n *textNode) do(r *run) error {
	if err := r.spend(n.at, 1); err != nil {
		return err
	}
	return r.add(Piece{Text: n.text, Line: n.at.line, Column: n.at.column})
}

func (n *outputNode) do(r *run) error {
	v, err := r.evaluate(&n.whole)
	if err != nil {
		return err
	}
	if r.print != nil {
		return n.printWith(r, v)
	}
	p := Piece{Names: n.names, Line: n.at.line, Column: n.at.column}
	switch {
	case v.silent:
	case v.hollow || v.absent():
		p.Missing = true
	default:
		text, ok := v.text()
		if !ok {
			return n.named(r.fail(n.at, "cannot print %s", describe(v)))
		}
		p.Text = text
	}
	return r.add(p)
}

func (n *setNode) do(r *run) error {
	v, err := r.evaluate(&n.whole)
	r.slots[n.slot] = v
	return err
}

// do follows the first branch whose condition holds. There is no loop in any.
func (n *ifNode) do(r *run) error {
	body := n.otherwise
	for i := range n.branches {
		v, err := r.evaluate(&n.branches[i].whole)
		if err != nil {
			return err
		}
		if v.truth() {
			body = n.branches[i].body
			break
		}
	}
	for _, s := range body {
		if err := s.(step).do(r); err != nil {
			return err
		}
	}
	return nil
}

// advance moves a loop to its next round.
type advance struct{ loop *forNode }

func (a advance) do(r *run) error {
	state := &r.loops[a.loop.loop]
	if err := r.spend(a.loop.at, 1); err != nil {
		return err
	}
	state.index++
	r.slots[a.loop.slot] = state.items.item(state.index)
	return nil
}

// begin evaluates the list of a loop and returns the number of its rounds.
func (n *forNode) begin(r *run) (int, error) {
	v, err := r.evaluate(&n.whole)
	if err != nil {
		return 0, err
	}
	if v.kind == kindMap {
		return 0, n.named(r.fail(n.at, "cannot loop over a map"))
	}
	items, err := r.listOf(n.at, v)
	if err != nil {
		return 0, n.named(err)
	}
	if err := r.spend(n.at, items.length()); err != nil {
		return 0, err
	}
	r.loops[n.loop] = loopState{items: items, index: -1, count: items.length()}
	return items.length(), nil
}

func (e *loopExpr) eval(r *run) (value, error) {
	s := r.loops[e.loop]
	switch e.field {
	case "index":
		return intValue(int64(s.index + 1)), nil
	case "index0":
		return intValue(int64(s.index)), nil
	case "revindex":
		return intValue(int64(s.count - s.index)), nil
	case "revindex0":
		return intValue(int64(s.count - s.index - 1)), nil
	case "first":
		return boolValue(s.index == 0), nil
	case "last":
		return boolValue(s.index == s.count-1), nil
	default:
		return intValue(int64(s.count)), nil
	}
}
