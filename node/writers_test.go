package node_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// pieces is a system of some processes on one bucket.
type pieces struct {
	cluster *nodetest.Cluster
	store   *nodetest.Node   // the metastore, and the compaction
	writers []*nodetest.Node // writer-0:4040 and so on
	front   *nodetest.Node   // the doors for profiles and questions
}

// apart starts a system with that many writers. Change may change the configuration of each node.
func apart(t *testing.T, bucket objstore.Bucket, writers int, change func(*node.Config)) *pieces {
	p := &pieces{cluster: nodetest.New(t)}
	p.cluster.Bucket = bucket
	start := func(addr string, roles ...node.Role) *nodetest.Node {
		cfg := node.DefaultConfig()
		cfg.DataDir, cfg.HTTP, cfg.Roles, cfg.SelfProfile = t.TempDir(), addr, roles, false
		cfg.Bucket = "mem://" // the budget of puts is for others
		if roles[0] != node.Metastore {
			cfg.Metastore = []string{"store:4040"}
		}
		if change != nil {
			change(&cfg)
		}
		return p.cluster.Start(cfg)
	}
	p.store = start("store:4040", node.Metastore, node.CompactionWorker)
	for i := range writers { // before the distributor, which asks who is there
		p.writers = append(p.writers, start(fmt.Sprintf("writer-%d:4040", i), node.SegmentWriter))
	}
	p.front = start("front:4040", node.Distributor, node.QueryBackend, node.QueryFrontend)
	return p
}

// stream is pushes that keep coming, each of a value and a label of its own.
type stream struct {
	base  *gprofile.Profile
	start time.Time
	think time.Duration // between an answer and the next push

	mu     sync.Mutex // guards what follows
	sent   int
	totals map[int]int64 // of those that were acknowledged
	failed map[int]error
}

func newStream() *stream {
	return &stream{
		base: oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), start: time.Now().Add(-time.Minute).Truncate(time.Millisecond),
		totals: map[int]int64{}, failed: map[int]error{},
	}
}

// push makes one push to a node.
func (s *stream) push(n *nodetest.Node) error {
	s.mu.Lock()
	i := s.sent
	s.sent++
	s.mu.Unlock()
	p, body := scaled(s.base, int64(i+1), s.start.Add(time.Duration(i)*time.Millisecond))
	err := push(n, "", series("mutex", fmt.Sprintf("service-%d", i%7), body, "push", fmt.Sprint(i)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed[i] = err
		return err
	}
	s.totals[i] = oracle.Sum("delay", p).Total
	return nil
}

// run pushes from that many sides until stop is called, which returns when all have their answers.
func (s *stream) run(n *nodetest.Node, pushers int) (stop func()) {
	end := make(chan struct{})
	var group sync.WaitGroup
	for range pushers {
		group.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					if s.push(n) != nil {
						time.Sleep(time.Second)
					}
					time.Sleep(s.think)
				}
			}
		})
	}
	return func() { close(end); group.Wait() }
}

// await returns when that many more pushes are acknowledged.
func (s *stream) await(t *testing.T, more int) {
	t.Helper()
	first := s.acks()
	for deadline := time.Now().Add(20 * time.Second); s.acks() < first+more; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d pushes were acknowledged in 20 s, want %d", s.acks()-first, more)
		}
	}
}

func (s *stream) acks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.totals)
}

// verify wants what was acknowledged to be there once, and what failed once or not at all.
func (s *stream) verify(t *testing.T, n *nodetest.Node) {
	t.Helper()
	all := scope{selector: `{}`, start: s.start.UnixMilli(), end: s.start.Add(time.Duration(s.sent) * time.Millisecond).UnixMilli()}
	stored := seriesSum(t, n, all, typeID("mutex", s.base, 1), "push")
	for i := range s.sent {
		got, want := stored[fmt.Sprintf("push=%d", i)], oracle.Sum("delay", s.base).Total*int64(i+1)
		if s.failed[i] != nil && got == 0 {
			continue
		}
		if got != want {
			t.Errorf("push %d (error %v) is there with %d, want %d", i, s.failed[i], got, want)
		}
	}
}

func (s *stream) wantNoFailures(t *testing.T) {
	t.Helper()
	for i, err := range s.failed {
		t.Errorf("push %d of %d: %v", i, s.sent, err)
	}
}

// TestWritersComeAndGoUnderPushes stops and starts each of two writers while pushes keep coming: none may fail, be lost or be
// there twice.
func TestWritersComeAndGoUnderPushes(t *testing.T) {
	p := apart(t, memory.New(), 2, nil)
	s := newStream()
	stop := s.run(p.front, 16)
	for i, w := range p.writers {
		s.await(t, 50)
		w.Stop()
		s.await(t, 50)
		p.writers[i] = w.Restart()
	}
	s.await(t, 50)
	stop()
	s.wantNoFailures(t)
	s.verify(t, p.front)
	t.Logf("%d pushes", s.sent)
}
