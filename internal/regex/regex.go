// Package regex matches regular expressions in the dialect that KumoMTA's policies are written in: that of Rust's
// crates regex and fancy-regex, with look-around, references to groups, atomic groups and possessive repetition.
//
// An expression that needs none of these is matched by package regexp, in time proportional to the text. The others
// are matched by a machine that tries one way after the other; the number of its steps is bounded. Either looks at
// the context of the search while it runs. No goroutine is started.
//
// Texts are bytes: what is no UTF-8 in them is U+FFFD to an expression, byte for byte.
package regex

import (
	"context"
	"io"
	"iter"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// Regexp is a compiled expression. It may be used by many goroutines at once.
type Regexp struct {
	source string
	names  []string

	// whole finds the first match, and tail the first one behind the first character of its text, which is the
	// second of its groups then. They are nil if package regexp cannot match the expression.
	whole, tail *regexp.Regexp
	size        int // of the program of whole, in instructions
	// looksBack says that matches depend on the character in front of them, asciiOnly that whole and tail mean the
	// same only for texts in ASCII.
	looksBack, asciiOnly bool

	program *program
}

// Compile reads an expression. Its error says where and why, in one line.
func Compile(source string) (*Regexp, error) {
	n, names, err := parse(source)
	if err != nil {
		return nil, err
	}
	re := &Regexp{source: source, names: names}
	if n.regular() {
		re.useRegexp(n)
	}
	if re.whole == nil || re.asciiOnly {
		re.program = build(n, len(names))
	}
	return re, nil
}

// useRegexp leaves the expression to package regexp, if that takes it: it counts repetitions to a thousand only.
func (re *Regexp) useRegexp(n *node) {
	var out strings.Builder
	emit(&out, n)
	parsed, err := syntax.Parse(out.String(), syntax.Perl)
	if err != nil {
		return
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return
	}
	whole, err := regexp.Compile(out.String())
	if err != nil {
		return
	}
	re.size = len(program.Inst)
	re.asciiOnly = n.asserts(wordBoundary, noWordBoundary)
	re.looksBack = n.asserts(textStart, lineStart, wordBoundary, noWordBoundary)
	if re.looksBack {
		if re.tail, err = regexp.Compile(`\A(?s:.)(?s:.*?)(` + out.String() + `)`); err != nil {
			return
		}
	}
	re.whole = whole
}

// String is the expression as it was written.
func (re *Regexp) String() string { return re.source }

// Size is about how much memory the expression takes, in bytes.
func (re *Regexp) Size() int {
	size := 1024 + 4*len(re.source) + 2*128*re.size
	if re.program != nil {
		size += 128 * len(re.program.code)
	}
	return size
}

// Names are the names of the groups by their numbers, empty for those that have none. The first is the whole match.
// The list must not be changed.
func (re *Regexp) Names() []string { return re.names }

// IsMatch is whether the expression matches somewhere in the text.
func (re *Regexp) IsMatch(ctx context.Context, text string) (bool, error) {
	match, err := re.Find(ctx, text)
	return match != nil, err
}

// Find is the first match: two positions for each group, below zero for one that took no part; nil if there is none.
// The error is the context's, or ErrTooHard.
func (re *Regexp) Find(ctx context.Context, text string) ([]int, error) {
	return re.search(ctx, text).next(0)
}

// All are the matches from left to right, none inside another, and none of them empty right behind another. A match
// is valid until the next. After an error there is nothing more.
func (re *Regexp) All(ctx context.Context, text string) iter.Seq2[[]int, error] {
	return func(yield func([]int, error) bool) {
		s := re.search(ctx, text)
		last := -1
		for pos := 0; pos <= len(text); {
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
			match, err := s.next(pos)
			if err != nil {
				yield(nil, err)
				return
			}
			if match == nil {
				return
			}
			start, end := match[0], match[1]
			if start == end {
				_, size := utf8.DecodeRuneInString(text[end:])
				pos = end + max(size, 1)
				if end == last {
					continue
				}
			} else {
				pos = end
			}
			last = end
			if !yield(match, nil) {
				return
			}
		}
	}
}

// search is the state of searches in one text.
type search struct {
	re      *Regexp
	ctx     context.Context
	text    string
	machine *machine
}

func (re *Regexp) search(ctx context.Context, text string) *search {
	s := &search{re: re, ctx: ctx, text: text}
	if re.whole == nil || re.asciiOnly && !isASCII(text) {
		s.machine = newMachine(ctx, re.program, text)
	}
	return s
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// next is the first match from a position on.
func (s *search) next(from int) (match []int, err error) {
	if s.machine != nil {
		if match, err = s.machine.find(from); match != nil {
			match = match[:2*len(s.re.names)]
		}
		return match, err
	}
	re, base := s.re.whole, from
	behind := from > 0 && s.re.looksBack
	if behind {
		_, size := utf8.DecodeLastRuneInString(s.text[:from])
		re, base = s.re.tail, from-size
	}
	match, err = s.first(re, s.text[base:], !behind)
	if match == nil || err != nil {
		return nil, err
	}
	for i := range match {
		if match[i] >= 0 {
			match[i] += base
		}
	}
	if behind {
		match = match[2:]
	}
	return match, nil
}

// quickly is how much work, in instructions times bytes, may be done without looking at the context.
const quickly = 1 << 20

// first lets package regexp search: a short text at once, a long one rune by rune.
func (s *search) first(re *regexp.Regexp, text string, prefixed bool) ([]int, error) {
	if len(text) <= quickly/(s.re.size+8) {
		return re.FindStringSubmatchIndex(text), nil
	}
	skipped := 0
	if prefix, _ := re.LiteralPrefix(); prefixed && prefix != "" && !s.re.looksBack {
		if skipped = strings.Index(text, prefix); skipped < 0 {
			return nil, nil
		}
	}
	r := &runes{ctx: s.ctx, text: text[skipped:]}
	match := re.FindReaderSubmatchIndex(r)
	if r.err != nil {
		return nil, r.err
	}
	for i := range match {
		if match[i] >= 0 {
			match[i] += skipped
		}
	}
	return match, nil
}

// runes reads a text and ends with the context.
type runes struct {
	ctx  context.Context
	text string
	pos  int
	read int
	err  error
}

func (r *runes) ReadRune() (c rune, size int, err error) {
	if r.read++; r.read%64 == 0 && r.ctx.Err() != nil {
		r.err = context.Cause(r.ctx)
	}
	if r.err != nil {
		return 0, 0, r.err
	}
	if r.pos == len(r.text) {
		return 0, 0, io.EOF
	}
	c, size = utf8.DecodeRuneInString(r.text[r.pos:])
	r.pos += size
	return c, size, nil
}

// Escape makes an expression that matches the text and nothing else.
func Escape(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if strings.IndexByte(`\.+*?()|[]{}^$#&-~`, text[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
