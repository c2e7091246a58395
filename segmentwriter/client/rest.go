package client

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// firstRest is how long a writer that failed is left alone; each failure after that doubles it, up to longestRest.
	firstRest   = 100 * time.Millisecond
	longestRest = 5 * time.Second
	// forgetAfter is when a writer that failed and was not asked since is forgotten: it is probably gone.
	forgetAfter = 10 * time.Minute
)

// rests knows which writers failed and are left alone for a while. The zero value knows of none. It is safe for concurrent use.
type rests struct {
	mu sync.Mutex
	of map[string]*rest // guarded by mu; by address
}

type rest struct {
	failures int
	since    time.Time
	length   time.Duration
	until    time.Time
	// probed: a push is finding out how the writer is; the others leave it alone meanwhile.
	probed bool
}

// order returns candidates in the order in which to try them: those that rest come last. Where a rest is over, it is one push
// that has the writer in its place again.
func (r *rests) order(candidates []string, now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.of) == 0 {
		return candidates
	}
	awake, asleep := make([]string, 0, len(candidates)), []string(nil)
	for _, address := range candidates {
		switch rest := r.of[address]; {
		case rest == nil:
			awake = append(awake, address)
		case now.Before(rest.until), len(awake) > 0: // it would not be tried first
			asleep = append(asleep, address)
		default:
			rest.until, rest.probed = now.Add(rest.length), true
			awake = append(awake, address)
		}
	}
	return append(awake, asleep...)
}

// failed lets a writer rest, and tells whether it did not before. Pushes that fail while it rests were sent before that, or had
// nobody else: they say nothing new.
func (r *rests) failed(address string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, rest := range r.of {
		if now.Sub(rest.until) > forgetAfter {
			delete(r.of, other)
		}
	}
	known := r.of[address]
	if known != nil && now.Before(known.until) && !known.probed {
		return false
	}
	if known == nil {
		known = &rest{}
		if r.of == nil {
			r.of = map[string]*rest{}
		}
		r.of[address] = known
	}
	longest := min(firstRest<<min(known.failures, 16), longestRest)
	known.failures++
	known.length = longest/2 + rand.N(longest/2+1)
	known.since, known.until, known.probed = now, now.Add(known.length), false
	return known.failures == 1
}

// succeeded ends the rest of a writer that took a profile, which was sent to it then: before it failed says nothing.
func (r *rests) succeeded(address string, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rest := r.of[address]; rest != nil && !sent.Before(rest.since) {
		delete(r.of, address)
	}
}
