package fsm

import (
	"context"
	"sync"
)

// waiting wakes those who wait for the log to be applied.
type waiting struct {
	mu      sync.Mutex
	changed chan struct{} // nil: nobody waits
}

// next returns what is closed when more has been applied than now.
func (w *waiting) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

// wake closes what next returned.
func (w *waiting) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// Wait returns nil once the entry of that index is applied and published.
func (f *FSM) Wait(ctx context.Context, index uint64) error {
	for {
		changed := f.waiting.next() // before the look, so that nothing is missed
		if f.Position().Index >= index {
			return nil
		}
		select {
		case <-changed:
		case <-f.halted:
			return *f.halt.Load()
		case <-f.closing:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish moves the position that everybody sees.
func (f *FSM) publish(p Position) {
	f.position.Store(&p)
	f.waiting.wake()
}
