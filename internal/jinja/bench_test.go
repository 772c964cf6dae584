package jinja

import (
	"testing"

	"github.com/flosch/pongo2/v6"
)

const benchmarkPath = "/maildirs/{{ domain_part }}/{{ local_part }}"

func BenchmarkPath(b *testing.B) {
	tpl, vars := compile(b, benchmarkPath), mailVars()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Execute(vars); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPathPongo2 is the same with pongo2 alone, which prints the values
// escaped, and with no other variables in its context than it needs.
func BenchmarkPathPongo2(b *testing.B) {
	tpl, err := pongo2.NewSet("bare", noFiles{}).FromString(benchmarkPath)
	if err != nil {
		b.Fatal(err)
	}
	vars := pongo2.Context{"domain_part": "example.com", "local_part": "John.Doe"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Execute(vars); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLiteral(b *testing.B) {
	tpl := compile(b, "/var/tmp/kumo-maildir")
	b.ReportAllocs()
	for b.Loop() {
		if text, ok := tpl.Literal(); !ok || text == "" {
			b.Fatal("no literal")
		}
	}
}

func BenchmarkConditional(b *testing.B) {
	tpl, vars := compile(b, "/m/{% if tenant %}{{ tenant }}/{% endif %}{{ local_part|lower|replace('.', '_') }}"), mailVars()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Execute(vars); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		compile(b, benchmarkPath)
	}
}
