package decode

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const h = time.Hour
	for _, test := range []struct {
		text string
		want time.Duration
	}{
		{"0", 0}, {" 0 ", 0}, {"0s", 0}, {"0.0h", 0},
		{"15s", 15 * time.Second}, {"2h37min", 2*h + 37*time.Minute}, {"2h 37m", 2*h + 37*time.Minute},
		{"5 mins", 5 * time.Minute}, {"  1\td\n", 24 * h}, {"1s1s", 2 * time.Second}, {"1s 1h", h + time.Second},
		{"1.5h", 90 * time.Minute}, {"4.2s", 4200 * time.Millisecond}, {"1.0001m", 60006 * time.Millisecond},
		{"0.5d", 12 * h}, {"0.001us", 1}, {"0.000000001s", 1}, {"1.50000000000000000000000s", 1500 * time.Millisecond},
		{"7 days", 168 * h}, {"20m", 20 * time.Minute}, {"1month", 2630016 * time.Second}, {"1.5y", 47336400 * time.Second},
		{"007s", 7 * time.Second}, {"1h30m15s250ms10us5ns", h + 30*time.Minute + 15*time.Second + 250010005},
		{"9223372036854775807ns", math.MaxInt64}, {"9223372036.854775807s", math.MaxInt64},
	} {
		if got, err := ParseDuration(test.text); err != nil || got != test.want {
			t.Errorf("%q: got %v, %v, want %v", test.text, got, err, test.want)
		}
	}
	for unit, names := range map[time.Duration]string{
		1:                      "ns nsec nanos",
		time.Microsecond:       "us usec µs μs",
		time.Millisecond:       "ms msec millis",
		time.Second:            "s sec secs second seconds",
		time.Minute:            "m min mins minute minutes",
		h:                      "h hr hrs hour hours",
		24 * h:                 "d day days",
		168 * h:                "w wk wks week weeks",
		2630016 * time.Second:  "M month months",
		31557600 * time.Second: "y yr yrs year years",
	} {
		for name := range strings.FieldsSeq(names) {
			if got, err := ParseDuration("3" + name); err != nil || got != 3*unit {
				t.Errorf("3%s: got %v, %v, want %v", name, got, err, 3*unit)
			}
		}
	}
}

func TestParseDurationErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", `it is empty`},
		{" ", `it is empty`},
		{"20", `the number needs a unit, as in "20s"`},
		{"00", `the number needs a unit, as in "00s"`},
		{"1 0s", `the number needs a unit, as in "1s"`},
		{"1h 30", `the number needs a unit, as in "30s"`},
		{"-5m", `it cannot have a sign`},
		{"+5m", `it cannot have a sign`},
		{"5m -3s", `it cannot have a sign`},
		{"1,5h", `it cannot have a comma; decimals follow a point`},
		{"1h, 5m", `it cannot have a comma; decimals follow a point`},
		{"h", `expected a number before "h"`},
		{"5m x", `expected a number before "x"`},
		{"5*m", `unexpected '*'`},
		{"5m\xff", `it is not valid UTF-8`},
		{".5h", `bad number ".5"`},
		{"5.h", `bad number "5."`},
		{"1.2.3h", `bad number "1.2.3"`},
		{"5 parsecs", `unknown unit "parsecs"`},
		{"5 Min", `unknown unit "Min" (did you mean "min"?)`},
		{"5 H", `unknown unit "H" (did you mean "h"?)`},
		{"1.00001h", `"1.00001h" does not come to whole seconds`},
		{"0.0001d", `"0.0001d" does not come to whole seconds`},
		{"0.5ns", `"0.5ns" does not come to nanoseconds`},
		{"0.0000000001s", `"0.0000000001s" does not come to nanoseconds`},
		{"0.0000000000000000000000001y", `"0.0000000000000000000000001y" does not come to whole seconds`},
		{"293y", `it is longer than 292 years`},
		{"200y 200y", `it is longer than 292 years`},
		{"9223372036.854775808s", `it is longer than 292 years`},
		{"99999999999999999999ns", `it is longer than 292 years`},
		{"18446744073709551615y", `it is longer than 292 years`},
	} {
		_, err := ParseDuration(test.text)
		if want := quote(test.text) + " is not a duration: " + test.want; text(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, test := range []struct {
		tree any
		want time.Duration
		err  string
	}{
		{int64(90), 90 * time.Second, ""},
		{1.5, 1500 * time.Millisecond, ""},
		{0.1, 100 * time.Millisecond, ""},
		{604800.000000001, 604800*time.Second + 1, ""},
		{0.9999999999, time.Second, ""},
		{0.0, 0, ""},
		{"1m", time.Minute, ""},
		{9223372036.0, 9223372036 * time.Second, ""},
		{int64(-1), 0, "a duration cannot be negative"},
		{-0.5, 0, "a duration cannot be negative"},
		{-1e300, 0, "a duration cannot be negative"},
		{1e-12, 0, "1e-12 seconds are less than a nanosecond"},
		{math.NaN(), 0, "NaN is not a duration"},
		{math.Inf(-1), 0, "-Inf is not a duration"},
		{1e300, 0, "9223372036854775807 seconds is not a duration: it is longer than 292 years"},
		{9223372036.9, 0, "9223372036 seconds is not a duration: it is longer than 292 years"},
		{int64(math.MaxInt64), 0, "9223372036854775807 seconds is not a duration: it is longer than 292 years"},
		{nil, 0, `expected a duration (seconds, or text such as "20m"), got nothing`},
		{[]any{}, 0, `expected a duration (seconds, or text such as "20m"), got a list`},
		{Empty{}, 0, `expected a duration (seconds, or text such as "20m"), got an empty table`},
	} {
		if got, err := Duration(test.tree); got != test.want || text(err) != test.err {
			t.Errorf("%v: got %v, %q, want %v, %q", test.tree, got, text(err), test.want, test.err)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s":                        0,
		"15s":                       15 * time.Second,
		"1h 30m":                    90 * time.Minute,
		"1day":                      24 * time.Hour,
		"2days":                     48 * time.Hour,
		"7days":                     7 * 24 * time.Hour,
		"250ms":                     250 * time.Millisecond,
		"1day 2h 3m 4s 5ms 6us 7ns": 26*time.Hour + 3*time.Minute + 4*time.Second + 5006007,
		"106751days 23h 47m 16s 854ms 775us 807ns": math.MaxInt64,
		"-1s": -time.Second,
		"-106751days 23h 47m 16s 854ms 775us 808ns": math.MinInt64,
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		d := time.Duration(random.Int64() >> random.IntN(63))
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d prints as %q and is read as %d, %v", d, FormatDuration(d), got, err)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"0", "1h 30m", "1.5h", "2days4.25ms", "-5m", "1,5s", "5µs", "292y", "9223372036.854775807s", "1M2m"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			if d != 0 || !strings.Contains(err.Error(), " is not a duration: ") || len(err.Error()) > 1000 {
				t.Fatalf("%q: %v, %v", s, d, err)
			}
			return
		}
		if again, err := ParseDuration(FormatDuration(d)); d < 0 || err != nil || again != d {
			t.Fatalf("%q is %d, prints as %q and is read as %d, %v", s, d, FormatDuration(d), again, err)
		}
		if double, err := ParseDuration(s + " " + s); d <= math.MaxInt64/2 && s != "0" && strings.TrimSpace(s) != "0" && (err != nil || double != 2*d) {
			t.Fatalf("%q is %v, twice that is %v, %v", s, d, double, err)
		}
	})
}

