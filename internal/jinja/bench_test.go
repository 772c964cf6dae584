package jinja

import (
	"testing"

	"github.com/flosch/pongo2/v6"
)

// The paths that both sides of a pair render.
const (
	benchmarkPath        = "/maildirs/{{ domain_part }}/{{ local_part }}"
	benchmarkConditional = "/maildirs/{{ domain_part }}/{% if tenant %}{{ tenant }}/{% endif %}{{ local_part|lower }}"
)

func benchmarkExecute(b *testing.B, source string) {
	tpl, vars := compile(b, source), mailVars()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Execute(vars); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkPongo2 is the same with pongo2 alone, which prints the values
// escaped, and with no other variables in its context than it needs.
func benchmarkPongo2(b *testing.B, source string) {
	tpl, err := pongo2.NewSet("bare", noFiles{}).FromString(source)
	if err != nil {
		b.Fatal(err)
	}
	vars := pongo2.Context{"domain_part": "example.com", "local_part": "John.Doe", "tenant": nil}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Execute(vars); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPath(b *testing.B)              { benchmarkExecute(b, benchmarkPath) }
func BenchmarkPathPongo2(b *testing.B)        { benchmarkPongo2(b, benchmarkPath) }
func BenchmarkConditional(b *testing.B)       { benchmarkExecute(b, benchmarkConditional) }
func BenchmarkConditionalPongo2(b *testing.B) { benchmarkPongo2(b, benchmarkConditional) }

func BenchmarkLiteral(b *testing.B) {
	tpl := compile(b, "/var/tmp/kumo-maildir")
	b.ReportAllocs()
	for b.Loop() {
		if text, ok := tpl.Literal(); !ok || text == "" {
			b.Fatal("no literal")
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		compile(b, benchmarkPath)
	}
}
