package kumo

import (
	"bytes"
	"context"
	"io"
	"mime"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// decodeText is body as UTF-8. A byte order mark says what it is; else the charset of its content type
// does; else it is UTF-8. What cannot be read is U+FFFD, so that a policy may return the text.
func decodeText(ctx context.Context, body []byte, contentType string) ([]byte, error) {
	enc, mark := encodingOf(body, contentType)
	body = body[mark:]
	if enc == unicode.UTF8 && utf8.Valid(body) {
		return body, nil
	}
	return io.ReadAll(transform.NewReader(heedful{ctx, bytes.NewReader(body)}, enc.NewDecoder()))
}

// encodingOf is the encoding of a body, and the length of its byte order mark.
func encodingOf(body []byte, contentType string) (enc encoding.Encoding, mark int) {
	switch {
	case bytes.HasPrefix(body, []byte("\xEF\xBB\xBF")):
		return unicode.UTF8, 3
	case bytes.HasPrefix(body, []byte("\xFF\xFE")):
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), 2
	case bytes.HasPrefix(body, []byte("\xFE\xFF")):
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), 2
	}
	// An error about one parameter does not spoil the others.
	if _, params, _ := mime.ParseMediaType(contentType); params["charset"] != "" {
		if enc, err := htmlindex.Get(params["charset"]); err == nil {
			return enc, 0
		}
	}
	return unicode.UTF8, 0
}

// heedful is a reader that ends with a context.
type heedful struct {
	ctx context.Context
	r   io.Reader
}

func (h heedful) Read(p []byte) (int, error) {
	if h.ctx.Err() != nil {
		return 0, context.Cause(h.ctx)
	}
	return h.r.Read(p)
}
