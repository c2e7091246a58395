package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/distributor/placement"
	"github.com/kilndb/kiln/tenant"
)

// membership is where nodes announce themselves and find each other.
type membership interface {
	metastorev1connect.MembershipServiceClient
	// Watch calls told with what is known of the nodes, at once and whenever that changes, until ctx ends or it cannot.
	Watch(ctx context.Context, told func(*metastorev1.WatchResponse) error) error
}

// members announces this node to the metastore and keeps the list of the live ones.
//
// It is told of the others in two ways: by a watch, as soon as something changes, and by the answers to its heartbeats, which
// are all there is while the watch is broken, or where the metastore is too old to have one.
type members struct {
	self      *metastorev1.Member
	metastore membership
	log       *slog.Logger
	shards    uint32
	// closing ends when this node is about to leave; what it is asked still works then.
	closing context.Context
	// announced tells that a heartbeat was answered.
	announced atomic.Bool

	mu   sync.Mutex // held while list is replaced
	told uint64     // guarded by mu; how often the watch has said something
	list atomic.Pointer[roster]
}

// roster is what is known at one time. It is never changed: pushes read it.
type roster struct {
	members []*metastorev1.Member
	// writers divides the shards among the segment-writers of the list.
	writers *placement.Map
	// rules say which shards profiles go to.
	rules *placement.Rules
}

// retryHeartbeat is the pause after a heartbeat that failed; an answered one says when the next is due. retryWatch is the one
// after a watch that was refused.
const (
	retryHeartbeat = 200 * time.Millisecond
	retryWatch     = 5 * time.Second
)

// patience is how many heartbeats may fail before it is worth a line in the log: an election takes a moment.
const patience = 10

// Run sends heartbeats until the node closes or ctx ends, and takes this node off the list. Of the others it goes on to
// be told until ctx ends, for those who are still inside the doors.
func (m *members) Run(ctx context.Context) error {
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.closing, cancel)()
	var watching sync.WaitGroup
	watching.Go(func() { m.watch(ctx) })
	m.heartbeats(working)
	m.leave(ctx)
	watching.Wait()
	return nil
}

func (m *members) heartbeats(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		wait, told := retryHeartbeat, m.toldSoFar()
		resp, err := m.metastore.Heartbeat(ctx, connect.NewRequest(&metastorev1.HeartbeatRequest{Member: m.self}))
		if err == nil {
			failures = 0
			m.answered(resp.Msg, told)
			wait = time.Duration(resp.Msg.LeaseMs) * time.Millisecond / 3
		} else if failures++; failures == patience {
			m.log.Warn("metastore does not answer heartbeats", "error", err)
		}
		pause(ctx, wait)
	}
}

// watch is told of changes until ctx ends.
func (m *members) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.metastore.Watch(ctx, m.watched)
		m.log.Debug("watch of the members has ended", "error", err)
		pause(ctx, retryWatch)
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watched takes what the watch says.
func (m *members) watched(news *metastorev1.WatchResponse) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told++
	m.publish(news)
	return nil
}

func (m *members) toldSoFar() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// answered takes what a heartbeat's answer says, unless the watch has said something since the heartbeat was sent: that is as
// new, or newer.
func (m *members) answered(answer *metastorev1.HeartbeatResponse, told uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told == told {
		m.publish(&metastorev1.WatchResponse{Members: answer.GetMembers(), Placement: answer.GetPlacement(), Gathering: answer.GetGathering()})
	}
	m.announced.Store(true)
}

func (m *members) leave(ctx context.Context) {
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// The lease ends by itself if this fails.
	_, _ = m.metastore.Leave(leaving, connect.NewRequest(&metastorev1.LeaveRequest{Node: m.self.Node}))
}

// publish replaces the list. Where the metastore has no rules yet, the old ones remain, and so do the members of whom a new
// leader has not heard yet. The caller holds mu.
func (m *members) publish(news *metastorev1.WatchResponse) {
	r := &roster{members: news.GetMembers(), rules: m.placement()}
	if old := m.list.Load(); old != nil && news.GetGathering() {
		r.members = union(r.members, old.members)
	}
	if rules := news.GetPlacement(); rules != nil {
		r.rules = readRules(rules, m.shards)
	}
	r.writers = placement.Assign(m.shards, r.addresses(SegmentWriter), r.rules.Weights)
	m.list.Store(r)
}

// union returns the members of a, and those of b that are not in a, sorted by node.
func union(a, b []*metastorev1.Member) []*metastorev1.Member {
	byNode := map[string]*metastorev1.Member{}
	for _, member := range slices.Concat(b, a) {
		byNode[member.GetNode()] = member
	}
	all := make([]*metastorev1.Member, 0, len(byNode))
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		all = append(all, byNode[node])
	}
	return all
}

func readRules(from *metastorev1.Placement, shards uint32) *placement.Rules {
	rules := &placement.Rules{Shards: shards, Tenants: map[tenant.ID]placement.Tenant{}, Weights: map[uint32]uint32{}}
	for _, l := range from.GetShards() {
		rules.Weights[l.GetShard()] = l.GetWeight()
	}
	for _, t := range from.GetTenants() {
		services := map[string]placement.Service{}
		for _, s := range t.GetServices() {
			services[s.GetService()] = placement.Service{Shards: s.GetShards(), RoundRobin: s.GetRoundRobin()}
		}
		rules.Tenants[tenant.ID(t.GetTenant())] = placement.Tenant{Shards: t.GetShards(), Services: services}
	}
	return rules
}

// placement returns the rules that hold now.
func (m *members) placement() *placement.Rules {
	if r := m.list.Load(); r != nil {
		return r.rules
	}
	return &placement.Rules{Shards: m.shards}
}

// joined returns nil once the metastore knows this node.
func (m *members) joined() error {
	if !m.announced.Load() {
		return errors.New("the metastore has not answered yet")
	}
	return nil
}

// candidates returns the segment-writers that may take a shard, in the order in which to try them.
func (m *members) candidates(shard uint32) []string {
	if r := m.list.Load(); r != nil {
		return r.writers.Candidates(shard)
	}
	return nil
}

// addresses returns where nodes of that role are, sorted by node, each once: a node that was killed and is back is on the list
// twice for a while.
func (m *members) addresses(role Role) []string {
	if r := m.list.Load(); r != nil {
		return r.addresses(role)
	}
	return nil
}

// count returns how many nodes play a role: at least this one, also before the metastore has answered.
func (m *members) count(role Role) int { return max(1, len(m.addresses(role))) }

func (r *roster) addresses(role Role) (addrs []string) {
	for _, member := range r.members {
		if slices.Contains(member.Roles, string(role)) && !slices.Contains(addrs, member.Address) {
			addrs = append(addrs, member.Address)
		}
	}
	return addrs
}
