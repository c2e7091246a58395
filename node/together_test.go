package node_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/queryfrontend"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// together starts processes that each play every role but the metastore, node-0:4040 and so on, over one metastore.
func together(t *testing.T, bucket objstore.Bucket, n int, change func(*node.Config)) (p *pieces, nodes []*nodetest.Node) {
	p = &pieces{cluster: nodetest.New(t)}
	p.cluster.Bucket = bucket
	start := func(addr string, roles ...node.Role) *nodetest.Node {
		cfg := node.DefaultConfig()
		cfg.DataDir, cfg.HTTP, cfg.Roles, cfg.SelfProfile, cfg.Bucket = t.TempDir(), addr, roles, false, "s3://shared"
		cfg.LeafBytes = 1 // every object is a part of its own
		neverCompact(&cfg)
		if change != nil {
			change(&cfg)
		}
		if roles[0] != node.Metastore {
			cfg.Metastore = []string{"store:4040"}
		}
		return p.cluster.Start(cfg)
	}
	p.store = start("store:4040", node.Metastore)
	for i := range n {
		nodes = append(nodes, start(fmt.Sprintf("node-%d:4040", i), node.Distributor, node.SegmentWriter, node.QueryBackend, node.QueryFrontend))
	}
	return p, nodes
}

// TestProcessesShareTheirWork pushes to and asks either of two processes: a shard has one writer, whoever got the push, and a query
// is read by the backends of both.
func TestProcessesShareTheirWork(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		p, nodes := together(t, memory.New(), 2, func(cfg *node.Config) { cfg.MultiTenant = true })
		time.Sleep(time.Second) // both know of each other
		const tenants, pushes = 12, 5
		base, start := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), time.Now().Add(-time.Minute).Truncate(time.Millisecond)
		var names []string
		totals := map[tenant.ID]int64{}
		for i := range tenants {
			names = append(names, fmt.Sprintf("tenant-%d", i))
		}
		for round := range 3 {
			var group sync.WaitGroup
			for i, name := range names {
				for j := range pushes * len(nodes) {
					profile, body := scaled(base, int64(i+1), start.Add(time.Duration(100*round+j)*time.Millisecond))
					totals[tenant.ID(name)] += oracle.Sum("delay", profile).Total
					group.Go(func() {
						if err := push(nodes[j%len(nodes)], tenant.ID(name), series("mutex", "web", body)); err != nil {
							t.Error(err)
						}
					})
				}
			}
			group.Wait()
		}
		found, err := metastorev1connect.NewIndexServiceClient(p.store.HTTP(), p.store.URL()).Find(t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: names}))
		if err != nil {
			t.Fatal(err)
		}
		writers, shards := map[string]bool{}, map[uint32]string{}
		for _, e := range found.Msg.GetEntries() {
			writer := e.GetStrings()[e.GetWriter()]
			if owner, ok := shards[e.GetShard()]; ok && owner != writer {
				t.Errorf("shard %d has the writers %s and %s", e.GetShard(), owner, writer)
			}
			shards[e.GetShard()], writers[writer] = writer, true
		}
		if len(writers) != 2 {
			t.Errorf("the writers are %v", writers)
		}
		// Pushes that come together share an object of each shard, wherever they come to; now and then the first does not wait.
		if objects := len(found.Msg.GetEntries()); objects >= 3*len(nodes)*len(shards) {
			t.Errorf("%d objects of %d shards for 3 times %d pushes", objects, len(shards), tenants*pushes*len(nodes))
		}
		for i, n := range nodes {
			before := []float64{requests(t, nodes[0]), requests(t, nodes[1])}
			asked := 0
			for id, total := range totals {
				resp, err := n.Querier(id).SelectMergeStacktraces(t.Context(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
					ProfileTypeID: typeID("mutex", base, 1), LabelSelector: `{}`, Start: start.UnixMilli(), End: start.Add(time.Second).UnixMilli(),
				}))
				if err != nil {
					t.Fatal(err)
				}
				if got := resp.Msg.GetFlamegraph().GetTotal(); got != total {
					t.Errorf("at node %d %s has %d, want %d", i, id, got, total)
				}
				_, backends, _ := strings.Cut(resp.Header().Get(queryfrontend.StatisticsHeader), "backends=")
				of, err := strconv.Atoi(backends)
				if err != nil {
					t.Fatal(err)
				}
				asked += of
			}
			sum := 0
			for j := range nodes {
				more := requests(t, nodes[j]) - before[j]
				if sum += int(more); more == 0 {
					t.Errorf("queries at node %d are not read by node %d", i, j)
				}
			}
			if sum != asked {
				t.Errorf("backends were asked %d times, the statistics say %d", sum, asked)
			}
			if n.Dialled(fmt.Sprintf("node-%d:4040", i)) || !n.Dialled(fmt.Sprintf("node-%d:4040", 1-i)) {
				t.Errorf("node %d called itself over the network, or did not call the other", i)
			}
		}
	})
}

