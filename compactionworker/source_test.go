package compactionworker

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

func newWorker(t *testing.T, bucket objstore.Bucket) *Worker {
	t.Helper()
	w, err := New(DefaultConfig("worker"), bucket, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestSmallSourcesTakeOneRequestEach has requests counted, which stores charge for.
func TestSmallSourcesTakeOneRequestEach(t *testing.T) {
	bucket := objstoretest.NewFaulty(memory.New())
	w := newWorker(t, bucket)
	job := &compactionv1.Assignment{}
	const sources = 5
	for range sources {
		b, meta := segment(t, "x", 1, "a/db", "a/web", "b/web")
		if err := bucket.Put(t.Context(), block.Key(meta), b); err != nil {
			t.Fatal(err)
		}
		job.Sources = append(job.Sources, meta)
	}
	m := merge{worker: w, job: job}
	if err := m.run(t.Context()); err != nil || len(m.outputs) != 2 {
		t.Fatalf("%d outputs, error %v", len(m.outputs), err)
	}
	if n := bucket.Passed(objstoretest.BeforeGet); n != sources {
		t.Errorf("%d requests for %d sources of two tenants", n, sources)
	}
	if full := w.cfg.Memory - w.cfg.MemoryBuffer; m.budget >= full {
		t.Errorf("what is held of the sources is not taken from the merge's budget of %d", full)
	}
}

func TestAWholeSourceIsItsObject(t *testing.T) {
	bucket := objstoretest.NewFaulty(memory.New())
	w := newWorker(t, bucket)
	object, meta := segment(t, "x", 1, "a/db")
	if err := bucket.Put(t.Context(), block.Key(meta), object); err != nil {
		t.Fatal(err)
	}
	size := int64(len(object))
	if _, held := w.source(meta, size-1); held != 0 {
		t.Errorf("%d bytes are held where there is no room for them", held)
	}
	src, held := w.source(meta, size)
	if held != size || src.Size() != size {
		t.Errorf("%d bytes are held of an object of %d, which has %d", held, src.Size(), size)
	}
	outage := errors.New("outage")
	bucket.Fail(objstoretest.BeforeGet, outage, 1)
	if _, err := src.ReadRange(t.Context(), 0, 1); !errors.Is(err, outage) {
		t.Errorf("error %v, want that of the bucket", err)
	}
	for _, r := range [][2]int64{{0, 1}, {3, 40}, {0, size}, {size - 1, 1}, {size, 0}} {
		got, err := src.ReadRange(t.Context(), r[0], r[1])
		if err != nil || !bytes.Equal(got, object[r[0]:r[0]+r[1]]) {
			t.Errorf("range %v: %d bytes, error %v", r, len(got), err)
		}
	}
	for _, r := range [][2]int64{{0, size + 1}, {size, 1}, {-1, 2}, {1, -1}} {
		if _, err := src.ReadRange(t.Context(), r[0], r[1]); !errors.Is(err, objstore.ErrRange) {
			t.Errorf("range %v: error %v", r, err)
		}
	}
}
