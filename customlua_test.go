package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// withPolicy gives a runtime a policy.
func withPolicy(t *testing.T, rt *Runtime, text string) *Policy {
	t.Helper()
	p, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rt.SetPolicy(p)
	return p
}

// quiet is a runtime that keeps its log, and what Lua prints, out of the test's output.
func quiet(t *testing.T) (rt *Runtime, log *record) {
	t.Helper()
	rt, log = newRuntime(t), &record{}
	rt.Logger = slog.New(slog.NewTextHandler(log, nil))
	rt.Stdout = io.Discard
	return rt, log
}

// record keeps what several goroutines write.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

const luaConfig = `{"protocol": {"custom_lua": {"constructor": "make.it"}}}`

// connectionWith is a policy whose connections have this send method.
func connectionWith(body string) string {
	return "kumo.on('make.it', function(domain, tenant, campaign)\n local c = {}\n function c:send(message)\n" + body + "\n end\n return c\nend)\n"
}

func TestDispositions(t *testing.T) {
	for _, test := range []struct {
		body   string
		status Status
		code   int
		text   string // the whole text, or with … its beginning
	}{
		{"return 'OK'", Delivered, 200, "OK"},
		{"return '250 2.0.0 ok'", Delivered, 200, "250 2.0.0 ok"},
		{"return 17", Delivered, 200, "17"},
		{"return ''", Delivered, 200, ""},
		{"return 'two\\nlines'", Delivered, 200, "two lines"},
		{"kumo.reject(400, 'later')", Transient, 400, "later"},
		{"kumo.reject(421, 'closing')", Transient, 421, "closing"},
		{"kumo.reject(499, 'later')", Transient, 499, "later"},
		{"kumo.reject(500, 'never')", Permanent, 500, "never"},
		{"kumo.reject(599, 'never')", Permanent, 599, "never"},
		{"kumo.reject(354, 'odd')", Permanent, 354, "odd"},
		{"local ok, err = pcall(kumo.reject, 450, 'caught') error(err)", Transient, 450, "caught"},
		{"local ok, err = pcall(kumo.reject, 550, 'caught') error(tostring(err))", Transient, 400, "delivery: error in deliver_message: sender:send method failed: …"},
		{"kumo.reject(70000, 'too much')", Transient, 400, "delivery: error in deliver_message: sender:send method failed: …"},
		{"error('boom')", Transient, 400, "delivery: error in deliver_message: sender:send method failed: test.lua:4: boom"},
		{"error({})", Transient, 400, "delivery: error in deliver_message: sender:send method failed: …"},
		{"return", Transient, 400, "delivery: error in deliver_message: sender:send method failed: send returned nil…"},
		{"return true", Transient, 400, "delivery: error in deliver_message: sender:send method failed: send returned a boolean…"},
		{"return {}", Transient, 400, "delivery: error in deliver_message: sender:send method failed: send returned a table…"},
		{"return '\\255'", Transient, 400, "delivery: error in deliver_message: sender:send method failed: …"},
		{"return nosuch.field", Transient, 400, "delivery: error in deliver_message: sender:send method failed: test.lua:4: …"},
	} {
		rt, _ := quiet(t)
		withPolicy(t, rt, connectionWith(test.body))
		p := protocolOf(t, rt, luaConfig)
		outcome := p.Deliver(t.Context(), messageTo("a@hook.test", "b@hook.test"))
		for _, r := range outcome.Results {
			begins, cut := strings.CutSuffix(test.text, "…")
			if r.Status != test.status || r.Response.Code != test.code ||
				!cut && r.Response.Text != test.text || cut && !strings.HasPrefix(r.Response.Text, begins) || r.Session.Protocol != "lua" {
				t.Errorf("%s: %s %s", test.body, r.Status, r.Response)
			}
		}
		// Whatever a send does, the next message is served.
		if again := p.Deliver(t.Context(), messageTo("a@hook.test")).Results[0]; again.Response.Code != test.code {
			t.Errorf("%s, again: %s", test.body, again.Response)
		}
	}
}

