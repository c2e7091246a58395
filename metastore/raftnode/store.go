package raftnode

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// The pauses between attempts to store a term or a vote.
const (
	storePause    = 100 * time.Millisecond
	storePauseMax = 5 * time.Second
)

// store is the log and the vote, and knows whether they can be written.
//
// Raft panics when a term or a vote cannot be stored, and must not go on without it. A full disk would end the process
// over and over; so what cannot be stored is tried again until it can be, and raft waits. Entries are different: raft takes
// the error, stops leading, and comes back by an election, whose term is stored first.
type store struct {
	*raftboltdb.BoltStore
	log     *slog.Logger
	failed  atomic.Pointer[error]
	closing chan struct{}
	close   sync.Once
}

func newStore(b *raftboltdb.BoltStore, log *slog.Logger) *store {
	return &store{BoltStore: b, log: log, closing: make(chan struct{})}
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
	for pause := storePause; s.note(write()) != nil; pause = min(2*pause, storePauseMax) {
		select {
		case <-s.closing:
			runtime.Goexit()
		case <-time.After(pause):
		}
	}
	return nil
}

// StoreLog stores an entry.
func (s *store) StoreLog(l *raft.Log) error { return s.note(s.BoltStore.StoreLog(l)) }

// StoreLogs stores entries.
func (s *store) StoreLogs(l []*raft.Log) error { return s.note(s.BoltStore.StoreLogs(l)) }

// Set stores a part of the vote.
func (s *store) Set(k, v []byte) error {
	return s.until(func() error { return s.BoltStore.Set(k, v) })
}

// SetUint64 stores a term.
func (s *store) SetUint64(k []byte, v uint64) error {
	return s.until(func() error { return s.BoltStore.SetUint64(k, v) })
}
