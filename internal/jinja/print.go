package jinja

// Print writes a value of an expression that is to be printed: nil (none), bool,
// int64, float64, string, []any or map[string]any. Defined is false for an
// undefined one, and v is nil then.
type Print func(v any, defined bool) (string, error)

// Render renders the template as [Template.Execute] does, but for how values are
// printed: print gets every one of them, also those that would be Missing. An
// error of print ends it, and is the Reason of the [*RuntimeError].
func (t *Template) Render(vars map[string]any, print Print) ([]Piece, error) {
	return t.execute(vars, print)
}

// PrintText is how minijinja prints in text that is not escaped: nothing for
// what is undefined, none as "none", a float always with a point. Ok is false
// for lists and maps.
func PrintText(v any, defined bool) (text string, ok bool) {
	if !defined {
		return "", true
	}
	return valueOf(v).text()
}

// plain is the inverse of valueOf. It accounts for every item: a short template can put a list into itself so often
// that its items have no end.
func (r *run) plain(at position, v value) (any, error) {
	if err := r.spend(at, 1); err != nil {
		return nil, err
	}
	switch v.kind {
	case kindBool:
		return v.num != 0, nil
	case kindInt:
		return v.num, nil
	case kindFloat:
		return v.float(), nil
	case kindString:
		return v.str, nil
	case kindList:
		list := make([]any, v.length())
		for i := range list {
			var err error
			if list[i], err = r.plain(at, v.item(i)); err != nil {
				return nil, err
			}
		}
		return list, nil
	case kindMap:
		fields := make(map[string]any, v.length())
		for _, key := range v.keys() {
			x, _ := v.entry(key)
			var err error
			if fields[key], err = r.plain(at, x); err != nil {
				return nil, err
			}
		}
		return fields, nil
	}
	return nil, nil
}

// printWith prints a value as the caller of Render does.
func (n *outputNode) printWith(r *run, v value) error {
	text := ""
	if !v.silent {
		plain, err := r.plain(n.at, v)
		if err != nil {
			return n.named(err)
		}
		if text, err = r.print(plain, v.kind != kindUndefined); err != nil {
			return n.named(r.fail(n.at, "%s", err.Error()))
		}
	}
	return r.add(Piece{Text: text, Names: n.names, Line: n.at.line, Column: n.at.column})
}