func TestParseRate(t *testing.T) {
	for _, test := range []struct {
		text, print string
		want        Rate
	}{
		{"1/s", "1/s", Rate{Limit: 1, Per: time.Second}},
		{"100/min", "100/min", Rate{Limit: 100, Per: time.Minute}},
		{"100/60s", "100/min", Rate{Limit: 100, Per: time.Minute}},
		{"20/30minute", "20/30min", Rate{Limit: 20, Per: 30 * time.Minute}},
		{"1,000_000/hr", "1000000/h", Rate{Limit: 1e6, Per: time.Hour}},
		{"5/24hour", "5/d", Rate{Limit: 5, Per: 24 * time.Hour}},
		{"5/7day", "5/7d", Rate{Limit: 5, Per: 168 * time.Hour}},
		{"local:9/90sec,max_burst=1,000", "local:9/90s,max_burst=1000", Rate{9, 90 * time.Second, 1000, true}},
		{"9/m,max_burst=9", "9/min,max_burst=9", Rate{9, time.Minute, 9, false}},
		{"9223372036854775807/106751d", "9223372036854775807/106751d", Rate{Limit: math.MaxInt64, Per: 106751 * 24 * time.Hour}},
	} {
		if got, err := ParseRate(test.text); err != nil || got != test.want || got.String() != test.print {
			t.Errorf("%q: got %+v (%[2]v), %v, want %+v (%s)", test.text, got, err, test.want, test.print)
		}
	}
	const example = `expected LIMIT/PERIOD, such as "100/min"`
	for _, test := range []struct{ text, want string }{
		{"", example}, {"100", example}, {"local:100", example},
		{"100/", `the period has no unit (s, min, h or d)`},
		{"100/5", `the period has no unit (s, min, h or d)`},
		{"100/mins", `unknown period "mins" (s, min, h or d)`},
		{"100/ min", `unknown period " min" (s, min, h or d)`},
		{"100/1.5h", `unknown period ".5h" (s, min, h or d)`},
		{"100/-1h", `unknown period "-1h" (s, min, h or d)`},
		{"100/0s", `the period is zero`},
		{"100/106752d", `the period is longer than 292 years`},
		{"100/99999999999999999999s", `the period is longer than 292 years`},
		{"/s", `"" is not a number`},
		{"x/s", `"x" is not a number`},
		{"-1/s", `"-1" is not a number`},
		{"+1/s", `"+1" is not a number`},
		{"_/s", `"_" is not a number`},
		{",1/s", `",1" is not a number`},
		{"1.5/s", `"1.5" is not a number`},
		{"0/s", `zero is not accepted`},
		{"9223372036854775808/s", `"9223372036854775808" is too large`},
		{"1/s,max_burst=0", `max_burst: zero is not accepted`},
		{"1/s,max_burst=", `max_burst: "" is not a number`},
		{"1/s,", `only ",max_burst=NUMBER" may follow the period`},
		{"1/s,burst=1", `only ",max_burst=NUMBER" may follow the period`},
		{"1/s,local:", `only ",max_burst=NUMBER" may follow the period`},
		{"local:local:1/s", `"local:1" is not a number`},
	} {
		_, err := ParseRate(test.text)
		if want := quote(test.text) + " is not a rate: " + test.want; text(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	for _, bad := range []Rate{
		{}, {Limit: 1}, {Limit: 1, Per: -time.Second}, {Limit: 1, Per: 500 * time.Millisecond}, {Limit: 1, Per: 1500 * time.Millisecond},
		{Limit: -1, Per: time.Second}, {Limit: 1, Per: time.Second, MaxBurst: -1}, {Limit: 1, Per: time.Hour + 1},
	} {
		if got, err := ParseRate(bad.String()); err == nil {
			t.Errorf("%#v prints as %q and is read as %#v", bad, bad.String(), got)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, seed := range []string{"1/s", "local:1,000/30min,max_burst=5_0", "5/24hr", "100/ min", "1/s,max_burst=0", "7/99999999999d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRate(s)
		if err != nil {
			if r != (Rate{}) || !strings.Contains(err.Error(), " is not a rate: ") || len(err.Error()) > 1000 {
				t.Fatalf("%q: %v, %v", s, r, err)
			}
			return
		}
		if r.Limit < 1 || r.Per < time.Second || r.Per%time.Second != 0 || r.MaxBurst < 0 {
			t.Fatalf("%q is %#v", s, r)
		}
		if again, err := ParseRate(r.String()); err != nil || again != r {
			t.Fatalf("%q is %#v, prints as %q and is read as %#v, %v", s, r, r, again, err)
		}
	})
}

func TestParseLimit(t *testing.T) {
	for _, test := range []struct {
		tree  any
		want  Limit
		print string
		err   string
	}{
		{int64(32), Limit{32, false}, "32", ""},
		{32.0, Limit{32, false}, "32", ""},
		{"1_000,000", Limit{1000000, false}, "1000000", ""},
		{"local:10", Limit{10, true}, "local:10", ""},
		{int64(0), Limit{}, "", "0 is not a limit: it is less than 1"},
		{-3.0, Limit{}, "", "-3 is not a limit: it is less than 1"},
		{1.5, Limit{}, "", "1.5 is not a limit: it is not an integer"},
		{math.NaN(), Limit{}, "", "NaN is not a limit: it is not an integer"},
		{"0", Limit{}, "", `"0" is not a limit: zero is not accepted`},
		{"", Limit{}, "", `"" is not a limit: "" is not a number`},
		{"local:x", Limit{}, "", `"local:x" is not a limit: "x" is not a number`},
		{nil, Limit{}, "", "expected a limit (a number or a string), got nothing"},
		{true, Limit{}, "", "expected a limit (a number or a string), got a boolean"},
	} {
		got, err := ParseLimit(test.tree)
		if got != test.want || text(err) != test.err {
			t.Errorf("%v: got %+v, %v, want %+v, %q", test.tree, got, err, test.want, test.err)
		}
		if err == nil && got.String() != test.print {
			t.Errorf("%v: prints as %q, want %q", test.tree, got, test.print)
		}
		if again, err2 := ParseLimit(got.String()); err == nil && (err2 != nil || again != got) {
			t.Errorf("%v: is read again as %+v, %v", test.tree, again, err2)
		}
	}
}

func TestParseMode(t *testing.T) {
	const bad = " is not a file mode (0 to 07777 octal, 4095 decimal)"
	for _, test := range []struct {
		tree any
		want uint32
		err  string
	}{
		{int64(0o775), 0o775, ""},
		{509.0, 0o775, ""},
		{int64(775), 0o1407, ""},
		{int64(0), 0, ""},
		{int64(4095), 0o7777, ""},
		{"775", 0o775, ""},
		{"0775", 0o775, ""},
		{"0o2775", 0o2775, ""},
		{"0", 0, ""},
		{int64(999999), 0, "999999" + bad},
		{999999.0, 0, "999999" + bad},
		{int64(4096), 0, "4096" + bad},
		{int64(-1), 0, "-1" + bad},
		{1.5, 0, "1.5" + bad},
		{math.NaN(), 0, "NaN" + bad},
		{"", 0, `""` + bad},
		{"0o", 0, `"0o"` + bad},
		{"888", 0, `"888"` + bad},
		{"10000", 0, `"10000"` + bad},
		{"-775", 0, `"-775"` + bad},
		{"+775", 0, `"+775"` + bad},
		{"0x1ff", 0, `"0x1ff"` + bad},
		{"7_7_5", 0, `"7_7_5"` + bad},
		{"rwxr-xr-x", 0, `"rwxr-xr-x"` + bad},
		{true, 0, "expected a file mode (a number or a string of octal digits), got a boolean"},
		{nil, 0, "expected a file mode (a number or a string of octal digits), got nothing"},
	} {
		if got, err := ParseMode(test.tree); got != test.want || text(err) != test.err {
			t.Errorf("%v: got %o, %q, want %o, %q", test.tree, got, text(err), test.want, test.err)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"smtp_port", "ttl", "max_age", "egress_pool", "max_message_rate", "additional_connection_limits"}
	for key, want := range map[string]string{
		"smpt_port": "smtp_port", "smtpport": "smtp_port", "port": "", "TTL": "ttl", "tl": "ttl", "x": "", "": "",
		"maxAge": "max_age", "max_ages": "max_age", "egres_pol": "egress_pool", "max_mesage_rates": "max_message_rate",
		"additional_conection_limit": "additional_connection_limits", strings.Repeat("smtp_port", 100): "",
	} {
		if got := nearest(key, known); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}
