package kumo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Site is where the mail of a domain goes.
type Site struct {
	// Hosts are names in lower case without a final dot; none if the domain says that it takes no mail.
	Hosts []string
	// Name is what get_egress_path_config is given for them.
	Name string
}

// shaping is what kumo.shaping.load made of its files. It is not written to any more.
type shaping struct {
	sites     map[string]*shapingSection
	domains   map[string]*shapingSection // with "default"
	providers []*shapingProvider
	mx        func(context.Context, string) (Site, error)

	warnings, errors []string
	hash             string
	size             int // about what it takes in memory
}

func (s *shaping) Size() int { return s.size }

func (s *shaping) freeze() thaw {
	return func(m *module, L *lua.LState) lua.LValue { return m.newShaping(L, s) }
}

func (m *module) newShaping(L *lua.LState, s *shaping) *lua.LUserData {
	mt := m.metatable(L, "shaping", func(L *lua.LState, mt *lua.LTable) {
		methods := L.CreateTable(0, 6)
		addAll(L, methods, map[string]lua.LGFunction{
			"get_egress_path_config": shapingPathConfig,
			"get_warnings":           shapingList(func(s *shaping) any { return s.warnings }),
			"get_errors":             shapingList(func(s *shaping) any { return s.errors }),
			"get_referenced_sources": shapingList(func(s *shaping) any { return s.referencedSources() }),
			"hash":                   shapingList(func(s *shaping) any { return s.hash }),
			"match_rules":            absent("shaping:match_rules"),
		})
		mt.RawSetString("__index", methods)
	})
	return &lua.LUserData{Value: s, Env: L.Env, Metatable: mt}
}

func checkShaping(L *lua.LState) *shaping {
	ud, _ := L.Get(1).(*lua.LUserData)
	if ud != nil {
		if s, ok := ud.Value.(*shaping); ok {
			return s
		}
	}
	L.ArgError(1, "shaping data expected: call its methods with a colon")
	return nil
}

func shapingList(get func(*shaping) any) lua.LGFunction {
	return func(L *lua.LState) int {
		L.Push(luastate.FromTree(L, get(checkShaping(L))))
		return 1
	}
}

// shapingPathConfig is shaping:get_egress_path_config(routing_domain, egress_source, site_name).
func shapingPathConfig(L *lua.LState) int {
	s := checkShaping(L)
	domain, source, site := L.CheckString(2), L.CheckString(3), L.CheckString(4)
	params, err := outside(L, func(ctx context.Context) (map[string]any, error) {
		return s.pathParams(ctx, domain, source, site)
	})
	if err != nil {
		luastate.Raise(L, fmt.Errorf("get_egress_path_config: %w", err))
	}
	L.Push(luastate.FromTree(L, params))
	return 1
}

// pathParams merges what applies, the more particular over the more general: the defaults, the providers, then these
// for the source, the site, the domain, then the site and the domain for the source.
func (s *shaping) pathParams(ctx context.Context, domain, source, site string) (map[string]any, error) {
	params := map[string]any{}
	if d := s.domains["default"]; d != nil {
		mergeParams(params, d.params)
	}
	matching, err := s.providersOf(ctx, domain)
	if err != nil {
		return nil, err
	}
	for _, p := range matching {
		mergeParams(params, p.params)
		p.imply(source, params)
	}
	for _, p := range matching {
		if own, ok := p.sources[source]; ok {
			mergeParams(params, own)
			p.imply(source, params)
		}
	}
	for _, section := range []*shapingSection{s.sites[site], s.domains[domain]} {
		if section == nil {
			continue
		}
		if section.replace {
			clear(params)
		}
		mergeParams(params, section.params)
	}
	for _, section := range []*shapingSection{s.sites[site], s.domains[domain]} {
		if section != nil {
			mergeParams(params, section.sources[source])
		}
	}
	return params, nil
}

// providersOf are the providers that match a domain, in their order.
func (s *shaping) providersOf(ctx context.Context, domain string) (matching []*shapingProvider, err error) {
	domain = strings.TrimSuffix(strings.ToLower(domain), ".")
	if !looksLikeDomain(domain) {
		return nil, nil
	}
	var hosts []string
	asked := false
	for _, p := range s.providers {
		matched := p.matchesDomain(domain)
		if !matched && p.needsMX() {
			if !asked {
				asked = true
				// A domain that cannot be resolved may go by way of a smart host: it matches nothing.
				if mx, err := s.mx(ctx, domain); err == nil {
					hosts = mx.Hosts
				} else if cause := context.Cause(ctx); cause != nil {
					return nil, cause
				}
			}
			matched = p.matchesHosts(hosts)
		}
		if matched {
			matching = append(matching, p)
		}
	}
	return matching, nil
}

