package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/kilndb/kiln/metastore/fsm"
)

// currentTerm is where raft keeps the latest term that the member has seen.
var currentTerm = []byte("CurrentTerm")

// Seed makes the files of a group whose only member is this one and whose log begins after state, which no log led to.
// There must be none so far. State stays open.
func Seed(cfg Config, state *fsm.FSM, log *slog.Logger) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("seed raft in %s: %w", cfg.Dir, err)
		}
	}()
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(cfg.Dir, "log.db")
	if _, err := os.Stat(path); err == nil {
		return errors.New("there is a log already")
	}
	logs, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: fsm.LogOptions(), MsgpackUseNewTimeFormat: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logs.Close(), syncDir(cfg.Dir)) }()
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, &logger{to: log, solo: cfg.solo()})
	if err != nil {
		return err
	}
	id, err := identify(logs, files)
	if err != nil {
		return err
	}
	if err := logs.SetUint64(currentTerm, state.Position().Term); err != nil {
		return err
	}
	return seedSnapshot(files, raft.Server{ID: id, Address: raft.ServerAddress(cfg.address())}, state)
}

// seedSnapshot stores state as the first snapshot of a group of one.
func seedSnapshot(files raft.SnapshotStore, member raft.Server, state *fsm.FSM) error {
	_, encoder := raft.NewInmemTransport(member.Address) // only to write addresses down
	at := state.Position()
	group := raft.Configuration{Servers: []raft.Server{member}}
	sink, err := files.Create(raft.SnapshotVersionMax, at.Index, at.Term, group, at.Index, encoder)
	if err != nil {
		return err
	}
	if _, err := state.WriteSnapshot(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
