package kumo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/transform"
)

// charsetEncode is kumo.encode.charset_encode(charset, text[, ignore_errors = true]).
func charsetEncode(L *lua.LState) int {
	const function = "encode.charset_encode"
	name, text, skip := L.CheckString(1), L.CheckString(2), L.OptBool(3, true)
	enc, err := charsetNamed(name)
	if err == nil && !utf8.ValidString(text) {
		err = errors.New("the text is not UTF-8")
	}
	var out []byte
	if err == nil {
		c := converter{ctx: contextOf(L), t: enc.NewEncoder().Transformer, skip: skip}
		out, err = c.convert([]byte(text))
	}
	if err != nil {
		fail(L, function, fmt.Errorf("%s: %w", excerpt(name), err))
	}
	L.Push(lua.LString(out))
	return 1
}

// charsetDecode is kumo.encode.charset_decode(charset, bytes).
func charsetDecode(L *lua.LState) int {
	const function = "encode.charset_decode"
	name, data := L.CheckString(1), []byte(L.CheckString(2))
	enc, err := charsetNamed(name)
	var out []byte
	if err == nil {
		out, err = decodeCharset(contextOf(L), enc, data)
	}
	if err != nil {
		fail(L, function, fmt.Errorf("%s: %w", excerpt(name), err))
	}
	L.Push(lua.LString(out))
	return 1
}

// charsetNamed finds an encoding by the names that browsers know, as upstream does: then iso-8859-1 is
// windows-1252. Only ASCII is no more than it says.
func charsetNamed(name string) (encoding.Encoding, error) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "us-ascii", "ascii":
		return ianaindex.MIME.Encoding("us-ascii")
	}
	enc, err := htmlindex.Get(name)
	if err != nil {
		enc, err = ianaindex.IANA.Encoding(name)
	}
	if err != nil || enc == nil || enc == encoding.Replacement {
		return nil, errors.New("this charset is not known")
	}
	return enc, nil
}

// decodeCharset refuses what is not of the encoding. A decoder writes U+FFFD for that; where it is written, it
// must have been in the text.
func decodeCharset(ctx context.Context, enc encoding.Encoding, data []byte) ([]byte, error) {
	c := converter{ctx: ctx, t: enc.NewDecoder().Transformer}
	text, err := c.convert(data)
	if err != nil || !bytes.ContainsRune(text, utf8.RuneError) {
		return text, err
	}
	c = converter{ctx: ctx, t: enc.NewEncoder().Transformer}
	if back, err := c.convert(text); err != nil || !bytes.Equal(back, data) {
		return nil, errors.New("the bytes are not of this charset")
	}
	return text, nil
}

// converter runs a text through a transformer, piece by piece.
type converter struct {
	ctx context.Context
	t   transform.Transformer
	// skip leaves out what the transformer refuses.
	skip bool
}

func (c *converter) convert(src []byte) ([]byte, error) {
	var out []byte
	buffer := make([]byte, min(4*len(src)+64, 32<<10))
	for {
		if c.ctx.Err() != nil {
			return nil, context.Cause(c.ctx)
		}
		n, used, err := c.t.Transform(buffer, src, true)
		out = append(out, buffer[:n]...)
		src = src[used:]
		switch {
		case len(out) > maxText:
			return nil, errTooLong
		case err == nil:
			return out, nil
		case errors.Is(err, transform.ErrShortDst) && (n > 0 || used > 0):
			continue
		case !c.skip || len(src) == 0:
			return nil, refusal(err, src)
		}
		_, size := utf8.DecodeRune(src)
		src = src[size:]
	}
}

// refusal says which character could not be written.
func refusal(err error, src []byte) error {
	if errors.Is(err, transform.ErrShortSrc) || len(src) == 0 {
		return errors.New("the text ends in the middle of a character")
	}
	r, _ := utf8.DecodeRune(src)
	return fmt.Errorf("there is no %U in it", r)
}
