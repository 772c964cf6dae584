package delivery_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mtadelivery/delivery"
	lua "github.com/yuin/gopher-lua"
)

// A policy chooses how the mail of a queue leaves; one call delivers one message and says what
// happened to each recipient.
func Example() {
	ctx := context.Background()
	root, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(root)
	os.Setenv("MAIL_ROOT", root)

	var rt delivery.Runtime
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
			return kumo.make_queue_config {
				protocol = { maildir_path = os.getenv 'MAIL_ROOT' .. '/{{ domain_part }}/{{ local_part }}' },
			}
		end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	rt.SetPolicy(policy)

	msg := &delivery.Message{
		From:       "sender@example.org",
		Recipients: []delivery.Recipient{{Address: "ann@example.com"}, {Address: `"../../bob"@example.com`}},
		Body:       delivery.Bytes("Subject: hello\r\n\r\nhello\r\n"),
	}
	queue, _ := msg.QueueName()
	config, err := policy.QueueConfig(ctx, queue)
	if err != nil {
		fmt.Println(err)
		return
	}
	protocol, err := rt.Protocol(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protocol.Close(ctx)
	for _, r := range protocol.Deliver(ctx, msg).Results {
		fmt.Println(r.Recipient, r.Status, r.Response.Code)
	}
	// Output:
	// ann@example.com delivered 200
	// "../../bob"@example.com permanent 550
}

// deliverByLua is a runtime with a policy whose connections do what the Lua text says, and a protocol
// that uses them.
func deliverByLua(send string) (rt *delivery.Runtime, protocol delivery.Protocol) {
	rt = &delivery.Runtime{Logger: slog.New(slog.DiscardHandler)}
	policy, err := rt.ParsePolicy(context.Background(), "policy.lua", []byte(
		"kumo.on('make.connection', function() return { send = function(self, message) "+send+" end } end)"))
	if err != nil {
		panic(err)
	}
	rt.SetPolicy(policy)
	protocol, err = rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		CustomLua: &delivery.CustomLua{Constructor: "make.connection"}}})
	if err != nil {
		panic(err)
	}
	return rt, protocol
}

func message() *delivery.Message {
	return &delivery.Message{
		ID: "1", From: "a@example.org", Recipients: []delivery.Recipient{{Address: "b@example.com"}},
		Body: delivery.Bytes("Subject: hello\r\n\r\nhello\r\n"),
	}
}

func ExampleRuntime() {
	ctx := context.Background()
	rt := &delivery.Runtime{
		Logger:   slog.New(slog.DiscardHandler),
		Hostname: "mx.example.org",
	}
	protocol, err := rt.Protocol(delivery.QueueConfig{}) // SMTP to the MX of the domain
	fmt.Println(err)
	protocol.Close(ctx)
	fmt.Println(rt.Close(ctx))
	_, err = rt.Protocol(delivery.QueueConfig{})
	fmt.Println(err)
	// Output:
	// <nil>
	// <nil>
	// delivery: closed
}

func ExampleProtocol() {
	ctx := context.Background()
	rt, protocol := deliverByLua("return 'OK'")
	defer rt.Close(ctx)
	defer protocol.Close(ctx)
	plan, _ := protocol.Plan(ctx, message())
	fmt.Println(plan.ReadyName)
	outcome := protocol.Deliver(ctx, message())
	fmt.Println(outcome.Results[0].Status, outcome.Results[0].Response)
	// Output:
	// unspecified->example.com@lua:make.connection
	// delivered 200 OK
}

func ExampleMessage() {
	msg := message()
	msg.Recipients = append(msg.Recipients, delivery.Recipient{Address: "two words@example.com"})
	fmt.Println(msg.Validate())
	fmt.Println(msg.QueueName())
	// Output:
	// Recipients[1]: "two words@example.com": there is a space outside quotes
	// example.com <nil>
}

func ExampleMessageError() {
	err := (&delivery.Message{Body: delivery.Bytes("x")}).Validate()
	var e *delivery.MessageError
	if errors.As(err, &e) {
		fmt.Println(e.Field)
	}
	// Output: Recipients
}

func ExampleRecipient() {
	// What a go-smtp server received goes on as it is.
	r := delivery.Recipient{
		Address: "user@example.com",
		Options: &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure}},
	}
	fmt.Println(r.Address, r.Options.Notify)
	// Output: user@example.com [FAILURE]
}

// spooled is a Body of a host with a spool of its own.
type spooled struct{ text string }

func (s spooled) Size() int64                  { return int64(len(s.text)) }
func (s spooled) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s.text)), nil }

func ExampleBody() {
	var body delivery.Body = spooled{"Subject: hello\r\n\r\n"}
	r, _ := body.Open()
	defer r.Close()
	content, _ := io.ReadAll(r)
	fmt.Println(int64(len(content)) == body.Size())
	// Output: true
}

