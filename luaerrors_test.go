package delivery

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestRejections: every code that kumo.reject may be given, and what is no code.
func TestRejections(t *testing.T) {
	const plain = "delivery: error in deliver_message: sender:send method failed: test.lua:4: "
	for _, test := range []struct {
		args   string
		status Status
		code   int
		text   string // all of it, or with … its beginning
		closed bool
	}{
		{"200, 'fine'", Permanent, 200, "fine", false},
		{"250, 'fine'", Permanent, 250, "fine", false},
		{"354, 'go on'", Permanent, 354, "go on", false},
		{"399, 'x'", Permanent, 399, "x", false},
		{"400, 'x'", Transient, 400, "x", false},
		{"420, 'x'", Transient, 420, "x", false},
		{"421, 'x'", Transient, 421, "x", true},
		{"422, 'x'", Transient, 422, "x", false},
		{"499, 'x'", Transient, 499, "x", false},
		{"500, 'x'", Permanent, 500, "x", false},
		{"599, 'x'", Permanent, 599, "x", false},
		{"600, 'x'", Permanent, 600, "x", false},
		{"999, 'x'", Permanent, 999, "x", false},
		{"0, 'x'", Permanent, 0, "x", false},
		{"65535, 'x'", Permanent, 65535, "x", false},
		{"450.0, 'x'", Transient, 450, "x", false},
		{"450, '4.7.1 an enhanced code stays text'", Transient, 450, "4.7.1 an enhanced code stays text", false},
		{"450, ''", Transient, 450, "", false},
		{"450, 17", Transient, 450, "17", false},
		{"550, 'two\\r\\nlines\\tand\\0more'", Permanent, 550, "two  lines and more", false},
		{"65536, 'x'", Transient, 400, plain + "…", true},
		{"-1, 'x'", Transient, 400, plain + "…", true},
		{"450.5, 'x'", Transient, 400, plain + "…", true},
		{"0/0, 'x'", Transient, 400, plain + "…", true},
		{"1/0, 'x'", Transient, 400, plain + "…", true},
		{"'later', 'x'", Transient, 400, plain + "…", true},
		{"nil, 'x'", Transient, 400, plain + "…", true},
		{"{}, 'x'", Transient, 400, plain + "…", true},
		{"", Transient, 400, plain + "…", true},
		{"450", Transient, 400, plain + "…", true},
		{"450, nil", Transient, 400, plain + "…", true},
		{"450, {}", Transient, 400, plain + "…", true},
	} {
		for _, raise := range []string{
			"kumo.reject(" + test.args + ")",
			"local ok, err = pcall(kumo.reject, " + test.args + ") error(err)",
			"local ok, err = pcall(kumo.reject, " + test.args + ") error(err, 0)",
			"local ok, err = xpcall(function() kumo.reject(" + test.args + ") end, function(e) return e end) error(err)",
			"coroutine.wrap(function() local ok, err = pcall(function() kumo.reject(" + test.args + ") end) error(err) end)()",
		} {
			raise = strings.ReplaceAll(raise, ", )", ")")
			checkLuaResult(t, raise, test.status, test.code, test.text, test.closed)
		}
		if !test.closed {
			checkLuaResult(t, "kumo.disconnect("+test.args+", 'If421')", test.status, test.code, test.text, false)
		}
	}
}

// checkLuaResult delivers one message by a send with this body.
func checkLuaResult(t *testing.T, body string, status Status, code int, text string, closed bool) (log string) {
	t.Helper()
	rt, logged := quiet(t)
	printed := &record{}
	rt.Stdout = printed
	withPolicy(t, rt, strings.Replace(connectionWith(body), "return c\n", "function c:close() print 'closed' end return c\n", 1))
	r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
	begins, cut := strings.CutSuffix(text, "…")
	if r.Status != status || r.Response.Code != code || !cut && r.Response.Text != text || cut && !strings.HasPrefix(r.Response.Text, begins) {
		t.Errorf("%s: %s %s", body, r.Status, r.Response)
	}
	if isClosed := printed.String() != ""; isClosed != closed {
		t.Errorf("%s: closed %v", body, isClosed)
	}
	if got := r.Response.Text; len(got) > maxText+len("…") || !utf8.ValidString(got) || strings.IndexFunc(got, unicode.IsControl) >= 0 {
		t.Errorf("%s: a text of %d bytes: %.100q", body, len(got), got)
	}
	if (r.Err != nil) != strings.HasPrefix(r.Response.Text, "delivery: ") {
		t.Errorf("%s: %s, error %v", body, r.Response, r.Err)
	}
	return logged.String()
}

