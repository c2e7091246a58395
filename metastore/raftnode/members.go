package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
)

var (
	// ErrUnsafe is returned when a change of the group is refused: it would leave the group without a quorum, or the
	// member is not in a state for it.
	ErrUnsafe = errors.New("change of the group refused")

	// ErrUnknownMember is returned when the group has no member of that id.
	ErrUnknownMember = errors.New("no such member")

	// ErrRemoved is returned when a member is not in the group whose log it has: it was removed, for good.
	ErrRemoved = errors.New("removed from the group")
)

const (
	// changeTimeout bounds one change of the group, from the question to its commit.
	changeTimeout = 10 * time.Second
	// tendInterval is how often a leader looks after the others.
	tendInterval = time.Second
)

// MemberStatus is a member of the group and what it says of itself.
type MemberStatus struct {
	ID, Address string
	Voter       bool
	// Hello is nil if the member did not answer within a second.
	Hello *metastorev1.HelloResponse
}

// Members returns all members of the group, sorted by id.
func (n *Node) Members(ctx context.Context) []MemberStatus {
	servers := n.servers()
	answers := n.reach(ctx, servers)
	var all []MemberStatus
	for _, s := range servers {
		all = append(all, MemberStatus{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter, Hello: answers[string(s.ID)]})
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// reach asks all members how they are. The result is by id: who does not answer, or as another, is not in it.
func (n *Node) reach(ctx context.Context, servers []raft.Server) map[string]*metastorev1.HelloResponse {
	byAddress := n.helloAll(ctx, n.others(servers))
	byID := map[string]*metastorev1.HelloResponse{}
	for _, s := range servers {
		if h := byAddress[string(s.Address)]; h.GetPeer().GetId() == string(s.ID) {
			byID[string(s.ID)] = h
		}
	}
	byID[n.ID()] = n.present()
	return byID
}

// Status is what this member knows without asking anybody.
type Status struct {
	Term, LastIndex, CommitIndex uint64
	// Members of the group.
	Voters, Learners int
}

// Status returns what this member knows now.
func (n *Node) Status() Status {
	s := Status{Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex()}
	for _, member := range n.servers() {
		if member.Suffrage == raft.Voter {
			s.Voters++
		} else {
			s.Learners++
		}
	}
	return s
}

// change makes one change of the group, if this member leads. Nobody else makes one meanwhile, on this leader or another:
// fn says which configuration it has looked at.
func (n *Node) change(ctx context.Context, fn func(ctx context.Context, seen raft.Configuration) (func(index uint64) raft.IndexFuture, error)) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	select {
	case n.changes <- struct{}{}:
		defer func() { <-n.changes }()
	case <-ctx.Done():
		return fmt.Errorf("%w: another change is under way", ErrUnsafe)
	}
	if err := n.Verify(ctx); err != nil {
		return err
	}
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("read the group's members: %w", err)
	}
	do, err := fn(ctx, f.Configuration())
	if err != nil || do == nil {
		return err
	}
	if err := n.wait(ctx, func() error { return do(f.Index()).Error() }); err != nil {
		return fmt.Errorf("%w: change the group: %w", ErrUnknown, err)
	}
	return nil
}

// Add takes the member that listens at an address into the group, as a learner, and returns its id.
func (n *Node) Add(ctx context.Context, address string) (id string, err error) {
	h, err := n.hello(ctx, address)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	return h.GetPeer().GetId(), n.join(ctx, h.GetPeer())
}

// join takes a member into the group that asks for it, or moves it to the address that it has now. A member whose directory was
// emptied comes back at its address under another id: the one that it was is removed first, for it cannot exist any more.
func (n *Node) join(ctx context.Context, p *metastorev1.Peer) error {
	if err := sameCluster(n.state.Position().Cluster, p.GetCluster()); err != nil {
		return err
	}
	id, address := p.GetId(), p.GetRaftAddress()
	h, err := n.hello(ctx, address)
	if err != nil {
		return fmt.Errorf("%w: call back: %w", ErrUnsafe, err)
	}
	if h.GetPeer().GetId() != id || id == "" {
		return fmt.Errorf("%w: at %s there is %s, not %s", ErrUnsafe, address, h.GetPeer().GetId(), id)
	}
	if _, known := n.memberOf(id); known {
		return n.move(ctx, id, address)
	}
	if h.GetHasState() {
		return fmt.Errorf("%w: %s has a log, and the group does not know it", ErrRemoved, id)
	}
	for _, s := range n.servers() {
		if string(s.Address) == address {
			if err := n.Remove(ctx, string(s.ID)); err != nil {
				return err
			}
			n.log.Info("a member that has lost its log is replaced", "id", s.ID, "by", id, "address", address)
		}
	}
	return n.change(ctx, func(context.Context, raft.Configuration) (func(uint64) raft.IndexFuture, error) {
		return func(index uint64) raft.IndexFuture {
			return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), index, changeTimeout)
		}, nil
	})
}

// move notes where a member listens now.
func (n *Node) move(ctx context.Context, id, address string) error {
	return n.change(ctx, func(_ context.Context, seen raft.Configuration) (func(uint64) raft.IndexFuture, error) {
		for _, s := range seen.Servers {
			switch {
			case string(s.ID) != id && string(s.Address) == address:
				return nil, fmt.Errorf("%w: %s is the address of %s", ErrUnsafe, address, s.ID)
			case string(s.ID) != id || string(s.Address) == address:
			case s.Suffrage == raft.Voter:
				return func(index uint64) raft.IndexFuture {
					return n.raft.AddVoter(s.ID, raft.ServerAddress(address), index, changeTimeout)
				}, nil
			default:
				return func(index uint64) raft.IndexFuture {
					return n.raft.AddNonvoter(s.ID, raft.ServerAddress(address), index, changeTimeout)
				}, nil
			}
		}
		return nil, nil
	})
}

