package address

import "testing"

func BenchmarkParse(b *testing.B) {
	for _, in := range []string{"user.name@example.com", `"a b"@example.com`, "user@bücher.example"} {
		b.Run(in, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a, err := Parse(in); err != nil || a.IsNull() {
					b.Fatal(err)
				}
			}
		})
	}
}
