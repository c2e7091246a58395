package ingest

import (
	"testing"
	"time"
)

func TestParseTimeReadsWhatClientsSend(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":                    now,
		"now":                 now,
		"1700000000":          time.Unix(1700000000, 0),
		"0":                   time.Unix(0, 0),
		"1700000000123":       time.UnixMilli(1700000000123),
		"1700000000123456":    time.UnixMicro(1700000000123456),
		"1700000000123456789": time.Unix(0, 1700000000123456789),
		"20260228":            time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC),
		"now-1h":              now.Add(-time.Hour),
		"-1h":                 now.Add(-time.Hour),
		"now-1h30min":         now.Add(-90 * time.Minute),
		"now-1h-30m":          now.Add(-90 * time.Minute),
		"now-2h+15s":          now.Add(-2*time.Hour + 15*time.Second),
		"now-2d":              now.AddDate(0, 0, -2),
		"now-1w":              now.AddDate(0, 0, -7),
		"now-2mon":            now.AddDate(0, -2, 0),
		"now-1y":              now.AddDate(-1, 0, 0),
		"20260228+1d":         time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),

		"2026-02-28T01:02:03Z":         time.Date(2026, 2, 28, 1, 2, 3, 0, time.UTC),
		"2026-02-28T01:02:03.25+02:00": time.Date(2026, 2, 27, 23, 2, 3, 250_000_000, time.UTC),
	} {
		got, err := ParseTime(in, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", in, got, err, want)
		}
	}
}

func TestParseTimeRefusesTheRest(t *testing.T) {
	for _, in := range []string{"yesterdayish", "now-", "now-h", "now-1", "now-1parsec", "now-9999999h", "20261332", "12345678901234", "1.5", "99999999999999999999", "now-1h!", "2026-02-28T01:02:03", "nowT", "2026-02-31T00:00:00Z"} {
		if got, err := ParseTime(in, time.Now()); err == nil {
			t.Errorf("%q is %v, want an error", in, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"now-1h30min", "20260228+1d", "1700000000123", "-1w-2mon", "2026-02-28T01:02:03.25+02:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = ParseTime(s, time.Unix(1700000000, 0)) // must not panic
	})
}
