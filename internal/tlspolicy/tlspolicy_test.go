package tlspolicy

import (
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// TestTable is the table: enable_tls × DANE × MTA-STS.
func TestTable(t *testing.T) {
	const (
		opportunistic = "Opportunistic enable_tls"
		disabled      = "Disabled enable_tls"
		insecure      = "OpportunisticInsecure enable_tls"
		required      = "Required enable_tls"
		requiredAny   = "RequiredInsecure enable_tls"
		testing       = "OpportunisticInsecure mta-sts"
		enforced      = "Required mta-sts"
		daneAny       = "RequiredInsecure dane"
		dane          = "Required dane, records"
		later         = "Required dane, refused"
	)
	for _, row := range []struct {
		configured Mode
		// without a policy; testing; enforce
		none, unusable [3]string
	}{
		{Opportunistic, [3]string{opportunistic, testing, enforced}, [3]string{daneAny, daneAny, enforced}},
		{OpportunisticInsecure, [3]string{insecure, testing, enforced}, [3]string{daneAny, daneAny, enforced}},
		{Disabled, [3]string{disabled, testing, enforced}, [3]string{daneAny, daneAny, enforced}},
		{RequiredInsecure, [3]string{requiredAny, requiredAny, enforced}, [3]string{daneAny, daneAny, enforced}},
		{Required, [3]string{required, required, enforced}, [3]string{required, required, enforced}},
	} {
		for sts := NoSTS; sts <= Enforce; sts++ {
			for dane, want := range map[DANE]string{NotAsked: row.none[sts], None: row.none[sts], Unusable: row.unusable[sts], Usable: dane, Unknown: later} {
				if got := say(Decide(Facts{Configured: row.configured, DANE: dane, STS: sts})); got != want {
					t.Errorf("%v, DANE %d, STS %d: %s, want %s", row.configured, dane, sts, got, want)
				}
			}
		}
	}
}

func say(r Rule) string {
	s := r.Mode.String() + " " + string(r.By)
	if r.Records {
		s += ", records"
	}
	if r.Refuse != "" {
		s += ", refused"
	}
	return s
}

// every calls f with all facts there are.
func every(f func(Facts)) {
	for mode := Opportunistic; mode <= RequiredInsecure; mode++ {
		for dane := NotAsked; dane <= Unknown; dane++ {
			for sts := NoSTS; sts <= Enforce; sts++ {
				for bits := range 8 {
					f(Facts{mode, dane, sts, bits&1 != 0, bits&2 != 0, bits&4 != 0})
				}
			}
		}
	}
}

// strength orders rules by what they let through.
func strength(r Rule) int {
	switch {
	case r.Refuse != "":
		return 5
	case r.Records:
		return 4
	}
	return map[Mode]int{Disabled: 0, OpportunisticInsecure: 1, Opportunistic: 1, RequiredInsecure: 2, Required: 3}[r.Mode]
}

// TestTheOperatorsFloor: what an operator requires, nobody lowers.
func TestTheOperatorsFloor(t *testing.T) {
	every(func(f Facts) {
		if r := Decide(f); strength(r) < strength(Rule{Mode: f.Configured}) {
			t.Errorf("%+v: %+v", f, r)
		}
	})
}

// TestRequireTLS: a message that requires TLS is never sent where anybody but the peer could read it, nor to a
// host that somebody on the way may have named; and that it is said to be optional changes nothing.
func TestRequireTLS(t *testing.T) {
	every(func(f Facts) {
		if !f.RequireTLS {
			return
		}
		r := Decide(f)
		known := f.Vouched || f.STS == Enforce || f.DANE == Usable
		if r.Refuse == "" && (r.Mode != Required || !known) || known && f.DANE != Unknown && r.Refuse != "" {
			t.Errorf("%+v: %+v", f, r)
		}
		f.Optional = !f.Optional
		if other := Decide(f); other != r {
			t.Errorf("%+v: %+v, and %+v if it is optional", f, r, other)
		}
	})
}

// TestOptional: of such a message the domain may ask nothing.
func TestOptional(t *testing.T) {
	every(func(f Facts) {
		if !f.Optional || f.RequireTLS {
			return
		}
		want := Facts{Configured: f.Configured, Optional: true}
		if r := Decide(f); r != Decide(want) || r.Mode != f.Configured && (f.Configured != Opportunistic || r.Mode != OpportunisticInsecure) {
			t.Errorf("%+v: %+v", f, r)
		}
	})
}

// TestMoreKnowledgeIsNoDowngrade: somebody on the way who makes lookups fail gains nothing.
func TestMoreKnowledgeIsNoDowngrade(t *testing.T) {
	every(func(f Facts) {
		before := strength(Decide(f))
		f.DANE = Unknown
		if !f.Optional && strength(Decide(f)) < before {
			t.Errorf("%+v", f)
		}
	})
}

func TestBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Broken
		b.Note("a", time.Minute)
		b.Note("b", 0)
		if !b.Is("a") || b.Is("b") || b.Is("c") {
			t.Error("it remembers others")
		}
		time.Sleep(time.Minute)
		if b.Is("a") {
			t.Error("it remembers for ever")
		}
	})
}

func TestBrokenIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Broken
		for i := range maxBroken + 1 {
			b.Note(strconv.Itoa(i), time.Hour)
		}
		if len(b.until) != maxBroken || b.Is(fmt.Sprint(maxBroken)) {
			t.Errorf("%d are remembered", len(b.until))
		}
		time.Sleep(time.Hour)
		b.Note("a", time.Hour)
		if len(b.until) != 1 || !b.Is("a") {
			t.Errorf("%d are remembered after their time", len(b.until))
		}
	})
}

func ExampleDecide() {
	rule := Decide(Facts{Configured: Opportunistic, STS: Enforce})
	fmt.Println(rule.Mode, rule.By)
	// Output: Required mta-sts
}
