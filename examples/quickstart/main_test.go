package main

import "testing"

// TestQuickstart: the program checks its outcomes itself.
func TestQuickstart(t *testing.T) {
	if err := run(t.Context()); err != nil {
		t.Fatal(err)
	}
}
