package luastate

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// process is a program that runs beside Lua.
type process struct {
	cmd  *exec.Cmd
	pipe *os.File        // our end
	lost runtime.Cleanup // of the file that stands for it
}

// shell is a command as the system's shell takes it.
func shell(ctx context.Context, command string) *exec.Cmd {
	name, option := "/bin/sh", "-c"
	if runtime.GOOS == "windows" {
		name, option = "cmd", "/C"
	}
	cmd := exec.CommandContext(ctx, name, option, command)
	inGroup(cmd)
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = time.Second // what the command has left behind may keep its output open
	return cmd
}

// osExecute is os.execute([command]): it ends with the call's context.
func osExecute(L *lua.LState) int {
	if L.GetTop() == 0 {
		L.Push(lua.LTrue)
		return 1
	}
	cmd := shell(contextOf(L), L.CheckString(1))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if fs := filesOf(L); fs != nil {
		cmd.Stdout = fs.stdout
	}
	var err error
	Outside(L, func() { err = cmd.Run() })
	return pushExit(L, err)
}

// pushExit returns what became of a program: true or nil, "exit" or "signal", and the number.
func pushExit(L *lua.LState, err error) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return ioFailed(L, err)
	}
	how, code := "exit", 0
	if exit != nil {
		if code = exit.ExitCode(); code < 0 {
			how, code = "signal", 9
		}
	}
	if code == 0 {
		L.Push(lua.LTrue)
	} else {
		L.Push(lua.LNil)
	}
	L.Push(lua.LString(how))
	L.Push(lua.LNumber(code))
	return 3
}

// ioPopen starts a program and is one end of its output, or of its input.
func ioPopen(L *lua.LState) int {
	command, mode := L.CheckString(1), L.OptString(2, "r")
	if mode != "r" && mode != "w" {
		L.ArgError(2, "invalid mode")
	}
	fs := roomFor(L)
	theirs, ours, err := os.Pipe()
	if err != nil {
		return ioFailed(L, err)
	}
	cmd := shell(context.Background(), command) // it may go on from one call to the next
	cmd.Stderr = os.Stderr
	if mode == "w" {
		cmd.Stdin, cmd.Stdout = theirs, os.Stdout
	} else {
		theirs, ours = ours, theirs
		cmd.Stdout = theirs
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return ioFailed(L, err)
	}
	p := &process{cmd: cmd, pipe: ours}
	f := &file{name: command, f: ours, process: p}
	p.lost = runtime.AddCleanup(f, (*process).lose, p)
	L.Push(fs.add(f))
	return 1
}

// lose is called when a program in Lua has let go of the file without closing it. Nobody would ever ask the system what
// became of the process: it would stay, if only as an entry in the system's list.
func (p *process) lose() {
	p.pipe.Close()
	late := time.AfterFunc(grace, func() { killGroup(p.cmd) })
	go func() {
		defer late.Stop()
		p.cmd.Wait()
	}()
}

// wait returns what became of the program, whose end of the pipe is closed. It is killed when the call's context ends.
func (p *process) wait(L *lua.LState) int {
	p.lost.Stop()
	stop := context.AfterFunc(contextOf(L), func() { killGroup(p.cmd) })
	defer stop()
	var err error
	Outside(L, func() { err = p.cmd.Wait() })
	return pushExit(L, err)
}

func (p *process) kill() {
	p.lost.Stop()
	killGroup(p.cmd)
	p.cmd.Wait()
}

// waiting calls what reads or writes. Of a pipe, that is outside, and no longer than the call's context.
func (f *file) waiting(L *lua.LState, call func()) {
	if f.process == nil {
		call()
		return
	}
	stop := context.AfterFunc(contextOf(L), func() { f.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	Outside(L, call)
}

func contextOf(L *lua.LState) context.Context {
	if ctx := L.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
