package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kilndb/kiln/internal/failpoint"
	"github.com/kilndb/kiln/internal/memnet"
)

// group is members on one memory network. Member i listens at "m<i>:1" and serves at "s<i>".
type group struct {
	t       *testing.T
	net     *memnet.Network
	dir     string
	members []*member
	points  []*failpoint.Set
}

// newGroup returns a group without members, of which so many may run.
func newGroup(t *testing.T, most int) *group {
	g := &group{t: t, net: memnet.New(), dir: t.TempDir(), members: make([]*member, most)}
	for range most {
		g.points = append(g.points, &failpoint.Set{})
	}
	return g
}

func (g *group) home(i int) string { return filepath.Join(g.dir, fmt.Sprint(i)) }

func address(i int) string { return fmt.Sprintf("m%d:1", i) }

// config is that of member i, whose peers are the first so many members.
func (g *group) config(i, peers int) Config {
	cfg := DefaultConfig(g.home(i))
	cfg.Address, cfg.Service, cfg.Network, cfg.Failpoints = address(i), fmt.Sprintf("s%d", i), g.net, g.points[i]
	for p := range peers {
		cfg.Peers = append(cfg.Peers, address(p))
	}
	return cfg
}

// start runs member i.
func (g *group) start(i, peers int, change ...func(*Config)) *member {
	cfg := g.config(i, peers)
	for _, c := range change {
		c(&cfg)
	}
	g.members[i] = run(g.t, cfg)
	return g.members[i]
}

// three starts a group of three.
func three(t *testing.T) *group {
	g := newGroup(t, 4)
	for i := range 3 {
		g.start(i, 3)
	}
	return g
}

// running are the members that run.
func (g *group) running() (all []*member) {
	for _, m := range g.members {
		if m != nil {
			all = append(all, m)
		}
	}
	return all
}

// leader waits for a leader.
func (g *group) leader() *member { g.t.Helper(); return leader(g.t, g.running()...) }

func (g *group) index(m *member) int { return slices.Index(g.members, m) }

// stop stops a member.
func (g *group) stop(m *member) {
	m.stop()
	g.members[g.index(m)] = nil
}

// apply applies a command and returns when it is.
func (g *group) apply(names ...string) {
	g.t.Helper()
	until(g.t, "a command is applied", func() bool {
		ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Second)
		defer cancel()
		_, err := g.leader().Apply(ctx, command(names...))
		return err == nil
	})
}

// agree waits until all members that run have the same state, and fails if they never do.
func (g *group) agree() {
	g.t.Helper()
	at, err := g.leader().ReadIndex(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	hashes := map[[32]byte]bool{}
	for _, m := range g.running() {
		until(g.t, "all catch up", func() bool { return m.state.Position().Index >= at })
		h, err := m.state.Hash()
		if err != nil {
			g.t.Fatal(err)
		}
		hashes[h] = true
	}
	if len(hashes) != 1 {
		g.t.Errorf("members have %d states", len(hashes))
	}
}

// suffrage returns how many members vote and how many learn.
func (g *group) suffrage() (voters, learners int) {
	for _, s := range g.leader().Members(g.t.Context()) {
		if s.Voter {
			voters++
		} else {
			learners++
		}
	}
	return voters, learners
}

func TestThreeMembersMakeAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3)
		g.start(2, 3)
		g.start(1, 3)
		time.Sleep(time.Minute)
		if g.members[1].hasState() || g.members[2].hasState() {
			t.Fatal("two of three have made a group: the third might be in one")
		}
		g.start(0, 3)
		first := g.leader()
		g.apply("a")
		for i, m := range g.members {
			until(t, "a follower applies", func() bool { return m.has(t, "a") })
			if m == first {
				continue
			}
			var elsewhere *NotLeaderError
			if _, err := m.Apply(t.Context(), command("x")); !errors.As(err, &elsewhere) || elsewhere.Leader != first.cfg.Service {
				t.Errorf("member %d refuses with %v, want to be sent to %s", i, err, first.cfg.Service)
			}
			if err := m.Verify(t.Context()); !errors.As(err, &elsewhere) {
				t.Errorf("member %d leads: %v", i, err)
			}
			if err := m.Ready(); err != nil {
				t.Errorf("member %d is not ready: %v", i, err)
			}
		}
		begun := time.Now()
		g.stop(first)
		second := g.leader()
		t.Logf("another leads %v after the leader was told to stop", time.Since(begun))
		g.apply("b")
		for i := range g.members {
			if g.members[i] == nil {
				g.start(i, 3)
			}
		}
		g.agree()
		for _, m := range g.members { // without a quorum nothing is acknowledged
			if m != second {
				g.stop(m)
			}
		}
		until(t, "the last member steps down", func() bool { return !second.Leads() })
		if _, err := second.Apply(t.Context(), command("c")); err == nil {
			t.Error("applied without a quorum")
		}
		if _, err := second.ReadIndex(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("read without a quorum: %v", err)
		}
		if got := Reason(second.Ready()); got != "no_leader" {
			t.Errorf("without a quorum the reason is %q", got)
		}
	})
}

