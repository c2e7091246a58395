package fsm

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/internal/failpoint"
)

var (
	// ErrHalted is returned when the replica met an entry that it cannot apply. It applies nothing any more.
	ErrHalted = errors.New("replica halted")

	// ErrStalled is returned while a transaction that is sound cannot be stored. It is tried again.
	ErrStalled = errors.New("state cannot be stored")

	// ErrReplayed is the answer to an entry that had been applied already; what was answered then is not kept.
	ErrReplayed = errors.New("entry was applied earlier")

	// ErrClosed is returned when the FSM has been closed.
	ErrClosed = errors.New("state machine closed")

	// ErrSnapshot is returned when a snapshot's bytes are not what was written.
	ErrSnapshot = errors.New("snapshot corrupt")
)

// The pauses between attempts to commit a transaction while the store does not take it.
const (
	stallPause    = 100 * time.Millisecond
	stallPauseMax = 5 * time.Second
)

// Component is one part of the state: its buckets, and what it derives from them in memory.
//
// Its methods are called one at a time. Handlers change the buckets within a transaction and remember what to change in
// memory; Commit does that once the transaction is durable, Rollback forgets it.
type Component interface {
	// Buckets names the top-level buckets, which exist from then on.
	Buckets() []string
	// Load rebuilds what is in memory from zero.
	Load(tx *bbolt.Tx, index uint64) error
	// Commit publishes the changes of the transaction whose last entry is index.
	Commit(index uint64)
	Rollback()
}

// Log is an entry of the Raft log, named here for those who replay one without Raft.
type Log = raft.Log

// Tx is a transaction over the state, named here for those who only hand it on.
type Tx = bbolt.Tx

// Position is how far the log has been applied.
type Position struct {
	// Index and Term of the last command or configuration that was applied.
	Index, Term uint64
	// Time of the latest command, as in Entry.
	Time int64
	// Cluster is the id of the cluster; empty until InitCluster.
	Cluster string
	// Version is the newest version of a command in the log so far: every replica must know it to get here.
	Version uint32
}

// FSM applies the Raft log. Raft calls ApplyBatch, Apply, Snapshot and Restore; all other methods may be called
// concurrently with those and with each other.
type FSM struct {
	path       string
	commands   Commands
	components []Component
	log        *slog.Logger
	points     *failpoint.Set

	mu sync.RWMutex // held for writing while Restore or Close replaces db
	db *bbolt.DB

	position atomic.Pointer[Position]
	stalled  atomic.Pointer[error]
	halt     atomic.Pointer[error]
	wanted   wantedHashes
	waiting  waiting
	halted   chan struct{} // closed when halt is set
	closing  chan struct{}
	close    sync.Once
}

// Initialised is the result of InitCluster: the cluster's id, which an earlier command may have chosen.
type Initialised struct{ Cluster string }

// Open opens the state file at path, or an empty one where there is none or none that can be read.
// It adds its own InitCluster to commands.
func Open(path string, commands Commands, components []Component, log *slog.Logger) (*FSM, error) {
	f := &FSM{
		path: path, commands: commands, components: components, log: log,
		halted: make(chan struct{}), closing: make(chan struct{}),
	}
	Handle(commands, f.initCluster)
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// FailAt has the FSM fail where a test wants it to. It must be called before anything else.
func (f *FSM) FailAt(points *failpoint.Set) { f.points = points }

// Position returns how far the log has been applied and published.
func (f *FSM) Position() Position { return *f.position.Load() }

// Halted is closed when the replica has halted; Err says why.
func (f *FSM) Halted() <-chan struct{} { return f.halted }

// Err returns why the state machine does not apply entries: ErrHalted for good, or a stall that may pass.
func (f *FSM) Err() error {
	if err := f.halt.Load(); err != nil {
		return *err
	}
	if err := f.stalled.Load(); err != nil {
		return *err
	}
	return nil
}

// View calls fn with a consistent view of the state. fn must not keep what it reads.
func (f *FSM) View(fn func(tx *bbolt.Tx) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.db == nil {
		return ErrClosed
	}
	return f.db.View(fn)
}

// Interrupt ends a stall: what could not be committed by now is answered with ErrClosed.
func (f *FSM) Interrupt() { f.close.Do(func() { close(f.closing) }) }

// Close closes the file. Raft must have stopped.
func (f *FSM) Close() error {
	f.Interrupt()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.db == nil {
		return nil
	}
	err := f.db.Close()
	f.db = nil
	return err
}

// Apply is ApplyBatch for one entry.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in one transaction and returns their results, which are ErrHalted, ErrReplayed or
// ErrClosed where an entry was not applied.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	applied, err := f.applyDurably(logs, results)
	if err == nil {
		return results
	}
	if !errors.Is(err, ErrHalted) && !errors.Is(err, ErrClosed) {
		// Everything before the entry that stops us is sound, and other replicas may have committed it.
		if applied > 0 {
			if _, prefix := f.applyDurably(logs[:applied], results); prefix != nil {
				applied, err = 0, errors.Join(err, prefix)
			}
		}
		err = f.stop(logs[applied], err)
	} else {
		applied = 0
	}
	for i := applied; i < len(results); i++ {
		results[i] = err
	}
	return results
}