// Promote lets a learner vote that has caught up.
func (n *Node) Promote(ctx context.Context, id string) error {
	return n.change(ctx, func(ctx context.Context, seen raft.Configuration) (func(uint64) raft.IndexFuture, error) {
		s, ok := find(seen, id)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: %s", ErrUnknownMember, id)
		case s.Suffrage == raft.Voter:
			return nil, nil
		}
		if err := n.caughtUp(ctx, s); err != nil {
			return nil, err
		}
		return func(index uint64) raft.IndexFuture { return n.raft.AddVoter(s.ID, s.Address, index, changeTimeout) }, nil
	})
}

// caughtUp waits a little for a member to have applied what is committed now.
func (n *Node) caughtUp(ctx context.Context, s raft.Server) error {
	want := n.state.Position().Index
	ctx, cancel := context.WithTimeout(ctx, 2*helloTimeout)
	defer cancel()
	for {
		h, err := n.hello(ctx, string(s.Address))
		switch {
		case err != nil:
			return fmt.Errorf("%w: %s does not answer: %w", ErrUnsafe, s.ID, err)
		case h.GetPeer().GetId() != string(s.ID):
			return fmt.Errorf("%w: at %s there is %s, not %s", ErrUnsafe, s.Address, h.GetPeer().GetId(), s.ID)
		case h.GetAppliedIndex() >= want:
			return nil
		case !sleep(ctx, joinPause):
			return fmt.Errorf("%w: %s is %d entries behind", ErrUnsafe, s.ID, want-h.GetAppliedIndex())
		}
	}
}

// Remove takes a member out of the group for good, this one too. It is refused if too few of the remaining voters answer
// to be a quorum.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, func(ctx context.Context, seen raft.Configuration) (func(uint64) raft.IndexFuture, error) {
		s, ok := find(seen, id)
		if !ok {
			return nil, fmt.Errorf("%w: %s", ErrUnknownMember, id)
		}
		if s.Suffrage == raft.Voter {
			if err := n.quorumWithout(ctx, seen, s.ID); err != nil {
				return nil, err
			}
		}
		return func(index uint64) raft.IndexFuture { return n.raft.RemoveServer(s.ID, index, changeTimeout) }, nil
	})
}

func (n *Node) quorumWithout(ctx context.Context, seen raft.Configuration, id raft.ServerID) error {
	answers := n.reach(ctx, seen.Servers)
	voters, reached := 0, 0
	for _, s := range seen.Servers {
		if s.Suffrage != raft.Voter || s.ID == id {
			continue
		}
		voters++
		if answers[string(s.ID)] != nil {
			reached++
		}
	}
	if voters == 0 {
		return fmt.Errorf("%w: %s is the last voter", ErrUnsafe, id)
	}
	if quorum := voters/2 + 1; reached < quorum {
		return fmt.Errorf("%w: without %s there are %d voters, of which %d answer and %d must", ErrUnsafe, id, voters, reached, quorum)
	}
	return nil
}

// Transfer has another member lead: that of the id, or whoever has most of the log. It returns who leads afterwards.
func (n *Node) Transfer(ctx context.Context, id string) (leader string, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := n.Verify(ctx); err != nil {
		return "", err
	}
	ask := n.raft.LeadershipTransfer
	if id != "" {
		s, ok := n.memberOf(id)
		switch {
		case !ok:
			return "", fmt.Errorf("%w: %s", ErrUnknownMember, id)
		case s.Suffrage != raft.Voter:
			return "", fmt.Errorf("%w: %s does not vote", ErrUnsafe, id)
		case id == n.ID():
			return id, nil
		}
		ask = func() raft.Future { return n.raft.LeadershipTransferToServer(s.ID, s.Address) }
	}
	if err := n.wait(ctx, func() error { return ask().Error() }); err != nil {
		return "", fmt.Errorf("%w: transfer leadership: %w", ErrUnsafe, err)
	}
	for {
		if _, now := n.raft.LeaderWithID(); now != "" && now != n.id {
			return string(now), nil
		}
		if !sleep(ctx, joinPause) {
			return "", fmt.Errorf("%w: no other member leads", ErrUnsafe)
		}
	}
}

func find(c raft.Configuration, id string) (raft.Server, bool) {
	for _, s := range c.Servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// tendLoop looks after the others while this member leads: learners that have caught up are let vote, and the leadership is
// given away if this member cannot store what it commits.
func (n *Node) tendLoop(ctx context.Context) {
	for sleep(ctx, tendInterval) {
		servers := n.servers()
		if len(servers) < 2 {
			continue
		}
		if err := n.usable(); err != nil {
			n.log.Warn("leadership is given to another member", "err", err)
			if err := n.wait(ctx, func() error { return n.raft.LeadershipTransfer().Error() }); err != nil {
				n.log.Warn("no other member has taken the leadership", "err", err)
			}
			continue
		}
		for _, s := range servers {
			if s.Suffrage != raft.Voter {
				n.promoteIfWanted(ctx, s)
			}
		}
	}
}

func (n *Node) promoteIfWanted(ctx context.Context, s raft.Server) {
	h, err := n.hello(ctx, string(s.Address))
	if err != nil || h.GetLearner() || h.GetReason() != "" {
		return
	}
	switch err := n.Promote(ctx, string(s.ID)); {
	case err == nil:
		n.log.Info("a learner has caught up and votes", "id", s.ID)
	case !errors.Is(err, ErrUnsafe):
		n.log.Warn("learner could not be promoted", "id", s.ID, "err", err)
	}
}
