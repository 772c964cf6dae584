// Package luastate runs Lua programs: compiled once, in as many states as are wanted, with values
// going in and out as plain Go trees.
//
// A Program and a Pool may be used from many goroutines; a State from one at a time.
//
// # The language
//
// The language is Lua 5.1 as gopher-lua implements it, with goto and the library of Lua 5.4 (see Shim).
// Compile refuses what 5.4 allows and 5.1 cannot do, and what would compile and mean something else,
// each with its line and what to write instead:
//
//   - the operators // & | ~ << >>, and the attributes <const> and <close>
//   - the escapes \x41, \u{263A} and \z in a string, escapes that nobody knows, and those above \255
//   - _ENV
//   - break before the end of its block
//   - numbers: fractions and exponents in hexadecimal; integers that a float does not hold, and those
//     that would be negative; what is too large for a float; 00 in front; letters behind
//   - a comment that begins with --[= and is no long one
//   - more than 200 brackets and blocks inside one another, more than 1000 operators or 10,000 operands
//     in one expression, more than 1000 elseif: the compiler would take minutes, or all of the stack. In
//     one chain of "..", the compiler has registers for about 240 texts; table.concat has no limit.
//
// What stays different, and cannot be seen in the source:
//
//   - Every number is a float64. Whole numbers are exact up to 2^53 and print without ".0": 3.0 is "3", 7 / 7 is
//     "1", 2^53 is "9007199254740992". math.type says "integer" for every whole one, math.maxinteger is 2^63,
//     integers do not wrap around, and there is no -0.
//   - A text that is used as a number is read as Go reads it: "010" + 0 is 8, "0b11" + 0 is 3. tonumber and
//     the functions of the library read it as Lua 5.4 does.
//   - == asks __eq only where both sides have the same one, and a division by zero is no error for whole numbers either.
//   - There are no finalizers (__gc), no __close, and weak tables (__mode) hold what is in them.
//     Operators on bits and // have no metamethods either, since they do not exist.
//   - A function of "..." that does not use it has it in a local table called arg.
//   - An error in a Go function names the function as the script calls it, or not at all through pcall.
//   - A coroutine cannot yield out of pcall, a metamethod, the function of a for loop, or the function given to
//     table.sort and string.gsub: that is an error. Nor can more than 50 run within one another. What a function returns
//     with a call of yield must call it by this name.
//   - Functions call each other about 1000 deep, pcalls about 330.
//
// # The library
//
// A function written in Go runs within one instruction, where the virtual machine looks at neither the
// context nor how much memory there is. So those that can take long or make much are not gopher-lua's but
// ours: they charge the call for their work while they do it, and for memory before they take it. No
// string that they make is longer than 16 MiB, no result of one call more than a quarter of a million
// values, and load compiles at most 64 KiB, as require does 128 KiB once the program is loaded. Files are regular ones
// or devices that answer at once; the standard input is empty, and the standard output is where print writes.
//
// Options.Allow has what is dangerous of the standard library, Options.Forbid takes away more of it. The libraries and
// the metatable of strings are read-only, so that all states of a program share them; a program may add names of its own
// while it loads, to a copy.
//
// # Limits
//
// Limits bounds what one call runs and one state holds; a call from outside and all that it calls in turn are one.
// What breaks a limit ends with an error that no pcall and no coroutine holds up, and the state is Spent.
//
// Time: gopher-lua asks the context for Done before each instruction. A timer asks every so often whether that goes
// on, and counts where it does: so it is Lua that is counted, and not what waits in Go (Outside, Guarded) or for a
// processor. A call that is short costs no timer.
//
// Memory: what can be reached from the state is weighed, by estimates of what each value takes that are right
// within a factor of three, when the library has made half of the limit since the last time, or when at a tick, or after some
// calls, the whole process has grown by a quarter of it. Between two ticks, 20 ms apart, a script can take
// some tens of MiB more. Two instructions that could take any amount at once are calls in disguise (see rewriter): the operator
// "..", and storing at an index.
//
// Depth: call stacks, registers and coroutines within one another have an end far before that of Go's stack.
//
// Panics of Go code below Lua end the call too.
package luastate
