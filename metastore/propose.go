package metastore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/raftnode"
)

const (
	// A log entry takes at most this many segments and bytes, unless one call has more. Enough to make the fsync
	// cheap, little enough that an entry is stored and sent in milliseconds.
	batchSegments = 1024
	batchBytes    = 4 << 20
	// batchesInFlight is how many log entries of registrations are under way at a time: one is stored in the log while the
	// one before is applied. More of them would be smaller for the same callers.
	batchesInFlight = 4
)

// errVersion is returned when not every member of the group is known to understand a command.
var errVersion = errors.New("command is too new for the group")

// understood returns the newest version of the command set that every member of the group understands: what the log has
// already, or what all have announced. One that has not announced itself may be of the first build.
func (m *Metastore) understood() uint32 {
	logged := m.state.Position().Version
	t := m.term.Load()
	return max(logged, leastVersion(m.node.GroupIDs(), func(id string) uint32 {
		switch {
		case id == m.node.ID():
			return fsm.Version
		case t == nil:
			return 1
		}
		return t.members.commandVersion(id)
	}))
}

// leastVersion returns the version of the command set that all of a group understand.
func leastVersion(ids []string, understands func(id string) uint32) uint32 {
	least := uint32(fsm.Version)
	for _, id := range ids {
		least = min(least, understands(id))
	}
	return least
}

// propose sends a command through the log and returns its result.
func propose[Result any](ctx context.Context, m *Metastore, cmd *storagev1.Command) (result Result, err error) {
	cmd.Version, cmd.Cluster, cmd.Time = fsm.VersionOf(cmd), m.state.Position().Cluster, time.Now().UnixNano()
	if cmd.GetVersion() > 1 {
		if known := m.understood(); cmd.GetVersion() > known {
			return result, fmt.Errorf("%w: %T is of version %d, members of the group are known to understand %d", errVersion, cmd.GetBody(), cmd.GetVersion(), known)
		}
	}
	if cmd.GetCluster() == "" && cmd.GetInitCluster() == nil {
		return result, fmt.Errorf("%w: the cluster has no name yet", raftnode.ErrUnavailable)
	}
	if err := m.cfg.Failpoints.Hit("propose/before"); err != nil {
		return result, fmt.Errorf("%w: %w", raftnode.ErrUnavailable, err)
	}
	start := time.Now()
	answer, err := m.node.Apply(ctx, cmd)
	if lost := m.cfg.Failpoints.Hit("propose/answer"); lost != nil {
		err = fmt.Errorf("%w: %w", raftnode.ErrUnknown, lost)
	}
	if err != nil {
		return result, err
	}
	m.metrics.apply.Observe(time.Since(start).Seconds())
	if answer == nil {
		return result, nil
	}
	result, ok := answer.(Result)
	if !ok {
		return result, fmt.Errorf("%w: result of %T is %T", raftnode.ErrUnknown, cmd.GetBody(), answer)
	}
	return result, nil
}

// appending is one call of AddSegments that waits for its log entry.
type appending struct {
	segments []*storagev1.BlockMeta
	size     int
	answer   chan appended // has room
}

type appended struct {
	added
	err error
}

// append registers segments, together with those of other callers.
func (m *Metastore) append(ctx context.Context, segments []*storagev1.BlockMeta) (added, error) {
	if err := m.node.Usable(); err != nil {
		return added{}, err // at once: behind an entry that cannot be stored it would wait for its deadline
	}
	a := &appending{segments: segments, answer: make(chan appended, 1)}
	for _, s := range segments {
		a.size += proto.Size(s)
	}
	select {
	case m.appends <- a:
	case <-m.ended:
		return added{}, fmt.Errorf("%w: closed", raftnode.ErrUnavailable)
	case <-ctx.Done():
		return added{}, ctx.Err() // it was not proposed
	}
	select {
	case done := <-a.answer:
		return done.added, done.err
	case <-ctx.Done():
		return added{}, fmt.Errorf("%w: %w", raftnode.ErrUnknown, ctx.Err())
	}
}

// appendLoop proposes what callers wait with, a few log entries at a time: a lone caller is served at once, and while
// entries are being stored the others gather.
func (m *Metastore) appendLoop(ctx context.Context) {
	var flying sync.WaitGroup
	defer flying.Wait()
	defer close(m.ended)
	free := make(chan struct{}, batchesInFlight)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		select {
		case a := <-m.appends:
			batch := m.gather(a)
			flying.Go(func() {
				// Callers are told what became of it, also while stopping: raft's answer comes in any case.
				m.appendBatch(context.WithoutCancel(ctx), batch)
				<-free
			})
		case <-ctx.Done():
			return
		}
	}
}

// gather returns first and all that wait behind it, as far as they fit into one log entry.
func (m *Metastore) gather(first *appending) []*appending {
	batch, segments, size := []*appending{first}, len(first.segments), first.size
	for segments < batchSegments && size < batchBytes {
		select {
		case a := <-m.appends:
			batch = append(batch, a)
			segments += len(a.segments)
			size += a.size
		default:
			return batch
		}
	}
	return batch
}

func (m *Metastore) appendBatch(ctx context.Context, batch []*appending) {
	var segments []*storagev1.BlockMeta
	for _, a := range batch {
		segments = append(segments, a.segments...)
	}
	m.metrics.batch.Observe(float64(len(segments)))
	result, err := propose[added](ctx, m, &storagev1.Command{
		Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{Segments: segments}},
	})
	if err == nil && len(result.refused) != len(segments) {
		err = fmt.Errorf("%w: %d results for %d segments", raftnode.ErrUnknown, len(result.refused), len(segments))
	}
	if t := m.term.Load(); t != nil && err == nil {
		for i, s := range segments {
			if result.refused[i] == nil {
				t.placement.Observe(s, time.Now())
			}
		}
	}
	for _, a := range batch {
		done := appended{err: err}
		if err == nil {
			n := len(a.segments)
			done.refused, result.refused = result.refused[:n], result.refused[n:]
			done.dropped, result.dropped = result.dropped[:n], result.dropped[n:]
		}
		a.answer <- done
	}
}
