package metastore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/anishathalye/porcupine"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/raftnode"
)

// groupSeeds is how many seeds TestAGroupIsLinearizable runs; one seed alone is given as =N.
const groupSeeds = "KILN_GROUP_SEEDS"

// TestAGroupIsLinearizable registers segments through the client of the other roles and looks for them on any member, while
// members crash, stop, are cut off, lose their disks or their directories, take snapshots and hand over. Every history must be one
// of registers that are written once, every acknowledged segment must be on every member in the end, and the members must
// have one state.
func TestAGroupIsLinearizable(t *testing.T) {
	first, last := 0, 6
	if testing.Short() {
		last = 2
	}
	if s := os.Getenv(groupSeeds); s != "" {
		n, err := strconv.Atoi(s)
		if s[0] == '=' {
			n, err = strconv.Atoi(s[1:])
			first = n
			n++
		}
		if err != nil {
			t.Fatal(err)
		}
		last = n
	}
	for seed := first; seed < last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("reproduce: %s==%d go test ./metastore -run TestAGroupIsLinearizable", groupSeeds, seed)
				}
			}()
			small := func(c *Config) {
				c.Raft.SnapshotThreshold, c.Raft.TrailingLogs, c.Raft.SnapshotInterval = 100, 150, 2*time.Second
			}
			bubble(t, 3, func(t *testing.T, g *group) { linearizable(t, g, uint64(seed)) }, small)
		})
	}
}

// look is an input of the model: whether it registers or looks for the segment of its partition.
type look struct {
	segment int64
	write   bool
}

// registers is the model: a segment is absent until it is registered, and then present.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		by := map[int64][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(look).segment
			by[k] = append(by[k], op)
		}
		for _, ops := range by {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return false },
	Step: func(state, input, output any) (bool, any) {
		if input.(look).write {
			return true, true
		}
		return output.(bool) == state.(bool), state
	},
}

// observed is what clients saw. Time is the order in which calls began and ended.
type observed struct {
	clock atomic.Int64
	next  atomic.Int64 // the segment that is registered next; its profiles have that time

	mu    sync.Mutex
	ops   []porcupine.Operation
	acked []string
}

func (h *observed) add(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// linearizable runs clients and faults for two minutes of the bubble's time.
func linearizable(t *testing.T, g *group, seed uint64) {
	h := &observed{}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() { h.writeLoop(ctx, g, c) })
	}
	for c := range 4 {
		clients.Go(func() { h.readLoop(ctx, g, rand.New(rand.NewPCG(seed, uint64(c))), 4+c) })
	}
	faults(g, rand.New(rand.NewPCG(seed, 99)))
	stop()
	clients.Wait()
	g.leader()
	g.agree()
	for _, m := range g.members {
		got := m.ids("a")
		for _, id := range h.acked {
			if _, ok := slices.BinarySearch(got, id); !ok {
				t.Errorf("member %d has lost %s", m.index, id)
			}
		}
	}
	reads := 0
	for _, op := range h.ops {
		if !op.Input.(look).write {
			reads++
		}
	}
	t.Logf("%d of %d segments acknowledged, %d reads", len(h.acked), h.next.Load(), reads)
	if len(h.acked) < 500 || reads < 500 {
		t.Errorf("%d acknowledged and %d reads are too few to say anything", len(h.acked), reads)
	}
	if got := porcupine.CheckOperationsTimeout(registers, h.ops, time.Minute); got != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", got)
	}
}

// writeLoop registers one segment after another. One whose fate is not known may appear at any later time.
func (h *observed) writeLoop(ctx context.Context, g *group, client int) {
	c, done := g.client()
	defer done()
	for ctx.Err() == nil {
		k := h.next.Add(1)
		m := segment(newID(), 1, dataset{"a", "web", k, k})
		op := porcupine.Operation{ClientId: client, Input: look{k, true}, Call: h.clock.Add(1), Return: math.MaxInt64}
		calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		_, err := c.AddSegments(calling, connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{m}}))
		cancel()
		if err == nil {
			op.Return = h.clock.Add(1)
			h.mu.Lock()
			h.acked = append(h.acked, m.GetId())
			h.mu.Unlock()
		}
		h.add(op)
		time.Sleep(80 * time.Millisecond)
	}
}

// readLoop looks for one of the latest segments on any member.
func (h *observed) readLoop(ctx context.Context, g *group, rnd *rand.Rand, client int) {
	for ctx.Err() == nil {
		time.Sleep(40 * time.Millisecond)
		k := h.next.Load() - rnd.Int64N(6)
		m := g.members[rnd.IntN(len(g.members))].now.Load()
		if m == nil || k < 1 {
			continue
		}
		op := porcupine.Operation{ClientId: client, Input: look{k, false}, Call: h.clock.Add(1)}
		calling, cancel := context.WithTimeout(ctx, 5*time.Second)
		answer, err := m.Index().Find(calling, connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}, Start: k, End: k + 1}))
		cancel()
		if err != nil {
			continue // it says nothing
		}
		op.Output, op.Return = len(answer.Msg.GetEntries()) > 0, h.clock.Add(1)
		h.add(op)
	}
}

// faults makes one thing after another go wrong.
func faults(g *group, rnd *rand.Rand) {
	seconds := func(most int) { time.Sleep(time.Duration(rnd.IntN(most*1000)) * time.Millisecond) }
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); seconds(4) {
		m := g.members[rnd.IntN(len(g.members))]
		if rnd.IntN(2) == 0 {
			m = g.leader()
		}
		switch rnd.IntN(8) {
		case 0:
			g.crash(m)
			seconds(5)
			g.start(m)
		case 1:
			g.stop(m)
			g.start(m)
		case 2: // it hears nobody, and is heard
			g.net.Partition(raftAt(m.index), true)
			seconds(8)
			g.heal()
		case 3: // it is heard by nobody, and hears
			for _, other := range g.members {
				g.net.Partition(raftAt(other.index), other != m)
			}
			seconds(8)
			g.heal()
		case 4: // nobody hears anybody
			for _, other := range g.members {
				g.net.Partition(raftAt(other.index), true)
			}
			seconds(5)
			g.heal()
		case 5:
			hang(g, m)
		case 6:
			_, _ = m.node.Transfer(context.Background(), "")
		case 7:
			g.crash(m)
			m.dir = fastDir(g.t)
			g.start(m)
			g.until("the emptied member votes", func() bool {
				return g.leader().node.Status().Voters == len(g.members) && m.Ready() == nil
			})
		}
	}
	g.heal()
}

// hang has the disk of a member hang until the member gives up, and starts it again.
func hang(g *group, m *groupMember) {
	thawed := make(chan struct{})
	m.points.Do("raft/store", 1, func() error { <-thawed; return nil })
	select {
	case err := <-m.ended:
		if !errors.Is(err, raftnode.ErrStuck) {
			g.t.Errorf("a member whose disk hangs ends with %v", err)
		}
	case <-time.After(30 * time.Second):
		g.t.Errorf("member %d serves although its disk hangs", m.index)
	}
	close(thawed)
	g.until("what is left of it ends", func() bool { return m.node.Close() == nil })
	_ = m.server.Close()
	m.down()
	g.start(m)
}