// A read on any member sees what was acknowledged before it began; on one that is cut off it is refused.
func TestReadsAreLinearizableEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		g.leader()
		for i := range 50 {
			name := fmt.Sprint(i)
			g.apply(name)
			for _, m := range g.running() {
				if _, err := m.ReadIndex(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !m.has(t, name) {
					t.Fatalf("member %d misses %s", g.index(m), name)
				}
			}
		}
		old := g.leader()
		g.net.Partition(old.cfg.Address, true) // those who dial it; it still reaches the others
		for _, m := range g.running() {
			if m != old {
				g.net.Partition(m.cfg.Address, true)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := old.ReadIndex(ctx); err == nil {
			t.Error("a leader that nobody hears has read")
		}
		for _, m := range g.running() {
			g.net.Partition(m.cfg.Address, false)
		}
		g.apply("after")
		g.agree()
	})
}

// Reads that come while others are asked for share a question.
func TestReadsShareRounds(t *testing.T) {
	var r reads
	begun, answer := make(chan struct{}, 1), make(chan uint64)
	asked := 0
	ask := func() (uint64, error) {
		asked++
		begun <- struct{}{}
		return <-answer, nil
	}
	first := r.join(ask)
	<-begun
	var rest []*round
	for range 100 {
		rest = append(rest, r.join(ask))
	}
	answer <- 1
	<-first.done
	<-begun
	answer <- 2
	for _, late := range rest {
		if <-late.done; late.index != 2 {
			t.Errorf("who came after a question had begun has its answer %d", late.index)
		}
	}
	if first.index != 1 || asked != 2 {
		t.Errorf("%d questions, the first answered with %d", asked, first.index)
	}
}

// A member alone answers reads while raft's loop waits for the state machine, which waits for its disk.
func TestReadsAloneDoNotWaitForWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig(filepath.Join(t.TempDir(), "raft"))
		cfg.Failpoints = &failpoint.Set{}
		m := run(t, cfg)
		leader(t, m)
		disk := make(chan struct{})
		cfg.Failpoints.Do("apply/before-commit", 1, func() error { <-disk; return nil })
		for raftAnswers := true; raftAnswers; { // it hands on some batches before it waits as well
			go func() { _, _ = m.Apply(context.Background(), command("a")) }()
			verified := make(chan error, 1)
			go func() { verified <- m.raft.VerifyLeader().Error() }()
			select {
			case <-verified:
			case <-time.After(time.Second):
				raftAnswers = false
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.ReadIndex(ctx); err != nil {
			t.Errorf("a read waits for the disk: %v", err)
		}
		if err := m.Verify(ctx); err != nil {
			t.Errorf("so does who asks whether it leads: %v", err)
		}
		close(disk)
	})
}

func TestAGroupGrowsFromOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 5)
		alone := DefaultConfig(g.home(0)) // it began in memory
		g.members[0] = run(t, alone)
		g.apply("a")
		g.stop(g.members[0])
		g.start(0, 0)
		g.apply("b")
		for i := 1; i < 3; i++ {
			g.start(i, 1) // it asks the first to be taken in
			until(t, "it votes", func() bool { voters, _ := g.suffrage(); return voters == i+1 })
		}
		g.start(3, 1, func(c *Config) { c.Learner = true })
		g.start(4, 0, func(c *Config) { c.Peers = []string{"nobody:1"} }) // it waits to be asked
		if _, err := g.leader().Add(t.Context(), address(4)); err != nil {
			t.Fatal(err)
		}
		until(t, "the last votes", func() bool { voters, learners := g.suffrage(); return voters == 4 && learners == 1 })
		time.Sleep(time.Minute)
		if _, learners := g.suffrage(); learners != 1 {
			t.Error("one that wants to learn only votes")
		}
		g.apply("c")
		g.agree()
		for _, m := range g.members {
			if !m.has(t, "a") || !m.has(t, "c") {
				t.Errorf("member %d misses what was applied", g.index(m))
			}
		}
		first := g.leader()
		g.stop(g.members[0])
		if first.cfg.Address == address(0) {
			g.leader()
		}
		g.apply("d")
	})
}

func TestAMemberThatLostItsLogComesBackAsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		g.apply("a")
		old := g.leader()
		lost := g.index(old)
		was := old.ID()
		g.stop(old)
		g.leader()
		m := g.start(lost, 3, func(c *Config) { c.Dir = filepath.Join(t.TempDir(), "new") })
		if m.ID() == was {
			t.Fatal("it has the same id")
		}
		until(t, "it votes in the place of the old", func() bool {
			all := g.leader().Members(t.Context())
			return len(all) == 3 && !slices.ContainsFunc(all, func(s MemberStatus) bool { return !s.Voter || s.ID == was })
		})
		g.apply("b")
		g.agree()
		// The old one is back on another address: it is told that it was removed, and disturbs nobody.
		term := g.leader().Status().Term
		back := run(t, g.config(lost, 3).at("m9:1", g.home(lost)))
		until(t, "it knows that it was removed", func() bool { return Reason(back.Ready()) == "removed" })
		time.Sleep(time.Minute)
		if now := g.leader().Status().Term; now != term {
			t.Errorf("the term is %d, was %d", now, term)
		}
	})
}

// at returns the configuration of a member at another address over another directory.
func (c Config) at(address, dir string) Config {
	c.Address, c.Dir = address, dir
	return c
}

func TestAMemberMovesToAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		for _, i := range []int{g.index(g.leader()), 1} {
			m := g.members[i]
			g.stop(m)
			g.leader()
			moved := g.config(i, 3).at("n"+address(i), m.cfg.Dir)
			moved.Peers = []string{"m0:1", "m1:1", "m2:1", "nm0:1", "nm1:1", "nm2:1"}
			g.members[i] = run(t, moved)
			until(t, "the others know its address", func() bool {
				return slices.ContainsFunc(g.leader().Members(t.Context()), func(s MemberStatus) bool {
					return s.ID == m.ID() && s.Address == moved.Address && s.Hello != nil
				})
			})
			g.apply(moved.Address)
			g.agree()
		}
	})
}

func TestUnsafeChangesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		lead := g.leader()
		var others []*member
		for _, m := range g.running() {
			if m != lead {
				others = append(others, m)
			}
		}
		refused := func(what string, err error, want error, text string) {
			t.Helper()
			if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v, want %v with %q", what, err, want, text)
			}
		}
		ctx := t.Context()
		refused("remove a stranger", lead.Remove(ctx, "x"), ErrUnknownMember, "x")
		refused("promote a stranger", lead.Promote(ctx, "x"), ErrUnknownMember, "x")
		_, err := lead.Add(ctx, "nowhere:1")
		refused("add nobody", err, ErrUnsafe, "")
		_, err = lead.Transfer(ctx, "x")
		refused("transfer to a stranger", err, ErrUnknownMember, "x")
		var elsewhere *NotLeaderError
		if err := others[0].Remove(ctx, lead.ID()); !errors.As(err, &elsewhere) || elsewhere.Leader != lead.cfg.Service {
			t.Errorf("a follower changes the group: %v", err)
		}

		down := others[0]
		g.stop(down)
		refused("remove one of two that answer", lead.Remove(ctx, others[1].ID()), ErrUnsafe, "of which 1 answer and 2 must")
		if err := lead.Remove(ctx, down.ID()); err != nil {
			t.Errorf("the one that is down: %v", err)
		}
		g.apply("a")
		if err := lead.Remove(ctx, others[1].ID()); err != nil {
			t.Errorf("the other: %v", err)
		}
		refused("remove the last", lead.Remove(ctx, lead.ID()), ErrUnsafe, "last voter")
		g.apply("b")
		until(t, "the removed one knows", func() bool { return Reason(others[1].Ready()) == "removed" })
		g.stop(others[1])

		learner := g.start(3, 3, func(c *Config) { c.Learner = true })
		until(t, "a learner", func() bool { _, learners := g.suffrage(); return learners == 1 })
		_, err = lead.Transfer(ctx, learner.ID())
		refused("transfer to a learner", err, ErrUnsafe, "does not vote")
		g.net.Partition(learner.cfg.Address, true)
		g.apply("c")
		refused("promote one that is cut off", lead.Promote(ctx, learner.ID()), ErrUnsafe, "")
		g.net.Partition(learner.cfg.Address, false)
		until(t, "it is promoted", func() bool { return lead.Promote(ctx, learner.ID()) == nil })
		until(t, "it leads", func() bool {
			now, err := g.leader().Transfer(ctx, learner.ID())
			return err == nil && now == learner.ID()
		})
		g.apply("d")
		g.agree()
	})
}

func TestALeaderCanBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		lead := g.leader()
		if err := lead.Remove(t.Context(), lead.ID()); err != nil {
			t.Fatal(err)
		}
		until(t, "it knows that it was removed", func() bool { return Reason(lead.Ready()) == "removed" })
		g.apply("a")
		if voters, _ := g.suffrage(); voters != 2 {
			t.Errorf("%d voters are left", voters)
		}
	})
}

func TestTwoClustersDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 2)
		one := run(t, g.config(0, 0))
		leader(t, one)
		other := run(t, g.config(1, 0), "another")
		leader(t, other)
		if _, err := one.Add(t.Context(), address(1)); !errors.Is(err, ErrCluster) {
			t.Errorf("a member of another cluster is added: %v", err)
		}
		c, err := streamLayer{other.port.streams, g.net, address(1)}.Dial(targetOf(one.id, "m0:1"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a stream of another cluster is not closed: %v", err)
		}
	})
}

// A leader whose disk hangs goes on sending heartbeats; the others would wait for it for ever.
func TestALeaderWhoseDiskHangsMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		g.apply("a")
		lead := g.leader()
		thaw := make(chan struct{})
		g.points[g.index(lead)].Do("raft/store", 1, func() error { <-thaw; return nil })
		lead.mayFail.Store(true)
		go func() { _, _ = lead.Apply(context.Background(), command("b")) }()
		begun := time.Now()
		rest := slices.DeleteFunc(g.running(), func(m *member) bool { return m == lead })
		second := leader(t, rest...)
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("another leads after %v", took)
		} else {
			t.Logf("another leads after %v", took)
		}
		if err := <-lead.ended; !errors.Is(err, ErrStuck) {
			t.Errorf("the member with the disk ends with %v", err)
		}
		if got := Reason(lead.Ready()); got != "stuck" {
			t.Errorf("its reason is %q", got)
		}
		if _, err := second.Apply(t.Context(), command("c")); err != nil {
			t.Fatal(err)
		}
		if err := lead.Close(); !errors.Is(err, ErrStuck) {
			t.Errorf("closed while it is stuck: %v", err)
		}
		close(thaw) // so that nothing is left behind
		until(t, "it can be closed", func() bool { return lead.Close() == nil })
	})
}

func TestAMemberAloneWaitsForItsDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig(filepath.Join(t.TempDir(), "raft"))
		points := &failpoint.Set{}
		cfg.Failpoints = points
		m := run(t, cfg)
		leader(t, m)
		points.Do("raft/store", 1, func() error { time.Sleep(time.Minute); return nil })
		done := make(chan error, 1)
		go func() { _, err := m.Apply(context.Background(), command("a")); done <- err }()
		until(t, "it says so", func() bool { return Reason(m.Ready()) == "stuck" })
		if err := <-done; err != nil {
			t.Errorf("the write that landed in the end: %v", err)
		}
		until(t, "it serves again", func() bool { return m.Ready() == nil })
	})
}

// A member that cannot store what it commits leaves the leadership to one that can.
func TestAStalledLeaderMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := three(t)
		g.apply("a")
		lead := g.leader()
		full := errors.New("no space left")
		g.points[g.index(lead)].Fail("apply/before-commit", full, 8)
		go func() { _, _ = lead.Apply(context.Background(), command("b")) }()
		rest := slices.DeleteFunc(g.running(), func(m *member) bool { return m == lead })
		second := leader(t, rest...)
		if _, err := second.Apply(t.Context(), command("c")); err != nil {
			t.Fatal(err)
		}
		until(t, "it catches up when there is space", func() bool { return lead.has(t, "c") })
		g.agree()
	})
}
