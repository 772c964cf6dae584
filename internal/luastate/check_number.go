package luastate

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// number consumes a number. The parser turns what it cannot read into a NaN, or takes the rest for the
// next token, without a word; and every number is a float.
func (c *checker) number() string {
	start := c.pos
	hexadecimal := strings.HasPrefix(c.src[start:], "0x") || strings.HasPrefix(c.src[start:], "0X")
	exponent := "eE"
	if hexadecimal {
		exponent = "pP"
	}
	for c.pos < len(c.src) && (isNameByte(c.src[c.pos]) || c.src[c.pos] == '.') {
		c.pos++
		isExponent := strings.IndexByte(exponent, c.src[c.pos-1]) >= 0
		if isExponent && c.pos < len(c.src) && (c.src[c.pos] == '+' || c.src[c.pos] == '-') {
			c.pos++
		}
	}
	text := c.src[start:c.pos]
	if hexadecimal {
		return checkHexadecimal(text)
	}
	return checkDecimal(text)
}

func checkDecimal(text string) string {
	if strings.Trim(text, "0123456789.eE+-") != "" {
		return malformed(text)
	}
	f, err := strconv.ParseFloat(text, 64)
	whole := strings.Trim(text, "0123456789") == ""
	switch {
	case math.IsInf(f, 0):
		return "number " + text + " is too large for a float: infinity is math.huge"
	case err != nil:
		return malformed(text)
	case len(text) > 2 && text[:2] == "00":
		// The parser drops one zero and reads what is left as octal.
		return "number " + text + " begins with more than one zero"
	case whole:
		return checkWhole(text, text)
	}
	return ""
}

func checkHexadecimal(text string) string {
	digits := text[2:]
	switch {
	case strings.ContainsAny(digits, ".pP"):
		return "number " + text + ": Lua 5.1 has no fractions and exponents in hexadecimal"
	case digits == "" || strings.Trim(digits, "0123456789abcdefABCDEF") != "":
		return malformed(text)
	case len(strings.TrimLeft(digits, "0")) > 16:
		return "number " + text + " has more than 64 bits"
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || n > math.MaxInt64 {
		return "number " + text + " would be negative in Lua 5.4, where integers have 64 bits: write it in decimal"
	}
	return checkWhole(text, strconv.FormatUint(n, 10))
}

// checkWhole refuses what is an integer in Lua 5.4 and would be rounded here.
func checkWhole(text, decimal string) string {
	n, err := strconv.ParseInt(decimal, 10, 64)
	if err != nil || n <= 1<<53 {
		return "" // in Lua 5.4 too what is longer than 64 bits is a float
	}
	if f := float64(n); f < math.MaxInt64 && int64(f) == n {
		return ""
	}
	return fmt.Sprintf("number %s would be rounded: every number is a float, exact up to 2^53", text)
}

func malformed(text string) string { return fmt.Sprintf("malformed number %q", text) }
