package kumo

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// Throttles count what the throttles of kumo.make_throttle let through, by name and rate. Many Options may share
// one, so that a new policy goes on where the old one was. The zero value is ready for use, by many goroutines.
type Throttles struct {
	mu    sync.Mutex
	start time.Time          // what the times below are counted from
	full  map[string]float64 // when a name has its whole burst again, in nanoseconds; the generic cell rate's arrival time
}

// maxThrottles bounds the names that are remembered.
const maxThrottles = 100_000

// verdict is what one look at a throttle gave.
type verdict struct {
	throttled  bool
	limit      int64 // how many may pass at once after a rest
	remaining  int64
	resetAfter time.Duration // until it has its whole burst again
	retryAfter time.Duration // if throttled
}

// take lets one event through, or says how long it has to wait.
func (s *Throttles) take(name string, r decode.Rate) verdict {
	burst := r.Limit
	if r.MaxBurst > 0 {
		burst = r.MaxBurst
	}
	interval := float64(r.Per) / float64(r.Limit)
	tolerance := interval * float64(burst)

	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	full, known := s.full[name]
	full = max(full, now)
	v := verdict{limit: burst}
	if wait := full + interval - tolerance - now; wait > 0.5 { // nanoseconds: below that is rounding
		v.throttled, v.retryAfter = true, nanoseconds(wait)
	} else {
		full += interval
		if !known && len(s.full) >= maxThrottles {
			s.forget(now)
		}
		s.full[name] = full
		v.remaining = max(int64((tolerance-(full-now))/interval+1e-6), 0)
	}
	v.resetAfter = nanoseconds(full - now)
	return v
}

func (s *Throttles) now() float64 {
	if s.full == nil {
		s.start, s.full = time.Now(), map[string]float64{}
	}
	return float64(time.Since(s.start))
}

// forget makes room: for the names that have their whole burst again, which are as good as new ones, and if these
// are few, for a tenth of all, those first that are nearest to it.
func (s *Throttles) forget(now float64) {
	type entry struct {
		name string
		full float64
	}
	all := make([]entry, 0, len(s.full))
	for name, full := range s.full {
		all = append(all, entry{name, full})
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.full, b.full) })
	for i, e := range all {
		if e.full > now && i > len(all)/10 {
			break
		}
		delete(s.full, e.name)
	}
}

func nanoseconds(n float64) time.Duration {
	if n >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(math.Ceil(n))
}

// throttle is what make_throttle returns.
type throttle struct {
	name string
	rate decode.Rate
}

// Delayer is a Message that can be put off. Without it, delay_message_if_throttled raises an error where it would
// have to.
type Delayer interface{ DelayBy(d time.Duration) error }

// makeThrottle is kumo.make_throttle(name, spec).
func (m *module) makeThrottle(L *lua.LState) int {
	name, spec := L.CheckString(1), L.CheckString(2)
	if len(name) > 1024 {
		L.ArgError(1, "the name is longer than 1024 bytes")
	}
	rate, err := decode.ParseRate(spec)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("make_throttle %q: %w", excerpt(name), err))
	}
	// As upstream, another rate is another throttle.
	rate.Local = false
	t := &throttle{name: name + "\x00" + rate.String(), rate: rate}
	mt := m.metatable(L, "throttle", func(L *lua.LState, mt *lua.LTable) {
		methods := L.CreateTable(0, 4)
		addAll(L, methods, map[string]lua.LGFunction{
			"throttle":                   m.throttleThrottle,
			"sleep_if_throttled":         m.throttleSleep,
			"delay_message_if_throttled": m.throttleDelay,
			"explain":                    throttleExplain,
		})
		mt.RawSetString("__index", methods)
	})
	L.Push(&lua.LUserData{Value: t, Env: L.Env, Metatable: mt})
	return 1
}

func checkThrottle(L *lua.LState) *throttle {
	ud, _ := L.Get(1).(*lua.LUserData)
	if ud != nil {
		if t, ok := ud.Value.(*throttle); ok {
			return t
		}
	}
	L.ArgError(1, "throttle expected: call its methods with a colon")
	return nil
}

