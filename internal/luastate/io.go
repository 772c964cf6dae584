package luastate

import (
	"io"
	"os"

	lua "github.com/yuin/gopher-lua"
)

// files is what a state knows of its open files.
type files struct {
	open      openThings
	input     *lua.LUserData // what io.read reads
	output    *lua.LUserData // what io.write writes
	stdout    io.Writer
	metatable *lua.LTable
}

const filesKey = "luastate.files"

// filesOf are the files of L; nil if the library is not ours.
func filesOf(L *lua.LState) *files {
	if ud, ok := L.G.Registry.RawGetString(filesKey).(*lua.LUserData); ok {
		fs, _ := ud.Value.(*files)
		return fs
	}
	return nil
}

func newFiles(L *lua.LState) *files {
	fs := &files{stdout: os.Stdout}
	L.G.Registry.RawSetString(filesKey, &lua.LUserData{Value: fs, Metatable: lua.LNil})
	return fs
}

// openIO installs the library io. It differs from that of Lua in what a host needs: files are regular ones, or devices
// that always answer; a line has at most 16 MiB; the standard input is empty, the standard output is where print
// writes, and neither can be closed; and all files are closed with their state.
func openIO(L *lua.LState) {
	fs := newFiles(L)
	methods := L.CreateTable(0, len(fileMethods))
	setAll(L, methods, fileMethods)
	fs.metatable = L.CreateTable(0, 4)
	fs.metatable.RawSetString("__index", methods)
	fs.metatable.RawSetString("__name", lua.LString("FILE*"))
	fs.metatable.RawSetString("__metatable", lua.LFalse)
	fs.metatable.RawSetString("__tostring", L.NewFunction(fileToString))

	lib := L.CreateTable(0, len(ioFunctions)+3)
	setAll(L, lib, ioFunctions)
	fs.input = fs.standard("stdin", nil)
	fs.output = fs.standard("stdout", writerFunc(func(p []byte) (int, error) { return fs.stdout.Write(p) }))
	lib.RawSetString("stdin", fs.input)
	lib.RawSetString("stdout", fs.output)
	lib.RawSetString("stderr", fs.standard("stderr", os.Stderr))
	L.SetGlobal(lua.IoLibName, lib)
	if loaded, ok := L.G.Registry.RawGetString("_LOADED").(*lua.LTable); ok {
		loaded.RawSetString(lua.IoLibName, lib)
	}
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func (fs *files) standard(name string, out io.Writer) *lua.LUserData {
	return &lua.LUserData{Value: &file{name: name, out: out}, Metatable: fs.metatable}
}

// add makes a value of an open file, for which there is room.
func (fs *files) add(f *file) *lua.LUserData {
	keep(&fs.open, f)
	return &lua.LUserData{Value: f, Metatable: fs.metatable}
}

var ioFunctions = map[string]lua.LGFunction{
	"close":   ioClose,
	"flush":   ioFlush,
	"input":   ioInput,
	"lines":   ioLines,
	"open":    ioOpen,
	"output":  ioOutput,
	"popen":   ioPopen,
	"read":    ioRead,
	"tmpfile": ioTmpfile,
	"type":    ioType,
	"write":   ioWrite,
}

func ioOpen(L *lua.LState) int {
	path, mode := L.CheckString(1), L.OptString(2, "r")
	flags, ok := openFlags(mode)
	if !ok {
		L.ArgError(2, "invalid mode")
	}
	f, err := openFile(L, path, flags)
	if err != nil {
		return ioFailed(L, err)
	}
	L.Push(f)
	return 1
}

// ioFailed returns nil, a text and the number of an error of the operating system.
func ioFailed(L *lua.LState, err error) int {
	text, number := errorOfFile(err)
	L.Push(lua.LNil)
	L.Push(lua.LString(text))
	L.Push(lua.LNumber(number))
	return 3
}

func raiseFile(L *lua.LState, err error) {
	text, _ := errorOfFile(err)
	L.RaiseError("%s", text)
}

func ioTmpfile(L *lua.LState) int {
	fs := roomFor(L)
	f, err := os.CreateTemp("", "lua_*")
	if err != nil {
		return ioFailed(L, err)
	}
	os.Remove(f.Name()) // where a file cannot go while it is open, it stays in the folder for such
	L.Push(fs.add(&file{name: f.Name(), f: f}))
	return 1
}

func ioType(L *lua.LState) int {
	f, ok := fileOf(L.CheckAny(1))
	switch {
	case !ok:
		L.Push(lua.LNil)
	case !f.Open():
		L.Push(lua.LString("closed file"))
	default:
		L.Push(lua.LString("file"))
	}
	return 1
}

func ioClose(L *lua.LState) int {
	if L.GetTop() == 0 {
		L.Push(theFiles(L).output)
	}
	return fileClose(L)
}

func ioFlush(L *lua.LState) int {
	L.Push(theFiles(L).output)
	return 1
}

func ioInput(L *lua.LState) int {
	fs := theFiles(L)
	return setDefault(L, &fs.input, os.O_RDONLY)
}

func ioOutput(L *lua.LState) int {
	fs := theFiles(L)
	return setDefault(L, &fs.output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
}

// setDefault is io.input and io.output: the file, or the name of one, becomes what read and write use.
func setDefault(L *lua.LState, which **lua.LUserData, flags int) int {
	switch arg := L.Get(1).(type) {
	case *lua.LNilType:
	case lua.LString:
		f, err := openFile(L, string(arg), flags)
		if err != nil {
			raiseFile(L, err)
		}
		*which = f
	default:
		checkFile(L, 1)
		*which = L.CheckUserData(1)
	}
	L.Push(*which)
	return 1
}

func ioRead(L *lua.LState) int {
	f := theFiles(L).input
	L.Insert(f, 1)
	return fileRead(L)
}

func ioWrite(L *lua.LState) int {
	f := theFiles(L).output
	L.Insert(f, 1)
	return fileWrite(L)
}

// ioLines goes over a file from its beginning, and closes it at its end.
func ioLines(L *lua.LState) int {
	name, ok := L.Get(1).(lua.LString)
	if !ok {
		if L.GetTop() > 0 {
			L.Remove(1)
		}
		L.Insert(theFiles(L).input, 1)
		return fileLines(L)
	}
	ud, err := openFile(L, string(name), os.O_RDONLY)
	if err != nil {
		raiseFile(L, err)
	}
	return pushLines(L, ud, true)
}

func theFiles(L *lua.LState) *files {
	fs := filesOf(L)
	if fs == nil {
		L.RaiseError("there is no library io")
	}
	return fs
}

func roomFor(L *lua.LState) *files {
	fs := theFiles(L)
	if err := fs.open.room(); err != nil {
		L.RaiseError("%s", err)
	}
	return fs
}
