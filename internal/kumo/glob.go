package kumo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Bounds of one look into the file system.
const (
	maxEntries  = 100_000 // of folders that are looked at
	maxMatches  = 20_000
	maxPattern  = 4096
	maxGlobs    = 32 // patterns whose matches are kept, as upstream
	globTTL     = time.Minute
	entriesStep = 1024 // entries between two looks at the context
)

// globs keeps the matches of patterns for a while, for all states of an Options. The zero value is ready.
type globs struct {
	mu    sync.Mutex
	known map[globKey]globResult
}

type globKey struct{ pattern, base string }

type globResult struct {
	names []string
	until time.Time
}

func (g *globs) get(key globKey) ([]string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.known[key]
	return r.names, ok && time.Now().Before(r.until)
}

// put forgets the one that would go soonest if there is no room.
func (g *globs) put(key globKey, names []string, ttl time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known = map[globKey]globResult{}
	}
	g.known[key] = globResult{names, time.Now().Add(ttl)}
	if len(g.known) <= maxGlobs {
		return
	}
	var soonest globKey
	for k, r := range g.known {
		if first, ok := g.known[soonest]; !ok || r.until.Before(first.until) {
			soonest = k
		}
	}
	delete(g.known, soonest)
}

// globCached is kumo.fs.glob(pattern, relative_to, ttl_seconds).
func (m *module) globCached(L *lua.LState) int {
	key := globKey{L.CheckString(1), L.OptString(2, ".")}
	ttl := globTTL
	if seconds := L.Get(3); seconds != lua.LNil {
		var ok bool
		if ttl, ok = secondsToDuration(float64(L.CheckNumber(3))); !ok {
			L.ArgError(3, "want a number of seconds")
		}
	}
	names, ok := m.options.globs.get(key)
	if !ok {
		names = mustGlob(L, key)
		m.options.globs.put(key, names, ttl)
	}
	L.Push(luastate.FromTree(L, names))
	return 1
}

// globUncached is kumo.fs.uncached_glob(pattern, relative_to).
func globUncached(L *lua.LState) int {
	L.Push(luastate.FromTree(L, mustGlob(L, globKey{L.CheckString(1), L.OptString(2, ".")})))
	return 1
}

func mustGlob(L *lua.LState, key globKey) []string {
	names, err := glob(contextOf(L), key.pattern, key.base)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("glob(%q): %w", excerpt(key.pattern), err))
	}
	return names
}

// glob lists in order what matches a pattern: * ? and [...] within a name, ** for any number of folders. A name that
// begins with a dot has to be named with one. What cannot be looked into is left out. Names below base are relative
// to it.
func glob(ctx context.Context, pattern, base string) ([]string, error) {
	switch {
	case len(pattern) > maxPattern:
		return nil, fmt.Errorf("the pattern is longer than %d bytes", maxPattern)
	case len(base) > maxPattern:
		return nil, fmt.Errorf("the folder that the pattern is relative to is longer than %d bytes", maxPattern)
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err
	}
	root := base
	if strings.HasPrefix(pattern, "/") {
		root = "/"
	}
	g := globber{look: look{ctx: ctx}, found: map[string]bool{}}
	parts := slices.DeleteFunc(strings.Split(pattern, "/"), func(part string) bool { return part == "" || part == "." })
	if err := g.expand(root, parts); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(g.found))
	for name := range g.found {
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("path entry %q is not representable as utf8", name)
		}
		if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(filepath.Clean(base), "/")+"/"); ok {
			name = rest
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

type globber struct {
	look
	found map[string]bool
}

func (g *globber) expand(dir string, parts []string) error {
	if len(parts) == 0 {
		return nil
	}
	part, rest := parts[0], parts[1:]
	if !strings.ContainsAny(part, `*?[\`) {
		return g.step(filepath.Join(dir, part), rest)
	}
	if part == "**" {
		if err := g.expand(dir, rest); err != nil {
			return err
		}
	}
	return g.entries(dir, func(entry fs.DirEntry) error {
		name := entry.Name()
		if strings.HasPrefix(name, ".") && !strings.HasPrefix(part, ".") {
			return nil
		}
		full := filepath.Join(dir, name)
		if part == "**" {
			if len(rest) == 0 {
				if err := g.add(full); err != nil {
					return err
				}
			}
			if entry.IsDir() { // not through a link, which may lead back
				return g.expand(full, parts)
			}
			return nil
		}
		if matched, err := path.Match(part, name); err != nil || !matched {
			return err
		}
		return g.step(full, rest)
	})
}

// step takes a name that matches so far.
func (g *globber) step(full string, rest []string) error {
	if len(rest) > 0 {
		return g.expand(full, rest)
	}
	if _, err := os.Lstat(full); err != nil {
		return nil
	}
	return g.add(full)
}

func (g *globber) add(full string) error {
	g.found[full] = true
	if len(g.found) > maxMatches {
		return fmt.Errorf("there are more than %d matches", maxMatches)
	}
	return nil
}

// look counts the entries of folders that are looked at.
type look struct {
	ctx  context.Context
	seen int
}

// entries calls visit for all of a folder, or for none of one that cannot be read.
func (l *look) entries(dir string, visit func(fs.DirEntry) error) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	_, err = l.read(f, visit)
	return err
}

// read also tells of an error of the folder itself.
func (l *look) read(f *os.File, visit func(fs.DirEntry) error) (failed, err error) {
	for {
		if err := context.Cause(l.ctx); err != nil {
			return nil, err
		}
		entries, failed := f.ReadDir(entriesStep)
		for _, entry := range entries {
			if l.seen++; l.seen > maxEntries {
				return nil, fmt.Errorf("there are more than %d entries to look at", maxEntries)
			}
			if err := visit(entry); err != nil {
				return nil, err
			}
		}
		if failed != nil {
			if errors.Is(failed, io.EOF) {
				failed = nil
			}
			return failed, nil
		}
	}
}
