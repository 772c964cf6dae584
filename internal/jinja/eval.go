package jinja

import "fmt"

// typeName names a Go type in an error.
func typeName(x any) string { return fmt.Sprintf("%T", x) }

// describe names a value in an error without showing what is in it.
func describe(v value) string {
	switch v.kind {
	case kindForeign:
		return "a value of Go type " + v.str
	case kindFloat:
		if _, ok := formatFloat(v.float()); !ok {
			return "a number that is infinite or none"
		}
	case kindUndefined:
		return "an undefined value"
	}
	return v.kind.String()
}

// subject names the expression that an error is about.
func subject(e expr, v value) string {
	if path, ok := pathOf(e); ok {
		return fmt.Sprintf("%q is %s", path, v.kind)
	}
	return "this is " + v.kind.String()
}

func (e *literalExpr) eval(*run) (value, error) { return e.value, nil }

func (e *nameExpr) eval(r *run) (value, error) {
	if e.slot >= 0 && r.slots[e.slot].kind != kindUnset {
		return r.slots[e.slot], nil
	}
	if x, ok := r.vars[e.name]; ok && e.outer {
		return valueOf(x), nil
	}
	return undefinedValue, nil
}

// soft evaluates the operand of default and is defined: there, an attribute of
// an undefined value is undefined and no error.
func (r *run) soft(e expr) (value, error) {
	switch e := e.(type) {
	case *attrExpr:
		base, err := r.soft(e.base)
		if err != nil || base.kind == kindUndefined {
			return base, err
		}
		return e.of(r, base)
	case *indexExpr:
		base, err := r.soft(e.base)
		if err != nil || base.kind == kindUndefined {
			return base, err
		}
		return e.of(r, base)
	}
	return e.eval(r)
}

func (r *run) operand(e expr, soft bool) (value, error) {
	if soft {
		return r.soft(e)
	}
	return e.eval(r)
}

func (e *attrExpr) eval(r *run) (value, error) {
	base, err := e.base.eval(r)
	if err != nil {
		return value{}, err
	}
	return e.of(r, base)
}

func (e *attrExpr) of(r *run, base value) (value, error) {
	switch base.kind {
	case kindUndefined:
		return value{}, r.fail(e.at, "%s: it has no attribute %q", subject(e.base, base), e.name)
	case kindMap:
		if v, ok := base.entry(e.name); ok {
			return v, nil
		}
	}
	return undefinedValue, nil
}

func (e *indexExpr) eval(r *run) (value, error) {
	base, err := e.base.eval(r)
	if err != nil {
		return value{}, err
	}
	return e.of(r, base)
}

func (e *indexExpr) of(r *run, base value) (value, error) {
	key, err := e.key.eval(r)
	if err != nil {
		return value{}, err
	}
	switch base.kind {
	case kindUndefined:
		return value{}, r.fail(e.at, "%s: it has no items", subject(e.base, base))
	case kindMap:
		if key.kind == kindString {
			if v, ok := base.entry(key.str); ok {
				return v, nil
			}
		}
	case kindString, kindList:
		if key.kind == kindBool {
			return value{}, r.fail(e.at, "cannot index with a boolean")
		}
		if n, ok := wholeNumber(key); ok {
			return base.at(n), r.count(e.at, base)
		}
	}
	return undefinedValue, nil
}

func (e *sliceExpr) eval(r *run) (value, error) {
	base, err := e.base.eval(r)
	if err != nil {
		return value{}, err
	}
	start, err := e.bound(r, e.start, 0)
	if err != nil {
		return value{}, err
	}
	stop, err := e.bound(r, e.stop, maxInt)
	if err != nil {
		return value{}, err
	}
	switch base.kind {
	case kindUndefined, kindNone:
		return listValue(nil).hollowIf(true), nil
	case kindString, kindList:
		if err := r.count(e.at, base); err != nil {
			return value{}, err
		}
		v := base.slice(start, stop)
		return v, r.spend(e.at, v.size())
	}
	return value{}, r.fail(e.at, "%s: it cannot be sliced", subject(e.base, base))
}

// bound evaluates one end of a slice; left out or none, it is the default.
func (e *sliceExpr) bound(r *run, end expr, otherwise int) (int, error) {
	if end == nil {
		return otherwise, nil
	}
	v, err := end.eval(r)
	if err != nil || v.kind == kindNone {
		return otherwise, err
	}
	n, ok := wholeNumber(v)
	if !ok {
		return 0, r.fail(e.at, "cannot slice by %s", describe(v))
	}
	return n, nil
}

// arguments evaluates a call's arguments.
func (r *run) arguments(list []expr) ([]value, error) {
	if len(list) == 0 {
		return nil, nil
	}
	args := make([]value, len(list))
	for i, e := range list {
		var err error
		if args[i], err = e.eval(r); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func (e *callExpr) eval(r *run) (value, error) {
	base, err := e.base.eval(r)
	if err != nil {
		return value{}, err
	}
	if base.kind != e.method.on {
		return value{}, r.fail(e.at, "%s: it has no method %q", subject(e.base, base), e.name)
	}
	args, err := r.arguments(e.args)
	if err != nil {
		return value{}, err
	}
	return e.method.call(call{run: r, at: e.at, args: args}, base)
}

func (e *filterExpr) eval(r *run) (value, error) {
	base, err := r.operand(e.base, e.filter.soft)
	if err != nil {
		return value{}, err
	}
	args, err := r.arguments(e.args)
	if err != nil {
		return value{}, err
	}
	return e.filter.call(call{run: r, at: e.at, args: args}, base)
}

func (e *testExpr) eval(r *run) (value, error) {
	base, err := r.operand(e.base, e.test.soft)
	if err != nil {
		return value{}, err
	}
	args, err := r.arguments(e.args)
	if err != nil {
		return value{}, err
	}
	yes, err := e.test.holds(call{run: r, at: e.at, args: args}, base)
	return boolValue(yes), err
}

func (e *notExpr) eval(r *run) (value, error) {
	v, err := e.base.eval(r)
	return boolValue(!v.truth()), err
}

func (e *logicExpr) eval(r *run) (value, error) {
	left, err := e.left.eval(r)
	if err != nil || left.truth() == e.or {
		return left, err
	}
	return e.right.eval(r)
}

func (e *chooseExpr) eval(r *run) (value, error) {
	condition, err := e.condition.eval(r)
	if err != nil {
		return value{}, err
	}
	switch {
	case condition.truth():
		return e.yes.eval(r)
	case e.no == nil:
		return value{kind: kindUndefined, silent: true}, nil
	}
	return e.no.eval(r)
}

func (e *listExpr) eval(r *run) (value, error) {
	items, err := r.arguments(e.items)
	return listValue(items), err
}

func (e *mapExpr) eval(r *run) (value, error) {
	values, err := r.arguments(e.values)
	if err != nil {
		return value{}, err
	}
	entries := make(map[string]value, len(values))
	for i, key := range e.keys {
		entries[key] = values[i]
	}
	return value{kind: kindMap, ref: entries}, nil
}
