package decode

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Error says which field of a configuration is wrong, and why.
type Error struct {
	// Path leads to the field, as in protocol.smtp.mx_list[2]. It is empty for
	// the configuration as a whole.
	Path string
	// Reason says what is wrong, in words for whoever wrote the configuration.
	Reason string
	// Err is the cause that Reason was made of, if there is one.
	Err error
}

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

// Unwrap returns the cause, which may be nil.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes the error of a Validate or unmarshal method. The path is
// relative to the value that the method belongs to; "" is that value itself.
// As in [fmt.Errorf], %w keeps the cause.
func Errorf(path, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Path: path, Reason: err.Error(), Err: errors.Unwrap(err)}
	if _, several := err.(interface{ Unwrap() []error }); several {
		e.Err = err
	}
	return e
}

// In puts path before the path of err: "a" and "b[1]" make "a.b[1]", "a" and
// "[1]" make "a[1]". An err that is no [*Error] becomes one at path. In of a nil
// error is nil.
func In(path string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return &Error{Path: joinPath(path, e.Path), Reason: e.Reason, Err: e.Err}
	}
	return &Error{Path: path, Reason: err.Error(), Err: err}
}

func joinPath(outer, inner string) string {
	switch {
	case outer == "":
		return inner
	case inner == "" || inner[0] == '[':
		return outer + inner
	}
	return outer + "." + inner
}

// keyPath is the path of a key, quoted where it could be mistaken for more than
// one step.
func keyPath(key string) string {
	simple := func(r rune) bool {
		return r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !simple(r) }) {
		return "[" + quote(key) + "]"
	}
	return key
}

func indexPath(i int) string { return "[" + strconv.Itoa(i) + "]" }

// quote quotes what somebody wrote for an error message, and keeps it short.
func quote(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "..."
}
