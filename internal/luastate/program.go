package luastate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// Program is a compiled chunk, and the modules that its states have required so far: they are
// compiled once, so all states of a program see the same text of a module, whatever happens to its
// file meanwhile.
type Program struct {
	proto *lua.FunctionProto

	mu      sync.Mutex
	modules map[string]*lua.FunctionProto // by path
	libs    *libraries                    // of its states
	libsFor string                        // what of the options they depend on
}

// Compile compiles source. Name stands in front of every error; it is not opened. The error is an
// *Error with the line, also for what would compile but mean something else in Lua 5.4.
func Compile(name string, source []byte) (*Program, error) {
	proto, err := compile(name, source)
	if err != nil {
		return nil, err
	}
	return &Program{proto: proto, modules: map[string]*lua.FunctionProto{}}, nil
}

func compile(name string, source []byte) (proto *lua.FunctionProto, err error) {
	source = withoutPreamble(source)
	if e := check(name, source); e != nil {
		return nil, e
	}
	defer func() {
		// The parser and the compiler panic on some of what they cannot represent.
		if p := recover(); p != nil {
			proto, err = nil, &Error{File: name, Line: 1, Reason: oneLine(fmt.Sprint(p))}
		}
	}()
	chunk, err := parse.Parse(bytes.NewReader(source), name)
	if err != nil {
		return nil, syntaxError(name, source, err)
	}
	rewriter := new(rewriter)
	functions := rewriter.program(chunk)
	proto, err = lua.Compile(chunk, name)
	if err != nil {
		failed := syntaxError(name, source, err)
		failed.Reason = rewriter.jumps.unmark(failed.Reason)
		return nil, failed
	}
	functions.apply(proto)
	rewriter.jumps.patch(proto)
	return proto, nil
}

// withoutPreamble takes off a byte order mark and blanks a first line that begins with #, as Lua does
// for files.
func withoutPreamble(source []byte) []byte {
	source = bytes.TrimPrefix(source, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(source, []byte("#")) {
		if n := bytes.IndexByte(source, '\n'); n >= 0 {
			return source[n:]
		}
		return nil
	}
	return source
}

func syntaxError(name string, source []byte, err error) *Error {
	e := &Error{File: name, Reason: oneLine(err.Error())}
	if syntax, ok := errors.AsType[*parse.Error](err); ok {
		e.Line, e.Reason = syntax.Pos.Line, strings.TrimSpace(syntax.Message)
		if e.Line == parse.EOF {
			e.Line = 1 + bytes.Count(bytes.TrimRight(source, "\n"), []byte("\n"))
			e.Reason += " at the end of the file"
		} else {
			e.Reason += fmt.Sprintf(" near %q", syntax.Token)
			if h := hint(lineOf(source, e.Line), syntax.Token); h != "" {
				e.Reason += ": " + h
			}
		}
	}
	if compiled, ok := errors.AsType[*lua.CompileError](err); ok {
		e.Line, e.Reason = max(compiled.Line, 1), compiled.Message
	}
	return e
}

func lineOf(source []byte, n int) string {
	for line := range bytes.Lines(source) {
		if n--; n == 0 {
			return string(line)
		}
	}
	return ""
}

// module compiles the file at path, once. It may have so many bytes.
func (p *Program) module(path string, limit int64) (*lua.FunctionProto, error) {
	path = filepath.Clean(path)
	p.mu.Lock()
	defer p.mu.Unlock()
	if proto, ok := p.modules[path]; ok {
		return proto, nil
	}
	source, err := readSource(path, limit)
	if err != nil {
		return nil, err
	}
	if len(p.modules) == maxModules {
		return nil, fmt.Errorf("%s: there are %d modules already", path, maxModules)
	}
	proto, err := compile(path, source)
	if err != nil {
		return nil, err
	}
	p.modules[path] = proto
	return proto, nil
}

const (
	// maxSource bounds a file that is run as Lua.
	maxSource = 16 << 20
	// maxLateSource bounds a module that a call requires: nothing ends a compilation, and others wait for it.
	maxLateSource = 128 << 10
	// maxModules bounds those of a program.
	maxModules = 1024
)

// readSource reads a file that is to be compiled, which must be a file and have an end.
func readSource(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	source, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(source)) > limit {
		err = fmt.Errorf("%s: the file is longer than %d bytes", path, limit)
	}
	return source, err
}
