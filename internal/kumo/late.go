package kumo

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// late is a function by its full name that is made when a policy first asks for it: most policies use few of
// them, and every state would pay for all.
func (m *module) late(name string) lua.LGFunction {
	switch name {
	case "kumo.toml_load", "kumo.serde.toml_load":
		return tomlFormat.loadFunction
	case "kumo.toml_parse", "kumo.serde.toml_parse":
		return tomlFormat.parseFunction
	case "kumo.toml_encode", "kumo.serde.toml_encode":
		return encoder("toml_encode", encodeTOML)
	case "kumo.toml_encode_pretty", "kumo.serde.toml_encode_pretty":
		return encoder("toml_encode_pretty", encodeTOMLPretty)
	case "kumo.serde.toml_encode_pretty_compact":
		return encoder("toml_encode_pretty_compact", encodeTOMLCompact)
	case "kumo.serde.yaml_load":
		return yamlFormat.loadFunction
	case "kumo.serde.yaml_parse":
		return yamlFormat.parseFunction
	case "kumo.serde.yaml_encode":
		return encoder("yaml_encode", encodeYAML)
	case "kumo.read_dir":
		return readDir
	case "kumo.glob":
		return m.globCached
	case "kumo.uncached_glob":
		return globUncached
	case "kumo.memoize":
		return m.memoize
	case "kumo.invoke_get_queue_config":
		return m.invokeQueueConfig
	case "kumo.invoke_get_egress_path_config":
		return m.invokePathConfig
	case "kumo.invoke_get_egress_source":
		return m.invokeSource
	case "kumo.invoke_get_egress_pool":
		return m.invokePool
	case "kumo.get_event_registrars":
		return m.eventRegistrars
	case "kumo.validation_failed":
		return m.validationFailed
	case "kumo.get_memory_hard_limit", "kumo.get_memory_soft_limit", "kumo.get_memory_low_thresh":
		return noLimit
	case "kumo.secrets.load":
		return m.secretsLoad
	case "kumo.shaping.load":
		return m.shapingLoad
	case "kumo.make_throttle":
		return m.makeThrottle
	case "kumo.bump_config_epoch":
		return m.bumpEpoch
	}
	if path, ok := strings.CutPrefix(name, "kumo."); ok {
		if module, function, ok := strings.Cut(path, "."); ok {
			return m.textFunction(module, function)
		}
	}
	return nil
}
