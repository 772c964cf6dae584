package kumo

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mtadelivery/delivery/internal/decode"
)

func TestTime(t *testing.T) {
	o := stubs()
	o.ParseDuration = decode.ParseDuration
	checkExpressions(t, o, `
local time = require 'kumo.time'
local t = time.with_ymd_hms(2000, 01, 02, 03, 04, 05)
local function delta(x) return time.parse_duration(x) end`, []expression{
		{`tostring(t)`, "2000-01-02 03:04:05 UTC", ""},
		{`t.year .. t.month .. t.day .. t.hour .. t.minute .. t.second`, "200012345", ""},
		{`t.unix_timestamp`, "946782245", ""},
		{`t.unix_timestamp_millis`, "946782245000", ""},
		{`t.rfc2822`, "Sun, 2 Jan 2000 03:04:05 +0000", ""},
		{`t.rfc3339`, "2000-01-02T03:04:05+00:00", ""},
		{`t.nonsense`, "", `a Time has no field "nonsense"`},
		{`time.from_unix_timestamp(1) == time.parse_rfc3339 '1970-01-01T01:00:01+01:00'`, "true", ""},
		{`time.from_unix_timestamp(1) == time.from_unix_timestamp(2)`, "false", ""},
		{`time.from_unix_timestamp(1.5)`, "1970-01-01 00:00:01.500 UTC", ""},
		{`time.from_unix_timestamp(-0.25)`, "1969-12-31 23:59:59.750 UTC", ""},
		{`time.from_unix_timestamp(1e11).year`, "5138", ""},
		{`time.from_unix_timestamp(1e300)`, "", "from_unix_timestamp: the time would be outside the years 0 to 9999"},
		{`time.from_unix_timestamp(0/0)`, "", "from_unix_timestamp"},
		{`time.from_unix_timestamp 'x'`, "", "number expected"},
		{`time.with_ymd_hms(2000, 2, 30, 0, 0, 0)`, "", "there is no 2000-02-30 00:00:00"},
		{`time.with_ymd_hms(2000, 1, 1, 24, 0, 0)`, "", "there is no"},
		{`time.with_ymd_hms(2000, 1.5, 1, 0, 0, 0)`, "", "bad argument #2"},
		{`time.with_ymd_hms(2000, 1, 1)`, "", "bad argument #4"},
		{`time.parse_rfc3339 '2024-02-29 10:00:00.123456z'`, "2024-02-29 10:00:00.123456 UTC", ""},
		{`time.parse_rfc3339 'yesterday'`, "", `parse_rfc3339: "yesterday" is no such time`},
		{`time.parse_rfc2822 'Tue, 1 Jul 2003 10:52:37 +0200'`, "2003-07-01 08:52:37 UTC", ""},
		{`time.parse_rfc2822 '1 Jul 03 10:52 EST (a comment)'`, "2003-07-01 15:52:00 UTC", ""},
		{`time.parse_rfc2822 'Tue, 1 Jul 2003 10:52:37 XYZ'`, "2003-07-01 10:52:37 UTC", ""},
		{`time.parse_rfc2822 ''`, "", "is no such time"},
		{`t + delta '1h 30m'`, "2000-01-02 04:34:05 UTC", ""},
		{`t - delta(5)`, "2000-01-02 03:04:00 UTC", ""},
		{`t - time.with_ymd_hms(2000, 1, 1, 0, 0, 0)`, "1day 3h 4m 5s", ""},
		{`(time.with_ymd_hms(1999, 1, 1, 0, 0, 0) - t).seconds < 0`, "true", ""},
		{`time.with_ymd_hms(9999, 1, 1, 0, 0, 0) - time.with_ymd_hms(1, 1, 1, 0, 0, 0)`, "", "longer than 292 years"},
		{`time.with_ymd_hms(9999, 12, 31, 23, 59, 59) + delta(1)`, "", "outside the years 0 to 9999"},
		{`t + t`, "", "TimeDelta expected, got userdata"},
		{`t - 1`, "", "Time or TimeDelta expected, got number"},
		{`t < t`, "", "attempt to compare"},
		{`delta '5 minutes'.human`, "5m", ""},
		{`delta(1.5).seconds`, "1.5", ""},
		{`delta(-2).milliseconds`, "-2000", ""},
		{`delta(2).microseconds .. ' ' .. delta(2).nanoseconds`, "2000000 2000000000", ""},
		{`delta(20) == delta '20s'`, "true", ""},
		{`(delta '10 seconds' - delta(20)).seconds`, "-10", ""},
		{`(delta '10 seconds' + delta(20)).human`, "30s", ""},
		{`delta(9e9 - 1) + delta(9e9 - 1)`, "", "longer than 292 years"},
		{`t - (delta(-8e9) + delta(-1223372036) + delta(-0.854775808))`, "", "longer than 292 years"},
		{`delta(1e10)`, "", "parse_duration: 1"},
		{`delta 'soon'`, "", "parse_duration: "},
		{`delta {}`, "", "want a number of seconds"},
		{`delta(1).nonsense`, "", "a TimeDelta has no field"},
		{`kumo.json_encode {t}`, "", "a userdata cannot stand here"},
	})
}

