package decode

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const day = 24 * time.Hour

// unitOf returns the length of a duration's unit, 0 if there is none of that
// name.
func unitOf(name string) time.Duration {
	switch name {
	case "ns", "nsec", "nanos":
		return time.Nanosecond
	case "us", "usec", "µs", "μs": // the micro sign and the Greek letter
		return time.Microsecond
	case "ms", "msec", "millis":
		return time.Millisecond
	case "s", "sec", "secs", "second", "seconds":
		return time.Second
	case "m", "min", "mins", "minute", "minutes":
		return time.Minute
	case "h", "hr", "hrs", "hour", "hours":
		return time.Hour
	case "d", "day", "days":
		return day
	case "w", "wk", "wks", "week", "weeks":
		return 7 * day
	case "M", "month", "months":
		return 2630016 * time.Second // 30.44 days
	case "y", "yr", "yrs", "year", "years":
		return 31557600 * time.Second // 365.25 days
	}
	return 0
}

var errTooLong = errors.New("it is longer than 292 years")

// ParseDuration reads numbers with units, which are added up, with or without
// spaces between them: "1h 30m", "2days", "1.5h", "5 mins". A number may have
// decimals if the result is exact: in nanoseconds, and in whole seconds for
// hours and longer units. Units are case-sensitive: m is minutes, M months of
// 30.44 days; a year has 365.25 days. "0" needs no unit.
func ParseDuration(s string) (time.Duration, error) {
	d, err := parseSpans(s)
	if err != nil {
		return 0, fmt.Errorf("%s is not a duration: %w", quote(s), err)
	}
	return d, nil
}

func parseSpans(s string) (time.Duration, error) {
	rest := strings.TrimSpace(s)
	switch rest {
	case "":
		return 0, errors.New("it is empty")
	case "0":
		return 0, nil
	}
	var sum time.Duration
	for rest != "" {
		var number, unit string
		number, rest = cut(rest, func(r rune) bool { return '0' <= r && r <= '9' || r == '.' })
		if number == "" {
			return 0, noNumber(rest)
		}
		unit, rest = cut(strings.TrimLeftFunc(rest, unicode.IsSpace), func(r rune) bool {
			return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == 'µ' || r == 'μ'
		})
		if unit == "" && rest != "" && !('0' <= rest[0] && rest[0] <= '9') {
			return 0, noNumber(rest)
		}
		span, err := parseSpan(number, unit)
		if err != nil {
			return 0, err
		}
		if sum += span; sum < 0 {
			return 0, errTooLong
		}
		rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
	}
	return sum, nil
}

// cut splits s after the leading characters of a kind.
func cut(s string, kind func(rune) bool) (head, tail string) {
	i := strings.IndexFunc(s, func(r rune) bool { return !kind(r) })
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// noNumber says why rest does not begin with a number.
func noNumber(rest string) error {
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case r == '-' || r == '+':
		return errors.New("it cannot have a sign")
	case r == ',':
		return errors.New("it cannot have a comma; decimals follow a point")
	case r == utf8.RuneError && size == 1:
		return errors.New("it is not valid UTF-8")
	case unicode.IsLetter(r):
		return errors.New("expected a number before " + quote(rest))
	}
	return fmt.Errorf("unexpected %q", r)
}

func parseSpan(number, unitName string) (time.Duration, error) {
	whole, decimals, point := strings.Cut(number, ".")
	if whole == "" || point && decimals == "" || strings.Contains(decimals, ".") {
		return 0, errors.New("bad number " + quote(number))
	}
	if unitName == "" {
		return 0, fmt.Errorf("the number needs a unit, as in %s", quote(number+"s"))
	}
	unit := unitOf(unitName)
	if unit == 0 {
		if lower := strings.ToLower(unitName); unitOf(lower) != 0 {
			return 0, fmt.Errorf("unknown unit %s (did you mean %q?)", quote(unitName), lower)
		}
		return 0, fmt.Errorf("unknown unit %s", quote(unitName))
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return 0, errTooLong
	}
	high, low := bits.Mul64(n, uint64(unit))
	fraction, err := parseFraction(number, decimals, unitName, unit)
	if err != nil {
		return 0, err
	}
	if high > 0 || low > math.MaxInt64-uint64(fraction) {
		return 0, errTooLong
	}
	return time.Duration(low) + fraction, nil
}

// parseFraction returns 0.DECIMALS units.
func parseFraction(number, decimals, unitName string, unit time.Duration) (time.Duration, error) {
	decimals = strings.TrimRight(decimals, "0")
	if decimals == "" {
		return 0, nil
	}
	precision, grain := time.Nanosecond, "nanoseconds"
	if unit >= time.Hour {
		precision, grain = time.Second, "whole seconds"
	}
	inexact := fmt.Errorf("%s does not come to %s", quote(number+unitName), grain)
	// No unit has enough factors of 2 and 5 to make more decimals exact.
	if len(decimals) > 18 {
		return 0, inexact
	}
	n, scale := uint64(0), uint64(1)
	for _, digit := range decimals {
		n, scale = n*10+uint64(digit-'0'), scale*10
	}
	high, low := bits.Mul64(n, uint64(unit))
	quotient, remainder := bits.Div64(high, low, scale)
	if remainder != 0 || time.Duration(quotient)%precision != 0 {
		return 0, inexact
	}
	return time.Duration(quotient), nil
}

// Duration reads a duration of a tree: a number of seconds, which may have
// decimals, or a string as [ParseDuration] takes it.
func Duration(tree any) (time.Duration, error) {
	switch t := tree.(type) {
	case string:
		return ParseDuration(t)
	case int64:
		return seconds(t, 0)
	case float64:
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return 0, fmt.Errorf("%v is not a duration", t)
		}
		whole, fraction := math.Modf(t)
		n, ok := exactInt(whole)
		if !ok {
			n = math.MaxInt64
			if t < 0 {
				n = math.MinInt64
			}
		}
		nanos := time.Duration(math.Round(fraction * 1e9))
		if n == 0 && nanos == 0 && t != 0 {
			return 0, fmt.Errorf("%v seconds are less than a nanosecond", t)
		}
		return seconds(n, nanos)
	}
	return 0, expected(`a duration (seconds, or text such as "20m")`, tree)
}

func seconds(n int64, nanos time.Duration) (time.Duration, error) {
	switch {
	case n < 0 || nanos < 0:
		return 0, errors.New("a duration cannot be negative")
	case n > int64(math.MaxInt64/time.Second), time.Duration(n)*time.Second > math.MaxInt64-nanos:
		return 0, fmt.Errorf("%d seconds is not a duration: %w", n, errTooLong)
	}
	return time.Duration(n)*time.Second + nanos, nil
}

// FormatDuration prints a duration from days down to nanoseconds, as in
// "2days 1h 30m", "15s", "250ms" and "0s". [ParseDuration] reads it back, but
// for a negative one, which has a sign.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	rest, sign := uint64(d), ""
	if d < 0 {
		rest, sign = -rest, "-"
	}
	var spans []string
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{
		{"day", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
		{"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", time.Nanosecond},
	} {
		n := rest / uint64(unit.length)
		rest %= uint64(unit.length)
		switch {
		case n == 0:
		case n > 1 && unit.length == day:
			spans = append(spans, strconv.FormatUint(n, 10)+"days")
		default:
			spans = append(spans, strconv.FormatUint(n, 10)+unit.name)
		}
	}
	return sign + strings.Join(spans, " ")
}
