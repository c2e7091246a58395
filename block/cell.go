package block

import (
	"context"
	"sync"
)

// cell holds a value that is made when it is first asked for. Only success is kept: an error may have been the
// caller's context.
type cell[T any] struct {
	mu   sync.Mutex
	busy chan struct{} // closed when the maker at work is done; nil if there is none
	done bool
	v    T
}

// get returns the value, which fill makes unless it is there; fill must not panic. Whoever waits for another's
// fill stops with its own context, and makes the value itself if the other failed.
func (c *cell[T]) get(ctx context.Context, fill func() (T, error)) (T, error) {
	for {
		c.mu.Lock()
		if c.done {
			defer c.mu.Unlock()
			return c.v, nil
		}
		if c.busy == nil {
			busy := make(chan struct{})
			c.busy = busy
			c.mu.Unlock()
			v, err := fill()
			c.mu.Lock()
			if err == nil {
				c.v, c.done = v, true
			}
			c.busy = nil
			c.mu.Unlock()
			close(busy)
			return v, err
		}
		busy := c.busy
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			var zero T
			return zero, ctx.Err()
		}
	}
}

// clear forgets the value.
func (c *cell[T]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var zero T
	c.v, c.done = zero, false
}
