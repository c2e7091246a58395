package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
	state   *fsm.FSM
	named   atomic.Bool // it leads, and the cluster has its name
	mayFail atomic.Bool
	ended   chan error // what Run returned
	stop    func()
}

// run runs a member until it is stopped or the test ends. When it leads it names the cluster "c", or as it is told.
func run(t *testing.T, cfg Config, cluster ...string) *member {
	t.Helper()
	cluster = append(cluster, "c")
	commands := fsm.Commands{}
	fsm.Handle(commands, names{}.keep)
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("KILN_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("member", cfg.Address)
	}
	state, err := fsm.Open(filepath.Join(filepath.Dir(cfg.Dir), filepath.Base(cfg.Dir)+".db"), commands, []fsm.Component{names{}}, log)
	if err != nil {
		t.Fatal(err)
	}
	state.FailAt(cfg.Failpoints)
	n, err := Open(cfg, state, log)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Node: n, state: state, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		m.ended <- n.Run(ctx, func(ctx context.Context) {
			_, err := n.Apply(ctx, named(cluster[0]))
			m.named.Store(err == nil)
			<-ctx.Done()
			m.named.Store(false)
		})
	}()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if m.mayFail.Load() {
			return
		}
		if err := errors.Join(<-m.ended, n.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// named names the cluster.
func named(cluster string) *storagev1.Command {
	return &storagev1.Command{
		Version: fsm.Version, Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: cluster}},
	}
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