func TestWhatLuaSeesOfAMessage(t *testing.T) {
	rt, _ := quiet(t)
	withPolicy(t, rt, connectionWith(`
		local seen = {
			message:id(), tostring(message:sender()), message:sender().user, message:sender().domain,
			string.format('%s', message:recipient_list()[1]), message:recipient_list()[2].email,
			message:recipient_list()[1].user, tostring(#message:recipient()), message:queue_name(),
			tostring(message:num_attempts()), message:get_meta('k').deep[2], tostring(message:get_meta('missing')),
			tostring(#message:get_data()),
		}
		message:set_meta('done', { at = 1 })
		message:set_data('replaced')
		seen[#seen + 1] = tostring(message:get_meta('done').at)
		seen[#seen + 1] = message:get_data()
		return table.concat(seen, ' ')`))
	p := protocolOf(t, rt, luaConfig)
	msg := messageTo(`"a b"@hook.test`, "c@hook.test")
	msg.Queue, msg.Attempts = ParseQueueName("camp:ten@hook.test"), 3
	msg.Meta = map[string]any{"k": map[string]any{"deep": []any{"x", "y"}}}
	outcome := p.Deliver(t.Context(), msg)
	want := `m1 sender@example.org sender example.org "a b"@hook.test c@hook.test a b 2 camp:ten@hook.test 3 y nil 25 1 replaced`
	if got := outcome.Results[0].Response.Text; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if c := outcome.Changes; c == nil || fmt.Sprint(c.Meta) != "map[done:map[at:1]]" || string(c.Body.(Bytes)) != "replaced" {
		t.Errorf("changes: %+v", c)
	}
	if _, ok := msg.Meta["done"]; ok || string(msg.Body.(Bytes)) == "replaced" {
		t.Error("the host's message was written to")
	}
}

func TestLuaConnections(t *testing.T) {
	const policy = `
		kumo.on('make.it', function(domain, tenant, campaign)
			local c = { made = {domain, tenant or 'nil', campaign or 'nil'}, sent = 0 }
			function c:send(message)
				self.sent = self.sent + 1
				if message:get_meta 'raise' then error 'raised' end
				if message:get_meta 'code' then kumo.reject(message:get_meta 'code', 'no') end
				return table.concat(self.made, ' ') .. ' ' .. self.sent
			end
			function c:close() print('closed', table.concat(self.made, ' ')) end
			return c
		end)`
	synctest.Test(t, func(t *testing.T) {
		rt, _ := quiet(t)
		printed := &record{}
		rt.Stdout = printed
		withPolicy(t, rt, policy)
		p := protocolOf(t, rt, luaConfig)
		send := func(queue string, meta map[string]any) string {
			msg := messageTo("a@hook.test")
			msg.Queue, msg.Meta = ParseQueueName(queue), meta
			return p.Deliver(t.Context(), msg).Results[0].Response.Text
		}
		for _, step := range []struct {
			queue string
			meta  map[string]any
			want  string
		}{
			{"hook.test", nil, "hook.test nil nil 1"},
			{"hook.test", nil, "hook.test nil nil 2"},
			{"t@hook.test", nil, "hook.test t nil 1"}, // one tenant's connection never serves another's
			{"c:t@hook.test", nil, "hook.test t c 1"},
			{"t@hook.test", nil, "hook.test t nil 2"},
			{"hook.test", map[string]any{"code": 450.0}, "no"},
			{"hook.test", nil, "hook.test nil nil 4"}, // a 450 leaves the connection alone
			{"hook.test", map[string]any{"code": 421.0}, "no"},
			{"hook.test", nil, "hook.test nil nil 1"}, // a 421 does not
		} {
			if got := send(step.queue, step.meta); got != step.want {
				t.Errorf("%s %v: %q, want %q", step.queue, step.meta, got, step.want)
			}
		}
		send("hook.test", map[string]any{"raise": true})
		if got := strings.Count(printed.String(), "closed\thook.test nil nil"); got != 2 {
			t.Errorf("after a 421 and an error close was called %d times: %s", got, printed.String())
		}
		time.Sleep(6 * time.Second) // idle_timeout is 5 s
		synctest.Wait()
		if got := strings.Count(printed.String(), "closed"); got != 4 {
			t.Errorf("after the idle timeout %d were closed: %s", got, printed.String())
		}
	})
}

