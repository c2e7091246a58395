package segmentwriter

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/segmentwriter/delta"
	"github.com/kilndb/kiln/segmentwriter/head"
	"github.com/kilndb/kiln/tenant"
)

// longFlight is how long a segment waits for the flight before it where there is no linger.
const longFlight = 500 * time.Millisecond

// shard gathers one segment at a time and starts the flights of those that are cut. It has no goroutine of its own: an
// append, a timer or the end of a flight moves it on.
type shard struct {
	id     uint32
	writer *Writer

	mu      sync.Mutex // guards what follows, and the open segment with its parts
	open    *segment   // nil while nothing is gathered
	flights int
	hurried bool // nothing lingers any more
	closed  bool
	cadence cadence
}

// segment is what a shard gathers for one object.
type segment struct {
	parts    []*part
	ofTenant map[tenant.ID]*part
	size     int
	opened   time.Time
	// wake is when timer looks again whether the segment is due; the timer is nil before it first has to.
	wake  time.Time
	timer *time.Timer
	// done is closed when every part has its answer.
	done chan struct{}
}

// unanswered returns how many profiles wait for the answer that the segment as a whole will get.
func (seg *segment) unanswered() int {
	n := 0
	for _, p := range seg.parts {
		if p.err == nil {
			n += p.profiles
		}
	}
	return n
}

// part is what one tenant has in a segment.
type part struct {
	tenant   tenant.ID
	head     *head.Head // nil once its group is written, or failed
	profiles int        // that wait for the answer
	changes  []*delta.Change
	bytes    int // of the head, as counted in Writer.bytes
	size     int // of the head, as counted in segment.size
	done     <-chan struct{}
	err      *connect.Error // the answer; valid when done is closed
}

// wait returns the answer once there is one.
func (p *part) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.answer()
	case <-ctx.Done():
	}
	select { // an answer that came in time is better than none
	case <-p.done:
		return p.answer()
	default:
		return contextError(ctx.Err())
	}
}

// settle tells what is remembered of cumulative profiles which of them are stored.
func (p *part) settle() {
	for _, c := range p.changes {
		c.Settle(p.err == nil)
	}
	p.changes = nil
}

// answer returns an error of its own for each push: Connect may add to what it is given.
func (p *part) answer() error {
	if p.err == nil {
		return nil
	}
	return connect.NewError(p.err.Code(), p.err.Unwrap())
}

// append interns a profile into the open segment and returns the part that now holds it.
func (s *shard) append(t tenant.ID, series labels.Labels, id profile.ID, p *profile.Profile, change *delta.Change) (*part, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, s.writer.refuseStopping()
	case s.open != nil && s.full() && s.flights >= s.writer.cfg.Flights:
		return nil, s.writer.refuse(connect.CodeResourceExhausted, reasonFlights, "shard %d has %d segments in flight and the next one is full", s.id, s.flights)
	}
	part := s.part(t)
	err := s.intern(part, series, id, p)
	s.account(part)
	if err != nil {
		s.launch()
		return nil, err
	}
	part.profiles++
	if change != nil {
		part.changes = append(part.changes, change)
	}
	s.cadence.arrived(time.Now())
	s.launch()
	return part, nil
}

// part returns the part of a tenant in the open segment, both made if need be.
func (s *shard) part(t tenant.ID) *part {
	w := s.writer
	if s.open == nil {
		s.open = &segment{ofTenant: map[tenant.ID]*part{}, opened: time.Now(), done: make(chan struct{})}
	}
	p := s.open.ofTenant[t]
	if p == nil {
		p = &part{tenant: t, head: w.borrowHead(), done: s.open.done}
		s.open.ofTenant[t] = p
		s.open.parts = append(s.open.parts, p)
	}
	return p
}

// intern appends a profile to the head of a part. A panic fails the part with everything that is in it: nobody knows
// in what state its head is. Pushes of the tenant that follow start a new one.
func (s *shard) intern(part *part, series labels.Labels, id profile.ID, p *profile.Profile) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.writer.log.Error("panic while a profile was appended", "tenant", part.tenant, "shard", s.id, "panic", r, "stack", string(debug.Stack()))
			s.writer.metrics.failed(reasonAppend, part.profiles+1)
			part.head, part.err = nil, connect.NewError(connect.CodeInternal, errors.New("the profile could not be appended"))
			err = part.answer()
			delete(s.open.ofTenant, part.tenant)
		}
	}()
	err = part.head.Append(p, series, id)
	if err == nil {
		return nil
	}
	// Too much beside what the segment holds already is a matter of time; too much alone is the profile's fault.
	if head.New().Append(p, series, id) == nil {
		return s.writer.refuse(connect.CodeResourceExhausted, reasonAppend, "with the other profiles of this moment: %w", err)
	}
	s.writer.metrics.failed(reasonAppend, 1)
	return connect.NewError(connect.CodeInvalidArgument, err)
}

// account brings the sums of memory up to date with a part.
func (s *shard) account(p *part) {
	held, size := 0, 0
	if p.head != nil {
		held, size = p.head.Bytes(), p.head.Size()
	}
	s.writer.bytes.Add(int64(held - p.bytes))
	s.open.size += size - p.size
	p.bytes, p.size = held, size
}

// hurry cuts what is there, and from now on whatever comes.
func (s *shard) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried = true
	s.launch()
}

// close takes no more profiles and cuts what is there.
func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried, s.closed = true, true
	s.launch()
}

// launch starts the flight of the open segment if it is due, or sees to it that somebody looks again in time. s.mu is held.
func (s *shard) launch() {
	if s.open == nil || s.flights >= s.writer.cfg.Flights {
		return // the next push or the end of a flight comes here again
	}
	now := time.Now()
	if wait := s.wait(now); wait > 0 {
		s.wake(s.open, now.Add(wait))
		return
	}
	seg := s.open
	s.open = nil
	if seg.timer != nil {
		seg.timer.Stop()
	}
	s.writer.metrics.gatherTime.Observe(now.Sub(seg.opened).Seconds())
	s.cadence.budget.spend(now)
	s.flights++
	s.writer.flights.Add(1)
	go s.fly(seg)
}

// wait returns how much longer the open segment is to gather.
func (s *shard) wait(now time.Time) time.Duration {
	if s.hurried || s.full() || s.open.size >= s.writer.cfg.EnoughBytes {
		return 0
	}
	wait := s.cadence.wait(now, s.open.opened)
	if s.flights == 0 {
		return wait
	}
	// What comes while a segment is in flight shares the next, unless the flight is a long one.
	return max(wait, s.open.opened.Add(max(s.cadence.linger, longFlight)).Sub(now))
}

// wake has the shard look at seg again at that time, or before.
func (s *shard) wake(seg *segment, at time.Time) {
	switch {
	case seg.timer == nil:
		seg.timer = time.AfterFunc(time.Until(at), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			seg.wake = time.Time{}
			if s.open == seg {
				s.launch()
			}
		})
	case seg.wake.IsZero() || at.Before(seg.wake):
		seg.timer.Reset(time.Until(at))
	default:
		return
	}
	seg.wake = at
}

func (s *shard) full() bool { return s.open.size >= s.writer.cfg.MaxSegmentBytes }

// fly flushes a segment, answers its pushes and lets the next one start.
func (s *shard) fly(seg *segment) {
	defer s.writer.flights.Done()
	s.writer.flush(s.id, seg)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights--
	s.cadence.answered(time.Now())
	s.launch()
}
