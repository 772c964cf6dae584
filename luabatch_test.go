package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// batcher is a policy whose connections note their batches: the ids of their messages. A message may say in
// its meta how long the call that carries it takes.
const batcher = `
	kumo.on('make.it', function(domain, tenant)
		local c = {}
		function c:send_batch(messages)
			local ids = {}
			for i, m in ipairs(messages) do
				ids[i] = m:id()
				if m:get_meta 'takes' then kumo.sleep(m:get_meta 'takes') end
				if m:get_meta 'raise' then error 'raised' end
				if m:get_meta 'code' then kumo.reject(m:get_meta 'code', 'no') end
			end
			print(table.concat(ids, ' '))
			return #messages .. ' went'
		end
		function c:close() print 'closed' end
		return c
	end)`

// batches is a stage for messages that are sent in batches, in virtual time.
type batches struct {
	*testing.T
	rt      *Runtime
	p       Protocol
	printed *record
	start   time.Time

	mu       sync.Mutex
	outcomes map[string]Outcome
	took     map[string]time.Duration
	calls    sync.WaitGroup
}

// inBatches tells a story. The config is that of custom_lua, the path that of the egress path.
func inBatches(t *testing.T, config, path, policy string, tell func(s *batches)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &batches{T: t, printed: &record{}, start: time.Now(), outcomes: map[string]Outcome{}, took: map[string]time.Duration{}}
		s.rt, _ = quiet(t)
		s.rt.Stdout = s.printed
		withPolicy(t, s.rt, policy+`
			kumo.on('get_egress_path_config', function() return kumo.make_egress_path { `+path+` } end)`)
		c, err := ParseQueueConfig([]byte(`{"protocol": {"custom_lua": {"constructor": "make.it", ` + config + `}}}`))
		if err != nil {
			t.Fatal(err)
		}
		if s.p, err = s.rt.Protocol(c); err != nil {
			t.Fatal(err)
		}
		tell(s)
		s.calls.Wait()
		if err := s.p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// deliver begins to deliver messages at the same time, as far as that is possible before time goes on. Those
// of different ids come in the order given.
func (s *batches) deliver(ctx context.Context, meta map[string]any, ids ...string) {
	for _, id := range ids {
		msg := messageTo("a@hook.test")
		msg.ID, msg.Meta = id, meta
		if tenant, _, ok := strings.Cut(id, "@"); ok {
			msg.Queue = QueueName{Tenant: tenant, Domain: "hook.test"}
		}
		s.calls.Go(func() {
			outcome := s.p.Deliver(ctx, msg)
			s.mu.Lock()
			s.outcomes[id], s.took[id] = outcome, time.Since(s.start)
			s.mu.Unlock()
		})
		synctest.Wait()
	}
}

// sent are the batches so far, and the ends of connections.
func (s *batches) sent(want ...string) {
	s.Helper()
	synctest.Wait()
	got := strings.Split(strings.TrimSuffix(s.printed.String(), "\n"), "\n")
	if !slices.Equal(got, want) && (len(want) > 0 || got[0] != "") {
		s.Errorf("batches %q, want %q", got, want)
	}
}

// became is the result of a message, once it is there.
func (s *batches) became(id, want string) {
	s.Helper()
	s.calls.Wait()
	r := s.outcomes[id].Results[0]
	got := r.Status.String()
	if r.Response.Code != 0 {
		got += " " + r.Response.String()
	}
	if r.MaybeDelivered {
		got += ", maybe delivered"
	}
	begins, cut := strings.CutSuffix(want, "…")
	if got != want && !(cut && strings.HasPrefix(got, begins)) {
		s.Errorf("%s became %q (%v), want %q", id, got, r.Err, want)
	}
}

func TestBatchSizes(t *testing.T) {
	inBatches(t, `"batch_size": 3`, "connection_limit = 1", batcher, func(s *batches) {
		s.deliver(s.Context(), map[string]any{"takes": 1}, "a") // alone, and even so by send_batch
		s.deliver(s.Context(), nil, "b", "c", "d", "e", "f", "g", "h")
		s.calls.Wait()
		s.sent("a", "b c d", "e f g", "h")
		for id, want := range map[string]string{"a": "1", "b": "3", "d": "3", "g": "3", "h": "1"} {
			s.became(id, "delivered 200 "+want+" went")
		}
		if opened := s.rt.Stats().Opened; opened != 1 {
			s.Errorf("%d connections", opened)
		}
		if n := s.rt.Stats().Ready[0]; n.Reused != 7 || n.Delivered != 8 || n.Waiting != 0 {
			s.Errorf("%+v", n)
		}
		if session := s.outcomes["b"].Results[0].Session; session.ID == "" || session.ID != s.outcomes["h"].Results[0].Session.ID {
			s.Errorf("%+v", session)
		}
	})
}

// TestBatchesAreSpread: with a second connection there is less to wait for.
func TestBatchesAreSpread(t *testing.T) {
	inBatches(t, `"batch_size": 10`, "connection_limit = 2", batcher, func(s *batches) {
		s.deliver(s.Context(), map[string]any{"takes": 1}, "a")
		s.deliver(s.Context(), map[string]any{"takes": 2}, "b")
		s.deliver(s.Context(), nil, "c", "d", "e")
		s.calls.Wait()
		s.sent("a", "c d e", "b")
	})
}

func TestMinBatchSizeAndLatency(t *testing.T) {
	const config = `"batch_size": 4, "min_batch_size": 3, "max_batch_latency": "10s"`
	inBatches(t, config, "idle_timeout = '1m'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a")
		time.Sleep(9 * time.Second)
		s.deliver(s.Context(), nil, "b")
		s.sent()
		if n := s.rt.Stats().Ready[0]; n.Waiting != 2 {
			s.Errorf("%d wait", n.Waiting)
		}
		s.deliver(s.Context(), nil, "c")
		s.sent("a b c")
		s.deliver(s.Context(), nil, "d")
		time.Sleep(5 * time.Second)
		s.deliver(s.Context(), nil, "e")
		s.calls.Wait()
		s.sent("a b c", "d e")
		if took := s.took["d"]; took != 19*time.Second {
			s.Errorf("d took until %v", took)
		}
	})
	inBatches(t, config, "idle_timeout = '2s'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a")
		s.became("a", "delivered 200 1 went")
		if took := s.took["a"]; took != 2*time.Second {
			s.Errorf("a took until %v, beyond idle_timeout", took)
		}
	})
}