// looksLikeDomain tells a name of the DNS from what else stands for a destination, a URL for example.
func looksLikeDomain(name string) bool {
	return name != "" && !strings.ContainsAny(name, "/:[]@ ")
}

func (p *shapingProvider) matchesDomain(domain string) bool {
	return slices.ContainsFunc(p.matches, func(m providerMatch) bool {
		return m.kind == matchDomainSuffix && strings.HasSuffix(domain, m.text)
	})
}

func (p *shapingProvider) needsMX() bool {
	return slices.ContainsFunc(p.matches, func(m providerMatch) bool { return m.kind != matchDomainSuffix })
}

// matchesHosts wants every host to match, so that a domain with hosts of two providers is none of either.
func (p *shapingProvider) matchesHosts(hosts []string) bool {
	for _, host := range hosts {
		if !slices.ContainsFunc(p.matches, func(m providerMatch) bool {
			return m.kind == matchMXSuffix && strings.HasSuffix(host, m.text) || m.kind == matchHostName && host == m.text
		}) {
			return false
		}
	}
	return len(hosts) > 0
}

// imply adds what a provider's own options come to: limits that all of its sites share, by source.
func (p *shapingProvider) imply(source string, params map[string]any) {
	implied := map[string]any{"provider_name": p.name}
	prefix := "shaping-provider-" + p.name + "-" + source + "-"
	if p.limit != "" {
		implied["additional_connection_limits"] = map[string]any{prefix + "limit": p.limit}
	}
	if p.rate != "" {
		implied["additional_message_rate_throttles"] = map[string]any{prefix + "rate": p.rate}
	}
	if rate, ok := params[selectionRate]; ok {
		delete(params, selectionRate)
		implied["additional_source_selection_rates"] = map[string]any{prefix + "selection-rate": rate}
	}
	mergeParams(params, implied)
}

const selectionRate = "provider_source_selection_rate"

// mergedMaps are the parameters whose entries are merged; any other is replaced.
var mergedMaps = []string{"additional_connection_limits", "additional_message_rate_throttles", "additional_source_selection_rates"}

// mergeParams puts from over params. What it takes over it does not write to.
func mergeParams(params, from map[string]any) {
	for name, v := range from {
		existing, ok1 := params[name].(map[string]any)
		added, ok2 := v.(map[string]any)
		if ok1 && ok2 && slices.Contains(mergedMaps, name) {
			merged := maps.Clone(existing)
			maps.Copy(merged, added)
			v = merged
		}
		params[name] = v
	}
}

// merge puts what a later file says of the same thing over what is there. As upstream, a later replace_base replaces
// what earlier files say of this section, and that of the first file the defaults and the providers.
func (s *shapingSection) merge(later *shapingSection) {
	if later.replace {
		s.params, s.sources = later.params, later.sources
		return
	}
	params := maps.Clone(s.params)
	mergeParams(params, later.params)
	s.params = params
	sources := maps.Clone(s.sources)
	for source, own := range later.sources {
		merged := map[string]any{}
		mergeParams(merged, sources[source])
		mergeParams(merged, own)
		sources[source] = merged
	}
	s.sources = sources
}

func (p *shapingProvider) merge(later *shapingProvider) {
	p.shapingSection.merge(&later.shapingSection)
	if later.replace {
		p.limit, p.rate, p.matches = later.limit, later.rate, later.matches
		return
	}
	if later.limit != "" {
		p.limit = later.limit
	}
	if later.rate != "" {
		p.rate = later.rate
	}
	p.matches = slices.Concat(p.matches, later.matches)
}

// referencedSources says for each source where it has values of its own.
func (s *shaping) referencedSources() map[string]any {
	found := map[string]any{}
	add := func(kind string, sections map[string]*shapingSection) {
		for _, name := range slices.Sorted(maps.Keys(sections)) {
			for source := range sections[name].sources {
				list, _ := found[source].([]any)
				found[source] = append(list, kind+":"+name)
			}
		}
	}
	add("site", s.sites)
	add("domain", s.domains)
	return found
}
