package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/distributor/placement"
	"github.com/kilndb/kiln/tenant"
)

// members announces this node to the metastore and keeps the list of the live ones.
type members struct {
	self      *metastorev1.Member
	metastore metastorev1connect.MembershipServiceClient
	log       *slog.Logger
	shards    uint32
	// closing ends when this node is about to leave; what it is asked still works then.
	closing context.Context
	// list is replaced whole by every heartbeat that was answered.
	list atomic.Pointer[roster]
}

// roster is what one answer says. It is never changed: pushes read it.
type roster struct {
	members []*metastorev1.Member
	// writers divides the shards among the segment-writers of the list.
	writers *placement.Map
	// rules say which shards profiles go to.
	rules *placement.Rules
}

// retryHeartbeat is the pause after a heartbeat that failed; an answered one says when the next is due.
const retryHeartbeat = 200 * time.Millisecond

// patience is how many heartbeats may fail before it is worth a line in the log: an election takes a moment.
const patience = 10

// Run sends heartbeats until the node closes or ctx ends, and takes this node off the list. What it knows of the others it still
// answers for until ctx ends.
func (m *members) Run(ctx context.Context) error {
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.closing, cancel)()
	m.heartbeats(working)
	m.leave(ctx)
	<-ctx.Done()
	return nil
}

func (m *members) heartbeats(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		pause := retryHeartbeat
		resp, err := m.metastore.Heartbeat(ctx, connect.NewRequest(&metastorev1.HeartbeatRequest{Member: m.self}))
		if err == nil {
			failures = 0
			m.publish(resp.Msg)
			pause = time.Duration(resp.Msg.LeaseMs) * time.Millisecond / 3
		} else if failures++; failures == patience {
			m.log.Warn("metastore does not answer heartbeats", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (m *members) leave(ctx context.Context) {
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// The lease ends by itself if this fails.
	_, _ = m.metastore.Leave(leaving, connect.NewRequest(&metastorev1.LeaveRequest{Node: m.self.Node}))
}

// publish replaces the list. Where the metastore has no rules yet, the old ones remain.
func (m *members) publish(answer *metastorev1.HeartbeatResponse) {
	r := &roster{members: answer.GetMembers(), rules: m.placement()}
	if rules := answer.GetPlacement(); rules != nil {
		r.rules = readRules(rules, m.shards)
	}
	r.writers = placement.Assign(m.shards, r.addresses(SegmentWriter), r.rules.Weights)
	m.list.Store(r)
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

// joined returns nil once the metastore has answered.
func (m *members) joined() error {
	if m.list.Load() == nil {
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

// addresses returns where nodes of that role are, sorted by node.
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
		if slices.Contains(member.Roles, string(role)) {
			addrs = append(addrs, member.Address)
		}
	}
	return addrs
}