func ExampleBytes() {
	body := delivery.Bytes("Subject: hello\r\n\r\n")
	fmt.Println(body.Size())
	// Output: 18
}

func ExampleFile() {
	_, err := delivery.File("no/such/file")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output: true
}

func ExampleQueueName() {
	q := delivery.ParseQueueName("campaign:tenant@example.com!mx.example.net")
	fmt.Println(q.Campaign, q.Tenant, q.Domain, q.RoutingDomain)
	fmt.Println(delivery.QueueName{Tenant: "tenant", Domain: "example.com"})
	// Output:
	// campaign tenant example.com mx.example.net
	// tenant@example.com
}

func ExampleOutcome() {
	rt, protocol := deliverByLua("kumo.reject(450, 'busy')")
	defer rt.Close(context.Background())
	outcome := protocol.Deliver(context.Background(), message())
	for _, r := range outcome.Results {
		switch r.Status {
		case delivery.Delivered, delivery.Permanent:
			fmt.Println("done with", r.Recipient)
		case delivery.Transient:
			fmt.Println("count an attempt for", r.Recipient, "and try later:", r.Response)
		case delivery.Unsent:
			fmt.Println("try", r.Recipient, "again after", r.RetryAfter)
		}
	}
	// Output: count an attempt for b@example.com and try later: 450 busy
}

func ExampleChanges() {
	rt, protocol := deliverByLua("message:set_meta('seen', true) return 'OK'")
	defer rt.Close(context.Background())
	outcome := protocol.Deliver(context.Background(), message())
	fmt.Println(outcome.Changes.Meta, outcome.Changes.Body)
	// Output: map[seen:true] <nil>
}

func ExampleResult() {
	r := delivery.Result{Status: delivery.Transient, MaybeDelivered: true}
	if r.MaybeDelivered {
		fmt.Println("sending again may make a duplicate")
	}
	// Output: sending again may make a duplicate
}

func ExampleStatus() {
	var zero delivery.Status
	fmt.Println(zero, delivery.Delivered, delivery.Permanent, delivery.Unsent)
	// Output: transient delivered permanent unsent
}

func ExampleScope() {
	fmt.Println(delivery.ScopeRecipient, delivery.ScopeMessage, delivery.ScopeReadyName)
	// Output: recipient message ready name
}

func ExampleResponse() {
	fmt.Println(delivery.Response{Code: 550, Enhanced: delivery.EnhancedCode{5, 1, 1}, Text: "User\nunknown", Command: "RCPT"})
	// Output: 550 5.1.1 User unknown
}

func ExampleEnhancedCode() {
	fmt.Printf("%q %q\n", delivery.EnhancedCode{2, 0, 0}, delivery.EnhancedCode{})
	// Output: "2.0.0" ""
}

func ExampleSession() {
	rt, protocol := deliverByLua("return 'OK'")
	defer rt.Close(context.Background())
	s := protocol.Deliver(context.Background(), message()).Results[0].Session
	fmt.Println(s.Protocol, s.Peer, len(s.ID))
	// Output: lua Lua via make.connection 32
}

func ExampleTLSInfo() {
	s := delivery.Session{TLS: &delivery.TLSInfo{Version: "TLS 1.3", Verified: true, By: "pkix"}}
	fmt.Println(s.TLS != nil && s.TLS.Verified)
	// Output: true
}

func ExamplePlan() {
	rt := &delivery.Runtime{}
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		SMTP: &delivery.SMTP{MXList: []delivery.MXEntry{{Name: "[192.0.2.1]:2025"}, {Name: "mx.example.com", Addr: "192.0.2.2"}}}}})
	plan, err := protocol.Plan(context.Background(), message())
	fmt.Println(plan.Protocol, plan.ReadyName, err)
	for _, h := range plan.Hosts {
		fmt.Println(h.Host, h.Address)
	}
	// Output:
	// smtp unspecified->mx_list:[192.0.2.1]:2025,192.0.2.2@smtp_client <nil>
	// [192.0.2.1] 192.0.2.1:2025
	// mx.example.com 192.0.2.2:25
}

func ExamplePlanError() {
	var rt delivery.Runtime // in which loopback is prohibited
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		SMTP: &delivery.SMTP{MXList: []delivery.MXEntry{{Name: "[127.0.0.1]"}}}}})
	_, err := protocol.Plan(context.Background(), message())
	var e *delivery.PlanError
	if errors.As(err, &e) {
		fmt.Println(e.Status, e.Response)
	}
	// Output: permanent 550 5.4.4 [127.0.0.1] (127.0.0.1) is on the list of prohibited_hosts
}

func ExamplePlannedHost() {
	h := delivery.PlannedHost{Host: "mx.example.com", Err: errors.New("does not exist")}
	fmt.Println(h.Host, h.Err)
	// Output: mx.example.com does not exist
}

