package luastate

import (
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
)

// Two instructions take as much memory as their operands ask for before anybody is asked: the operator "..", and
// storing at an index far beyond the end of a table, which fills what lies between. The rewriter makes calls of
// them in the syntax tree:
//
//	a .. b .. c     concat(a, b, c)
//	t[k] = v        t[checkedKey(k)] = v
//
// And it mends what would be compiled wrongly (see simultaneous and jumps), or would not come back: the frame of a
// function that ends with a call of yield is gone when its coroutine goes on.
//
//	return yield(x)    return pass(yield(x))
//
// A program cannot get at the functions, nor put others in their place: they are constants of the compiled
// program. The syntax tree knows no such constants, so texts stand for them until it is compiled.
type rewriter struct {
	concat, key []*ast.StringExpr // where they are called
	pass        []*ast.StringExpr // likewise
	zeros       int               // how many zero bytes a text of the program begins with, at most
	jumps       jumps
}

// The functions belong to no state: what they need they find in the one that calls them.
var (
	concatFunction = &lua.LFunction{IsG: true, GFunction: luaConcat}
	keyFunction    = &lua.LFunction{IsG: true, GFunction: luaCheckedKey}
	passFunction   = &lua.LFunction{IsG: true, GFunction: func(L *lua.LState) int { return L.GetTop() }}
)

// program rewrites a program. Compile puts the functions in it where the patch says so.
func (r *rewriter) program(chunk []ast.Stmt) patch {
	r.jumps.function(0, func() { r.block(chunk) })
	// Escapes can write any text: one with more zeros than any of the program's is not among them.
	mark := strings.Repeat("\x00", r.zeros+1)
	p := patch{concat: mark + "..", key: mark + "[]", pass: mark + "()"}
	for _, call := range r.concat {
		call.Value = p.concat
	}
	for _, call := range r.key {
		call.Value = p.key
	}
	for _, call := range r.pass {
		call.Value = p.pass
	}
	return p
}

// patch has the texts that stand for the functions.
type patch struct{ concat, key, pass string }

// apply puts the functions in the place of the texts.
func (p patch) apply(proto *lua.FunctionProto) {
	for i, constant := range proto.Constants {
		switch constant {
		case lua.LString(p.concat):
			proto.Constants[i] = concatFunction
		case lua.LString(p.key):
			proto.Constants[i] = keyFunction
		case lua.LString(p.pass):
			proto.Constants[i] = passFunction
		}
	}
	for _, inner := range proto.FunctionPrototypes {
		p.apply(inner)
	}
}

func (r *rewriter) block(stmts []ast.Stmt) {
	end := len(stmts) // but for labels
	for end > 0 && isLabel(stmts[end-1]) {
		end--
	}
	r.stmts(stmts, end)
}

// stmts rewrites statements, at whose end the block ends too.
func (r *rewriter) stmts(stmts []ast.Stmt, end int) {
	for i, stmt := range stmts {
		if label, ok := stmt.(*ast.LabelStmt); ok {
			r.jumps.label(label.Name, i >= end)
			continue
		}
		stmts[i] = r.stmt(stmt)
	}
}

func isLabel(stmt ast.Stmt) bool {
	_, ok := stmt.(*ast.LabelStmt)
	return ok
}

// inner rewrites a block within another.
func (r *rewriter) inner(stmts []ast.Stmt) {
	r.jumps.block(0, func() { r.block(stmts) })
}

// stmt rewrites what is in a statement and returns what is to stand in its place.
func (r *rewriter) stmt(stmt ast.Stmt) ast.Stmt {
	switch s := stmt.(type) {
	case *ast.AssignStmt:
		r.exprs(s.Lhs)
		r.exprs(s.Rhs)
		for _, target := range s.Lhs {
			if field, ok := target.(*ast.AttrGetExpr); ok && !harmlessKey(field.Key) {
				field.Key = callOf(&r.key, field.Key, field.Key)
			}
		}
		return simultaneous(s)
	case *ast.LocalAssignStmt:
		r.exprs(s.Exprs)
		r.jumps.declare(len(s.Names))
	case *ast.FuncCallStmt:
		s.Expr = r.expr(s.Expr)
	case *ast.DoBlockStmt:
		r.inner(s.Stmts)
	case *ast.WhileStmt:
		s.Condition = r.expr(s.Condition)
		return r.jumps.loop(s, 0, func() { r.block(s.Stmts) })
	case *ast.RepeatStmt:
		return r.jumps.loop(s, 0, func() {
			r.stmts(s.Stmts, len(s.Stmts)) // the condition belongs to the block
			s.Condition = r.expr(s.Condition)
		})
	case *ast.IfStmt:
		s.Condition = r.expr(s.Condition)
		r.inner(s.Then)
		r.inner(s.Else)
	case *ast.NumberForStmt:
		s.Init, s.Limit, s.Step = r.expr(s.Init), r.expr(s.Limit), r.expr(s.Step)
		return r.jumps.loop(s, loopVariables+1, func() { r.block(s.Stmts) })
	case *ast.GenericForStmt:
		r.exprs(s.Exprs)
		return r.jumps.loop(s, loopVariables+len(s.Names), func() { r.block(s.Stmts) })
	case *ast.FuncDefStmt:
		r.function(s.Func, s.Name.Func == nil)
	case *ast.ReturnStmt:
		r.exprs(s.Exprs)
		if len(s.Exprs) == 1 && yields(s.Exprs[0]) {
			call := s.Exprs[0].(*ast.FuncCallExpr)
			one := call.AdjustRet
			pass := callOf(&r.pass, call, call)
			pass.AdjustRet, call.AdjustRet = false, one
			s.Exprs[0] = pass
		}
	case *ast.GotoStmt:
		r.jumps.jump(s)
	case *ast.BreakStmt:
		return r.jumps.leave(s)
	}
	return stmt
}

