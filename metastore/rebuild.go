package metastore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/internal/failpoint"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/index"
	"github.com/kilndb/kiln/metastore/raftnode"
	"github.com/kilndb/kiln/metastore/rebuild"
	"github.com/kilndb/kiln/metastore/snapshots"
	"github.com/kilndb/kiln/objstore"
)

// footerReaders is how many footers are read at a time.
const footerReaders = 32

// ErrNotEmpty is returned when an index is to be rebuilt where there is one.
var ErrNotEmpty = errors.New("there is an index already")

// Rebuilt says what became of an index that was put together from the bucket.
type Rebuilt struct {
	Cluster string `json:"cluster"`
	// Snapshot is the key of the one that was used, empty if there was none, and SnapshotTaken the time of its state.
	Snapshot      string    `json:"snapshot"`
	SnapshotTaken time.Time `json:"snapshot_taken"`
	// Entries of the new index; Added were not in the snapshot, Replaced were in it and are not any more.
	Entries    int `json:"entries"`
	Added      int `json:"added"`
	Replaced   int `json:"replaced"`
	Tombstones int `json:"tombstones"`
	// Left are objects whose profiles are in others.
	Left []string `json:"left"`
	// Problems are what a person should look at, in the order of their keys.
	Problems []BucketProblem `json:"problems"`
}

// BucketProblem is an object of the bucket that is not as it should be.
type BucketProblem struct {
	Key  string `json:"key"`
	Text string `json:"problem"`
}

