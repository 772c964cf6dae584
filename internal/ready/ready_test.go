package ready

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestNamesThatAreNotUsedAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Book
		for i := range 1000 {
			b.Name(fmt.Sprint(i)).Delivered.Add(1)
		}
		used, unused := b.Name("1"), b.Name("2")
		for range 3 {
			time.Sleep(unusedFor)
			used.Delivered.Add(1)
			b.Name(fmt.Sprint("new at ", time.Now()))
		}
		if got := len(b.All()); got > 3 {
			t.Errorf("%d names are known, want at most 3", got)
		}
		if used.Gone() || !unused.Gone() {
			t.Errorf("the used one is gone: %v, the unused one: %v", used.Gone(), unused.Gone())
		}
		if b.Name("2") == unused {
			t.Error("a name that is gone is handed out")
		}
	})
}

func TestFailuresInARow(t *testing.T) {
	var b Book
	n := b.Name("n")
	for want := 1; want <= 3; want++ {
		if got := n.Unreached(); got != want {
			t.Errorf("the count is %d, want %d", got, want)
		}
	}
	n.Reached()
	if got := n.Unreached(); got != 1 {
		t.Errorf("after a success the count is %d, want 1", got)
	}
	if c := n.Counts(); c.Opened != 1 || c.Failed != 4 {
		t.Errorf("opened %d, failed %d; want 1 and 4", c.Opened, c.Failed)
	}
}

func TestChains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := (&Book{}).Name("n")
		if _, ok := n.Successor(); ok {
			t.Fatal("a chain, and none broke")
		}
		n.Broke(Chain{ID: "a"}, time.Second)
		n.Broke(Chain{ID: "b"}, time.Minute)
		n.Broke(Chain{ID: "at its end"}, 0)
		if c, ok := n.Successor(); !ok || c.ID != "b" {
			t.Errorf("the first successor is of %q, %v", c.ID, ok)
		}
		time.Sleep(time.Second)
		if c, ok := n.Successor(); ok {
			t.Errorf("the chain of %q has not expired", c.ID)
		}
		for i := range 2 * maxChains {
			n.Broke(Chain{ID: fmt.Sprint(i)}, time.Minute)
		}
		if len(n.open) != maxChains {
			t.Errorf("%d chains are kept, want %d", len(n.open), maxChains)
		}
	})
}
