package distributor

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// maxWait is how long a request waits for a decoder before it is refused: a queue that is longer makes everybody late and
	// serves nobody more.
	maxWait = 50 * time.Millisecond
	// retryOverload is what a sender is told to wait then.
	retryOverload = time.Second
)

// queue is where profiles wait for one of a few decoders. It keeps itself short: while what gets a decoder has waited for too
// long, requests are refused before their bodies are read.
type queue struct {
	slots chan struct{} // one for each profile that is being decoded
	// waited is how long the last to get a slot, or to give up, had waited, and at when that was, Unix nanoseconds.
	waited, at atomic.Int64
}

func newQueue(slots int) *queue { return &queue{slots: make(chan struct{}, slots)} }

// enter waits for a slot. The first profile of a request gives up after maxWait; those behind it go on with what has begun.
func (q *queue) enter(ctx context.Context, first bool) error {
	select {
	case q.slots <- struct{}{}:
		q.note(0)
		return nil
	default:
	}
	begun := time.Now()
	var late <-chan time.Time
	if first {
		timer := time.NewTimer(maxWait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case q.slots <- struct{}{}:
		q.note(time.Since(begun))
		return nil
	case <-late:
		q.note(time.Since(begun))
		return errOverload()
	case <-ctx.Done():
		return fmt.Errorf("wait for a decoder: %w", ctx.Err())
	}
}

func (q *queue) leave() { <-q.slots }

func (q *queue) note(waited time.Duration) {
	q.waited.Store(int64(waited))
	q.at.Store(time.Now().UnixNano())
}

// full tells whether a request that came now would wait for too long, as far as one can tell.
func (q *queue) full() bool {
	return q.waited.Load() >= int64(maxWait/2) && time.Now().UnixNano()-q.at.Load() < int64(maxWait)
}

func errOverload() error {
	return refuseUntil(retryOverload, reasonOverload, "the server is overloaded; try again")
}
