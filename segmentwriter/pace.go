package segmentwriter

import (
	"slices"
	"sync"
	"time"
)

const (
	// paceOf is how many of the last puts say what is slow: a minute or so of a busy shard.
	paceOf = 128
	// knownAfter is how many there must be: one in twenty is slow by the measure below.
	knownAfter = 20
	// retryCredit is what an outage may cost: beyond it there are no more retries than puts that succeed.
	retryCredit = 20
	// hedgeCredit bounds how many hedges may be saved up.
	hedgeCredit = 10
)

// pace knows how long the last puts took. It is safe for concurrent use.
type pace struct {
	mu   sync.Mutex // guards what follows
	last [paceOf]time.Duration
	n    int // all that were ever added
}

func (p *pace) add(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[p.n%paceOf] = took
	p.n++
}

// slow returns when a put takes much longer than others: twice as long as 95 % of them did, and at least that long. 0 means that
// nobody knows, or that least is 0.
func (p *pace) slow(least time.Duration) time.Duration {
	if least == 0 {
		return 0
	}
	p.mu.Lock()
	known, n := p.last, min(p.n, paceOf)
	p.mu.Unlock()
	if n < knownAfter {
		return 0
	}
	slices.Sort(known[:n])
	return max(least, 2*known[n*95/100])
}

// credit is earned in parts and taken whole. It is safe for concurrent use.
type credit struct {
	most float64

	mu   sync.Mutex // guards left
	left float64
}

func (c *credit) earn(part float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = min(c.most, c.left+part)
}

func (c *credit) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 1 {
		return false
	}
	c.left--
	return true
}
