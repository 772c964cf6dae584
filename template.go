package delivery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mtadelivery/delivery/internal/address"
	"github.com/mtadelivery/delivery/internal/decode"
	"github.com/mtadelivery/delivery/internal/jinja"
)

// templateNames are the variables of a maildir_path.
var templateNames = []string{
	"meta", "queue", "campaign", "tenant", "domain", "routing_domain",
	"local_part", "domain_part", "email",
	"sender_local_part", "sender_domain_part", "sender_email",
}

// recipientNames are those of them that the recipient's address alone decides.
var recipientNames = []string{"local_part", "domain_part", "email"}

// maxSegment is the most bytes that file systems take as one name.
const maxSegment = 255

// How an encoded value is told from any other: "%" is followed by two hexadecimal digits, or by one of
// these.
const (
	emptyMark  = "%_" // nothing at all, where a name has to be
	digestMark = "%~" // the SHA-256 of a value that was cut, in hexadecimal
)

// digestLength is that of the mark and the digest.
const digestLength = len(digestMark) + 2*sha256.Size

// place is where a Maildir is: root as the author of the template wrote it, whose symbolic links are
// the operator's, and rel below it, which values had a part in. rel is "." where they had none.
type place struct {
	root string // absolute
	rel  string
}

func (p place) path() string { return filepath.Join(p.root, p.rel) }

// pathTemplate is a maildir_path, compiled once and rendered for each recipient.
//
// What a value may do to a path is decided here, after rendering: it fills in a part of one segment
// and nothing else. It cannot add, remove or climb a level, whatever it holds.
type pathTemplate struct {
	compiled *jinja.Template
	encode   bool
	uses     []string // the variables in it
	fixed    place    // of a template that is nothing but an absolute path
}

func compilePath(source, unsafeValues string) (*pathTemplate, error) {
	if strings.ContainsRune(source, 0) {
		return nil, decode.Errorf("", "the path holds a NUL")
	}
	compiled, err := jinja.Compile(source, templateNames)
	if err != nil {
		return nil, decode.Errorf("", "%v", err)
	}
	t := &pathTemplate{compiled: compiled, encode: unsafeValues == "encode"}
	for _, name := range compiled.Names() { // such as meta.user
		if i := strings.IndexAny(name, ".["); i >= 0 {
			name = name[:i]
		}
		if !slices.Contains(t.uses, name) {
			t.uses = append(t.uses, name)
		}
	}
	if text, ok := compiled.Literal(); ok && filepath.IsAbs(text) {
		t.fixed = place{filepath.Clean(text), "."}
	}
	return t, nil
}

// pathError says why a path cannot be rendered.
type pathError struct {
	reason string
	// recipient: the recipient's own address makes it impossible, now and for ever.
	recipient bool
}

func (e *pathError) Error() string { return e.reason }

// paths renders a template for the recipients of one attempt, one after the other.
type paths struct {
	*pathTemplate
	vars map[string]any
}

// of gives the template the variables of an attempt.
func (t *pathTemplate) of(a *attempt) *paths {
	p := &paths{pathTemplate: t}
	if len(t.uses) > 0 {
		p.vars = make(map[string]any, len(t.uses))
	}
	for _, name := range t.uses {
		if !slices.Contains(recipientNames, name) {
			p.vars[name] = messageVar(a, name)
		}
	}
	return p
}

// render returns the place for a recipient, or a *pathError.
func (p *paths) render(rcpt address.Address) (place, error) {
	if p.fixed.root != "" {
		return p.fixed, nil
	}
	for _, name := range p.uses {
		switch name {
		case "local_part":
			p.vars[name] = rcpt.Local
		case "domain_part":
			p.vars[name] = rcpt.Domain
		case "email":
			p.vars[name] = rcpt.String()
		}
	}
	pieces, err := p.compiled.Execute(p.vars)
	if err != nil {
		failure, ok := errors.AsType[*jinja.RuntimeError](err)
		return place{}, &pathError{err.Error(), ok && failure.Content && onlyRecipient(failure.Names)}
	}
	return assemble(pieces, p.encode)
}

// assemble makes a place of what a template rendered to.
func assemble(pieces []jinja.Piece, encode bool) (place, error) {
	w := pathWriter{encode: encode, path: make([]byte, 0, 128), root: -1}
	for i := range pieces {
		var err error
		if p := &pieces[i]; p.Names == nil && !p.Missing {
			err = w.literal(p.Text)
		} else {
			err = w.value(p)
		}
		if err != nil {
			return place{}, err
		}
	}
	return w.place()
}

