package compaction

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Level says when the objects of one level are merged into the next.
type Level struct {
	// Level of the sources.
	Level uint32
	// A batch is due when it has MinSources, or when its oldest has waited for MaxAge.
	MinSources int
	MaxAge     time.Duration
	// A job has at most this many sources, and not more bytes than this unless it has one source only.
	MaxSources int
	MaxBytes   uint64
}

// queueBatches is how many jobs of one queue are planned at a time. A backlog is then read in pieces, and no queue has
// to wait for another's.
const queueBatches = 4

// Planner decides which waiting entries become jobs. It reads the state and changes nothing.
type Planner struct {
	Levels []Level
	// NewID makes the id of a job that is created at now. Later ids must be greater.
	NewID func(now time.Time) ulid.ULID
}

// Plan returns at most limit jobs that are due at now, lower levels first and oldest first, and when the next one will
// be without further data; zero if no more than that waits. Call it again when it returned as many as it may.
func (p *Planner) Plan(tx *bbolt.Tx, now time.Time, limit int) (jobs []*storagev1.NewJob, next time.Time, err error) {
	for _, level := range p.Levels {
		b := batches{level: level, now: now.UnixNano(), due: math.MaxInt64}
		if err := eachWaiter(tx, level.Level, b.add); err != nil {
			return nil, next, err
		}
		b.cut(false)
		slices.SortStableFunc(b.ready, func(x, y batch) int { return cmp.Compare(x.oldest, y.oldest) })
		for _, ready := range b.ready {
			if len(jobs) < limit {
				jobs = append(jobs, p.job(now, ready))
			}
		}
		if due := time.Unix(0, b.due); b.due != math.MaxInt64 && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return jobs, next, nil
}

func (p *Planner) job(now time.Time, b batch) *storagev1.NewJob {
	j := &storagev1.NewJob{Id: p.NewID(now).String(), Tenant: b.tenant, Shard: b.shard, Level: b.level}
	for _, id := range b.ids {
		j.Sources = append(j.Sources, id.String())
	}
	return j
}

// batch is waiters of one queue that are, or may become, one job.
type batch struct {
	queue
	ids    []ulid.ULID
	bytes  uint64
	oldest int64 // Unix nanoseconds of registration
}

// batches cuts the waiters of a level, which come queue by queue, into batches.
type batches struct {
	level Level
	now   int64
	open  batch
	ready []batch
	taken int   // of ready, those of the open batch's queue
	due   int64 // when the first batch that is not ready will be; MaxInt64 if there is none
}

// add takes the next waiter and says whether to go on with its queue.
func (b *batches) add(w waiter) bool {
	if b.open.queue != w.queue {
		b.cut(false)
		b.taken = 0
	} else if full := len(b.open.ids) >= b.level.MaxSources || b.open.bytes+w.size > b.level.MaxBytes; full {
		b.cut(true)
	}
	if b.taken == queueBatches {
		return false
	}
	registered := w.registered
	if registered > b.now+int64(b.level.MaxAge) {
		registered = b.now - int64(b.level.MaxAge) // the clock was set back: what waits does not wait for it too
	}
	if len(b.open.ids) == 0 {
		b.open = batch{queue: w.queue, oldest: registered}
	}
	b.open.ids = append(b.open.ids, w.id)
	b.open.bytes += w.size
	b.open.oldest = min(b.open.oldest, registered)
	return true
}

// cut ends the open batch. One that is full is due whatever its age: no later waiter could join it.
func (b *batches) cut(full bool) {
	if len(b.open.ids) == 0 {
		return
	}
	due := b.open.oldest + int64(b.level.MaxAge)
	if full || len(b.open.ids) >= b.level.MinSources || due <= b.now {
		b.ready = append(b.ready, b.open)
		b.taken++
	} else {
		b.due = min(b.due, due)
	}
	b.open = batch{queue: b.open.queue}
}

// Runnable returns at most limit jobs that may be handed out at now, oldest first: those that wait, and those whose
// lease is over. lease returns when a running job's lease ends, renewals included. next is when the first of the other
// leases ends; zero if there is none.
func (s *State) Runnable(tx *bbolt.Tx, now time.Time, limit int, lease func(*storagev1.Job) time.Time) (jobs []*storagev1.Job, next time.Time, err error) {
	err = s.Jobs(tx, func(j *storagev1.Job) error {
		if Parked(j) {
			return nil
		}
		if j.GetState() == storagev1.JobState_JOB_STATE_RUNNING {
			if ends := lease(j); ends.After(now) {
				if next.IsZero() || ends.Before(next) {
					next = ends
				}
				return nil
			}
		}
		if len(jobs) < limit {
			jobs = append(jobs, j)
		}
		return nil
	})
	return jobs, next, err
}
