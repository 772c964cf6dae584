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

// plain is the inverse of valueOf.
func (v value) plain() any {
	switch v.kind {
	case kindBool:
		return v.num != 0
	case kindInt:
		return v.num
	case kindFloat:
		return v.float()
	case kindString:
		return v.str
	case kindList:
		list := make([]any, v.length())
		for i := range list {
			list[i] = v.item(i).plain()
		}
		return list
	case kindMap:
		fields := make(map[string]any, v.length())
		for _, key := range v.keys() {
			x, _ := v.entry(key)
			fields[key] = x.plain()
		}
		return fields
	}
	return nil
}

// printWith prints a value as the caller of Render does.
func (n *outputNode) printWith(r *run, v value) error {
	text := ""
	if !v.silent {
		var err error
		if text, err = r.print(v.plain(), v.kind != kindUndefined); err != nil {
			return n.named(r.fail(n.at, "%s", err.Error()))
		}
	}
	return r.add(Piece{Text: text, Names: n.names, Line: n.at.line, Column: n.at.column})
}
