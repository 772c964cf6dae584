package luapattern

// set is a set of bytes.
type set [8]uint32

func (s *set) has(c byte) bool { return s[c>>5]&(1<<(c&31)) != 0 }

func (s *set) add(c byte) { s[c>>5] |= 1 << (c & 31) }

func (s *set) addRange(low, high byte) {
	for c := int(low); c <= int(high); c++ {
		s.add(byte(c))
	}
}

func (s *set) addAll(other *set) {
	for i := range s {
		s[i] |= other[i]
	}
}

func (s *set) invert() {
	for i := range s {
		s[i] = ^s[i]
	}
}

// lowerClasses are the classes %a to %z, empty where a letter stands for itself. Letters and digits
// are ASCII's, as in Lua's own locale.
var lowerClasses = func() (classes [26]set) {
	define := func(letter byte, ranges ...string) {
		for _, r := range ranges {
			classes[letter-'a'].addRange(r[0], r[1])
		}
	}
	define('a', "az", "AZ")
	define('c', "\x00\x1f", "\x7f\x7f")
	define('d', "09")
	define('g', "!~")
	define('l', "az")
	define('p', "!/", ":@", "[`", "{~")
	define('s', "\t\r", "  ")
	define('u', "AZ")
	define('w', "09", "az", "AZ")
	define('x', "09", "af", "AF")
	define('z', "\x00\x00") // Lua 5.1's name of the byte zero
	return classes
}()

// class is what %letter stands for, a capital for all other bytes; ok is false where the letter stands
// for itself.
func class(letter byte) (s set, ok bool) {
	lower := letter | 0x20
	if lower < 'a' || lower > 'z' {
		return s, false
	}
	s = lowerClasses[lower-'a']
	if s == (set{}) {
		return s, false
	}
	if letter != lower {
		s.invert()
	}
	return s, true
}

// special are the bytes that mean something in a pattern, but for ")", which does so after "(" only.
var special = func() (s set) {
	for _, c := range []byte("^$*+?.([%-") {
		s.add(c)
	}
	return s
}()
