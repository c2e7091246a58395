package metastore

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
)

// has says whether the bucket has an object.
func has(t testing.TB, b objstore.Getter, m *storagev1.BlockMeta) bool {
	t.Helper()
	_, err := b.Attributes(t.Context(), block.Key(m))
	if err != nil && !errors.Is(err, objstore.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// upload stores an object that is not registered.
func upload(t testing.TB, b objstore.Putter, m *storagev1.BlockMeta) *storagev1.BlockMeta {
	t.Helper()
	if err := b.Put(t.Context(), block.Key(m), encoded(m)); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOrphansAreSwept(t *testing.T) {
	for _, skew := range []time.Duration{0, -48 * time.Hour, 48 * time.Hour} {
		t.Run(fmt.Sprint(skew), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := &skewed{memory.New(), skew}
				r := serving(t, t.TempDir(), bucket, func(c *Config) { // an hour is a day
					c.Sweep = SweepConfig{Interval: 5 * time.Minute, Age: time.Hour, Apart: 5 * time.Minute}
				})
				web := dataset{"a", "web", 1, 2}
				orphan := upload(t, bucket, segment(newID(), 1, web))
				late := upload(t, bucket, segment(newID(), 1, web))
				live := upload(t, bucket, segment(newID(), 2, web))
				r.mustAdd(live)
				lost := upload(t, bucket, object(newID(), "a", 1, 1, []string{newID()}, web))
				claimed := upload(t, bucket, object(newID(), "a", 2, 1, []string{live.GetId()}, web))
				r.poll("slow", 1, 30*time.Second) // live is the source of a job from now on
				unreadable := segment(newID(), 1, web)
				if err := bucket.Put(t.Context(), "segments/1/"+unreadable.GetId(), []byte("half")); err != nil {
					t.Fatal(err)
				}
				if err := bucket.Put(t.Context(), "segments/1/README", []byte("not ours")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Minute)
				r.mustAdd(late) // its writer was slow
				if !has(t, bucket, orphan) || !has(t, bucket, lost) {
					t.Fatal("an orphan is gone before it is old enough")
				}
				time.Sleep(40 * time.Minute)
				synctest.Wait()
				if has(t, bucket, orphan) || has(t, bucket, lost) {
					t.Error("an orphan is left")
				}
				for what, m := range map[string]*storagev1.BlockMeta{"entry": live, "late entry": late, "output of a job": claimed, "object that nobody can read": unreadable} {
					if !has(t, bucket, m) {
						t.Errorf("the %s is gone", what)
					}
				}
				if _, err := bucket.Attributes(t.Context(), "segments/1/README"); err != nil {
					t.Errorf("what is not ours is gone: %v", err)
				}
				if code := connect.CodeOf(r.add(orphan)); code != connect.CodeInvalidArgument {
					t.Errorf("registering a swept object ends with %v", code)
				}
				if got := r.list().GetTombstones(); got != 0 {
					t.Errorf("%d tombstones are left", got)
				}
			})
		})
	}
}

func TestAnOrphanIsSeenTwiceAndBuriedByTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := memory.New()
		r := serving(t, t.TempDir(), bucket, func(c *Config) { c.Sweep.Interval = 1000 * time.Hour })
		w := &sweeper{m: r.Metastore, seen: map[string]sighting{}}
		orphan := upload(t, bucket, segment(newID(), 1, dataset{"a", "web", 1, 2}))
		sweep := func(storeNow time.Time) {
			t.Helper()
			if err := w.sweep(t.Context(), storeNow); err != nil {
				t.Fatal(err)
			}
		}
		far := time.Now().Add(1000 * time.Hour)
		sweep(far)
		sweep(far)
		time.Sleep(2 * time.Hour)
		sweep(time.Now())
		if got := r.list().GetTombstones(); got != 0 {
			t.Fatalf("%d tombstones of an object that is young, or was seen once", got)
		}
		upload(t, bucket, orphan) // again: it is another sighting
		sweep(far)
		if got := r.list().GetTombstones(); got != 0 {
			t.Fatal("an object that was put again counts as seen")
		}
		time.Sleep(2 * time.Hour)
		w.m.cfg.Sweep.DryRun = true
		sweep(far)
		if got := r.list().GetTombstones(); got != 0 {
			t.Fatal("a dry run buries")
		}
		w.m.cfg.Sweep.DryRun = false
		sweep(far)
		if got := r.list().GetTombstones(); got != 1 {
			t.Fatalf("%d tombstones", got)
		}
		// What is registered between the look and the command stays.
		won := segment(newID(), 1, dataset{"a", "web", 1, 2})
		r.mustAdd(won)
		n, err := propose[buriedOrphans](t.Context(), r.Metastore, &storagev1.Command{Body: &storagev1.Command_BuryOrphans{BuryOrphans: &storagev1.BuryOrphans{
			Orphans: []*storagev1.OrphanObject{
				{Id: won.GetId(), Key: block.Key(won)}, {Id: orphan.GetId(), Key: block.Key(orphan)},
				{Id: "x", Key: "segments/1/x"}, {Id: newID(), Key: block.Key(won)},
			},
		}}})
		if err != nil || n != 0 {
			t.Errorf("%d buried (%v)", n, err)
		}
	})
}