func ExamplePlannedPath() {
	rt := &delivery.Runtime{}
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		Maildir: &delivery.Maildir{Path: "/maildirs/{{ domain_part }}/{{ local_part }}"}}})
	plan, _ := protocol.Plan(context.Background(), message())
	fmt.Println(plan.Paths[0].Recipient, filepath.ToSlash(plan.Paths[0].Path))
	// Output: b@example.com /maildirs/example.com/b
}

// What was delivered is there for whoever reads Maildirs.
func ExamplePlannedPath_Dir() {
	ctx := context.Background()
	root, err := os.MkdirTemp("", "maildirs")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	rt := &delivery.Runtime{}
	defer rt.Close(ctx)
	protocol, _ := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		Maildir: &delivery.Maildir{Path: root + "/{{ domain_part }}/{{ local_part }}"}}})
	defer protocol.Close(ctx)

	outcome := protocol.Deliver(ctx, message())
	plan, _ := protocol.Plan(ctx, message())
	messages, err := plan.Paths[0].Dir().Unseen()
	fmt.Println(outcome.Results[0].Status, len(messages), err)
	// Output: delivered 1 <nil>
}

func ExampleSchedule() {
	office := delivery.Schedule{Days: []time.Weekday{time.Monday, time.Friday}, Zone: time.UTC, Start: 9 * time.Hour, End: 17 * time.Hour}
	saturday := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	fmt.Println(office.Next(saturday).Format(time.RFC1123))
	// Output: Mon, 23 Nov 2026 09:00:00 UTC
}

func ExampleQueueConfig() {
	config, err := delivery.ParseQueueConfig([]byte(`{"protocol": {"smtp": {"mx_list": ["smart.host.local:2025"]}}, "retry_interval": "1m"}`))
	fmt.Println(config.Protocol.SMTP.MXList[0].Name, config.RetryInterval, config.MaxAge, err)
	fmt.Println(config.RetryDelay(3))
	_, err = delivery.ParseQueueConfig([]byte(`{"protocol": {"smtp": {"mxlist": []}}}`))
	fmt.Println(err)
	// Output:
	// smart.host.local:2025 1m 7days <nil>
	// 4m0s
	// protocol.smtp.mxlist: unknown field (did you mean "mx_list"?)
}

func ExampleConfigError() {
	_, err := delivery.ParseQueueConfig([]byte(`{"protocol": {"smtp": {"mx_list": ["a", "b", "c:70000"]}}}`))
	var e *delivery.ConfigError
	if errors.As(err, &e) {
		fmt.Println(e.Field)
		fmt.Println(e.Reason)
	}
	// Output:
	// protocol.smtp.mx_list[2]
	// port 70000 is out of range (1 to 65535)
}

func ExampleProtocolConfig() {
	text, _ := json.Marshal(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		Maildir: &delivery.Maildir{Path: "/var/mail/{{ email }}"}}})
	protocol, _, _ := strings.Cut(string(text), ",\"") // every default is printed
	fmt.Println(protocol)
	// Output: {"protocol":{"maildir_path":"/var/mail/{{ email }}"
}

func ExampleShrinkEntry() {
	c, err := delivery.ParseQueueConfig([]byte(`{"shrink_policy": [{"interval": "1h", "policy": "ShrinkData"}]}`))
	fmt.Println(c.ShrinkPolicy[0].Policy, err) // accepted, and without effect
	// Output: ShrinkData <nil>
}

func ExampleSMTP() {
	smart := delivery.SMTP{MXList: []delivery.MXEntry{{Name: "smart.host.local"}, {Name: "[10.0.0.1]:2025"}}}
	fmt.Println(smart.Validate())
	// Output: <nil>
}

func ExampleMXEntry() {
	for _, e := range []delivery.MXEntry{{Name: "host:70000"}, {Name: "mx.example.com", Addr: "host"}} {
		fmt.Println((&delivery.SMTP{MXList: []delivery.MXEntry{e}}).Validate())
	}
	// Output:
	// mx_list[0]: port 70000 is out of range (1 to 65535)
	// mx_list[0].addr: "host" is not an IP address; a name alone is written as a plain text
}

func ExampleMaildir() {
	m := delivery.Maildir{Path: "/maildirs/{{ domain_part }}/{{ local_part }}", DirMode: new(delivery.Mode(0o2775))}
	fmt.Println(m.Validate())
	m.Path = "/maildirs/{{ local_prat }}"
	fmt.Println(m.Validate() != nil)
	// Output:
	// <nil>
	// true
}

func ExampleMode() {
	var m delivery.Mode
	fmt.Println(json.Unmarshal([]byte(`"2775"`), &m), m, uint32(m))
	// Output: <nil> 02775 1533
}

func ExampleCustomLua() {
	fmt.Println((&delivery.CustomLua{Constructor: "make.webhook"}).Validate())
	fmt.Println((&delivery.CustomLua{Constructor: "init"}).Validate())
	// Output:
	// <nil>
	// constructor: "init" is the name of an event that has a meaning already
}

