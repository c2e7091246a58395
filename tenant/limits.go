package tenant

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what one tenant may ask for. A field says whether 0 means "no limit"; the others must be
// positive. Sizes are in bytes.
type Limits struct {
	// MaxBody bounds the body of one request as it comes over the wire, compressed.
	MaxBody int
	// MaxProfileBytes bounds one profile after decompression.
	MaxProfileBytes int
	// MaxRequestBytes bounds all profiles of one request after decompression.
	MaxRequestBytes int
	// MaxRatio bounds decompressed to compressed bytes of a profile of more than 1 MiB.
	MaxRatio int
	// MaxSeriesPerRequest and MaxProfilesPerSeries bound one push.
	MaxSeriesPerRequest  int
	MaxProfilesPerSeries int
	// MaxLabels, MaxLabelName and MaxLabelValue bound the labels of a series.
	MaxLabels     int
	MaxLabelName  int
	MaxLabelValue int
	// MaxSamples, MaxSampleLabels (per sample) and MaxSampleTypes bound one profile, which is refused if it
	// has more.
	MaxSamples      int
	MaxSampleLabels int
	MaxSampleTypes  int
	// MaxStackDepth and MaxSymbolLength bound stacks and names, which are cut: stacks at the leaf, names
	// at the front.
	MaxStackDepth   int
	MaxSymbolLength int
	// Rate is how many bytes of profiles a second are taken after decompression, in the long run, and Burst how
	// many at once after a pause. A Rate of 0 means no limit. A request that is let in is let in whole, also where
	// it is larger than Burst: what it took beyond is owed, and the next one waits until it is paid.
	Rate  int
	Burst int
	// MaxActiveSeries bounds the distinct label sets of the last minutes; 0 means no limit.
	MaxActiveSeries int
	// MaxQueryLength bounds the time range of a query; 0 means no limit.
	MaxQueryLength time.Duration
	// MaxNodes bounds the nodes of a flame graph that a query may ask for; DefaultNodes are given when it
	// does not say.
	MaxNodes     int
	DefaultNodes int
	// MaxFuture bounds how far a profile's time may lie ahead of ours.
	MaxFuture time.Duration
	// MaxAge bounds how old a profile may be; 0 means no limit.
	MaxAge time.Duration
	// Retention is how long profiles are kept, by their own time; 0 is for ever. Older ones are not taken either.
	Retention time.Duration
}

// DefaultLimits returns the limits of a tenant that nobody configured. What agents send in practice stays
// far below them; where there is no reason of our own the number is what its clients know from elsewhere.
func DefaultLimits() Limits {
	return Limits{
		MaxBody:              32 << 20,
		MaxProfileBytes:      4 << 20,
		MaxRequestBytes:      64 << 20,
		MaxRatio:             200,
		MaxSeriesPerRequest:  1000,
		MaxProfilesPerSeries: 100,
		MaxLabels:            30,
		MaxLabelName:         1024,
		MaxLabelValue:        2048,
		MaxSamples:           16_000,
		MaxSampleLabels:      100,
		MaxSampleTypes:       32,
		MaxStackDepth:        1000,
		MaxSymbolLength:      65_535,
		Rate:                 4 << 20,
		Burst:                4 << 20,
		MaxActiveSeries:      20_000,
		MaxQueryLength:       31 * 24 * time.Hour,
		MaxNodes:             1 << 20,
		DefaultNodes:         8192,
		MaxFuture:            10 * time.Minute,
		MaxAge:               0,
	}
}

// Validate names limits that contradict each other, by the names of their keys in a file.
func (l Limits) Validate() error {
	var errs []error
	atMost := func(name string, value int, bound string, limit int) {
		if value > limit {
			errs = append(errs, fmt.Errorf("%s (%d) is more than %s (%d)", name, value, bound, limit))
		}
	}
	atMost("max_profile_bytes", l.MaxProfileBytes, "max_request_bytes", l.MaxRequestBytes)
	atMost("default_nodes", l.DefaultNodes, "max_nodes", l.MaxNodes)
	return errors.Join(errs...)
}
