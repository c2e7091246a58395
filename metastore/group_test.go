package metastore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/internal/failpoint"
	"github.com/kilndb/kiln/internal/memnet"
	"github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/metastore/raftnode"
	"github.com/kilndb/kiln/objstore/memory"
)

// group is metastores on one memory network that make one group. Member i listens for members at raftAt(i) and serves at
// serviceAt(i).
type group struct {
	t       testing.TB
	net     *memnet.Network
	bucket  Bucket
	change  []func(*Config)
	peers   []string
	members []*groupMember
}

// groupMember is one of them. Running is nil while it is down; now is the same for those who are not the test's own goroutine.
type groupMember struct {
	*running
	now    atomic.Pointer[running]
	index  int
	dir    string
	points *failpoint.Set
	server *http.Server
	ended  chan error // what Run returned
	cancel context.CancelFunc
}

func raftAt(i int) string    { return fmt.Sprintf("raft-%d:1", i) }
func serviceAt(i int) string { return fmt.Sprintf("service-%d:1", i) }

// newGroup starts a group of n and waits until it serves.
func newGroup(t testing.TB, n int, change ...func(*Config)) *group {
	g := &group{t: t, net: memnet.New(), bucket: memory.New(), change: change}
	for i := range n {
		g.peers = append(g.peers, raftAt(i))
		g.members = append(g.members, &groupMember{index: i, dir: fastDir(t)})
	}
	for _, m := range g.members {
		g.start(m)
	}
	g.leader()
	return g
}

// start runs a member over its directory.
func (g *group) start(m *groupMember) {
	g.t.Helper()
	cfg := DefaultConfig(m.dir)
	m.points = &failpoint.Set{}
	cfg.Failpoints = m.points
	cfg.Raft.Address, cfg.Raft.Service, cfg.Raft.Network, cfg.Raft.Peers = raftAt(m.index), serviceAt(m.index), g.net, g.peers
	for _, c := range g.change {
		c(&cfg)
	}
	reg := prometheus.NewRegistry()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	opened, err := Open(cfg, g.bucket, log, reg)
	if err != nil {
		g.t.Fatalf("open member %d: %v", m.index, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.running, m.cancel, m.ended = &running{Metastore: opened, t: g.t, reg: reg}, cancel, make(chan error, 1)
	m.now.Store(m.running)
	go func() { m.ended <- opened.Run(ctx) }()

	mux := http.NewServeMux()
	mux.Handle(metastorev1connect.NewIndexServiceHandler(opened.Index()))
	mux.Handle(metastorev1connect.NewMembershipServiceHandler(opened.Membership()))
	l, err := g.net.Listen(serviceAt(m.index))
	if err != nil {
		g.t.Fatal(err)
	}
	m.server = &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	m.server.Protocols.SetUnencryptedHTTP2(true)
	server := m.server
	go func() { _ = server.Serve(l) }()
}

// stop stops a member in good order.
func (g *group) stop(m *groupMember) {
	g.t.Helper()
	if err := g.end(m); err != nil {
		g.t.Errorf("member %d: %v", m.index, err)
	}
}

// crash has a member vanish: nobody hears from it that it stops.
func (g *group) crash(m *groupMember) {
	g.t.Helper()
	for _, other := range g.members {
		g.net.Partition(raftAt(other.index), other != m && other.running != nil)
	}
	g.net.Partition(raftAt(m.index), true)
	time.Sleep(2 * time.Second) // a leader notices that it is alone, and has nobody to hand over to
	g.stop(m)
	g.heal()
}

// end stops a member and returns what it ended with.
func (g *group) end(m *groupMember) error {
	_ = m.server.Close()
	m.cancel()
	err := <-m.ended
	m.down()
	return err
}

func (m *groupMember) down() {
	m.running = nil
	m.now.Store(nil)
}

func (g *group) heal() {
	for _, m := range g.members {
		g.net.Partition(raftAt(m.index), false)
	}
}

// up are the members that run.
func (g *group) up() (all []*groupMember) {
	for _, m := range g.members {
		if m.running != nil {
			all = append(all, m)
		}
	}
	return all
}

// leader waits for one member to lead that is ready.
func (g *group) leader() (found *groupMember) {
	g.t.Helper()
	g.until("a leader", func() bool {
		for _, m := range g.up() {
			if m.term.Load() != nil && m.Ready() == nil {
				found = m
			}
		}
		return found != nil
	})
	return found
}

func (g *group) until(what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("not within two minutes: %s", what)
		}
	}
}

