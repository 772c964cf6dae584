package kumo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mtadelivery/delivery/internal/decode"
)

// shapingFile is one file of shaping data, in the order of its sections.
type shapingFile struct {
	defaults  *shapingSection
	domains   []*shapingSection
	providers []*shapingProvider
}

// shapingSection is what a file says of a domain, or the files together of a domain or a site.
type shapingSection struct {
	name    string
	params  map[string]any
	sources map[string]map[string]any
	replace bool // replace_base
	rollup  bool // mx_rollup
}

// shapingProvider is a section that matches domains by their names or their hosts.
type shapingProvider struct {
	shapingSection
	limit   string // provider_connection_limit
	rate    string // provider_max_message_rate
	matches []providerMatch
}

type providerMatch struct{ kind, text string }

// Kinds of matches.
const (
	matchDomainSuffix = "DomainSuffix"
	matchMXSuffix     = "MXSuffix"
	matchHostName     = "HostName"
)

func isRemote(path string) bool {
	return strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://")
}

// fetchShaping reads shaping data over HTTP.
func (o *Options) fetchShaping(ctx context.Context, url string, timeout time.Duration) ([]byte, error) {
	transport, err := o.transport(transportKey{idle: poolIdleTimeout})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", defaultUserAgent)
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return nil, fmt.Errorf("the server says %s", excerpt(response.Status))
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxTOML+1))
	if err == nil && len(text) > maxTOML {
		err = fmt.Errorf("it is longer than %d bytes", maxTOML)
	}
	return text, err
}

var errNoShaping = errors.New("it is neither TOML nor JSON")

// parseShaping reads a file by the ending of its name; one with another ending is read as what it is.
func parseShaping(name string, text []byte) (*shapingFile, error) {
	asTOML := func() (*shapingFile, error) {
		fields, meta, err := decodeTOML(text)
		if err != nil {
			return nil, fmt.Errorf("parsing toml: %w", err)
		}
		var order, providers []string
		for _, key := range meta.Keys() {
			order = append(order, key[0])
			if key[0] == "provider" && len(key) > 1 {
				providers = append(providers, key[1])
			}
		}
		return newShapingFile(fields, order, providers)
	}
	asJSON := func() (*shapingFile, error) {
		tree, err := parseJSON(text)
		fields, ok := tree.(map[string]any)
		if err == nil && !ok {
			err = errors.New("want an object")
		}
		if err != nil {
			return nil, fmt.Errorf("parsing json: %w", err)
		}
		order, inner := objectKeys(blankComments(text))
		providers, _ := objectKeys(inner["provider"])
		return newShapingFile(fields, order, providers)
	}
	switch {
	case strings.HasSuffix(name, ".toml"):
		return asTOML()
	case strings.HasSuffix(name, ".json"):
		return asJSON()
	}
	file, errTOML := asTOML()
	if errTOML == nil {
		return file, nil
	}
	file, errJSON := asJSON()
	if errJSON == nil {
		return file, nil
	}
	return nil, fmt.Errorf("%w: %w, %w", errNoShaping, errTOML, errJSON)
}

// objectKeys gives the keys of a JSON object in their order.
func objectKeys(text []byte) (order []string, values map[string]json.RawMessage) {
	values = map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, values
	}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			break
		}
		order = append(order, name)
		values[name] = value
	}
	return order, values
}

// inOrder are the keys of a map, in that order as far as it goes and sorted then.
func inOrder(fields map[string]any, order []string) []string {
	names := slices.Sorted(maps.Keys(fields))
	place := make(map[string]int, len(order))
	for i, name := range slices.Backward(order) {
		place[name] = i - len(order)
	}
	slices.SortStableFunc(names, func(a, b string) int { return place[a] - place[b] })
	return names
}

