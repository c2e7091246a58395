package metastore

import (
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/objstore/memory"
)

// put stores an object in the bucket that is nothing but its footer.
func (r *running) put(m *storagev1.BlockMeta) {
	r.t.Helper()
	if err := r.bucket.(*memory.Bucket).Put(r.t.Context(), block.Key(m), encoded(m)); err != nil {
		r.t.Fatal(err)
	}
}

// snapshotted waits until the bucket has a snapshot of what is in the index now.
func (r *running) snapshotted() {
	r.t.Helper()
	at := r.state.Position().Index
	time.Sleep(r.cfg.Snapshots.Interval + time.Minute)
	synctest.Wait()
	if all := r.stored(); len(all) == 0 || all[0].Index < at {
		r.t.Fatalf("snapshots are %v, want one of %d", all, at)
	}
}

// rebuilt loses the metastore and goes on with what is put together from the bucket.
func (r *running) rebuilt() (*running, Rebuilt) {
	r.t.Helper()
	r.stop()
	dir := fastDir(r.t.(*testing.T))
	report, err := Rebuild(r.t.Context(), DefaultConfig(dir), r.bucket, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	return serving(r.t, dir, r.bucket), report
}

// A worker that dies after it has stored its outputs, and before it hears of a deletion, leaves objects that hold what was
// deleted. They do not come into the index with the next rebuild, although they look like the result of a job.
func TestRebuildKeepsWhatTheSnapshotSaysWasDeleted(t *testing.T) {
	web := "web"
	for name, req := range map[string]*adminv1.DeleteRequest{
		"a tenant": {Tenant: "a"}, "a service": {Tenant: "a", Service: &web}, "series": {Tenant: "a", Selector: `{pod="1"}`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			synctest.Test(t, func(t *testing.T) {
				r := serving(t, dir, memory.New())
				m := segment(newID(), 1, dataset{"a", "db", 1, 2}, dataset{"a", "web", 1, 2}, dataset{"b", "web", 1, 2})
				r.put(m)
				r.mustAdd(m)
				for _, output := range merged(r.poll("w", 1, 30*time.Second)[0]) {
					r.put(output)
				}
				if _, err := r.Deletions().Delete(t.Context(), connect.NewRequest(req)); err != nil {
					t.Fatal(err)
				}
				r.snapshotted()
				before := r.entries(t)
				r, report := r.rebuilt()
				if after := r.entries(t); len(report.Left) != 2 || !slices.EqualFunc(before, after, func(x, y *storagev1.BlockMeta) bool { return proto.Equal(x, y) }) {
					t.Errorf("the index has %v, want %v; %+v", after, before, report)
				}
				if jobs := r.poll("w", 1, 30*time.Second); len(jobs) != 1 || !proto.Equal(jobs[0].GetSources()[0], before[0]) {
					t.Errorf("jobs are %v, want one that rewrites %v", jobs, before)
				}
			})
		})
	}
}

// entries returns the index.
func (r *running) entries(t *testing.T) (all []*storagev1.BlockMeta) {
	t.Helper()
	if err := r.state.View(func(tx *fsm.Tx) error {
		return r.machine.index.Entries(tx, func(m *storagev1.BlockMeta) error {
			all = append(all, m)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// An entry that had lost data and was replaced needs no rewriting any more, and deletions that come later do not ask for it.
func TestRebuildForgetsWhatNeedsNoRewriting(t *testing.T) {
	dir := fastDir(t)
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, dir, memory.New())
		one := segment(newID(), 1, dataset{"a", "web", 1, 2}, dataset{"b", "web", 1, 2})
		two := segment(newID(), 1, dataset{"b", "web", 1, 2})
		r.put(one)
		r.put(two)
		r.mustAdd(one, two)
		if _, err := r.delete("a"); err != nil {
			t.Fatal(err)
		}
		r.snapshotted()
		r.stop()
		// The newest snapshot is damaged, so that a source is gone of what replaced both.
		output := object(newID(), "b", 1, 1, []string{one.GetId(), two.GetId()}, dataset{"b", "web", 1, 2})
		r.put(output)
		if err := r.bucket.Delete(t.Context(), block.Key(two)); err != nil {
			t.Fatal(err)
		}
		r, _ = r.rebuilt()
		if got := r.ids("b"); !slices.Equal(got, []string{output.GetId()}) {
			t.Fatalf("the index has %v, want %s", got, output.GetId())
		}
		if _, err := r.delete("b"); err != nil {
			t.Errorf("a deletion after it: %v", err)
		}
		if got := r.machine.jobs.Summary().Rewrites; got != 0 {
			t.Errorf("%d entries are to be rewritten", got)
		}
	})
}