func TestLeavingABatch(t *testing.T) {
	const config = `"batch_size": 4, "min_batch_size": 3, "max_batch_latency": "10s"`
	inBatches(t, config, "idle_timeout = '1m'", batcher, func(s *batches) {
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		defer cancel()
		s.deliver(ctx, nil, "leads")
		s.deliver(s.Context(), nil, "stays")
		time.Sleep(6 * time.Second)
		s.mu.Lock()
		if r := s.outcomes["leads"].Results; len(r) != 1 || r[0].Status != Unsent || r[0].Err != context.DeadlineExceeded {
			s.Errorf("the leader: %+v", r)
		}
		s.mu.Unlock()
		s.became("stays", "delivered 200 1 went")
		if took := s.took["stays"]; took != 10*time.Second {
			s.Errorf("it took until %v", took)
		}
	})
	// While it waits for a connection.
	inBatches(t, `"batch_size": 4`, "connection_limit = 1", batcher, func(s *batches) {
		s.deliver(s.Context(), map[string]any{"takes": 10}, "a")
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		defer cancel()
		s.deliver(ctx, nil, "leads")
		s.deliver(s.Context(), nil, "stays")
		s.deliver(ctx, nil, "leaves")
		s.calls.Wait()
		s.sent("a", "stays")
		s.became("leads", "unsent")
		s.became("leaves", "unsent")
		if took := s.took["leaves"]; took != 5*time.Second {
			s.Errorf("it took until %v", took)
		}
	})
	// Once it has begun, nobody leaves, and nobody's end is another's.
	inBatches(t, `"batch_size": 4, "min_batch_size": 2, "max_batch_latency": "1s"`, "", batcher, func(s *batches) {
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		defer cancel()
		s.deliver(ctx, map[string]any{"takes": 10}, "leads")
		s.deliver(ctx, nil, "comes")
		s.became("leads", "delivered 200 2 went")
		s.became("comes", "delivered 200 2 went")
	})
}

