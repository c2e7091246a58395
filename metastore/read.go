package metastore

import (
	"context"
	"errors"

	"github.com/kilndb/kiln/metastore/fsm"
)

// readIndex returns once reads of this member's state are linearizable, and the index of the last entry they reflect.
//
// Raft's own proof that a member leads waits its turn in raft's loop, which stores entries there too: a question would wait
// for the disk. A group of one needs no proof: only its member could take others in, so nobody else can have acknowledged
// anything. It is asked whether it leads last: then no other group can have come between the two answers.
func (m *Metastore) readIndex(ctx context.Context) (uint64, error) {
	if !errors.Is(m.state.Err(), fsm.ErrHalted) && m.alone() && m.node.Leads() {
		return m.state.Position().Index, nil
	}
	return m.node.ReadIndex(ctx)
}

// alone says whether this member is its whole group.
func (m *Metastore) alone() bool {
	ids, err := m.node.GroupIDs()
	return err == nil && len(ids) == 1 && ids[0] == m.node.ID()
}