// stop halts the replica because of err at entry l.
func (f *FSM) stop(l *raft.Log, err error) error {
	err = fmt.Errorf("%w at log index %d, term %d: %w", ErrHalted, l.Index, l.Term, err)
	if f.halt.CompareAndSwap(nil, &err) {
		f.log.Error("replica halted", "index", l.Index, "err", err)
		close(f.halted)
	}
	return err
}

// applyDurably is transact, tried again for as long as the store does not take it.
func (f *FSM) applyDurably(logs []*raft.Log, results []any) (applied int, err error) {
	for pause := stallPause; ; pause = min(2*pause, stallPauseMax) {
		if err := f.halt.Load(); err != nil {
			return 0, *err
		}
		applied, err = f.transact(logs, results)
		if !errors.Is(err, ErrStalled) {
			f.stalled.Store(nil)
			return applied, err
		}
		stall := err // others read it while the next attempt is made
		if f.stalled.Swap(&stall) == nil {
			f.log.Error("state cannot be stored, trying again", "err", err)
		}
		select {
		case <-f.closing:
			return 0, fmt.Errorf("%w: %w", ErrClosed, err)
		case <-time.After(pause):
		}
	}
}

// transact applies logs in one transaction. When it fails nothing has changed, and applied is the number of entries
// before the one that failed.
func (f *FSM) transact(logs []*raft.Log, results []any) (applied int, err error) {
	position := f.Position()
	if logs[len(logs)-1].Index <= position.Index {
		for i := range results[:len(logs)] {
			results[i] = ErrReplayed
		}
		return len(logs), nil
	}
	tx, err := f.db.Begin(true)
	if err == nil {
		if err = f.points.Hit("apply/begin"); err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrStalled, err)
	}
	done := false
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if !done {
			for _, c := range f.components {
				c.Rollback()
			}
			err = errors.Join(err, tx.Rollback())
		}
	}()
	for ; applied < len(logs); applied++ {
		l := logs[applied]
		if l.Index > position.Index {
			if err := f.wanted.answer(tx, position, l.Index-1); err != nil {
				return applied, fmt.Errorf("%w: %w", ErrStalled, err)
			}
		}
		if results[applied], err = f.applyOne(tx, l, &position); err != nil {
			return applied, err
		}
		if err := f.wanted.answer(tx, position, l.Index); err != nil {
			return applied, fmt.Errorf("%w: %w", ErrStalled, err)
		}
	}
	if err := errors.Join(putPosition(tx, position), f.points.Hit("apply/before-commit")); err != nil {
		return applied, fmt.Errorf("%w: %w", ErrStalled, err)
	}
	if err := tx.Commit(); err != nil { // bbolt has rolled back
		done = true
		for _, c := range f.components {
			c.Rollback()
		}
		return applied, fmt.Errorf("%w: %w", ErrStalled, err)
	}
	done = true
	for _, c := range f.components {
		c.Commit(position.Index)
	}
	f.publish(position)
	return applied, nil
}

// applyOne applies one entry and moves position to it.
func (f *FSM) applyOne(tx *bbolt.Tx, l *raft.Log, position *Position) (any, error) {
	if l.Index <= position.Index {
		return ErrReplayed, nil
	}
	if l.Type != raft.LogCommand {
		position.Index, position.Term = l.Index, l.Term
		return nil, nil
	}
	cmd, body, handle, err := f.commands.decode(l.Data, position.Cluster)
	if err != nil {
		return nil, err
	}
	e := Entry{Index: l.Index, Term: l.Term, Time: max(cmd.GetTime(), position.Time)}
	result, err := handle.apply(tx, e, cmd, body)
	if err != nil {
		return nil, fmt.Errorf("apply %T: %w", cmd.GetBody(), err)
	}
	if first, ok := result.(Initialised); ok {
		position.Cluster = first.Cluster
	}
	position.Index, position.Term, position.Time = l.Index, l.Term, e.Time
	position.Version = max(position.Version, cmd.GetVersion())
	return result, nil
}

// initCluster names the cluster. A second one, which two leaders in quick succession may cause, changes nothing.
func (f *FSM) initCluster(tx *bbolt.Tx, _ Entry, body *storagev1.Command_InitCluster) (any, error) {
	position, err := getPosition(tx)
	if err != nil {
		return nil, err
	}
	if position.Cluster != "" {
		return Initialised{position.Cluster}, nil
	}
	name := body.InitCluster.GetCluster()
	if name == "" {
		return nil, errors.New("cluster has no name")
	}
	return Initialised{name}, tx.Bucket(metaBucket).Put(clusterKey, []byte(name))
}