// requests returns how many parts of queries a node has read.
func requests(t *testing.T, n *nodetest.Node) float64 {
	t.Helper()
	return metric(t, n, `kiln_query_backend_requests_total{code="ok"}`)
}

// TestProcessesComeAndGoUnderPushes stops and starts one of two processes while pushes keep coming to the other.
func TestProcessesComeAndGoUnderPushes(t *testing.T) {
	_, nodes := together(t, memory.New(), 2, nil)
	for i := range nodes {
		other := nodes[1-i]
		s := newStream()
		stop := s.run(other, 8)
		s.await(t, 20)
		nodes[i].Stop()
		s.await(t, 20)
		nodes[i] = nodes[i].Restart()
		s.await(t, 20)
		stop()
		s.wantNoFailures(t)
		s.verify(t, other)
		s.verify(t, nodes[i])
	}
}

// TestAProcessThatVanishes is TestAWriterThatVanishes where the pushes come to the other process.
func TestAProcessThatVanishes(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		p, nodes := together(t, faulty(t), 2, nil)
		s := newClients()
		stop := s.run(nodes[0], 8)
		time.Sleep(5 * time.Second)
		p.cluster.Partition("node-1:4040", true)
		time.Sleep(20 * time.Second)
		failed, acks := s.failures(), s.acks()
		time.Sleep(20 * time.Second)
		if more := s.failures() - failed; more > 0 || s.acks() == acks {
			t.Errorf("%d pushes failed and %d did not while one of two processes was known to be gone", more, s.acks()-acks)
		}
		if failed > 8 {
			t.Errorf("%d pushes failed, of 8 clients that wait for their answers", failed)
		}
		stop()
		s.verify(t, nodes[0]) // without the other's backend
		p.cluster.Partition("node-1:4040", false)
		time.Sleep(10 * time.Second)
		if err := s.push(nodes[1]); err != nil {
			t.Error(err)
		}
		s.verify(t, nodes[1])
		t.Logf("%d of %d pushes acknowledged", s.acks(), s.sent)
	})
}

// TestPushesGoOnWhenTheLeaderIsNew restarts the metastore while pushes keep coming: it knows nobody then, and hears of each node by its
// next heartbeat.
func TestPushesGoOnWhenTheLeaderIsNew(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		p := apart(t, faulty(t), 2, nil)
		s := newClients()
		stop := s.run(p.front, 8)
		for range 3 {
			time.Sleep(7 * time.Second)
			p.store = p.store.Restart()
		}
		time.Sleep(20 * time.Second)
		stop()
		s.wantNoFailures(t)
		s.verify(t, p.front)
		if members := metric(t, p.store, "kiln_metastore_members"); members != 4 {
			t.Errorf("the metastore knows %v nodes, want 4", members)
		}
		if watchers := metric(t, p.store, "kiln_metastore_watchers"); watchers != 4 {
			t.Errorf("%v nodes watch, want 4", watchers)
		}
	})
}