func TestTimeFormat(t *testing.T) {
	o := stubs()
	prelude := "local t = kumo.time.from_unix_timestamp(946782245.0625)"
	for format, want := range map[string]string{
		"%H:%M:%S": "03:04:05", "%Y-%m-%d": "2000-01-02", "%F %T": "2000-01-02 03:04:05", "%C|%y|%q": "20|00|1",
		"%b|%h|%B|%a|%A": "Jan|Jan|January|Sun|Sunday", "%e|%-d|%_d|%0e": " 2|2| 2|02", "%w|%u|%U|%W": "0|7|01|00",
		"%G|%g|%V|%j": "1999|99|52|002", "%D|%x|%v": "01/02/00|01/02/00| 2-Jan-2000", "%I %l %k %p %P": "03  3  3 AM am",
		"%f|%.f|%.3f|%.6f|%.9f": "062500000|.062500|.062|.062500|.062500000", "%3f%6f%9f": "062062500062500000",
		"%R %X %r": "03:04 03:04:05 03:04:05 AM", "%Z%z%:z%::z%:::z%#z": "UTC+0000+00:00+00:00:00+00+00",
		"%c": "Sun Jan  2 03:04:05 2000", "%+": "2000-01-02T03:04:05.062500+00:00", "%s": "946782245",
		"%t%n%%": "\t\n%", "100%": "100%", "%!%-": "%!%-", "%-Z": "%-Z", "%": "%", "": "", "ü%Yü": "ü2000ü",
	} {
		got, err := eval(t, o, prelude+fmt.Sprintf(" function run() return t:format '%s' end",
			strings.NewReplacer("\t", `\t`, "\n", `\n`).Replace(format)))
		if err != nil || got != want {
			t.Errorf("%q: %q, want %q (%v)", format, got, want, err)
		}
	}
	checkExpressions(t, o, prelude, []expression{
		{`t:format(('%c'):rep(40000))`, "", "format: it is longer than"},
		{`t.format('x')`, "", "Time expected, got string"},
	})
}

func TestTimePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := eval(t, stubs(), `
function run()
  local start, timer = kumo.time.now(), kumo.time.start_timer 'label'
  kumo.time.sleep(90)
  return start.elapsed, kumo.time.now() - start, timer:done(), timer:done()
end`)
		if want := "1m 30s\n1m 30s\n90\nnil"; err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// FuzzStrftime: no format panics, and a text without a per cent sign stays as it is.
func FuzzStrftime(f *testing.F) {
	f.Add("%Y-%m", int64(0))
	f.Add("%:::", int64(-62135596800))
	f.Fuzz(func(t *testing.T, format string, seconds int64) {
		at := time.Unix(seconds%253402300800, 0).UTC()
		got := strftime(at, format)
		if !strings.Contains(format, "%") && got != format {
			t.Errorf("%q: %q", format, got)
		}
		if len(got) > 20*len(format) {
			t.Errorf("%q: %d bytes", format, len(got))
		}
	})
}

// FuzzParseRFC2822: what it reads, it reads again from what rfc2822 writes.
func FuzzParseRFC2822(f *testing.F) {
	f.Add("Tue, 1 Jul 2003 10:52:37 +0200")
	f.Add("1 Jul 03 10:52 EST (a comment)")
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseRFC2822(text)
		if err != nil {
			return
		}
		again, err := parseRFC2822(at.UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
		if at.UTC().Year() >= 1000 && (err != nil || !again.Equal(at)) {
			t.Errorf("%q: %v, %v, %v", text, at, again, err)
		}
	})
}
