package metastore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/metastore/raftnode"
)

// Cluster returns the handler of ClusterService.
func (m *Metastore) Cluster() adminv1connect.ClusterServiceHandler { return clusterService{m} }

// clusterService serves ClusterService. The leader answers.
type clusterService struct{ m *Metastore }

// GetCluster shows the members of the group, each as it answers now, and all nodes.
func (s clusterService) GetCluster(ctx context.Context, _ *connect.Request[adminv1.GetClusterRequest]) (*connect.Response[adminv1.GetClusterResponse], error) {
	t, err := s.m.leading(ctx)
	if err != nil {
		return nil, coded(err)
	}
	answer := &adminv1.GetClusterResponse{
		Cluster: s.m.state.Position().Cluster, Term: s.m.node.Status().Term, Nodes: t.members.nodes(time.Now()),
	}
	for _, member := range s.m.node.Members(ctx) {
		answer.Members = append(answer.Members, s.shown(member, t.members))
	}
	return connect.NewResponse(answer), nil
}

func (s clusterService) shown(m raftnode.MemberStatus, known *members) *adminv1.GroupMember {
	shown := &adminv1.GroupMember{
		Id: m.ID, RaftAddress: m.Address, Leads: m.ID == s.m.node.ID(), Suffrage: adminv1.Suffrage_SUFFRAGE_LEARNER,
		CommandVersion: known.announcedVersion(m.ID),
	}
	if m.Voter {
		shown.Suffrage = adminv1.Suffrage_SUFFRAGE_VOTER
	}
	if h := m.Hello; h != nil {
		shown.Reachable, shown.ServiceAddress, shown.Reason = true, h.GetPeer().GetServiceAddress(), h.GetReason()
		shown.LastIndex, shown.AppliedIndex = h.GetLastIndex(), h.GetAppliedIndex()
	}
	return shown
}

// AddMember adds a learner.
func (s clusterService) AddMember(ctx context.Context, req *connect.Request[adminv1.AddMemberRequest]) (*connect.Response[adminv1.AddMemberResponse], error) {
	if req.Msg.GetRaftAddress() == "" {
		return nil, invalid("raft_address: empty")
	}
	id, err := s.m.node.Add(ctx, req.Msg.GetRaftAddress())
	if err := s.changed(err, "member added", "id", id, "address", req.Msg.GetRaftAddress()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.AddMemberResponse{Id: id}), nil
}

// PromoteMember lets a learner vote.
func (s clusterService) PromoteMember(ctx context.Context, req *connect.Request[adminv1.PromoteMemberRequest]) (*connect.Response[adminv1.PromoteMemberResponse], error) {
	if err := s.changed(s.m.node.Promote(ctx, req.Msg.GetId()), "member promoted", "id", req.Msg.GetId()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.PromoteMemberResponse{}), nil
}

// RemoveMember takes a member out of the group.
func (s clusterService) RemoveMember(ctx context.Context, req *connect.Request[adminv1.RemoveMemberRequest]) (*connect.Response[adminv1.RemoveMemberResponse], error) {
	if err := s.changed(s.m.node.Remove(ctx, req.Msg.GetId()), "member removed", "id", req.Msg.GetId()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.RemoveMemberResponse{}), nil
}

// TransferLeadership has another member lead.
func (s clusterService) TransferLeadership(ctx context.Context, req *connect.Request[adminv1.TransferLeadershipRequest]) (*connect.Response[adminv1.TransferLeadershipResponse], error) {
	leader, err := s.m.node.Transfer(ctx, req.Msg.GetId())
	if err := s.changed(err, "leadership transferred", "leader", leader); err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.TransferLeadershipResponse{Leader: leader}), nil
}

// changed notes a change of the group, or returns why there was none. A change whose outcome is not known is not repeated by
// clients: whoever asked for it looks first.
func (s clusterService) changed(err error, what string, details ...any) error {
	switch {
	case err == nil:
		s.m.log.Info(what, details...)
		return nil
	case errors.Is(err, raftnode.ErrUnknown):
		return connect.NewError(connect.CodeUnknown, err)
	}
	return coded(err)
}

// nodes returns all that are on the list, sorted by address and node.
func (m *members) nodes(now time.Time) (nodes []*adminv1.ClusterNode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.byNode {
		if !a.expires.After(now) {
			continue
		}
		age := now.Sub(a.expires.Add(-m.lease))
		nodes = append(nodes, &adminv1.ClusterNode{
			Node: a.member.GetNode(), Address: a.member.GetAddress(), Roles: a.member.GetRoles(), AgeMs: uint64(max(0, age.Milliseconds())),
		})
	}
	slices.SortFunc(nodes, func(a, b *adminv1.ClusterNode) int {
		return cmp.Or(cmp.Compare(a.GetAddress(), b.GetAddress()), cmp.Compare(a.GetNode(), b.GetNode()))
	})
	return nodes
}
