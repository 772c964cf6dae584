package kumo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// memoRig makes states of one Options whose Lua has count(), which says how often all of them have called it.
type memoRig struct {
	t       *testing.T
	options *Options
	source  string
	calls   atomic.Int64
}

func (r *memoRig) state() *luastate.State {
	r.t.Helper()
	s := newState(r.t, r.options, r.source)
	s.L.SetGlobal("count", s.L.NewFunction(func(L *lua.LState) int {
		L.Push(lua.LNumber(r.calls.Add(1)))
		return 1
	}))
	s.L.SetGlobal("boom", s.L.NewFunction(func(*lua.LState) int { panic("boom") }))
	return s
}

// call calls run(args) and gives its first result as text.
func (r *memoRig) call(ctx context.Context, s *luastate.State, args ...lua.LValue) (string, error) {
	results, err := s.Call(ctx, 1, s.L.GetGlobal("run"), args...)
	if err != nil {
		return "", err
	}
	return s.L.ToStringMeta(results[0]).String(), nil
}

func memoSource(settings, body string) string {
	return "run = kumo.memoize(function(x, y) " + body + " end, {name = 'f', " + settings + "})"
}

const plainMemo = "ttl = '1h', capacity = 10"

func newMemoRig(t *testing.T, settings, body string) *memoRig {
	o := stubs()
	o.ParseDuration = nil
	return &memoRig{t: t, options: o, source: memoSource(settings, body)}
}

func (r *memoRig) want(s *luastate.State, want string, args ...lua.LValue) {
	r.t.Helper()
	got, err := r.call(r.t.Context(), s, args...)
	if err != nil || got != want {
		r.t.Errorf("%v: got %q, want %q (%v)", args, got, want, err)
	}
}

func TestMemoizeIsShared(t *testing.T) {
	r := newMemoRig(t, plainMemo, "return count()")
	a, b := r.state(), r.state()
	r.want(a, "1", lua.LString("x"))
	r.want(b, "1", lua.LString("x"))
	r.want(b, "2", lua.LString("y"))
	r.want(a, "3", lua.LString("x"), lua.LString("y"))
	r.want(a, "4")
	r.want(b, "5", lua.LNumber(1))
	r.want(b, "6", lua.LString("1"))
	r.want(b, "7", lua.LString(strings.Repeat("x", 5000)))
	r.want(a, "7", lua.LString(strings.Repeat("x", 5000)))
	other := &memoRig{t: t, options: stubs(), source: r.source}
	other.want(other.state(), "1", lua.LString("x"))
}

func TestMemoizeKeys(t *testing.T) {
	checkExpressions(t, stubs(), `
local n = 0
local f = kumo.memoize(function() n = n + 1 return n end, {name = 'f', ttl = 60, capacity = 100})
local function same(...) return f(...) end`, []expression{
		{`f {a = 1, b = {2}} == f {b = {2}, a = 1}`, "true", ""},
		{`f {1, 2} == f(1, 2)`, "false", ""},
		{`f('a', 'b') == f('a,1:b')`, "false", ""},
		{`f(true) == f 'true'`, "false", ""},
		{`f {} == f {}`, "true", ""},
		{`f(nil, 1) == f(1)`, "false", ""},
		{`f '\255' == f '\254'`, "false", ""},
		{`f(print)`, "", `the memoized function "f": argument 1: a function cannot stand here`},
		{`f(1, {x = print})`, "", "argument 2: x: a function cannot stand here"},
	})
}

