package kumo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/luastate"
)

// shapingOptions are the second argument of kumo.shaping.load: how much each kind of trouble matters.
type shapingOptions struct {
	AliasedSite     string        `config:"aliased_site" default:"Ignore" enum:"Ignore,Warn,Error"`
	DNSFail         string        `config:"dns_fail" default:"Ignore" enum:"Ignore,Warn,Error"`
	LocalLoad       string        `config:"local_load" default:"Error" enum:"Ignore,Warn,Error"`
	NullMX          string        `config:"null_mx" default:"Ignore" enum:"Ignore,Warn,Error"`
	ProviderOverlap string        `config:"provider_overlap" default:"Ignore" enum:"Ignore,Warn,Error"`
	RemoteLoad      string        `config:"remote_load" default:"Ignore" enum:"Ignore,Warn,Error"`
	SkipRemote      bool          `config:"skip_remote"`
	HTTPTimeout     time.Duration `config:"http_timeout" default:"5s"`
}

const maxShapingFiles = 256

// shapingLoad is kumo.shaping.load(paths, options).
func (m *module) shapingLoad(L *lua.LState) int {
	paths, tbl := L.CheckTable(1), L.OptTable(2, nil)
	var files []string
	for i := 1; i <= min(paths.Len(), maxShapingFiles+1); i++ {
		path, ok := paths.RawGetInt(i).(lua.LString)
		if !ok {
			L.ArgError(1, "want a list of file names and URLs")
		}
		files = append(files, string(path))
	}
	if len(files) > maxShapingFiles {
		L.ArgError(1, fmt.Sprintf("there are more than %d files", maxShapingFiles))
	}
	l := &shapingLoader{options: m.options}
	if err := l.configure(tbl); err != nil {
		e := &MakeError{Func: "shaping.load", Table: describe(tbl), Err: err}
		e.File, e.Line = luastate.Where(L)
		luastate.Raise(L, e)
	}
	s, err := outside(L, func(ctx context.Context) (*shaping, error) { return l.load(ctx, files) })
	if err != nil {
		luastate.Raise(L, fmt.Errorf("shaping.load: %w", err))
	}
	L.Push(m.newShaping(L, s))
	return 1
}

// shapingLoader makes one shaping of several files.
type shapingLoader struct {
	options *Options
	levels  shapingOptions
	made    shaping
	aliases map[string][]string // domains by site
}

func (l *shapingLoader) configure(tbl *lua.LTable) error {
	var tree any = decode.Empty{}
	if tbl != nil {
		var err error
		if tree, err = luastate.ToTree(tbl, decode.Empty{}); err != nil {
			return err
		}
	}
	return decode.Decode(tree, &l.levels)
}

// note keeps a finding as its level says.
func (l *shapingLoader) note(level, format string, args ...any) {
	switch text := fmt.Sprintf(format, args...); level {
	case "Warn":
		l.made.warnings = append(l.made.warnings, text)
	case "Error":
		l.made.errors = append(l.made.errors, text)
	}
}

func (l *shapingLoader) load(ctx context.Context, paths []string) (*shaping, error) {
	l.made = shaping{sites: map[string]*shapingSection{}, domains: map[string]*shapingSection{}, mx: l.options.Sites}
	l.aliases = map[string][]string{}
	var files []*shapingFile
	for _, path := range paths {
		file, err := l.read(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		files = append(files, file)
	}
	if err := l.checkLookups(files); err != nil {
		return nil, err
	}
	found, err := l.lookUp(ctx, files)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		l.merge(file, found)
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := l.findings(ctx, found); err != nil {
		return nil, err
	}
	return &l.made, l.made.sum()
}

// read gives an empty file where its trouble is only to be noted.
func (l *shapingLoader) read(ctx context.Context, path string) (*shapingFile, error) {
	var text []byte
	var err error
	kind, level := "local", l.levels.LocalLoad
	switch {
	case !isRemote(path):
		text, err = readFile(path, maxTOML)
	case l.levels.SkipRemote:
		l.note("Warn", "Ignoring %s because skip_remote is set to true", path)
		return &shapingFile{}, nil
	default:
		kind, level = "remote", l.levels.RemoteLoad
		text, err = l.options.fetchShaping(ctx, path, l.levels.HTTPTimeout)
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
	}
	if err != nil {
		l.note(level, "%s shaping source %s error: %v", kind, path, err)
		return &shapingFile{}, nil
	}
	file, err := parseShaping(path, text)
	if errors.Is(err, errNoShaping) {
		l.note(level, "parsing %s: %v", path, err)
		return &shapingFile{}, nil
	}
	return file, err
}

// checkLookups says at once what could only fail later.
func (l *shapingLoader) checkLookups(files []*shapingFile) error {
	if l.options.Sites != nil {
		return nil
	}
	for _, file := range files {
		for _, s := range file.domains {
			if s.rollup {
				return fmt.Errorf("domain %q: mx_rollup needs MX lookups, which are not available here: set mx_rollup = false", s.name)
			}
		}
		for _, p := range file.providers {
			if p.needsMX() {
				return fmt.Errorf("provider %q: to match by hosts needs MX lookups, which are not available here", p.name)
			}
		}
	}
	return nil
}

// shapingLookups is how many MX lookups are under way at once.
const shapingLookups = 16

type shapingMX struct {
	Site
	err error
}

// lookUp finds the sites of all domains that are rolled up.
func (l *shapingLoader) lookUp(ctx context.Context, files []*shapingFile) (map[string]shapingMX, error) {
	found := map[string]shapingMX{}
	for _, file := range files {
		for _, s := range file.domains {
			if s.rollup {
				found[s.name] = shapingMX{}
			}
		}
	}
	var mu sync.Mutex
	var panicked any
	var group sync.WaitGroup
	room := make(chan struct{}, shapingLookups)
	for _, domain := range slices.Sorted(maps.Keys(found)) {
		room <- struct{}{}
		group.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					mu.Lock()
					defer mu.Unlock()
					panicked = p
				}
				<-room
			}()
			mx, err := l.options.Sites(ctx, domain)
			mu.Lock()
			defer mu.Unlock()
			found[domain] = shapingMX{mx, err}
		})
	}
	group.Wait()
	if panicked != nil {
		panic(panicked) // where those who call Lua can recover
	}
	return found, context.Cause(ctx)
}