func TestConstructorsThatFail(t *testing.T) {
	for name, policy := range map[string]string{
		"none":      "",
		"raises":    "kumo.on('make.it', function() error('no luck') end)",
		"rejects":   "kumo.on('make.it', function() kumo.reject(550, 'no luck') end)",
		"returns 0": "kumo.on('make.it', function() end)",
	} {
		rt, _ := quiet(t)
		withPolicy(t, rt, policy)
		r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
		if r.Status != Transient || r.Response.Code != 400 || !strings.HasPrefix(r.Response.Text, "delivery: failed to connect to any candidate hosts") {
			t.Errorf("%s: %s %s", name, r.Status, r.Response)
		}
	}
	rt, _ := quiet(t)
	if r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]; r.Status != Transient {
		t.Errorf("without a policy: %s %s", r.Status, r.Response)
	}
}

// TestWebhook: the results of a webhook that answers, refuses, hangs and hangs up are those that the
// policy's kumo.reject says.
func TestWebhook(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case "fail":
			http.Error(w, "out of order", http.StatusInternalServerError)
		case "hang":
			<-release
		case "close":
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("X-Id"), body)
		}
	}))
	server.Config.ErrorLog = nil
	defer server.Close()
	defer close(release)
	rt, _ := quiet(t)
	withPolicy(t, rt, `
		local kumo = require 'kumo'
		local url = '`+server.URL+`'
		`+connectionWith(`
			local ok, response = pcall(function()
				return kumo.http.build_client({}):put(url):header('X-Id', message:id()):timeout('200ms'):body(message:get_data()):send()
			end)
			if not ok then kumo.reject(450, 'unreachable') end
			if not response:status_is_success() then
				kumo.reject(550, string.format('%d %s', response:status_code(), response:status_reason()))
			end
			return response:text()`))
	p := protocolOf(t, rt, luaConfig)
	for content, want := range map[string]string{
		"hello": "delivered 200 PUT m1 hello",
		"fail":  "permanent 550 500 Internal Server Error",
		"hang":  "transient 450 unreachable",
		"close": "transient 450 unreachable",
	} {
		msg := messageTo("a@hook.test")
		msg.Body = Bytes(content)
		r := p.Deliver(t.Context(), msg).Results[0]
		if got := r.Status.String() + " " + r.Response.String(); got != want {
			t.Errorf("%s: %s, want %s", content, got, want)
		}
	}
}

// TestASendThatHangsIsCutByClose: nothing a script does keeps the host from stopping.
func TestASendThatHangsIsCutByClose(t *testing.T) {
	printed := &record{}
	rt := &Runtime{Logger: slog.New(slog.DiscardHandler), Stdout: printed}
	withPolicy(t, rt, connectionWith("print 'sending' while true do end"))
	c, _ := ParseQueueConfig([]byte(luaConfig))
	p, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan Outcome)
	go func() { done <- p.Deliver(context.Background(), messageTo("a@hook.test")) }()
	for printed.String() == "" { // a session that is lent is not yet sending
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := rt.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if r := (<-done).Results[0]; r.Status != Transient || !r.MaybeDelivered {
		t.Errorf("%s %s", r.Status, r.Response)
	}
}

func TestPolicyReload(t *testing.T) {
	rt, _ := quiet(t)
	withPolicy(t, rt, connectionWith("return 'old'"))
	p := protocolOf(t, rt, luaConfig)
	deliver := func() string { return p.Deliver(t.Context(), messageTo("a@hook.test")).Results[0].Response.Text }
	if got := deliver(); got != "old" {
		t.Fatal(got)
	}
	withPolicy(t, rt, connectionWith("return 'new'"))
	if got := deliver(); got != "new" {
		t.Errorf("after the reload: %s", got)
	}
}

