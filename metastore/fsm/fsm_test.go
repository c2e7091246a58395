package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// counter is a component that counts what it was told, on disk and in memory.
type counter struct {
	pending, published uint64
	disk               sync.Mutex // held while a test changes how much fits on the disk
}

func (c *counter) Buckets() []string { return []string{"counter"} }
func (c *counter) Load(tx *bbolt.Tx, _ uint64) error {
	c.pending, c.published = 0, 0
	if v := tx.Bucket([]byte("counter")).Get([]byte("n")); v != nil {
		c.published = binary.BigEndian.Uint64(v)
	}
	return nil
}
func (c *counter) Commit(uint64) { c.published += c.pending; c.pending = 0 }
func (c *counter) Rollback()     { c.pending = 0 }

// deleteTombstones counts its ids; "panic" and "error" are what they say, and "big" takes room.
func (c *counter) deleteTombstones(tx *bbolt.Tx, _ Entry, body *storagev1.Command_DeleteTombstones) (any, error) {
	c.disk.Lock()
	defer c.disk.Unlock()
	b := tx.Bucket([]byte("counter"))
	n := uint64(0)
	if v := b.Get([]byte("n")); v != nil {
		n = binary.BigEndian.Uint64(v)
	}
	for _, id := range body.DeleteTombstones.GetIds() {
		n++
		c.pending++
		if err := b.Put([]byte("n"), binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return nil, err
		}
		switch id {
		case "panic":
			panic("a bug")
		case "error":
			return nil, errors.New("a damaged value")
		case "big":
			if err := b.Put([]byte("big"), make([]byte, 1<<20)); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

func open(t testing.TB, path string) (*FSM, *counter) {
	t.Helper()
	c := &counter{}
	commands := Commands{}
	Handle(commands, c.deleteTombstones)
	f, err := Open(path, commands, []Component{c}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, c
}

// entry is a log entry that names the cluster, or counts ids.
func entry(t testing.TB, index uint64, ids ...string) *Log {
	t.Helper()
	cmd := &storagev1.Command{
		Version: Version, Cluster: "c", Time: int64(index),
		Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: ids}},
	}
	if index == 1 {
		cmd = &storagev1.Command{Version: Version, Time: 1, Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: "c"}}}
	}
	data, err := EncodeCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return &Log{Index: index, Term: 1, Data: data}
}

func hashOf(t testing.TB, f *FSM) [32]byte {
	t.Helper()
	h, err := f.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestABatchIsAppliedUpToTheEntryThatHalts(t *testing.T) {
	for _, poison := range []string{"panic", "error", "unknown", "garbage"} {
		t.Run(poison, func(t *testing.T) {
			dir := t.TempDir()
			f, c := open(t, filepath.Join(dir, "batch.db"))
			bad := entry(t, 4, "x", poison)
			switch poison {
			case "unknown":
				bad.Data, _ = EncodeCommand(&storagev1.Command{Version: Version, Cluster: "c"})
			case "garbage":
				bad.Data = []byte("garbage")
			}
			logs := []*Log{entry(t, 1), entry(t, 2, "a"), entry(t, 3, "b", "c"), bad, entry(t, 5, "d")}
			results := f.ApplyBatch(logs)
			if results[1] != uint64(1) || results[2] != uint64(3) {
				t.Errorf("the entries before have the results %v", results[:3])
			}
			for _, r := range results[3:] {
				if err, _ := r.(error); !errors.Is(err, ErrHalted) {
					t.Errorf("result %v, want ErrHalted", r)
				}
			}
			if c.published != 3 || f.Position().Index != 3 {
				t.Errorf("published %d at %d, want 3 at 3", c.published, f.Position().Index)
			}
			select {
			case <-f.Halted():
			default:
				t.Error("not halted")
			}
			if _, err := f.Snapshot(); !errors.Is(err, ErrHalted) {
				t.Errorf("a halted replica gives a snapshot: %v", err)
			}
			// Whoever applied the entries one by one has the same state.
			single, _ := open(t, filepath.Join(dir, "single.db"))
			for _, l := range logs {
				single.Apply(l)
			}
			if hashOf(t, single) != hashOf(t, f) {
				t.Error("the states differ")
			}
		})
	}
}

func TestACommandThatCannotBeStoredIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := open(t, filepath.Join(t.TempDir(), "state.db"))
		room := func(bytes int) {
			c.disk.Lock()
			defer c.disk.Unlock()
			f.db.MaxSize = bytes
		}
		f.Apply(entry(t, 1))
		room(200 << 10) // the disk is full
		result := make(chan any)
		go func() { result <- f.Apply(entry(t, 2, "big")) }()
		synctest.Wait()
		if err := f.Err(); err == nil || errors.Is(err, ErrHalted) {
			t.Errorf("while it stalls: %v", err)
		}
		if c.published != 0 {
			t.Error("published what is not durable")
		}
		room(0)
		if got := <-result; got != uint64(1) {
			t.Errorf("when there is room the result is %v", got)
		}
		if err := f.Err(); err != nil {
			t.Errorf("after the stall: %v", err)
		}
		room(200 << 10)
		go func() { result <- f.ApplyBatch([]*Log{entry(t, 3, "big", "big")})[0] }()
		synctest.Wait()
		f.Interrupt()
		if got := <-result; !errors.Is(got.(error), ErrClosed) {
			t.Errorf("after the interruption the result is %v", got)
		}
	})
}