func TestTenantsDoNotShareBatches(t *testing.T) {
	inBatches(t, `"batch_size": 10, "min_batch_size": 2, "max_batch_latency": "1s"`, "", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "x@1", "y@1", "x@2", "y@2")
		s.calls.Wait()
		s.sent("x@1 x@2", "y@1 y@2")
	})
}

func TestBatchesAndMaxDeliveries(t *testing.T) {
	inBatches(t, `"batch_size": 4`, "connection_limit = 1, max_deliveries_per_connection = 5", batcher, func(s *batches) {
		s.deliver(s.Context(), map[string]any{"takes": 1}, "a")
		s.deliver(s.Context(), nil, "b", "c")
		s.calls.Wait()
		s.deliver(s.Context(), map[string]any{"takes": 1}, "d")
		s.deliver(s.Context(), nil, "e", "f", "g")
		s.calls.Wait()
		s.sent("a", "b c", "d", "e", "closed", "f g") // five, and the others go together on the next
		if opened := s.rt.Stats().Opened; opened != 2 {
			s.Errorf("%d connections", opened)
		}
	})
	inBatches(t, `"batch_size": 100, "min_batch_size": 100, "max_batch_latency": "10s"`, "max_deliveries_per_connection = 2", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b")
		s.calls.Wait() // no more than two could ever go together
		if took := s.took["a"]; took != 0 {
			s.Errorf("it took until %v", took)
		}
	})
}

func TestBatchesThatFail(t *testing.T) {
	const config = `"batch_size": 2, "min_batch_size": 2, "max_batch_latency": "1s"`
	inBatches(t, config, "connection_limit = 1", batcher, func(s *batches) {
		for _, test := range []struct {
			meta   map[string]any
			want   string
			closed bool
		}{
			{map[string]any{"code": 450}, "transient 450 no", false},
			{map[string]any{"code": 550}, "permanent 550 no", false},
			{map[string]any{"code": 421}, "transient 421 no", true},
			{map[string]any{"raise": true}, "transient 400 delivery: error in deliver_message: sender:send_batch method failed: test.lua:9: raised", true},
		} {
			before := strings.Count(s.printed.String(), "closed")
			s.deliver(s.Context(), nil, "a")
			s.deliver(s.Context(), test.meta, "b")
			s.became("a", test.want)
			s.became("b", test.want)
			if closed := strings.Count(s.printed.String(), "closed") > before; closed != test.closed {
				s.Errorf("%s: closed %v", test.want, closed)
			}
		}
	})
	inBatches(t, config, "", "kumo.on('make.it', function() error 'no luck' end)", func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b")
		for _, id := range []string{"a", "b"} {
			s.became(id, "transient 400 delivery: failed to connect to any candidate hosts: Lua via make.it: …")
		}
	})
	inBatches(t, config, "", connectionWith("return 'OK'"), func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b")
		for _, id := range []string{"a", "b"} {
			s.became(id, "transient 400 delivery: error in deliver_message: sender:send_batch method failed: the connection object has no method send_batch")
		}
	})
	inBatches(t, config, "dispatcher_progress_watchdog_timeout = '5s'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a")
		s.deliver(s.Context(), map[string]any{"takes": 60}, "b")
		for _, id := range []string{"a", "b"} {
			s.became(id, "transient 451 4.4.1 dispatcher watchdog aborted task; send_batch did not return within 5s, maybe delivered")
		}
		s.deliver(s.Context(), nil, "c", "d")
		s.became("c", "delivered 200 2 went")
	})
}