// pathWriter puts a path together, with "/" between its segments.
type pathWriter struct {
	encode bool
	path   []byte
	root   int    // how much of path is the root; -1: all, for no value has come yet
	start  int    // of the segment that is being written
	values []span // in that segment
}

// span is a value in a path.
type span struct {
	piece    *jinja.Piece
	from, to int
}

// literal writes the template's own text, whose slashes end segments.
func (w *pathWriter) literal(text string) error {
	begin := 0
	for i := range len(text) {
		if !os.IsPathSeparator(text[i]) {
			continue
		}
		w.path = append(w.path, text[begin:i]...)
		if err := w.endSegment(); err != nil {
			return err
		}
		w.path = append(w.path, '/')
		w.start, begin = len(w.path), i+1
	}
	w.path = append(w.path, text[begin:]...)
	return nil
}

// value writes a value, and refuses or encodes what cannot be a part of a name.
func (w *pathWriter) value(p *jinja.Piece) error {
	if p.Missing {
		return refuse(p, "is missing; a default in the template, such as or 'x', would stand in for it")
	}
	if w.root < 0 {
		w.root = w.start
	}
	from := len(w.path)
	leading := onlyDots(w.path[w.start:])
	for i := 0; i < len(p.Text); {
		r, size := rune(p.Text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(p.Text[i:])
		}
		reason := unfit(r, size)
		if !w.encode && reason != "" {
			return refuse(p, reason)
		}
		if reason != "" || w.encode && (r == '%' || r == '.' && leading && i == 0) {
			for _, c := range []byte(p.Text[i : i+size]) {
				w.path = append(w.path, '%', upperHex[c>>4], upperHex[c&15])
			}
		} else {
			w.path = append(w.path, p.Text[i:i+size]...)
		}
		i += size
	}
	if !w.encode && leading && strings.HasPrefix(p.Text, ".") {
		return refuse(p, "begins with a dot")
	}
	w.values = append(w.values, span{p, from, len(w.path)})
	return nil
}

const upperHex = "0123456789ABCDEF"

func onlyDots(text []byte) bool {
	return !slices.ContainsFunc(text, func(c byte) bool { return c != '.' })
}

// unfit says why a character of a value cannot be in a name, if so. size is that of its encoding.
func unfit(r rune, size int) (reason string) {
	switch {
	case r < utf8.RuneSelf && os.IsPathSeparator(uint8(r)):
		return "holds a path separator"
	case unicode.IsControl(r):
		return "holds a control character"
	case r == utf8.RuneError && size == 1:
		return "is not UTF-8"
	case onWindows && strings.ContainsRune(`<>:"|?*`, r):
		return fmt.Sprintf("holds %q, which no name may hold here", r)
	}
	return ""
}

const onWindows = runtime.GOOS == "windows"

// endSegment looks at the segment as a whole, now that all of it is there.
func (w *pathWriter) endSegment() error {
	text := w.path[w.start:]
	if len(w.values) == 0 {
		if w.root >= 0 && string(text) == ".." {
			return &pathError{reason: `the template itself climbs with ".." behind a value`}
		}
		return nil
	}
	var err error
	switch {
	case len(text) <= 2 && onlyDots(text):
		err = w.fillEmpty()
	case len(text) > maxSegment:
		err = w.shorten()
	case onWindows && (!filepath.IsLocal(string(text)) || strings.ContainsRune(". ", rune(text[len(text)-1]))):
		err = w.refuseSegment(fmt.Sprintf("makes %q of a name, which is none here", text))
	}
	w.values = w.values[:0]
	return err
}

// fillEmpty gives a name to a segment whose values are all empty and whose own text is no name.
func (w *pathWriter) fillEmpty() error {
	if !w.encode {
		return w.refuseSegment("is empty")
	}
	w.path = slices.Insert(w.path, w.values[0].from, []byte(emptyMark)...)
	return nil
}

// shorten cuts the values in a segment that is too long, each to its share of the room that the
// template's own text leaves. The digest keeps what was cut from looking like anything else.
func (w *pathWriter) shorten() error {
	length := len(w.path) - w.start
	room := maxSegment - length
	ofRecipient := length // without what other values add
	for _, v := range w.values {
		room += v.to - v.from
		if !onlyRecipient(v.piece.Names) {
			ofRecipient -= v.to - v.from
		}
	}
	share := room / len(w.values)
	if !w.encode || share < digestLength {
		err := w.refuseSegment(fmt.Sprintf("makes a directory name of %d bytes (at most %d)", length, maxSegment))
		err.recipient = !w.encode && ofRecipient > maxSegment
		return err
	}
	for _, v := range slices.Backward(w.values) {
		if v.to-v.from > share {
			w.path = slices.Replace(w.path, v.from, v.to, shortened(w.path[v.from:v.to], v.piece.Text, share)...)
		}
	}
	return nil
}