func ExamplePolicy() {
	ctx := context.Background()
	var rt delivery.Runtime
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('get_queue_config', function(domain)
			return kumo.make_queue_config { max_age = domain == 'slow.example' and '14 days' or '1 day' }
		end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	config, err := policy.QueueConfig(ctx, delivery.QueueName{Domain: "slow.example"})
	fmt.Println(config.MaxAge, err)
	_, err = rt.ParsePolicy(ctx, "policy.lua", []byte("\nkumo.make_egress_path { smtp_port = 70000 }"))
	fmt.Println(err)
	// Output:
	// 14days <nil>
	// policy.lua:2: smtp_port: 70000 is out of range (1 to 65535)
}

func ExampleLuaModule() {
	ctx := context.Background()
	var rt delivery.Runtime
	defer rt.Close(ctx)
	L := lua.NewState() // the host's own
	defer L.Close()
	module := rt.InstallLua(L)
	if err := L.DoString(`kumo.on('get_queue_config', function(domain)
		return kumo.make_queue_config { egress_pool = domain } end)`); err != nil {
		fmt.Println(err)
	}
	config, err := module.QueueConfig(ctx, delivery.QueueName{Domain: "example.com"})
	fmt.Println(config.EgressPool, err)
	// Output: example.com <nil>
}

// Messages that are delivered at the same time go to send_batch together. It may say for each of them what
// became of it.
func ExampleCustomLua_batch() {
	ctx := context.Background()
	rt := delivery.Runtime{Logger: slog.New(slog.DiscardHandler)}
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('make.batch', function(domain, tenant, campaign)
			return { send_batch = function(self, messages)
				local results = {}
				for i, message in ipairs(messages) do
					if message:id() == '2' then
						results[i] = { code = 550, message = 'not this one' }
					else
						results[i] = 'one of ' .. #messages
					end
				end
				return results
			end }
		end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	rt.SetPolicy(policy)
	protocol, err := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{CustomLua: &delivery.CustomLua{
		Constructor: "make.batch", BatchSize: 100, MinBatchSize: 3, MaxBatchLatency: delivery.Duration(time.Minute)}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protocol.Close(ctx)
	var calls sync.WaitGroup
	results := make([]delivery.Result, 3)
	for i := range results {
		calls.Go(func() {
			msg := message()
			msg.ID = fmt.Sprint(i + 1)
			results[i] = protocol.Deliver(ctx, msg).Results[0]
		})
	}
	calls.Wait()
	for _, r := range results {
		fmt.Println(r.Status, r.Response)
	}
	// Output:
	// delivered 200 one of 3
	// permanent 550 not this one
	// delivered 200 one of 3
}

// topics is a host's client of a message queue.
type topics struct {
	mu   sync.Mutex
	sent map[string]int
}

// Loader is its module for Lua: topics.publish(topic, text) returns how many messages the topic has.
func (q *topics) Loader(L *lua.LState) int {
	L.Push(L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"publish": func(L *lua.LState) int {
			topic, text := L.CheckString(1), L.CheckString(2)
			if err := L.Context().Err(); err != nil || text == "" { // a real client waits with L.Context()
				L.RaiseError("not published: %v", err)
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			q.sent[topic]++
			L.Push(lua.LNumber(q.sent[topic]))
			return 1
		},
	}))
	return 1
}

// A queue client of the host's, as a module that its policies require.
func ExampleRuntime_luaModules() {
	ctx := context.Background()
	queue := &topics{sent: map[string]int{}}
	rt := delivery.Runtime{LuaModules: map[string]lua.LGFunction{"topics": queue.Loader}}
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		local topics = require 'topics'
		kumo.on('make.queue', function(domain)
			return { send = function(self, message)
				return 'offset ' .. topics.publish(domain, message:get_data())
			end }
		end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	rt.SetPolicy(policy)
	protocol, err := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		CustomLua: &delivery.CustomLua{Constructor: "make.queue"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer protocol.Close(ctx)
	for range 2 {
		fmt.Println(protocol.Deliver(ctx, message()).Results[0].Response)
	}
	fmt.Println(queue.sent)
	// Output:
	// 200 offset 1
	// 200 offset 2
	// map[example.com:2]
}

func ExamplePolicy_Call() {
	ctx := context.Background()
	var rt delivery.Runtime
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('my.backup_hosts', function(domain, options)
			return { 'mx1.' .. domain, 'mx2.' .. domain, ttl = nil }, options.ttl * 2
		end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	results, err := policy.Call(ctx, "my.backup_hosts", "example.com", map[string]any{"ttl": 30})
	fmt.Println(results, err)
	results, err = policy.Call(ctx, "my.other_event")
	fmt.Println(results == nil, err)
	// Output:
	// [[mx1.example.com mx2.example.com] 60] <nil>
	// true <nil>
}

func ExampleEventMessage() {
	ctx := context.Background()
	var rt delivery.Runtime
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('requeue_message', function(message, response)
			message:set_meta('last_response', response)
		end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	m := &delivery.EventMessage{Message: message()}
	_, err = policy.Call(ctx, "requeue_message", m, "450 later")
	fmt.Println(m.Changes.Meta, err)
	// Output: map[last_response:450 later] <nil>
}

func ExampleLuaLimits() {
	ctx := context.Background()
	rt := delivery.Runtime{Lua: delivery.LuaLimits{
		Running: 50 * time.Millisecond,
		Memory:  32 << 20,
		Forbid:  []string{"io", "os.remove"},
	}}
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('forever', function()
			while true do pcall(function() while true do end end) end
		end)
		kumo.on('files', function() return io.open('/etc/passwd') end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = policy.Call(ctx, "forever")
	fmt.Println(err, errors.Is(err, delivery.ErrLuaLimit))
	_, err = policy.Call(ctx, "files")
	fmt.Println(err)
	// Output:
	// policy.lua:3: ran too long: more than 50ms true
	// policy.lua:5: io.open is not available
}

func ExampleLuaRejection() {
	ctx := context.Background()
	var rt delivery.Runtime
	defer rt.Close(ctx)
	policy, err := rt.ParsePolicy(ctx, "policy.lua", []byte(`
		kumo.on('requeue_message', function() kumo.reject(550, 'tried for long enough') end)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = policy.Call(ctx, "requeue_message")
	if r, ok := errors.AsType[*delivery.LuaRejection](err); ok {
		fmt.Println(r.Code, r.Text)
	}
	// Output: 550 tried for long enough
}

func ExampleLuaCall() {
	ctx := context.Background()
	rt, protocol := deliverByLua("kumo.reject(450, 'later')")
	defer rt.Close(ctx)
	rt.Trace = &delivery.Trace{LuaCalled: func(c delivery.LuaCall) { fmt.Println(c.Name, c.Messages, c.Err) }}
	protocol.Deliver(ctx, message())
	// Output:
	// make.connection 0 <nil>
	// send 1 450 later
}

// fixed is the Egress of a host without Lua.
type fixed struct{}

func (fixed) EgressPool(_ context.Context, name string) (delivery.EgressPool, error) {
	return delivery.EgressPool{Name: name, Entries: []delivery.PoolEntry{{Name: "10.0.0.1"}, {Name: "10.0.0.2", Weight: new(3)}}}, nil
}

func (fixed) EgressSource(_ context.Context, name string) (delivery.EgressSource, error) {
	addr, err := netip.ParseAddr(name)
	return delivery.EgressSource{Name: name, SourceAddress: addr}, err
}

func (fixed) EgressPath(_ context.Context, routingDomain, source, site string) (delivery.EgressPath, error) {
	return delivery.EgressPath{ConnectionLimit: delivery.Limit{Count: 10}, EnablePipelining: delivery.Off}, nil
}

func ExampleEgress() {
	rt := delivery.Runtime{Egress: fixed{}}
	defer rt.Close(context.Background())
	path, _ := rt.Egress.EgressPath(context.Background(), "example.com", "10.0.0.1", "mx.example.com")
	fmt.Println(path.ConnectionLimit.Count)
	// Output: 10
}

func ExampleEgressPath() {
	path, err := delivery.ParseEgressPath([]byte(`{"enable_tls": "Required", "prohibited_hosts": [], "idle_timeout": "30s"}`))
	fmt.Println(path.EnableTLS, len(path.ProhibitedHosts), path.IdleTimeout, path.SMTPPort, err)
	_, err = delivery.ParseEgressPath([]byte(`{"enable_tls": "Always"}`))
	fmt.Println(err)
	// Output:
	// Required 0 30s 25 <nil>
	// enable_tls: "Always" is not one of Opportunistic, OpportunisticInsecure, Required, RequiredInsecure, Disabled
}

func ExampleEgressSource() {
	source, err := delivery.ParseEgressSource([]byte(`{"name": "a", "source_address": "192.0.2.1", "remote_port": 2525}`))
	fmt.Println(source.SourceAddress, source.RemotePort, err)
	// Output: 192.0.2.1 2525 <nil>
}

func ExampleEgressPool() {
	pool, err := delivery.ParseEgressPool([]byte(`{"name": "p", "entries": [{"name": "a", "weight": 2}, {"name": "b"}]}`))
	fmt.Println(pool.Entries[0].Name, pool.TTL, err)
	// Output: a 1m <nil>
}

func ExamplePoolEntry() {
	out := delivery.PoolEntry{Name: "resting", Weight: new(0)}
	fmt.Println(*out.Weight)
	// Output: 0
}

func ExampleKeySource() {
	var k delivery.KeySource
	fmt.Println(json.Unmarshal([]byte(`"/etc/tls/client.pem"`), &k), k.File)
	fmt.Println(json.Unmarshal([]byte(`{"key_data": "secret"}`), &k), k.Data)
	// Output:
	// <nil> /etc/tls/client.pem
	// <nil> secret
}

func ExampleSuspension() {
	source, err := delivery.ParseEgressSource([]byte(`{"name": "a", "source_address": "192.0.2.1",
		"suspend_when_unplumbed": {"trigger": {"Threshold": "3/min"}, "duration": "1h"}}`))
	fmt.Println(source.SuspendWhenUnplumbed.Trigger.Threshold, source.SuspendWhenUnplumbed.Duration, err)
	// Output: 3/min 1h <nil>
}

func ExampleTrigger() {
	var t delivery.Trigger
	fmt.Println(json.Unmarshal([]byte(`{"Threshold": "3/min"}`), &t), t.Threshold)
	// Output: <nil> 3/min
}

func ExampleSwitch() {
	var s delivery.Switch
	fmt.Println(s == delivery.Default, json.Unmarshal([]byte(`false`), &s), s == delivery.Off)
	// Output: true <nil> true
}

func ExampleDuration() {
	var d delivery.Duration
	fmt.Println(json.Unmarshal([]byte(`"1h 30m"`), &d), d, time.Duration(d).Minutes())
	fmt.Println(json.Unmarshal([]byte(`90`), &d), d)
	// Output:
	// <nil> 1h 30m 90
	// <nil> 1m 30s
}

func ExampleRate() {
	var r delivery.Rate
	fmt.Println(r.UnmarshalText([]byte("1_000/5min,max_burst=10")), r.Limit, r.Per, r.MaxBurst)
	// Output: <nil> 1000 5m0s 10
}

func ExampleLimit() {
	var l delivery.Limit
	fmt.Println(json.Unmarshal([]byte(`"local:1,000"`), &l), l.Count, l.Local)
	// Output: <nil> 1000 true
}

func ExampleTrace() {
	trace := &delivery.Trace{
		Dialing:  func(ready string, to delivery.DialRequest) { fmt.Println("dialing", to.Host, to.Address) },
		Received: func(s *delivery.Session, line string) { fmt.Println(s.Peer, "says", line) },
	}
	trace.Dialing("unspecified->mx.example.com@smtp_client", delivery.DialRequest{Host: "mx.example.com", Address: "192.0.2.1:25"})
	trace.Received(&delivery.Session{Peer: "mx.example.com"}, "220 mx.example.com ESMTP")
	// Output:
	// dialing mx.example.com 192.0.2.1:25
	// mx.example.com says 220 mx.example.com ESMTP
}

func ExampleDialRequest() {
	rt := delivery.Runtime{
		// Through a gateway of the host's own; the address was checked and is dialled as it is.
		Dial: func(ctx context.Context, to delivery.DialRequest) (net.Conn, error) {
			return nil, fmt.Errorf("no way to %s", to.Address)
		},
	}
	_, err := rt.Dial(context.Background(), delivery.DialRequest{Network: "tcp", Address: "192.0.2.1:25"})
	fmt.Println(err)
	// Output: no way to 192.0.2.1:25
}

func ExampleStats() {
	rt, protocol := deliverByLua("return 'OK'")
	defer rt.Close(context.Background())
	protocol.Deliver(context.Background(), message())
	stats := rt.Stats()
	fmt.Println(stats.Opened, stats.Ready[0].Name, stats.Ready[0].Idle)
	// Output: 1 unspecified->example.com@lua:make.connection 1
}

func ExampleReadyStats() {
	r := delivery.ReadyStats{Name: "unspecified->mx.example.com@smtp_client", Busy: 3, Idle: 1}
	fmt.Println(r.Name, r.Busy+r.Idle)
	// Output: unspecified->mx.example.com@smtp_client 4
}

// metrics writes the counts and gauges of a runtime as Prometheus reads them.
func metrics(w io.Writer, rt *delivery.Runtime) {
	stats := rt.Stats()
	for _, m := range []struct {
		name, kind string
		of         func(delivery.ReadyStats) uint64
	}{
		{"delivery_sessions_busy", "gauge", func(r delivery.ReadyStats) uint64 { return uint64(r.Busy) }},
		{"delivery_sessions_idle", "gauge", func(r delivery.ReadyStats) uint64 { return uint64(r.Idle) }},
		{"delivery_waiting", "gauge", func(r delivery.ReadyStats) uint64 { return uint64(r.Waiting) }},
		{"delivery_delivered_total", "counter", func(r delivery.ReadyStats) uint64 { return r.Delivered }},
		{"delivery_transient_total", "counter", func(r delivery.ReadyStats) uint64 { return r.Transient }},
		{"delivery_sessions_opened_total", "counter", func(r delivery.ReadyStats) uint64 { return r.Opened }},
	} {
		fmt.Fprintf(w, "# TYPE %s %s\n", m.name, m.kind)
		for _, r := range stats.Ready {
			fmt.Fprintf(w, "%s{ready=%q} %d\n", m.name, r.Name, m.of(r))
		}
	}
}

func ExampleRuntime_Stats() {
	rt, protocol := deliverByLua("return 'OK'")
	defer rt.Close(context.Background())
	protocol.Deliver(context.Background(), message())
	metrics(os.Stdout, rt) // in a host: from the handler of /metrics
	// Output:
	// # TYPE delivery_sessions_busy gauge
	// delivery_sessions_busy{ready="unspecified->example.com@lua:make.connection"} 0
	// # TYPE delivery_sessions_idle gauge
	// delivery_sessions_idle{ready="unspecified->example.com@lua:make.connection"} 1
	// # TYPE delivery_waiting gauge
	// delivery_waiting{ready="unspecified->example.com@lua:make.connection"} 0
	// # TYPE delivery_delivered_total counter
	// delivery_delivered_total{ready="unspecified->example.com@lua:make.connection"} 1
	// # TYPE delivery_transient_total counter
	// delivery_transient_total{ready="unspecified->example.com@lua:make.connection"} 0
	// # TYPE delivery_sessions_opened_total counter
	// delivery_sessions_opened_total{ready="unspecified->example.com@lua:make.connection"} 1
}

func ExampleTransactionTrace() {
	trace := &delivery.Trace{Transaction: func(s *delivery.Session, t delivery.TransactionTrace) {
		fmt.Println(s.Peer, t.Accepted, "of", t.Recipients, t.Took)
	}}
	trace.Transaction(&delivery.Session{Peer: "mx.example.com"}, delivery.TransactionTrace{Recipients: 3, Accepted: 2, Took: time.Second})
	// Output: mx.example.com 2 of 3 1s
}

// redis would be a Limits of the host's own, for what all of its machines share.
type redis struct{ delivery.LocalLimits }

func ExampleLimits() {
	rt := delivery.Runtime{Limits: &redis{}}
	wait, err := rt.Limits.Pass(context.Background(), "connection unspecified->mx.example.com@smtp_client",
		delivery.Rate{Limit: 10, Per: time.Minute})
	fmt.Println(wait, err)
	// Output: 0s <nil>
}

func ExampleLocalLimits() {
	var shared delivery.LocalLimits // by the runtimes of this process
	release, _ := shared.Hold(context.Background(), "provider", delivery.Limit{Count: 1})
	none, _ := shared.Hold(context.Background(), "provider", delivery.Limit{Count: 1})
	fmt.Println(release != nil, none == nil)
	release()
	// Output: true true
}

func ExampleThrottledError() {
	rt := delivery.Runtime{
		Egress: pathOf(delivery.EgressPath{MaxMessageRate: delivery.Rate{Limit: 1, Per: time.Hour}}),
		Dial:   func(context.Context, delivery.DialRequest) (net.Conn, error) { return nil, errors.New("refused") },
	}
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		SMTP: &delivery.SMTP{MXList: []delivery.MXEntry{{Name: "mx.example.com", Addr: "192.0.2.1"}}}}})
	protocol.Deliver(context.Background(), message())
	r := protocol.Deliver(context.Background(), message()).Results[0]
	var throttled *delivery.ThrottledError
	fmt.Println(r.Status, errors.As(r.Err, &throttled), throttled.Option, r.Scope, r.RetryAfter > 59*time.Minute)
	// Output: unsent true max_message_rate ready name true
}

// pathOf is the Egress of a host that speaks to all sites in the same way.
type pathOf delivery.EgressPath

func (p pathOf) EgressPath(context.Context, string, string, string) (delivery.EgressPath, error) {
	return delivery.EgressPath(p), nil
}

func (p pathOf) EgressSource(_ context.Context, name string) (delivery.EgressSource, error) {
	return delivery.EgressSource{Name: name}, nil
}

func (p pathOf) EgressPool(_ context.Context, name string) (delivery.EgressPool, error) {
	return delivery.EgressPool{Name: name, Entries: []delivery.PoolEntry{{Name: name}}}, nil
}

func ExampleHostError() {
	rt := delivery.Runtime{Dial: func(context.Context, delivery.DialRequest) (net.Conn, error) { return nil, errors.New("refused") }}
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{Protocol: delivery.ProtocolConfig{
		SMTP: &delivery.SMTP{MXList: []delivery.MXEntry{{Name: "mx.example.com", Addr: "192.0.2.1"}}}}})
	r := protocol.Deliver(context.Background(), message()).Results[0]
	var e *delivery.HostError
	fmt.Println(r.Status, errors.As(r.Err, &e), e.Host, e.Address, e.Err)
	// Output: transient true mx.example.com 192.0.2.1:25 refused
}

// hosts is a Resolver of a host that knows its few names by heart.
type hosts map[string]string

func (h hosts) Lookup(_ context.Context, name string, t delivery.DNSType) delivery.DNSAnswer {
	addr, ok := h[name]
	switch {
	case !ok:
		return delivery.DNSAnswer{Result: delivery.DNSNXDomain}
	case t != delivery.DNSTypeA:
		return delivery.DNSAnswer{Result: delivery.DNSNoData}
	}
	return delivery.DNSAnswer{Result: delivery.DNSRecords, Name: name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
}

func ExampleResolver() {
	rt := delivery.Runtime{Resolver: hosts{"example.com": "192.0.2.1"}}
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{})
	plan, err := protocol.Plan(context.Background(), message()) // no MX: the domain itself
	fmt.Println(plan.Hosts[0].Address, err)
	// Output: 192.0.2.1:25 <nil>
}

func ExampleDNS() {
	rt := delivery.Runtime{Resolver: &delivery.DNS{Servers: []string{"127.0.0.1:53"}, TrustAD: true}}
	fmt.Println(rt.Resolver.(*delivery.DNS).TrustAD)
	// Output: true
}

func ExampleDNSStats() {
	var dns delivery.DNS
	defer dns.Close()
	stats := dns.Stats() // of nothing yet
	fmt.Println(stats.Asked, len(stats.Insecure))
	// Output: 0 0
}

// A host that wants to know why mail for a domain goes as it does asks for the plan.
func ExampleTLSPolicy() {
	rt := delivery.Runtime{Resolver: hosts{"example.com": "192.0.2.1"}}
	defer rt.Close(context.Background())
	protocol, _ := rt.Protocol(delivery.QueueConfig{})
	plan, _ := protocol.Plan(context.Background(), message())
	fmt.Printf("%s: %s, because of %s\n", plan.Hosts[0].Host, plan.Hosts[0].TLS.Mode, plan.Hosts[0].TLS.By)
	// Output: example.com: Opportunistic, because of enable_tls
}

// What came of TLS, to be counted for a day and sent as RFC 8460 says.
func ExampleTLSReport() {
	counts := map[string]int{}
	rt := delivery.Runtime{Trace: &delivery.Trace{TLSReport: func(_ string, r delivery.TLSReport) {
		counts[r.PolicyDomain+" "+r.PolicyType+" "+r.Failure]++ // under a lock of the host's
	}}}
	defer rt.Close(context.Background())
	rt.Trace.TLSReport("", delivery.TLSReport{PolicyType: "sts", PolicyDomain: "example.com", Failure: "certificate-expired"})
	fmt.Println(counts)
	// Output: map[example.com sts certificate-expired:1]
}

func ExampleMTASTS() {
	rt := delivery.Runtime{MTASTS: delivery.MTASTS{Store: policies{}}}
	defer rt.Close(context.Background())
	fmt.Println(rt.MTASTS.Off)
	// Output: false
}

// policies is a store of MTA-STS policies; a host would keep them in a file or a database.
type policies map[string]delivery.PolicyEntry

func (p policies) Load(_ context.Context, domain string) (delivery.PolicyEntry, error) {
	entry, ok := p[domain]
	if !ok {
		return entry, delivery.ErrNoPolicy
	}
	return entry, nil
}

func (p policies) Save(_ context.Context, domain string, entry delivery.PolicyEntry) error {
	p[domain] = entry
	return nil
}

func ExamplePolicyStore() {
	var store delivery.PolicyStore = policies{}
	_, err := store.Load(context.Background(), "example.com")
	fmt.Println(errors.Is(err, delivery.ErrNoPolicy))
	// Output: true
}

func ExamplePolicyEntry() {
	store := policies{}
	store.Save(context.Background(), "example.com", delivery.PolicyEntry{
		ID: "20260101", Policy: []byte("version: STSv1\nmode: none\nmax_age: 86400\n"), Fetched: time.Now(), Expires: time.Now().Add(24 * time.Hour)})
	entry, err := store.Load(context.Background(), "example.com")
	fmt.Println(entry.ID, err)
	// Output: 20260101 <nil>
}

func ExampleDNSAnswer() {
	a := delivery.DNSAnswer{Result: delivery.DNSRecords, MX: []delivery.MXRecord{{Preference: 10, Host: "mx.example.com"}}}
	fmt.Println(a.Result == delivery.DNSRecords, a.MX[0].Host)
	// Output: true mx.example.com
}

func ExampleDNSResult() {
	var silence delivery.DNSResult
	fmt.Println(silence == delivery.DNSTempFail)
	// Output: true
}

func ExampleDNSType() {
	fmt.Println(uint16(delivery.DNSTypeMX))
	// Output: 15
}

func ExampleMXRecord() {
	null := delivery.MXRecord{Preference: 0, Host: "."}
	fmt.Println(null.Host == ".")
	// Output: true
}

func ExampleTLSARecord() {
	r := delivery.TLSARecord{Usage: 3, Selector: 1, MatchingType: 1}
	fmt.Println(r.Usage, r.Selector, r.MatchingType)
	// Output: 3 1 1
}
