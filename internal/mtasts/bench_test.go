package mtasts

import (
	"testing"
)

func BenchmarkGet(b *testing.B) {
	for _, test := range []struct{ name, id string }{{"policy", "1"}, {"none", ""}} {
		b.Run(test.name, func(b *testing.B) {
			w := newWorld(b, test.id, enforce)
			c := w.cache()
			c.Get(b.Context(), "example.com")
			b.ReportAllocs()
			for b.Loop() {
				if r := c.Get(b.Context(), "example.com"); r.Err != nil {
					b.Fatal(r.Err)
				}
			}
			closed(b, c)
		})
	}
}

func BenchmarkGetParallel(b *testing.B) {
	w := newWorld(b, "1", enforce)
	c := w.cache()
	c.Get(b.Context(), "example.com")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Get(b.Context(), "example.com")
		}
	})
	closed(b, c)
}

func BenchmarkFetch(b *testing.B) {
	w := newWorld(b, "1", enforce)
	c := w.cache()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.fetch(b.Context(), "example.com"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	body := []byte(enforce)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	p := Policy{MX: []string{"a.example.com", "b.example.com", "*.example.net"}}
	b.ReportAllocs()
	for b.Loop() {
		if !p.Matches("mx.example.net.") {
			b.Fatal("no match")
		}
	}
}
