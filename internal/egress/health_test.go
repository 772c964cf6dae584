package egress

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHealth(t *testing.T) {
	type fail struct {
		at        time.Duration
		suspends  bool
		suspended bool // before it
	}
	for _, c := range []struct {
		name  string
		rule  Rule
		fails []fail
	}{
		{"the first failure is enough", Rule{Failures: 1, For: time.Minute}, []fail{
			{0, true, false}, {time.Second, false, true}, {time.Minute, true, false}}},
		{"so many in such a time", Rule{Failures: 3, Per: 10 * time.Second, For: time.Minute}, []fail{
			{0, false, false}, {4 * time.Second, false, false}, {9 * time.Second, true, false},
			{10 * time.Second, false, true}, {70 * time.Second, false, false}}},
		{"not so many in such a time", Rule{Failures: 3, Per: 10 * time.Second, For: time.Minute}, []fail{
			{0, false, false}, {4 * time.Second, false, false}, {10 * time.Second, false, false}, {13 * time.Second, true, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h Health
				start := time.Now()
				for _, f := range c.fails {
					time.Sleep(f.at - time.Since(start))
					if _, suspended := h.Suspended("a"); suspended != f.suspended {
						t.Errorf("after %v: suspended is %v", f.at, suspended)
					}
					if suspends := h.Failed("a", c.rule); suspends != f.suspends {
						t.Errorf("the failure after %v suspends: %v", f.at, suspends)
					}
					if _, suspended := h.Suspended("b"); suspended {
						t.Error("another one is suspended too")
					}
				}
			})
		})
	}
}

func TestHealthForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Health
		for _, name := range []string{"a", "b", "c"} {
			h.Failed(name, Rule{Failures: 2, Per: time.Second, For: time.Minute})
		}
		time.Sleep(time.Second)
		h.Failed("d", Rule{Failures: 2, Per: time.Second, For: time.Minute})
		if len(h.records) != 1 {
			t.Errorf("%d records are kept, want 1", len(h.records))
		}
	})
}
