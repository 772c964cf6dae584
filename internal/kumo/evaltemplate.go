package kumo

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/jinja"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// dialects are upstream's languages of templates.
var dialects = []string{"Jinja", "Static", "Handlebars"}

// evalTemplate is kumo.string.eval_template(name, template, context[, dialect = 'Jinja']).
func evalTemplate(L *lua.LState) int {
	const function = "string.eval_template"
	name, source := L.CheckString(1), L.CheckString(2)
	dialect := L.OptString(4, dialects[0])
	var text string
	var err error
	switch {
	case !slices.Contains(dialects, dialect):
		err = errors.New("the dialects are " + strings.Join(dialects, ", ") + ", not " + excerpt(dialect))
	case dialect == "Static":
		text = source
	case dialect == "Handlebars":
		err = errors.New("templates in Handlebars are not available in this library: use Jinja")
	default:
		text, err = renderTemplate(name, source, L.Get(3))
	}
	if err != nil {
		fail(L, function, err)
	}
	return pushText(L, function, text)
}

// maxTemplate bounds the source of a template; what it makes is bounded by its engine.
const maxTemplate = 64 << 10

// renderTemplate renders a template as upstream does: what is undefined is nothing, and the name says how values are
// escaped.
func renderTemplate(name, source string, context lua.LValue) (string, error) {
	if len(source) > maxTemplate {
		return "", fmt.Errorf("the template is longer than %d bytes", maxTemplate)
	}
	vars, err := templateVariables(context)
	if err != nil {
		return "", fmt.Errorf("the context: %w", err)
	}
	print := printerFor(name)
	if print == nil {
		print = printPlain
	} else if safeFilter.MatchString(source) {
		return "", fmt.Errorf("%s: the filter safe is not available where values are escaped", excerpt(name))
	}
	template, err := jinja.Compile(source, words(source))
	var pieces []jinja.Piece
	if err == nil {
		pieces, err = template.Render(vars, print)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", excerpt(name), err)
	}
	var out strings.Builder
	for _, p := range pieces {
		out.WriteString(p.Text)
	}
	return out.String(), nil
}

// words are all that a template may mean by a variable: one that is not in the context is undefined.
func words(source string) []string {
	list := strings.FieldsFunc(source, func(r rune) bool {
		return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	slices.Sort(list)
	return slices.Compact(list)
}

func templateVariables(context lua.LValue) (map[string]any, error) {
	tree, err := luastate.ToTree(context, map[string]any{})
	if err != nil {
		return nil, err
	}
	if tree == nil {
		return nil, nil
	}
	vars, ok := wholeNumbers(tree).(map[string]any)
	if !ok {
		return nil, errors.New("want a table with the names of variables")
	}
	return vars, nil
}

// maxWhole is up to where a float holds every whole number.
const maxWhole = 1 << 53

// wholeNumbers makes integers of whole numbers, in place: Lua 5.1 has no other ones, and a template would print a
// point.
func wholeNumbers(tree any) any {
	switch tree := tree.(type) {
	case float64:
		if n := int64(tree); float64(n) == tree && n >= -maxWhole && n <= maxWhole {
			return n
		}
	case []any:
		for i, v := range tree {
			tree[i] = wholeNumbers(v)
		}
	case map[string]any:
		for name, v := range tree {
			tree[name] = wholeNumbers(v)
		}
	}
	return tree
}

var safeFilter = regexp.MustCompile(`\|\s*safe\b`)

// printerFor is how values are escaped in a template of that name, nil for not at all.
func printerFor(name string) jinja.Print {
	switch path.Ext(strings.TrimSuffix(name, ".j2")) {
	case ".html", ".htm", ".xml":
		return printHTML
	case ".json", ".json5", ".js", ".yaml", ".yml":
		return printJSON
	}
	return nil
}

func printPlain(v any, defined bool) (string, error) {
	text, ok := jinja.PrintText(v, defined)
	if !ok {
		return "", errors.New("a list or a table cannot be printed")
	}
	return text, nil
}

var htmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;", "/", "&#x2f;")

func printHTML(v any, defined bool) (string, error) {
	text, err := printPlain(v, defined)
	return htmlEscapes.Replace(text), err
}

func printJSON(v any, _ bool) (string, error) {
	if err := checkText(v); err != nil {
		return "", err
	}
	return encodeJSON(v)
}
