package kumo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule says when attempts may be made to deliver a message: from FirstAttempt on, up to Expires, and
// on Days between Start and End. The zero value is at any time.
type Schedule struct {
	// FirstAttempt and Expires are unbounded where they are the zero time.
	FirstAttempt, Expires time.Time
	// Days are the days of the week; none: every hour of every day, and the fields below mean nothing.
	Days []time.Weekday
	// Zone is where Days, Start and End are read on the clock.
	Zone *time.Location
	// Start and End are the times of day since midnight, Start before End.
	Start, End time.Duration
}

// Next is the first time that the schedule allows, not before t. It does not look at Expires.
func (s *Schedule) Next(t time.Time) time.Time {
	if t.Before(s.FirstAttempt) {
		t = s.FirstAttempt
	}
	if len(s.Days) == 0 {
		return t
	}
	y, m, d := t.In(s.Zone).Date()
	for day := range 8 { // the eighth is today's, a week later
		// Each day is counted from the first, never from one before: its midnight may be an hour that the clock leaves
		// out, and that hour may lie in the day before.
		at := func(clock time.Duration) time.Time {
			return time.Date(y, m, d+day, 0, 0, int(clock/time.Second), 0, s.Zone)
		}
		start, end := at(s.Start), at(s.End)
		if weekday := time.Date(y, m, d+day, 0, 0, 0, 0, time.UTC).Weekday(); slices.Contains(s.Days, weekday) && t.Before(end) {
			if t.Before(start) {
				return start
			}
			return t
		}
	}
	return t
}

var scheduleFields = []string{"first_attempt", "expires", "dow", "tz", "start", "end"}

// parseSchedule reads a schedule from the table that set_scheduling gets, as a tree. An error names the field.
func parseSchedule(tree any) (*Schedule, error) {
	fields, ok := tree.(map[string]any)
	if !ok {
		return nil, errors.New("want a table with first_attempt, expires, or all of dow, tz, start and end")
	}
	s, hours := &Schedule{}, 0
	for name, v := range fields {
		if v == nil && slices.Contains(scheduleFields, name) {
			continue // as upstream: programs that write JSON write what they do not set as null
		}
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%.100s: want a string", name)
		}
		var err error
		switch name {
		case "first_attempt":
			s.FirstAttempt, err = time.Parse(time.RFC3339, text)
		case "expires":
			s.Expires, err = time.Parse(time.RFC3339, text)
		case "dow":
			s.Days, err = parseDays(text)
			hours++
		case "tz":
			s.Zone, err = parseZone(text)
			hours++
		case "start":
			s.Start, err = parseClock(text)
			hours++
		case "end":
			s.End, err = parseClock(text)
			hours++
		default:
			return nil, fmt.Errorf("unknown field %.100q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	switch {
	case hours != 0 && hours != 4:
		return nil, errors.New("dow, tz, start and end go together")
	case hours == 4 && s.Start >= s.End:
		return nil, errors.New("end: want a time of day after start")
	}
	return s, nil
}

func parseDays(text string) ([]time.Weekday, error) {
	var days []time.Weekday
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		found := false
		for day := time.Sunday; day <= time.Saturday && !found; day++ {
			if found = strings.EqualFold(name, day.String()) || strings.EqualFold(name, day.String()[:3]); found && !slices.Contains(days, day) {
				days = append(days, day)
			}
		}
		if !found {
			return nil, fmt.Errorf("invalid day '%.100s'", name)
		}
	}
	return days, nil
}

// parseZone takes names of the time zone database alone: what "Local" is differs from host to host.
func parseZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" || len(name) > 100 {
		return nil, fmt.Errorf("unknown time zone %.100q", name)
	}
	return time.LoadLocation(name)
}

func parseClock(text string) (time.Duration, error) {
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.Sub(t.Truncate(24 * time.Hour)).Truncate(time.Second), nil
		}
	}
	return 0, fmt.Errorf("want a time of day as 09:00:00, got %.100q", text)
}

// tree is the schedule in the form that parseSchedule reads.
func (s *Schedule) tree() map[string]any {
	fields := map[string]any{}
	if !s.FirstAttempt.IsZero() {
		fields["first_attempt"] = s.FirstAttempt.Format(time.RFC3339Nano)
	}
	if !s.Expires.IsZero() {
		fields["expires"] = s.Expires.Format(time.RFC3339Nano)
	}
	if len(s.Days) > 0 {
		days := make([]string, len(s.Days))
		for i, day := range s.Days {
			days[i] = day.String()[:3]
		}
		fields["dow"], fields["tz"] = strings.Join(days, ","), s.Zone.String()
		fields["start"], fields["end"] = clock(s.Start), clock(s.End)
	}
	return fields
}

func clock(d time.Duration) string { return time.Time{}.Add(d).Format(time.TimeOnly) }
