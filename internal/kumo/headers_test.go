package kumo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// newsletter has what real headers have.
const newsletter = "Received: from mx.a.example (mx.a.example [192.0.2.1])\r\n" +
	"\tby in.b.example with ESMTPS id 4ABC;\r\n\tThu, 1 Jan 2026 12:00:00 +0000\r\n" +
	"Received: from [192.0.2.7] by mx.a.example; Thu, 1 Jan 2026 11:59:59 +0000\r\n" +
	"From: =?UTF-8?Q?Caf=C3=A9_News?= <news@a.example>\r\n" +
	"To: \"Doe, Jane\" <jane@b.example>,\r\n Friends: \"info@\"@c.example, Bob <bob@c.example>;\r\n" +
	"Subject: =?iso-8859-1?Q?Caf=E9?= =?utf-8?b?IGF1IGxhaXQ=?=\r\n  today\r\n" +
	"X-Campaign-ID: 12345\r\n" +
	"x-tenant: one\r\n" +
	"X-TENANT: two\r\n" +
	"X-Raw: caf\xe9\r\n" +
	"X-Empty:\r\n" +
	"X-Schedule: {\"dow\":\"Mon,Wed\",\"tz\":\"America/Phoenix\",\"start\":\"09:00:00\",\"end\":\"17:00:00\"}\r\n" +
	"Reply-To: bob@c.example (Bob)\r\n" +
	"Cc: undisclosed-recipients:;\r\n" +
	"Bcc:\r\n" +
	"Sender: nobody at all\r\n" +
	"MIME-Version: 1.0\r\n" +
	"\r\n" +
	"From: not@the.header\r\n\r\nbody\r\n"

// onMessage runs Lua statements with a message m, and gives the JSON of what they return.
func onMessage(t testing.TB, l Message, statements string) (string, error) {
	t.Helper()
	s := newState(t, stubs(), "function run(m) "+statements+" end")
	ud := NewMessage(s.L, l)
	got, err := s.Call(t.Context(), 1, s.L.GetGlobal("run"), ud)
	Expire(ud)
	if err != nil {
		return "", err
	}
	if text, ok := got[0].(lua.LString); ok {
		return string(text), nil
	}
	encode, err := s.Index(t.Context(), s.L.GetGlobal("kumo"), "json_encode")
	if err != nil {
		return "", err
	}
	if got, err = s.Call(t.Context(), 1, encode, got[0]); err != nil {
		return "", err
	}
	return got[0].String(), nil
}

func TestHeadersRead(t *testing.T) {
	for _, test := range []struct{ expr, want string }{
		{"m:get_first_named_header_value 'subject'", "Café au lait today"},
		{"m:get_first_named_header_value 'RECEIVED'", "from mx.a.example (mx.a.example [192.0.2.1]) by in.b.example with ESMTPS id 4ABC; Thu, 1 Jan 2026 12:00:00 +0000"},
		{"m:get_first_named_header_value 'X-Absent'", "null"},
		{"m:get_first_named_header_value 'body'", "null"},
		{"m:get_first_named_header_value ''", "null"},
		{"m:get_first_named_header_value 'X-Empty'", ""},
		{"m:get_first_named_header_value 'X-Raw'", "caf\xe9"},
		{"m:get_all_named_header_values 'x-tenant'", `["one","two"]`},
		{"#m:get_all_named_header_values 'Received'", "2"},
		{"#m:get_all_named_header_values 'X-Absent'", "0"},
		{"#m:get_all_headers()", "16"},
		{"m:get_all_headers()[7]", `["x-tenant","one"]`},

		{"m:from_header().email", "news@a.example"},
		{"m:from_header().user", "news"},
		{"m:from_header().domain", "a.example"},
		{"m:from_header().name", "Café News"},
		{"m:get_address_header('reply-to').name", "Bob"},
		{"m:get_address_header 'X-Absent'", "null"},
		{"#m:to_header().list", "3"},
		{"m:to_header().list[1].name", "Doe, Jane"},
		{"m:to_header().list[2].user", "info@"},
		{"m:to_header().list[2].email", `"info@"@c.example`},
		{"m:to_header().list[2].name", "null"},
		{"m:to_header().list[3].domain", "c.example"},
		{"m:to_header().list[3] == m:get_address_header('reply-to').list[1]", "true"},
		{"m:to_header().list[2] == m:to_header().list[3]", "false"},
		{"'to ' .. m:to_header().list[3]", `to {"address":"bob@c.example","name":"Bob"}`},
		{"tostring(m:from_header())", `[{"Address":{"address":"news@a.example","name":"Café News"}}]`},
		{"kumo.json_encode(m:to_header().list)", `[{"address":"jane@b.example","name":"Doe, Jane"},{"address":"\"info@\"@c.example","name":null},{"address":"bob@c.example","name":"Bob"}]`},
		{"tostring(m:to_header())", `[{"Address":{"address":"jane@b.example","name":"Doe, Jane"}},{"Group":{"addresses":[{"address":"\"info@\"@c.example","name":null},{"address":"bob@c.example","name":"Bob"}],"name":"Friends"}}]`},
		{"#m:get_address_header('Cc').list", "0"},
		{"#m:get_address_header('Bcc').list", "0"},

		{"m:to_header().email", "error: email: is not a simple single address"},
		{"m:get_address_header('Cc').name", "error: name: is not a simple address"},
		{"m:get_address_header('Bcc').user", "error: user: no addresses"},
		{"m:from_header().nonsense", `error: an address header has no field "nonsense"`},
		{"m:to_header().list[1].list", `error: an address has no field "list"`},
		{"m:get_address_header 'Sender'", "error: get_address_header: the header Sender has no list of addresses: no angle-addr"},
		{"m:get_first_named_header_value()", "error: bad argument #2 to get_first_named_header_value (string expected"},
		{"m:get_address_header {}", "error: bad argument #2 to get_address_header (string expected"},
	} {
		l := &letter{data: []byte(newsletter)}
		got, err := onMessage(t, l, "return "+test.expr)
		if err != nil {
			got = "error: " + err.Error()
		}
		if text, isError := strings.CutPrefix(test.want, "error: "); isError && (err == nil || !strings.Contains(got, text)) || !isError && got != test.want {
			t.Errorf("%s:\n%s, want\n%s", test.expr, got, test.want)
		}
		if l.headerReads > 1 || l.replaced > 0 || string(l.data) != newsletter {
			t.Errorf("%s: the header was read %d times and replaced %d times", test.expr, l.headerReads, l.replaced)
		}
	}
}

