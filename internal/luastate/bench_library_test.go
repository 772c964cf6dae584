package luastate

import (
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// BenchmarkLibrary compares the library's functions with those that gopher-lua brings.
func BenchmarkLibrary(b *testing.B) {
	const prepare = `
local line = 'Received: from mx.example.org (mx.example.org [192.0.2.7]) by mail.example.com with ESMTPS id 4fGh2k; Tue, 1 Jul 2025 10:20:30 +0000'
local long = ('one two  three, '):rep(600)
local words = {} for i = 1, 100 do words[i] = 'w' .. (i * 7919 % 100) end
local find, match, gmatch, gsub, format, sub, upper, rep, byte = string.find, string.match, string.gmatch, string.gsub, string.format, string.sub, string.upper, string.rep, string.byte
local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
return {`
	for _, snippet := range []struct{ name, code string }{
		{"find plain", "find(line, 'ESMTPS', 1, true)"},
		{"find literal", "find(line, 'ESMTPS')"},
		{"find class", "find(line, '%d+')"},
		{"find absent", "find(line, '(%d+)x(%d+)')"},
		{"match domain", "match('user@example.com', '@(.+)$')"},
		{"match header", "match(line, '^([%w-]+):%s*(.-)%s*;')"},
		{"match brackets", "match(line, '%[([%d%.]+)%]')"},
		{"match lazy", "match(line, '^(.-):')"},
		{"gmatch words", "(function() local n = 0 for w in gmatch(line, '%w+') do n = n + 1 end return n end)()"},
		{"gsub string", "gsub(line, '%s+', ' ')"},
		{"gsub captures", "gsub(line, '(%w+)%.(%w+)', '%2.%1')"},
		{"gsub function", "gsub(line, '%d+', function(d) return '<' .. d .. '>' end)"},
		{"gsub long", "gsub(long, '%w+', '%0!')"},
		{"gsub absent", "gsub(line, '\\r\\n', '\\n')"},
		{"format", "format('%d %s %5.2f', 42, 'text', 3.14159)"},
		{"format string", "format('%s@%s', 'user', 'example.com')"},
		{"sub", "sub(line, 11, 20)"},
		{"byte", "byte(line, 5)"},
		{"upper", "upper('user@example.com')"},
		{"method", "('user'):upper()"},
		{"rep", "rep('ab', 20)"},
		{"concat", "concat(words, ',')"},
		{"insert remove", "(function() local t = {} for i = 1, 50 do insert(t, i) end while #t > 0 do remove(t) end end)()"},
		{"sort", "(function() local t = {} for i = 1, 100 do t[i] = words[i] end sort(t) end)()"},
		{"sort by", "(function() local t = {} for i = 1, 100 do t[i] = words[i] end sort(t, function(a, b) return a > b end) end)()"},
		{"tostring", "tostring(42) .. tostring(0.5)"},
		{"tonumber", "tonumber('42') + tonumber(' 0x1F ')"},
	} {
		source := prepare + "f = function() return " + snippet.code + " end}"
		run := func(b *testing.B, L *lua.LState) {
			if err := L.DoString("bench = (function() " + source + " end)().f"); err != nil {
				b.Fatal(err)
			}
			L.SetContext(b.Context())
			fn := L.GetGlobal("bench")
			b.ReportAllocs()
			for b.Loop() {
				L.Push(fn)
				L.Call(0, 0)
			}
		}
		b.Run(snippet.name+"/bare", func(b *testing.B) {
			L := lua.NewState()
			defer L.Close()
			run(b, L)
		})
		b.Run(snippet.name+"/ours", func(b *testing.B) {
			s := newState(b, "", nil)
			run(b, s.L)
		})
	}
}
