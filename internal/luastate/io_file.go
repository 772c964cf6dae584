package luastate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	lua "github.com/yuin/gopher-lua"
)

// file is an open file in the hands of a program, or one of the three that are always there.
type file struct {
	name    string
	f       *os.File      // nil: closed, or a standard one
	in      *bufio.Reader // nil: nothing was read yet
	out     io.Writer     // of a standard one; nil for the input, which is empty
	process *process      // what io.popen has started; nil: none
	gone    bool
}

func (f *file) standard() bool { return f.f == nil && !f.gone }

// Open tells whether the file has not been closed.
func (f *file) Open() bool { return !f.gone }

// Close closes a file that nobody asks for any more.
func (f *file) Close() error {
	f.gone = true
	err := f.f.Close()
	if f.process != nil {
		f.process.kill()
	}
	return err
}

// openFlags are those of a mode of io.open.
func openFlags(mode string) (int, bool) {
	switch strings.TrimSuffix(mode, "b") {
	case "r":
		return os.O_RDONLY, true
	case "w":
		return os.O_WRONLY | os.O_CREATE | os.O_TRUNC, true
	case "a":
		return os.O_WRONLY | os.O_CREATE | os.O_APPEND, true
	case "r+":
		return os.O_RDWR, true
	case "w+":
		return os.O_RDWR | os.O_CREATE | os.O_TRUNC, true
	case "a+":
		return os.O_RDWR | os.O_CREATE | os.O_APPEND, true
	}
	return 0, false
}

func openFile(L *lua.LState, path string, flags int) (*lua.LUserData, error) {
	fs := roomFor(L)
	f, err := openRegular(path, flags)
	if err != nil {
		return nil, err
	}
	return fs.add(&file{name: path, f: f}), nil
}

// devices are the files that are no regular ones and still answer at once.
var devices = map[string]bool{os.DevNull: true, "/dev/zero": true, "/dev/full": true, "/dev/random": true, "/dev/urandom": true}

// openRegular opens what can be read and written without waiting for anybody: no pipe, no terminal.
func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|syscall.O_NONBLOCK, 0o666) // to open a pipe would wait for its other end
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !devices[filepath.Clean(path)] {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
		if info.IsDir() {
			err = &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errorOfFile is an error as Lua prints those of files: the path and the words of the operating system, with its number.
func errorOfFile(err error) (text string, number int) {
	var errno syscall.Errno
	errors.As(err, &errno)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		reason := e.Err.Error()
		return e.Path + ": " + strings.ToUpper(reason[:1]) + reason[1:], int(errno)
	}
	return err.Error(), int(errno)
}

var fileMethods = map[string]lua.LGFunction{
	"close":   fileClose,
	"flush":   fileFlush,
	"lines":   fileLines,
	"read":    fileRead,
	"seek":    fileSeek,
	"setvbuf": fileSetvbuf,
	"write":   fileWrite,
}

func fileOf(v lua.LValue) (*file, bool) {
	if ud, ok := v.(*lua.LUserData); ok {
		f, ok := ud.Value.(*file)
		return f, ok
	}
	return nil, false
}

func checkFile(L *lua.LState, n int) *file {
	f, ok := fileOf(L.Get(n))
	if !ok {
		L.ArgError(n, "FILE* expected, got "+typeName(L.Get(n)))
	}
	if !f.Open() {
		L.RaiseError("attempt to use a closed file")
	}
	return f
}

func fileToString(L *lua.LState) int {
	text := "file (closed)"
	if f, ok := fileOf(L.Get(1)); ok && f.Open() {
		text = fmt.Sprintf("file (%p)", f)
	}
	L.Push(lua.LString(text))
	return 1
}

func fileClose(L *lua.LState) int {
	f := checkFile(L, 1)
	if f.standard() {
		L.Push(lua.LNil)
		L.Push(lua.LString("cannot close standard file"))
		return 2
	}
	f.gone = true
	err := f.f.Close()
	if f.process != nil {
		return f.process.wait(L)
	}
	if err != nil {
		return ioFailed(L, err)
	}
	L.Push(lua.LTrue)
	return 1
}

// fileFlush has nothing to do: what is written is written at once.
func fileFlush(L *lua.LState) int {
	checkFile(L, 1)
	L.SetTop(1)
	return 1
}

func fileSetvbuf(L *lua.LState) int {
	checkFile(L, 1)
	L.Push(lua.LTrue)
	return 1
}

func fileSeek(L *lua.LState) int {
	f := checkFile(L, 1)
	whence, offset := L.OptString(2, "cur"), int64(optInt(L, 3, 0))
	from := map[string]int{"set": io.SeekStart, "cur": io.SeekCurrent, "end": io.SeekEnd}
	if _, ok := from[whence]; !ok {
		L.ArgError(2, "invalid option '"+whence+"'")
	}
	if f.standard() {
		return ioFailed(L, &fs.PathError{Op: "seek", Path: f.name, Err: syscall.ESPIPE})
	}
	if whence == "cur" {
		offset -= f.buffered()
	}
	f.in = nil
	at, err := f.f.Seek(offset, from[whence])
	if err != nil {
		return ioFailed(L, err)
	}
	L.Push(lua.LNumber(at))
	return 1
}

// buffered is how much was read from the file, but not by the program.
func (f *file) buffered() int64 {
	if f.in == nil {
		return 0
	}
	return int64(f.in.Buffered())
}

func fileWrite(L *lua.LState) int {
	f := checkFile(L, 1)
	var out io.Writer = f.f
	switch {
	case f.standard() && f.out == nil:
		return ioFailed(L, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EBADF})
	case f.standard():
		out = f.out
	case f.buffered() > 0: // it goes on where the program has read to
		if _, err := f.f.Seek(-f.buffered(), io.SeekCurrent); err != nil {
			return ioFailed(L, err)
		}
	}
	f.in = nil
	all := text{L: L}
	for i := 2; i <= L.GetTop(); i++ {
		part, ok := operandText(L.Get(i))
		if !ok {
			L.TypeError(i, lua.LTString)
		}
		all.add(part)
	}
	var err error
	f.waiting(L, func() { _, err = io.WriteString(out, all.out.String()) })
	if err != nil {
		return ioFailed(L, err)
	}
	L.SetTop(1)
	return 1
}
