package luastate

import (
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// The sizes that C has on the machines of today. Everything else in a format says its size.
const (
	sizeShort  = 2
	sizeInt    = 4
	sizeLong   = 8 // long, size_t, lua_Integer, lua_Number
	maxIntSize = 16
)

type packKind uint8

const (
	packInt packKind = iota
	packUint
	packFloat
	packFixed  // c[n]
	packString // s[n]: the length, then the bytes
	packZero   // z: the bytes, then a zero
	packBlank  // x
	packAlign  // X
	packNothing
)

type packOption struct {
	kind  packKind
	size  int // of what is written, without a string's own bytes
	align int // bytes to skip before it
}

// packFormat reads the format of string.pack and its kin, option by option.
type packFormat struct {
	L         *lua.LState
	rest      string
	bigEndian bool
	maxAlign  int
}

func newPackFormat(L *lua.LState) packFormat {
	rest := stringArg(L, 1)
	chargeWork(L, len(rest))
	return packFormat{L: L, rest: rest, maxAlign: 1}
}

// next is the next option, for data of which total bytes are there already.
func (f *packFormat) next(total int) packOption {
	opt, natural := f.read()
	if opt.kind == packAlign {
		if f.rest == "" {
			f.L.ArgError(1, "invalid next option for option 'X'")
		}
		after, size := f.read()
		if after.kind == packFixed || size == 0 {
			f.L.ArgError(1, "invalid next option for option 'X'")
		}
		natural = size
	}
	if align := min(natural, f.maxAlign); align > 1 && (opt.kind == packAlign || aligned(opt.kind)) {
		if align&(align-1) != 0 {
			f.L.ArgError(1, "format asks for alignment not power of 2")
		}
		opt.align = (align - total&(align-1)) & (align - 1)
	}
	return opt
}

func aligned(kind packKind) bool {
	return kind == packInt || kind == packUint || kind == packFloat || kind == packString
}

// read reads one option and the alignment that is natural for it.
func (f *packFormat) read() (opt packOption, natural int) {
	c := f.rest[0]
	f.rest = f.rest[1:]
	sized := func(kind packKind, size int) (packOption, int) { return packOption{kind: kind, size: size}, size }
	switch c {
	case 'b':
		return sized(packInt, 1)
	case 'B':
		return sized(packUint, 1)
	case 'h':
		return sized(packInt, sizeShort)
	case 'H':
		return sized(packUint, sizeShort)
	case 'i':
		return sized(packInt, f.size(sizeInt))
	case 'I':
		return sized(packUint, f.size(sizeInt))
	case 'l', 'j':
		return sized(packInt, sizeLong)
	case 'L', 'J', 'T':
		return sized(packUint, sizeLong)
	case 'f':
		return sized(packFloat, 4)
	case 'd', 'n':
		return sized(packFloat, 8)
	case 's':
		return sized(packString, f.size(sizeLong))
	case 'c':
		n, ok := f.number()
		if !ok {
			f.L.RaiseError("missing size for format option 'c'")
		}
		return sized(packFixed, n)
	case 'z':
		return packOption{kind: packZero}, 0
	case 'x':
		return sized(packBlank, 1)
	case 'X':
		return packOption{kind: packAlign}, 0
	case '<', '=':
		f.bigEndian = false
	case '>':
		f.bigEndian = true
	case '!':
		f.maxAlign = f.size(sizeLong)
	case ' ':
	default:
		f.L.RaiseError("invalid format option '%c'", c)
	}
	return packOption{kind: packNothing}, 0
}

func (f *packFormat) number() (n int, ok bool) {
	for f.rest != "" && isDigit(f.rest[0]) {
		if n = n*10 + int(f.rest[0]-'0'); n > maxText {
			f.L.RaiseError("format result too large")
		}
		f.rest, ok = f.rest[1:], true
	}
	return n, ok
}

func (f *packFormat) size(absent int) int {
	n, ok := f.number()
	if !ok {
		return absent
	}
	if n < 1 || n > maxIntSize {
		f.L.RaiseError("integral size (%d) out of limits [1,%d]", n, maxIntSize)
	}
	return n
}

func stringPack(L *lua.LState) int {
	f := newPackFormat(L)
	out := text{L: L}
	for arg := 1; f.rest != ""; {
		opt := f.next(out.out.Len())
		for range opt.align {
			out.addByte(0)
		}
		if opt.kind < packBlank {
			arg++
		}
		f.pack(&out, opt, arg)
	}
	out.push()
	return 1
}

func (f *packFormat) pack(out *text, opt packOption, arg int) {
	L := f.L
	switch opt.kind {
	case packInt:
		n := int64(intArg(L, arg))
		if limit := int64(1) << (opt.size*8 - 1); opt.size < 8 && (n < -limit || n >= limit) {
			L.ArgError(arg, "integer overflow")
		}
		f.packInteger(out, n, opt.size)
	case packUint:
		n := int64(intArg(L, arg))
		if opt.size < 8 && uint64(n) >= 1<<(opt.size*8) {
			L.ArgError(arg, "unsigned overflow")
		}
		f.packInteger(out, n, opt.size)
	case packFloat:
		x := floatArg(L, arg)
		bits := math.Float64bits(x)
		if opt.size == 4 {
			bits = uint64(math.Float32bits(float32(x)))
		}
		f.packInteger(out, int64(bits), opt.size)
	case packFixed:
		s := stringArg(L, arg)
		if len(s) > opt.size {
			L.ArgError(arg, "string longer than given size")
		}
		out.reserve(opt.size)
		out.add(s)
		out.add(strings.Repeat("\x00", opt.size-len(s)))
	case packString:
		s := stringArg(L, arg)
		if opt.size < 8 && uint64(len(s)) >= 1<<(opt.size*8) {
			L.ArgError(arg, "string length does not fit in given size")
		}
		f.packInteger(out, int64(len(s)), opt.size)
		out.add(s)
	case packZero:
		s := stringArg(L, arg)
		if strings.IndexByte(s, 0) >= 0 {
			L.ArgError(arg, "string contains zeros")
		}
		out.add(s)
		out.addByte(0)
	case packBlank:
		out.addByte(0)
	}
}

// packInteger writes n in two's complement, extended by its sign.
func (f *packFormat) packInteger(out *text, n int64, size int) {
	var bytes [maxIntSize]byte
	for i := range size {
		at := i
		if f.bigEndian {
			at = size - 1 - i
		}
		bytes[at] = byte(n)
		n >>= 8
	}
	out.addBytes(bytes[:size])
}

func stringPackSize(L *lua.LState) int {
	f := newPackFormat(L)
	total := 0
	for f.rest != "" {
		opt := f.next(total)
		if opt.kind == packString || opt.kind == packZero {
			L.ArgError(1, "variable-length format")
		}
		if total += opt.align + opt.size; total > math.MaxInt32 {
			L.ArgError(1, "format result too large")
		}
	}
	L.Push(lua.LNumber(total))
	return 1
}

func stringUnpack(L *lua.LState) int {
	f := newPackFormat(L)
	data := stringArg(L, 2)
	start := firstByte(optInt(L, 3, 1), len(data)) - 1
	if start > len(data) {
		L.ArgError(3, "initial position out of string")
	}
	u := unpacker{packFormat: f, data: data, at: start}
	n := 0
	for u.rest != "" {
		opt := u.next(u.at)
		u.skip(opt.align)
		v := u.unpack(opt)
		if v == nil {
			continue
		}
		if n++; n >= registryMaxSize {
			L.RaiseError("too many results")
		}
		L.Push(v)
	}
	L.Push(lua.LNumber(u.at + 1))
	return n + 1
}

type unpacker struct {
	packFormat
	data string
	at   int
}

func (u *unpacker) skip(n int) (bytes string) {
	if n > len(u.data)-u.at {
		u.L.ArgError(2, "data string too short")
	}
	bytes = u.data[u.at : u.at+n]
	u.at += n
	return bytes
}

// unpack is the value of one option, nil if it has none.
func (u *unpacker) unpack(opt packOption) lua.LValue {
	switch opt.kind {
	case packInt:
		return lua.LNumber(u.integer(u.skip(opt.size), true))
	case packUint:
		return lua.LNumber(uint64(u.integer(u.skip(opt.size), false)))
	case packFloat:
		bits := uint64(u.integer(u.skip(opt.size), false))
		if opt.size == 4 {
			return lua.LNumber(math.Float32frombits(uint32(bits)))
		}
		return lua.LNumber(math.Float64frombits(bits))
	case packFixed:
		return Cut(u.data, u.skip(opt.size))
	case packString:
		n := u.integer(u.skip(opt.size), false)
		if n < 0 || n > math.MaxInt32 {
			u.L.ArgError(2, "data string too short")
		}
		return Cut(u.data, u.skip(int(n)))
	case packZero:
		n := strings.IndexByte(u.data[u.at:], 0)
		if n < 0 {
			u.L.ArgError(2, "unfinished string for format 'z'")
		}
		s := u.skip(n)
		u.at++
		return Cut(u.data, s)
	case packBlank:
		u.skip(1)
	}
	return nil
}

// integer reads bytes, of which those beyond the eighth may only say the sign.
func (u *unpacker) integer(bytes string, signed bool) int64 {
	size := len(bytes)
	at := func(i int) byte { // from the least byte on
		if u.bigEndian {
			return bytes[size-1-i]
		}
		return bytes[i]
	}
	var n uint64
	for i := range min(size, 8) {
		n |= uint64(at(i)) << (8 * i)
	}
	if size < 8 {
		if signed {
			shift := 64 - 8*size
			return int64(n<<shift) >> shift
		}
		return int64(n)
	}
	extension := byte(0)
	if signed && int64(n) < 0 {
		extension = 0xff
	}
	for i := 8; i < size; i++ {
		if at(i) != extension {
			u.L.RaiseError("%d-byte integer does not fit into Lua Integer", size)
		}
	}
	return int64(n)
}