func TestHeadersEdit(t *testing.T) {
	const small = "A: 1\r\nX-B: 2\r\nC: 3\r\n\tfolded\r\nx-d: 4\r\n\r\nbody\n"
	for _, test := range []struct{ statements, want string }{
		{"m:prepend_header('N', 'v')", "N: v\r\n" + small},
		{"m:append_header('N', 'v')", "A: 1\r\nX-B: 2\r\nC: 3\r\n\tfolded\r\nx-d: 4\r\nN: v\r\n\r\nbody\n"},
		{"m:append_header('N', 'café', true)", "A: 1\r\nX-B: 2\r\nC: 3\r\n\tfolded\r\nx-d: 4\r\nN: =?utf-8?q?caf=C3=A9?=\r\n\r\nbody\n"},
		{"m:prepend_header('N', 7)", "N: 7\r\n" + small},
		{"m:remove_all_named_headers 'c'", "A: 1\r\nX-B: 2\r\nx-d: 4\r\n\r\nbody\n"},
		{"m:remove_all_named_headers 'none'", small},
		{"m:remove_x_headers()", "A: 1\r\nC: 3\r\n\tfolded\r\n\r\nbody\n"},
		{"m:remove_x_headers {}", "A: 1\r\nC: 3\r\n\tfolded\r\n\r\nbody\n"},
		{"m:remove_x_headers {'x-B', 'a'}", "C: 3\r\n\tfolded\r\nx-d: 4\r\n\r\nbody\n"},
		{"m:remove_x_headers() m:prepend_header('X-1', 'a') m:append_header('X-2', 'b') m:remove_all_named_headers 'A'", "X-1: a\r\nC: 3\r\n\tfolded\r\nX-2: b\r\n\r\nbody\n"},
		{"m:prepend_header('N', 'v') return m:get_data()", "N: v\r\n" + small},
		{"m:prepend_header('N', 'v') m:get_data() m:prepend_header('M', 'w')", "M: w\r\nN: v\r\n" + small},
		{"m:prepend_header('N', 'v') m:set_data 'B: 1\\r\\n\\r\\n' assert(not m:get_first_named_header_value 'N') m:append_header('C', '2')", "B: 1\r\nC: 2\r\n\r\n"},
		{"m:prepend_header('N', 'v') assert(m:get_first_named_header_value 'n' == 'v')", "N: v\r\n" + small},
		{"pcall(m.prepend_header, m, 'N', 'v\\r\\nBcc: x') pcall(m.append_header, m, 'N:', 'v')", small},

		{"m:prepend_header('N', 'v\\r\\nBcc: x')", "error: prepend_header: the value of the header N holds a line break without a space"},
		{"m:append_header('N', 'v\\n\\nbody')", "error: append_header: the value of the header N holds a line break that is not CRLF"},
		{"m:append_header('N\\r\\nBcc', 'v')", "error: append_header: the header name"},
		{"m:append_header('N', 'v\\r\\n w', true)", "error: append_header: the value of the header N holds"},
		{"m:append_header('N')", "error: bad argument #3 to append_header (string expected"},
		{"m:append_header('N', 'v', 'yes')", "error: bad argument #4 to append_header (boolean expected"},
		{"m:set_data 'A: 1' m:append_header('N', 'v')", "error: append_header: could not find the end of the header block"},
		{"m:remove_x_headers {1}", "error: header name expected as element 1 of the list"},
		{"m:remove_x_headers 'x'", "error: bad argument #2 to remove_x_headers (table expected"},
	} {
		l := &letter{data: []byte(small)}
		_, err := onMessage(t, l, test.statements)
		if text, isError := strings.CutPrefix(test.want, "error: "); isError {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", test.statements, err)
			}
			continue
		}
		if err != nil || string(l.data) != test.want {
			t.Errorf("%s: %v\n%q, want\n%q", test.statements, err, l.data, test.want)
		}
		if most := 1 + strings.Count(test.statements, "get_data"); l.replaced > most {
			t.Errorf("%s: the header was replaced %d times", test.statements, l.replaced)
		}
	}
}