// TestErrorValues: whatever is raised, the message comes again with a text of one line, and the log says where.
func TestErrorValues(t *testing.T) {
	const plain = "delivery: error in deliver_message: sender:send method failed: "
	for body, text := range map[string]string{
		"error 'boom'":                 plain + "test.lua:4: boom",
		"error('boom', 0)":             plain + "boom",
		"error('two\\nlines\\27[31m')": plain + "test.lua:4: two lines [31m",
		"error(42)":                    plain + "…",
		"error(nil)":                   plain + "…",
		"error()":                      plain + "…",
		"error(true)":                  plain + "true",
		"error({})":                    plain + "(error object is a table)",
		"error({ code = 550, message = 'boom' })":                                     plain + "boom", // a table is no rejection
		"error({ code = 550, msg = 'boom' })":                                         plain + "boom",
		"error(setmetatable({}, { __tostring = function() return 'it\\nself' end }))": plain + "it self",
		"error(setmetatable({}, { __tostring = function() error 'again' end }))":      plain + "…",
		"error(setmetatable({}, { __tostring = function() return {} end }))":          plain + "…",
		"error(print)":                              plain + "…",
		"error(message)":                            plain + "…",
		"error(string.rep('x', 100000))":            plain + "test.lua:4: xxxxxxxx…",
		"error(string.rep('\\195\\164', 50000))":    plain + "test.lua:4: ä…",
		"error(string.rep('\\228', 50000))":         plain + "test.lua:4: …",
		"error(message:id())":                       plain + "test.lua:4: m1",
		"return nil + 1":                            plain + "test.lua:4: …",
		"return message:no_such_method()":           plain + "test.lua:4: …",
		"return #nil":                               plain + "test.lua:4: …",
		"local function f() return f() + 1 end f()": plain + "…",
		"assert(false, 'asserted')":                 plain + "asserted",
		"assert(nil)":                               plain + "…",
		"xpcall(error, function() error 'in the handler' end) error 'after'": plain + "test.lua:4: after",
		"return (coroutine.wrap(function() error 'inside' end))()":           plain + "test.lua:4: …",
		"return coroutine.yield(1)":                                          plain + "…",
	} {
		log := checkLuaResult(t, body, Transient, 400, text, true)
		if !strings.Contains(log, "policy: send failed") || !strings.Contains(log, "traceback") || !strings.Contains(log, "message=m1") {
			t.Errorf("%s: the log says %s", body, log)
		}
	}
	for body, status := range map[string]Status{
		"return string.rep('x', 10 * 1024 * 1024)":          Delivered,
		"kumo.reject(550, string.rep('x\\n', 1024 * 1024))": Permanent,
	} {
		rt, _ := quiet(t)
		withPolicy(t, rt, connectionWith(body))
		r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
		if r.Status != status || len(r.Response.Text) != maxText+len("…") || !strings.HasSuffix(r.Response.Text, "…") {
			t.Errorf("%s: %s, %d bytes", body, r.Status, len(r.Response.Text))
		}
	}
}

// TestTracebacks: the log names every function on the way to the error, with file and line.
func TestTracebacks(t *testing.T) {
	log := checkLuaResult(t, "\nlocal function inner()\n error 'boom'\nend\nlocal function outer()\n inner()\n return 1\nend\nlocal result = outer()\nreturn result", Transient, 400,
		"delivery: error in deliver_message: sender:send method failed: test.lua:6: boom", true)
	for _, line := range []string{"test.lua:6", "test.lua:9", "test.lua:12"} {
		if !strings.Contains(log, line) {
			t.Errorf("%s is not in the log: %s", line, log)
		}
	}
	rt, logged := quiet(t)
	withPolicy(t, rt, "kumo.on('make.it', function()\n local x = nil\n return x.y\nend)")
	r := protocolOf(t, rt, luaConfig).Deliver(t.Context(), messageTo("a@hook.test")).Results[0]
	if !strings.Contains(logged.String(), "constructor failed") || !strings.Contains(logged.String(), "traceback=") || !strings.Contains(r.Response.Text, "test.lua:3: ") {
		t.Errorf("%s; %s", r.Response, logged)
	}
}
