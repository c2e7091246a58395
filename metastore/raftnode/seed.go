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
	err = logs.SetUint64(currentTerm, state.Position().Term)
	if err := errors.Join(err, logs.Close()); err != nil {
		return err
	}
	if err := seedSnapshot(cfg, state, log); err != nil {
		return err
	}
	return syncDir(cfg.Dir)
}

// seedSnapshot stores state as the group's first snapshot.
func seedSnapshot(cfg Config, state *fsm.FSM, log *slog.Logger) error {
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, &logger{to: log, solo: cfg.solo()})
	if err != nil {
		return err
	}
	address := raft.ServerAddress(soloAddress)
	if !cfg.solo() {
		address = raft.ServerAddress((&Node{cfg: cfg}).advertised())
	}
	_, encoder := raft.NewInmemTransport(address) // only to write addresses down
	group := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(cfg.id()), Address: address}}}
	at := state.Position()
	sink, err := files.Create(raft.SnapshotVersionMax, at.Index, at.Term, group, at.Index, encoder)
	if err != nil {
		return err
	}
	if _, err := state.WriteSnapshot(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