// sink is a place for a snapshot.
type sink struct{ bytes.Buffer }

func (s *sink) ID() string    { return "test" }
func (s *sink) Cancel() error { return errors.New("cancelled") }
func (s *sink) Close() error  { return nil }

func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	f, _ := open(t, filepath.Join(dir, "from.db"))
	f.ApplyBatch([]*Log{entry(t, 1), entry(t, 2, "a", "b")})
	s, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	before := hashOf(t, f)
	f.Apply(entry(t, 3, "later")) // while it is being written
	var content sink
	if err := s.Persist(&content); err != nil {
		t.Fatal(err)
	}
	s.Release()

	to, c := open(t, filepath.Join(dir, "to.db"))
	to.ApplyBatch([]*Log{entry(t, 1), entry(t, 2, "other"), entry(t, 3, "other")})
	kept := hashOf(t, to)
	restore := func(b []byte) error { return to.Restore(io.NopCloser(bytes.NewReader(b))) }
	whole := content.Bytes()
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		switch err := restore(flipped); {
		case err == nil && hashOf(t, to) == before: // a bit that says nothing about the content
			kept = before
		case hashOf(t, to) != kept:
			t.Errorf("byte %d flipped changed the state (%v)", i, err)
		case i != len(snapshotMagic) && !errors.Is(err, ErrSnapshot):
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if err := restore(whole[:i]); !errors.Is(err, ErrSnapshot) {
			t.Errorf("a snapshot cut at %d: %v", i, err)
		}
	}
	if err := restore(append(bytes.Clone(whole), whole...)); err == nil {
		t.Error("two snapshots were restored as one")
	}
	if hashOf(t, to) != kept || c.published != 2 {
		t.Error("a damaged snapshot changed the state")
	}
	if err := restore(whole); err != nil {
		t.Fatal(err)
	}
	if hashOf(t, to) != before || c.published != 2 || to.Position().Index != 2 || to.Position().Cluster != "c" {
		t.Errorf("restored %d at %+v", c.published, to.Position())
	}
	if got := to.Apply(entry(t, 3, "x")); got != uint64(3) {
		t.Errorf("after the restore an entry has the result %v", got)
	}
}

func TestNothingComesBeforeTheClustersName(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "state.db"))
	l := entry(t, 2, "a")
	l.Data, _ = EncodeCommand(&storagev1.Command{
		Version: Version, Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: []string{"a"}}},
	})
	if err, _ := f.Apply(l).(error); !errors.Is(err, ErrHalted) {
		t.Errorf("a command of no cluster: %v", err)
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "state.db"))
	f.Apply(entry(t, 1))
	f.Apply(entry(t, 100, "a"))
	l := entry(t, 2, "b") // of a leader whose clock is behind
	l.Index = 101
	if f.Apply(l); f.Position().Time != 100 || f.Position().Index != 101 {
		t.Errorf("position is %+v", f.Position())
	}
}

func TestASecondNameOfTheClusterChangesNothing(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "state.db"))
	f.Apply(entry(t, 1))
	data, err := EncodeCommand(&storagev1.Command{Version: Version, Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: "d"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Apply(&Log{Index: 2, Term: 1, Data: data}); got != (Initialised{"c"}) {
		t.Errorf("result %v", got)
	}
	if f.Position().Cluster != "c" {
		t.Errorf("the cluster is %q", f.Position().Cluster)
	}
}

func FuzzRestore(f *testing.F) {
	state, _ := open(f, filepath.Join(f.TempDir(), "from.db"))
	state.ApplyBatch([]*Log{entry(f, 1), entry(f, 2, "a", "b")})
	s, err := state.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	var content sink
	if err := s.Persist(&content); err != nil {
		f.Fatal(err)
	}
	s.Release()
	f.Add(content.Bytes())
	path := filepath.Join(f.TempDir(), "to.db")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := restoreFile(path, bytes.NewReader(b)); err != nil {
			return
		}
		db, err := openBolt(path) // what was accepted is a file
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.View(func(tx *bbolt.Tx) error { return walk(tx, func(_, _, _ []byte) error { return nil }) }); err != nil {
			t.Error(err)
		}
	})
}
