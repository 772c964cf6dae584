package header

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
)

// maxDecoded bounds a value in which encoded words are looked for. The search takes time that grows with
// the square of what is made to look like an encoded word and is none.
const maxDecoded = 64 << 10

var (
	// strict gives up at a charset that it does not know.
	strict = mime.WordDecoder{CharsetReader: charsetReader}
	// tolerant shows something in any case: a name in an unknown charset must not hide the address beside it.
	tolerant = mime.WordDecoder{CharsetReader: func(charset string, input io.Reader) (io.Reader, error) {
		if r, err := charsetReader(charset, input); err == nil {
			return r, nil
		}
		text, err := io.ReadAll(input)
		return bytes.NewReader(bytes.ToValidUTF8(text, []byte("\uFFFD"))), err
	}}
)

// charsetReader makes UTF-8 of a charset that mail uses. RFC 2231 section 5 lets a language follow its
// name: "utf-8*en".
func charsetReader(charset string, input io.Reader) (io.Reader, error) {
	name, _, _ := strings.Cut(charset, "*")
	known, err := htmlindex.Get(name)
	if err != nil || known == encoding.Replacement {
		return nil, fmt.Errorf("unknown charset %q", name)
	}
	encoded, err := io.ReadAll(input)
	if err != nil {
		return nil, err
	}
	// All at once: a reader that decodes needs some 40 KiB of buffers for a word of 10 bytes, and one header has
	// thousands of them if its sender likes.
	decoded, err := known.NewDecoder().Bytes(encoded)
	return bytes.NewReader(decoded), err
}
