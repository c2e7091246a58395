package metastore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"
	"time"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/snapshots"
)

const (
	// shippingRetry is the pause after a snapshot that could not be stored.
	shippingRetry = 30 * time.Second
	// shippingLook is how often the growth of the log is looked at.
	shippingLook = time.Minute
)

// SnapshotConfig says when snapshots go to the bucket.
type SnapshotConfig struct {
	// A snapshot is due when Interval has passed since the last, or Entries log entries, unless nothing has changed.
	// While replaced objects wait to be deleted it is due after Grace, if that is shorter.
	Interval time.Duration
	Entries  uint64
	// Keep is how many of the newest snapshots stay in the bucket.
	Keep int
}

// shipping is what a leader knows of the snapshots in the bucket.
type shipping struct {
	// wanted holds a value when deletions wait for a snapshot; stored when one was stored that they may not know of.
	wanted, stored chan struct{}
	covered        atomic.Pointer[coverage]
	newest         atomic.Int64 // Unix nanoseconds: when the newest was stored, or else when the term began
}

// coverage is the state that the newest snapshot of this term has.
type coverage struct {
	key      string
	position fsm.Position
	stored   time.Time // by this process
}

func newShipping(now time.Time) *shipping {
	s := &shipping{wanted: make(chan struct{}, 1), stored: make(chan struct{}, 1)}
	s.newest.Store(now.UnixNano())
	return s
}

// before returns the last moment, as the time of a command, of which a snapshot in the bucket knows all that was done. Times
// of commands never go back, so everything before the time of the last command in it is in it; of what has the same time
// some may be missing.
func (s *shipping) before() int64 {
	if c := s.covered.Load(); c != nil {
		return c.position.Time - 1
	}
	return math.MinInt64
}

// poke puts a value into a channel that has room for one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// shippingLoop stores snapshots in the bucket while this member leads.
func (m *Metastore) shippingLoop(ctx context.Context, s *shipping) {
	m.findNewest(ctx, s)
	wanted := false
	for ctx.Err() == nil {
		if wait := time.Until(m.nextShipping(s, wanted)); wait > 0 {
			wake := time.NewTimer(min(wait, shippingLook))
			select {
			case <-wake.C:
			case <-s.wanted:
				wanted = true
			case <-ctx.Done():
			}
			wake.Stop()
			continue
		}
		if err := m.ship(ctx, s); err != nil {
			if ctx.Err() == nil {
				m.metrics.snapshots.WithLabelValues("error").Inc()
				m.log.Error("snapshot could not be stored in the bucket", "err", err)
			}
			pause(ctx, shippingRetry)
			continue
		}
		wanted = false
	}
}

// nextShipping returns when a snapshot is due. wanted says that deletions wait for it.
func (m *Metastore) nextShipping(s *shipping, wanted bool) time.Time {
	newest, at, c := time.Unix(0, s.newest.Load()), m.state.Position().Index, s.covered.Load()
	switch {
	case c == nil && wanted:
		return newest // what an earlier leader has stored is not known to cover anything
	case c != nil && at <= c.position.Index:
		return time.Now().Add(shippingLook) // nothing has changed
	case c != nil && at-c.position.Index >= m.cfg.Snapshots.Entries:
		return newest
	case wanted:
		return newest.Add(min(m.cfg.Snapshots.Interval, m.cfg.Grace))
	}
	return newest.Add(m.cfg.Snapshots.Interval)
}

// findNewest finds out how old the newest snapshot in the bucket is.
func (m *Metastore) findNewest(ctx context.Context, s *shipping) {
	all, err := snapshots.List(ctx, m.bucket)
	if err != nil {
		m.log.Warn("snapshots in the bucket could not be listed", "err", err)
	}
	if len(all) > 0 {
		s.newest.Store(min(all[0].ModTime.UnixNano(), time.Now().UnixNano()))
	}
}

// ship stores a snapshot of the state as it is now.
func (m *Metastore) ship(ctx context.Context, s *shipping) error {
	// A command that does nothing: it proves that this member leads, and its time is after all that was done.
	if _, err := propose[any](ctx, m, &storagev1.Command{
		Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{}},
	}); err != nil {
		return err
	}
	begun := time.Now()
	key, position, size, err := m.storeSnapshot(ctx)
	if err = errors.Join(err, m.cfg.Failpoints.Hit("ship/stored")); err != nil {
		return err
	}
	s.covered.Store(&coverage{key, position, time.Now()})
	s.newest.Store(time.Now().UnixNano())
	poke(s.stored)
	m.metrics.snapshots.WithLabelValues("ok").Inc()
	m.metrics.snapshotBytes.Set(float64(size))
	m.log.Info("snapshot stored in the bucket", "key", key, "index", position.Index, "bytes", size, "seconds", time.Since(begun).Seconds())
	if err := errors.Join(m.cfg.Failpoints.Hit("ship/prune"), snapshots.Prune(ctx, m.bucket, m.cfg.Snapshots.Keep)); err != nil && ctx.Err() == nil {
		m.log.Warn("old snapshots could not be deleted", "err", err)
	}
	return nil
}

// storeSnapshot writes the state to a file that has no name, reads it back, and puts it into the bucket: whole, or not
// at all.
func (m *Metastore) storeSnapshot(ctx context.Context) (key string, position fsm.Position, size int64, err error) {
	fail := func(err error) (string, fsm.Position, int64, error) { return "", position, 0, err }
	if err := m.cfg.Failpoints.Hit("ship/begin"); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(m.cfg.dir(), "snapshot-*")
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := os.Remove(f.Name()); err != nil {
		return fail(err)
	}
	position, err = m.state.WriteSnapshot(f)
	if err = errors.Join(err, m.cfg.Failpoints.Hit("ship/written")); err != nil {
		return fail(err)
	}
	if size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return fail(err)
	}
	if check, err := fsm.CheckSnapshot(io.NewSectionReader(f, 0, size)); err != nil || check != position {
		return fail(fmt.Errorf("read back at %+v, want %+v: %w", check, position, err))
	}
	if err := m.cfg.Failpoints.Hit("ship/checked"); err != nil {
		return fail(err)
	}
	key, err = snapshots.Put(ctx, m.bucket, position, f, size)
	return key, position, size, err
}
