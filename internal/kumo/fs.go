package kumo

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/mtadelivery/delivery/internal/luastate"
)

func (m *module) fsFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"open":                      m.fsOpen,
		"read_dir":                  readDir,
		"glob":                      m.globCached,
		"uncached_glob":             globUncached,
		"metadata_for_path":         m.metadata("metadata_for_path", os.Stat),
		"symlink_metadata_for_path": m.metadata("symlink_metadata_for_path", os.Lstat),
	}
}

// readDir is kumo.fs.read_dir(path): the paths of what is in a folder, in order.
func readDir(L *lua.LState) int {
	dir := L.CheckString(1)
	names, err := listDir(L, dir)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("read_dir: %w", err))
	}
	L.Push(luastate.FromTree(L, names))
	return 1
}

func listDir(L *lua.LState, dir string) ([]string, error) {
	// Stat first: to open a pipe would wait for its other end.
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s: is not a directory", dir)
	}
	if err != nil {
		return nil, fileError(dir, err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fileError(dir, err)
	}
	defer f.Close()
	var names []string
	l := look{ctx: contextOf(L)}
	failed, err := l.read(f, func(entry fs.DirEntry) error {
		name := filepath.Join(dir, entry.Name())
		if !utf8.ValidString(name) {
			return fmt.Errorf("path entry %q is not representable as utf8", name)
		}
		names = append(names, name)
		return nil
	})
	if failed != nil {
		return nil, fileError(dir, failed)
	}
	slices.Sort(names)
	return names, err
}

// metadata is kumo.fs.metadata_for_path(path) and its sibling that does not follow a link.
func (m *module) metadata(name string, stat func(string) (fs.FileInfo, error)) lua.LGFunction {
	return func(L *lua.LState) int {
		path := L.CheckString(1)
		info, err := stat(path)
		if err != nil {
			luastate.Raise(L, fmt.Errorf("%s: %w", name, fileError(path, err)))
		}
		mode := info.Mode()
		tbl := L.CreateTable(0, 16)
		tbl.RawSetString("path", lua.LString(path))
		tbl.RawSetString("is_file", lua.LBool(mode.IsRegular()))
		tbl.RawSetString("is_dir", lua.LBool(mode.IsDir()))
		tbl.RawSetString("is_symlink", lua.LBool(mode&fs.ModeSymlink != 0))
		tbl.RawSetString("len", lua.LNumber(info.Size()))
		tbl.RawSetString("size", lua.LNumber(info.Size()))
		tbl.RawSetString("readonly", lua.LBool(mode.Perm()&0o222 == 0))
		tbl.RawSetString("mtime", m.newTime(L, info.ModTime().Round(0).UTC()))
		m.platformMetadata(L, tbl, info)
		L.Push(tbl)
		return 1
	}
}

// policyFile is a file in Lua's hands.
type policyFile struct{ f *os.File } // nil: closed

// Open tells whether the file has not been closed.
func (p *policyFile) Open() bool { return p.f != nil }

// Close closes the file, if it is open.
func (p *policyFile) Close() error {
	f := p.f
	p.f = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// fsOpen is kumo.fs.open(path, mode), for reading.
func (m *module) fsOpen(L *lua.LState) int {
	path, mode := L.CheckString(1), L.OptString(2, "r")
	switch mode {
	case "r", "rb":
	case "w", "wb", "a", "ab", "r+", "r+b", "w+", "w+b", "a+", "a+b":
		L.RaiseError("fs.open: the mode %s is not available in this library: files can only be read", mode)
	default:
		L.RaiseError("unsupported file mode `%s`", excerpt(mode))
	}
	p, err := openFor(L, path)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("failed to open %s with mode %s: %w", path, mode, err))
	}
	mt := m.metatable(L, "file", func(L *lua.LState, mt *lua.LTable) {
		methods := L.CreateTable(0, 5)
		addAll(L, methods, map[string]lua.LGFunction{
			"read": fileRead, "seek": fileSeek, "close": fileClose, "flush": fileFlush, "write": fileWrite,
		})
		mt.RawSetString("__index", methods)
	})
	L.Push(&lua.LUserData{Value: p, Env: L.Env, Metatable: mt})
	return 1
}

// openFor opens a file that is closed with the state of L, or by the garbage collector.
func openFor(L *lua.LState, path string) (*policyFile, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	p := &policyFile{f}
	if err := luastate.CloseWith(L, p); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func checkFile(L *lua.LState) *policyFile {
	ud, _ := L.Get(1).(*lua.LUserData)
	if ud != nil {
		if p, ok := ud.Value.(*policyFile); ok {
			return p
		}
	}
	L.ArgError(1, "file expected: call its methods with a colon")
	return nil
}

func checkOpen(L *lua.LState, what string) *os.File {
	p := checkFile(L)
	if p.f == nil {
		L.RaiseError("attempt to %s a closed file handle", what)
	}
	return p.f
}

// fileRead is file:read(size); without a size it reads what is left.
func fileRead(L *lua.LState) int {
	f := checkOpen(L, "read")
	limit := int64(maxText)
	if L.Get(2) != lua.LNil {
		n := float64(L.CheckNumber(2))
		if n != math.Trunc(n) || n < 0 {
			L.ArgError(2, "want a number of bytes")
		}
		limit = int64(min(n, maxText))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err == nil && L.Get(2) == lua.LNil && len(data) == maxText {
		if n, _ := f.Read(make([]byte, 1)); n > 0 {
			err = fmt.Errorf("there are more than %d bytes: read them piece by piece", maxText)
		}
	}
	if err != nil {
		luastate.Raise(L, fmt.Errorf("file:read: %w", fileError(f.Name(), err)))
	}
	L.Push(lua.LString(data))
	return 1
}

// fileSeek is file:seek(whence, offset), in either order, as upstream.
func fileSeek(L *lua.LState) int {
	f := checkOpen(L, "seek")
	whence, offset := io.SeekCurrent, int64(0)
	for i := 2; i <= L.GetTop(); i++ {
		switch v := L.Get(i).(type) {
		case lua.LNumber:
			if v != lua.LNumber(int64(v)) {
				L.ArgError(i, "want a whole number")
			}
			offset = int64(v)
		case lua.LString:
			switch v {
			case "set":
				whence = io.SeekStart
			case "cur":
				whence = io.SeekCurrent
			case "end":
				whence = io.SeekEnd
			default:
				L.RaiseError("invalid whence/offset parameters to seek")
			}
		case *lua.LNilType:
		default:
			L.RaiseError("invalid whence/offset parameters to seek")
		}
	}
	at, err := f.Seek(offset, whence)
	if err != nil {
		luastate.Raise(L, fmt.Errorf("file:seek: %w", fileError(f.Name(), err)))
	}
	L.Push(lua.LNumber(at))
	return 1
}

func fileClose(L *lua.LState) int {
	if err := checkFile(L).Close(); err != nil {
		luastate.Raise(L, fmt.Errorf("file:close: %w", err))
	}
	return 0
}

// fileFlush has nothing to do: what is only read has nothing to be flushed.
func fileFlush(L *lua.LState) int {
	checkOpen(L, "flush")
	return 0
}

func fileWrite(L *lua.LState) int {
	L.RaiseError("file:write: %s is open for reading only", checkOpen(L, "write").Name())
	return 0
}
