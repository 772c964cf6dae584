package regex

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// charset is a set of characters.
type charset struct {
	ascii  [2]uint64
	ranges []rune // first and last of each range, in order, without overlaps
}

func newCharset(ranges []rune) *charset {
	s := &charset{ranges: ranges}
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= min(ranges[i+1], 127); r++ {
			s.ascii[r>>6] |= 1 << (r & 63)
		}
	}
	return s
}

func (s *charset) has(r rune) bool {
	if r < 128 {
		return s.ascii[r>>6]&(1<<(r&63)) != 0
	}
	return hasRune(s.ranges, r)
}

func hasRune(ranges []rune, r rune) bool {
	low, high := 0, len(ranges)/2
	for low < high {
		m := (low + high) / 2
		switch {
		case r < ranges[2*m]:
			high = m
		case r > ranges[2*m+1]:
			low = m + 1
		default:
			return true
		}
	}
	return false
}

// single is the only character of the set.
func (s *charset) single() (rune, bool) {
	if len(s.ranges) == 2 && s.ranges[0] == s.ranges[1] {
		return s.ranges[0], true
	}
	return 0, false
}

// union makes a canonical list of ranges.
func union(lists ...[]rune) []rune {
	type span struct{ low, high rune }
	var spans []span
	for _, list := range lists {
		for i := 0; i < len(list); i += 2 {
			spans = append(spans, span{list[i], list[i+1]})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.low - b.low) })
	var out []rune
	for _, s := range spans {
		if n := len(out); n > 0 && s.low <= out[n-1]+1 {
			out[n-1] = max(out[n-1], s.high)
			continue
		}
		out = append(out, s.low, s.high)
	}
	return out
}

// negate makes the set of all others of a canonical list.
func negate(ranges []rune) []rune {
	var out []rune
	next := rune(0)
	for i := 0; i < len(ranges); i += 2 {
		if next < ranges[i] {
			out = append(out, next, ranges[i]-1)
		}
		next = ranges[i+1] + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, next, unicode.MaxRune)
	}
	return out
}

func intersect(a, b []rune) []rune { return negate(union(negate(a), negate(b))) }

// fold adds the characters that differ in case only.
func fold(ranges []rune) []rune {
	if len(ranges) == 2 && ranges[0] == ranges[1] {
		return orbit(ranges[0])
	}
	folded, err := parseClass(classSource(ranges), syntax.FoldCase)
	if err != nil {
		return ranges // an empty set
	}
	return folded
}

func orbit(r rune) []rune {
	out := []rune{r, r}
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		out = append(out, f, f)
	}
	return union(out)
}

// classSource writes ranges for package regexp.
func classSource(ranges []rune) string {
	if len(ranges) == 0 {
		return `[^\x{0}-\x{10FFFF}]`
	}
	var out strings.Builder
	out.WriteByte('[')
	for i := 0; i < len(ranges); i += 2 {
		if ranges[i] == ranges[i+1] {
			fmt.Fprintf(&out, `\x{%x}`, ranges[i])
		} else {
			fmt.Fprintf(&out, `\x{%x}-\x{%x}`, ranges[i], ranges[i+1])
		}
	}
	out.WriteByte(']')
	return out.String()
}

// parseClass lets package regexp read a class.
func parseClass(source string, flags syntax.Flags) ([]rune, error) {
	re, err := syntax.Parse(source, syntax.Perl|flags)
	if err != nil {
		return nil, err
	}
	switch re.Op {
	case syntax.OpCharClass:
		return slices.Clone(re.Rune), nil
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return orbit(re.Rune[0]), nil
		}
		return []rune{re.Rune[0], re.Rune[0]}, nil
	case syntax.OpAnyChar:
		return []rune{0, unicode.MaxRune}, nil
	case syntax.OpAnyCharNotNL:
		return negate([]rune{'\n', '\n'}), nil
	}
	return nil, fmt.Errorf("%s is no class", source)
}

// mustClass is for the classes below, which package regexp knows.
func mustClass(source string) func() []rune {
	return sync.OnceValue(func() []rune {
		ranges, err := parseClass(source, 0)
		if err != nil {
			return nil
		}
		return ranges
	})
}

// What \d, \s, \w and \h mean, in all of Unicode.
var (
	digits    = mustClass(`\p{Nd}`)
	spaces    = mustClass(`[\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`)
	words     = mustClass(`[\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}]`)
	hexDigits = mustClass(`[0-9A-Fa-f]`)
	notLF     = mustClass(`[^\n]`)
)

func isWord(r rune) bool {
	if r < 128 {
		return r == '_' || '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z'
	}
	return hasRune(words(), r)
}
