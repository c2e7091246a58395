package metastore

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/internal/failpoint"
	"github.com/kilndb/kiln/objstore/memory"
)

// failpoints returns the names of all points in the sources of the metastore.
func failpoints(t *testing.T) (points []string) {
	t.Helper()
	hit := regexp.MustCompile(`Hit\("([^"]+)"\)`)
	for _, dir := range []string{".", "fsm", "raftnode"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range hit.FindAllSubmatch(source, -1) {
				if !strings.HasSuffix(file, "_test.go") {
					points = append(points, string(m[1]))
				}
			}
		}
	}
	slices.Sort(points)
	if len(points) < 20 || len(slices.Compact(slices.Clone(points))) != len(points) {
		t.Fatalf("the points are %v", points)
	}
	return points
}

// TestEveryFailpoint has a member fail at every point in turn, in the middle of all that it does, and wants it to come out
// of it by itself, with everything that was acknowledged and nothing that should be gone.
func TestEveryFailpoint(t *testing.T) {
	for _, point := range failpoints(t) {
		t.Run(point, func(t *testing.T) {
			dir := fastDir(t)
			synctest.Test(t, func(t *testing.T) { life(t, dir, point) })
		})
	}
}

// life is everything that happens to a metastore, with a failure.
func life(t *testing.T, dir, point string) {
	bucket, points := memory.New(), &failpoint.Set{}
	config := func(c *Config) {
		c.Failpoints, c.Grace = points, time.Minute
		c.Sweep = SweepConfig{Interval: time.Minute, Age: 10 * time.Minute, Apart: 2 * time.Minute}
	}
	home := filepath.Join(dir, "first")
	r := serving(t, home, bucket, config)
	points.Fail(point, errors.New("no luck"), 2)
	web := dataset{"a", "web", 1, 2}
	orphan := upload(t, bucket, segment(newID(), 1, web))
	var sources []string
	for range 3 {
		m := upload(t, bucket, segment(newID(), 1, web))
		sources = append(sources, m.GetId())
		r.until(func() bool { return r.add(m) == nil }) // as a segment-writer does: again, with the same id
	}
	a := r.poll("w", 1, 30*time.Second)
	for len(a) == 0 {
		a = r.poll("w", 1, 30*time.Second)
	}
	outputs := merged(a[0])
	upload(t, bucket, outputs[0])
	r.until(func() bool {
		err := r.complete("w", a[0], outputs)
		return err == nil || slices.Contains(r.ids("a"), outputs[0].GetId())
	})
	want := []string{outputs[0].GetId()}
	check := func(when string) {
		t.Helper()
		if got := r.ids("a"); !slices.Equal(got, want) {
			t.Fatalf("%s: the index has %v, want %v", when, got, want)
		}
	}
	check("after the compaction")
	for range 2 {
		_ = r.Snapshot(t.Context()) // which may fail
		last := segment(newID(), 1, web)
		want = append(want, last.GetId())
		slices.Sort(want)
		upload(t, bucket, last)
		r.until(func() bool { return r.add(last) == nil })
	}
	time.Sleep(20 * time.Minute)
	synctest.Wait()
	if r.Ready() != nil {
		t.Errorf("not ready: %v", r.Ready())
	}
	if has(t, bucket, orphan) {
		t.Error("an orphan is left")
	}
	for _, id := range sources {
		if has(t, bucket, segment(id, 1, web)) {
			t.Error("a replaced object is left")
		}
	}
	if len(r.stored()) == 0 || r.list().GetTombstones() != 0 {
		t.Errorf("%d snapshots, %d tombstones", len(r.stored()), r.list().GetTombstones())
	}
	check("after the sweep")

	// The state is rebuilt from snapshot and log.
	r.stop()
	if err := os.Remove(filepath.Join(home, "metastore", "state.db")); err != nil {
		t.Fatal(err)
	}
	r = serving(t, home, bucket, config)
	check("after the state was lost")
	r.stop()

	// The index is rebuilt from the bucket.
	cfg := DefaultConfig(filepath.Join(dir, "second"))
	config(&cfg)
	for range 3 {
		if _, err := Rebuild(t.Context(), cfg, bucket, slog.New(slog.DiscardHandler)); err == nil {
			break
		} else if _, statErr := os.Stat(cfg.dir()); statErr == nil {
			t.Fatalf("after %v there is half an index", err)
		}
	}
	r = serving(t, cfg.DataDir, bucket, config)
	check("after the index was rebuilt")
	for _, m := range r.machine.index.View().Find(queryOf("a")) {
		if _, err := bucket.Attributes(t.Context(), block.Key(m)); err != nil {
			t.Error(err)
		}
	}
	r.stop()
	if points.Failed(point) == 0 {
		t.Error("the point was never passed")
	}
}
