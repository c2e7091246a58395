package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

var (
	// ErrUnknown is returned when a command was given to raft and it is not known whether it is or will be applied.
	ErrUnknown = errors.New("outcome unknown")

	// ErrUnavailable is returned when this node cannot serve: it is closing or halted, or cannot reach the others.
	// Nothing was written.
	ErrUnavailable = errors.New("metastore unavailable")
)

// takeTimeout bounds the wait for raft to look at a command: far above what a busy leader needs.
const takeTimeout = 5 * time.Second

// NotLeaderError is returned when another node leads, or none. Nothing was written.
type NotLeaderError struct {
	// Leader is the address where the leader serves, or empty if that is not known.
	Leader string
}

// Error says who leads.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not the leader, and none is known"
	}
	return "not the leader, which is at " + e.Leader
}

// Apply proposes a command and returns its result once it is committed and applied here. Other errors than
// NotLeaderError and ErrUnavailable wrap ErrUnknown.
func (n *Node) Apply(ctx context.Context, cmd *storagev1.Command) (any, error) {
	data, err := fsm.EncodeCommand(cmd)
	if err != nil {
		return nil, fmt.Errorf("%w: encode command: %w", ErrUnavailable, err)
	}
	if n.raft.State() != raft.Leader {
		return nil, n.notLeader()
	}
	var result any
	if err := n.usable(); err != nil {
		return nil, err
	}
	// The timeout is for raft's main loop to take the command, not for storing it: what was not taken in time is not written.
	// It is not taken while raft waits for its disk.
	err = n.wait(ctx, func() error {
		f := n.raft.Apply(data, takeTimeout)
		if err := f.Error(); err != nil {
			return err
		}
		result = f.Response()
		return nil
	})
	switch {
	case errors.Is(err, ErrUnavailable):
		return nil, err
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(err, n.logs.err()))
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return nil, n.notLeader()
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if err, notApplied := result.(error); notApplied {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return result, nil
}

// wait calls ask, which waits for raft, and returns its error, or the context's if that ends first: raft cannot be told
// to stop waiting. Close waits for ask in any case.
func (n *Node) wait(ctx context.Context, ask func() error) error {
	if err := n.begin(); err != nil {
		return err
	}
	answer := make(chan error, 1)
	go func() {
		defer n.calls.Done()
		answer <- ask()
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin counts a call that Close must wait for.
func (n *Node) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.state.Err(); n.closing || errors.Is(err, fsm.ErrHalted) {
		return errors.Join(ErrUnavailable, err)
	}
	n.calls.Add(1)
	return nil
}

func (n *Node) notLeader() error {
	if err := n.usable(); err != nil {
		return err
	}
	_, id := n.raft.LeaderWithID()
	if id == "" || n.peers == nil {
		return &NotLeaderError{}
	}
	return &NotLeaderError{Leader: n.peers.service(string(id))}
}

// Usable returns ErrUnavailable when this node will not serve again by itself, or cannot store what is written to it.
func (n *Node) Usable() error { return n.usable() }

// usable returns ErrUnavailable when this node will not serve again by itself, or cannot store what it applies.
func (n *Node) usable() error {
	n.mu.Lock()
	closing := n.closing
	n.mu.Unlock()
	if err := n.state.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if closing {
		return fmt.Errorf("%w: closed", ErrUnavailable)
	}
	if n.removed.Load() {
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrRemoved)
	}
	if err := n.logs.hangs(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := n.logs.err(); err != nil {
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrLog, err)
	}
	return nil
}

// Leads says whether this node leads and is up to date. It may have been deposed without knowing yet: ReadIndex is the
// way to be sure.
func (n *Node) Leads() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leads != 0 && n.leads == n.raft.CurrentTerm()
}

// Snapshot takes a snapshot now, whatever the threshold.
func (n *Node) Snapshot(ctx context.Context) error {
	err := n.wait(ctx, func() error { return n.raft.Snapshot().Error() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}