func newShapingFile(fields map[string]any, order, providers []string) (*shapingFile, error) {
	f := &shapingFile{}
	for _, name := range inOrder(fields, order) {
		section, ok := fields[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: want a section, that is a table", excerpt(name))
		}
		if name == "provider" {
			if err := f.addProviders(section, providers); err != nil {
				return nil, err
			}
			continue
		}
		s, err := newShapingSection(name, section)
		if err == nil {
			s.rollup, err = flag(s.params, "mx_rollup", true)
		}
		if err != nil {
			return nil, fmt.Errorf("domain %q: %w", excerpt(name), err)
		}
		if name == "default" {
			f.defaults = s
		} else {
			f.domains = append(f.domains, s)
		}
	}
	return f, nil
}

func (f *shapingFile) addProviders(fields map[string]any, order []string) error {
	for _, name := range inOrder(fields, order) {
		section, ok := fields[name].(map[string]any)
		if !ok {
			return fmt.Errorf("provider %q: want a section, that is a table", excerpt(name))
		}
		p, err := newShapingProvider(name, section)
		if err != nil {
			return fmt.Errorf("provider %q: %w", excerpt(name), err)
		}
		f.providers = append(f.providers, p)
	}
	return nil
}

// newShapingSection takes out what is no parameter of an egress path. Automation is the business of those who watch
// deliveries; here it is left aside.
func newShapingSection(name string, fields map[string]any) (*shapingSection, error) {
	s := &shapingSection{name: name, params: maps.Clone(fields), sources: map[string]map[string]any{}}
	var err error
	if s.replace, err = flag(s.params, "replace_base", false); err != nil {
		return nil, err
	}
	if automation, ok := s.params["automation"]; ok {
		if _, ok := automation.([]any); !ok {
			return nil, errors.New("automation: want a list of tables")
		}
		delete(s.params, "automation")
	}
	sources, ok := s.params["sources"].(map[string]any)
	if !ok && s.params["sources"] != nil {
		return nil, errors.New("sources: want a table of tables")
	}
	delete(s.params, "sources")
	for source, params := range sources {
		if s.sources[source], ok = params.(map[string]any); !ok {
			return nil, fmt.Errorf("sources.%s: want a table", excerpt(source))
		}
	}
	return s, nil
}

// flag takes a boolean out of the parameters.
func flag(params map[string]any, name string, absent bool) (bool, error) {
	v, ok := params[name]
	if !ok {
		return absent, nil
	}
	delete(params, name)
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s: want true or false", name)
	}
	return b, nil
}

func newShapingProvider(name string, fields map[string]any) (*shapingProvider, error) {
	s, err := newShapingSection(name, fields)
	if err != nil {
		return nil, err
	}
	p := &shapingProvider{shapingSection: *s}
	if v, ok := p.params["provider_connection_limit"]; ok {
		limit, err := decode.ParseLimit(v)
		if err != nil {
			return nil, fmt.Errorf("provider_connection_limit: %w", err)
		}
		p.limit = limit.String()
	}
	if v, ok := p.params["provider_max_message_rate"]; ok {
		text, _ := v.(string)
		rate, err := decode.ParseRate(text)
		if err != nil {
			return nil, fmt.Errorf("provider_max_message_rate: %w", err)
		}
		p.rate = rate.String()
	}
	p.matches, err = newMatches(p.params["match"])
	for _, own := range []string{"provider_connection_limit", "provider_max_message_rate", "match"} {
		delete(p.params, own)
	}
	return p, err
}

func newMatches(v any) ([]providerMatch, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		return nil, errors.New("match: want a list of tables")
	}
	var matches []providerMatch
	for i, item := range list {
		fields, _ := item.(map[string]any)
		if len(fields) != 1 {
			return nil, fmt.Errorf("match[%d]: want a table with one of %s, %s and %s", i+1, matchMXSuffix, matchDomainSuffix, matchHostName)
		}
		for kind, v := range fields {
			text, ok := v.(string)
			switch {
			case kind != matchMXSuffix && kind != matchDomainSuffix && kind != matchHostName:
				return nil, fmt.Errorf("match[%d]: there is no %q: want %s, %s or %s", i+1, excerpt(kind), matchMXSuffix, matchDomainSuffix, matchHostName)
			case !ok || text == "":
				return nil, fmt.Errorf("match[%d].%s: want a name", i+1, kind)
			}
			matches = append(matches, providerMatch{kind, strings.ToLower(text)})
		}
	}
	return matches, nil
}
