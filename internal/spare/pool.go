// Package spare keeps values that are dear to make for their next use. There is one type, Pool.
//
// A sync.Pool forgets at every other collection what was not used in between, and does not hand to one processor what another has
// put back. Under little load that is nearly everything: tables, codecs and buffers are made anew for each use, grow step by step,
// and touch memory that the operating system has to map first. That can cost more than the work they are for.
package spare

import "sync"

// Pool keeps values: of as many bytes as Keep says for good, and more until the garbage collector comes. What was put last is taken
// first, because that is what the caches of the processor still hold. It is safe for concurrent use and must not be copied.
type Pool[T any] struct {
	// New makes a value when there is no spare one.
	New func() T
	// Keep is how many bytes the values that stay for good may hold together.
	Keep int

	mu   sync.Mutex // guards what follows
	kept []value[T]
	held int // bytes of kept

	more sync.Pool // of T
}

type value[T any] struct {
	v     T
	bytes int
}

// Get returns a spare value, or a new one.
func (p *Pool[T]) Get() T {
	if v, ok := p.take(); ok {
		return v
	}
	if v, ok := p.more.Get().(T); ok {
		return v
	}
	return p.New()
}

// Put keeps v, which holds about that many bytes, for a later Get. The caller must not use it any more.
func (p *Pool[T]) Put(v T, bytes int) {
	if !p.keep(v, bytes) {
		p.more.Put(v)
	}
}

func (p *Pool[T]) take() (v T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.kept) - 1
	if n < 0 {
		return v, false
	}
	last := p.kept[n]
	p.kept[n] = value[T]{}
	p.kept = p.kept[:n]
	p.held -= last.bytes
	return last.v, true
}

func (p *Pool[T]) keep(v T, bytes int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held+bytes > p.Keep {
		return false
	}
	p.kept = append(p.kept, value[T]{v, bytes})
	p.held += bytes
	return true
}
