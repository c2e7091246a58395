package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is a state machine that keeps the ids of DeleteTombstones.
type names struct{}

func (names) Buckets() []string          { return []string{"names"} }
func (names) Load(*fsm.Tx, uint64) error { return nil }
func (names) Commit(uint64)              {}
func (names) Rollback()                  {}
func (names) keep(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_DeleteTombstones) (any, error) {
	for _, id := range body.DeleteTombstones.GetIds() {
		if err := tx.Bucket([]byte("names")).Put([]byte(id), []byte{1}); err != nil {
			return nil, err
		}
	}
	return e.Index, nil
}

// member is one running node.
type member struct {
	*Node
	state *fsm.FSM
	named atomic.Bool // it leads, and the cluster has its name
	stop  func()
}

func run(t *testing.T, cfg Config) *member {
	t.Helper()
	commands := fsm.Commands{}
	fsm.Handle(commands, names{}.keep)
	log := slog.New(slog.DiscardHandler)
	state, err := fsm.Open(filepath.Join(filepath.Dir(cfg.Dir), filepath.Base(cfg.Dir)+".db"), commands, []fsm.Component{names{}}, log)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(cfg, state, log)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Node: n, state: state}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- n.Run(ctx, func(ctx context.Context) {
			if _, err := n.Apply(ctx, &storagev1.Command{
				Version: fsm.Version, Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: "c"}},
			}); err == nil {
				m.named.Store(true)
			}
			<-ctx.Done()
			m.named.Store(false)
		})
	}()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

func (m *member) has(t *testing.T, name string) (found bool) {
	t.Helper()
	if err := m.state.View(func(tx *fsm.Tx) error {
		found = tx.Bucket([]byte("names")).Get([]byte(name)) != nil
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func command(ids ...string) *storagev1.Command {
	return &storagev1.Command{
		Version: fsm.Version, Time: 1, Cluster: "c",
		Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: ids}},
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// leader waits for one of members to lead and returns it.
func leader(t *testing.T, members ...*member) (found *member) {
	t.Helper()
	until(t, "a leader", func() bool {
		for _, m := range members {
			if m.named.Load() && m.Ready() == nil {
				found = m
			}
		}
		return found != nil
	})
	return found
}

func TestThreeMembersAreOnlyConfiguration(t *testing.T) {
	dir := t.TempDir()
	var group []Member
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // an address that is free
		if err != nil {
			t.Fatal(err)
		}
		group = append(group, Member{ID: fmt.Sprint(i), Raft: l.Addr().String(), Service: fmt.Sprintf("service-%d", i)})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	start := func(i int) *member {
		cfg := DefaultConfig(filepath.Join(dir, group[i].ID))
		cfg.ID, cfg.Address, cfg.Members, cfg.Bootstrap = group[i].ID, group[i].Raft, group, true
		return run(t, cfg)
	}
	members := []*member{start(0), start(1), start(2)}
	first := leader(t, members...)
	if _, err := first.Apply(t.Context(), command("a")); err != nil {
		t.Fatal(err)
	}
	var rest []*member
	for i, m := range members {
		if m == first {
			continue
		}
		rest = append(rest, m)
		until(t, "a follower applies", func() bool { return m.has(t, "a") })
		var elsewhere *NotLeaderError
		if _, err := m.Apply(t.Context(), command("x")); !errors.As(err, &elsewhere) || elsewhere.Leader != "service-"+first.cfg.ID {
			t.Errorf("member %d refuses with %v, want to be sent to service-%s", i, err, first.cfg.ID)
		}
		if _, err := m.ReadIndex(t.Context()); !errors.As(err, &elsewhere) {
			t.Errorf("member %d refuses a read with %v", i, err)
		}
		if err := m.Ready(); err != nil {
			t.Errorf("member %d is not ready: %v", i, err)
		}
	}
	first.stop()
	second := leader(t, rest...)
	if _, err := second.Apply(t.Context(), command("b")); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		if m == first {
			members[i] = start(i)
		}
	}
	at, err := second.ReadIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := second.state.Hash()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		until(t, "all catch up", func() bool { return m.state.Position().Index >= at })
		if got, err := m.state.Hash(); err != nil || got != want {
			t.Errorf("member %d has another state (%v)", i, err)
		}
	}
	for _, m := range members { // without a quorum nothing is acknowledged
		if m != second {
			m.stop()
		}
	}
	until(t, "the last member steps down", func() bool { return !second.Leads() })
	if _, err := second.Apply(t.Context(), command("c")); err == nil {
		t.Error("applied without a quorum")
	}
	if _, err := second.ReadIndex(t.Context()); err == nil {
		t.Error("read without a quorum")
	}
	if err := second.Ready(); err == nil {
		t.Error("ready without a quorum")
	}
}

func TestAGroupOfOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	begun := time.Now()
	m := run(t, DefaultConfig(dir))
	leader(t, m)
	t.Logf("ready after %v", time.Since(begun))
	for i := range 10 {
		if _, err := m.Apply(t.Context(), command(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := m.state.Position()
	m.stop()
	if _, err := m.Apply(t.Context(), command("late")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after the stop: %v", err)
	}
	if err := m.Ready(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after the stop: %v", err)
	}
	m = run(t, DefaultConfig(dir))
	leader(t, m)
	if got := m.state.Position(); got.Index <= at.Index || got.Cluster != at.Cluster {
		t.Errorf("position is %+v after the restart, was %+v", got, at)
	}
	if !m.has(t, "9") {
		t.Error("an acknowledged command is lost")
	}
}

func TestACallersDeadlineLeavesTheOutcomeUnknown(t *testing.T) {
	m := run(t, DefaultConfig(filepath.Join(t.TempDir(), "raft")))
	leader(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Apply(ctx, command("a"))
	if err != nil && !(errors.Is(err, ErrUnknown) && errors.Is(err, context.Canceled)) {
		t.Errorf("%v, want ErrUnknown because of the context", err)
	}
	if _, err := m.Apply(t.Context(), command("b")); err != nil {
		t.Errorf("the next command: %v", err)
	}
	until(t, "what nobody waited for is applied all the same", func() bool { return m.has(t, "a") })
}
