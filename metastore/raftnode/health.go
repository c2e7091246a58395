package raftnode

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/kilndb/kiln/metastore/fsm"
)

// Why a member could not serve. All of them are returned together with ErrUnavailable.
var (
	// ErrNoLeader is returned when this member knows of no leader.
	ErrNoLeader = errors.New("the group has no leader")

	// ErrLag is returned when committed entries are not applied yet: all that earlier leaders have committed, on a new
	// leader, or too many on any member.
	ErrLag = errors.New("committed entries are not applied yet")

	// ErrLog is returned when raft's log could not be written the last time.
	ErrLog = errors.New("the log cannot be written")
)

// Reasons are all that Reason may return, but for the empty one.
var Reasons = []string{"removed", "halted", "stuck", "disk_full", "log", "state", "no_leader", "apply_lag", "other"}

// Reason returns in one word why Ready refused, or nothing if it did not.
func Reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrRemoved):
		return "removed"
	case errors.Is(err, fsm.ErrHalted):
		return "halted"
	case errors.Is(err, ErrStuck):
		return "stuck"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return "disk_full"
	case errors.Is(err, ErrLog):
		return "log"
	case errors.Is(err, fsm.ErrStalled):
		return "state"
	case errors.Is(err, ErrNoLeader):
		return "no_leader"
	case errors.Is(err, ErrLag):
		return "apply_lag"
	}
	return "other"
}

// Ready returns why this node could not serve now, or nil.
func (n *Node) Ready() error {
	if err := n.usable(); err != nil {
		return err
	}
	if _, id := n.raft.LeaderWithID(); id == "" {
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrNoLeader)
	}
	if n.raft.State() == raft.Leader && !n.Leads() {
		return fmt.Errorf("%w: leads, but %w", ErrUnavailable, ErrLag)
	}
	if lag := n.Lag(); lag > n.cfg.MaxApplyLag {
		return fmt.Errorf("%w: %w: %d", ErrUnavailable, ErrLag, lag)
	}
	return nil
}

// Lag returns how many committed entries are not applied yet.
func (n *Node) Lag() uint64 {
	if committed, applied := n.raft.CommitIndex(), n.raft.AppliedIndex(); committed > applied {
		return committed - applied
	}
	return 0
}
