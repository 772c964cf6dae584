package kumo

import (
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// maxLogged bounds what is written of one argument, in bytes.
const maxLogged = 64 << 10

// logAt is kumo.log_LEVEL(...): the arguments as text, joined by a space.
func (m *module) logAt(level slog.Level) lua.LGFunction {
	return func(L *lua.LState) int {
		logger := m.options.Logger
		if logger == nil {
			logger = slog.Default()
		}
		ctx := contextOf(L)
		if !logger.Enabled(ctx, level) {
			return 0
		}
		parts := make([]string, L.GetTop())
		for i := range parts {
			text := L.ToStringMeta(L.Get(i + 1)).String()
			parts[i] = printable(text[:min(len(text), maxLogged)])
		}
		logger.LogAttrs(ctx, level, strings.Join(parts, " "), slog.String("at", position(L)))
		return 0
	}
}

// printable writes bytes that are no UTF-8 as \xNN.
func printable(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var out strings.Builder
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				fmt.Fprintf(&out, `\x%02x`, text[i])
				continue
			}
		}
		out.WriteRune(r)
	}
	return out.String()
}
