package metastore

import (
	"bytes"
	"log/slog"

	"github.com/kilndb/kiln/metastore/fsm"
)

// replica is one state machine without Raft.
type replica struct {
	*machine
	state *fsm.FSM
	path  string
}

func openReplica(t require, path string) *replica {
	m := newMachine()
	state, err := fsm.Open(path, m.commands(), m.components(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return &replica{m, state, path}
}

// require is what *testing.T and *rapid.T have in common here.
type require interface {
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// sink is a place for a snapshot.
type sink struct{ bytes.Buffer }

func (s *sink) ID() string    { return "test" }
func (s *sink) Cancel() error { return nil }
func (s *sink) Close() error  { return nil }

func (r *replica) snapshot(t require) []byte {
	s, err := r.state.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	defer s.Release()
	var to sink
	if err := s.Persist(&to); err != nil {
		t.Fatalf("persist: %v", err)
	}
	return to.Bytes()
}

func (r *replica) hash(t require) [32]byte {
	h, err := r.state.Hash()
	if err != nil {
		t.Fatalf("hash: %v", err)
	}
	return h
}

func (r *replica) close(t require) {
	if err := r.state.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}