func TestPoliciesThatDoNotLoad(t *testing.T) {
	for _, test := range []struct {
		text, file string
		line       int
		field      string
		says       string
	}{
		{"local x = \n", "test.lua", 1, "", ""},
		{"\nkumo.on('get_queue_config' function() end)", "test.lua", 2, "", "function"},
		{"\n\nerror('not today')", "test.lua", 3, "", "not today"},
		{"kumo.make_queue_config {\n protocol = { smtp = { mxlist = {} } } }", "test.lua", 1, "protocol.smtp.mxlist", "mx_list"},
		{"\nkumo.make_egress_path { smtp_port = 70000 }", "test.lua", 2, "smtp_port", "70000"},
		{"kumo.on('init', function()\n error('in init')\nend)", "test.lua", 2, "", "in init"},
		{"kumo.on('get_egress_source', print)\nkumo.on('get_egress_source', print)", "test.lua", 2, "", "get_egress_source"},
		{"require 'nothing.like.it'", "test.lua", 1, "", "nothing.like.it"},
	} {
		rt, _ := quiet(t)
		_, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(test.text))
		e, ok := errors.AsType[*ConfigError](err)
		if !ok || e.File != test.file || e.Line != test.line || e.Field != test.field || !strings.Contains(e.Reason, test.says) {
			t.Errorf("%q: %#v (%v)", test.text, e, err)
			continue
		}
		if strings.Contains(e.Error(), "\n") {
			t.Errorf("%q: more than one line: %q", test.text, e.Error())
		}
	}
	if _, err := newRuntime(t).LoadPolicy(t.Context(), "no/such/policy.lua"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestConfigErrorsOfEventsNameTheLine(t *testing.T) {
	rt, _ := quiet(t)
	p := withPolicy(t, rt, `
kumo.on('get_queue_config', function(domain)
  if domain == 'table.test' then return { protocol = {} } end
  if domain == 'nil.test' then return nil end
  return kumo.make_queue_config {
    protocol = { smtp = { mx_list = { 'host:70000' } } },
  }
end)`)
	_, err := p.QueueConfig(t.Context(), QueueName{Domain: "x.test"})
	if e, ok := errors.AsType[*ConfigError](err); !ok || e.Field != "protocol.smtp.mx_list[0]" || e.File != "test.lua" || e.Line < 5 || e.Line > 7 {
		t.Errorf("%#v", err)
	}
	for _, domain := range []string{"table.test", "nil.test"} {
		if _, err := p.QueueConfig(t.Context(), QueueName{Domain: domain}); err == nil || !strings.Contains(err.Error(), "make_queue_config") {
			t.Errorf("%s: %v", domain, err)
		}
	}
}

func TestSetUpOfTheRestOfAnMTAIsIgnored(t *testing.T) {
	rt, log := quiet(t)
	_, err := rt.ParsePolicy(t.Context(), "test.lua", []byte(`
		local kumo = require 'kumo'
		kumo.on('init', function()
			kumo.define_spool { name = 'data', path = '/var/spool/kumomta/data' }
			kumo.start_esmtp_listener { listen = '0.0.0.0:25' }
			kumo.start_http_listener { listen = '127.0.0.1:8000' }
			kumo.configure_local_logs { log_dir = '/var/log/kumomta' }
		end)`))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "\n"); got != 1 {
		t.Errorf("%d lines in the log: %s", got, log.String())
	}
	for _, name := range []string{"define_spool", "start_esmtp_listener", "start_http_listener", "configure_local_logs"} {
		if !strings.Contains(log.String(), name) {
			t.Errorf("%s is not named: %s", name, log.String())
		}
	}
}

func TestPolicyAsEgress(t *testing.T) {
	rt, _ := quiet(t)
	p := withPolicy(t, rt, `
		kumo.on('get_egress_pool', function(name) return kumo.make_egress_pool { name = name, entries = { { name = 'a', weight = 2 }, { name = 'b' } } } end)
		kumo.on('get_egress_source', function(name) return kumo.make_egress_source { name = name, remote_port = 2525 } end)
		kumo.on('get_egress_path_config', function(routing_domain, source, site)
			return kumo.make_egress_path { ehlo_domain = source .. '.' .. routing_domain, connection_limit = 3 }
		end)`)
	pool, err := p.EgressPool(t.Context(), "pool")
	if err != nil || len(pool.Entries) != 2 || pool.Entries[0].weight() != 2 || pool.Entries[1].weight() != 1 {
		t.Errorf("%+v, %v", pool, err)
	}
	source, err := p.EgressSource(t.Context(), "a")
	if err != nil || source.RemotePort != 2525 {
		t.Errorf("%+v, %v", source, err)
	}
	path, err := p.EgressPath(t.Context(), "example.com", "a", "mx.example.com")
	if err != nil || path.EHLODomain != "a.example.com" || path.ConnectionLimit.Count != 3 {
		t.Errorf("%+v, %v", path, err)
	}
	none := withPolicy(t, rt, "")
	if _, err := none.EgressPool(t.Context(), "pool"); err == nil {
		t.Error("a pool without a handler was found")
	}
	if path, err := none.EgressPath(t.Context(), "example.com", "a", "mx.example.com"); err != nil || path.EHLODomain != "" {
		t.Errorf("%+v, %v", path, err)
	}
}

