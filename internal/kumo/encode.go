package kumo

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// codec is one way to write bytes as text.
type codec interface {
	EncodedLen(n int) int
	EncodeToString(data []byte) string
	DecodeString(text string) ([]byte, error)
}

// codecNamed is the codec as its name stands in the names of functions and fields, nil if there is none.
func codecNamed(name string) codec {
	switch name {
	case "base64":
		return base64.StdEncoding
	case "base64_nopad":
		return base64.RawStdEncoding
	case "base64url":
		return base64.URLEncoding
	case "base64url_nopad":
		return base64.RawURLEncoding
	case "base32":
		return base32.StdEncoding
	case "base32_nopad":
		return base32.StdEncoding.WithPadding(base32.NoPadding)
	case "base32hex":
		return base32.HexEncoding
	case "base32hex_nopad":
		return base32.HexEncoding.WithPadding(base32.NoPadding)
	case "hex":
		return hexCodec{}
	}
	return nil
}

type hexCodec struct{}

func (hexCodec) EncodedLen(n int) int                     { return hex.EncodedLen(n) }
func (hexCodec) EncodeToString(data []byte) string        { return hex.EncodeToString(data) }
func (hexCodec) DecodeString(text string) ([]byte, error) { return hex.DecodeString(text) }

// encodeFunction is kumo.encode.NAME.
func encodeFunction(name string) lua.LGFunction {
	switch name {
	case "charset_encode":
		return charsetEncode
	case "charset_decode":
		return charsetDecode
	}
	if prefix, ok := strings.CutSuffix(name, "_encode"); ok {
		if c := codecNamed(prefix); c != nil {
			return codecEncode("encode."+name, c)
		}
	}
	if prefix, ok := strings.CutSuffix(name, "_decode"); ok {
		if c := codecNamed(prefix); c != nil {
			return codecDecode("encode."+name, c)
		}
	}
	return nil
}

func codecEncode(function string, c codec) lua.LGFunction {
	return func(L *lua.LState) int {
		data := L.CheckString(1)
		checkLength(L, function, c.EncodedLen(len(data)))
		L.Push(lua.LString(c.EncodeToString([]byte(data))))
		return 1
	}
}

func codecDecode(function string, c codec) lua.LGFunction {
	return func(L *lua.LState) int {
		text := L.CheckString(1)
		checkLength(L, function, len(text))
		data, err := decodeStrictly(c, text)
		if err != nil {
			fail(L, function, err)
		}
		L.Push(lua.LString(data))
		return 1
	}
}

var errNotCanonical = errors.New("the text has line ends in it, or bits that stand for nothing")

// decodeStrictly refuses what the codec would not have written: RFC 4648 sections 3.3 and 3.5. Only hexadecimal
// digits may be of either case.
func decodeStrictly(c codec, text string) ([]byte, error) {
	data, err := c.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if _, ok := c.(hexCodec); !ok && c.EncodeToString(data) != text {
		return nil, errNotCanonical
	}
	return data, nil
}
