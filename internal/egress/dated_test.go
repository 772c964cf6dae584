package egress

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := Dated[string, int]{Max: 2}
		if old := d.Put("a", 1, time.Now().Add(time.Minute)); old != 0 {
			t.Errorf("before the first there was %d", old)
		}
		d.Put("always", 2, time.Time{})
		time.Sleep(time.Minute - 1)
		if v, ok := d.Get("a"); v != 1 || !ok {
			t.Errorf("before its date: %d, %v", v, ok)
		}
		time.Sleep(time.Nanosecond)
		if v, ok := d.Get("a"); v != 0 || ok {
			t.Errorf("at its date: %d, %v", v, ok)
		}
		if v, ok := d.Get("always"); v != 2 || !ok {
			t.Errorf("without a date: %d, %v", v, ok)
		}
		if old := d.Put("a", 3, time.Time{}); old != 1 {
			t.Errorf("put in place of %d, want 1", old)
		}
		if _, ok := d.Get("always"); ok {
			t.Error("there are more than Max")
		}
	})
}

func TestEquals(t *testing.T) {
	e := Equals[*int]{Max: 2}
	one, other, two, three := new(int), new(int), new(int), new(int)
	if e.Share("one", one) != one || e.Share("one", other) != one || e.Share("two", two) != two {
		t.Error("not the first of each")
	}
	if e.Share("three", three) != three || e.Share("one", other) != other {
		t.Error("there are more than Max")
	}
}