func TestRequireFindsFilesBesideThePolicy(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("policy.lua", "local routes = require 'routes'\nkumo.on('get_queue_config', function(domain) return kumo.make_queue_config { protocol = routes[domain] } end)")
	write("routes.lua", "return { ['m.test'] = { maildir_path = '/m' } }")
	p, err := newRuntime(t).LoadPolicy(t.Context(), filepath.Join(dir, "policy.lua"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.QueueConfig(t.Context(), QueueName{Domain: "m.test"})
	if err != nil || c.Protocol.Maildir == nil || c.Protocol.Maildir.Path != "/m" {
		t.Errorf("%s, %v", c, err)
	}
}

// TestEveryConstruct asks our own policy for each of its queues.
func TestEveryConstruct(t *testing.T) {
	rt, _ := quiet(t)
	p, err := rt.LoadPolicy(t.Context(), "testdata/policies/every-construct.lua")
	if err != nil {
		t.Fatal(err)
	}
	rt.SetPolicy(p)
	protocol := func(queue string) string {
		c, err := p.QueueConfig(t.Context(), ParseQueueName(queue))
		if err != nil {
			t.Fatal(err)
		}
		text := c.String()
		return text[:strings.Index(text, `,"retry_interval"`)]
	}
	for queue, want := range map[string]string{
		"relay.test":         `{"protocol":{"smtp":{"mx_list":["inner.relay.test","inner.relay.test:2025","[192.0.2.10]","[IPv6:2001:db8::10]",{"name":"mx.relay.test","addr":"192.0.2.11"},{"name":"mx.relay.test","addr":"192.0.2.12:2025"}],"treat_mx_list_as_secure":false}}`,
		"plain-maildir.test": `{"protocol":{"maildir_path":"/var/mail/all","unsafe_values":"refuse","no_sync":false,"add_return_path":false,"add_delivered_to":false}`,
		"modes.test":         `{"protocol":{"maildir_path":"/var/mail/{{ domain_part }}/{{ local_part }}","dir_mode":1528,"file_mode":432,"unsafe_values":"refuse","no_sync":false,"add_return_path":false,"add_delivered_to":false}`,
		"hook.test":          `{"protocol":{"custom_lua":{"constructor":"make.hook","batch_size":1,"min_batch_size":1}}`,
		"passed-on.test":     `{"protocol":{"smtp":{"treat_mx_list_as_secure":false}}`,
		"other.test":         `{"protocol":{"smtp":{"treat_mx_list_as_secure":false}}`,
	} {
		if got := protocol(queue); got != want {
			t.Errorf("%s:\n got %s\nwant %s", queue, got, want)
		}
	}
	c, err := p.QueueConfig(t.Context(), QueueName{Domain: "names.test"})
	if err != nil {
		t.Fatal(err)
	}
	live, err := rt.Protocol(c)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close(t.Context())
	msg := messageTo("user@Names.TEST")
	msg.Queue = ParseQueueName("camp:ten@names.test!route.test")
	plan, err := live.Plan(t.Context(), msg)
	want := "/var/mail/inbox/ten/camp/names.test/route.test/user/names.test/user@names.test/sender/example.org/sender@example.org"
	if err != nil || plan.Paths[0].Path != want {
		t.Errorf("%+v, %v", plan, err)
	}
}

// TestProtocolPage runs every Lua block of the manual's page as it stands.
func TestProtocolPage(t *testing.T) {
	file := os.Getenv("PROTOCOL_PAGE")
	if file == "" {
		t.Skip("PROTOCOL_PAGE does not name the page")
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page = regexp.MustCompile(`(?m)^ {4}`).ReplaceAll(page, nil) // blocks inside of notes are indented
	blocks := regexp.MustCompile("(?s)```lua\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 6 {
		t.Fatalf("found only %d blocks", len(blocks))
	}
	rt, _ := quiet(t)
	seen := map[string]bool{}
	for i, block := range blocks {
		text := string(block[1])
		if !strings.Contains(text, "kumo.on") { // a fragment of a handler
			text = "kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)\n" + text + "\nend)"
		}
		p, err := rt.ParsePolicy(t.Context(), fmt.Sprintf("block%d.lua", i), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		rt.SetPolicy(p)
		for _, domain := range []string{"smarthost.example.com", "maildir.example.com", "webhook", "other.example.com"} {
			c, err := p.QueueConfig(t.Context(), QueueName{Domain: domain})
			if err != nil {
				t.Errorf("block %d, %s: %v", i, domain, err)
				continue
			}
			switch {
			case c.Protocol.CustomLua != nil:
				seen["lua"] = true
				r := protocolOf(t, rt, c.String()).Deliver(t.Context(), messageTo("a@webhook")).Results[0]
				if r.Status != Delivered || r.Response.Text != "OK" {
					t.Errorf("block %d: %s", i, r.Response)
				}
			case c.Protocol.Maildir != nil:
				seen["maildir"] = true
				if m := c.Protocol.Maildir; m.DirMode != nil && (*m.DirMode != 0o775 || *m.FileMode != 0o664) {
					t.Errorf("block %d: modes %v, %v", i, m.DirMode, m.FileMode)
				}
			case len(c.Protocol.SMTP.MXList) == 2:
				seen["smtp"] = true
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("the blocks configured only %v", seen)
	}
}

// TestAHostsOwnState installs the module where Lua runs already.
func TestAHostsOwnState(t *testing.T) {
	L := lua.NewState()
	defer L.Close()
	module := newRuntime(t).InstallLua(L)
	if c, err := module.QueueConfig(t.Context(), QueueName{Domain: "x.test"}); err != nil || c.Protocol.SMTP == nil {
		t.Errorf("without a handler: %s, %v", c, err)
	}
	err := L.DoString(`
		local kumo = require 'kumo'
		kumo.on('get_queue_config', function(domain)
			return kumo.make_queue_config { protocol = { maildir_path = '/m/' .. domain } }
		end)
		config = kumo.make_queue_config { max_age = '1h' }`)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := module.QueueConfig(t.Context(), QueueName{Domain: "x.test"}); err != nil || c.Protocol.Maildir.Path != "/m/x.test" {
		t.Errorf("%s, %v", c, err)
	}
	if c, err := LuaQueueConfig(L.GetGlobal("config")); err != nil || time.Duration(c.MaxAge) != time.Hour {
		t.Errorf("%s, %v", c, err)
	}
	if _, err := LuaQueueConfig(lua.LString("no")); err == nil {
		t.Error("a string was taken for a config")
	}
}

// TestLuaNeverSeesHalfAMessage: content of another size than it said is no delivery.
func TestLuaNeverSeesHalfAMessage(t *testing.T) {
	rt, _ := quiet(t)
	withPolicy(t, rt, connectionWith("return 'took ' .. #message:get_data()"))
	msg := messageTo("a@hook.test")
	for name, body := range map[string]Body{"short": short{}, "failing": broken{1000}} {
		msg.Body = body
		if r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), msg).Results[0]; r.Status != Transient {
			t.Errorf("%s: %s %s", name, r.Status, r.Response)
		}
	}
}

// TestOneCallersEndIsNotAnothers: who waits for what another asked the policy is not cut off with it.
func TestOneCallersEndIsNotAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, _ := quiet(t)
		withPolicy(t, rt, connectionWith("return 'OK'")+`
			kumo.on('get_egress_path_config', function() kumo.sleep(1) return kumo.make_egress_path {} end)`)
		p := protocolOf(t, rt, luaConfig)
		impatient, cancel := context.WithCancel(t.Context())
		first, second := make(chan Outcome, 1), make(chan Outcome, 1)
		go func() { first <- p.Deliver(impatient, messageTo("a@hook.test")) }()
		synctest.Wait()
		go func() { second <- p.Deliver(t.Context(), messageTo("b@hook.test")) }()
		synctest.Wait()
		cancel()
		if r := (<-first).Results[0]; r.Status != Unsent {
			t.Errorf("the one who left: %s %s", r.Status, r.Response)
		}
		if r := (<-second).Results[0]; r.Status != Delivered {
			t.Errorf("the other: %s %s", r.Status, r.Response)
		}
	})
}

// TestHTTPProhibitedHosts: the very address that is dialled is looked at, whatever name led there.
func TestHTTPProhibitedHosts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "taken") }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	loopbacks := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, test := range []struct {
		host       string
		prohibited []netip.Prefix
		want       Status
	}{
		{"127.0.0.1", nil, Delivered},
		{"127.0.0.1", loopbacks, Transient},
		{"localhost", loopbacks, Transient},
		{"[::ffff:127.0.0.1]", loopbacks, Transient},
		{"127.0.0.1", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Delivered},
	} {
		rt, _ := quiet(t)
		rt.HTTPProhibitedHosts = test.prohibited
		withPolicy(t, rt, `
			local kumo = require 'kumo'
			`+connectionWith(`return kumo.http.build_client({}):get('http://`+test.host+`:`+port+`/'):send():text()`))
		r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
		if r.Status != test.want || (r.Status == Transient) != strings.Contains(r.Response.Text, "is prohibited") {
			t.Errorf("%s, prohibited %v: %s %s", test.host, test.prohibited, r.Status, r.Response)
		}
		if (rt.state.http.Proxy == nil) != (test.prohibited != nil) { // the environment is read once for a process
			t.Errorf("prohibited %v, and a proxy may connect instead", test.prohibited)
		}
	}
}

