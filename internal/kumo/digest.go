package kumo

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

// hashNamed makes the hash of that name, nil if there is none.
func hashNamed(name string) func() hash.Hash {
	switch name {
	case "sha1":
		return sha1.New
	case "sha224":
		return sha256.New224
	case "sha256":
		return sha256.New
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	case "sha512_256":
		return sha512.New512_256
	case "sha3_256":
		return func() hash.Hash { return sha3.New256() }
	case "sha3_384":
		return func() hash.Hash { return sha3.New384() }
	case "sha3_512":
		return func() hash.Hash { return sha3.New512() }
	case "crc32":
		return func() hash.Hash { return crc32.NewIEEE() }
	}
	return nil
}

// digestFunction is kumo.digest.NAME.
func (m *module) digestFunction(name string) lua.LGFunction {
	if make := hashNamed(name); make != nil {
		return func(L *lua.LState) int { return m.digest(L, "digest."+name, make()) }
	}
	switch name {
	case "hmac_sha1", "hmac_sha224", "hmac_sha256", "hmac_sha384", "hmac_sha512":
		make := hashNamed(strings.TrimPrefix(name, "hmac_"))
		return func(L *lua.LState) int { return m.hmac(L, "digest."+name, make) }
	}
	return nil
}

// digest is kumo.digest.NAME(...): a string counts with its bytes, anything else as JSON.
func (m *module) digest(L *lua.LState, function string, h hash.Hash) int {
	for i := 1; i <= L.GetTop(); i++ {
		text, err := digestible(L.Get(i))
		if err != nil {
			fail(L, function, fmt.Errorf("argument %d: %w", i, err))
		}
		io.WriteString(h, text) // a hash never returns an error
	}
	L.Push(m.newBinary(L, h.Sum(nil)))
	return 1
}

func digestible(v lua.LValue) (string, error) {
	if text, ok := v.(lua.LString); ok {
		return string(text), nil
	}
	tree, err := luastate.ToTree(v, struct{}{})
	if err == nil {
		err = checkText(tree)
	}
	if err != nil {
		return "", err
	}
	return encodeJSON(tree)
}

// hmac is kumo.digest.hmac_NAME(key, text), key being a key source.
func (m *module) hmac(L *lua.LState, function string, make func() hash.Hash) int {
	source, text := L.CheckAny(1), L.CheckString(2)
	key, err := m.KeySource(L, source)
	if err != nil {
		fail(L, function, err)
	}
	h := hmac.New(make, []byte(key))
	io.WriteString(h, text)
	L.Push(m.newBinary(L, h.Sum(nil)))
	return 1
}

// binary is what the functions of kumo.digest return: some bytes, in many codecs.
type binary string

func (m *module) newBinary(L *lua.LState, data []byte) *lua.LUserData {
	mt := m.metatable(L, "binary result", func(L *lua.LState, mt *lua.LTable) {
		addAll(L, mt, map[string]lua.LGFunction{
			"__index": binaryIndex, "__tostring": binaryText, "__eq": binaryEqual,
		})
	})
	return &lua.LUserData{Value: binary(data), Env: L.Env, Metatable: mt}
}

func (b binary) freeze() thaw {
	return func(m *module, L *lua.LState) lua.LValue { return m.newBinary(L, []byte(b)) }
}

func (b binary) hex() string { return hex.EncodeToString([]byte(b)) }

// Tree makes the text that print shows of it.
func (b binary) Tree() (any, error) { return b.hex(), nil }

func checkBinary(L *lua.LState, n int) binary {
	b, ok := L.CheckUserData(n).Value.(binary)
	if !ok {
		L.ArgError(n, "digest expected")
	}
	return b
}

func binaryIndex(L *lua.LState) int {
	b, field := checkBinary(L, 1), L.Get(2).String()
	if field == "bytes" {
		L.Push(lua.LString(b))
		return 1
	}
	c := codecNamed(field)
	if c == nil {
		L.RaiseError("a digest has no field %q: it has bytes, hex, base64 and the like", excerpt(field))
	}
	L.Push(lua.LString(c.EncodeToString([]byte(b))))
	return 1
}

func binaryText(L *lua.LState) int {
	L.Push(lua.LString(checkBinary(L, 1).hex()))
	return 1
}

func binaryEqual(L *lua.LState) int {
	L.Push(lua.LBool(checkBinary(L, 1) == checkBinary(L, 2)))
	return 1
}
