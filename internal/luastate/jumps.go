package luastate

import (
	"fmt"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
)

// Whoever leaves a block by a jump leaves variables behind, and closures that hold these get them for themselves. The
// virtual machine's compiler has that wrong: goto takes all variables of the function away from those who share
// them, unless the blocks that it leaves have some that closures hold; and break leaves those of blocks within the loop's
// own to be overwritten. So the rewriter makes of each break a goto behind the loop, finds how many variables there
// are at the place where a goto goes, and puts that number into the compiled instruction.

// scope is a block of a function, and what is known of it so far.
type scope struct {
	outer  *scope
	before int            // variables of the function when the block began
	active int            // and now; they are in the first registers
	labels map[string]int // and how many there are at each label of the block
	exit   string         // the label behind the loop of which this is the body; "" if it is none
}

// jump is a goto.
type jump struct {
	stmt *ast.GotoStmt
	from *scope
	line int
	keep int // how many variables stay
}

// firstMark is beyond all line numbers. Instead of a line, a goto bears the number of its jump, to be found by in the
// compiled program.
const firstMark = 1 << 28

// jumps are those of a program, and where in it the rewriter is.
type jumps struct {
	all   []jump
	here  *scope
	exits int
}

// function goes through the body of a function with so many parameters.
func (j *jumps) function(parameters int, body func()) {
	outside, first := j.here, len(j.all)
	j.here = &scope{active: parameters}
	body()
	j.here = outside
	for i := first; i < len(j.all); i++ {
		if jump := &j.all[i]; jump.from != nil {
			jump.keep = jump.from.find(jump.stmt.Label)
			jump.from = nil // done; those of functions within it were done before
		}
	}
}

// find is how many variables there are at a label. There are none where there is no label: the compiler refuses that.
func (s *scope) find(label string) int {
	for ; s != nil; s = s.outer {
		if active, ok := s.labels[label]; ok {
			return active
		}
	}
	return 0
}

// block goes through a block whose own variables are hidden from the program.
func (j *jumps) block(hidden int, body func()) {
	outer := j.here
	j.here = &scope{outer: outer, before: outer.active, active: outer.active + hidden}
	body()
	j.here = outer
}

// declare adds variables to the block.
func (j *jumps) declare(n int) { j.here.active += n }

// label notes a label. At the end of its block nothing of the block is alive any more.
func (j *jumps) label(name string, atEnd bool) {
	if j.here.labels == nil {
		j.here.labels = map[string]int{}
	}
	j.here.labels[name] = j.here.active
	if atEnd {
		j.here.labels[name] = j.here.before
	}
}

func (j *jumps) jump(s *ast.GotoStmt) {
	j.all = append(j.all, jump{stmt: s, from: j.here, line: s.Line()})
	if s.LastLine() == 0 {
		s.SetLastLine(s.Line()) // where a block or a program ends with the jump, that is its last line
	}
	s.SetLine(firstMark + len(j.all) - 1)
}

// loop goes through a loop and returns what is to stand in its place.
func (j *jumps) loop(s ast.Stmt, hidden int, body func()) ast.Stmt {
	j.exits++
	exit := fmt.Sprintf("(break %d)", j.exits)
	jumps := len(j.all)
	j.block(0, func() {
		j.block(hidden, func() {
			j.here.exit = exit
			body()
		})
		j.label(exit, true)
	})
	for _, jump := range j.all[jumps:] {
		if jump.stmt.Label == exit {
			b := blockBuilder{at: s, stmts: []ast.Stmt{s}}
			b.add(&ast.LabelStmt{Name: exit})
			return b.done()
		}
	}
	return s
}

// leave makes a goto of a break.
func (j *jumps) leave(s *ast.BreakStmt) ast.Stmt {
	for at := j.here; at != nil; at = at.outer {
		if at.exit == "" {
			continue
		}
		leave := &ast.GotoStmt{Label: at.exit}
		leave.SetLine(s.Line())
		leave.SetLastLine(s.LastLine())
		j.jump(leave)
		return leave
	}
	return s
}

// patch puts the number of variables that stay into the instruction before each jump.
func (j *jumps) patch(proto *lua.FunctionProto) {
	for pc, line := range proto.DbgSourcePositions {
		if line < firstMark {
			continue
		}
		jump := &j.all[line-firstMark]
		proto.DbgSourcePositions[pc] = jump.line
		if int(proto.Code[pc]>>26) == lua.OP_CLOSE {
			const argument = 0xff << 18
			proto.Code[pc] = proto.Code[pc]&^argument | uint32(jump.keep)<<18
		}
	}
	for _, inner := range proto.FunctionPrototypes {
		j.patch(inner)
	}
}

// unmark puts the lines back into an error of the compiler.
func (j *jumps) unmark(text string) string {
	for i, jump := range j.all {
		if mark := strconv.Itoa(firstMark + i); strings.Contains(text, mark) {
			return strings.ReplaceAll(text, mark, strconv.Itoa(jump.line))
		}
	}
	return text
}
