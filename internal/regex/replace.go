package regex

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Replace puts the replacement for the first limit matches, for all if limit is 0. In the replacement, $1 and $name,
// also ${1} and ${name}, are the texts of groups, empty for a group that is not there; the longest name counts; $$ is
// a dollar sign. A result of more than size bytes is an error.
func (re *Regexp) Replace(ctx context.Context, text, replacement string, limit, size int) (string, error) {
	var out strings.Builder
	pieces := re.pieces(replacement)
	from, count := 0, 0
	for match, err := range re.All(ctx, text) {
		if err != nil {
			return "", err
		}
		if match[0] >= from { // \K may begin a match that ends where the last one did
			out.WriteString(text[from:match[0]])
		}
		for _, p := range pieces {
			if err := p.write(&out, text, match, size); err != nil {
				return "", err
			}
		}
		from = match[1]
		if count++; count == limit {
			break
		}
	}
	if out.Len()+len(text)-from > size {
		return "", tooLong(size)
	}
	if count == 0 {
		return text, nil
	}
	out.WriteString(text[from:])
	return out.String(), nil
}

func tooLong(size int) error { return fmt.Errorf("the result is longer than %d bytes", size) }

// piece is one of a replacement: a text, or a group if that is not below zero.
type piece struct {
	text  string
	group int
}

func (p piece) write(out *strings.Builder, text string, match []int, size int) error {
	if p.group >= 0 && 2*p.group+1 < len(match) && match[2*p.group] >= 0 && match[2*p.group] <= match[2*p.group+1] {
		p.text = text[match[2*p.group]:match[2*p.group+1]]
	}
	if out.Len()+len(p.text) > size {
		return tooLong(size)
	}
	out.WriteString(p.text)
	return nil
}

// pieces reads a replacement.
func (re *Regexp) pieces(replacement string) []piece {
	var list []piece
	for replacement != "" {
		text, rest, found := strings.Cut(replacement, "$")
		list = append(list, piece{text, -1})
		if !found {
			break
		}
		name, after := groupName(rest)
		switch {
		case strings.HasPrefix(rest, "$"):
			list, replacement = append(list, piece{"$", -1}), rest[1:]
		case name == "":
			list, replacement = append(list, piece{"$", -1}), rest
		default:
			list, replacement = append(list, piece{"", re.groupCalled(name)}), after
		}
	}
	return list
}

// groupName reads what follows a dollar sign, in braces or not.
func groupName(s string) (name, rest string) {
	if inside, ok := strings.CutPrefix(s, "{"); ok {
		if name, rest, ok = strings.Cut(inside, "}"); ok {
			return name, rest
		}
		return "", s
	}
	n := 0
	for n < len(s) && s[n] < 128 && isWord(rune(s[n])) {
		n++
	}
	return s[:n], s[n:]
}

// groupCalled is the number of a group by its number or name; one past the last if there is none.
func (re *Regexp) groupCalled(name string) int {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(re.names) {
		return n
	}
	if n := groupNamed(re.names, name); n > 0 {
		return n
	}
	return len(re.names)
}
