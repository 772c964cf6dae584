package smtpclient

import (
	"fmt"
	"testing"
	"time"
)

// TestRoundTrips: what a message may cost over a distance, at most. All of it passes in virtual time.
func TestRoundTrips(t *testing.T) {
	tests := []struct {
		kind, mode string
		hundredths int // of a round trip, for each message
	}{
		{"warm", chunking, 4},
		{"warm", pipelining, 110},
		{"warm", lockstep, 500},
		{"new", chunking, 420},
		{"new", pipelining, 520},
		{"new-starttls", chunking, 720},
		{"new-starttls", pipelining, 820},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s/%s", test.kind, test.mode), func(t *testing.T) {
			sc := scene{test.kind, test.mode, "delivery"}
			took := sc.measure(t)
			if limit := roundTrip * time.Duration(test.hundredths*sc.messages()) / 100; took > limit {
				t.Errorf("%d messages took %v, that is %.3f round trips each; %v would do",
					sc.messages(), took, float64(took)/float64(roundTrip)/float64(sc.messages()), limit)
			}
		})
	}
}
