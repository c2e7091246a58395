package metastore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/placement"
	"github.com/kilndb/kiln/metastore/raftnode"
	"github.com/kilndb/kiln/objstore"
)

// Bucket is where the objects are, and snapshots of the index.
type Bucket interface {
	objstore.Getter
	objstore.Lister
	objstore.Deleter
	// PutFrom stores the first size bytes of src, all or nothing.
	PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error
}

// Metastore is one member of the group. Its handlers may be called from Open on, concurrently; before Run they wait or
// refuse, after it they answer that they are unavailable.
type Metastore struct {
	cfg     Config
	bucket  Bucket
	log     *slog.Logger
	machine *machine
	state   *fsm.FSM
	node    *raftnode.Node
	metrics *metrics

	appends chan *appending
	ended   chan struct{} // closed when appends is not received from any more
	term    atomic.Pointer[term]
	close   sync.Once
	closed  error
}

// Open opens the metastore over its files and joins its group. Replaced objects are deleted from bucket, and snapshots
// stored there.
// Run must be called to make it work, or else Close.
func Open(cfg Config, bucket Bucket, log *slog.Logger, reg prometheus.Registerer) (*Metastore, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Raft.Dir, cfg.Raft.Failpoints = filepath.Join(cfg.dir(), "raft"), cfg.Failpoints
	if err := os.MkdirAll(cfg.dir(), 0o700); err != nil {
		return nil, fmt.Errorf("open metastore: %w", err)
	}
	m := &Metastore{
		cfg: cfg, bucket: bucket, log: log, machine: newMachine(),
		appends: make(chan *appending), ended: make(chan struct{}),
	}
	var err error
	if m.state, err = fsm.Open(filepath.Join(cfg.dir(), "state.db"), m.machine.commands(), m.machine.components(), log); err != nil {
		return nil, fmt.Errorf("open metastore: %w", err)
	}
	m.state.FailAt(cfg.Failpoints)
	if m.node, err = raftnode.Open(cfg.Raft, m.state, log); err != nil {
		return nil, fmt.Errorf("open metastore: %w", err)
	}
	m.metrics = newMetrics(m, reg)
	return m, nil
}

// Run serves until ctx ends, answers what is in progress, closes the files and returns. It returns raftnode.ErrStuck, with the files
// open, when the disk of a member of a group does not answer: the process is to end then, and to be started again.
func (m *Metastore) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var appends sync.WaitGroup
	appends.Go(func() { m.appendLoop(ctx) })
	err := m.node.Run(ctx, m.lead)
	stop()
	m.state.Interrupt() // what cannot be stored now will not be waited for
	if errors.Is(err, raftnode.ErrStuck) {
		return err // neither will the disk be: the process ends
	}
	appends.Wait()
	return errors.Join(err, m.Close())
}

// Close releases everything. Run does it by itself.
func (m *Metastore) Close() error {
	m.close.Do(func() { m.closed = m.node.Close() })
	return m.closed
}

// Ready returns why this member could not serve now, or nil.
func (m *Metastore) Ready() error {
	if err := m.node.Ready(); err != nil {
		return err
	}
	if m.state.Position().Cluster == "" {
		return fmt.Errorf("%w: the cluster has no name yet", raftnode.ErrUnavailable)
	}
	if m.node.Leads() && m.term.Load() == nil {
		return errTakingOver
	}
	return nil
}

// errTakingOver is for the moment between an election and the term.
var errTakingOver = fmt.Errorf("%w: the leader is taking over", raftnode.ErrUnavailable)

// Index returns the handler of IndexService.
func (m *Metastore) Index() metastorev1connect.IndexServiceHandler { return indexService{m} }

// Membership returns the handler of MembershipService.
func (m *Metastore) Membership() metastorev1connect.MembershipServiceHandler {
	return membershipService{m}
}

// Workers returns the handler of WorkerService.
func (m *Metastore) Workers() compactionv1connect.WorkerServiceHandler { return workerService{m} }

// Jobs returns the handler of JobService.
func (m *Metastore) Jobs() compactionv1connect.JobServiceHandler { return jobService{m} }

// Deletions returns the handler of DeletionService.
func (m *Metastore) Deletions() adminv1connect.DeletionServiceHandler { return deletionService{m} }

// GroupMember returns how this member announces itself with the node's heartbeats: the leader uses a command that is new
// only when all members of the group have said that they know it.
func (m *Metastore) GroupMember() *metastorev1.GroupMember {
	return &metastorev1.GroupMember{Id: m.node.ID(), CommandVersion: fsm.Version}
}

// Snapshot makes the group's log shorter now instead of at its threshold.
func (m *Metastore) Snapshot(ctx context.Context) error { return m.node.Snapshot(ctx) }

// State returns the handler of StateService.
func (m *Metastore) State() adminv1connect.StateServiceHandler { return stateService{m} }

// StateHash returns a hash of the replicated state. Members at the same log index have the same.
func (m *Metastore) StateHash() ([32]byte, error) { return m.state.Hash() }

// term is what a leader knows besides the state. It begins empty and ends with the leadership.
type term struct {
	members   *members
	dispatch  *dispatcher
	placement *placement.Watch
	shipping  *shipping
	done      <-chan struct{}
}

// retryPause is how long a leader's loop waits before it tries again what failed.
const retryPause = time.Second

// lead is one term of leadership.
func (m *Metastore) lead(ctx context.Context) {
	for m.initCluster(ctx) != nil {
		if !pause(ctx, retryPause) {
			return
		}
	}
	now := time.Now()
	t := &term{dispatch: newDispatcher(m, now), placement: placement.New(m.cfg.Placement, now), shipping: newShipping(now), done: ctx.Done()}
	t.members = newMembers(m.cfg.MemberLease, now, t.placement.Rules)
	m.term.Store(t)
	m.metrics.terms.Inc()
	defer m.term.Store(nil)
	var loops sync.WaitGroup
	loops.Go(func() { t.members.changeLoop(ctx) })
	loops.Go(func() { t.dispatch.dispatchLoop(ctx) })
	loops.Go(func() { m.deletionLoop(ctx, t.shipping) })
	loops.Go(func() { m.shippingLoop(ctx, t.shipping) })
	loops.Go(func() { m.sweepLoop(ctx, t.shipping) })
	loops.Go(func() { m.retentionLoop(ctx) })
	loops.Wait()
}

// initCluster names the cluster, if that has not happened yet.
func (m *Metastore) initCluster(ctx context.Context) error {
	if m.state.Position().Cluster != "" {
		return nil
	}
	name := ulid.MustNew(ulid.Now(), rand.Reader).String()
	_, err := propose[fsm.Initialised](ctx, m, &storagev1.Command{
		Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: name}},
	})
	if err != nil && ctx.Err() == nil {
		m.log.Error("cluster could not be named", "err", err)
	}
	return err
}

// leading returns the term of this member's leadership, verified now.
func (m *Metastore) leading(ctx context.Context) (*term, error) {
	if err := m.node.Verify(ctx); err != nil {
		return nil, err
	}
	if t := m.term.Load(); t != nil {
		return t, nil
	}
	return nil, errTakingOver
}

// pause waits for d and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