func TestHeadersImport(t *testing.T) {
	for _, test := range []struct {
		statements string
		want       map[string]any // or an error
		gone       []string
		err        string
	}{
		{statements: "m:import_x_headers {'x-campaign-id', 'SUBJECT', 'x-absent'}", want: map[string]any{"x_campaign_id": "12345", "subject": "Café au lait today"}},
		{statements: "m:import_x_headers {'X-Tenant'}", want: map[string]any{"x_tenant": "two"}},
		{statements: "m:import_x_headers({'X-Tenant'}, true)", want: map[string]any{"x_tenant": "one"}},
		{statements: "m:import_x_headers {'X-Raw'}", want: map[string]any{"x_raw": "caf\uFFFD"}},
		{statements: "m:import_x_headers()", want: map[string]any{"x_campaign_id": "12345", "x_tenant": "two", "x_raw": "caf\uFFFD", "x_empty": "",
			"x_schedule": `{"dow":"Mon,Wed","tz":"America/Phoenix","start":"09:00:00","end":"17:00:00"}`}},

		{statements: "m:import_headers {{name='X-C*'}, {name='x-tenant', match='first'}}", want: map[string]any{"x_campaign_id": "12345", "x_tenant": "one"}},
		{statements: "m:import_headers {{name='X-Tenant', match='all', remove=true}}", want: map[string]any{"x_tenant": []any{"one", "two"}}, gone: []string{"x-tenant: one\r\n", "X-TENANT: two\r\n"}},
		{statements: "m:import_headers {{name='X-Absent', match='all', remove=true}}", want: map[string]any{}},
		{statements: "m:import_headers {{name='X-Campaign-ID', target='campaign', remove=true}, {name='X-C*', transform='camel_case'}}", want: map[string]any{"campaign": "12345"}, gone: []string{"X-Campaign-ID: 12345\r\n"}},
		{statements: "m:import_headers {{name='X-C*', transform='camel_case'}}", want: map[string]any{"xCampaignId": "12345"}},
		{statements: "m:import_headers {{name='X-Campaign-ID', transform='pascal_case'}}", want: map[string]any{"XCampaignId": "12345"}},
		{statements: "m:import_headers {{name='X-Campaign-ID', transform='kebab_case'}}", want: map[string]any{"x-campaign-id": "12345"}},
		{statements: "m:import_headers {}", want: map[string]any{}},

		{statements: "m:import_headers {{}}", err: "import_headers: [1]: want a table"},
		{statements: "m:import_headers {{match='all'}}", err: "import_headers: [1]: name: the name of a header is required"},
		{statements: "m:import_headers {{name='*'}}", err: "[1]: name: \"*\": a * may only follow"},
		{statements: "m:import_headers {{name='X-*-Y*'}}", err: "a * may only follow"},
		{statements: "m:import_headers {{name='*-ID'}}", err: "a * may only follow"},
		{statements: "m:import_headers {{name='X'}, {name='X-*', target='x'}}", err: "[2]: target: not with a name that ends in *"},
		{statements: "m:import_headers {{name='X', match='any'}}", err: "match: want first, last or all"},
		{statements: "m:import_headers {{name='X', transform='upper'}}", err: "transform: want snake_case"},
		{statements: "m:import_headers {{name='X', delete=true}}", err: `unknown field "delete"`},
		{statements: "m:import_headers {{name='X', remove='yes'}}", err: "remove: unexpected value yes"},
		{statements: "m:import_headers {name='X'}", err: "want a list of tables"},
		{statements: "m:import_headers {'X'}", err: "[1]: want a table"},
		{statements: "m:import_headers()", err: "table expected"},
		{statements: "local t = {} for i = 1, 65537 do t[i] = 'A' end m:import_x_headers(t)", err: "there are more than 65536 names"},
		{statements: "m:import_x_headers {{}}", err: "header name expected as element 1"},
	} {
		l := &letter{data: []byte(newsletter), meta: map[string]any{}}
		_, err := onMessage(t, l, test.statements)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v", test.statements, err)
			}
			continue
		}
		if err != nil || fmt.Sprint(l.meta) != fmt.Sprint(test.want) {
			t.Errorf("%s: %v\n%q, want\n%q", test.statements, err, l.meta, test.want)
		}
		want := newsletter
		for _, line := range test.gone {
			want = strings.Replace(want, line, "", 1)
		}
		if string(l.data) != want {
			t.Errorf("%s: left %q", test.statements, l.data)
		}
		if _, err := json.Marshal(l.meta); err != nil {
			t.Error(test.statements, err)
		}
	}
}