func TestBatchDispositions(t *testing.T) {
	const failed = "transient 400 delivery: error in deliver_message: sender:send_batch method failed: "
	for _, test := range []struct {
		returns string
		want    [2]string
		closes  bool
	}{
		{"'all'", [2]string{"delivered 200 all", "delivered 200 all"}, false},
		{"17", [2]string{"delivered 200 17", "delivered 200 17"}, false},
		{"{'one', 2}", [2]string{"delivered 200 one", "delivered 200 2"}, false},
		{"{{code = 250, message = 'ok'}, {code = 299}}", [2]string{"delivered 250 ok", "delivered 299 "}, false},
		{"{'one', {code = 450, message = 'later\\nand so on'}}", [2]string{"delivered 200 one", "transient 450 later and so on"}, false},
		{"{{code = 421, message = 'bye'}, 'two'}", [2]string{"transient 421 bye", "delivered 200 two"}, true},
		{"{{code = 550, message = 'never'}, {code = 354}}", [2]string{"permanent 550 never", "permanent 354 "}, false},
		{"{{code = 199}, {code = 65535}}", [2]string{"permanent 199 ", "permanent 65535 "}, false},
		{"{'one'}", [2]string{failed + "send_batch returned a list of 1 dispositions for 2 messages", failed + "…"}, true},
		{"{'one', 'two', 'three'}", [2]string{failed + "send_batch returned a list of 3 dispositions for 2 messages", failed + "…"}, true},
		{"{}", [2]string{failed + "send_batch returned a list of 0 dispositions for 2 messages", failed + "…"}, true},
		{"{code = 250, message = 'ok'}", [2]string{failed + "send_batch returned a list of 0…", failed + "…"}, true},
		{"nil", [2]string{failed + "send_batch returned nil: want the disposition as a string", failed + "…"}, true},
		{"true", [2]string{failed + "send_batch returned a boolean…", failed + "…"}, true},
		{"{'one', true}", [2]string{"delivered 200 one", failed + "disposition 2: send_batch returned a boolean…"}, true},
		{"{'one', '\\255'}", [2]string{"delivered 200 one", failed + "disposition 2: send_batch returned a string that is not UTF-8"}, true},
		{"{{message = 'ok'}, 'two'}", [2]string{failed + "disposition 1: want a code from 0 to 65535, got nil", "delivered 200 two"}, true},
		{"{{code = 250.5}, 'two'}", [2]string{failed + "disposition 1: want a code from 0 to 65535, got 250.5", "delivered 200 two"}, true},
		{"{{code = '250'}, 'two'}", [2]string{failed + "disposition 1: want a code from 0 to 65535, got a string", "delivered 200 two"}, true},
		{"{{code = 70000}, {code = -1}}", [2]string{failed + "disposition 1: want…", failed + "disposition 2: want…"}, true},
		{"{{code = 250, message = {}}, 'two'}", [2]string{failed + "disposition 1: send_batch returned a table…", "delivered 200 two"}, true},
	} {
		policy := "kumo.on('make.it', function() return { send_batch = function(self, messages) return " + test.returns +
			" end, close = function() print 'closed' end } end)"
		inBatches(t, `"batch_size": 2, "min_batch_size": 2, "max_batch_latency": "1s"`, "", policy, func(s *batches) {
			s.deliver(s.Context(), nil, "a", "b")
			s.became("a", test.want[0])
			s.became("b", test.want[1])
			if closed := s.printed.String() != ""; closed != test.closes {
				s.Errorf("%s: closed %v", test.returns, closed)
			}
		})
	}
}

func TestChangesOfABatch(t *testing.T) {
	const policy = `kumo.on('make.it', function() return { send_batch = function(self, messages)
		for i, m in ipairs(messages) do
			if i > 1 then m:set_meta('place', i) end
			if i > 2 then m:set_data('replaced') end
		end
		return 'OK' end } end)`
	inBatches(t, `"batch_size": 3, "min_batch_size": 3, "max_batch_latency": "1s"`, "", policy, func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b", "c")
		s.calls.Wait()
		if c := s.outcomes["a"].Changes; c != nil {
			s.Errorf("a: %+v", c)
		}
		if c := s.outcomes["b"].Changes; c == nil || fmt.Sprint(c.Meta) != "map[place:2]" || c.Body != nil {
			s.Errorf("b: %+v", c)
		}
		if c := s.outcomes["c"].Changes; c == nil || fmt.Sprint(c.Meta) != "map[place:3]" || string(c.Body.(Bytes)) != "replaced" {
			s.Errorf("c: %+v", c)
		}
	})
}

