// Package header reads and edits the header block of a message: the fields of RFC 5322 section 2.2, and
// the empty line that ends them.
//
// It works on bytes and gives back every byte that an edit does not concern, whatever it looks like: a
// [Block] that nobody edited is what it was parsed from, and an edited one differs in the fields that were
// added or removed, and nowhere else. Reading is lenient, because what arrives in the mail is: a line may
// end in LF alone, and a line that is no field is one that no sensible name finds.
package header

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxBlock is the most that a header block may have, in bytes. Servers stop at some tens of kilobytes.
const MaxBlock = 1 << 20

// ErrTooLong is the error of a header block that is longer than MaxBlock.
var ErrTooLong = fmt.Errorf("the header block is longer than %d bytes", MaxBlock)

// ErrNoEnd is the error of appending to a block that no empty line ends: there is no telling where the
// header would stop and the body begin.
var ErrNoEnd = errors.New("could not find the end of the header block")

// Length is the length of the header block that data begins with, the empty line that ends it included;
// all of data if there is no such line, which ended tells.
func Length(data []byte) (n int, ended bool) {
	for n < len(data) {
		if width := lineEnd(data[n:]); width > 0 {
			return n + width, true
		}
		next := bytes.IndexByte(data[n:], '\n')
		if next < 0 {
			break
		}
		n += next + 1
	}
	return len(data), false
}

// lineEnd is the width of the line end that text begins with: 2 for CRLF, 1 for LF, 0 for none.
func lineEnd(text []byte) int {
	switch {
	case len(text) > 0 && text[0] == '\n':
		return 1
	case len(text) > 1 && text[0] == '\r' && text[1] == '\n':
		return 2
	}
	return 0
}

// firstRead is how much Read asks for at first: more than most headers have.
const firstRead = 8 << 10

// Read reads the header block that r begins with. It reads further than the block, but not much. The
// error is ErrTooLong or what r returned.
func Read(r io.Reader) ([]byte, error) {
	block := make([]byte, 0, firstRead)
	line := 0 // where the last line that is complete or has begun begins
	for {
		n, err := io.ReadFull(r, block[len(block):cap(block)])
		block = block[:len(block)+n]
		length, ended := Length(block[line:])
		switch {
		case ended && line+length <= MaxBlock:
			return block[: line+length : line+length], nil
		case ended || len(block) > MaxBlock:
			return nil, ErrTooLong
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return block, nil
		case err != nil:
			return nil, err
		}
		line = bytes.LastIndexByte(block, '\n') + 1
		block = append(make([]byte, 0, 4*cap(block)), block...)
	}
}

// Block is a header block. It does not change: an edit makes another. So it may be read by many goroutines
// at once.
type Block struct {
	data   []byte
	fields []Field
	end    int    // where the fields end and the empty line begins
	ended  bool   // there is an empty line
	eol    string // how its lines end
}

// Parse takes a header block apart: what Length measures and Read returns. What comes after the empty line
// in data is not looked at and not part of the Block. The Block keeps data, which must not change.
func Parse(data []byte) *Block {
	b := &Block{eol: "\r\n"}
	if first := bytes.IndexByte(data, '\n'); first == 0 || first > 0 && data[first-1] != '\r' {
		b.eol = "\n"
	}
	// A guess at how many there are spares most of the growing.
	b.fields = make([]Field, 0, 4+min(len(data), 4096)/64)
	for b.end < len(data) {
		if width := lineEnd(data[b.end:]); width > 0 {
			b.ended = true
			b.data = data[: b.end+width : b.end+width]
			return b
		}
		f := parseField(data[b.end:])
		b.fields = append(b.fields, f)
		b.end += len(f.raw)
	}
	b.data = data[:b.end:b.end]
	return b
}

// Bytes is the whole block, the empty line included. It must not be written to.
func (b *Block) Bytes() []byte { return b.data }

// Fields are the fields in their order. The slice must not be written to.
func (b *Block) Fields() []Field { return b.fields }

// First is the first field with a name.
func (b *Block) First(name string) (f Field, found bool) {
	for i := range b.fields {
		if b.fields[i].Is(name) {
			return b.fields[i], true
		}
	}
	return Field{}, false
}

// Prepend is the block with a field, as [NewField] makes it, in front. The error says what is wrong with
// the name or the value; or the block begins with a line that the new field would swallow, or becomes too
// long.
func (b *Block) Prepend(name, value string, encode bool) (*Block, error) {
	if len(b.data) > 0 && isBlank(b.data[0]) {
		return nil, errors.New("the message begins with the continuation of a header field that is not there")
	}
	return b.insert(0, name, value, encode)
}

// Append is the block with a field, as [NewField] makes it, after the others. The errors are those of
// Prepend, and ErrNoEnd.
func (b *Block) Append(name, value string, encode bool) (*Block, error) {
	if !b.ended {
		return nil, ErrNoEnd
	}
	return b.insert(b.end, name, value, encode)
}

func (b *Block) insert(at int, name, value string, encode bool) (*Block, error) {
	field, err := NewField(name, value, b.eol, encode)
	if err != nil {
		return nil, err
	}
	if len(b.data)+len(field) > MaxBlock {
		return nil, ErrTooLong
	}
	data := make([]byte, 0, len(b.data)+len(field))
	data = append(data, b.data[:at]...)
	data = append(data, field...)
	return Parse(append(data, b.data[at:]...)), nil
}

// Remove is the block without the fields that remove points out; the same block if there is none. It is
// called once for each field, in their order.
func (b *Block) Remove(remove func(Field) bool) *Block {
	var data []byte // what stays, from the first field on that does not
	kept := 0
	for _, f := range b.fields {
		switch gone := remove(f); {
		case data == nil && !gone:
			kept += len(f.raw)
		case data == nil:
			data = append(make([]byte, 0, len(b.data)), b.data[:kept]...)
		case !gone:
			data = append(data, f.raw...)
		}
	}
	if data == nil {
		return b
	}
	return Parse(append(data, b.data[b.end:]...))
}
