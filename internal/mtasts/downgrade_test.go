package mtasts

import (
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/resolver"
)

// Whatever an attacker on the network does, a policy that is held goes on, and is not asked for at each
// message.
func TestDowngradeAttempts(t *testing.T) {
	record := func(id string) resolver.Answer {
		return resolver.Answer{Result: resolver.Records, TTL: time.Minute, TXT: []string{"v=STSv1; id=" + id}}
	}
	for _, test := range []struct {
		name    string
		attack  func(t *testing.T, w *world)
		failure Failure
		fetches int // in 5 minutes
	}{
		{"TXT removed", func(t *testing.T, w *world) { w.answer = resolver.Answer{Result: resolver.NXDomain} }, NoFailure, 0},
		{"TXT replaced by nothing", func(t *testing.T, w *world) { w.answer = resolver.Answer{Result: resolver.NoData} }, NoFailure, 0},
		{"TXT SERVFAIL", func(t *testing.T, w *world) { w.answer = resolver.Answer{Err: errDown} }, NoFailure, 0},
		{"TXT bogus", func(t *testing.T, w *world) { w.answer = resolver.Answer{Result: resolver.Bogus} }, NoFailure, 0},
		{"TXT never answered", func(t *testing.T, w *world) { w.asking = time.Hour }, NoFailure, 0},
		{"TXT doubled", func(t *testing.T, w *world) {
			w.answer = record("2")
			w.answer.TXT = append(w.answer.TXT, "v=STSv1; id=3")
		}, NoFailure, 0},
		{"TXT broken", func(t *testing.T, w *world) { w.answer = record("?") }, NoFailure, 0},
		{"HTTPS refused", func(t *testing.T, w *world) { w.down = errDown }, FetchError, 1},
		{"HTTPS stalls", func(t *testing.T, w *world) { w.serve = stalls }, FetchError, 1},
		{"none with the certificate of another", func(t *testing.T, w *world) {
			w.body, w.config = none, w.ca.Server(t, "mta-sts.example.org")
		}, WebPKIInvalid, 1},
		{"none with a certificate of no authority", func(t *testing.T, w *world) {
			w.body, w.config = none, newWorld(t, "", "").config
		}, WebPKIInvalid, 1},
		{"none without TLS", func(t *testing.T, w *world) {
			w.config = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				saying(ok(none))(hello.Conn)
				return nil, errDown
			}}
		}, FetchError, 1},
		{"garbage", func(t *testing.T, w *world) { w.body = "<html>none</html>" }, PolicyInvalid, 1},
		{"nothing", func(t *testing.T, w *world) { w.body = "" }, PolicyInvalid, 1},
		{"redirect", func(t *testing.T, w *world) {
			w.serve = saying("HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.example.net/.well-known/mta-sts.txt\r\nContent-Length: 0\r\n\r\n")
		}, FetchError, 1},
		{"not found", func(t *testing.T, w *world) { w.serve = saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") }, FetchError, 1},
	} {
		for _, id := range []string{"1", "2"} { // with the old record as long as it lasts, or a new one
			t.Run(test.name+"/id "+id, func(t *testing.T) {
				inBubble(t, "1", enforce, func(t *testing.T, w *world, c *Cache) {
					first := expect(t, c, Fetched, Enforce)
					if id == "1" {
						time.Sleep(2 * day) // so that a refresh is due
					} else {
						time.Sleep(2 * time.Hour)
					}
					w.set(func() {
						w.answer = record(id)
						test.attack(t, w)
					})
					_, before := w.counts()
					if id == "1" && test.fetches > 0 {
						expect(t, c, Cached, Enforce) // the refresh that will fail makes nobody wait
						synctest.Wait()
						time.Sleep(defaultTimeout)
						synctest.Wait()
					}
					for minute := range 4 {
						r := expect(t, c, Kept, Enforce)
						if r.Failure() != test.failure || r.Err == nil || r.ID != "1" || !r.Expires.Equal(first.Expires) {
							t.Errorf("minute %d: %+v", minute, r)
						}
						time.Sleep(time.Minute - 1)
						synctest.Wait()
					}
					if _, after := w.counts(); after-before != test.fetches {
						t.Errorf("%d fetches", after-before)
					}
					// And once the attack is over all is well, at the latest after the next check.
					w.set(func() {
						w.asking, w.serve, w.down, w.body, w.answer = 0, nil, nil, report, record("3")
						w.config = w.ca.Server(t, "mta-sts.example.com")
					})
					time.Sleep(2 * time.Hour)
					expect(t, c, Fetched, Testing)
				})
			})
		}
	}
}
