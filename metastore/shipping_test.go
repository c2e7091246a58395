package metastore

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/snapshots"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

// stored returns the snapshots in the bucket, newest first.
func (r *running) stored() []snapshots.Snapshot {
	r.t.Helper()
	all, err := snapshots.List(r.t.Context(), r.bucket)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func TestSnapshotsGoToTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{}, func(c *Config) {
			c.Snapshots = SnapshotConfig{Interval: time.Hour, Entries: 50, Keep: 2}
		})
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		time.Sleep(59 * time.Minute)
		if got := r.stored(); len(got) != 0 {
			t.Fatalf("%d snapshots before the interval is over", len(got))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		first := r.stored()
		if len(first) != 1 {
			t.Fatalf("%d snapshots after the interval", len(first))
		}
		time.Sleep(3 * time.Hour)
		if got := r.stored(); len(got) != 1 {
			t.Errorf("%d snapshots of a state that does not change", len(got))
		}
		for range 60 {
			r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := r.stored(); len(got) != 2 || got[1].Key != first[0].Key || got[0].Index < first[0].Index+60 {
			t.Fatalf("after many entries the snapshots are %v", got)
		}
		for range 3 {
			r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
			time.Sleep(61 * time.Minute)
		}
		synctest.Wait()
		got := r.stored()
		if len(got) != 2 || !got[0].Taken.After(got[1].Taken) || got[1].Index <= first[0].Index+60 {
			t.Fatalf("of many snapshots %v are left, want the newest two", got)
		}
		// What is in the bucket is the state.
		content, err := io.ReadAll(snapshots.Open(t.Context(), r.bucket, got[0]))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := fsm.CheckSnapshot(bytes.NewReader(content)); err != nil || p != r.state.Position() || p.Index != got[0].Index {
			t.Errorf("the snapshot is at %+v (%v), the state at %+v", p, err, r.state.Position())
		}
		copied := openReplica(t, t.TempDir()+"/copy.db")
		defer copied.close(t)
		if err := copied.state.Restore(io.NopCloser(bytes.NewReader(content))); err != nil {
			t.Fatal(err)
		}
		if want, err := r.StateHash(); err != nil || copied.hash(t) != want {
			t.Errorf("what is restored from the bucket differs (%v)", err)
		}
	})
}

func TestNothingIsDeletedBeforeASnapshotKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := objstoretest.NewFaulty(memory.New())
		bucket := &deletions{objects: faulty}
		r := serving(t, t.TempDir(), bucket)
		faulty.FailPrefix(objstoretest.BeforePut, snapshots.Prefix, errors.New("bucket is down"), objstoretest.Always)
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		a := r.poll("w", 1, 30*time.Second)[0]
		if err := r.complete("w", a, merged(a)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * r.cfg.Grace)
		synctest.Wait()
		if got := bucket.deleted(); len(got) != 0 {
			t.Fatalf("%v deleted although no snapshot could be stored", got)
		}
		if got := value(t, r, "kiln_metastore_snapshot_age_seconds"); got < (3 * r.cfg.Grace).Seconds() {
			t.Errorf("the age of the newest snapshot is %v s", got)
		}
		faulty.Heal()
		time.Sleep(shippingRetry + time.Second)
		r.until(func() bool { return len(bucket.deleted()) == 1 })
		if got := value(t, r, "kiln_metastore_snapshot_age_seconds"); got > shippingRetry.Seconds() {
			t.Errorf("the age of the newest snapshot is %v s after it was stored", got)
		}
		// The snapshot has the tombstone.
		copied := openReplica(t, t.TempDir()+"/copy.db")
		defer copied.close(t)
		if err := copied.state.Restore(snapshots.Open(t.Context(), r.bucket, r.stored()[0])); err != nil {
			t.Fatal(err)
		}
		if got := copied.jobs.Summary().Tombstones; got != 1 {
			t.Errorf("the snapshot has %d tombstones", got)
		}
		if !slices.ContainsFunc(bucket.deleted(), func(key string) bool { return strings.HasPrefix(key, "segments/1/") }) {
			t.Errorf("deleted %v", bucket.deleted())
		}
	})
}