func TestMemoizeValues(t *testing.T) {
	for _, test := range []expression{
		{`once(function() end)`, "nil", ""},
		{`once(function() return nil end)`, "nil", ""},
		{`once(function() return false end)`, "false", ""},
		{`once(function() return 'a\255' end)`, "a\xff", ""},
		{`#once(function() return 1, 2, 3 end)`, "3", ""},
		{`once(function() return nil, 'why' end)[2]`, "why", ""},
		{`kumo.json_encode(once(function() return {a = {1, {b = 'c'}}, d = true} end))`, `{"a":[1,{"b":"c"}],"d":true}`, ""},
		{`(function() local t = once(function() return {1, 2, x = 3, [10] = 4, [1.5] = 5, [true] = 6} end)
			return t[2] .. t.x .. t[10] .. t[1.5] .. t[true] end)()`, "23456", ""},
		{`once(function() return kumo.make_queue_config {max_age = '1h'} end).max_age`, "1h", ""},
		{`type(once(function() return {p = kumo.make_egress_pool {name = 'a'}} end).p)`, "userdata", ""},
		{`once(function() return kumo.time.from_unix_timestamp(5) end).second`, "5", ""},
		{`once(function() return kumo.time.parse_duration(5) end).seconds`, "5", ""},
		{`once(function() return print end)`, "", "a function cannot be kept"},
		{`once(function() return 1, print end)`, "", "result 2: a function cannot be kept"},
		{`once(function() return {[{}] = 1} end)`, "", "a table cannot be a key"},
		{`once(function() local t = {} t.t = t return t end)`, "", "nested more than 64 deep"},
		{`once(function() local t = {1} for _ = 1, 40 do t = {t, t} end return t end)`, "", "more than 1048576 values"},
		{`once(function() return big() end)`, "", "larger than 16 MiB"},
		{`once(function() return coroutine.create(print) end)`, "", "a thread cannot be kept"},
	} {
		checkExpressions(t, stubs(), `
local function once(fn)
  local f = kumo.memoize(fn, {name = 'g', ttl = '1m', capacity = 1})
  f()
  return f()
end`, []expression{test})
	}
}

func TestMemoizeParams(t *testing.T) {
	checkExpressions(t, stubs(), "", []expression{
		{`kumo.memoize(print, {name = 'a', ttl = '1m'})`, "", "capacity: is required, while processing {\"name\":\"a\",\"ttl\":\"1m\"}"},
		{`kumo.memoize(print, {name = 'a', ttl = '1m', capacity = 1, oops = 2})`, "", "oops"},
		{`kumo.memoize(print, {name = 'a', ttl = 'soon', capacity = 1})`, "", "ttl: "},
		{`kumo.memoize(print, {name = 'a', ttl = 1, capacity = 1.5})`, "", "capacity: "},
		{`kumo.memoize(print, {name = ('a'):rep(1025), ttl = 1, capacity = 1})`, "", "name: is longer than 1024 bytes"},
		{`kumo.memoize(print)`, "", "table expected"},
		{`kumo.memoize('x', {})`, "", "function expected"},
		{`type(kumo.memoize(print, {name = 'a', ttl = 1.5, capacity = 1, invalidate_with_epoch = true, populate_timeout = '5s',
			retry_on_populate_timeout = true, allow_stale_reads = true, detached = false}))`, "function", ""},
		{`(function() for i = 1, 5000 do kumo.memoize(print, {name = 'n' .. i, ttl = 1, capacity = 1}) end end)()`,
			"", `memoize "n4096": there are 4096 caches already`},
	})
}

// What one state does with a result is nothing to the others.
func TestMemoizeCopies(t *testing.T) {
	checkExpressions(t, stubs(), `
local f = kumo.memoize(function() return {list = {1}} end, {name = 'f', ttl = '1m', capacity = 1})`, []expression{
		{`(function() local a = f() a.list[1] = 'spoilt' a.more = 1 return f().list[1] end)()`, "1", ""},
	})
}

func TestMemoizeTTLAndCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemoRig(t, "ttl = '5m', capacity = 2", "return count()")
		s := r.state()
		x, y, z := lua.LString("x"), lua.LString("y"), lua.LString("z")
		r.want(s, "1", x)
		time.Sleep(5*time.Minute - time.Second)
		r.want(s, "1", x)
		time.Sleep(time.Second)
		r.want(s, "2", x)
		r.want(s, "3", y)
		r.want(s, "2", x) // y is now the one that nobody has used for longest
		r.want(s, "4", z)
		r.want(s, "2", x)
		r.want(s, "5", y)
		time.Sleep(time.Hour)
		r.want(s, "6", z)
		if c := r.options.memos.find("f"); len(c.entries) != 1 || c.order.Len() != 1 {
			t.Errorf("%d entries are left", len(c.entries))
		}
	})
}