// What comes in the mail is often broken: it is read as far as it can be, and nothing raises an error.
func TestHeadersBroken(t *testing.T) {
	for _, test := range []struct{ data, want string }{
		{"", "[]"},
		{"\r\n", "[]"},
		{"body alone", `[["body alone",""]]`},
		{"Subject: x\nTo: y\n\nbody: z\n", `[["Subject","x"],["To","y"]]`},
		{"Subject: x", `[["Subject","x"]]`},
		{": x\r\n: y\r\n\r\n", `[["","x"],["","y"]]`},
		{" lost\r\nA: 1\r\n\r\n", `[["","lost"],["A","1"]]`},
		{"A: 1\r\n no colon\r\nnor here\r\nB: 2\r\n\r\n", `[["A","1 no colon"],["nor here",""],["B","2"]]`},
		{"A: =?utf-8?q?=?=\r\nB: =?x?q?y?=\r\n\r\n", `[["A","=?utf-8?q?=?="],["B","=?x?q?y?="]]`},
	} {
		got, err := onMessage(t, &letter{data: []byte(test.data)}, "return m:get_all_headers()")
		if got == "{}" {
			got = "[]"
		}
		if err != nil || got != test.want {
			t.Errorf("%q: %s, %v, want %s", test.data, got, err, test.want)
		}
	}
}

func TestHeadersError(t *testing.T) {
	cause := errors.New("the spool is gone")
	for _, expr := range []string{"get_first_named_header_value 'A'", "get_all_headers()", "from_header()", "prepend_header('A', 'b')", "import_x_headers()", "remove_x_headers()"} {
		_, err := onMessage(t, &letter{err: cause}, "return m:"+expr)
		name, _, _ := strings.Cut(strings.ReplaceAll(expr, " ", "("), "(")
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), name+": the spool is gone") {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

// A header of very many lines would take a hundred times its size.
func TestHeadersOfManyLines(t *testing.T) {
	for lines, want := range map[int]string{maxLines: "", maxLines + 1: "get_all_headers: the header block has more than 65536 lines"} {
		_, err := onMessage(t, &letter{data: []byte(strings.Repeat("a\n", lines-1) + "\n" + strings.Repeat("\n", maxLines))}, "m:get_all_headers()")
		if got := fmt.Sprint(err); (err != nil) != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%d lines: %v", lines, err)
		}
	}
}

// A long header ends with the call that works on it.
func TestHeadersCut(t *testing.T) {
	s := newState(t, stubs(), "function run(m) return m:get_all_headers() end")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	l := &cutting{letter{data: []byte(strings.Repeat("A: 1\r\n", 1000) + "\r\n")}, func() { cancel(cause) }}
	if _, err := s.Call(ctx, 1, s.L.GetGlobal("run"), NewMessage(s.L, l)); !errors.Is(err, cause) {
		t.Error(err)
	}
}

// cutting ends the call while its header is read.
type cutting struct {
	letter
	cut func()
}

func (c *cutting) Header() ([]byte, error) {
	c.cut()
	return c.letter.Header()
}

func BenchmarkHeaders(b *testing.B) {
	for _, bench := range []struct{ name, statements string }{
		{"first", "m:get_first_named_header_value 'Subject'"},
		{"five", "for i = 1, 5 do m:get_first_named_header_value 'X-Campaign-ID' end"},
		{"from", "m:from_header()"},
		{"all", "m:get_all_headers()"},
		{"prepend", "m:prepend_header('X-A', 'b')"},
		{"edits", "m:prepend_header('X-A', 'b') m:append_header('X-B', 'c') m:remove_x_headers()"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := newState(b, stubs(), "function run(m) "+bench.statements+" end")
			run := s.L.GetGlobal("run")
			data := []byte(newsletter + strings.Repeat("body\r\n", 10000))
			b.ReportAllocs()
			for b.Loop() {
				ud := NewMessage(s.L, &letter{data: data})
				if _, err := s.Call(b.Context(), 0, run, ud); err != nil {
					b.Fatal(err)
				}
				Expire(ud)
			}
		})
	}
}
