package kumo

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// TestPage runs every Lua block of the page that the environment variable PROTOCOL_PAGE names.
func TestPage(t *testing.T) {
	page := os.Getenv("PROTOCOL_PAGE")
	if page == "" {
		t.Skip("PROTOCOL_PAGE is not set")
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := luaBlocks(string(text))
	if len(blocks) == 0 {
		t.Fatal("the page has no Lua blocks")
	}
	for line, block := range blocks {
		t.Run(fmt.Sprintf("line %d", line), func(t *testing.T) { runBlock(t, block) })
	}
}

// luaBlocks gives the fenced blocks of Lua, also indented ones, by the line of their fence.
func luaBlocks(page string) map[int]string {
	blocks := map[int]string{}
	open := 0
	n := 0
	for line := range strings.Lines(page) {
		n++
		switch fence := strings.TrimSpace(line); {
		case open == 0 && fence == "```lua":
			open = n
		case open != 0 && fence == "```":
			open = 0
		case open != 0:
			blocks[open] += line
		}
	}
	return blocks
}

var (
	comparedDomain = regexp.MustCompile(`domain == '([^']+)'`)
	constructor    = regexp.MustCompile(`constructor = '([^']+)'`)
)

func runBlock(t *testing.T, block string) {
	p, err := luastate.Compile("page.lua", []byte(block))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.NewState(t.Context(), luastate.Options{Limits: luastate.Limits{Running: -1}, Setup: func(L *lua.LState) error {
		luastate.PrintTo(L, io.Discard)
		Install(L, stubs())
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if Handles(s.L, "get_queue_config") {
		domains := []string{"elsewhere.example"}
		for _, match := range comparedDomain.FindAllStringSubmatch(block, -1) {
			domains = append(domains, match[1])
		}
		for _, domain := range domains {
			results, handled, err := Call(t.Context(), s, "get_queue_config", lua.LString(domain), lua.LNil, lua.LNil, lua.LNil)
			if err != nil {
				t.Fatal(domain, err)
			}
			if _, ok := Config(append(results, lua.LNil)[0]); handled && !ok {
				t.Errorf("%s: got %v", domain, results)
			}
		}
		if !strings.Contains(block, domains[len(domains)-1]) {
			t.Error("the block compares no domain")
		}
	}
	for _, match := range constructor.FindAllStringSubmatch(block, -1) {
		sendThrough(t, s, match[1])
	}
}

// sendThrough sends a message, and another one that the block is made to reject.
func sendThrough(t *testing.T, s *luastate.State, event string) {
	if IsBuiltinEvent(event) {
		t.Errorf("%s is an event of upstream's own", event)
	}
	results, handled, err := Call(t.Context(), s, event, lua.LString("webhook"), lua.LNil, lua.LNil)
	if err != nil || !handled || len(results) == 0 {
		t.Fatal(results, handled, err)
	}
	send, err := s.Index(t.Context(), results[0], "send")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMessage(s.L, &letter{data: []byte("Subject: x\r\n\r\n")})
	if got, err := s.Call(t.Context(), 1, send, results[0], m); err != nil || got[0] != lua.LString("OK") {
		t.Error(got, err)
	}
	s.L.SetGlobal("failed", lua.LTrue)
	_, err = s.Call(t.Context(), 1, send, results[0], m)
	if r, ok := AsRejection(err); !ok || r.Code != 400 {
		t.Error(r, err)
	}
}
