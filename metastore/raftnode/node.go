package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/kilndb/kiln/metastore/fsm"
)

const (
	// maxAppendEntries is how many entries raft stores, sends and applies together. An entry is a batch already.
	maxAppendEntries = 64
	snapshotsKept    = 2
	peerTimeout      = 10 * time.Second // of one message between members; snapshots take longer by their size
)

// Node is one running member.
type Node struct {
	cfg   Config
	state *fsm.FSM
	log   *slog.Logger
	id    raft.ServerID
	raft  *raft.Raft
	logs  *store
	trans raft.Transport

	// Of a member that others can reach: its port, who serves PeerService there, and the others.
	port   *port
	server *http.Server
	served chan struct{} // closed when server has ended
	peers  *peers

	reads   reads
	changes chan struct{} // has room for one: who changes the group
	removed atomic.Bool

	life  context.Context // ends when the member is closed
	end   context.CancelFunc
	calls sync.WaitGroup // waits for raft's answers; Close lets them arrive before it stops raft

	mu      sync.Mutex
	closing bool
	leads   uint64        // the term in which this node leads and has applied all that was committed before; or 0
	changed chan struct{} // closed and replaced when leads or closing changes
}

// Open starts the member over its files. It takes over state and closes it, also when it fails.
func Open(cfg Config, state *fsm.FSM, log *slog.Logger) (*Node, error) {
	n := &Node{cfg: cfg, state: state, log: log, changes: make(chan struct{}, 1), changed: make(chan struct{})}
	n.life, n.end = context.WithCancel(context.Background())
	if err := n.open(); err != nil {
		n.end()
		return nil, errors.Join(fmt.Errorf("open raft in %s: %w", cfg.Dir, err), n.release())
	}
	return n, nil
}

func (n *Node) open() error {
	if err := n.cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return err
	}
	logs, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(n.cfg.Dir, "log.db"),
		BoltOptions:             fsm.LogOptions(),
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	n.logs = newStore(logs, n.cfg.StuckAfter, n.cfg.Failpoints, n.log)
	out := &logger{to: n.log, solo: n.cfg.solo()}
	files, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, snapshotsKept, out)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	if err := errors.Join(syncDir(n.cfg.Dir), syncDir(filepath.Dir(n.cfg.Dir))); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if n.id, err = identify(logs, files); err != nil {
		return err
	}
	snapshots := &snapshotStore{files, map[string]bool{}}
	if err := recoverState(n.state, logs, snapshots, n.log); err != nil {
		return err
	}
	if err := n.listen(out); err != nil {
		return err
	}
	err = n.bootstrap(snapshots)
	if err == nil {
		n.raft, err = raft.NewRaft(n.raftConfig(out), n.state, n.logs, n.logs, snapshots, n.trans)
	}
	if err != nil {
		return errors.Join(err, n.closePort())
	}
	n.servePeers()
	if n.cfg.solo() {
		return n.standAtOnce()
	}
	return nil
}

// listen makes the transport: in memory for a group of one, over the port for members otherwise.
func (n *Node) listen(out *logger) error {
	if n.cfg.solo() {
		_, n.trans = raft.NewInmemTransport(soloAddress)
		return nil
	}
	address := n.cfg.Listen
	if address == "" {
		address = n.cfg.Address
	}
	l, err := n.cfg.Network.Listen(address)
	if err != nil {
		return fmt.Errorf("listen for members: %w", err)
	}
	n.peers = newPeers(n.cfg.Network)
	n.port = newPort(l, n.log, n.self, n.peers.met)
	n.trans = transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  streamLayer{n.port.streams, n.cfg.Network, n.cfg.Address},
		Logger:  out,
		MaxPool: 4,
		Timeout: peerTimeout,
		// With pipelining a follower that fails one append is never sent entries again (hashicorp/raft#612).
		MaxRPCsInFlight:         1,
		MsgpackUseNewTimeFormat: true,
	})}
	return nil
}

// servePeers answers what other members ask.
func (n *Node) servePeers() {
	if n.port == nil {
		return
	}
	n.server, n.served = newPeerServer(n), make(chan struct{})
	go func() {
		defer close(n.served)
		_ = n.server.Serve(n.port.calls) // it ends with the port
	}()
}

func (n *Node) raftConfig(out *logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = n.id
	c.ShutdownOnRemove = false // a member that was removed says so
	c.Logger = out
	c.MaxAppendEntries = maxAppendEntries
	c.SnapshotThreshold = n.cfg.SnapshotThreshold
	c.SnapshotInterval = n.cfg.SnapshotInterval
	c.TrailingLogs = n.cfg.TrailingLogs
	c.NoSnapshotRestoreOnStart = true // recoverState did it
	c.NoLegacyTelemetry = true
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, heartbeatTimeout, 750*time.Millisecond
	return c
}

// heartbeatTimeout is how long a follower hears nothing before it asks to be elected. Leaders wake up about as often.
const heartbeatTimeout = time.Second

