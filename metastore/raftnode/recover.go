package raftnode

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/kilndb/kiln/metastore/fsm"
)

// ErrUnrecoverable is returned when neither the state file nor a snapshot together with the log gives a whole state, or
// when they do not belong together.
var ErrUnrecoverable = errors.New("state cannot be rebuilt")

// snapshotStore is the store of snapshots without those that turned out to be damaged.
type snapshotStore struct {
	raft.SnapshotStore
	damaged map[string]bool
}

func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	var sound []*raft.SnapshotMeta
	for _, meta := range all {
		if !s.damaged[meta.ID] {
			sound = append(sound, meta)
		}
	}
	return sound, err
}

// recoverState brings the state machine to a state from which the log leads on without a gap, before raft starts. Its
// file is used as it is when it is new enough; else the newest sound snapshot replaces it. Raft is told of that very
// snapshot through the store, and replays the log from there.
func recoverState(state *fsm.FSM, logs raft.LogStore, snapshots *snapshotStore, log *slog.Logger) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	list, err := snapshots.List() // newest first
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	newest := last
	if len(list) > 0 {
		newest = max(newest, list[0].Index)
	}
	if at := state.Position().Index; at > newest {
		// The log is synced before anything is applied: this log is not the one that the state comes from.
		return fmt.Errorf("%w: the state is at log index %d, log and snapshots end at %d", ErrUnrecoverable, at, newest)
	}
	for _, meta := range list {
		// The log leads on if it holds all entries after the snapshot. With an empty log there are none.
		if leadsOn := last <= meta.Index || first <= meta.Index+1; leadsOn {
			err := restore(state, snapshots, meta)
			if err == nil {
				return nil
			}
			log.Error("snapshot is damaged", "id", meta.ID, "err", err)
		}
		snapshots.damaged[meta.ID] = true
	}
	if len(list) > 0 && first != 1 {
		return fmt.Errorf("%w: %d snapshots are of no use, and the log begins at %d", ErrUnrecoverable, len(list), first)
	}
	if last > 0 && first > 1 && state.Position().Index+1 < first {
		return fmt.Errorf("%w: no snapshot, and the log begins at %d", ErrUnrecoverable, first)
	}
	return nil
}

// restore makes sure that the state is at least that of the snapshot.
func restore(state *fsm.FSM, snapshots raft.SnapshotStore, meta *raft.SnapshotMeta) error {
	if state.Position().Index >= meta.Index {
		return nil
	}
	_, content, err := snapshots.Open(meta.ID)
	if err != nil {
		return err
	}
	return errors.Join(state.Restore(content), content.Close())
}
