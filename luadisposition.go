package delivery

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/mtadelivery/delivery/internal/kumo"
	lua "github.com/yuin/gopher-lua"
)

// disposition is the text that a call which succeeded returned.
func disposition(method string, got lua.LValue) (string, error) {
	switch got.(type) {
	case lua.LString, lua.LNumber:
	default:
		return "", fmt.Errorf("%s returned %s: want the disposition as a string", method, luaKind(got))
	}
	text := got.String()
	if !utf8.ValidString(text) {
		return "", errors.New(method + " returned a string that is not UTF-8")
	}
	return text, nil
}

// delivered is the result of a disposition: the text of a reply whose code is always 200.
func delivered(text string) Result {
	return Result{Status: Delivered, Scope: ScopeMessage, Response: Response{Code: 200, Text: safeText(text)}}
}

// rejected is the result of a call that raised kumo.reject: that it raised is what makes a code below 400 a
// failure.
func rejected(r *kumo.Rejection) Result {
	res := Result{Status: Permanent, Scope: ScopeMessage, Response: Response{Code: r.Code, Text: safeText(r.Text)}}
	if r.Code >= 400 && r.Code <= 499 {
		res.Status = Transient
	}
	return res
}

// settleBatch gives the messages of a batch the results that send_batch returned: one disposition for all, or
// a list with one for each. An error is that of all; with one in the place of a single message that message
// comes again, because the others were dealt with.
func (s *luaSession) settleBatch(calls []*luaCall, returned lua.LValue) error {
	list, ok := returned.(*lua.LTable)
	if !ok {
		text, err := disposition("send_batch", returned)
		if err != nil {
			return err
		}
		res := delivered(text)
		for _, c := range calls {
			c.res = res
		}
		return nil
	}
	if n := list.Len(); n != len(calls) {
		return fmt.Errorf("send_batch returned a list of %d dispositions for %d messages", n, len(calls))
	}
	for i, c := range calls {
		res, err := batchDisposition(list.RawGetInt(i + 1))
		if err != nil {
			res = s.raised("send_batch", fmt.Errorf("disposition %d: %w", i+1, err), c.message.ID())
		}
		s.doubtful = s.doubtful || res.Response.Code == 421
		c.res = res
	}
	return nil
}

// batchDisposition is the result of one message of a batch: its disposition, or code and message, where unlike
// in kumo.reject a code of 2yz is success.
func batchDisposition(v lua.LValue) (Result, error) {
	reply, ok := v.(*lua.LTable)
	if !ok {
		text, err := disposition("send_batch", v)
		return delivered(text), err
	}
	number, ok := reply.RawGetString("code").(lua.LNumber)
	code := int(number)
	if !ok || lua.LNumber(code) != number || code < 0 || code > 65535 {
		return Result{}, fmt.Errorf("want a code from 0 to 65535, got %s", luaValue(reply.RawGetString("code")))
	}
	text := ""
	if message := reply.RawGetString("message"); message != lua.LNil {
		var err error
		if text, err = disposition("send_batch", message); err != nil {
			return Result{}, err
		}
	}
	res := rejected(&kumo.Rejection{Code: code, Text: text})
	if code >= 200 && code <= 299 {
		res.Status = Delivered
	}
	return res, nil
}

// luaValue shows a value that is wrong in a text for people.
func luaValue(v lua.LValue) string {
	switch v.(type) {
	case lua.LNumber, lua.LBool:
		return v.String()
	}
	return luaKind(v)
}