func (l *shapingLoader) merge(file *shapingFile, found map[string]shapingMX) {
	if file.defaults != nil {
		put(l.made.domains, "default", file.defaults)
	}
	for _, s := range file.domains {
		if !strings.Contains(strings.Trim(s.name, "."), ".") {
			l.note("Warn", "the section %q has a name of one label: in TOML the name of a domain needs quotes, [\"%s.com\"], "+
				"for without them each dot begins a table", s.name, s.name)
		}
		if !s.rollup {
			put(l.made.domains, s.name, s)
			continue
		}
		switch mx := found[s.name]; {
		case mx.err != nil:
			l.note(l.levels.DNSFail, "error resolving MX for %s: %v. Ignoring the shaping config for that domain.", s.name, mx.err)
		case len(mx.Hosts) == 0 || mx.Name == "":
			l.note(l.levels.NullMX, "domain %s has a NULL MX and cannot be used with mx_rollup=true. "+
				"Ignoring the shaping config for that domain.", s.name)
		default:
			l.aliases[mx.Name] = append(l.aliases[mx.Name], s.name)
			put(l.made.sites, mx.Name, s)
		}
	}
	for _, p := range file.providers {
		at := slices.IndexFunc(l.made.providers, func(known *shapingProvider) bool { return known.name == p.name })
		if at < 0 {
			l.made.providers = append(l.made.providers, p)
		} else {
			l.made.providers[at].merge(p)
		}
	}
}

// put merges a section into the one of that name.
func put(sections map[string]*shapingSection, name string, s *shapingSection) {
	if known, ok := sections[name]; ok {
		known.merge(s)
		return
	}
	own := *s
	sections[name] = &own
}

// check lets make_egress_path look at every section.
func (l *shapingLoader) check() error {
	for _, kind := range []struct {
		name     string
		sections map[string]*shapingSection
	}{{"site", l.made.sites}, {"domain", l.made.domains}} {
		for _, name := range slices.Sorted(maps.Keys(kind.sections)) {
			if err := l.checkSection(kind.sections[name]); err != nil {
				return fmt.Errorf("%s: %s: %w", kind.name, name, err)
			}
		}
	}
	for _, p := range l.made.providers {
		if err := l.checkSection(&p.shapingSection); err != nil {
			return fmt.Errorf("provider: %s: %w", p.name, err)
		}
	}
	return nil
}

func (l *shapingLoader) checkSection(s *shapingSection) error {
	makePath, ok := l.options.Make["make_egress_path"]
	if !ok {
		return nil
	}
	checked := func(params map[string]any) error {
		params = maps.Clone(params)
		delete(params, selectionRate)
		_, err := makePath(params)
		return err
	}
	if err := checked(s.params); err != nil {
		return err
	}
	for _, source := range slices.Sorted(maps.Keys(s.sources)) {
		if err := checked(s.sources[source]); err != nil {
			return fmt.Errorf("source %q: %w", source, err)
		}
	}
	return nil
}

// findings are those that concern the whole.
func (l *shapingLoader) findings(ctx context.Context, found map[string]shapingMX) error {
	for _, site := range slices.Sorted(maps.Keys(l.aliases)) {
		domains := slices.Compact(slices.Sorted(slices.Values(l.aliases[site])))
		if len(domains) > 1 {
			l.note(l.levels.AliasedSite, "multiple domain blocks alias to the same site: %s: %s", site, strings.Join(domains, ", "))
		}
	}
	if l.levels.ProviderOverlap == "Ignore" {
		return nil
	}
	for _, domain := range slices.Sorted(maps.Keys(found)) {
		matching, err := l.made.providersOf(ctx, domain)
		if err != nil {
			return err
		}
		var names []string
		for _, p := range matching {
			names = append(names, p.name)
		}
		if len(names) > 0 {
			l.note(l.levels.ProviderOverlap, "domain %s is also matched by provider(s): %s", domain, strings.Join(names, ", "))
		}
	}
	return nil
}

// sum finds the hash, which is the same for what is the same, and the size.
func (s *shaping) sum() error {
	type section struct {
		Params  map[string]any
		Sources map[string]map[string]any
	}
	plain := func(sections map[string]*shapingSection) map[string]section {
		out := map[string]section{}
		for name, s := range sections {
			out[name] = section{s.params, s.sources}
		}
		return out
	}
	var providers []any
	for _, p := range s.providers {
		var matches []string
		for _, m := range p.matches {
			matches = append(matches, m.kind, m.text)
		}
		providers = append(providers, []any{p.name, p.limit, p.rate, matches, p.params, p.sources})
	}
	text, err := json.Marshal([]any{plain(s.sites), plain(s.domains), providers, s.warnings, s.errors})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	s.hash, s.size = hex.EncodeToString(sum[:]), 4*len(text)
	return nil
}