func TestMemoizeSettingsReplace(t *testing.T) {
	o := stubs()
	r := &memoRig{t: t, options: o, source: memoSource(plainMemo, "return count()")}
	old := r.state()
	r.want(old, "1")
	r.source = memoSource("ttl = '2h', capacity = 10", "return count()")
	r.want(r.state(), "2")
	r.want(old, "2") // by name
	if size := o.memos.size.Load(); size <= 0 || size > 1000 {
		t.Errorf("%d bytes are counted", size)
	}
}

func TestMemoizeEpoch(t *testing.T) {
	o := stubs()
	r := &memoRig{t: t, options: o, source: `bump = kumo.bump_config_epoch ` +
		memoSource(plainMemo+", invalidate_with_epoch = true", "return count()")}
	s := r.state()
	r.want(s, "1")
	if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("bump")); err != nil {
		t.Fatal(err)
	}
	r.want(s, "2")
	r.want(r.state(), "2")
	r = &memoRig{t: t, options: o, source: `bump = kumo.bump_config_epoch ` + memoSource(plainMemo, "return count()")}
	s = r.state()
	r.want(s, "1")
	if _, err := s.Call(t.Context(), 0, s.L.GetGlobal("bump")); err != nil {
		t.Fatal(err)
	}
	r.want(s, "1")
}

// inParallel calls run in n states at once, within a bubble.
func (r *memoRig) inParallel(n int, args ...lua.LValue) (texts []string, errs []error) {
	texts, errs = make([]string, n), make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		s := r.state()
		group.Go(func() { texts[i], errs[i] = r.call(r.t.Context(), s, args...) })
	}
	group.Wait()
	return texts, errs
}

func TestMemoizeOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemoRig(t, plainMemo, "kumo.sleep(60) return count()")
		start := time.Now()
		texts, errs := r.inParallel(20)
		for i := range texts {
			if texts[i] != "1" || errs[i] != nil {
				t.Errorf("%q, %v", texts[i], errs[i])
			}
		}
		if passed := time.Since(start); passed != time.Minute {
			t.Error(passed)
		}
	})
}

// Many states, keys and short lives: whatever the order, a call gets the value of its own key.
func TestMemoizeManyStates(t *testing.T) {
	r := newMemoRig(t, "ttl = '1h', capacity = 5", "count() return {x, {deep = x}}")
	var group sync.WaitGroup
	for i := range 16 {
		s := r.state()
		group.Go(func() {
			for n := range 200 {
				key := lua.LNumber((n + i) % 9)
				results, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), key)
				if err != nil {
					t.Error(err)
					return
				}
				if got := results[0].(*lua.LTable); got.RawGetInt(1) != key || got.RawGetInt(2).(*lua.LTable).RawGetString("deep") != key {
					t.Errorf("key %v has another's value", key)
				}
			}
		})
	}
	group.Wait()
	c := r.options.memos.find("f")
	if len(c.entries) > 5 || len(c.flights) != 0 || len(r.options.memos.waiting) != 0 {
		t.Errorf("%d entries, %d flights, %d waiting", len(c.entries), len(c.flights), len(r.options.memos.waiting))
	}
}

func TestMemoizeErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemoRig(t, plainMemo, "kumo.sleep(1) if count() == 1 then error 'no luck' end return 'well'")
		_, errs := r.inParallel(5)
		for _, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "policy.lua:1: no luck") {
				t.Error(err)
			}
		}
		if r.calls.Load() != 1 {
			t.Error("those who waited called again")
		}
		r.want(r.state(), "well") // an error is not kept
	})
}

func TestMemoizeRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemoRig(t, plainMemo, "kumo.sleep(1) count() kumo.reject(421, 'later')")
		_, errs := r.inParallel(3)
		for _, err := range errs {
			if rejection, ok := AsRejection(err); !ok || rejection.Code != 421 {
				t.Error(err)
			}
		}
		if r.calls.Load() != 1 {
			t.Error("those who waited called again")
		}
	})
}

// A state that dies in the middle leaves the call to those who wait: by the end of its context, by a panic, or by
// an error whose value is a thing of its own.
func TestMemoizeCallerDies(t *testing.T) {
	for name, body := range map[string]string{
		"context": "kumo.sleep(60) return count()",
		"panic":   "kumo.sleep(5) if count() == 1 then boom() end return 'well'",
		"table":   "kumo.sleep(5) if count() == 1 then error {} end return 'well'",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newMemoRig(t, plainMemo, body)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				first, second := r.state(), r.state()
				failed := make(chan error)
				go func() {
					_, err := r.call(ctx, first)
					failed <- err
				}()
				synctest.Wait()
				got, err := r.call(t.Context(), second)
				if err != nil || got != "well" && got != "1" {
					t.Errorf("%q, %v", got, err)
				}
				if err := <-failed; err == nil {
					t.Error("the first call did not fail")
				}
			})
		})
	}
}

func TestMemoizeWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemoRig(t, plainMemo, "kumo.sleep(60) return count()")
		first, second := r.state(), r.state()
		done := make(chan error)
		go func() {
			_, err := r.call(t.Context(), first)
			done <- err
		}()
		synctest.Wait()
		errGone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		start := time.Now()
		if _, err := r.call(ctx, second); !errors.Is(err, errGone) || time.Since(start) != time.Second {
			t.Error(err, time.Since(start))
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMemoizePopulateTimeout(t *testing.T) {
	for _, test := range []struct {
		settings, body string
		want           string
		passed         time.Duration
		calls          int64
	}{
		{"", "count() kumo.sleep(1000)", "did not return within populate_timeout", 2 * time.Minute, 1},
		{", populate_timeout = 10", "count() kumo.sleep(1000)", "did not return within populate_timeout", 10 * time.Second, 1},
		{", populate_timeout = 10, retry_on_populate_timeout = true", "count() kumo.sleep(1000)", "populate_timeout", 30 * time.Second, 3},
		{", populate_timeout = 10, retry_on_populate_timeout = true", "if count() < 3 then kumo.sleep(1000) end return 'well'", "", 20 * time.Second, 3},
		{", populate_timeout = 10", "local ok, err = pcall(kumo.sleep, 1000) return count()", "populate_timeout", 10 * time.Second, 0},
	} {
		t.Run(test.settings+test.body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newMemoRig(t, plainMemo+test.settings, test.body)
				start := time.Now()
				got, err := r.call(t.Context(), r.state())
				if test.want == "" && (err != nil || got != "well") || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("%q, %v", got, err)
				}
				if passed := time.Since(start); passed != test.passed || r.calls.Load() != test.calls {
					t.Error(passed, r.calls.Load())
				}
			})
		})
	}
}

// After a call was cut off by populate_timeout, the state is as good as before.
func TestMemoizeStateAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := eval(t, stubs(), `
local f = kumo.memoize(function() kumo.sleep(100) end, {name = 'f', ttl = 60, capacity = 1, populate_timeout = 1})
function run()
  local ok, err = pcall(f)
  kumo.sleep(1)
  local sum = 0
  for i = 1, 1000 do sum = sum + i end
  return ok, sum
end`)
		if err != nil || got != "false\n500500" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestMemoizeStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMemoRig(t, "ttl = 10, capacity = 5, allow_stale_reads = true", "kumo.sleep(5) return count()")
		first, second := r.state(), r.state()
		r.want(first, "1")
		time.Sleep(time.Minute)
		done := make(chan string)
		go func() {
			text, _ := r.call(t.Context(), first)
			done <- text
		}()
		synctest.Wait()
		r.want(second, "1") // at once, while the other finds the new one
		if text := <-done; text != "2" {
			t.Error(text)
		}
		r.want(second, "2")
	})
}

const nested = `
local params = {ttl = '1h', capacity = 10}
local function memo(name, fn) params.name = name return kumo.memoize(fn, params) end
`

func TestMemoizeNested(t *testing.T) {
	checkExpressions(t, stubs(), nested+`
local f, g
f = memo('f', function(n) if n < 2 then return n end return f(n - 1) + g(n - 2) end)
g = memo('g', function(n) return f(n) end)
local own = memo('own', function(n) return own(n) end)
local a, b
a = memo('a', function() return b() end)
b = memo('b', function() return a() end)`, []expression{
		{`f(60)`, "1548008755920", ""},
		{`f(100000)`, "", "stack overflow"},
		{`f(61)`, "2504730781961", ""},
		{`(function() own = memo('own', function(n) return own(n) end) return own(1) end)()`, "", "calls itself with the same arguments"},
		{`a()`, "", "calls itself with the same arguments"},
	})
}

