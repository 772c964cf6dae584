package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fates is a policy whose batches note each message, and then do with it what its meta says.
const fates = `
	kumo.on('make.it', function()
		kumo.sleep(0.3)
		if fails then error 'no luck' end
		local c = {}
		function c:send_batch(messages)
			local results = {}
			for i, m in ipairs(messages) do print(m:id()) end
			for i, m in ipairs(messages) do
				local fate = m:get_meta 'fate'
				kumo.sleep(m:get_meta 'takes')
				if fate == 'raise' then error 'raised' end
				if fate == 'reject' then kumo.reject(450, 'all of them') end
				results[i] = 'got ' .. m:id()
				if fate == 'code' then results[i] = {code = 421, message = 'got ' .. m:id()} end
				if fate == 'wrong' then results[i] = true end
			end
			return results
		end
		return c
	end)`

// TestTheFateOfAMessageInABatch: at random times, with callers that give up, scripts that fail, a policy that is
// replaced and a runtime that is closed, every call returns, a message is sent at most once, and its result says
// whether it was.
func TestTheFateOfAMessageInABatch(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 8))
			printed := &record{}
			rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: printed}
			path := fmt.Sprintf("kumo.on('get_egress_path_config', function() return kumo.make_egress_path "+
				"{ connection_limit = %d, max_deliveries_per_connection = %d, max_ready = %d, idle_timeout = '%ds', system_shutdown_timeout = '3s' } end)",
				1+random.IntN(3), 1+random.IntN(12), 5+random.IntN(50), 1+random.IntN(10))
			withPolicy(t, rt, fates+path)
			size := 2 + random.IntN(6)
			c, err := ParseQueueConfig(fmt.Appendf(nil, `{"protocol": {"custom_lua": {"constructor": "make.it", "batch_size": %d,
				"min_batch_size": %d, "max_batch_latency": %d}}}`, size, 1+random.IntN(size), random.IntN(3)))
			if err != nil {
				t.Fatal(err)
			}
			p, err := rt.Protocol(c)
			if err != nil {
				t.Fatal(err)
			}
			const messages = 60
			results := make([]Result, messages)
			var calls sync.WaitGroup
			for i := range messages {
				msg := messageTo("a@hook.test")
				msg.ID = fmt.Sprintf("m%d", i)
				msg.Queue = QueueName{Tenant: []string{"x", "y"}[random.IntN(2)], Domain: "hook.test"}
				fate := []string{"raise", "reject", "code", "wrong"}
				msg.Meta = map[string]any{"takes": float64(random.IntN(800)) / 1000, "fate": append(fate, make([]string, 30)...)[random.IntN(34)]}
				start, patience := time.Duration(random.IntN(10000))*time.Millisecond, time.Duration(random.IntN(9000))*time.Millisecond
				calls.Go(func() {
					time.Sleep(start)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					results[i] = p.Deliver(ctx, msg).Results[0]
				})
			}
			if seed%3 == 1 {
				time.Sleep(4 * time.Second)
				withPolicy(t, rt, fates+path+"\nfails = "+[]string{"true", "false"}[random.IntN(2)])
			}
			if seed%3 == 2 {
				time.Sleep(5 * time.Second)
				if err := rt.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			calls.Wait()
			if err := rt.Close(t.Context()); err != nil {
				t.Error(err)
			}
			sent := map[string]int{}
			for _, id := range strings.Fields(printed.String()) {
				sent[id]++
			}
			for i, r := range results {
				id := fmt.Sprintf("m%d", i)
				connected := !strings.Contains(r.Response.Text, "failed to connect")
				answered := strings.HasPrefix(r.Response.Text, "got ")
				if want := r.Status != Unsent && connected; sent[id] > 1 || (sent[id] == 1) != want || answered && r.Response.Text != "got "+id ||
					r.Status == Delivered && !answered {
					t.Errorf("seed %d: %s was sent %d times, and became %s %s (%v)", seed, id, sent[id], r.Status, r.Response, r.Err)
				}
			}
			for _, n := range rt.Stats().Ready {
				if n.Waiting != 0 {
					t.Errorf("seed %d: %+v", seed, n)
				}
			}
		})
	}
}