func (m *module) take(t *throttle) verdict {
	store := m.options.Throttles
	if store == nil {
		store = &m.options.ownThrottles
	}
	return store.take(t.name, t.rate)
}

// throttleThrottle returns a table. As upstream, its durations are in whole seconds, {secs, nanos = 0}.
func (m *module) throttleThrottle(L *lua.LState) int {
	v := m.take(checkThrottle(L))
	tbl := L.CreateTable(0, 5)
	tbl.RawSetString("throttled", lua.LBool(v.throttled))
	tbl.RawSetString("limit", lua.LNumber(v.limit))
	tbl.RawSetString("remaining", lua.LNumber(v.remaining))
	tbl.RawSetString("reset_after", wholeSeconds(L, v.resetAfter))
	if v.throttled {
		tbl.RawSetString("retry_after", wholeSeconds(L, v.retryAfter))
	}
	L.Push(tbl)
	return 1
}

func wholeSeconds(L *lua.LState, d time.Duration) *lua.LTable {
	tbl := L.CreateTable(0, 2)
	tbl.RawSetString("secs", lua.LNumber(math.Ceil(d.Seconds())))
	tbl.RawSetString("nanos", lua.LNumber(0))
	return tbl
}

// throttleSleep waits until the throttle lets it through, and tells whether it had to wait.
func (m *module) throttleSleep(L *lua.LState) int {
	t := checkThrottle(L)
	waited := false
	for {
		v := m.take(t)
		if !v.throttled {
			L.Push(lua.LBool(waited))
			return 1
		}
		waited = true
		if err := rest(L, v.retryAfter); err != nil {
			luastate.Raise(L, fmt.Errorf("sleep_if_throttled: %w", err))
		}
	}
}

// throttleDelay puts a message off if the throttle does not let it through, and tells whether it did.
func (m *module) throttleDelay(L *lua.LState) int {
	t := checkThrottle(L)
	var h *handle
	if ud, ok := L.Get(2).(*lua.LUserData); ok {
		h, _ = ud.Value.(*handle)
	}
	switch {
	case h == nil:
		L.ArgError(2, "message expected")
	case h.m == nil:
		L.RaiseError("the message is used after the call that it was passed to has ended")
	}
	v := m.take(t)
	if v.throttled {
		d, ok := h.m.(Delayer)
		if !ok {
			L.RaiseError("delay_message_if_throttled: this message cannot be delayed here")
		}
		if err := d.DelayBy(v.retryAfter); err != nil {
			luastate.Raise(L, fmt.Errorf("delay_message_if_throttled: %w", err))
		}
	}
	L.Push(lua.LBool(v.throttled))
	return 1
}

// throttleExplain says in words what the rate comes to.
func throttleExplain(L *lua.LState) int {
	r := checkThrottle(L).rate
	kind, burst := "implied", r.Limit
	if r.MaxBurst > 0 {
		kind, burst = "explicit", r.MaxBurst
	}
	interval := r.Per.Seconds() / float64(r.Limit)
	L.Push(lua.LString(fmt.Sprintf("%s\n%s burst rate %d every %s, or: %s in that period.\noverall rate %s",
		r, kind, burst, decode.FormatDuration(time.Duration(interval*float64(time.Second))),
		rates(float64(burst)/interval), rates(float64(r.Limit)/r.Per.Seconds()))))
	return 1
}

func rates(perSecond float64) string {
	var parts []string
	for _, unit := range []struct {
		name    string
		seconds float64
	}{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}} {
		parts = append(parts, quantity(perSecond*unit.seconds)+"/"+unit.name)
	}
	return strings.Join(parts, ", ")
}

// quantity is a number for people: below one with three decimals, above rounded up, with commas.
func quantity(n float64) string {
	if n < 1 {
		return strconv.FormatFloat(n, 'f', 3, 64)
	}
	digits := strconv.FormatFloat(math.Ceil(n-1e-9), 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
