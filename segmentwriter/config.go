package segmentwriter

import (
	"errors"
	"fmt"
	"time"

	"github.com/kilndb/kiln/segmentwriter/delta"
	"github.com/kilndb/kiln/tenant"
)

// Config is what a Writer can be told.
type Config struct {
	// Node names this process in the objects that it writes.
	Node string
	// Linger is how long a segment gathers after its first profile while others keep coming. 0 means that it gathers
	// only while another is in flight.
	Linger time.Duration
	// EnoughBytes is the memory of a segment at which gathering more would save nothing: it is cut whatever the linger.
	EnoughBytes int
	// PutsPerSecond is how many segments may be put on average: small ones wait longer, up to four lingers, to hold it. 0
	// means without limit.
	PutsPerSecond float64
	// MaxSegmentBytes is the memory of a segment that takes no more: pushes are refused while it cannot fly.
	MaxSegmentBytes int
	// MaxBytes bounds the memory of all segments, gathering and in flight.
	MaxBytes int64
	// Flights is how many segments of one shard may be in flight.
	Flights int
	// FlushTimeout bounds a flight, and AttemptTimeout each of its calls to the bucket and the index.
	FlushTimeout   time.Duration
	AttemptTimeout time.Duration
	// PutAttempts is how often a put is tried, while others succeed.
	PutAttempts int
	// HedgeAfter is the least time after which a put that takes much longer than others is made a second time beside the
	// first; 0 means never. HedgeShare is how many of all puts may be, on average.
	HedgeAfter time.Duration
	HedgeShare float64
	// Backoff is the pause before the second attempt of a call; later ones are longer, all are drawn at random.
	Backoff time.Duration
	// StopTimeout bounds how long pushes wait for their answers once the writer is drained.
	StopTimeout time.Duration
	// MaxShards bounds the shard ids that are accepted.
	MaxShards uint32
	// Deltas says how much is remembered of cumulative profiles.
	Deltas delta.Config
	// Limits returns what profiles of a tenant must keep to; the same as the distributor's.
	Limits func(tenant.ID) tenant.Limits
}

// DefaultConfig returns the configuration for a remote bucket.
func DefaultConfig() Config {
	return Config{
		Linger:          500 * time.Millisecond,
		EnoughBytes:     4 << 20,
		PutsPerSecond:   4,
		MaxSegmentBytes: 32 << 20,
		MaxBytes:        512 << 20,
		Flights:         4,
		FlushTimeout:    15 * time.Second,
		AttemptTimeout:  5 * time.Second,
		PutAttempts:     5,
		HedgeAfter:      200 * time.Millisecond,
		HedgeShare:      0.05,
		Backoff:         50 * time.Millisecond,
		StopTimeout:     20 * time.Second,
		MaxShards:       1 << 16,
		Deltas:          delta.DefaultConfig(),
		Limits:          func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() },
	}
}

// Validate names every field that has no sensible value.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("segment writer: "+format, args...))
		}
	}
	check(c.Linger >= 0, "linger %s is negative", c.Linger)
	check(c.EnoughBytes > 0, "enough bytes %d are not positive", c.EnoughBytes)
	check(c.PutsPerSecond >= 0, "%g puts a second is negative", c.PutsPerSecond)
	check(c.MaxSegmentBytes > 0 && c.MaxSegmentBytes <= 1<<30, "segment size %d is not between 1 byte and 1 GiB", c.MaxSegmentBytes)
	check(c.MaxBytes >= int64(c.MaxSegmentBytes), "memory of %d bytes is less than one segment of %d", c.MaxBytes, c.MaxSegmentBytes)
	check(c.Flights > 0, "flights %d is not positive", c.Flights)
	check(c.PutAttempts > 0, "put attempts %d is not positive", c.PutAttempts)
	check(c.HedgeAfter >= 0, "hedge after %s is negative", c.HedgeAfter)
	check(c.HedgeShare >= 0 && c.HedgeShare <= 1, "share of hedges %g is not between 0 and 1", c.HedgeShare)
	check(c.Backoff > 0 && c.Backoff <= maxBackoff, "backoff %s is not between 0 and %s", c.Backoff, maxBackoff)
	check(c.AttemptTimeout > 0, "attempt timeout %s is not positive", c.AttemptTimeout)
	check(c.FlushTimeout >= c.AttemptTimeout, "flush timeout %s is shorter than that of an attempt, %s", c.FlushTimeout, c.AttemptTimeout)
	// What is in flight when the writer stops ends by its own deadline.
	check(c.StopTimeout >= c.FlushTimeout, "stop timeout %s is shorter than that of a flush, %s", c.StopTimeout, c.FlushTimeout)
	check(c.MaxShards > 0, "number of shards is 0")
	check(c.Limits != nil, "limits are missing")
	return errors.Join(append(errs, c.Deltas.Validate())...)
}
