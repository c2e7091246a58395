package distributor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kilndb/kiln/tenant"
)

const (
	// maxWait is how long a request waits for a decoder before it is refused: a queue that is longer makes everybody late and
	// serves nobody more.
	maxWait = 50 * time.Millisecond
	// retryOverload is what a sender is told to wait then.
	retryOverload = time.Second
)

// queue is where profiles wait for one of a few decoders. A tenant may have all of them but one, so that the others find one
// however much it sends. The queue keeps itself short: who would wait for too long, as those before show, is refused at once, if
// possible before its body is read. Waiting in vain helps nobody.
type queue struct {
	slots chan struct{} // one for each profile that is being decoded

	mu    sync.Mutex // guards lanes and what is in them
	lanes map[tenant.ID]*lane
}

// lane is what one tenant has in the queue. It is there for as long as somebody is in it.
type lane struct {
	slots   chan struct{} // those that the tenant may have
	users   int           // that wait or decode
	waiting int           // of users
	// waited is how long the last to get a decoder, or to give up, had waited, and at when that was.
	waited time.Duration
	at     time.Time
	// gap is the mean time between two that leave while others wait, which is how long one more makes the next wait; left is when
	// the last has left, if others waited.
	gap  time.Duration
	left time.Time
}

// longestGap bounds what one gap may count for: a machine that stood still for a moment is not slow.
const longestGap = maxWait / 8

// late tells whether one more would wait for too long.
func (l *lane) late() bool { return time.Duration(l.waiting+1)*l.gap > maxWait }

// leaves notes that a decoder was given back.
func (l *lane) leaves(now time.Time) {
	if !l.left.IsZero() {
		l.gap += (min(now.Sub(l.left), longestGap) - l.gap) / 8
	}
	if l.left = now; l.waiting == 0 {
		l.left = time.Time{}
	}
}

func newQueue(slots int) *queue {
	return &queue{slots: make(chan struct{}, slots), lanes: map[tenant.ID]*lane{}}
}

// enter waits for a decoder. The first profile of a request gives up after maxWait, or at once if that is what would happen; those
// behind it go on with what has begun.
func (q *queue) enter(ctx context.Context, id tenant.ID, first bool) error {
	l := q.join(id, first)
	if l == nil {
		return errOverload()
	}
	begun := time.Now()
	var late <-chan time.Time
	if first {
		timer := time.NewTimer(maxWait)
		defer timer.Stop()
		late = timer.C
	}
	err := take(ctx, l.slots, late)
	if err == nil {
		if err = take(ctx, q.slots, late); err != nil {
			<-l.slots
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l.waiting--
	l.at = time.Now()
	l.waited = l.at.Sub(begun)
	if err != nil {
		q.part(id, l)
	}
	return err
}

// leave gives the decoder back.
func (q *queue) leave(id tenant.ID) {
	<-q.slots
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[id]
	l.leaves(time.Now())
	<-l.slots
	q.part(id, l)
}

// full tells whether a request that came now would wait for too long, as far as one can tell.
func (q *queue) full(id tenant.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[id]
	return l != nil && (l.late() || l.waited >= maxWait/2 && time.Since(l.at) < maxWait)
}

// join returns the lane of a tenant with one user more, which waits; nil if that is the first profile of a request and would wait for
// too long.
func (q *queue) join(id tenant.ID, first bool) *lane {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[id]
	if l == nil {
		l = &lane{slots: make(chan struct{}, max(1, cap(q.slots)-1))}
		q.lanes[id] = l
	}
	if first && l.late() {
		return nil
	}
	l.users++
	l.waiting++
	return l
}

// part takes a user out of a lane; mu is held.
func (q *queue) part(id tenant.ID, l *lane) {
	if l.users--; l.users == 0 {
		delete(q.lanes, id)
	}
}

func take(ctx context.Context, slots chan<- struct{}, late <-chan time.Time) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-late:
		return errOverload()
	case <-ctx.Done():
		return fmt.Errorf("wait for a decoder: %w", ctx.Err())
	}
}

func errOverload() error {
	return refuseUntil(retryOverload, reasonOverload, "the server is overloaded; try again")
}