// Rebuild makes the files of a new cluster of one from what is in the bucket: the newest sound snapshot of the index and
// the objects that came after it, as package rebuild says. Nothing may write to the bucket meanwhile. cfg.DataDir must
// have no metastore in it; it has a whole one afterwards, or none.
func Rebuild(ctx context.Context, cfg Config, bucket Bucket, log *slog.Logger) (report Rebuilt, err error) {
	if err := cfg.Validate(); err != nil {
		return report, err
	}
	if files, err := os.ReadDir(cfg.dir()); err == nil && len(files) > 0 {
		return report, fmt.Errorf("rebuild index: %w in %s", ErrNotEmpty, cfg.dir())
	}
	staging := cfg.dir() + ".rebuild"
	if err := errors.Join(os.RemoveAll(staging), os.MkdirAll(staging, 0o700)); err != nil {
		return report, fmt.Errorf("rebuild index: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	r := &rebuilding{points: cfg.Failpoints, bucket: bucket, machine: newMachine(), log: log}
	if r.state, err = fsm.Open(filepath.Join(staging, "state.db"), r.machine.commands(), r.machine.components(), log); err != nil {
		return report, fmt.Errorf("rebuild index: %w", err)
	}
	cfg.Raft.Dir = filepath.Join(staging, "raft")
	err = r.run(ctx)
	if err == nil {
		err = raftnode.Seed(cfg.Raft, r.state, log)
	}
	if err := errors.Join(err, r.state.Close()); err != nil {
		return r.report, fmt.Errorf("rebuild index: %w", err)
	}
	if err := cfg.Failpoints.Hit("rebuild/seeded"); err != nil {
		return r.report, fmt.Errorf("rebuild index: %w", err)
	}
	if err := os.Remove(cfg.dir()); err != nil && !errors.Is(err, os.ErrNotExist) { // it is empty
		return r.report, fmt.Errorf("rebuild index: %w", err)
	}
	if err := errors.Join(syncDir(staging), os.Rename(staging, cfg.dir()), syncDir(cfg.DataDir)); err != nil {
		return r.report, fmt.Errorf("rebuild index: %w", err)
	}
	return r.report, nil
}

// rebuilding is an index that is being put together.
type rebuilding struct {
	points  *failpoint.Set
	bucket  Bucket
	machine *machine
	state   *fsm.FSM
	log     *slog.Logger
	report  Rebuilt

	position fsm.Position
	listed   map[string]objstore.Attributes // by id: the object under the key that an object of that id has
}

func (r *rebuilding) run(ctx context.Context) error {
	if err := errors.Join(r.restore(ctx), r.points.Hit("rebuild/restored")); err != nil {
		return err
	}
	keys, err := r.list(ctx)
	if err != nil {
		return err
	}
	past, err := r.past()
	if err != nil {
		return err
	}
	sound, err := r.footers(ctx, keys, past)
	if err = errors.Join(err, r.points.Hit("rebuild/read")); err != nil {
		return err
	}
	plan := rebuild.Choose(past, rebuild.Bucket{Sound: sound, Present: func(id string) bool {
		_, ok := r.listed[id]
		return ok
	}})
	if err := errors.Join(r.amend(plan), r.points.Hit("rebuild/amended")); err != nil {
		return err
	}
	return r.conclude(plan, past)
}

func (r *rebuilding) problem(key, format string, args ...any) {
	r.report.Problems = append(r.report.Problems, BucketProblem{key, fmt.Sprintf(format, args...)})
}

// restore makes the state that of the newest sound snapshot, and finds a position that is after all there were.
func (r *rebuilding) restore(ctx context.Context) error {
	all, err := snapshots.List(ctx, r.bucket)
	if err != nil {
		return err
	}
	next := fsm.Position{Time: time.Now().UnixNano()}
	for _, s := range all {
		next.Index, next.Time = max(next.Index, s.Index), max(next.Time, s.Taken.UnixNano())
	}
	for _, s := range all {
		err := r.state.Restore(snapshots.Open(ctx, r.bucket, s))
		if err == nil {
			r.report.Snapshot, r.report.SnapshotTaken = s.Key, s.Taken
			break
		}
		if !errors.Is(err, fsm.ErrSnapshot) {
			return err
		}
		r.log.Error("snapshot is damaged", "key", s.Key, "err", err)
		r.problem(s.Key, "snapshot is damaged: %v", err)
	}
	at := r.state.Position()
	r.position = fsm.Position{
		Index: max(at.Index, next.Index) + 1, Term: at.Term + 1, Time: max(at.Time, next.Time),
		Cluster: ulid.MustNew(ulid.Now(), rand.Reader).String(),
	}
	r.report.Cluster = r.position.Cluster
	return nil
}

// list finds all objects.
func (r *rebuilding) list(ctx context.Context) (keys []objstore.Attributes, err error) {
	r.listed = map[string]objstore.Attributes{}
	for _, prefix := range []string{"segments/", "blocks/"} {
		if err := r.bucket.List(ctx, prefix, func(a objstore.Attributes) error {
			id, ok := idOf(a.Key)
			if !ok {
				r.problem(a.Key, "not the name of an object")
				return nil
			}
			keys = append(keys, a)
			r.listed[id] = a
			return nil
		}); err != nil {
			return nil, fmt.Errorf("list objects: %w", err)
		}
	}
	return keys, nil
}

// idOf returns the id in the key of an object.
func idOf(key string) (string, bool) {
	name := key[strings.LastIndexByte(key, '/')+1:]
	_, err := index.ParseID(name)
	return name, err == nil
}

// past reads what the snapshot knows.
func (r *rebuilding) past() (rebuild.Past, error) {
	past := rebuild.Past{Entries: map[string]*storagev1.BlockMeta{}}
	if r.report.Snapshot == "" {
		return past, nil
	}
	known := map[string]bool{} // ids that the state knows, of those that matter
	reduced := map[string]bool{}
	err := r.state.View(func(tx *fsm.Tx) error {
		for text := range r.listed {
			known[text] = r.known(tx, text)
		}
		return r.machine.index.Entries(tx, func(m *storagev1.BlockMeta) error {
			past.Entries[m.GetId()] = m
			reduced[m.GetId()] = r.machine.jobs.Reduced(tx, ulid.MustParseStrict(m.GetId()))
			return nil
		})
	})
	past.Reduced = func(text string) bool { return reduced[text] }
	forgotten := time.Unix(0, r.state.Position().Time).Add(-index.Window).UnixMilli()
	past.Standing = func(text string) rebuild.Standing {
		id, err := index.ParseID(text)
		if err != nil {
			return rebuild.Out
		}
		isKnown, asked := known[text]
		if !asked { // an object that is not there
			_ = r.state.View(func(tx *fsm.Tx) error { isKnown = r.known(tx, text); return nil })
			known[text] = isKnown
		}
		switch {
		case past.Entries[text] != nil:
			return rebuild.Live
		case isKnown, int64(id.Time()) < forgotten:
			return rebuild.Out
		}
		return rebuild.Unknown
	}
	return past, err
}

// known says whether the state knows an id, be it only to be deleted.
func (r *rebuilding) known(tx *fsm.Tx, text string) bool {
	id, err := index.ParseID(text)
	return err == nil && (r.machine.index.Known(tx, id) || r.machine.jobs.Buried(tx, id))
}

// footers reads the footers of the objects that the snapshot does not know.
func (r *rebuilding) footers(ctx context.Context, keys []objstore.Attributes, past rebuild.Past) (sound []*storagev1.BlockMeta, err error) {
	var unknown []objstore.Attributes
	for _, a := range keys {
		id, _ := idOf(a.Key)
		if m := past.Entries[id]; m != nil && block.Key(m) == a.Key {
			continue // checked in conclude
		}
		if past.Standing == nil || past.Standing(id) == rebuild.Unknown {
			unknown = append(unknown, a)
		} else if past.Entries[id] == nil {
			r.report.Left = append(r.report.Left, a.Key)
		} else {
			r.problem(a.Key, "another object has this id")
		}
	}
	var mu sync.Mutex
	var readers sync.WaitGroup
	next := make(chan objstore.Attributes)
	for range min(footerReaders, len(unknown)) {
		readers.Go(func() {
			for a := range next {
				m, readErr := readEntry(ctx, r.bucket, a)
				mu.Lock()
				switch {
				case readErr == nil:
					sound = append(sound, m)
				case errors.Is(readErr, errUnsound):
					r.problem(a.Key, "%v", readErr)
				default:
					err = readErr
				}
				mu.Unlock()
			}
		})
	}
	for _, a := range unknown {
		next <- a
	}
	close(next)
	readers.Wait()
	if err != nil {
		return nil, fmt.Errorf("read footers: %w", err)
	}
	slices.SortFunc(sound, func(a, b *storagev1.BlockMeta) int { return cmp.Compare(a.GetId(), b.GetId()) })
	for i := 1; i < len(sound); i++ {
		if sound[i].GetId() == sound[i-1].GetId() {
			return nil, fmt.Errorf("two objects have the id %s", sound[i].GetId())
		}
	}
	return sound, nil
}

// errUnsound is wrapped where an object is not one that can be registered.
var errUnsound = errors.New("not a sound object")

// readEntry reads the footer of an object and checks it: it is the object's entry.
func readEntry(ctx context.Context, bucket objstore.Getter, a objstore.Attributes) (*storagev1.BlockMeta, error) {
	m, err := block.ReadMeta(ctx, objstore.Object(bucket, a.Key, a.Size))
	switch {
	case errors.Is(err, block.ErrCorrupt), errors.Is(err, block.ErrVersion), errors.Is(err, objstore.ErrRange):
		return nil, fmt.Errorf("%w: %w", errUnsound, err)
	case errors.Is(err, objstore.ErrNotFound):
		return nil, fmt.Errorf("%w: it was deleted after it had been listed: %w", errUnsound, err)
	case err != nil:
		return nil, err
	}
	if err := index.CheckNew(m); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsound, err)
	}
	if want := block.Key(m); want != a.Key {
		return nil, fmt.Errorf("%w: its key should be %s", errUnsound, want)
	}
	return m, nil
}

