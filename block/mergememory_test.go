package block

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// watched is an object whose bytes are fetched anew by every read, as from a bucket, and that notes how large the heap
// is then.
type watched struct {
	b    []byte
	heap *heapWatch
}

// heapWatch looks at the heap now and then.
type heapWatch struct {
	reads int
	peak  uint64
}

func (w *watched) Size() int64 { return int64(len(w.b)) }

func (w *watched) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	if w.heap.reads++; w.heap.reads%5 == 0 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.heap.peak = max(w.heap.peak, m.HeapAlloc)
	}
	return bytes.Clone(w.b[off : off+n]), nil
}

// manyServices makes a block of services whose names, trees and rows are large enough for groups of their own.
func manyServices(t testing.TB, seed byte, services int) []byte {
	t.Helper()
	var h head
	for s := range services {
		service := fmt.Sprintf("service-%02d", s)
		for i := range 4 {
			var values [][2]int64
			var stacks [][]string
			for f := range 1500 {
				values = append(values, [2]int64{int64(f*7+i*int(seed)) % 1000, int64(f * i)})
				stacks = append(stacks, []string{"main", service, strings.Repeat("x", 30) + fmt.Sprint(service, f)})
			}
			h.push("acme", makeProfile(service, values, stacks...), int64(i), profile.ID{seed, byte(i)}, labels.FromStrings("pod", fmt.Sprint(i)))
		}
	}
	return merge(t, "acme", 1, h.segment(t, fmt.Sprint(seed)))
}

// peak is how much the heap grows while blocks of so many services are merged.
func peak(t testing.TB, inputs, services int) uint64 {
	t.Helper()
	var readers []*Reader
	heap := &heapWatch{}
	for i := range inputs {
		src := &watched{manyServices(t, byte(i+1), services), heap}
		meta, err := ReadMeta(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(src, meta)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	runtime.GC()
	runtime.GC() // the second empties the pools, of which nobody knows how full they are
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	heap.peak, heap.reads = 0, 0
	w := NewWriter(io.Discard, Header{ID: "01PEAK", Tenant: "acme", Level: 2})
	if err := Merge(t.Context(), "acme", readers, w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(readers)
	return heap.peak - min(heap.peak, before.HeapAlloc)
}

// A merge holds one service at a time: four times as many services in as many inputs take no more memory.
func TestMergeMemoryIsThatOfOneService(t *testing.T) {
	few, many := peak(t, 6, 3), peak(t, 6, 12)
	t.Logf("merging 6 blocks of 3 services grows the heap by %d KiB, of 12 by %d KiB", few>>10, many>>10)
	if many > 2*few {
		t.Errorf("merging blocks of 12 services takes %d bytes, of 3 %d", many, few)
	}
}
