package kumo

import (
	"strings"
	"unicode"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// stringFunction is kumo.string.NAME. Texts need not be UTF-8; what is no UTF-8 in them is no white space either.
func stringFunction(name string) lua.LGFunction {
	switch name {
	case "replace":
		return func(L *lua.LState) int { return replace(L, "string.replace", -1) }
	case "replacen":
		return func(L *lua.LState) int { return replace(L, "string.replacen", countArg(L, 4)) }
	case "split":
		return func(L *lua.LState) int { return split(L, "string.split", -1, 2) }
	case "splitn":
		return func(L *lua.LState) int { return split(L, "string.splitn", countArg(L, 2), 3) }
	case "rsplit":
		return func(L *lua.LState) int { return rsplit(L, "string.rsplit", -1, 2) }
	case "rsplitn":
		return func(L *lua.LState) int { return rsplit(L, "string.rsplitn", countArg(L, 2), 3) }
	case "split_whitespace":
		return splitSpace("string.split_whitespace", unicode.IsSpace)
	case "split_ascii_whitespace":
		return splitSpace("string.split_ascii_whitespace", isASCIISpace)
	case "trim":
		return ofText(strings.TrimSpace)
	case "trim_start":
		return ofText(func(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) })
	case "trim_end":
		return ofText(func(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) })
	case "starts_with":
		return ofTwo(strings.HasPrefix)
	case "ends_with":
		return ofTwo(strings.HasSuffix)
	case "wrap":
		return wrap
	case "normalize_smtp_response":
		return normalizeResponse
	case "psl_domain", "psl_suffix", "psl_domain_is_known", "psl_suffix_is_known":
		return suffixFunction(name)
	case "eval_template":
		return evalTemplate
	}
	return nil
}

// isASCIISpace knows the white space of ASCII as upstream does: without the vertical tab.
func isASCIISpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\n' || r == '\f' || r == '\r'
}

// ofText makes a function of one that makes a text no longer.
func ofText(f func(string) string) lua.LGFunction {
	return func(L *lua.LState) int {
		s := L.CheckString(1)
		L.Push(luastate.Cut(s, f(s)))
		return 1
	}
}

func ofTwo(f func(a, b string) bool) lua.LGFunction {
	return func(L *lua.LState) int {
		L.Push(lua.LBool(f(L.CheckString(1), L.CheckString(2))))
		return 1
	}
}

// replace is kumo.string.replace(s, from, to) and replacen(s, from, to, count). An empty from is found before each
// character, and at the end.
func replace(L *lua.LState, function string, count int) int {
	s, from, to := L.CheckString(1), L.CheckString(2), L.CheckString(3)
	found := strings.Count(s, from)
	if count < 0 || count > found {
		count = found
	}
	growth := max(len(to)-len(from), 0)
	if growth > 0 && count > maxText/growth {
		count, growth = 1, maxText+1
	}
	checkLength(L, function, len(s)+count*growth)
	return pushText(L, function, strings.Replace(s, from, to, count))
}

// split is kumo.string.split(s, pattern) and splitn(s, limit, pattern). The pattern is the argument n.
func split(L *lua.LState, function string, limit, n int) int {
	s, pattern := L.CheckString(1), L.CheckString(n)
	list := newParts(L, function, s)
	for from := 0; limit != 0; limit-- {
		at := -1
		if limit != 1 {
			at = nextSplit(s, pattern, from, list.count == 0)
		}
		if at < 0 {
			list.add(L, s[from:])
			break
		}
		list.add(L, s[from:at])
		from = at + len(pattern)
	}
	return list.push(L)
}

// nextSplit finds the pattern in s[from:]. An empty pattern is at the start, between characters, and at the end: first
// is whether nothing has been found yet.
func nextSplit(s, pattern string, from int, first bool) int {
	if pattern != "" || first {
		if i := strings.Index(s[from:], pattern); i >= 0 {
			return from + i
		}
		return -1
	}
	if from == len(s) {
		return -1
	}
	_, size := utf8.DecodeRuneInString(s[from:])
	return from + size
}

// rsplit is kumo.string.rsplit(s, pattern) and rsplitn(s, limit, pattern): it searches from the end, and the parts
// come in that order.
func rsplit(L *lua.LState, function string, limit, n int) int {
	s, pattern := L.CheckString(1), L.CheckString(n)
	list := newParts(L, function, s)
	for to := len(s); limit != 0; limit-- {
		at := -1
		if limit != 1 {
			at = lastSplit(s, pattern, to, list.count == 0)
		}
		if at < 0 {
			list.add(L, s[:to])
			break
		}
		list.add(L, s[at+len(pattern):to])
		to = at
	}
	return list.push(L)
}

func lastSplit(s, pattern string, to int, first bool) int {
	if pattern != "" || first {
		return strings.LastIndex(s[:to], pattern)
	}
	if to == 0 {
		return -1
	}
	_, size := utf8.DecodeLastRuneInString(s[:to])
	return to - size
}

func splitSpace(function string, isSpace func(rune) bool) lua.LGFunction {
	return func(L *lua.LState) int {
		s := L.CheckString(1)
		list := newParts(L, function, s)
		for word := range strings.FieldsFuncSeq(s, isSpace) {
			list.add(L, word)
		}
		return list.push(L)
	}
}

const (
	softWidth = 75
	hardWidth = 900
)

// wrap is kumo.string.wrap(text[, soft = 75[, hard = 900]]): a text as it stands in a header field.
func wrap(L *lua.LState) int {
	const function = "string.wrap"
	text, soft, hard := L.CheckString(1), optCount(L, 2, softWidth), optCount(L, 3, hardWidth)
	if hard == 0 {
		L.ArgError(3, "want at least 1")
	}
	w := wrapper{soft: soft, hard: hard, heed: heed{ctx: contextOf(L)}}
	if err := w.wrap(text); err != nil {
		fail(L, function, err)
	}
	return pushText(L, function, strings.TrimRightFunc(w.out.String(), unicode.IsSpace))
}

// wrapper folds a text at its white space so that most lines are at most soft bytes long, the indent not counted,
// and breaks words of more than hard bytes.
type wrapper struct {
	soft, hard int
	heed       heed
	out        strings.Builder
	line       int // the length of the current line
	broken     bool
}

func (w *wrapper) wrap(text string) error {
	for i := 0; i <= len(text); {
		n := strings.IndexAny(text[i:], " \t\n\f\r")
		if n < 0 {
			n = len(text) - i
		}
		w.word(text[i : i+n])
		if err := w.heed.ended(); err != nil {
			return err
		}
		if w.out.Len() > 2*maxText {
			return errTooLong
		}
		i += n + 1
	}
	return nil
}

func (w *wrapper) word(word string) {
	if w.line+len(word) < w.soft {
		if w.line > 0 {
			w.write(" ")
		}
		w.write(word)
		return
	}
	if w.line > 0 {
		w.newLine()
	}
	for len(word) > w.hard {
		n := w.hard
		for n > 1 && !utf8.RuneStart(word[n]) {
			n--
		}
		if n == 1 && !utf8.RuneStart(word[1]) {
			n = w.hard // the character, or what is no UTF-8, is longer than a line may be
		}
		w.write(word[:n])
		w.newLine()
		word = word[n:]
	}
	w.write(word)
}

// write begins a line when there is something to be written in it.
func (w *wrapper) write(s string) {
	if w.line == 0 && w.broken && s != "" {
		w.out.WriteByte('\t')
	}
	w.out.WriteString(s)
	w.line += len(s)
}

func (w *wrapper) newLine() {
	w.out.WriteString("\r\n")
	w.line, w.broken = 0, true
}