// amend makes the state what the plan says. Compaction begins anew: jobs and their workers are gone.
func (r *rebuilding) amend(plan rebuild.Plan) error {
	return r.state.Amend(r.position, func(tx *fsm.Tx) error {
		for _, text := range plan.Replaced {
			m, err := r.machine.index.Get(tx, ulid.MustParseStrict(text))
			if err != nil {
				return err
			}
			if err := errors.Join(r.machine.index.Remove(tx, m), r.machine.jobs.Rewritten(tx, m)); err != nil {
				return err
			}
		}
		for _, m := range plan.Add {
			if err := r.machine.index.Put(tx, m); err != nil {
				return err
			}
			for _, s := range m.GetSources() {
				if err := r.machine.index.Remember(tx, ulid.MustParseStrict(s)); err != nil {
					return err
				}
			}
		}
		for _, text := range plan.Left {
			if err := r.machine.index.Remember(tx, ulid.MustParseStrict(text)); err != nil {
				return err
			}
		}
		if err := r.machine.jobs.Reset(tx); err != nil {
			return err
		}
		return r.machine.index.Entries(tx, func(m *storagev1.BlockMeta) error {
			return r.machine.jobs.Enqueue(tx, r.position.Time, m)
		})
	})
}

// conclude completes the report.
func (r *rebuilding) conclude(plan rebuild.Plan, past rebuild.Past) error {
	r.report.Added, r.report.Replaced = len(plan.Add), len(plan.Replaced)
	r.report.Entries = len(past.Entries) + len(plan.Add) - len(plan.Replaced)
	r.report.Tombstones = r.machine.jobs.Summary().Tombstones
	for _, id := range plan.Left {
		r.report.Left = append(r.report.Left, r.listed[id].Key)
	}
	for _, id := range plan.Doubtful {
		r.problem(r.listed[id].Key, "its sources are gone and no snapshot says that it replaced them: its profiles may count twice")
	}
	for _, l := range plan.Lost {
		r.problem(r.listed[l.ID].Key, "it was replaced, and no sound object has what it has of tenant %s", l.Tenant)
	}
	err := r.state.View(func(tx *fsm.Tx) error {
		return r.machine.index.Entries(tx, func(m *storagev1.BlockMeta) error {
			switch a, ok := r.listed[m.GetId()]; {
			case !ok || a.Key != block.Key(m):
				r.problem(block.Key(m), "the index has it, and it is missing: queries that need it fail")
			case uint64(a.Size) != m.GetSize():
				r.problem(a.Key, "it has %d bytes, the index says %d: queries that need it fail", a.Size, m.GetSize())
			}
			return nil
		})
	})
	slices.Sort(r.report.Left)
	slices.SortStableFunc(r.report.Problems, func(a, b BucketProblem) int { return cmp.Compare(a.Key, b.Key) })
	return err
}

// syncDir makes durable which files dir has.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
