package luastate

import (
	"fmt"

	"github.com/yuin/gopher-lua/ast"
)

// simultaneous makes a block of an assignment to several targets, since the virtual machine's compiler has a local
// variable hold its new value while the other values are still being computed: after a, b = b, a both would be b.
//
//	a, t[k] = x, y    do local (t), (k) = t, k; local (1), (2) = x, y; t[k] = (2); a = (1) end
//
// As in Lua, what the targets are made of comes first, then all values, and the last is stored first.
func simultaneous(s *ast.AssignStmt) ast.Stmt {
	if len(s.Lhs) == 1 && len(s.Rhs) == 1 {
		if call, ok := s.Rhs[0].(*ast.FuncCallExpr); ok {
			call.AdjustRet = false // with it, the function would be put in the place of the last parameter, if that is the target
		}
		return s
	}
	if isDistribution(s) {
		return s
	}
	b := blockBuilder{at: s}
	for i, target := range s.Lhs {
		if field, ok := target.(*ast.AttrGetExpr); ok {
			field.Object = b.local(fmt.Sprintf("(table %d)", i), field.Object)
			if _, isConstant := field.Key.(*ast.StringExpr); !isConstant {
				field.Key = b.local(fmt.Sprintf("(key %d)", i), field.Key)
			}
		}
	}
	values := make([]string, len(s.Lhs))
	for i := range values {
		values[i] = fmt.Sprintf("(value %d)", i)
	}
	b.add(&ast.LocalAssignStmt{Names: values, Exprs: s.Rhs})
	for i := len(values) - 1; i >= 0; i-- {
		b.add(&ast.AssignStmt{Lhs: s.Lhs[i : i+1], Rhs: []ast.Expr{b.name(values[i])}})
	}
	return b.done()
}

// isDistribution knows what is compiled as it should be: the results of one call for variables only, or for fields only.
func isDistribution(s *ast.AssignStmt) bool {
	if len(s.Rhs) != 1 {
		return false
	}
	switch e := s.Rhs[0].(type) {
	case *ast.FuncCallExpr:
		if e.AdjustRet {
			return false
		}
	case *ast.Comma3Expr:
		if e.AdjustRet {
			return false
		}
	default:
		return false
	}
	variables := 0
	for _, target := range s.Lhs {
		if _, ok := target.(*ast.IdentExpr); ok {
			variables++
		}
	}
	return variables == 0 || variables == len(s.Lhs)
}

// blockBuilder makes a block in the place of a statement. Its variables have names that no program can write.
type blockBuilder struct {
	at    ast.PositionHolder
	stmts []ast.Stmt
}

func (b *blockBuilder) place(node ast.PositionHolder) {
	node.SetLine(b.at.Line())
	node.SetLastLine(b.at.LastLine())
}

func (b *blockBuilder) add(stmt ast.Stmt) {
	b.place(stmt)
	b.stmts = append(b.stmts, stmt)
}

func (b *blockBuilder) name(variable string) ast.Expr {
	e := &ast.IdentExpr{Value: variable}
	b.place(e)
	return e
}

// local puts the value of an expression into a variable of the block, whose name it returns.
func (b *blockBuilder) local(variable string, value ast.Expr) ast.Expr {
	b.add(&ast.LocalAssignStmt{Names: []string{variable}, Exprs: []ast.Expr{value}})
	return b.name(variable)
}

func (b *blockBuilder) done() ast.Stmt {
	block := &ast.DoBlockStmt{Stmts: b.stmts}
	b.place(block)
	return block
}
