package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets that are less than 1 % wide, so that a million of them
// take no more room than one.
type histogram struct {
	buckets [64 * perOctave]uint64
	count   uint64
}

// perOctave is the number of buckets between a duration and its double; a power of two.
const perOctave = 128

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))]++
	h.count++
}

// bucketOf numbers the buckets: one for each of the first nanoseconds, then perOctave for each
// doubling.
func bucketOf(ns uint64) int {
	octave := max(bits.Len64(ns/perOctave)-1, 0)
	return octave*perOctave + int(ns>>octave)
}

// floorOf is the least duration in a bucket.
func floorOf(bucket int) time.Duration {
	octave := max(bucket/perOctave-1, 0)
	return time.Duration(bucket-octave*perOctave) << octave
}

// quantile is the duration that the share q of all durations does not exceed; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	left := uint64(q * float64(h.count))
	for bucket, n := range h.buckets {
		if n > left {
			return floorOf(bucket)
		}
		left -= n
	}
	return 0
}