// client returns a client that knows all members by address, and how to be done with it.
func (g *group) client() (c *client.Client, done func()) {
	t := &http.Transport{DialContext: g.net.DialContext, Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	var addresses []string
	for _, m := range g.members {
		addresses = append(addresses, serviceAt(m.index))
	}
	return client.New(addresses, &http.Client{Transport: t}), t.CloseIdleConnections
}

// agree waits until all members are at the leader's index and wants them to have one state.
func (g *group) agree() {
	g.t.Helper()
	g.until("all members are at the same index with the same state", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		at, err := g.leader().node.ReadIndex(ctx)
		if err != nil {
			return false
		}
		hashes := map[[32]byte]bool{}
		for _, m := range g.up() {
			if m.state.Wait(ctx, at) != nil || m.state.Position().Index != at {
				return false
			}
			h, err := m.StateHash()
			if err != nil {
				return false
			}
			hashes[h] = true
		}
		if len(hashes) > 1 {
			g.t.Fatalf("at index %d members have %d states", at, len(hashes))
		}
		return true
	})
}

// close ends all of it.
func (g *group) close() {
	for _, m := range g.up() {
		g.stop(m)
	}
}

// bubble is newGroup whose members are stopped at the end of fn, within a bubble.
func bubble(t *testing.T, n int, fn func(*testing.T, *group), change ...func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, n, change...)
		fn(t, g)
		g.heal()
		g.close()
	})
}

func TestAGroupServesThroughItsLeader(t *testing.T) {
	bubble(t, 3, func(t *testing.T, g *group) {
		c, done := g.client()
		defer done()
		id := newID()
		if _, err := c.AddSegments(t.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{
			Segments: []*storagev1.BlockMeta{segment(id, 1, dataset{"a", "web", 1, 2})},
		})); err != nil {
			t.Fatal(err)
		}
		for _, m := range g.members { // each of them has it, whoever leads
			if got := m.ids("a"); !slices.Equal(got, []string{id}) {
				t.Errorf("member %d finds %v", m.index, got)
			}
			if m == g.leader() {
				continue
			}
			if code := connect.CodeOf(m.add(segment(newID(), 1, dataset{"a", "web", 1, 2}))); code != connect.CodeFailedPrecondition {
				t.Errorf("member %d takes a write: %v", m.index, code)
			}
		}
		g.agree()
	})
}

// With fewer than half of the members nothing is acknowledged, and what was is still there when they are back.
func TestWithoutAQuorumNothingIsAcknowledged(t *testing.T) {
	bubble(t, 3, func(t *testing.T, g *group) {
		c, done := g.client()
		defer done()
		lead := g.leader()
		id := newID()
		lead.mustAdd(segment(id, 1, dataset{"a", "web", 1, 2}))
		for _, m := range g.members {
			if m != lead {
				g.crash(m)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := c.AddSegments(ctx, connect.NewRequest(&metastorev1.AddSegmentsRequest{
			Segments: []*storagev1.BlockMeta{segment(newID(), 1, dataset{"a", "web", 1, 2})},
		})); err == nil {
			t.Error("acknowledged without a quorum")
		}
		if lead.Ready() == nil {
			t.Error("ready without a quorum")
		}
		answer, err := lead.Index().Find(t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}, Stale: true}))
		if err != nil || len(answer.Msg.GetEntries()) == 0 || answer.Msg.GetEntries()[0].GetId() != id {
			t.Errorf("a stale read: %v, %v", answer, err)
		}
		for _, m := range g.members {
			if m.running == nil {
				g.start(m)
			}
		}
		g.leader()
		g.agree()
		for _, m := range g.members {
			if !slices.Contains(m.ids("a"), id) {
				t.Errorf("member %d has lost what was acknowledged", m.index)
			}
		}
	})
}

// Every member is killed at once, again and again.
func TestAllMembersGoDownAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, g *group) {
		var want []string
		for range 3 {
			lead := g.leader()
			for range 10 {
				m := segment(newID(), 1, dataset{"a", "web", 1, 2})
				lead.mustAdd(m)
				want = append(want, m.GetId())
			}
			for _, m := range g.members {
				g.net.Partition(raftAt(m.index), true)
			}
			time.Sleep(2 * time.Second)
			for _, m := range g.members {
				g.stop(m)
			}
			g.heal()
			begun := time.Now()
			for _, m := range g.members {
				g.start(m)
			}
			g.leader()
			t.Logf("a leader serves %v after all had gone", time.Since(begun))
		}
		g.agree()
		for _, m := range g.members {
			if got := m.ids("a"); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Errorf("member %d has %d entries, want %d", m.index, len(got), len(want))
			}
		}
	})
}

