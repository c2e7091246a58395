package distributor

import (
	"math"
	"sync"
	"time"
)

// bucket bounds a rate. It fills at rate up to burst; requests are let in while there is anything in it, and take
// what they turn out to need, if need be more than there is. So the rate holds in the long run whatever the sizes, and
// no request is too large to pass. The zero value is full.
type bucket struct {
	mu sync.Mutex // guards the rest
	// spent is what is missing to a full bucket, as of at; more than burst: owed.
	spent float64
	at    time.Time
	// rate and burst are those of the last call: limits change while we run.
	rate, burst float64
}

// admit tells whether a request may come in now, and else when.
func (b *bucket) admit(now time.Time, rate, burst float64) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate, b.burst = rate, burst
	b.fill(now)
	if b.spent < burst {
		return 0, true
	}
	// A moment longer, so that there is something in it then.
	seconds := (b.spent-burst)/rate + 0.001
	return time.Duration(min(seconds*float64(time.Second), math.MaxInt64/2)), false
}

// take takes n bytes, which may be more than there are; a negative n gives back.
func (b *bucket) take(now time.Time, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	b.spent = max(0, b.spent+float64(n))
}

// owes tells whether more was taken than there was.
func (b *bucket) owes(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	return b.rate > 0 && b.spent > b.burst
}

// fill adds what has come since the last call. The caller holds mu.
func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.spent = max(0, b.spent-b.rate*passed.Seconds())
		b.at = now
	}
}
