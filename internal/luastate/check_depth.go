package luastate

import "fmt"

// What the compiler gets to do at most. It calls itself for every operator, bracket and block inside
// another one, so that a long enough source would end the process; and it takes time with the square of
// how many there are.
const (
	maxNesting      = 200 // brackets and blocks inside one another, as Lua's own
	maxOperators    = 1000
	maxOperands     = 10_000 // with the names of a.b.c and the calls of f()()
	maxAlternatives = 1000
)

// expressionMeter measures how deep the syntax tree becomes.
type expressionMeter struct {
	levels  []expression
	current expression
}

// expression counts what belongs to one expression, and to one chain of elseif.
type expression struct{ operators, operands, alternatives int }

// open begins a bracket or a block, close ends it: then the expression around it goes on.
func (m *expressionMeter) open() {
	m.step()
	m.levels = append(m.levels, m.current)
	m.current = expression{}
}

func (m *expressionMeter) close() {
	if n := len(m.levels); n > 0 { // otherwise the parser has something to say
		m.current = m.levels[n-1]
		m.levels = m.levels[:n-1]
	}
}

// begin begins a new expression at the same level.
func (m *expressionMeter) begin() { m.current.operators, m.current.operands = 0, 0 }

func (m *expressionMeter) operation() { m.current.operators++ }

func (m *expressionMeter) step() { m.current.operands++ }

func (m *expressionMeter) alternative() { m.current.alternatives++ }

// excess says what there is too much of.
func (m *expressionMeter) excess() string {
	switch {
	case len(m.levels) > maxNesting:
		return fmt.Sprintf("brackets and blocks are nested more than %d deep", maxNesting)
	case m.current.operators > maxOperators:
		return fmt.Sprintf("an expression has more than %d operators", maxOperators)
	case m.current.operands > maxOperands:
		return fmt.Sprintf("an expression has more than %d parts", maxOperands)
	case m.current.alternatives > maxAlternatives:
		return fmt.Sprintf("an if has more than %d alternatives", maxAlternatives)
	}
	return ""
}
