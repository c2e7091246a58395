package raftnode

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
)

// The pauses between attempts to get into the group double from the first to the last.
const (
	joinPause    = 100 * time.Millisecond
	joinPauseMax = 2 * time.Second
)

// joinLoop makes this member part of its group, and again when the group knows it by another address or does not talk to
// it any more.
//
// A member without a log asks the others. If one of them has a log, there is a group, and it asks the leader to be taken in. If all
// of them answer, none has one, and all were given the same addresses, then the one with the least address makes the group of
// all; so two of them never do. Who has a log never makes a group.
func (n *Node) joinLoop(ctx context.Context) {
	pause := joinPause
	for sleep(ctx, pause) {
		if n.settled() {
			if n.cfg.solo() {
				return
			}
			pause = joinPause
			if !sleep(ctx, joinPauseMax) {
				return
			}
			continue
		}
		pause = min(2*pause, joinPauseMax)
		if errors.Is(n.attempt(ctx), ErrRemoved) {
			n.removed.Store(true)
			n.log.Error("this member was removed from the group: stop it, and start it with an empty directory if it is to join again", "id", n.ID())
			return
		}
	}
}

// settled says whether there is nothing to do: the group knows this member, and there is a leader.
func (n *Node) settled() bool {
	s, ok := n.memberOf(n.ID())
	if !ok || s.Address != raft.ServerAddress(n.cfg.address()) {
		return false
	}
	_, leader := n.raft.LeaderWithID()
	return leader != ""
}

// attempt does one step towards the group.
func (n *Node) attempt(ctx context.Context) error {
	if n.raft.State() == raft.Leader { // of a group that knows it by another address
		return n.move(ctx, n.ID(), n.cfg.address())
	}
	if n.cfg.solo() {
		return nil
	}
	servers := n.servers()
	answers := n.helloAll(ctx, n.others(servers))
	for _, h := range answers {
		if h.GetHasState() {
			return n.askToJoin(ctx, answers)
		}
	}
	if len(servers) == 0 && !n.hasState() && n.mayCreate(answers) {
		return n.create(answers)
	}
	return nil
}

// others returns the addresses at which other members may be.
func (n *Node) others(servers []raft.Server) []string {
	addresses := slices.Clone(n.cfg.Peers)
	for _, s := range servers {
		addresses = append(addresses, string(s.Address))
	}
	slices.Sort(addresses)
	return slices.DeleteFunc(slices.Compact(addresses), func(a string) bool { return a == n.cfg.Address || a == soloAddress })
}

// askToJoin asks one that has a log, and then whom that one calls the leader.
func (n *Node) askToJoin(ctx context.Context, answers map[string]*metastorev1.HelloResponse) (err error) {
	for address, h := range answers {
		if !h.GetHasState() {
			continue
		}
		if err = n.askAt(ctx, address); leaderOf(err) != "" {
			err = n.askAt(ctx, leaderOf(err))
		}
		if err == nil || errors.Is(err, ErrRemoved) {
			return err
		}
		n.log.Debug("not taken into the group yet", "address", address, "err", err)
	}
	return err
}

func (n *Node) askAt(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	_, err := n.peer(address).Join(ctx, connect.NewRequest(&metastorev1.JoinRequest{Peer: n.self()}))
	if connect.CodeOf(err) == connect.CodePermissionDenied && connect.IsWireError(err) {
		return errors.Join(ErrRemoved, err)
	}
	return err
}

// mayCreate says whether this member is the one that makes the group.
func (n *Node) mayCreate(answers map[string]*metastorev1.HelloResponse) bool {
	peers := slices.Sorted(slices.Values(n.cfg.Peers))
	if n.cfg.Learner || len(peers) == 0 || peers[0] != n.cfg.Address {
		return false
	}
	for _, address := range peers[1:] {
		h := answers[address]
		if h == nil || h.GetHasState() || h.GetLearner() || h.GetPeer().GetRaftAddress() != address || !slices.Equal(h.GetPeers(), peers) {
			return false
		}
	}
	return true
}

// create makes the group.
func (n *Node) create(answers map[string]*metastorev1.HelloResponse) error {
	group := raft.Configuration{Servers: []raft.Server{{ID: n.id, Address: raft.ServerAddress(n.cfg.Address)}}}
	for _, address := range slices.Sorted(slices.Values(n.cfg.Peers))[1:] {
		group.Servers = append(group.Servers, raft.Server{ID: raft.ServerID(answers[address].GetPeer().GetId()), Address: raft.ServerAddress(address)})
	}
	err := n.raft.BootstrapCluster(group).Error()
	if err == nil {
		n.log.Info("raft group created", "members", len(group.Servers))
	}
	return err
}

// servers returns the members of the group, as this one knows them.
func (n *Node) servers() []raft.Server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// memberOf returns a member of the group.
func (n *Node) memberOf(id string) (raft.Server, bool) {
	for _, s := range n.servers() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// sleep waits for d and says whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