// TestARateCountsABatchOnce: as KumoMTA does.
func TestARateCountsABatchOnce(t *testing.T) {
	inBatches(t, `"batch_size": 2, "min_batch_size": 2, "max_batch_latency": "1s"`, "max_message_rate = '2/min,max_burst=2', idle_timeout = '1s'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b", "c", "d")
		s.calls.Wait()
		s.sent("a b", "c d")
		s.deliver(s.Context(), nil, "e", "f")
		s.became("e", "unsent")
		s.became("f", "unsent")
		for _, id := range []string{"e", "f"} {
			r := s.outcomes[id].Results[0]
			if throttled, ok := errors.AsType[*ThrottledError](r.Err); !ok || throttled.Option != "max_message_rate" || r.Scope != ScopeReadyName || r.RetryAfter == 0 {
				s.Errorf("%+v", r)
			}
		}
		if n := s.rt.Stats().Ready[0].Throttled; n != 2 {
			s.Errorf("%d throttled", n)
		}
	})
}

func TestMaxReadyBoundsABatch(t *testing.T) {
	inBatches(t, `"batch_size": 10, "min_batch_size": 10, "max_batch_latency": "10s"`, "idle_timeout = '1m', max_ready = 3", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b", "c", "d")
		s.became("a", "delivered 200 3 went")
		if r := s.outcomes["d"].Results[0]; r.Status != Unsent || r.Err != ErrFull || r.Scope != ScopeReadyName {
			s.Errorf("%+v", r)
		}
	})
}

// TestClosingABatch: whoever waits for others does not keep a handle or a runtime from closing.
func TestClosingABatch(t *testing.T) {
	const config = `"batch_size": 10, "min_batch_size": 10, "max_batch_latency": "10s"`
	inBatches(t, config, "idle_timeout = '1m'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b")
		if err := s.p.Close(s.Context()); err != nil || time.Since(s.start) != 0 {
			s.Errorf("%v after %v", err, time.Since(s.start))
		}
		s.became("a", "delivered 200 2 went") // nobody else could have come
		s.sent("a b", "closed")
	})
	inBatches(t, config, "idle_timeout = '1m'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a", "b")
		if err := s.rt.Close(s.Context()); err != nil || time.Since(s.start) != 0 {
			s.Errorf("%v after %v", err, time.Since(s.start))
		}
		for _, id := range []string{"a", "b"} {
			s.became(id, "unsent")
			if err := s.outcomes[id].Results[0].Err; err != ErrClosed {
				s.Error(err)
			}
		}
	})
	inBatches(t, `"batch_size": 2, "min_batch_size": 2, "max_batch_latency": "1s"`, "system_shutdown_timeout = '5s'", batcher, func(s *batches) {
		s.deliver(s.Context(), nil, "a")
		s.deliver(s.Context(), map[string]any{"takes": 60}, "b")
		if err := s.rt.Close(s.Context()); err != nil || time.Since(s.start) != 5*time.Second {
			s.Errorf("%v after %v", err, time.Since(s.start))
		}
		for _, id := range []string{"a", "b"} {
			s.became(id, "transient 400 …")
			if r := s.outcomes[id].Results[0]; !r.MaybeDelivered {
				s.Errorf("%+v", r)
			}
		}
	})
}

// TestBatchesCountWhatIsTraced: one event for each message.
func TestBatchesCountWhatIsTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened, reused, closed int
		rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard, Trace: &Trace{
			Opened: func(*Session) { opened++ },
			Reused: func(*Session) { reused++ },
			Closed: func(_ *Session, why string) { closed++ },
		}}
		withPolicy(t, rt, batcher)
		c, _ := ParseQueueConfig([]byte(`{"protocol": {"custom_lua": {"constructor": "make.it", "batch_size": 3, "min_batch_size": 3, "max_batch_latency": 1}}}`))
		p, err := rt.Protocol(c)
		if err != nil {
			t.Fatal(err)
		}
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() { p.Deliver(t.Context(), messageTo("a@hook.test")) })
		}
		calls.Wait()
		if err := rt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if opened != 1 || reused != 2 || closed != 1 {
			t.Errorf("opened %d, reused %d, closed %d", opened, reused, closed)
		}
	})
}

