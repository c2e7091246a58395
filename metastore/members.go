package metastore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
)

const (
	maxMembers    = 10_000 // far above a cluster, far below what would hurt
	maxMemberSize = 4096   // bytes of one announcement
)

// members are the nodes that announced themselves to this leader.
type members struct {
	lease time.Duration

	mu     sync.Mutex
	byNode map[string]announced
}

// announced is a member until its lease ends. The message is never changed.
type announced struct {
	member  *metastorev1.Member
	expires time.Time
}

func newMembers(lease time.Duration) *members {
	return &members{lease: lease, byNode: map[string]announced{}}
}

// announce takes a member on the list for one lease and returns all that are on it, sorted by node.
func (m *members) announce(member *metastorev1.Member, now time.Time) ([]*metastorev1.Member, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.byNode, func(_ string, a announced) bool { return !a.expires.After(now) })
	if _, known := m.byNode[member.GetNode()]; !known && len(m.byNode) >= maxMembers {
		return nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("members: there are %d, the most that are listed", maxMembers))
	}
	m.byNode[member.GetNode()] = announced{proto.CloneOf(member), now.Add(m.lease)}
	var list []*metastorev1.Member
	for _, node := range slices.Sorted(maps.Keys(m.byNode)) {
		list = append(list, m.byNode[node].member)
	}
	return list, nil
}

func (m *members) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byNode)
}

// commandVersion returns what the group's member of that id announced, or 1.
func (m *members) commandVersion(id string) uint32 { return max(1, m.announcedVersion(id)) }

// announcedVersion returns what the group's member of that id announced, or 0.
func (m *members) announcedVersion(id string) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	version := uint32(0)
	for _, a := range m.byNode {
		// A member that was restarted is there twice for a lease: once by the build it had.
		if g := a.member.GetMetastore(); g.GetId() == id && (version == 0 || g.GetCommandVersion() < version) {
			version = g.GetCommandVersion()
		}
	}
	return version
}

func (m *members) leave(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byNode, node)
}

// membershipService serves MembershipService.
type membershipService struct{ m *Metastore }

// Heartbeat announces a node and answers with all live ones, and where their profiles are to go.
func (s membershipService) Heartbeat(ctx context.Context, req *connect.Request[metastorev1.HeartbeatRequest]) (*connect.Response[metastorev1.HeartbeatResponse], error) {
	member := req.Msg.GetMember()
	switch {
	case member.GetNode() == "":
		return nil, invalid("member.node: empty")
	case member.GetAddress() == "":
		return nil, invalid("member.address: empty")
	case proto.Size(member) > maxMemberSize:
		return nil, invalid(fmt.Sprintf("member: more than %d bytes", maxMemberSize))
	}
	t, err := s.m.leading(ctx)
	if err != nil {
		return nil, coded(err)
	}
	list, err := t.members.announce(member, time.Now())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&metastorev1.HeartbeatResponse{
		Members: list, LeaseMs: uint32(s.m.cfg.MemberLease.Milliseconds()), Placement: t.placement.Rules(time.Now()),
	}), nil
}

// Leave takes a node off the list.
func (s membershipService) Leave(ctx context.Context, req *connect.Request[metastorev1.LeaveRequest]) (*connect.Response[metastorev1.LeaveResponse], error) {
	t, err := s.m.leading(ctx)
	if err != nil {
		return nil, coded(err)
	}
	t.members.leave(req.Msg.GetNode())
	return connect.NewResponse(&metastorev1.LeaveResponse{}), nil
}
