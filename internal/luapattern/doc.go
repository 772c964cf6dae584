// Package luapattern matches the patterns of Lua 5.4 ("%a+", "^(.-)=(.*)$", "%b()", "%f[%w]") against
// bytes, counting the work, so that whoever matches with a stranger's pattern can stop.
//
// A pattern has no alternatives: every match walks all its items from left to right. So what captures
// there are, which of them a ")" closes, and which one %1 may mean, is known when the pattern is
// compiled. What is wrong with a pattern is nevertheless an error only where a match comes to it, as
// in Lua: "x%" against "a" is no match.
//
// Matching goes back and forth in time that grows with the size of the subject to the power of the
// number of repeated items; the depth of the Go stack is bounded by the number of repeated items in
// the pattern, at most 200, whatever the subject.
package luapattern
