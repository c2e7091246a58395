package overrides

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/kilndb/kiln/tenant"
)

// key is a limit as files and answers name it.
type key struct {
	name string
	// set takes the text of a value.
	set func(text string) error
	// value is what an answer shows: a number, or a duration as text.
	value func() any
}

// maxSize is as far as the offsets inside of one profile reach.
const maxSize = 1 << 30

// keys returns a key for every field of l. What may be 0 then has no limit.
func keys(l *tenant.Limits) []key {
	return []key{
		size("max_body", &l.MaxBody, 1, maxSize),
		size("max_profile_bytes", &l.MaxProfileBytes, 1, maxSize),
		size("max_request_bytes", &l.MaxRequestBytes, 1, math.MaxInt32),
		count("max_ratio", &l.MaxRatio, 1),
		count("max_series_per_request", &l.MaxSeriesPerRequest, 1),
		count("max_profiles_per_series", &l.MaxProfilesPerSeries, 1),
		count("max_labels", &l.MaxLabels, 1),
		size("max_label_name", &l.MaxLabelName, 1, maxSize),
		size("max_label_value", &l.MaxLabelValue, 1, maxSize),
		count("max_samples", &l.MaxSamples, 1),
		count("max_sample_labels", &l.MaxSampleLabels, 1),
		count("max_sample_types", &l.MaxSampleTypes, 1),
		count("max_stack_depth", &l.MaxStackDepth, 1),
		size("max_symbol_length", &l.MaxSymbolLength, 1, maxSize),
		size("rate", &l.Rate, 0, math.MaxInt32),
		size("burst", &l.Burst, 1, math.MaxInt32),
		count("max_active_series", &l.MaxActiveSeries, 0),
		duration("max_query_length", &l.MaxQueryLength, 0),
		count("max_nodes", &l.MaxNodes, 1),
		count("default_nodes", &l.DefaultNodes, 1),
		duration("max_future", &l.MaxFuture, 1),
		duration("max_age", &l.MaxAge, 0),
		duration("retention", &l.Retention, 0),
	}
}

func count(name string, field *int, least int) key {
	return integer(name, field, least, math.MaxInt32, func(text string) (int64, error) {
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a whole number", text)
		}
		return n, nil
	})
}

func size(name string, field *int, least, most int64) key {
	return integer(name, field, least, most, parseSize)
}

func integer[L int | int64](name string, field *int, least L, most int64, parse func(string) (int64, error)) key {
	return key{name: name, value: func() any { return *field }, set: func(text string) error {
		n, err := parse(text)
		switch {
		case err != nil:
			return err
		case n < int64(least) || n > most:
			return fmt.Errorf("%q is not between %d and %d", text, least, most)
		}
		*field = int(n)
		return nil
	}}
}

func duration(name string, field *time.Duration, least time.Duration) key {
	return key{name: name, value: func() any { return field.String() }, set: func(text string) error {
		d, err := ParseDuration(text)
		switch {
		case err != nil:
			return err
		case d < least:
			return fmt.Errorf("%q is less than %s", text, least)
		}
		*field = d
		return nil
	}}
}

// parseSize reads bytes: 4194304, 4MiB, 1.5GB.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRightFunc(text, func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' })
	unit, known := map[string]float64{
		"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
	}[text[len(digits):]]
	n, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(digits), "_", ""), 64)
	bytes := n * unit
	if !known || err != nil || bytes != math.Trunc(bytes) || math.Abs(bytes) > 1<<53 {
		return 0, fmt.Errorf("%q is not a size, such as 4194304 or 4MiB", text)
	}
	return int64(bytes), nil
}

// ParseDuration reads a time as files write it: what time.ParseDuration does, and days.
func ParseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err == nil && n >= 0 && n <= 100*365 { // far from overflowing
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	return 0, fmt.Errorf("%q is not a time, such as 10m, 36h or 30d", text)
}
