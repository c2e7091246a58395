package segmentwriter

import (
	"sync"
	"time"
)

const (
	// few is how many pushes must have come within a linger for the next to be worth waiting for: a flush of four profiles
	// costs half of what four flushes do.
	few = 4
	// shortest is the least silence that says that nobody else is coming: shorter ones happen while the pushes of one moment are decoded.
	shortest = 5 * time.Millisecond
	// stretch bounds how many lingers a segment may gather for when the budget of puts is used up.
	stretch = 4
)

// cadence decides how long the segments of one shard gather. Nobody waits without need: a push that comes alone is flushed at once.
// Where more are coming they are waited for until all who push have pushed, which is when it falls silent: clients that wait
// for their answers before they push again are all in the segment then. It is not safe for concurrent use.
type cadence struct {
	linger time.Duration
	budget *budget
	// count are the arrivals since window, before those of the linger until then.
	window        time.Time
	count, before int
	// gap is the mean time that passes until a push comes, counted from what may have brought it about: the push or the answer before it.
	gap     time.Duration
	last    time.Time // push or answer
	arrival time.Time // the last push
}

// arrived notes a push.
func (c *cadence) arrived(now time.Time) {
	c.turn(now)
	c.count++
	if !c.last.IsZero() {
		c.gap += (min(now.Sub(c.last), c.linger) - c.gap) / 8
	}
	c.last, c.arrival = now, now
}

// answered notes that pushes got their answers.
func (c *cadence) answered(now time.Time) { c.last = now }

// turn begins a new window when the old one is over.
func (c *cadence) turn(now time.Time) {
	switch age := now.Sub(c.window); {
	case age >= 2*c.linger:
		c.window, c.count, c.before = now, 0, 0
	case age >= c.linger:
		c.window, c.count, c.before = now, 0, c.count
	}
}

// wait returns how much longer a segment that was opened then should gather. At 0 it is due; its cut is to be told to the budget.
func (c *cadence) wait(now, opened time.Time) time.Duration {
	if c.linger == 0 {
		return 0
	}
	left := c.linger - now.Sub(opened)
	if left <= 0 {
		// Late enough; a budget that is overdrawn may ask for more patience.
		return max(0, min(c.budget.until(0, now), left+(stretch-1)*c.linger))
	}
	silence := time.Duration(0)
	if c.turn(now); c.count+c.before > few {
		silence = max(3*c.gap, shortest) - now.Sub(c.arrival)
	}
	return min(left, max(0, silence, c.budget.until(1, now)))
}

// budget is how many puts a writer may make a second, on average. A nil budget is without limit. It is safe for concurrent use.
type budget struct {
	rate, burst float64

	mu   sync.Mutex // guards what follows
	left float64    // negative: overdrawn
	at   time.Time
}

// newBudget returns a budget that may save up the puts of two seconds; nil if perSecond is 0.
func newBudget(perSecond float64) *budget {
	if perSecond == 0 {
		return nil
	}
	burst := max(1, 2*perSecond)
	return &budget{rate: perSecond, burst: burst, left: burst}
}

// until returns how long it takes until so many puts are left.
func (b *budget) until(puts float64, now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.earn(now)
	return max(0, time.Duration((puts-b.left)/b.rate*float64(time.Second)))
}

// spend takes a put, which may overdraw the budget: large segments are put whatever it says.
func (b *budget) spend(now time.Time) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.earn(now)
	b.left = max(b.left-1, -b.burst)
}

func (b *budget) earn(now time.Time) {
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		if !b.at.IsZero() {
			b.left = min(b.burst, b.left+passed*b.rate)
		}
		b.at = now
	}
}