// Two states that each find what the other needs: one of them is told, and nobody waits for ever.
func TestMemoizeCycleAcrossStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &memoRig{t: t, options: stubs(), source: nested + `
local a, b
a = memo('a', function() kumo.sleep(1) return b() end)
b = memo('b', function() kumo.sleep(1) return a() end)
function run(which) if which == 'a' then return a() end return b() end`}
		start := time.Now()
		var group sync.WaitGroup
		for _, which := range []string{"a", "b"} {
			s := r.state()
			group.Go(func() {
				_, err := r.call(t.Context(), s, lua.LString(which))
				if err == nil || !strings.Contains(err.Error(), "calls itself with the same arguments") {
					t.Errorf("%s: %v", which, err)
				}
			})
		}
		group.Wait()
		if passed := time.Since(start); passed > 10*time.Second {
			t.Error(passed)
		}
	})
}

func TestMemoizeInCoroutine(t *testing.T) {
	checkExpressions(t, stubs(), nested+`local f = memo('f', function(x) return x * 2 end)`, []expression{
		{`coroutine.wrap(function() return f(4) + f(4) end)()`, "16", ""},
		{`coroutine.wrap(function() local v = f(5) coroutine.yield(v) end)()`, "10", ""},
		{`(function() local co = coroutine.wrap(function() coroutine.yield(f(6)) coroutine.yield(f(6) + 1) end) return co() + co() end)()`, "25", ""},
	})
	// A function that yields cannot be remembered, and is not.
	checkExpressions(t, stubs(), nested+`
local g = memo('g', function(x) coroutine.yield(x) return x end)
local inner = memo('inner', function(x) local co = coroutine.wrap(function() coroutine.yield(x) end) return co() end)
kumo.on('get_queue_config', function() coroutine.yield(1) end)`, []expression{
		{`select(2, coroutine.resume(coroutine.create(function() return g(1) end)))`, "policy.lua:5: attempt to yield across a C-call boundary", ""},
		{`select(2, pcall(g, 1))`, "policy.lua:5: attempt to yield from outside a coroutine", ""},
		{`inner(7)`, "7", ""},
		{`select(2, coroutine.resume(coroutine.create(function() return kumo.invoke_get_queue_config 'x' end)))`,
			"policy.lua:7: attempt to yield across a C-call boundary", ""},
	})
}

// The bound on all caches together holds, whatever the capacities are.
func TestMemoizeSize(t *testing.T) {
	var all memos
	settings := memoSettings{Name: "f", TTL: time.Hour, Capacity: 1 << 30}
	if err := all.named(settings); err != nil {
		t.Fatal(err)
	}
	c := all.find("f")
	for i := range 40 {
		_, _, f, own := c.enter(&module{}, fmt.Sprint(i))
		if !own {
			t.Fatal("not own")
		}
		f.kept = true
		c.land(f, 0, maxFrozenSize)
		c.land(f, 0, maxFrozenSize) // once
	}
	if size := all.size.Load(); size > maxMemoSize || len(c.entries) != c.order.Len() || len(c.entries) < 10 {
		t.Errorf("%d bytes in %d entries", size, len(c.entries))
	}
	c.discard()
	if size := all.size.Load(); size != 0 {
		t.Errorf("%d bytes are left", size)
	}
}

// A state that waited may not have noticed yet that what it waited for is there: it waits for nobody.
func TestMemoizeNoCycle(t *testing.T) {
	var all memos
	if err := all.named(memoSettings{Name: "f", TTL: time.Hour, Capacity: 10}); err != nil {
		t.Fatal(err)
	}
	c, a, b := all.find("f"), &module{}, &module{}
	_, _, first, _ := c.enter(a, "first")
	_, _, second, _ := c.enter(b, "second")
	if err := all.queueUp(b, first); err != nil {
		t.Fatal(err)
	}
	if err := all.queueUp(a, second); !errors.Is(err, errPopulatesItself) {
		t.Error("a cycle:", err)
	}
	c.land(first, 0, 0)
	if err := all.queueUp(a, second); err != nil {
		t.Error("no cycle:", err)
	}
}