// A member that was away for long is sent a snapshot while it serves, and its view is the new one.
func TestASnapshotIsInstalledWhileServing(t *testing.T) {
	small := func(c *Config) {
		c.Raft.SnapshotThreshold, c.Raft.TrailingLogs, c.Raft.SnapshotInterval = 20, 30, time.Second
	}
	bubble(t, 3, func(t *testing.T, g *group) {
		lead := g.leader()
		var away *groupMember
		for _, m := range g.members {
			if m != lead {
				away = m
			}
		}
		before := newID()
		lead.mustAdd(segment(before, 1, dataset{"a", "web", 1, 2}))
		g.until("it has the first", func() bool { return slices.Equal(away.ids("a"), []string{before}) })
		g.net.Partition(raftAt(away.index), true)
		for range 200 {
			lead.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		}
		if err := lead.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := lead.ids("a")
		away.points.Do("restore/written", 1, func() error { return nil })
		g.net.Partition(raftAt(away.index), false)
		g.until("it finds all of them", func() bool {
			answer, err := away.Index().Find(t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}}))
			return err == nil && len(answer.Msg.GetEntries()) == len(want)
		})
		if away.points.Failed("restore/written") != 1 {
			t.Error("no snapshot was installed")
		}
		g.agree()
	}, small)
}

// A member whose directory was emptied gets everything from the others.
func TestAnEmptiedMemberComesBack(t *testing.T) {
	bubble(t, 3, func(t *testing.T, g *group) {
		lead := g.leader()
		for range 20 {
			lead.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		}
		lost := g.members[(lead.index+1)%3]
		g.crash(lost)
		lost.dir = fastDir(t)
		g.start(lost)
		g.until("the group has three voters again", func() bool {
			answer, err := g.leader().Cluster().GetCluster(t.Context(), connect.NewRequest(&adminv1.GetClusterRequest{}))
			if err != nil {
				return false
			}
			voters := 0
			for _, m := range answer.Msg.GetMembers() {
				if m.GetSuffrage() == adminv1.Suffrage_SUFFRAGE_VOTER && m.GetReachable() {
					voters++
				}
			}
			return voters == 3 && len(answer.Msg.GetMembers()) == 3
		})
		g.agree()
		if got := lost.ids("a"); len(got) != 20 {
			t.Errorf("it has %d entries, want 20", len(got))
		}
	})
}

func TestChangesOfTheGroupAreRefusedWithReasons(t *testing.T) {
	bubble(t, 3, func(t *testing.T, g *group) {
		lead := g.leader()
		cluster := lead.Cluster()
		_, err := cluster.RemoveMember(t.Context(), connect.NewRequest(&adminv1.RemoveMemberRequest{Id: "x"}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("a stranger is removed: %v", err)
		}
		_, err = cluster.AddMember(t.Context(), connect.NewRequest(&adminv1.AddMemberRequest{}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("nobody is added: %v", err)
		}
		_, err = cluster.AddMember(t.Context(), connect.NewRequest(&adminv1.AddMemberRequest{RaftAddress: "nowhere:1"}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("one that does not answer is added: %v", err)
		}
		down := g.members[(lead.index+1)%3]
		g.crash(down)
		lead = g.leader()
		other := g.members[3-lead.index-down.index]
		_, err = lead.Cluster().RemoveMember(t.Context(), connect.NewRequest(&adminv1.RemoveMemberRequest{Id: other.node.ID()}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("a quorum is given up: %v", err)
		}
		_, err = other.Cluster().RemoveMember(t.Context(), connect.NewRequest(&adminv1.RemoveMemberRequest{Id: lead.node.ID()}))
		var elsewhere *connect.Error
		if !errors.As(err, &elsewhere) || len(elsewhere.Details()) != 1 {
			t.Errorf("a follower changes the group: %v", err)
		}
		answer, err := lead.Cluster().TransferLeadership(t.Context(), connect.NewRequest(&adminv1.TransferLeadershipRequest{}))
		if err != nil || answer.Msg.GetLeader() != other.node.ID() {
			t.Errorf("the other does not lead: %v, %v", answer, err)
		}
		g.until("the other serves", func() bool { return g.leader() == other })
	})
}

// The files of one cluster are not those of another, and a log without its state is no reason to vote.
func TestAMemberOfAnotherClusterStaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 1)
		stranger := &groupMember{index: 1, dir: fastDir(t)}
		g.members = append(g.members, stranger)
		g.peers = nil
		g.start(stranger) // a group of its own
		g.until("it leads its own", func() bool { return stranger.term.Load() != nil })
		g.stop(stranger)
		g.peers = []string{raftAt(0), raftAt(1)}
		g.start(stranger)
		time.Sleep(time.Minute)
		if got := g.members[0].node.Status().Voters; got != 1 {
			t.Errorf("the first cluster has %d voters", got)
		}
		if _, err := g.members[0].Cluster().AddMember(t.Context(), connect.NewRequest(&adminv1.AddMemberRequest{RaftAddress: raftAt(1)})); err == nil {
			t.Error("it was added")
		}
		if got := raftnode.Reason(g.members[0].Ready()); got != "" {
			t.Errorf("the first is disturbed: %s", got)
		}
		g.close()
	})
}
