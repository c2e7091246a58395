package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
)

// roundTimeout is when a question of whether somebody still leads is given up: members that can talk answer at once.
const roundTimeout = 5 * time.Second

// reads gathers those who want to read: whoever comes while a question is under way shares the next one with all others
// who did, so that a thousand reads cost the group a few messages.
type reads struct {
	mu   sync.Mutex
	busy bool
	next *round // nil: nobody waits
}

// round is one question and its answer, which is there when done is closed.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// join returns a round that has not begun yet.
func (r *reads) join(ask func() (uint64, error)) *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	if !r.busy {
		r.busy = true
		go r.askLoop(ask)
	}
	return r.next
}

// askLoop makes one round after another while somebody waits.
func (r *reads) askLoop(ask func() (uint64, error)) {
	for {
		r.mu.Lock()
		now := r.next
		r.next, r.busy = nil, now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		now.index, now.err = ask()
		close(now.done)
	}
}

// ReadIndex returns once reads from the state machine are linearizable, as the package comment says, and the index of
// an entry that they reflect.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	if err := n.usable(); err != nil {
		return 0, err
	}
	if n.soleVoter() && n.Leads() {
		return n.state.Position().Index, nil
	}
	r := n.reads.join(n.askIndex)
	select {
	case <-r.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if r.err != nil {
		return 0, r.err
	}
	if err := n.state.Wait(ctx, r.index); err != nil && ctx.Err() == nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return r.index, ctx.Err()
}

// soleVoter says whether nobody else can lead: only this member could have taken others in.
func (n *Node) soleVoter() bool {
	for _, s := range n.servers() {
		if (s.ID == n.id) != (s.Suffrage == raft.Voter) {
			return false
		}
	}
	return true
}

// askIndex returns an index that covers all that was acknowledged before the call.
func (n *Node) askIndex() (uint64, error) {
	if err := n.begin(); err != nil {
		return 0, err
	}
	defer n.calls.Done()
	ctx, cancel := context.WithTimeout(n.life, roundTimeout)
	defer cancel()
	ask := n.followerIndex
	if n.raft.State() == raft.Leader {
		ask = n.leaderIndex
	}
	index, err := ask(ctx)
	if elsewhere := new(NotLeaderError); err != nil && !errors.Is(err, ErrUnavailable) && !errors.As(err, &elsewhere) {
		err = fmt.Errorf("%w: find out who leads: %w", ErrUnavailable, err)
	}
	return index, err
}

// followerIndex asks the leader.
func (n *Node) followerIndex(ctx context.Context) (uint64, error) {
	address, _ := n.raft.LeaderWithID()
	if address == "" || n.cfg.solo() {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, ErrNoLeader)
	}
	resp, err := n.peer(string(address)).ReadIndex(ctx, connect.NewRequest(&metastorev1.ReadIndexRequest{Cluster: n.state.Position().Cluster}))
	if err != nil {
		return 0, err
	}
	return resp.Msg.GetIndex(), nil
}

// Verify returns nil once this node has made sure that it leads and that all that earlier leaders acknowledged is applied
// here.
func (n *Node) Verify(ctx context.Context) error {
	if n.raft.State() != raft.Leader {
		return n.notLeader()
	}
	_, err := n.leaderIndex(ctx)
	return err
}

// leaderIndex returns the index of the last entry that is applied here, after having made sure that nobody else leads.
func (n *Node) leaderIndex(ctx context.Context) (uint64, error) {
	for {
		term, err := n.leadership(ctx)
		if err != nil {
			return 0, err
		}
		index := n.state.Position().Index
		if !n.soleVoter() {
			if err := n.confirm(ctx, term); err != nil {
				return 0, err
			}
		}
		// Leading again, after another has led, does not count until that one's entries are applied.
		if n.raft.CurrentTerm() == term {
			return index, nil
		}
	}
}

// confirm returns nil once a quorum of the voters has said that no term is later than this one. Whoever leads a later one has
// the votes of a quorum, one of which has answered here before it voted there: what that leader acknowledges is of later.
//
// Raft's own proof (VerifyLeader) is given by its main loop, which also writes entries: reads would wait for the disk.
func (n *Node) confirm(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	voters, said := 0, make(chan bool, len(n.servers()))
	for _, s := range n.servers() {
		switch {
		case s.Suffrage != raft.Voter:
			continue
		case s.ID == n.id:
			said <- true
		default:
			go func() {
				h, err := n.hello(ctx, string(s.Address))
				said <- err == nil && h.GetPeer().GetId() == string(s.ID) && h.GetTerm() <= term
			}()
		}
		voters++
	}
	agreed, answers := 0, 0
	for agreed <= voters/2 {
		if answers == voters {
			return n.notLeader()
		}
		if answers++; <-said {
			agreed++
		}
	}
	return nil
}

// leadership waits until this node leads and is up to date, and returns its term.
func (n *Node) leadership(ctx context.Context) (term uint64, err error) {
	for {
		n.mu.Lock()
		term, changed := n.leads, n.changed
		n.mu.Unlock()
		if term != 0 && term == n.raft.CurrentTerm() {
			return term, nil
		}
		if err := n.usable(); err != nil {
			return 0, err
		}
		if n.raft.State() != raft.Leader {
			return 0, n.notLeader()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
