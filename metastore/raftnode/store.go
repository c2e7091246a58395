package raftnode

import (
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/kilndb/kiln/internal/failpoint"
)

// The pauses between attempts to store a term or a vote.
const (
	storePause    = 100 * time.Millisecond
	storePauseMax = 5 * time.Second
)

// ErrStuck is returned when a write to the log has taken so long that the member leaves it to the others. It may still
// land: the process must end, and not try again.
var ErrStuck = errors.New("the disk of the log does not answer")

// store is the log and the vote, and knows whether they can be written.
//
// Raft panics when a term or a vote cannot be stored, and must not go on without it. A full disk would end the process
// over and over; so what cannot be stored is tried again until it can be, and raft waits. Entries are different: raft takes
// the error, stops leading, and comes back by an election, whose term is stored first.
//
// No write is given up while it goes on: it may still land, and raft would store its successor in its place. One that takes
// longer than stuckAfter closes stuck.
type store struct {
	*raftboltdb.BoltStore
	log    *slog.Logger
	points *failpoint.Set
	failed atomic.Pointer[error]

	stuckAfter time.Duration
	hanging    atomic.Int32 // writes that take longer than that, now
	stuck      chan struct{}
	stick      sync.Once

	closing chan struct{}
	close   sync.Once
}

func newStore(b *raftboltdb.BoltStore, stuckAfter time.Duration, points *failpoint.Set, log *slog.Logger) *store {
	return &store{BoltStore: b, log: log, points: points, stuckAfter: stuckAfter, stuck: make(chan struct{}), closing: make(chan struct{})}
}

// hangs returns ErrStuck while a write takes too long.
func (s *store) hangs() error {
	if s.hanging.Load() > 0 {
		return ErrStuck
	}
	return nil
}

// watched makes a write that closes stuck if it takes too long.
func (s *store) watched(write func() error) error {
	late := time.AfterFunc(s.stuckAfter, func() {
		s.hanging.Add(1)
		s.log.Error("a write to raft's log hangs", "seconds", s.stuckAfter.Seconds())
		s.stick.Do(func() { close(s.stuck) })
	})
	defer func() {
		if !late.Stop() {
			s.hanging.Add(-1)
		}
	}()
	if err := s.points.Hit("raft/store"); err != nil {
		return err
	}
	return write()
}

// err returns why the latest write failed, or nil.
func (s *store) err() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// interrupt ends all waiting. What could not be stored is never answered: the goroutine of raft that waits for it ends.
func (s *store) interrupt() { s.close.Do(func() { close(s.closing) }) }

// note remembers whether a write has failed.
func (s *store) note(err error) error {
	if err == nil {
		if s.failed.Swap(nil) != nil {
			s.log.Info("raft's log can be written again")
		}
	} else if s.failed.Swap(&err) == nil {
		s.log.Error("raft's log cannot be written", "err", err)
	}
	return err
}

// until repeats a write until it succeeds.
func (s *store) until(write func() error) error {
	for pause := storePause; s.note(s.watched(write)) != nil; pause = min(2*pause, storePauseMax) {
		select {
		case <-s.closing:
			runtime.Goexit()
		case <-time.After(pause):
		}
	}
	return nil
}

// StoreLog stores an entry.
func (s *store) StoreLog(l *raft.Log) error {
	return s.note(s.watched(func() error { return s.BoltStore.StoreLog(l) }))
}

// StoreLogs stores entries.
func (s *store) StoreLogs(l []*raft.Log) error {
	return s.note(s.watched(func() error { return s.BoltStore.StoreLogs(l) }))
}

// Set stores a part of the vote.
func (s *store) Set(k, v []byte) error {
	return s.until(func() error { return s.BoltStore.Set(k, v) })
}

// SetUint64 stores a term.
func (s *store) SetUint64(k []byte, v uint64) error {
	return s.until(func() error { return s.BoltStore.SetUint64(k, v) })
}
