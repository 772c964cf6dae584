package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Every bucket begins where the one before it ends, is less than 1 % wide, and holds what it should.
func TestHistogramBuckets(t *testing.T) {
	for range 10000 {
		d := time.Duration(rand.Uint64() >> (1 + rand.IntN(63)))
		bucket := bucketOf(uint64(d))
		from, to := floorOf(bucket), floorOf(bucket+1)
		if to > 0 && (d < from || d >= to) { // the bucket after the last one overflows
			t.Fatalf("%d ns is in bucket %d: from %d to %d", d, bucket, from, to)
		}
		if width := to - from; to > 0 && width > 1 && float64(width) > 0.01*float64(from) {
			t.Fatalf("bucket %d is %d wide at %d", bucket, width, from)
		}
	}
}

func TestHistogramQuantile(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	for _, test := range []struct {
		q    float64
		want time.Duration
	}{{0, time.Millisecond}, {0.5, 501 * time.Millisecond}, {0.99, 991 * time.Millisecond}} {
		if got := h.quantile(test.q); got > test.want || float64(got) < 0.99*float64(test.want) {
			t.Errorf("quantile(%v) = %v, want about %v", test.q, got, test.want)
		}
	}
}

func TestDrawBar(t *testing.T) {
	for _, test := range []struct {
		messages [2]int
		want     string
	}{
		{[2]int{0, 10}, "[" + strings.Repeat("-", 40) + "] 0/10  0/s "},
		{[2]int{5, 10}, "[" + strings.Repeat("#", 20) + strings.Repeat("-", 20) + "] 5/10  1/s "},
		{[2]int{10, 10}, "[" + strings.Repeat("#", 40) + "] 10/10  2/s "},
		{[2]int{0, 0}, "[" + strings.Repeat("-", 40) + "] 0/0  0/s "},
	} {
		if got := drawBar(test.messages, 5*time.Second); got != test.want {
			t.Errorf("drawBar(%v) = %q, want %q", test.messages, got, test.want)
		}
	}
}
