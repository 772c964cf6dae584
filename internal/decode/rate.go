package decode

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Rate is a number of events in a period.
type Rate struct {
	// Limit is the number of events, at least 1.
	Limit int64
	// Per is the period, in whole seconds.
	Per time.Duration
	// MaxBurst is how many events may happen at once; 0 means Limit.
	MaxBurst int64
	// Local says that the rate is not shared with other hosts.
	Local bool
}

// Limit is a number of things at the same time.
type Limit struct {
	// Count is at least 1.
	Count int64
	// Local says that the limit is not shared with other hosts.
	Local bool
}

const localPrefix = "local:"

// ParseRate reads [local:]LIMIT/[K]UNIT[,max_burst=B], such as "100/min" or
// "local:1,000/30min,max_burst=5". UNIT is s, sec, second, m, min, minute, h,
// hr, hour, d or day; LIMIT and B may have _ and , between their digits.
func ParseRate(s string) (Rate, error) {
	r, err := parseRate(s)
	if err != nil {
		return Rate{}, fmt.Errorf("%s is not a rate: %w", quote(s), err)
	}
	return r, nil
}

func parseRate(s string) (r Rate, err error) {
	s, r.Local = strings.CutPrefix(s, localPrefix)
	limit, rest, ok := strings.Cut(s, "/")
	if !ok {
		return r, errors.New(`expected LIMIT/PERIOD, such as "100/min"`)
	}
	if r.Limit, err = parseCount(limit); err != nil {
		return r, err
	}
	period, burst, ok := strings.Cut(rest, ",")
	if r.Per, err = parsePeriod(period); err != nil || !ok {
		return r, err
	}
	burst, ok = strings.CutPrefix(burst, "max_burst=")
	if !ok {
		return r, errors.New(`only ",max_burst=NUMBER" may follow the period`)
	}
	if r.MaxBurst, err = parseCount(burst); err != nil {
		return r, fmt.Errorf("max_burst: %w", err)
	}
	return r, nil
}

func parsePeriod(s string) (time.Duration, error) {
	factor, name := cut(s, func(r rune) bool { return '0' <= r && r <= '9' })
	var unit time.Duration
	switch name {
	case "s", "sec", "second":
		unit = time.Second
	case "m", "min", "minute":
		unit = time.Minute
	case "h", "hr", "hour":
		unit = time.Hour
	case "d", "day":
		unit = day
	case "":
		return 0, errors.New("the period has no unit (s, min, h or d)")
	default:
		return 0, fmt.Errorf("unknown period %s (s, min, h or d)", quote(name))
	}
	if factor == "" {
		return unit, nil
	}
	k, err := strconv.ParseInt(factor, 10, 64)
	switch {
	case err != nil || k > int64(math.MaxInt64/unit):
		return 0, errors.New("the period is longer than 292 years")
	case k == 0:
		return 0, errors.New("the period is zero")
	}
	return time.Duration(k) * unit, nil
}

// parseCount reads digits with _ and , between them.
func parseCount(s string) (int64, error) {
	separator := func(r rune) bool { return r == '_' || r == ',' }
	if s != strings.TrimFunc(s, separator) {
		return 0, fmt.Errorf("%s is not a number", quote(s))
	}
	n, err := strconv.ParseUint(strings.NewReplacer("_", "", ",", "").Replace(s), 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is too large", quote(s))
	case err != nil:
		return 0, fmt.Errorf("%s is not a number", quote(s))
	case n == 0:
		return 0, errors.New("zero is not accepted")
	}
	return int64(n), nil
}

// String prints the rate as [ParseRate] reads it; a rate that has no such text,
// as one per half a second, in a text that ParseRate refuses.
func (r Rate) String() string {
	text := strconv.FormatInt(r.Limit, 10) + "/" + formatPeriod(r.Per)
	if r.MaxBurst != 0 {
		text += ",max_burst=" + strconv.FormatInt(r.MaxBurst, 10)
	}
	if r.Local {
		text = localPrefix + text
	}
	return text
}

func formatPeriod(d time.Duration) string {
	unit, name := time.Second, "s"
	switch {
	case d <= 0 || d%time.Second != 0:
		return d.String()
	case d%day == 0:
		unit, name = day, "d"
	case d%time.Hour == 0:
		unit, name = time.Hour, "h"
	case d%time.Minute == 0:
		unit, name = time.Minute, "min"
	}
	if d == unit {
		return name
	}
	return strconv.FormatInt(int64(d/unit), 10) + name
}

// ParseLimit reads a number of at least 1, or a string: digits with _ and ,
// between them, and "local:" before them if the limit is not shared.
func ParseLimit(tree any) (Limit, error) {
	if text, ok := tree.(string); ok {
		digits, local := strings.CutPrefix(text, localPrefix)
		count, err := parseCount(digits)
		if err != nil {
			return Limit{}, fmt.Errorf("%s is not a limit: %w", quote(text), err)
		}
		return Limit{count, local}, nil
	}
	n, ok := integer(tree)
	switch {
	case ok && n >= 1:
		return Limit{Count: n}, nil
	case ok:
		return Limit{}, fmt.Errorf("%d is not a limit: it is less than 1", n)
	}
	if f, ok := tree.(float64); ok {
		return Limit{}, fmt.Errorf("%v is not a limit: it is not an integer", f)
	}
	return Limit{}, expected("a limit (a number or a string)", tree)
}

// String prints the limit as [ParseLimit] reads it.
func (l Limit) String() string {
	text := strconv.FormatInt(l.Count, 10)
	if l.Local {
		return localPrefix + text
	}
	return text
}
