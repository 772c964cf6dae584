package kumo

import (
	"io/fs"
	"syscall"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// platformMetadata adds what only the operating system's own record of a file says.
func (m *module) platformMetadata(L *lua.LState, tbl *lua.LTable, info fs.FileInfo) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	for name, v := range map[string]lua.LNumber{
		"dev": lua.LNumber(st.Dev), "ino": lua.LNumber(st.Ino), "mode": lua.LNumber(st.Mode), "nlink": lua.LNumber(st.Nlink),
		"uid": lua.LNumber(st.Uid), "gid": lua.LNumber(st.Gid), "rdev": lua.LNumber(st.Rdev),
		"blksize": lua.LNumber(st.Blksize), "blocks": lua.LNumber(st.Blocks),
	} {
		tbl.RawSetString(name, v)
	}
	tbl.RawSetString("atime", m.newTime(L, time.Unix(st.Atim.Unix()).UTC()))
}
