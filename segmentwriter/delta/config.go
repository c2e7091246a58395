package delta

import (
	"errors"
	"fmt"
	"time"
)

// Config is what a Tracker can be told.
type Config struct {
	// MaxTenantBytes bounds the memory of the series of one tenant, and MaxBytes that of all.
	MaxTenantBytes, MaxBytes int
	// MaxGap is the longest time between the first two profiles of a series, as long as its interval is not known.
	MaxGap time.Duration
	// GapRatio is how many times longer than the one before an interval may be. Above 2, one lost profile is made up for
	// by the next; from 3 on, two may have gone to another writer, which counted the second, and it would count twice.
	GapRatio float64
	// IdleTimeout is how long a series is remembered without a profile.
	IdleTimeout time.Duration
}

// DefaultConfig has room for about a thousand series with 2,000 stacks each.
func DefaultConfig() Config {
	return Config{
		MaxTenantBytes: 96 << 20,
		MaxBytes:       192 << 20,
		MaxGap:         5 * time.Minute,
		GapRatio:       2.5,
		IdleTimeout:    time.Hour,
	}
}

// Validate names every field that has no sensible value.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("deltas: "+format, args...))
		}
	}
	check(c.MaxTenantBytes > 0, "memory of a tenant %d is not positive", c.MaxTenantBytes)
	check(c.MaxBytes >= c.MaxTenantBytes, "memory of %d bytes is less than that of one tenant, %d", c.MaxBytes, c.MaxTenantBytes)
	check(c.MaxGap > 0, "longest gap %s is not positive", c.MaxGap)
	check(c.GapRatio > 1, "gap ratio %g is not above 1", c.GapRatio)
	check(c.IdleTimeout > 0, "idle timeout %s is not positive", c.IdleTimeout)
	return errors.Join(errs...)
}
