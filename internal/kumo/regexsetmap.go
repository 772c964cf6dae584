package kumo

import (
	"context"
	"fmt"

	"github.com/mtadelivery/delivery/internal/regex"
)

// patternIndex finds the value of the first expression, in the order of their texts, that matches somewhere in the
// key. Upstream's order is chance.
type patternIndex struct {
	options  *Options
	patterns []pattern
}

type pattern struct {
	re    *regex.Regexp
	value mapped
}

func (*patternIndex) name() string      { return "regex_set_map.new" }
func (p *patternIndex) empty() mapIndex { return &patternIndex{options: p.options} }

// Size is about what the expressions take.
func (p *patternIndex) Size() int {
	size := 0
	for _, pattern := range p.patterns {
		size += pattern.re.Size()
	}
	return size
}

func (p *patternIndex) get(ctx context.Context, text string) (mapped, error) {
	for _, pattern := range p.patterns {
		matches, err := pattern.re.IsMatch(ctx, text)
		if err != nil {
			return mapped{}, fmt.Errorf("%q: %w", excerpt(pattern.re.String()), err)
		}
		if matches {
			return pattern.value, nil
		}
	}
	return mapped{}, nil
}

func (p *patternIndex) set(key string, v mapped) error {
	re, err := p.options.expressions.compile(key)
	if err != nil {
		return err
	}
	p.patterns = append(p.patterns, pattern{re, v})
	return nil
}

func (p *patternIndex) each(yield func(string, mapped) error) error {
	for _, pattern := range p.patterns {
		if err := yield(pattern.re.String(), pattern.value); err != nil {
			return err
		}
	}
	return nil
}
