package memnet

import (
	"context"
	"sync"
)

// cut is the switch of an address: while it is off nothing passes.
type cut struct {
	mu     sync.Mutex
	off    bool               // guarded by mu
	healed chan struct{}      // guarded by mu; closed unless off
	pipes  map[*pipe]struct{} // guarded by mu; those that the switch is for
}

func newCut() *cut {
	healed := make(chan struct{})
	close(healed)
	return &cut{healed: healed, pipes: map[*pipe]struct{}{}}
}

func (c *cut) set(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off == off {
		return
	}
	c.off = off
	if off {
		c.healed = make(chan struct{})
	} else {
		close(c.healed)
	}
	for p := range c.pipes {
		p.setCut(off)
	}
}

// wait returns when the switch is on.
func (c *cut) wait(ctx context.Context) error {
	c.mu.Lock()
	healed := c.healed
	c.mu.Unlock()
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *cut) add(p *pipe) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pipes[p] = struct{}{}
	p.setCut(c.off)
}

// forget drops the pipes that are closed at both ends; the others can still be cut.
func (c *cut) forget(pipes ...*pipe) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pipes {
		if p.isClosed() {
			delete(c.pipes, p)
		}
	}
}