// TestAPanicOfATraceHook: the script has sent the messages; those whose call did not panic must not be told
// that nothing happened.
func TestAPanicOfATraceHook(t *testing.T) {
	inBatches(t, `"batch_size": 2, "min_batch_size": 2, "max_batch_latency": "1s"`, "", batcher, func(s *batches) {
		s.rt.Trace = &Trace{LuaCalled: func(c LuaCall) {
			if c.Name == "send_batch" {
				panic("hook")
			}
		}}
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			s.p.Deliver(s.Context(), messageTo("a@hook.test"))
		}()
		time.Sleep(time.Millisecond)
		s.deliver(s.Context(), nil, "b")
		if p := <-panicked; p != "hook" {
			s.Errorf("the one who led: %v", p)
		}
		s.calls.Wait()
		r := s.outcomes["b"].Results[0]
		if r.Status != Transient || !r.MaybeDelivered || r.Err == nil {
			s.Errorf("%+v", r)
		}
	})
}

// TestAttemptsServeOneMessageAfterTheOther: what an attempt is reused for leaves the outcomes of the messages before it
// alone, and gets nothing of theirs, whether they were delivered, refused, changed or given up.
func TestAttemptsServeOneMessageAfterTheOther(t *testing.T) {
	const answer = `
		local function answer(m)
			if m:get_meta 'refuse' then kumo.reject(550, m:id()) end
			if m:get_meta 'change' then m:set_meta('changed', m:id()) end
			return m:id() .. ' ' .. m:recipient().email
		end
		kumo.on('make.it', function()
			local c = {}
			function c:send(m) return answer(m) end
			function c:send_batch(messages)
				local all = {}
				for i, m in ipairs(messages) do
					local ok, got = pcall(answer, m)
					all[i] = ok and got or { code = 550, message = m:id() }
				end
				return all
			end
			return c
		end)
		kumo.on('get_egress_path_config', function() return kumo.make_egress_path { connection_limit = 2 } end)`
	for _, size := range []int{1, 4} {
		t.Run(fmt.Sprint("batch_size=", size), func(t *testing.T) {
			rt, _ := quiet(t)
			withPolicy(t, rt, answer)
			p, err := rt.Protocol(QueueConfig{Protocol: ProtocolConfig{CustomLua: &CustomLua{Constructor: "make.it", BatchSize: size}}})
			if err != nil {
				t.Fatal(err)
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			const callers, each = 8, 200
			outcomes := make([]Outcome, callers*each)
			message := func(i int) *Message {
				msg := messageTo(fmt.Sprintf("user%d@hook.test", i))
				msg.ID, msg.Meta = fmt.Sprint("id", i), map[string]any{}
				switch i % 5 {
				case 1:
					msg.Meta["refuse"] = true
				case 2:
					msg.Meta["change"] = true
				}
				return msg
			}
			var calls sync.WaitGroup
			for caller := range callers {
				calls.Go(func() {
					for i := caller * each; i < (caller+1)*each; i++ {
						ctx := t.Context()
						if i%5 == 3 {
							ctx = gone
						}
						outcomes[i] = p.Deliver(ctx, message(i))
					}
				})
			}
			calls.Wait()
			for i, o := range outcomes {
				r, want, status, changed := o.Results[0], fmt.Sprintf("200 id%d user%d@hook.test", i, i), Delivered, ""
				switch i % 5 {
				case 1:
					want, status = fmt.Sprint("550 id", i), Permanent
				case 2:
					changed = fmt.Sprint("id", i)
				case 3:
					want, status = "000 ", Unsent
				}
				if r.Status != status || r.Response.String() != want || r.Recipient != fmt.Sprintf("user%d@hook.test", i) {
					t.Errorf("message %d: %s %q for %s (%v), want %q", i, r.Status, r.Response, r.Recipient, r.Err, want)
				}
				if (o.Changes != nil) != (changed != "") || changed != "" && o.Changes.Meta["changed"] != changed {
					t.Errorf("message %d: changes %+v", i, o.Changes)
				}
			}
		})
	}
}
