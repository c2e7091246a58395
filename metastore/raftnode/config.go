package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/kilndb/kiln/internal/failpoint"
)

// Config says which member this is and of what group.
type Config struct {
	// Dir holds the log and the snapshots.
	Dir string

	// Address is where other members reach this one, host:port. Empty: a group of one that talks to itself in memory.
	Address string
	// Listen is the address to listen on for other members; Address if empty.
	Listen string
	// Service is where this member serves requests: where clients are sent while it leads.
	Service string
	// Peers are addresses of members. When none of them has a log yet they make the group together, if this one's is among
	// them; and they are asked to take this one in when it has none. Empty: it makes a group of one, which others may join.
	Peers []string
	// Learner has this member follow the log without ever voting.
	Learner bool
	// Network is what members talk over. Required with Address.
	Network Network
	// StuckAfter is how long a write to the log may take before a member of a group leaves it to the others and ends.
	StuckAfter time.Duration

	// A snapshot is taken when the log has grown by SnapshotThreshold entries, looked at every SnapshotInterval.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	// TrailingLogs is how many entries stay behind a snapshot. It must be larger than SnapshotThreshold, so that the
	// snapshot before the latest is of use should the latest be damaged.
	TrailingLogs uint64
	// MaxApplyLag is how many committed entries may wait to be applied before the node calls itself not ready.
	MaxApplyLag uint64

	// Failpoints has the member fail where a test wants it to; nil fails nowhere.
	Failpoints *failpoint.Set
}

// Network is where a member listens and what it dials. Connections may be TLS: whoever is let through is trusted.
type Network interface {
	Listen(addr string) (net.Listener, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// DefaultConfig is a group of one in dir.
func DefaultConfig(dir string) Config {
	return Config{
		Dir:               dir,
		StuckAfter:        5 * time.Second,
		SnapshotThreshold: 8192,
		SnapshotInterval:  2 * time.Minute,
		TrailingLogs:      16384,
		MaxApplyLag:       10_000,
	}
}

// soloAddress is that of a group of one that was given none. It is part of its stored configuration.
const soloAddress = "in-memory"

// solo says whether the member is a group of its own, without a listener.
func (c Config) solo() bool { return c.Address == "" }

// address is what the group's configuration says of this member.
func (c Config) address() string {
	if c.solo() {
		return soloAddress
	}
	return c.Address
}

func (c Config) addresses() []string {
	if c.solo() {
		return nil
	}
	return append([]string{c.Address}, c.Peers...)
}

func malformed(address string) bool {
	_, _, err := net.SplitHostPort(address)
	return err != nil
}

// Validate returns what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("raft: a directory is required")
	case c.solo() && (len(c.Peers) > 0 || c.Learner):
		return errors.New("raft: a member of a group requires an address for the others")
	case c.Learner && len(c.Peers) == 0:
		return errors.New("raft: a learner requires the addresses of members to learn from")
	case !c.solo() && (c.Network == nil || c.Service == ""):
		return errors.New("raft: a member of a group requires a network, and an address where it serves")
	case slices.ContainsFunc(c.addresses(), malformed):
		return fmt.Errorf("raft: addresses of members are host:port, unlike one of %q", c.addresses())
	case c.StuckAfter <= 0:
		return errors.New("raft: the longest write must be positive")
	case c.SnapshotThreshold == 0 || c.SnapshotInterval < 5*time.Millisecond:
		return errors.New("raft: snapshot threshold and interval must be positive")
	case c.TrailingLogs <= c.SnapshotThreshold:
		return fmt.Errorf("raft: trailing logs (%d) must be more than the snapshot threshold (%d)", c.TrailingLogs, c.SnapshotThreshold)
	case c.MaxApplyLag == 0:
		return errors.New("raft: the apply lag must be positive")
	}
	return nil
}
