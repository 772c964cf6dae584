//go:build !linux

package kumo

import (
	"io/fs"

	lua "github.com/yuin/gopher-lua"
)

// platformMetadata adds nothing: what the systems tell more differs.
func (m *module) platformMetadata(*lua.LState, *lua.LTable, fs.FileInfo) {}