// TestOptionsOneByOne: helpers that read sources from files try each option by itself, to see whether it is one, and take an
// error without the word "invalid" for one that nobody knows.
func TestOptionsOneByOne(t *testing.T) {
	rt, _ := quiet(t)
	p := withPolicy(t, rt, `
local options = {
	source_address = '10.0.0.1', ehlo_domain = 'x.example', remote_port = 26, ttl = '5m',
	ha_proxy_server = '10.0.0.1:5000', ha_proxy_source_address = '10.0.0.2',
	socks5_proxy_server = '10.0.0.1:5000', socks5_proxy_source_address = '10.0.0.2',
	socks5_proxy_username = 'user', socks5_proxy_password = { key_data = 'secret' },
}
for name, value in pairs(options) do kumo.make_egress_source { name = 'dummy', [name] = value } end
local ok, err = pcall(kumo.make_egress_source, { name = 'dummy', ha_proxy_server = 'no port' })
assert(not ok and tostring(err):find 'invalid')
ok, err = pcall(kumo.make_egress_source, { name = 'dummy', no_such_option = 1 })
assert(not ok and not tostring(err):find 'invalid')
kumo.on('get_egress_source', function(name)
	if name == 'half' then
		return kumo.make_egress_source { name = name, ha_proxy_server = options.ha_proxy_server }
	end
	return kumo.make_egress_source { name = name, ha_proxy_server = options.ha_proxy_server, ha_proxy_source_address = '10.0.0.2' }
end)`)
	if source, err := p.EgressSource(t.Context(), "whole"); err != nil || !source.HAProxySourceAddress.IsValid() {
		t.Error(source, err)
	}
	_, err := p.EgressSource(t.Context(), "half")
	if err == nil || err.Error() != "test.lua: what the event get_egress_source returned: ha_proxy_server: needs ha_proxy_source_address" {
		t.Error(err)
	}
	var source EgressSource
	if err := json.Unmarshal([]byte(`{"name": "half", "ha_proxy_server": "10.0.0.1:5000"}`), &source); err == nil {
		t.Error("half of a pair passes in JSON")
	}
}
