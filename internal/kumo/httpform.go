package kumo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/net/idna"

	"github.com/mtadelivery/delivery/internal/luastate"
)

const (
	maxForm   = 16 << 20
	maxFields = 1 << 16
)

// eachText visits the fields of the table that is argument n.
func eachText(L *lua.LState, n int, visit func(name, value string)) {
	ctx, fields := contextOf(L), 0
	L.CheckTable(n).ForEach(func(k, v lua.LValue) {
		if !lua.LVCanConvToString(k) || !lua.LVCanConvToString(v) {
			L.ArgError(n, "names and values must be strings, got "+k.Type().String()+" and "+v.Type().String())
		}
		if fields++; fields > maxFields {
			L.ArgError(n, fmt.Sprintf("there are more than %d fields", maxFields))
		}
		if fields%1024 == 0 && ctx.Err() != nil {
			luastate.Raise(L, context.Cause(ctx))
		}
		visit(k.String(), v.String())
	})
}

// formOf is the table that is argument n, encoded as application/x-www-form-urlencoded, by name: Lua's
// tables have no order.
func formOf(L *lua.LState, n int) string {
	fields, size := map[string]string{}, 0
	eachText(L, n, func(name, value string) {
		fields[name] = value
		size += len(name) + len(value)
	})
	if 3*size > maxForm {
		L.ArgError(n, fmt.Sprintf("the fields are longer than %d bytes", maxForm/3))
	}
	return encodeForm(fields)
}

func encodeForm(fields map[string]string) string {
	var form strings.Builder
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		if i > 0 {
			form.WriteByte('&')
		}
		form.WriteString(formEscape(name) + "=" + formEscape(fields[name]))
	}
	return form.String()
}

// formEscape leaves the asterisk as it is and escapes the tilde, as browsers and upstream do; the
// standard library does it the other way about. It matters to who signs what is sent.
func formEscape(s string) string {
	return formDetails.Replace(url.QueryEscape(s))
}

var formDetails = strings.NewReplacer("~", "%7E", "%2A", "*")

// buildURL is kumo.http.build_url(url, params).
func buildURL(L *lua.LState) int {
	base := L.CheckString(1)
	built, err := addParams(base, formOf(L, 2))
	if err != nil {
		luastate.Raise(L, fmt.Errorf("kumo.http.build_url: %w", err))
	}
	L.Push(lua.LString(built))
	return 1
}

// addParams puts an encoded form behind what the query of a URL has already.
func addParams(base, form string) (string, error) {
	if len(base) > maxForm {
		return "", fmt.Errorf("the URL is longer than %d bytes", maxForm)
	}
	u, err := url.Parse(strings.Trim(base, " "))
	if err != nil {
		return "", invalidURL(base, err)
	}
	if !u.IsAbs() {
		return "", errors.New("relative URL without a base")
	}
	if err := normalize(u); err != nil {
		return "", err
	}
	switch {
	case u.RawQuery == "" || form == "":
		u.RawQuery += form
	default:
		u.RawQuery = u.RawQuery + "&" + form
	}
	u.ForceQuery = false
	return u.String(), nil
}

// invalidURL is why an address could not be parsed, without the address, which may hold a password. Nor is a piece
// of that shown: with a slash in it, what is before the slash is an invalid port.
func invalidURL(address string, err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		err = parse.Err
	}
	_, isHost := errors.AsType[url.InvalidHostError](err) // which shows one character
	if strings.Contains(address, "@") && !isHost {
		return errors.New("invalid URL")
	}
	return fmt.Errorf("invalid URL: %w", err)
}

// normalize writes the host and the path of a web address as they will be asked for.
func normalize(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	if u.Host == "" {
		return errors.New("invalid URL: empty host")
	}
	u.Host = strings.ToLower(u.Host)
	if host := u.Hostname(); strings.ContainsFunc(host, func(c rune) bool { return c >= 0x80 }) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return fmt.Errorf("invalid URL: %w", err)
		}
		if port := u.Port(); port != "" {
			ascii += ":" + port
		}
		u.Host = ascii
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return nil
}
