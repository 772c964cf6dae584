package decode

import (
	"fmt"
	"strconv"
	"strings"
)

// maxMode is 07777: permissions, setuid, setgid and the sticky bit.
const maxMode = 0o7777

// ParseMode reads the mode of a file: a number, or a string of octal digits
// such as "775", "0775" and "0o775". A number is what it is: the decimal 775 is
// 01407 octal.
func ParseMode(tree any) (uint32, error) {
	switch t := tree.(type) {
	case int64, float64:
		n, ok := integer(t)
		if !ok || n < 0 || n > maxMode {
			return 0, badMode(numberOf(t))
		}
		return uint32(n), nil
	case string:
		digits := strings.TrimPrefix(t, "0o")
		// ParseUint takes no sign and, with the base given, no prefix.
		n, err := strconv.ParseUint(digits, 8, 32)
		if err != nil || n > maxMode {
			return 0, badMode(quote(t))
		}
		return uint32(n), nil
	}
	return 0, expected("a file mode (a number or a string of octal digits)", tree)
}

func badMode(what string) error {
	return fmt.Errorf("%s is not a file mode (0 to 07777 octal, %d decimal)", what, maxMode)
}

// numberOf prints a number of a tree without an exponent where it is integral.
func numberOf(tree any) string {
	if f, ok := tree.(float64); ok {
		return string(appendFloat(nil, f, 64))
	}
	return fmt.Sprint(tree)
}