// shortened returns the beginning of an encoded value and the digest of all of it, in no more than size
// bytes.
func shortened(encoded []byte, value string, size int) []byte {
	end := size - digestLength
	for !utf8.RuneStart(encoded[end]) {
		end--
	}
	if i := strings.LastIndexByte(string(encoded[:end]), '%'); i >= 0 && i > end-3 {
		end = i // within %XX
	}
	digest := sha256.Sum256([]byte(value))
	return hex.AppendEncode(append(slices.Clone(encoded[:end]), digestMark...), digest[:])
}

// place ends the path.
func (w *pathWriter) place() (place, error) {
	if err := w.endSegment(); err != nil {
		return place{}, err
	}
	if len(w.path) == 0 {
		return place{}, &pathError{reason: "the path is empty"}
	}
	path := string(w.path)
	if strings.ContainsRune(path, 0) { // of the template's own text
		return place{}, &pathError{reason: "the path holds a NUL"}
	}
	root, rel := path, "."
	if w.root >= 0 {
		root, rel = path[:w.root], path[w.root:]
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return place{}, &pathError{reason: err.Error()}
	}
	return place{root, filepath.Clean(rel)}, nil
}

func refuse(p *jinja.Piece, what string) *pathError {
	name := strings.Join(p.Names, ", ")
	if name == "" {
		name = fmt.Sprintf("the expression in line %d, column %d,", p.Line, p.Column)
	}
	return &pathError{fmt.Sprintf("the value of %s %s", name, what), onlyRecipient(p.Names)}
}

// refuseSegment refuses what all values in a segment have made of it together.
func (w *pathWriter) refuseSegment(what string) *pathError {
	var names []string
	for _, v := range w.values {
		for _, name := range v.piece.Names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return refuse(&jinja.Piece{Names: names}, what)
}

// onlyRecipient says whether all of the variables come from the recipient's address.
func onlyRecipient(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(recipientNames, n) })
}

// messageVar is a variable that is the same for all recipients of an attempt.
func messageVar(a *attempt, name string) any {
	switch name {
	case "meta":
		return templateValue(a.msg.Meta)
	case "queue":
		return a.queue.String()
	case "campaign":
		return orNil(a.queue.Campaign)
	case "tenant":
		return orNil(a.queue.Tenant)
	case "domain":
		return a.queue.Domain
	case "routing_domain":
		return orNil(a.queue.RoutingDomain)
	case "sender_local_part":
		return a.sender.Local
	case "sender_domain_part":
		return a.sender.Domain
	case "sender_email":
		return a.sender.String()
	}
	return nil
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// templateValue gives metadata the types that templates know. Numbers from JSON and from Lua are
// floating-point; a whole one is an integer to the person who wrote it. What else a host may have put there means
// what it means to Lua.
func templateValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[key] = templateValue(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, value := range v {
			list[i] = templateValue(value)
		}
		return list
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
		return v
	case nil, bool, string, int64:
		return v
	case []byte:
		return string(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return templateValue(f)
		}
		return v.String()
	default:
		return otherValue(reflect.ValueOf(v))
	}
}

// otherValue is templateValue of types that are like those.
func otherValue(v reflect.Value) any {
	switch {
	case v.Kind() == reflect.Bool:
		return v.Bool()
	case v.Kind() == reflect.String:
		return v.String()
	case v.CanInt():
		return v.Int()
	case v.CanUint() && v.Uint() <= math.MaxInt64:
		return int64(v.Uint())
	case v.CanUint():
		return float64(v.Uint())
	case v.CanFloat():
		return templateValue(v.Float())
	case v.Kind() == reflect.Slice, v.Kind() == reflect.Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = templateValue(v.Index(i).Interface())
		}
		return list
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		m := make(map[string]any, v.Len())
		for entries := v.MapRange(); entries.Next(); {
			m[entries.Key().String()] = templateValue(entries.Value().Interface())
		}
		return m
	}
	return v.Interface() // no template can handle it, and none prints it
}
