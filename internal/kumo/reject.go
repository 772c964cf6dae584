package kumo

import (
	"errors"
	"math"
	"strconv"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// Rejection is what kumo.reject and kumo.disconnect raise.
type Rejection struct {
	Code int // 0 to 65535
	Text string
}

func (r *Rejection) Error() string { return strconv.Itoa(r.Code) + " " + r.Text }

// AsRejection is the rejection that err was raised with. It survives being caught by pcall and raised
// again as the same value; made into a text, it is an error like any other.
func AsRejection(err error) (*Rejection, bool) { return errors.AsType[*Rejection](err) }

// reject is kumo.reject(code, text).
func reject(L *lua.LState) int {
	code := float64(L.CheckNumber(1))
	if code != math.Trunc(code) || code < 0 || code > math.MaxUint16 {
		L.ArgError(1, "want a code from 0 to 65535, got "+L.Get(1).String())
	}
	luastate.Raise(L, &Rejection{Code: int(code), Text: L.CheckString(2)})
	return 0
}

// disconnect is kumo.disconnect(code, text, how). Only a server could disconnect; of a delivery the
// code alone matters.
func disconnect(L *lua.LState) int {
	switch how := L.OptString(3, "FollowWith421"); how {
	case "If421", "FollowWith421", "ForceDisconnect":
	default:
		L.ArgError(3, "want If421, FollowWith421 or ForceDisconnect, got "+strconv.Quote(how))
	}
	return reject(L)
}
