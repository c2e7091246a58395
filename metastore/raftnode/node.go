package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
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
	raft  *raft.Raft
	trans raft.Transport
	logs  *store

	calls sync.WaitGroup // waits for raft's answers; Close lets them arrive before it stops raft

	mu      sync.Mutex
	closing bool
	leads   uint64        // the term in which this node leads and has applied all that was committed before; or 0
	changed chan struct{} // closed and replaced when leads or closing changes
}

// Open starts the member over its files. It takes over state and closes it, also when it fails.
func Open(cfg Config, state *fsm.FSM, log *slog.Logger) (*Node, error) {
	n := &Node{cfg: cfg, state: state, log: log, changed: make(chan struct{})}
	if err := n.open(); err != nil {
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
	n.logs = newStore(logs, n.log)
	out := &logger{to: n.log, solo: n.cfg.solo()}
	files, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, snapshotsKept, out)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	if err := errors.Join(syncDir(n.cfg.Dir), syncDir(filepath.Dir(n.cfg.Dir))); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	snapshots := &snapshotStore{files, map[string]bool{}}
	if err := recoverState(n.state, logs, snapshots, n.log); err != nil {
		return err
	}
	if n.trans, err = n.transport(out); err != nil {
		return err
	}
	conf := n.raftConfig(out)
	err = n.bootstrap(conf, n.logs, snapshots)
	if err == nil {
		n.raft, err = raft.NewRaft(conf, n.state, n.logs, n.logs, snapshots, n.trans)
	}
	if err != nil {
		return errors.Join(err, closeTransport(n.trans))
	}
	if n.cfg.solo() {
		return n.standAtOnce()
	}
	return nil
}

func (n *Node) raftConfig(out *logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.id())
	c.Logger = out
	c.MaxAppendEntries = maxAppendEntries
	c.SnapshotThreshold = n.cfg.SnapshotThreshold
	c.SnapshotInterval = n.cfg.SnapshotInterval
	c.TrailingLogs = n.cfg.TrailingLogs
	c.NoSnapshotRestoreOnStart = true // recoverState did it
	c.NoLegacyTelemetry = true
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, heartbeatTimeout, 400*time.Millisecond
	return c
}

// heartbeatTimeout is how long a follower hears nothing before it asks to be elected. Leaders wake up about as often.
const heartbeatTimeout = 500 * time.Millisecond

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

func (n *Node) transport(out *logger) (raft.Transport, error) {
	if n.cfg.solo() {
		_, t := raft.NewInmemTransport(soloAddress)
		return t, nil
	}
	advertise, err := net.ResolveTCPAddr("tcp", n.advertised())
	if err != nil {
		return nil, fmt.Errorf("resolve raft address: %w", err)
	}
	t, err := raft.NewTCPTransportWithConfig(n.cfg.Address, advertise, &raft.NetworkTransportConfig{
		Logger:  out,
		MaxPool: 4,
		Timeout: peerTimeout,
		// With pipelining a follower that fails one append is never sent entries again (hashicorp/raft#612).
		MaxRPCsInFlight:         1,
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("listen on raft address: %w", err)
	}
	return t, nil
}

// ID returns the id of this member in the group.
func (n *Node) ID() string { return n.cfg.id() }

// GroupIDs returns the ids of all members of the group.
func (n *Node) GroupIDs() ([]string, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read the group's members: %w", err)
	}
	var ids []string
	for _, s := range f.Configuration().Servers {
		ids = append(ids, string(s.ID))
	}
	return ids, nil
}

// syncDir makes durable that the files in dir exist.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func closeTransport(t raft.Transport) error {
	if c, ok := t.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// advertised is the address by which other members know this one.
func (n *Node) advertised() string {
	if m, ok := n.cfg.member(n.cfg.id()); ok {
		return m.Raft
	}
	return n.cfg.Address
}

func (c Config) member(id string) (Member, bool) {
	for _, m := range c.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// bootstrap creates the group, if there is nothing yet and this member may.
func (n *Node) bootstrap(conf *raft.Config, logs *store, snapshots raft.SnapshotStore) error {
	if !n.cfg.Bootstrap && len(n.cfg.Members) > 1 {
		return nil
	}
	exists, err := raft.HasExistingState(logs, logs, snapshots)
	if err != nil || exists {
		return err
	}
	group := raft.Configuration{}
	for _, m := range n.cfg.Members {
		group.Servers = append(group.Servers, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Raft)})
	}
	if len(group.Servers) == 0 {
		group.Servers = []raft.Server{{ID: conf.LocalID, Address: n.trans.LocalAddr()}}
	}
	if err := raft.BootstrapCluster(conf, logs, logs, snapshots, n.trans, group); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	n.log.Info("raft group created", "members", len(group.Servers))
	return nil
}

// Run calls lead whenever this node has become the leader and is up to date, with a context that ends with its
// leadership, and waits for it to return. It returns nil when ctx has ended. The node is not closed.
func (n *Node) Run(ctx context.Context, lead func(context.Context)) error {
	stop := func() {}
	defer func() { stop() }()
	halted := n.state.Halted()
	for {
		select {
		case <-ctx.Done():
			return nil
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
	done := make(chan struct{})
	go func() {
		defer close(done)
		term := n.raft.CurrentTerm()
		if err := n.wait(ctx, func() error { return n.raft.Barrier(0).Error() }); err != nil {
			return // no leader any more, or about to be none
		}
		n.set(func() { n.leads = term })
		lead(ctx)
	}()
	return func() {
		cancel()
		<-done
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

// Close stops the member and closes its files, the state machine's too. Calls in progress are answered first.
func (n *Node) Close() error { return errors.Join(n.stopRaft(), n.release()) }

// stopRaft ends this node's part in the group. Raft forgets to answer what its state machine has not got to when it
// stops, so all answers are waited for first: they come, because raft gives up what it cannot commit.
func (n *Node) stopRaft() error {
	n.set(func() { n.closing, n.leads = true, 0 })
	n.state.Interrupt()
	if n.logs.err() != nil {
		// Raft may be waiting for its disk, and answer nobody: it is told to end first.
		n.logs.interrupt()
		return errors.Join(n.raft.Shutdown().Error(), n.closeStreams())
	}
	n.calls.Wait()
	return errors.Join(n.raft.Shutdown().Error(), n.closeStreams())
}

// closeStreams closes the connections to other members.
func (n *Node) closeStreams() error {
	if t, ok := n.trans.(*raft.NetworkTransport); ok {
		t.CloseStreams() // what it dialled; those who dialled us close theirs
	}
	return nil
}

func (n *Node) release() error {
	var err error
	if n.logs != nil {
		err = n.logs.Close() // which may be repeated, and a late question about it is harmless
	}
	return errors.Join(err, n.state.Close())
}
