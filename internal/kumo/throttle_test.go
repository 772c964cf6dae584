package kumo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/decode"
)

// An hour of asking every second, and more often: what passes is what the rate says.
func TestThrottleOverAnHour(t *testing.T) {
	for spec, want := range map[string]struct{ first, total int }{
		// The burst at once, then one per interval.
		"100/h":               {100, 100 + 100},
		"60/min,max_burst=1":  {1, 3600},
		"6/m":                 {6, 6 + 6*60 - 1},
		"local:1,000/2h":      {1000, 1000 + 500},
		"10/d":                {10, 10},
		"7/30min,max_burst=3": {3, 3 + 14 - 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			rate, err := decode.ParseRate(spec)
			if err != nil {
				t.Fatal(err)
			}
			var s Throttles
			first, total := 0, 0
			for second := range 3600 {
				for {
					v := s.take("x", rate)
					if v.throttled {
						break
					}
					total++
					if second == 0 {
						first++
					}
				}
				time.Sleep(time.Second)
			}
			// The last cell may fall on the end of the hour.
			if first != want.first || total < want.total-1 || total > want.total+1 {
				t.Errorf("%s: %d at once and %d in an hour, want %d and about %d", spec, first, total, want.first, want.total)
			}
		})
	}
}

// Who waits as long as he is told passes at that very moment, also where an interval is no whole number.
func TestThrottleRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, spec := range []string{"7/s", "3/min,max_burst=1", "11/h,max_burst=2", "999999/s"} {
			rate, _ := decode.ParseRate(spec)
			var s Throttles
			start, passed := time.Now(), 0
			for passed < 100+int(rate.Limit) && passed < 10000 {
				v := s.take("x", rate)
				if !v.throttled {
					passed++
					continue
				}
				time.Sleep(v.retryAfter - 2)
				if v.retryAfter > 10 && !s.take("x", rate).throttled {
					t.Fatalf("%s: it passes too early", spec)
				}
				time.Sleep(2 * time.Nanosecond)
				if s.take("x", rate).throttled {
					t.Fatalf("%s: it does not pass after retry_after", spec)
				}
				passed++
			}
			burst := rate.MaxBurst
			if burst == 0 {
				burst = rate.Limit
			}
			least := time.Duration(float64(passed-int(burst)-1) * float64(rate.Per) / float64(rate.Limit))
			if took := time.Since(start); took < least {
				t.Errorf("%s: %d in %v", spec, passed, took)
			}
		}
	})
}

func TestThrottleInLua(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := stubs()
		const prelude = `
local t = kumo.make_throttle('a', '2/min')
local function show(r)
  return table.concat({tostring(r.throttled), r.limit, r.remaining, r.reset_after.secs, r.retry_after and r.retry_after.secs or '-'}, ' ')
end`
		checkExpressions(t, o, prelude, []expression{
			{`show(t:throttle())`, "false 2 1 30 -", ""},
			{`show(t:throttle())`, "false 2 0 60 -", ""},
			{`show(t:throttle())`, "true 2 0 60 30", ""},
			{`show(kumo.make_throttle('a', '3/min'):throttle())`, "false 3 2 20 -", ""},
			{`show(kumo.make_throttle('b', 'local:2/min'):throttle())`, "false 2 1 30 -", ""},
			{`show(kumo.make_throttle('b', '2/min'):throttle())`, "false 2 0 60 -", ""},
			{`t.throttle()`, "", "throttle expected"},
			{`kumo.make_throttle('a', '2')`, "", `make_throttle "a": "2" is not a rate`},
			{`kumo.make_throttle('a', '0/s')`, "", "zero is not accepted"},
			{`kumo.make_throttle('a')`, "", "string expected"},
			{`kumo.make_throttle(('a'):rep(2000), '1/s')`, "", "longer than 1024 bytes"},
			{`kumo.make_throttle('c', '100/h'):explain()`, "100/h\nimplied burst rate 100 every 36s, or: 3/s, 167/m, 10,000/h, 240,000/d in that period.\noverall rate 0.028/s, 2/m, 100/h, 2,400/d", ""},
			{`kumo.make_throttle('c', '500/d,max_burst=10'):explain()`, "500/d,max_burst=10\nexplicit burst rate 10 every 2m 52s 800ms, or: 0.058/s, 4/m, 209/h, 5,000/d in that period.\noverall rate 0.006/s, 0.347/m, 21/h, 500/d", ""},
		})
		start := time.Now()
		checkExpressions(t, o, prelude, []expression{
			{`t:sleep_if_throttled()`, "true", ""},
			{`kumo.make_throttle('d', '2/min'):sleep_if_throttled()`, "false", ""},
		})
		if passed := time.Since(start); passed != 30*time.Second {
			t.Error(passed)
		}
		shared := stubs()
		shared.Throttles = &Throttles{}
		checkExpressions(t, shared, prelude, []expression{{`show(t:throttle())`, "false 2 1 30 -", ""}})
		again := stubs()
		again.Throttles = shared.Throttles
		checkExpressions(t, again, prelude, []expression{{`show(t:throttle())`, "false 2 0 60 -", ""}})
	})
}

func TestThrottleSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newState(t, stubs(), `
local t = kumo.make_throttle('a', '1/h')
t:throttle()
function run() t:sleep_if_throttled() end`)
		errGone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errGone)
		defer cancel()
		start := time.Now()
		if _, err := s.Call(ctx, 0, s.L.GetGlobal("run")); !errors.Is(err, errGone) || time.Since(start) != time.Minute {
			t.Error(err, time.Since(start))
		}
	})
}

// delayed is a message that can be put off.
type delayed struct {
	letter
	by  time.Duration
	err error
}

func (d *delayed) DelayBy(by time.Duration) error {
	d.by += by
	return d.err
}

func TestThrottleDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newState(t, stubs(), `function run(m) return kumo.make_throttle('a', '1/min'):delay_message_if_throttled(m) end`)
		run := func(m lua.LValue) string {
			got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), m)
			if err != nil {
				return err.Error()
			}
			return got[0].String()
		}
		d := &delayed{}
		if got := run(NewMessage(s.L, d)); got != "false" || d.by != 0 {
			t.Error(got, d.by)
		}
		if got := run(NewMessage(s.L, d)); got != "true" || d.by != time.Minute {
			t.Error(got, d.by)
		}
		d.err = errStub
		if got := run(NewMessage(s.L, d)); !strings.Contains(got, errStub.Error()) {
			t.Error(got)
		}
		if got := run(NewMessage(s.L, &letter{})); !strings.Contains(got, "this message cannot be delayed here") {
			t.Error(got)
		}
		if got := run(lua.LNil); !strings.Contains(got, "message expected") {
			t.Error(got)
		}
		gone := NewMessage(s.L, d)
		Expire(gone)
		if got := run(gone); !strings.Contains(got, "after the call") {
			t.Error(got)
		}
	})
}

// Any number of names takes a bounded place, and the busy ones stay.
func TestThrottleNamesAreBounded(t *testing.T) {
	var s Throttles
	rate, _ := decode.ParseRate("1/h")
	for i := range maxThrottles + maxThrottles/2 {
		s.take(fmt.Sprint(i), rate)
		if len(s.full) > maxThrottles {
			t.Fatal(len(s.full))
		}
	}
	if !s.take(fmt.Sprint(maxThrottles+maxThrottles/2-1), rate).throttled {
		t.Error("the latest is forgotten")
	}
}

func TestThrottleManyGoroutines(t *testing.T) {
	var s Throttles
	rate, _ := decode.ParseRate("500/d")
	var passed, throttled int
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 125 {
				v := s.take("x", rate)
				mu.Lock()
				if v.throttled {
					throttled++
				} else {
					passed++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if passed != 500 || throttled != 1000-passed {
		t.Errorf("%d passed, %d were throttled", passed, throttled)
	}
}