// standAtOnce makes a member of a group of one ask to be elected without waiting for heartbeats that nobody else could send: raft
// looks again at what it has heard when it is told of a shorter timeout.
func (n *Node) standAtOnce() error {
	c := n.raft.ReloadableConfig()
	c.HeartbeatTimeout--
	if err := n.raft.ReloadConfig(c); err != nil {
		return fmt.Errorf("shorten the timeout of heartbeats: %w", err)
	}
	return nil
}

// ID returns the id of this member in the group.
func (n *Node) ID() string { return string(n.id) }

// GroupIDs returns the ids of all members of the group.
func (n *Node) GroupIDs() []string {
	var ids []string
	for _, s := range n.servers() {
		ids = append(ids, string(s.ID))
	}
	return ids
}

// syncDir makes durable that the files in dir exist.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// bootstrap makes a group of one, if there is nothing yet and nobody else to ask.
func (n *Node) bootstrap(snapshots raft.SnapshotStore) error {
	if len(n.cfg.Peers) > 0 {
		return nil // joinLoop does it
	}
	exists, err := raft.HasExistingState(n.logs, n.logs, snapshots)
	if err != nil || exists {
		return err
	}
	group := raft.Configuration{Servers: []raft.Server{{ID: n.id, Address: n.trans.LocalAddr()}}}
	if err := raft.BootstrapCluster(n.raftConfig(&logger{to: n.log, solo: true}), n.logs, n.logs, snapshots, n.trans, group); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	n.log.Info("raft group created", "members", 1)
	return nil
}

// Run calls lead whenever this node has become the leader and is up to date, with a context that ends with its
// leadership, and waits for it to return. It returns nil when ctx has ended, and ErrStuck when the member of a group cannot go on
// because its disk does not answer. The node is not closed.
func (n *Node) Run(ctx context.Context, lead func(context.Context)) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loops.Go(func() { n.joinLoop(ctx) })
	stop := func() {}
	defer func() { stop() }()
	halted, stuck := n.state.Halted(), n.logs.stuck
	if n.cfg.solo() {
		stuck = nil // nobody could take over: it waits for its disk
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stuck:
			// Heartbeats do not wait for the disk: the others would follow a leader that stores nothing.
			return errors.Join(ErrStuck, n.closePort())
		case <-halted:
			halted = nil
			stop()
			stop = func() {}
			if err := n.stopRaft(); err != nil {
				n.log.Error("raft did not stop cleanly", "err", err)
			}
		case leader := <-n.raft.LeaderCh():
			stop() // also when it leads again: another may have led meanwhile
			stop = func() {}
			if leader {
				stop = n.term(ctx, lead)
			}
		}
	}
}

// term starts one term of leadership and returns how to end it.
func (n *Node) term(ctx context.Context, lead func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	loops.Go(func() {
		term := n.raft.CurrentTerm()
		if err := n.wait(ctx, func() error { return n.raft.Barrier(0).Error() }); err != nil {
			return // no leader any more, or about to be none
		}
		n.set(func() { n.leads = term })
		lead(ctx)
	})
	loops.Go(func() { n.tendLoop(ctx) })
	return func() {
		cancel()
		loops.Wait()
		n.set(func() { n.leads = 0 })
	}
}

// set changes what mu guards and wakes those who wait for it.
func (n *Node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Close stops the member and closes its files, the state machine's too. Calls in progress are answered first. While a
// member of a group is stuck its files are left as they are, and ErrStuck is returned: the process is to end.
func (n *Node) Close() error {
	if err := n.logs.hangs(); err != nil && !n.cfg.solo() {
		return err
	}
	return errors.Join(n.stopRaft(), n.release())
}

// stopRaft ends this node's part in the group. Raft forgets to answer what its state machine has not got to when it
// stops, so all answers are waited for first: they come, because raft gives up what it cannot commit.
func (n *Node) stopRaft() error {
	n.set(func() { n.closing, n.leads = true, 0 })
	n.state.Interrupt()
	n.end()
	if n.logs.err() != nil {
		// Raft may be waiting for its disk, and answer nobody: it is told to end first.
		n.logs.interrupt()
		return errors.Join(n.raft.Shutdown().Error(), n.closePort())
	}
	n.calls.Wait()
	n.handOver()
	return errors.Join(n.raft.Shutdown().Error(), n.closePort())
}

// handOver has another member lead, so that the others need not find out that this one has gone.
func (n *Node) handOver() {
	if n.raft.State() != raft.Leader || len(n.servers()) < 2 || n.state.Err() != nil {
		return
	}
	if err := n.raft.LeadershipTransfer().Error(); err != nil {
		n.log.Info("no other member has taken the leadership", "err", err)
	}
}

// closePort closes what connects this member to others.
func (n *Node) closePort() error {
	if n.port == nil {
		return nil
	}
	err := n.port.shut()
	if n.server != nil {
		err = errors.Join(err, n.server.Close())
		<-n.served
	}
	if t, ok := n.trans.(transport); ok {
		err = errors.Join(err, t.Close())
		t.CloseStreams() // what it dialled; those who dialled us close theirs
	}
	n.peers.http.CloseIdleConnections()
	return err
}

func (n *Node) release() error {
	var err error
	if n.logs != nil {
		err = n.logs.Close() // which may be repeated, and a late question about it is harmless
	}
	return errors.Join(err, n.state.Close())
}
