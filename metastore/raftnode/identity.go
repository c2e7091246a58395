package raftnode

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/oklog/ulid/v2"
)

// firstID is that of members which were made before members had ids of their own. Groups of one had no use for them.
const firstID = "metastore"

// identityKey is where the log keeps whose log it is. A member that has lost its log so has another id: it cannot vote in the
// place of the one that it was, and forget what that one has promised.
var identityKey = []byte("kiln.member")

// identify returns the id of the member whose log this is, and gives it one if it has none.
func identify(logs *raftboltdb.BoltStore, snapshots raft.SnapshotStore) (raft.ServerID, error) {
	id, err := logs.Get(identityKey)
	if err == nil {
		return raft.ServerID(id), nil
	}
	if !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return "", fmt.Errorf("read the member's id: %w", err)
	}
	old, err := raft.HasExistingState(logs, logs, snapshots)
	if err != nil {
		return "", err
	}
	name := firstID
	if !old {
		name = ulid.MustNew(ulid.Now(), rand.Reader).String()
	}
	if err := logs.Set(identityKey, []byte(name)); err != nil {
		return "", fmt.Errorf("store the member's id: %w", err)
	}
	return raft.ServerID(name), nil
}
