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

// members are the nodes that announced themselves to this leader, and what everybody is told of them.
type members struct {
	lease time.Duration
	begun time.Time
	rules func(now time.Time) *metastorev1.Placement

	mu       sync.Mutex // guards what follows
	byNode   map[string]announced
	news     *news
	watchers int
}

// announced is a member until its lease ends. The message is never changed.
type announced struct {
	member  *metastorev1.Member
	expires time.Time
}

// news is what nodes are told. It is never changed: newer ones replace it.
type news struct {
	*metastorev1.WatchResponse
	replaced chan struct{} // closed when there are newer ones
}

// newMembers returns the empty list of a term that begins now.
func newMembers(lease time.Duration, now time.Time, rules func(time.Time) *metastorev1.Placement) *members {
	m := &members{lease: lease, begun: now, rules: rules, byNode: map[string]announced{}}
	m.news = &news{m.state(now), make(chan struct{})}
	return m
}

// announce takes a member on the list for one lease and returns what there is to tell.
func (m *members) announce(member *metastorev1.Member, now time.Time) (*news, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	expired := m.expire(now)
	a, known := m.byNode[member.GetNode()]
	if !known && len(m.byNode) >= maxMembers {
		return nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("members: there are %d, the most that are listed", maxMembers))
	}
	changed := !known || !proto.Equal(a.member, member)
	if changed {
		a.member = proto.CloneOf(member)
	}
	a.expires = now.Add(m.lease)
	m.byNode[member.GetNode()] = a
	if changed || expired {
		m.publish(now)
	}
	return m.news, nil
}

func (m *members) leave(node string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byNode, node)
	m.publish(now)
}

// expire takes those off the list whose leases have ended, and says whether there were any.
func (m *members) expire(now time.Time) bool {
	before := len(m.byNode)
	maps.DeleteFunc(m.byNode, func(_ string, a announced) bool { return !a.expires.After(now) })
	return len(m.byNode) < before
}

// publish replaces the news if they have changed.
func (m *members) publish(now time.Time) {
	state := m.state(now)
	if proto.Equal(state, m.news.WatchResponse) {
		return
	}
	old := m.news
	m.news = &news{state, make(chan struct{})}
	close(old.replaced)
}

// state returns what holds now, the members sorted by node.
func (m *members) state(now time.Time) *metastorev1.WatchResponse {
	s := &metastorev1.WatchResponse{Placement: m.rules(now), Gathering: now.Before(m.begun.Add(m.lease))}
	for _, node := range slices.Sorted(maps.Keys(m.byNode)) {
		s.Members = append(s.Members, m.byNode[node].member)
	}
	return s
}

// rulesEvery is how often the rules are looked at; they follow averages over a minute.
const rulesEvery = 5 * time.Second

// changeLoop publishes what changes although nobody says so: leases that end, rules, and that the leader knows everybody.
func (m *members) changeLoop(ctx context.Context) {
	for pause(ctx, m.change(time.Now())) {
	}
}

// change publishes what holds now and returns how long it will.
func (m *members) change(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(now)
	m.publish(now)
	next := now.Add(rulesEvery)
	if known := m.begun.Add(m.lease); known.After(now) {
		next = sooner(next, known)
	}
	for _, a := range m.byNode {
		next = sooner(next, a.expires)
	}
	return next.Sub(now)
}

func (m *members) count() (members, watchers int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byNode), m.watchers
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
	news, err := t.members.announce(member, time.Now())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&metastorev1.HeartbeatResponse{
		Members: news.GetMembers(), Placement: news.GetPlacement(), Gathering: news.GetGathering(),
		LeaseMs: uint32(s.m.cfg.MemberLease.Milliseconds()),
	}), nil
}

// Leave takes a node off the list.
func (s membershipService) Leave(ctx context.Context, req *connect.Request[metastorev1.LeaveRequest]) (*connect.Response[metastorev1.LeaveResponse], error) {
	t, err := s.m.leading(ctx)
	if err != nil {
		return nil, coded(err)
	}
	t.members.leave(req.Msg.GetNode(), time.Now())
	return connect.NewResponse(&metastorev1.LeaveResponse{}), nil
}