// However many caches there are, all of them together are bounded.
func TestMemoizeSizeOfManyCaches(t *testing.T) {
	var all memos
	for i := range 100 {
		settings := memoSettings{Name: fmt.Sprint(i), TTL: time.Hour, Capacity: 2}
		if err := all.named(settings); err != nil {
			t.Fatal(err)
		}
		c := all.find(settings.Name)
		_, _, f, _ := c.enter(&module{}, "key")
		f.kept = true
		c.land(f, 0, maxFrozenSize)
	}
	if size := all.size.Load(); size > maxMemoSize || size < maxMemoSize/2 {
		t.Errorf("%d MiB are kept", size>>20)
	}
}

// What many states share counts for as much as it takes, each time that it is kept: what one cache has dropped, others
// may still have.
func TestFrozenSizes(t *testing.T) {
	s := newState(t, stubs(), `
		long = ('x'):rep(1000000)
		config = kumo.make_queue_config {a = long}
		labels = kumo.domain_map.new()
		for i = 1, 20 do labels[('a.'):rep(500) .. i] = i end
		expression = kumo.regex.compile '(?:abcdef){900}'
		expressions = kumo.regex_set_map.new {['(?:abcdef){900}'] = 1}
		map = kumo.domain_map.new {['a.example'] = long}
		remembered = kumo.memoize(function() return map end, {name = 'map', ttl = 60, capacity = 1})()
		file = kumo.shaping.load {'`+write(t, "a.toml", "['a.example']\nmx_rollup = false\nehlo_domain = '"+strings.Repeat("x", 1000000)+"'")+`'}`)
	for _, name := range []string{"config", "expression", "expressions", "map", "labels", "remembered", "file"} {
		var box icebox
		if _, err := box.freeze(s.L.GetGlobal(name)); err != nil || box.size < 1000000 || box.size > maxFrozenSize {
			t.Errorf("%s: %d bytes, %v", name, box.size, err)
		}
	}
}

// A long key is told from every short one.
func TestMemoizeLongKey(t *testing.T) {
	s := newState(t, stubs(), "")
	s.L.Push(lua.LString(strings.Repeat("x", 2*maxMemoKey)))
	key, err := memoKey(s.L)
	if err != nil || len(key) > maxMemoKey || !strings.HasPrefix(key, "#") {
		t.Errorf("%q, %v", key, err)
	}
}

// A short text that was cut from a long one does not keep the long one.
func TestFrozenTextIsItsOwn(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	var box icebox
	kept, err := box.freeze(lua.LString(long[:5]))
	if err != nil || kept != "xxxxx" || unsafe.StringData(kept.(string)) == unsafe.StringData(long) {
		t.Errorf("%v, %v", kept, err)
	}
}

// Functions that need each other, but never in a circle, in many states that some leave: everybody gets what is his, and
// nobody is told of a circle.
func TestMemoizeNestedInManyStates(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 8))
			r := &memoRig{t: t, options: stubs(), source: `
local f
f = kumo.memoize(function(n)
  kumo.sleep(n % 3)
  if n < 2 then return n end
  return f(n - 1) + f(n - 2)
end, {name = 'f', ttl = 2, capacity = 8})
run = f`}
			fibonacci := []int{0, 1, 1, 2, 3, 5, 8, 13, 21, 34}
			var group sync.WaitGroup
			for range 12 {
				s, n := r.state(), random.IntN(len(fibonacci))
				start, patience := time.Duration(random.IntN(20))*time.Second, time.Duration(1+random.IntN(40))*time.Second
				group.Go(func() {
					time.Sleep(start)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					got, err := r.call(ctx, s, lua.LNumber(n))
					if err == nil && got != fmt.Sprint(fibonacci[n]) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("seed %d: f(%d) = %q, %v", seed, n, got, err)
					}
				})
			}
			group.Wait()
			if c := r.options.memos.find("f"); len(c.flights) != 0 || len(r.options.memos.waiting) != 0 {
				t.Errorf("seed %d: %d flights, %d waiting", seed, len(c.flights), len(r.options.memos.waiting))
			}
		})
	}
}

// A table that is too long is refused before anything is made of it.
func TestFrozenLength(t *testing.T) {
	s := newState(t, stubs(), "sparse = {} sparse[2000000] = 1")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var box icebox
	_, err := box.freeze(s.L.GetGlobal("sparse"))
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 8<<20 {
		t.Errorf("%v, with %d bytes", err, took)
	}
}
