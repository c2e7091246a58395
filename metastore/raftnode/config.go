package raftnode

import (
	"errors"
	"fmt"
	"time"
)

// Config says which member this is and of what group.
type Config struct {
	// Dir holds the log and the snapshots.
	Dir string
	// ID names this member, for ever. Empty is fine for a group of one.
	ID string
	// Address to listen on for other members. Empty: a group of one that talks in memory.
	Address string
	// Members of the group, this one included, for its first start. Empty: this one alone.
	Members []Member
	// Bootstrap creates the group when there is no earlier state. It is implied by a group of one.
	// With several members it must be set on first start only: a member whose disk was lost must rejoin, not vote.
	Bootstrap bool

	// A snapshot is taken when the log has grown by SnapshotThreshold entries, looked at every SnapshotInterval.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	// TrailingLogs is how many entries stay behind a snapshot. It must be larger than SnapshotThreshold, so that the
	// snapshot before the latest is of use should the latest be damaged.
	TrailingLogs uint64
	// MaxApplyLag is how many committed entries may wait to be applied before the node calls itself not ready.
	MaxApplyLag uint64
}

// Member is one member of the group.
type Member struct {
	ID string
	// Raft is the address that the member listens on for other members.
	Raft string
	// Service is the address where the member serves requests: where clients are sent when it leads.
	Service string
}

// DefaultConfig is a group of one in dir.
func DefaultConfig(dir string) Config {
	return Config{
		Dir:               dir,
		SnapshotThreshold: 8192,
		SnapshotInterval:  2 * time.Minute,
		TrailingLogs:      16384,
		MaxApplyLag:       10_000,
	}
}

const (
	// soloID and soloAddress are those of a group of one that was given none. They are part of its stored configuration.
	soloID      = "metastore"
	soloAddress = "in-memory"
)

// solo says whether the member is a group of its own, without a listener.
func (c Config) solo() bool { return c.Address == "" }

func (c Config) id() string {
	if c.ID == "" {
		return soloID
	}
	return c.ID
}

// Validate returns what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("raft: a directory is required")
	case c.solo() && len(c.Members) > 1:
		return errors.New("raft: a group of several members requires an address to listen on")
	case len(c.Members) > 1 && c.ID == "":
		return errors.New("raft: a member of a group requires an id")
	case c.SnapshotThreshold == 0 || c.SnapshotInterval < 5*time.Millisecond:
		return errors.New("raft: snapshot threshold and interval must be positive")
	case c.TrailingLogs <= c.SnapshotThreshold:
		return fmt.Errorf("raft: trailing logs (%d) must be more than the snapshot threshold (%d)", c.TrailingLogs, c.SnapshotThreshold)
	case c.MaxApplyLag == 0:
		return errors.New("raft: the apply lag must be positive")
	}
	return nil
}