// yields knows calls of yield, by the name that the function has in the program.
func yields(expr ast.Expr) bool {
	call, ok := expr.(*ast.FuncCallExpr)
	if !ok {
		return false
	}
	switch fn := call.Func.(type) {
	case *ast.IdentExpr:
		return fn.Value == "yield"
	case *ast.AttrGetExpr:
		key, ok := fn.Key.(*ast.StringExpr)
		return ok && key.Value == "yield"
	}
	return false
}

// loopVariables are those that a for loop has for itself.
const loopVariables = 3

// function rewrites the body of a function; a method has the parameter self.
func (r *rewriter) function(e *ast.FunctionExpr, isMethod bool) {
	parameters := len(e.ParList.Names)
	if isMethod {
		parameters++
	}
	if e.ParList.HasVargs {
		parameters++ // arg
	}
	r.jumps.function(parameters, func() { r.block(e.Stmts) })
}

func (r *rewriter) exprs(exprs []ast.Expr) {
	for i, e := range exprs {
		exprs[i] = r.expr(e)
	}
}

// expr rewrites what is in an expression and returns what is to stand in its place.
func (r *rewriter) expr(expr ast.Expr) ast.Expr {
	switch e := expr.(type) {
	case *ast.StringExpr:
		r.zeros = max(r.zeros, len(e.Value)-len(strings.TrimLeft(e.Value, "\x00")))
	case *ast.StringConcatOpExpr:
		return r.concatenation(e)
	case *ast.AttrGetExpr:
		e.Object, e.Key = r.expr(e.Object), r.expr(e.Key)
	case *ast.TableExpr:
		for _, field := range e.Fields {
			field.Value = r.expr(field.Value)
			if field.Key = r.expr(field.Key); field.Key != nil && !harmlessKey(field.Key) {
				field.Key = callOf(&r.key, field.Key, field.Key)
			}
		}
	case *ast.FuncCallExpr:
		e.Func, e.Receiver = r.expr(e.Func), r.expr(e.Receiver)
		r.exprs(e.Args)
	case *ast.LogicalOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.RelationalOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.ArithmeticOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.UnaryMinusOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.UnaryNotOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.UnaryLenOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.FunctionExpr:
		r.function(e, false)
	}
	return expr
}

// concatenation makes one call of a whole chain: a .. (b .. c).
func (r *rewriter) concatenation(e *ast.StringConcatOpExpr) ast.Expr {
	var operands []ast.Expr
	for chain := e; ; {
		operands = append(operands, r.expr(chain.Lhs))
		rest, ok := chain.Rhs.(*ast.StringConcatOpExpr)
		if !ok {
			operands = append(operands, r.expr(chain.Rhs))
			return callOf(&r.concat, e, operands...)
		}
		chain = rest
	}
}

// callOf is a call that stands where an operand stood, and so has one value, as each of its arguments.
func callOf(calls *[]*ast.StringExpr, at ast.Expr, args ...ast.Expr) *ast.FuncCallExpr {
	fn := &ast.StringExpr{}
	*calls = append(*calls, fn)
	call := &ast.FuncCallExpr{Func: fn, Args: args, AdjustRet: true}
	for _, node := range []ast.PositionHolder{fn, call} {
		node.SetLine(at.Line())
		node.SetLastLine(at.LastLine())
	}
	if last, ok := args[len(args)-1].(*ast.FuncCallExpr); ok {
		last.AdjustRet = true
	} else if last, ok := args[len(args)-1].(*ast.Comma3Expr); ok {
		last.AdjustRet = true
	}
	return call
}

// harmlessKey knows the keys that cannot make a table large at once: names and small numbers. What #t + 1 is, a
// metamethod says.
func harmlessKey(key ast.Expr) bool {
	switch k := key.(type) {
	case *ast.StringExpr, *ast.TrueExpr, *ast.FalseExpr, *ast.NilExpr:
		return true
	case *ast.NumberExpr:
		return isSmall(k)
	}
	return false
}

func isSmall(e *ast.NumberExpr) bool {
	n, err := strconv.Atoi(e.Value)
	return err == nil && n <= small
}
