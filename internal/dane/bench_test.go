package dane

import "testing"

func BenchmarkVerify(b *testing.B) {
	f := newFixture(b)
	chain := chainOf(f.leaf, f.middle)
	b.Run("3 1 1", func(b *testing.B) {
		p := policyOf(tlsa(3, 1, 1, f.leaf.Certificate))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Verify(chain, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("2 1 1", func(b *testing.B) {
		p := policyOf(tlsa(2, 1, 1, f.middle.Certificate))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Verify(chain, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
