package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// service is a web service that notes what it is asked.
func service(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string)) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		answer(w, r, string(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// underPolicy gives a runtime a policy of testdata.
func underPolicy(t *testing.T, rt *Runtime, name string) *Policy {
	t.Helper()
	p, err := rt.LoadPolicy(t.Context(), "testdata/policies/"+name+".lua")
	if err != nil {
		t.Fatal(err)
	}
	rt.SetPolicy(p)
	return p
}

func protocolFor(t *testing.T, rt *Runtime, p *Policy, queue string) Protocol {
	t.Helper()
	c, err := p.QueueConfig(t.Context(), ParseQueueName(queue))
	if err != nil {
		t.Fatal(err)
	}
	return protocolOf(t, rt, c.String())
}

func shown(r Result) string { return r.Status.String() + " " + r.Response.String() }

func TestPolicyWebhook(t *testing.T) {
	var mu sync.Mutex
	tries := map[string]int{}
	url := service(t, func(w http.ResponseWriter, r *http.Request, body string) {
		var got struct {
			ID, Sender, Data string
			Attempts         int
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || r.Header.Get("Content-Type") != "application/json" || r.Method != "POST" {
			t.Errorf("%s %v: %v", r.Method, r.Header, err)
		}
		mu.Lock()
		tries[got.ID]++
		mu.Unlock()
		switch {
		case got.ID == "busy" && got.Attempts == 0:
			http.Error(w, "slow down", http.StatusTooManyRequests)
		case got.ID == "bad":
			http.Error(w, "what is this", http.StatusBadRequest)
		default:
			fmt.Fprintf(w, "%s from %s, %d bytes", got.ID, got.Sender, len(got.Data))
		}
	})
	rt, _ := quiet(t)
	p := protocolFor(t, rt, underPolicy(t, rt, "webhook"), "webhook")
	send := func(id string, attempts int) string {
		msg := messageTo("a@webhook")
		msg.ID, msg.Attempts, msg.Meta = id, attempts, map[string]any{"url": url}
		return shown(p.Deliver(t.Context(), msg).Results[0])
	}
	for _, step := range []struct {
		id       string
		attempts int
		want     string
	}{
		{"good", 0, "delivered 200 200 OK: good from sender@example.org, 25 bytes"},
		{"busy", 0, "transient 400 429 Too Many Requests: slow down "},
		{"bad", 0, "permanent 500 400 Bad Request: what is this "},
		{"busy", 1, "delivered 200 200 OK: busy from sender@example.org, 25 bytes"},
	} {
		if got := send(step.id, step.attempts); got != step.want {
			t.Errorf("%s: %q, want %q", step.id, got, step.want)
		}
	}
	if want := map[string]int{"good": 1, "busy": 2, "bad": 1}; !reflect.DeepEqual(tries, want) {
		t.Errorf("%v requests, want %v", tries, want)
	}
	if opened := rt.Stats().Opened; opened != 1 {
		t.Errorf("%d connections", opened)
	}
}

// TestPolicyBatchWebhook is KumoMTA's own case: 20 records in few calls, and here each with its result.
func TestPolicyBatchWebhook(t *testing.T) {
	var mu sync.Mutex
	var sizes []int
	url := service(t, func(w http.ResponseWriter, r *http.Request, body string) {
		var list []struct{ ID, Data string }
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Error(err)
		}
		answers := make([]string, len(list))
		for i, m := range list {
			answers[i] = "taken"
			if strings.HasSuffix(m.ID, "7") {
				answers[i] = "not " + m.ID
			}
		}
		mu.Lock()
		sizes = append(sizes, len(list))
		mu.Unlock()
		json.NewEncoder(w).Encode(answers)
	})
	rt, _ := quiet(t)
	p := protocolFor(t, rt, underPolicy(t, rt, "webhook-batch"), "webhook")
	results := make([]string, 20)
	var calls sync.WaitGroup
	for i := range results {
		calls.Go(func() {
			msg := messageTo("a@webhook")
			msg.ID, msg.Meta = fmt.Sprint("m", i), map[string]any{"url": url}
			results[i] = shown(p.Deliver(t.Context(), msg).Results[0])
		})
		if i%10 == 9 {
			calls.Wait()
		}
	}
	for i, got := range results {
		want := "delivered 200 taken"
		if i%10 == 7 {
			want = fmt.Sprintf("transient 451 not m%d", i)
		}
		if got != want {
			t.Errorf("m%d: %s, want %s", i, got, want)
		}
	}
	if !slices.Equal(sizes, []int{10, 10}) {
		t.Errorf("requests of %v messages", sizes)
	}
}

func TestPolicyTenants(t *testing.T) {
	url := service(t, func(w http.ResponseWriter, r *http.Request, body string) {
		user, password, _ := r.BasicAuth()
		if user == "umbrella" {
			http.Error(w, "who", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "%s %s %s:%s", r.Method, r.URL.Path, user, password)
	})
	rt, _ := quiet(t)
	policy := underPolicy(t, rt, "tenants")
	for _, step := range []struct{ queue, tenant, want string }{
		{"acme@x.test", "acme", "delivered 200 PUT /acme acme:a-secret"},
		{"umbrella@x.test", "umbrella", "transient 450 the credentials of umbrella are refused"},
		{"acme@x.test", "umbrella", "permanent 500 a message of umbrella on a connection of acme"},
		{"acme@x.test", "acme", "delivered 200 PUT /acme acme:a-secret"},
	} {
		msg := messageTo("a@x.test")
		msg.Queue, msg.Meta = ParseQueueName(step.queue), map[string]any{"url": url, "tenant": step.tenant}
		if got := shown(protocolFor(t, rt, policy, step.queue).Deliver(t.Context(), msg).Results[0]); got != step.want {
			t.Errorf("%+v: %s", step, got)
		}
	}
	if c, err := policy.QueueConfig(t.Context(), ParseQueueName("nobody@x.test")); err != nil || c.Protocol.Maildir == nil {
		t.Errorf("%s, %v", c, err)
	}
}

// TestPolicyRecords: a policy that was written for KumoMTA, as a host with log hooks uses it.
func TestPolicyRecords(t *testing.T) {
	rt, log := quiet(t)
	policy := underPolicy(t, rt, "records")
	if !strings.Contains(log.String(), "configure_log_hook") || strings.Contains(log.String(), "use_count") {
		t.Errorf("ignored: %s", log)
	}
	wanted := func(meta map[string]any, hook string) bool {
		got, err := policy.Call(t.Context(), "should_enqueue_log_record", &EventMessage{Message: func() *Message {
			msg := messageTo("a@b.test")
			msg.Meta = meta
			return msg
		}()}, hook)
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		return got[0].(bool)
	}
	record := func(kind string) map[string]any {
		return map[string]any{"log_record": map[string]any{"type": kind, "recipient": "a@b.test", "code": 250, "secret": "x"}}
	}
	if !wanted(record("Delivery"), "records") || wanted(record("Reception"), "records") || wanted(record("Delivery"), "other") || wanted(nil, "records") {
		t.Error("the hook takes what it should not, or does not take what it should")
	}
	p := protocolFor(t, rt, policy, "tenant@example.com")
	msg := messageTo("Ann@Example.com", "bob@example.com")
	msg.Queue, msg.Meta = ParseQueueName("tenant@example.com"), record("Delivery")
	want := `{"code":250,"label":"example.com/tenant","recipient":"a@b.test","sender":"sender@example.org","to":["ann@example.com","bob@example.com"],"tries":0,"type":"Delivery"}`
	for i := range 2 {
		if got := shown(p.Deliver(t.Context(), msg).Results[0]); got != fmt.Sprintf("delivered 200 %d: %d bytes", i+1, len(want)) {
			t.Error(got)
		}
	}
	msg.Meta = nil
	if got := shown(p.Deliver(t.Context(), msg).Results[1]); got != "permanent 500 not a log record: m1" {
		t.Error(got)
	}
}

// bus is a message bus in Go, of which Lua has the client.
type bus struct {
	mu     sync.Mutex
	topics map[string][]string
	closed int
}

func (b *bus) publish(topic, data string) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.Contains(data, "too big") {
		return 0, errors.New("the bus is full")
	}
	b.topics[topic] = append(b.topics[topic], data)
	return len(b.topics[topic]), nil
}

func (b *bus) load(L *lua.LState) int {
	methods := L.NewTypeMetatable("host.queue.topic")
	methods.RawSetString("__index", L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"publish": func(L *lua.LState) int {
			offset, err := b.publish(L.CheckUserData(1).Value.(string), L.CheckString(2))
			if err != nil {
				L.RaiseError("%v", err)
			}
			L.Push(lua.LNumber(offset))
			return 1
		},
		"close": func(L *lua.LState) int {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.closed++
			return 0
		},
	}))
	L.Push(L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{"topic": func(L *lua.LState) int {
		L.Push(&lua.LUserData{Value: L.CheckString(1), Metatable: methods})
		return 1
	}}))
	return 1
}

func TestPolicyQueueClient(t *testing.T) {
	rt, _ := quiet(t)
	b := &bus{topics: map[string][]string{}}
	rt.LuaModules = map[string]lua.LGFunction{"host.queue": b.load}
	underPolicy(t, rt, "queue")
	c, err := ParseQueueConfig([]byte(`{"protocol": {"custom_lua": {"constructor": "make.queue", "batch_size": 3, "min_batch_size": 3, "max_batch_latency": "1h"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	var got [3]string
	var calls sync.WaitGroup
	for i, data := range []string{"one", "too big", "two"} {
		calls.Go(func() {
			msg := messageTo("a@orders")
			msg.Body = Bytes(data)
			got[i] = shown(p.Deliver(t.Context(), msg).Results[0])
		})
	}
	calls.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	slices.Sort(got[:])
	if got[0] != "delivered 200 offset 1" || got[1] != "delivered 200 offset 2" || !strings.HasPrefix(got[2], "transient 451 ") || !strings.HasSuffix(got[2], "the bus is full") {
		t.Errorf("%q", got)
	}
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if b.closed != 1 || len(b.topics["orders"]) != 2 {
		t.Errorf("%+v", b)
	}
}
