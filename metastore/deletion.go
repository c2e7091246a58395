package metastore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

const (
	deletionBatch   = 256
	deletionWorkers = 8
	deletionRetry   = 30 * time.Second
)

// deletionLoop deletes replaced objects from the bucket when their grace is over and a snapshot in the bucket knows that they
// were replaced, and lets the state forget them then.
func (m *Metastore) deletionLoop(ctx context.Context, s *shipping) {
	retry := map[string]time.Time{} // objects that could not be deleted, and when to try again
	for ctx.Err() == nil {
		next, err := m.deleteDue(ctx, s, retry)
		if err != nil && ctx.Err() == nil {
			m.log.Warn("replaced objects could not be deleted", "err", err)
			next = time.Now().Add(deletionRetry)
		}
		wake := time.NewTimer(time.Until(next))
		select {
		case <-wake.C:
		case <-s.stored:
		case <-ctx.Done():
		}
		wake.Stop()
	}
}

// deleteDue deletes one batch of what is due and says when to look again.
func (m *Metastore) deleteDue(ctx context.Context, s *shipping, retry map[string]time.Time) (next time.Time, err error) {
	now := time.Now()
	due, next, err := m.due(now, s, retry)
	if err != nil || len(due) == 0 {
		return next, err
	}
	var mu sync.Mutex
	var deleted []string
	var workers sync.WaitGroup
	queue := make(chan *storagev1.Tombstone)
	for range min(deletionWorkers, len(due)) {
		workers.Go(func() {
			for t := range queue {
				err := m.cfg.Failpoints.Hit("delete/before")
				if err == nil {
					err = errors.Join(m.bucket.Delete(ctx, t.GetKey()), m.cfg.Failpoints.Hit("delete/after"))
				}
				mu.Lock()
				if err != nil {
					retry[t.GetId()] = now.Add(deletionRetry)
					m.log.Warn("replaced object could not be deleted", "key", t.GetKey(), "err", err)
				} else {
					delete(retry, t.GetId())
					deleted = append(deleted, t.GetId())
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range due {
		queue <- t
	}
	close(queue)
	workers.Wait()
	m.metrics.deletions.WithLabelValues("ok").Add(float64(len(deleted)))
	m.metrics.deletions.WithLabelValues("error").Add(float64(len(due) - len(deleted)))
	if len(deleted) == 0 {
		return now, nil
	}
	if err := m.cfg.Failpoints.Hit("delete/forget"); err != nil {
		return now, err
	}
	_, err = propose[any](ctx, m, &storagev1.Command{
		Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: deleted}},
	})
	return now, err // there may be more
}

// due returns tombstones whose grace is over, but for those to be tried again later, and when to look for the next.
func (m *Metastore) due(now time.Time, s *shipping, retry map[string]time.Time) (due []*storagev1.Tombstone, next time.Time, err error) {
	err = m.state.View(func(tx *fsm.Tx) error {
		over := now.Add(-m.cfg.Grace).UnixNano()
		covered := min(over, s.before())
		all, replaced, err := m.machine.jobs.Tombstones(tx, covered, deletionBatch+len(retry))
		if err != nil {
			return err
		}
		next = now.Add(m.cfg.Grace) // nothing that is replaced from now on is due earlier
		switch {
		case replaced != 0 && covered < replaced && replaced <= over:
			poke(s.wanted) // and be woken when there is a snapshot
		case replaced != 0:
			next = time.Unix(0, replaced).Add(m.cfg.Grace)
		}
		for _, t := range all {
			if again, failed := retry[t.GetId()]; failed && again.After(now) {
				next = sooner(next, again)
				continue
			}
			id, err := ulid.ParseStrict(t.GetId())
			if err != nil {
				return err
			}
			live, err := m.machine.index.Get(tx, id)
			if err != nil {
				return err
			}
			if live != nil {
				m.log.Error("tombstone of an object that is in use is ignored", "id", t.GetId(), "key", t.GetKey())
				retry[t.GetId()] = now.Add(m.cfg.Grace)
				continue
			}
			due = append(due, t)
		}
		return nil
	})
	return due, next, err
}
