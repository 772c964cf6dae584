package kumo

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// maxSecret bounds what a key source gives.
const maxSecret = 1 << 20

var errVault = errors.New("secrets in a vault are not available in this library: use a file, key_data or an event")

// secretsLoad is kumo.secrets.load(source).
func (m *module) secretsLoad(L *lua.LState) int {
	data, err := m.KeySource(L, L.CheckAny(1))
	if err != nil {
		luastate.Raise(L, fmt.Errorf("secrets.load: %w", err))
	}
	L.Push(lua.LString(data))
	return 1
}

// KeySource is what a key source of a policy stands for: a string is the name of a file, {key_data = bytes} is
// itself, and {event_name = name, event_args = list} what that event returns, which is asked in this state. An
// event that fails raises its own error. An error names no secret.
func (m *module) KeySource(L *lua.LState, source lua.LValue) (string, error) {
	if path, ok := source.(lua.LString); ok {
		data, err := readFile(string(path), maxSecret)
		if err != nil {
			return "", fmt.Errorf("key source: file %w", err)
		}
		return string(data), nil
	}
	tbl, ok := source.(*lua.LTable)
	if !ok {
		return "", fmt.Errorf("a key source is a file name or a table, got %s", source.Type().String())
	}
	fields := map[string]lua.LValue{}
	tbl.ForEach(func(k, v lua.LValue) { fields[k.String()] = v })
	switch {
	case fields["key_data"] != nil:
		return keyData(fields)
	case fields["vault_mount"] != nil || fields["vault_path"] != nil:
		return "", errVault
	case fields["event_name"] != nil:
		return m.keyFromEvent(L, fields)
	}
	return "", errors.New("a key source has key_data, or event_name and event_args")
}

// onlyFields names a field that has no business in a key source.
func onlyFields(fields map[string]lua.LValue, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("a key source with %s has no field %q", known[0], excerpt(name))
		}
	}
	return nil
}

func keyData(fields map[string]lua.LValue) (string, error) {
	data, ok := fields["key_data"].(lua.LString)
	if !ok {
		return "", fmt.Errorf("key_data is a string, got %s", fields["key_data"].Type().String())
	}
	return string(data), onlyFields(fields, "key_data")
}

func (m *module) keyFromEvent(L *lua.LState, fields map[string]lua.LValue) (string, error) {
	if err := onlyFields(fields, "event_name", "event_args"); err != nil {
		return "", err
	}
	name, ok := fields["event_name"].(lua.LString)
	if !ok {
		return "", fmt.Errorf("event_name is a string, got %s", fields["event_name"].Type().String())
	}
	args, ok := fields["event_args"].(*lua.LTable)
	if !ok {
		return "", errors.New("a key source with event_name has a list event_args")
	}
	if args.Len() > maxEventArgs {
		return "", fmt.Errorf("event_args has more than %d elements", maxEventArgs)
	}
	var values []lua.LValue
	for i := 1; i <= args.Len(); i++ {
		values = append(values, args.RawGetInt(i))
	}
	results, handled := m.ask(L, string(name), values...)
	if !handled || len(results) == 0 {
		return "", fmt.Errorf("the event %q returned nothing", excerpt(string(name)))
	}
	data, ok := results[0].(lua.LString)
	if !ok {
		return "", fmt.Errorf("the event %q returned a %s, not a string", excerpt(string(name)), results[0].Type().String())
	}
	return string(data), nil
}
