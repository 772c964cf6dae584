package kumo

import (
	"slices"
	"strings"
)

// upstream are the functions that policies may call and that this package does not have: a call
// raises an error that says so. "*" stands for every name.
var upstream = map[string][]string{
	"kumo": {
		"make_message", "inject_message", "make_queue_config", "make_egress_path", "make_egress_source",
		"make_egress_pool", "generate_rfc3464_message", "apply_supplemental_trace_header", "eval_config_monitor_globs",
		"compute_queue_config_constraints", "compute_egress_path_config_constraints", "format_queue_config_toml",
		"format_egress_path_config_toml", "format_egress_path_config_constraints", "add_charset_alias",
	},
	"kumo.http":           {"connect_websocket"},
	"kumo.dns":            {},
	"kumo.serde":          {},
	"kumo.string":         {},
	"kumo.regex":          {},
	"kumo.encode":         {},
	"kumo.digest":         {},
	"kumo.crypto":         {"aes_encrypt_block", "aes_decrypt_block", "aws_sign_v4"},
	"kumo.time":           {},
	"kumo.uuid":           {},
	"kumo.fs":             {},
	"kumo.domain_map":     {},
	"kumo.cidr":           {},
	"kumo.regex_set_map":  {},
	"kumo.secrets":        {},
	"kumo.shaping":        {},
	"kumo.mimepart":       {"*"},
	"kumo.file_type":      {"*"},
	"kumo.dkim":           {"*"},
	"kumo.spf":            {"*"},
	"kumo.dmarc":          {"*"},
	"kumo.amqp":           {"*"},
	"kumo.kafka":          {"*"},
	"kumo.nats":           {"*"},
	"kumo.mpsc":           {"*"},
	"kumo.jsonl":          {"*"},
	"kumo.counter_series": {"*"},
}

// ownModules are upstream's that are no part of kumo: nothing of them is here.
var ownModules = []string{"redis", "sqlite"}

func isUpstream(path, name string) bool {
	if slices.Contains(ownModules, path) {
		return true
	}
	names := upstream[path]
	return slices.Contains(names, name) || slices.Contains(names, "*")
}

// setupModules set up parts of an MTA that are none of a delivery library's business: every function
// of theirs is accepted and ignored.
var setupModules = map[string]bool{"aaa": true, "api": true, "tsa": true, "xfer": true}

var setupCalls = []string{
	"start_esmtp_listener", "start_http_listener", "start_proxy_listener", "define_spool",
	"configure_local_logs", "configure_log_hook", "configure_bounce_classifier",
	"configure_accounting_db_path", "configure_redis_throttles", "set_config_monitor_globs",
	"set_diagnostic_log_filter", "set_lruttl_cache_capacity", "spawn_thread_pool", "spawn_task",
	"make_listener_domain",
}

// isSetup reports whether a function sets up another part of an MTA, or upstream's threads and memory.
func isSetup(path, name string) bool {
	switch path {
	case "kumo":
		// Upstream has more of these than anybody has written down: what is named like one is one.
		return slices.Contains(setupCalls, name) || strings.HasPrefix(name, "set_") ||
			strings.HasPrefix(name, "configure_") || strings.HasPrefix(name, "start_")
	case "kumo.dns":
		// The host's own resolver is used.
		return name == "define_resolver" || name == "load_resolv_conf" || name == "set_mta_sts_enabled" ||
			strings.HasPrefix(name, "configure_") || strings.HasPrefix(name, "set_mx_")
	}
	module, ok := strings.CutPrefix(path, "kumo.")
	return ok && setupModules[module]
}

// absentMethods are upstream's methods of a message that this package does not have.
var absentMethods = []string{
	"parse_mime", "append_text_plain", "append_text_html", "check_fix_conformance", "dkim_sign", "dkim_verify",
	"arc_seal", "arc_verify", "add_authentication_results", "parse_rfc3464", "parse_rfc5965",
}
