package ingest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// offset is one step from a moment: a number and a unit, as in 90min. More than six digits are no sensible offset.
var offset = regexp.MustCompile(`^([+-])([0-9]{1,6})(seconds?|sec|s|months?|mon|M|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w|years?|y)`)

// ParseTime reads a time in the forms that the SDKs and the scripts of their users send: Unix seconds, milliseconds,
// microseconds or nanoseconds (told apart by their 13, 16 and 19 digits), 2006-01-02T15:04:05Z as RFC 3339 has it, yyyymmdd, or
// now, each of the last two followed by any number of offsets such as -1h30min or +2d. Empty means now.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if strings.Contains(s, "T") {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return time.Time{}, fmt.Errorf("time %.40q: want it as in 2006-01-02T15:04:05Z", s)
		}
		return t, nil
	}
	base, offsets := s, ""
	if i := strings.IndexAny(s, "+-"); i >= 0 {
		base, offsets = s[:i], s[i:]
	}
	t, err := parseBase(base, now)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %.40q: %w", s, err)
	}
	sign := "" // an offset without one goes in the direction of the one before: -1h30min
	for offsets != "" {
		if c := offsets[0]; c == '+' || c == '-' {
			sign, offsets = offsets[:1], offsets[1:]
		}
		m := offset.FindStringSubmatch(sign + offsets)
		if m == nil {
			return time.Time{}, fmt.Errorf("time %.40q: cannot read the offset %.20q", s, offsets)
		}
		n, _ := strconv.Atoi(m[1] + m[2]) // at most six digits
		t = shift(t, n, m[3])
		offsets = offsets[len(m[2])+len(m[3]):]
	}
	return t, nil
}

func parseBase(s string, now time.Time) (time.Time, error) {
	if s == "" || s == "now" {
		return now, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("want a Unix time, yyyymmdd or now, and offsets such as -1h")
	}
	switch len(s) {
	case 8:
		return time.ParseInLocation("20060102", s, time.UTC)
	case 13:
		return time.UnixMilli(n), nil
	case 16:
		return time.UnixMicro(n), nil
	case 19:
		return time.Unix(0, n), nil
	}
	if len(s) > 12 {
		return time.Time{}, fmt.Errorf("%d digits are neither seconds, milliseconds (13), microseconds (16) nor nanoseconds (19)", len(s))
	}
	return time.Unix(n, 0), nil
}

// shift moves t by n units, of which offset has checked the spelling.
func shift(t time.Time, n int, unit string) time.Time {
	switch {
	case unit == "M" || strings.HasPrefix(unit, "mon"):
		return t.AddDate(0, n, 0)
	case unit[0] == 's':
		return t.Add(time.Duration(n) * time.Second)
	case unit[0] == 'm':
		return t.Add(time.Duration(n) * time.Minute)
	case unit[0] == 'h':
		return t.Add(time.Duration(n) * time.Hour)
	case unit[0] == 'd':
		return t.AddDate(0, 0, n)
	case unit[0] == 'w':
		return t.AddDate(0, 0, 7*n)
	default:
		return t.AddDate(n, 0, 0)
	}
}
