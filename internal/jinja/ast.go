package jinja

// node is a statement of the template.
type node interface{}

type (
	textNode struct {
		at   position
		text string
	}
	outputNode struct{ whole }
	setNode    struct {
		whole
		slot int
	}
	ifNode struct {
		branches  []branch
		otherwise []node
	}
	branch struct {
		whole // the condition
		body  []node
	}
	forNode struct {
		whole         // the list
		loop      int // index of its state in run.loops
		slot      int // of its variable
		body      []node
		otherwise []node
	}
)

// whole is the expression of a statement.
type whole struct {
	at    position // of the statement
	expr  expr
	names []string
	cost  int
}

// expr is an expression. Its evaluation is in eval.go.
type expr interface {
	eval(r *run) (value, error)
}

type (
	literalExpr struct{ value value }
	// nameExpr is a variable of the caller, of set or of for, or one of set
	// that falls back to the caller's while the set was not reached.
	nameExpr struct {
		at    position
		name  string
		slot  int // -1: none
		outer bool
		names []string // what the slot's value was made from
	}
	loopExpr struct {
		loop  int
		field string
	}
	attrExpr struct {
		at   position
		base expr
		name string
	}
	indexExpr struct {
		at        position
		base, key expr
	}
	sliceExpr struct {
		at          position
		base        expr
		start, stop expr // nil where left out
	}
	callExpr struct {
		at     position
		base   expr
		name   string
		method method
		args   []expr
	}
	filterExpr struct {
		at     position
		base   expr
		filter filter
		args   []expr
	}
	testExpr struct {
		at   position
		base expr
		test test
		args []expr
	}
	notExpr    struct{ base expr }
	negateExpr struct {
		at   position
		base expr
	}
	logicExpr struct {
		or          bool
		left, right expr
	}
	compareExpr struct {
		at          position
		op          string
		left, right expr
	}
	mathExpr struct {
		at          position
		op          string
		left, right expr
	}
	chooseExpr struct {
		condition, yes expr
		no             expr // nil: nothing, and silently so
	}
	listExpr struct{ items []expr }
	mapExpr  struct {
		keys   []string
		values []expr
	}
)

// pathOf returns an expression as the path of a caller's variable, such as
// "meta.user", if it is one.
func pathOf(e expr) (string, bool) {
	switch e := e.(type) {
	case *nameExpr:
		return e.name, e.outer
	case *attrExpr:
		return joinPath(e.base, e.name)
	case *indexExpr:
		if key, ok := e.key.(*literalExpr); ok && key.value.kind == kindString {
			return joinPath(e.base, key.value.str)
		}
	case *callExpr:
		if key, ok := getKey(e); ok {
			return joinPath(e.base, key)
		}
	}
	return "", false
}

func joinPath(base expr, key string) (string, bool) {
	path, ok := pathOf(base)
	if !ok {
		return "", false
	}
	if isName(key) {
		return path + "." + key, true
	}
	return path + "['" + key + "']", true
}

// getKey returns the key of a call of get with a literal one.
func getKey(e *callExpr) (string, bool) {
	if e.name != "get" {
		return "", false
	}
	key, ok := e.args[0].(*literalExpr)
	if !ok || key.value.kind != kindString {
		return "", false
	}
	return key.value.str, true
}

// namesOf returns the variables that an expression uses, each once, in order.
func namesOf(e expr) []string {
	var names nameSet
	collect(e, names.add)
	return names.list
}

// nameSet is names, each once, in the order in which they came.
type nameSet struct {
	list []string
	has  map[string]bool
}

func (s *nameSet) add(name string) {
	if s.has[name] {
		return
	}
	if s.has == nil {
		s.has = make(map[string]bool)
	}
	s.has[name] = true
	s.list = append(s.list, name)
}

func collect(e expr, add func(string)) {
	path, isPath := pathOf(e)
	if isPath {
		add(path)
	}
	switch e := e.(type) {
	case *nameExpr:
		for _, name := range e.names {
			add(name)
		}
	case *attrExpr:
		collectBase(e.base, isPath, add)
	case *indexExpr:
		collectBase(e.base, isPath, add)
		collect(e.key, add)
	case *sliceExpr:
		collectAll(add, e.base, e.start, e.stop)
	case *callExpr:
		collectBase(e.base, isPath, add)
		collectAll(add, e.args...)
	case *filterExpr:
		collect(e.base, add)
		collectAll(add, e.args...)
	case *testExpr:
		collect(e.base, add)
		collectAll(add, e.args...)
	case *notExpr:
		collect(e.base, add)
	case *negateExpr:
		collect(e.base, add)
	case *logicExpr:
		collectAll(add, e.left, e.right)
	case *compareExpr:
		collectAll(add, e.left, e.right)
	case *mathExpr:
		collectAll(add, e.left, e.right)
	case *chooseExpr:
		collectAll(add, e.yes, e.condition, e.no)
	case *listExpr:
		collectAll(add, e.items...)
	case *mapExpr:
		collectAll(add, e.values...)
	}
}

// collectBase leaves out the caller's variable at the root of a path, which the
// path names already, but not what else is in there.
func collectBase(base expr, isPath bool, add func(string)) {
	if !isPath {
		collect(base, add)
		return
	}
	switch base := base.(type) {
	case *nameExpr:
		for _, name := range base.names {
			add(name)
		}
	case *attrExpr:
		collectBase(base.base, true, add)
	case *indexExpr:
		collectBase(base.base, true, add)
	case *callExpr:
		collectBase(base.base, true, add)
		collectAll(add, base.args[1:]...)
	}
}

func collectAll(add func(string), list ...expr) {
	for _, e := range list {
		if e != nil {
			collect(e, add)
		}
	}
}
