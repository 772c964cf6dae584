// Package luastate runs Lua programs: compiled once, in as many states as are wanted, with values
// going in and out as plain Go trees.
//
// The language is Lua 5.1 as gopher-lua implements it, with the library names that scripts written for
// Lua 5.4 expect (see Shim). What 5.1 would read differently without a complaint is refused by
// Compile, with the line.
//
// A Program and a Pool may be used from many goroutines; a State from one at a time.
package luastate
