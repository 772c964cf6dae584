package kumo

import (
	"net/netip"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// maxName bounds a domain name in Unicode: RFC 1035 section 2.3.4 has 255 bytes for one in ASCII.
const maxName = 1024

// suffixFunction is kumo.string.psl_NAME: what the Public Suffix List says of a domain name, its private part
// included. A name that it does not list ends in one label of its own.
func suffixFunction(name string) lua.LGFunction {
	return func(L *lua.LState) int {
		domain := L.CheckString(1)
		suffix, known, ok := publicSuffix(domain)
		registrable, hasDomain := "", false
		if ok {
			registrable, hasDomain = oneLabelMore(domain, suffix)
		}
		var v lua.LValue = lua.LNil
		switch name {
		case "psl_suffix_is_known":
			v = lua.LBool(known)
		case "psl_domain_is_known":
			v = lua.LBool(known && hasDomain)
		case "psl_suffix":
			if ok {
				v = luastate.Cut(domain, suffix)
			}
		case "psl_domain":
			if hasDomain {
				v = luastate.Cut(domain, registrable)
			}
		}
		L.Push(v)
		return 1
	}
}

// publicSuffix is the end of a domain name as it was written, under which others may register names, and whether
// the list has it. Not ok is what is no domain name: an address, an empty label.
func publicSuffix(domain string) (suffix string, known, ok bool) {
	if len(domain) > maxName {
		return "", false, false
	}
	name, err := idna.ToASCII(strings.TrimSuffix(strings.ToLower(domain), "."))
	if err != nil || name == "" || name[0] == '.' || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return "", false, false
	}
	if _, err := netip.ParseAddr(name); err == nil || strings.ContainsAny(name, "[]:@ ") {
		return "", false, false
	}
	listed, icann := publicsuffix.PublicSuffix(name)
	suffix, ok = lastLabels(domain, 1+strings.Count(listed, "."))
	return suffix, icann || strings.Contains(listed, "."), ok
}

func oneLabelMore(domain, suffix string) (string, bool) {
	if len(suffix) == len(domain) {
		return "", false
	}
	return lastLabels(domain, strings.Count(strings.TrimSuffix(suffix, "."), ".")+2)
}

// lastLabels are the last n labels of a name, with the dot at its end if it has one.
func lastLabels(domain string, n int) (string, bool) {
	at := len(strings.TrimSuffix(domain, "."))
	for ; n > 0; n-- {
		if at < 0 {
			return "", false
		}
		at = strings.LastIndexByte(domain[:at], '.')
	}
	return domain[at+1:], true
}
