package metastore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/objstore"
)

const (
	// sweepPage is how many listed objects are looked up in one transaction, and sweepPause what follows: a sweep is in
	// no hurry, a million objects take two minutes.
	sweepPage  = 1000
	sweepPause = 100 * time.Millisecond
	// sweepBatch is how many orphans one log entry buries.
	sweepBatch = 256
)

// SweepConfig says when objects that nobody names leave the bucket.
type SweepConfig struct {
	// Interval between two sweeps of the bucket.
	Interval time.Duration
	// Age is how old an orphan must be, by the store's clock.
	Age time.Duration
	// Apart is how long before that it must have been seen, by this leader, without a name.
	Apart time.Duration
	// DryRun counts orphans and leaves them alone.
	DryRun bool
}

// sweeper finds orphans. It is one leader's: the next sees every orphan for the first time.
type sweeper struct {
	m    *Metastore
	seen map[string]sighting // by key
}

// sighting is an object that nobody named when it was first seen.
type sighting struct {
	first    time.Time // by this process
	modified time.Time // by the store
}

// orphanCounts are the orphans of one sweep.
type orphanCounts struct{ young, claimed, unreadable, buried int }

// sweepLoop sweeps while this member leads.
func (m *Metastore) sweepLoop(ctx context.Context, s *shipping) {
	w := &sweeper{m: m, seen: map[string]sighting{}}
	for pause(ctx, m.cfg.Sweep.Interval) {
		now, ok := m.storeTime(ctx, s)
		if !ok {
			continue
		}
		if err := w.sweep(ctx, now); err != nil && ctx.Err() == nil {
			m.log.Warn("orphans could not be swept", "err", err)
		}
	}
}

// storeTime returns what the store's clock says, which alone may be compared with the times of objects: when it took the latest
// snapshot of this term, and what has passed since. If there is none yet, it asks for one.
func (m *Metastore) storeTime(ctx context.Context, s *shipping) (now time.Time, ok bool) {
	c := s.covered.Load()
	if c == nil {
		poke(s.wanted)
		return now, false
	}
	a, err := m.bucket.Attributes(ctx, c.key)
	if err != nil {
		m.log.Warn("the store's clock could not be read", "err", err)
		return now, false
	}
	return a.ModTime.Add(time.Since(c.stored)), true
}

// sweep looks at every object once and buries the orphans that are old enough.
func (w *sweeper) sweep(ctx context.Context, storeNow time.Time) error {
	if err := w.m.cfg.Failpoints.Hit("sweep/begin"); err != nil {
		return err
	}
	var counts orphanCounts
	var page, due []objstore.Attributes
	met := map[string]sighting{}
	look := func() error {
		unnamed, err := w.unnamed(page)
		page = page[:0]
		for _, a := range unnamed {
			s, again := w.seen[a.Key]
			if !again || !s.modified.Equal(a.ModTime) {
				s = sighting{time.Now(), a.ModTime}
			}
			met[a.Key] = s
			if time.Since(s.first) < w.m.cfg.Sweep.Apart || storeNow.Sub(a.ModTime) < w.m.cfg.Sweep.Age {
				counts.young++
			} else {
				due = append(due, a)
			}
		}
		if err == nil && !pause(ctx, sweepPause) {
			err = ctx.Err()
		}
		return err
	}
	for _, prefix := range []string{"segments/", "blocks/"} {
		if err := w.m.bucket.List(ctx, prefix, func(a objstore.Attributes) error {
			if page = append(page, a); len(page) == sweepPage {
				return look()
			}
			return nil
		}); err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
	}
	if err := look(); err != nil {
		return err
	}
	w.seen = met
	err := w.m.cfg.Failpoints.Hit("sweep/listed")
	if err == nil {
		err = errors.Join(w.bury(ctx, due, &counts), w.m.cfg.Failpoints.Hit("sweep/buried"))
	}
	w.m.metrics.orphan(counts)
	return err
}

// unnamed returns the objects that neither an entry nor a tombstone names. Objects that are not called as ours are, or
// that have the id of another object, are nobody's business here.
func (w *sweeper) unnamed(page []objstore.Attributes) (unnamed []objstore.Attributes, err error) {
	err = w.m.state.View(func(tx *fsm.Tx) error {
		for _, a := range page {
			text, ok := idOf(a.Key)
			if !ok {
				continue
			}
			id := ulid.MustParseStrict(text)
			live, err := w.m.machine.index.Get(tx, id)
			if err != nil {
				return err
			}
			if live == nil && !w.m.machine.jobs.Buried(tx, id) {
				unnamed = append(unnamed, a)
			}
		}
		return nil
	})
	return unnamed, err
}

// bury makes tombstones for orphans. The state machine has the last word: what was registered meanwhile stays, and what is
// buried can never be registered. The objects are deleted as replaced ones are.
func (w *sweeper) bury(ctx context.Context, due []objstore.Attributes, counts *orphanCounts) error {
	claimed, err := w.claimed()
	if err != nil {
		return err
	}
	var batch []*storagev1.OrphanObject
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		counts.buried += len(batch)
		orphans := batch
		batch = nil
		if w.m.cfg.Sweep.DryRun {
			return nil
		}
		n, err := propose[buriedOrphans](ctx, w.m, &storagev1.Command{
			Body: &storagev1.Command_BuryOrphans{BuryOrphans: &storagev1.BuryOrphans{Orphans: orphans}},
		})
		if err == nil {
			w.m.metrics.buried.Add(float64(n))
			w.m.log.Info("orphans are to be deleted", "objects", int(n), "first", orphans[0].GetKey())
		}
		return err
	}
	for _, a := range due {
		switch m, err := readEntry(ctx, w.m.bucket, a); {
		case errors.Is(err, objstore.ErrNotFound): // somebody else deleted it
		case errors.Is(err, errUnsound): // it may be all that is left of something: a person decides
			counts.unreadable++
		case err != nil:
			return err
		case anyOf(claimed, m.GetSources()): // the output of a job that is still to be done, maybe by its writer
			counts.claimed++
		default:
			batch = append(batch, &storagev1.OrphanObject{Id: m.GetId(), Key: a.Key})
		}
		if len(batch) == sweepBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// claimed returns the sources of all jobs.
func (w *sweeper) claimed() (map[string]bool, error) {
	claimed := map[string]bool{}
	err := w.m.state.View(func(tx *fsm.Tx) error {
		return w.m.machine.jobs.Jobs(tx, func(j *storagev1.Job) error {
			for _, s := range j.GetJob().GetSources() {
				claimed[s] = true
			}
			return nil
		})
	})
	return claimed, err
}

func anyOf(set map[string]bool, ids []string) bool {
	for _, id := range ids {
		if set[id] {
			return true
		}
	}
	return false
}
