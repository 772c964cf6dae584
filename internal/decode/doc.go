// Package decode reads and prints configuration. It turns a tree of plain
// values, the same one for JSON and for a Lua table, into Go structs and back.
// It is strict: what it does not understand is an error that names the field,
// and nothing is dropped, rounded or guessed in silence. It knows no mail.
//
// # The tree
//
// A tree is nil, a bool, a string, an int64, a float64, a []any, a
// map[string]any, or [Empty]. JSON integers are int64 where they fit; every
// number of Lua is a float64, and an integral one serves for an integer field.
// A nil means that its key is absent, except inside a field of type any.
// Strings must be UTF-8 and numbers finite, for JSON could not print others.
//
// # Struct tags
//
//	config:"smtp_port"   the key; a field without a config tag is not touched
//	config:",inline"     a struct, or a pointer to one, whose keys are the
//	                     parent's; the pointer is set only if a key is present
//	default:"25"         what the zero value stands for, as text of the field's
//	                     own syntax (lists and maps as JSON); a bool's can only be
//	                     false, and says that false is to be printed
//	min:"1" max:"100"    bounds of an integer, a float or a duration
//	enum:"A,B"           the values a string may have
//	required:"true"      the zero value is an error
//
// The zero value of a field means "not given", so an explicit zero where there
// is another default, or where the field is required, is refused. Where zero
// has to be told from absence the field is a pointer, or a type of its own with
// an unmarshaler. A nil slice or map is not given; an empty one is given and
// empty. A nested struct is always there; an optional one is a pointer, or a type
// with an unmarshaler.
//
// # Types
//
// Fields are bools, strings, integers, floats, structs, slices, maps with
// string keys, any, [time.Duration] and every int64 type whose name ends in
// "Duration", [netip.Addr], [netip.Prefix] (a bare address is a network of one
// host), pointers to these, and every type with methods of its own:
// [json.Unmarshaler], which is given the subtree as JSON, or else
// [encoding.TextUnmarshaler], which is given a string. [json.Marshaler] and
// [encoding.TextMarshaler] print them. A type with an IsZero method is asked
// whether it is zero. These methods are not called on the struct that is handed
// to [Decode] and [JSON] itself, so that its own may call Decode and JSON.
//
// A type with a method Validate() error is asked for its own rules once the
// defaults are in, inner values before outer ones; a struct always, any other
// type where it was given.
//
// A tag that contradicts its field is a mistake in the program, not in the
// configuration: it panics at the first use of the struct type.
//
// Nothing here keeps state; all functions may be called at the same time.
package decode
