package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// flatNames are n functions in the total order, each with a location, and a tree of n stacks of one location each.
func flatNames(n int) (sym profile.Symbols, stack profile.StackTree, call profile.CallTree) {
	sym.Strings, sym.Mappings, sym.Functions = make([]profile.Span, 1), make([]profile.Mapping, 1), make([]profile.Function, 1)
	stack.Parents, stack.Locations = make([]uint32, n+1), make([]uint32, n+1)
	call.Parents, call.Names, call.OfStack = make([]uint32, n+1), make([]uint32, n+1), make([]uint32, n+1)
	for i := range uint32(n) {
		name := fmt.Sprintf("function%07d", i)
		sym.Strings = append(sym.Strings, profile.Span{Off: uint32(len(sym.Data)), Len: uint32(len(name))})
		sym.Data = append(sym.Data, name...)
		sym.Functions = append(sym.Functions, profile.Function{Name: i + 1, SystemName: i + 1})
		sym.Lines = append(sym.Lines, profile.Line{Function: i + 1})
		sym.Locations = append(sym.Locations, profile.Location{FirstLine: i, Lines: 1})
		stack.Locations[i+1], call.Names[i+1], call.OfStack[i+1] = i, i+1, i+1
	}
	return sym, stack, call
}

// noise is how a noisy object is made: profiles of about 2000 rows each, of 4000 stacks, at the times from, from+step, ...
type noise struct {
	seed       uint64
	level      uint32
	profiles   int
	from, step int64
	// requests: rows have spans, traces and times, and some stacks a row for each of several spans.
	requests bool
}

// write writes an object of one service whose values hardly compress. Of level 0 it is not sorted.
func (n noise) write(t testing.TB, out io.Writer) {
	t.Helper()
	const stacks, rows = 4000, 2000
	rng := rand.New(rand.NewPCG(n.seed, 9))
	w := NewWriter(out, Header{ID: fmt.Sprintf("01NOISY%03d", n.seed), Tenant: "acme", Level: n.level})
	g := w.Group("acme", n.level > 0)
	sym, stack, call := flatNames(stacks)
	calls := &call
	if n.level == 0 {
		calls = nil
	}
	g.Symbols(&sym)
	var series []labels.Labels
	for i := range 10 {
		series = append(series, labels.FromStrings(labels.ServiceName, "noisy", "pod", fmt.Sprint(i)))
	}
	g.Series(series)
	kind := profile.Kind{Name: "process_cpu", PeriodType: "cpu", PeriodUnit: "nanoseconds",
		SampleTypes: []profile.SampleType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	rw := g.Rows("noisy", kind, g.Trees(&stack, calls))
	for i := range n.profiles {
		var nodes []uint32
		values := make([][]int64, 2)
		var x Extras
		p := Profile{Time: n.from + n.step*int64(i), Series: uint32(i % 10), Duration: 10e9, Period: 1e7}
		for s := 1; s <= stacks; s += 1 + rng.IntN(2*stacks/rows-1) {
			spans := 1
			if n.requests && s%8 == 0 {
				spans = 2
			}
			for again := range spans {
				nodes = append(nodes, uint32(s))
				values[0] = append(values[0], rng.Int64N(128))
				values[1] = append(values[1], rng.Int64N(1<<14))
				if n.requests {
					x.Spans = append(x.Spans, profile.SpanID{byte(again), byte(rng.IntN(5)), byte(i)})
					x.Traces = append(x.Traces, profile.TraceID{15: byte(rng.IntN(3))})
					x.Times = append(x.Times, p.Time+rng.Int64N(1e9), p.Time+1e9)
					x.TimeEnds = append(x.TimeEnds, uint32(len(x.Times)))
				}
			}
		}
		p.ID[0], p.ID[1], p.ID[2] = byte(n.seed), byte(i), byte(i>>8)
		if err := rw.AppendExtras(p, nodes, values, &x); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// fileSource is an object in a file. It notes how large the heap is at every read, and how many reads are at work.
type fileSource struct {
	f    *os.File
	size int64
	heap *peakHeap
}

// peakHeap is the largest heap that was seen, garbage included.
type peakHeap struct {
	mu   sync.Mutex
	peak uint64
}

func (h *peakHeap) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peak = max(h.peak, m.HeapAlloc)
}

func (s *fileSource) Size() int64 { return s.size }

func (s *fileSource) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	_, err := s.f.ReadAt(b, off)
	s.heap.look()
	return b, err
}

// noisyFiles writes noisy blocks to files and opens them.
func noisyFiles(t *testing.T, heap *peakHeap, sources, profiles int, requests bool) (readers []*Reader, stored int64) {
	t.Helper()
	for i := range sources {
		f, err := os.Create(filepath.Join(t.TempDir(), "object"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		noise{uint64(i), 2, profiles, int64(i), int64(sources), requests}.write(t, f)
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		src := &fileSource{f, info.Size(), heap}
		meta, err := ReadMeta(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(src, meta)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
		stored += info.Size()
	}
	return readers, stored
}

// However much there is to merge, and however it interleaves, the heap stays below the budget, garbage included.
func TestMergeStaysWithinItsBudget(t *testing.T) {
	t.Run("values", func(t *testing.T) { testBudget(t, 48<<20, 30, 330, false) })
	t.Run("spans, traces and times", func(t *testing.T) { testBudget(t, 72<<20, 8, 350, true) })
}

func testBudget(t *testing.T, budget int64, sources, profiles int, requests bool) {
	t.Helper()
	heap := &peakHeap{}
	readers, stored := noisyFiles(t, heap, sources, profiles, requests)
	runtime.GC()
	runtime.GC() // the second empties the pools
	heap.peak = 0
	heap.look()
	before := 2 * heap.peak // what was there may have as much garbage beside it
	w := NewWriter(io.Discard, Header{ID: "01OUT", Tenant: "acme", Level: 3})
	if err := MergeWithin(t.Context(), budget, "acme", readers, w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	grown := heap.peak - min(heap.peak, before)
	t.Logf("merging %d MiB with a budget of %d MiB: the heap grows to %d MiB", stored>>20, budget>>20, grown>>20)
	if grown > uint64(budget) {
		t.Errorf("the heap grew to %d bytes, the budget is %d", grown, budget)
	}
	if stored < budget {
		t.Errorf("only %d bytes to merge", stored)
	}
}

// What cannot fit is refused by name, before it is tried.
func TestMergeRefusesWhatIsBeyondItsBudget(t *testing.T) {
	heap := &peakHeap{}
	readers, _ := noisyFiles(t, heap, 3, 10, false)
	for _, budget := range []int64{0, 10 << 10, 200 << 10, 1 << 20} {
		w := NewWriter(io.Discard, Header{ID: "01OUT", Tenant: "acme", Level: 3})
		err := MergeWithin(t.Context(), budget, "acme", readers, w)
		if !errors.Is(err, ErrBudget) || !strings.Contains(err.Error(), `service "noisy"`) || !strings.Contains(err.Error(), fmt.Sprint(budget)) {
			t.Errorf("budget %d: error %v", budget, err)
		}
		if _, err := w.Finish(); !errors.Is(err, ErrBudget) {
			t.Errorf("budget %d: the object could be finished: %v", budget, err)
		}
	}
	if err := MergeWithin(t.Context(), 16<<20, "acme", readers, NewWriter(io.Discard, Header{Tenant: "acme", Level: 3})); err != nil {
		t.Errorf("a budget of 16 MiB: %v", err)
	}
}

// tight is a budget under which sections of more than 64 KiB are read in ranges.
const tight = 10 << 20

// tightOfRequests is tight for pages with spans, traces and times, which are several times larger.
const tightOfRequests = 28 << 20

// mergeAt merges objects within a budget.
func mergeAt(t testing.TB, budget int64, level uint32, readers ...*Reader) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, Header{ID: "01OUT", Tenant: "acme", Level: level})
	if err := MergeWithin(t.Context(), budget, "acme", readers, w); err != nil {
		if _, finished := w.Finish(); finished == nil {
			t.Errorf("an object was finished after %v", err)
		}
		return nil, err
	}
	_, err := w.Finish()
	return out.Bytes(), err
}

func (n noise) bytes(t testing.TB) []byte {
	var b bytes.Buffer
	n.write(t, &b)
	return b.Bytes()
}

// The budget changes how sources are read, not what comes out; and everything is read once, or as often as there are
// passes over it.
func TestMergeIsTheSameWithinAnyBudget(t *testing.T) {
	a, b := noise{1, 2, 240, 1000, 2, false}.bytes(t), noise{2, 2, 240, 1001, 2, false}.bytes(t)
	segment := noise{4, 0, 150, 1001, 3, false}.bytes(t)
	c, d := noise{6, 2, 60, 1000, 2, true}.bytes(t), noise{7, 2, 60, 1001, 2, true}.bytes(t)
	spans := noise{8, 0, 40, 1001, 3, true}.bytes(t)
	for name, sources := range map[string][][]byte{
		"interleaving":            {a, b},
		"one after another":       {noise{3, 2, 150, 5000, 1, false}.bytes(t), a},
		"duplicates":              {a, b, a},
		"segments":                {segment, noise{5, 0, 150, 1100, 2, false}.bytes(t)},
		"segment and blocks":      {segment, a, b},
		"one segment twice":       {segment, segment},
		"spans":                   {c, d, a},
		"spans one after another": {c, noise{9, 2, 60, 5000, 1, true}.bytes(t)},
		"segments with spans":     {spans, c, spans, a},
	} {
		little := int64(tight)
		if strings.Contains(name, "spans") {
			little = tightOfRequests
		}
		for _, level := range []uint32{1, 2, 4} {
			var outs [2][]byte
			for i, budget := range []int64{DefaultBudget, little} {
				var readers []*Reader
				for _, s := range sources {
					readers = append(readers, open(t, s))
				}
				var err error
				if outs[i], err = mergeAt(t, budget, level, readers...); err != nil {
					t.Fatalf("%s to level %d within %d bytes: %v", name, level, budget, err)
				}
			}
			if !bytes.Equal(outs[0], outs[1]) {
				t.Errorf("%s to level %d: %d bytes, within a tight budget %d others", name, level, len(outs[0]), len(outs[1]))
			}
		}
	}
}

// samplesOf returns where the first SAMPLES section of an object is.
func samplesOf(t testing.TB, r *Reader) *storagev1.Section {
	t.Helper()
	for _, s := range r.Meta().Groups[0].Sections {
		if s.GetType() == storagev1.SectionType_SECTION_TYPE_SAMPLES {
			return s
		}
	}
	t.Fatal("no samples")
	return nil
}

// A byte that is wrong in a section that is read in ranges is found, at the latest when all of it has gone by, also where
// nothing but the CRC could tell: and then there is no object.
func TestMergeFindsDamageLate(t *testing.T) {
	testLateDamage(t, tight, noise{1, 2, 240, 1000, 2, false}.bytes(t), noise{2, 2, 240, 1001, 2, false}.bytes(t))
	testLateDamage(t, tightOfRequests, noise{1, 2, 120, 1000, 2, true}.bytes(t), noise{2, 2, 120, 1001, 2, true}.bytes(t))
}

func testLateDamage(t *testing.T, budget int64, good, bad []byte) {
	t.Helper()
	section := samplesOf(t, open(t, bad))
	late := 0
	for i := range 40 {
		b := bytes.Clone(bad)
		at := section.GetOffset() + uint64(i)*(section.GetLength()-1)/39
		b[at] ^= 1
		_, err := mergeAt(t, budget, 1, open(t, good), open(t, b))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "01NOISY002") || !strings.Contains(err.Error(), section.GetType().String()) {
			t.Errorf("byte %d of %d: error %v", at-section.GetOffset(), section.GetLength(), err)
		} else if strings.Contains(err.Error(), fmt.Sprintf("want %08x", section.GetCrc())) {
			late++
		}
	}
	if late < 10 {
		t.Errorf("%d of 40 were found by the CRC alone", late)
	}
}

// What nobody needs is checked too: the merge reads it for that.
func TestMergeChecksDuplicatesThatItDrops(t *testing.T) {
	good := noise{1, 2, 240, 1000, 2, false}.bytes(t)
	bad := bytes.Clone(good)
	section := samplesOf(t, open(t, good))
	bad[section.GetOffset()+section.GetLength()/2] ^= 1
	if _, err := mergeAt(t, tight, 1, open(t, good), open(t, bad)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
}

// flaky is an object whose reads fail, or lie, from one on.
type flaky struct {
	b       []byte
	reads   atomic.Int64
	failing int64
	fail    func(b []byte) ([]byte, error)
	active  atomic.Int64
}

func (f *flaky) Size() int64 { return int64(len(f.b)) }

func (f *flaky) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	f.active.Add(1)
	defer f.active.Add(-1)
	b := bytes.Clone(f.b[off : off+n])
	if f.reads.Add(1) >= f.failing {
		return f.fail(b)
	}
	return b, ctx.Err()
}

// A read that fails in the middle of a section fails the merge with its error, and nothing goes on reading.
func TestMergeStopsWhenAReadFails(t *testing.T) {
	errDisk := errors.New("disk on fire")
	good, block := noise{1, 2, 240, 1000, 2, false}.bytes(t), noise{2, 2, 240, 1001, 2, false}.bytes(t)
	for name, c := range map[string]struct {
		fail func(b []byte) ([]byte, error)
		want error
	}{
		"fails": {func([]byte) ([]byte, error) { return nil, errDisk }, errDisk},
		"short": {func(b []byte) ([]byte, error) { return b[:len(b)/2], nil }, ErrCorrupt},
	} {
		for _, object := range [][]byte{block, noise{2, 0, 240, 1001, 2, false}.bytes(t)} {
			count := &flaky{b: object, failing: 1 << 30}
			meta, err := ReadMeta(t.Context(), count)
			if err != nil {
				t.Fatal(err)
			}
			count.reads.Store(0)
			r, err := Open(count, meta)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := mergeAt(t, tight, 3, open(t, good), r); err != nil {
				t.Fatal(err)
			}
			if count.reads.Load() < 10 {
				t.Fatalf("only %d reads", count.reads.Load())
			}
			for n := range count.reads.Load() {
				src := &flaky{b: object, failing: n + 1, fail: c.fail}
				r, err := Open(src, meta)
				if err != nil {
					t.Fatal(err)
				}
				_, err = mergeAt(t, tight, 3, open(t, good), r)
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), meta.GetId()) && c.want == ErrCorrupt {
					t.Errorf("%s at read %d: error %v", name, n, err)
				}
				if src.active.Load() != 0 {
					t.Errorf("%s at read %d: still reading after the merge", name, n)
				}
			}
		}
	}
}

// A page that is read a second time must be what it was the first time, which is what the CRC of the section is for.
func TestMergeNoticesThatAPageHasChanged(t *testing.T) {
	object := noise{1, 0, 240, 1000, 2, false}.bytes(t) // a segment: its stacks are looked at before they are copied
	section := samplesOf(t, open(t, object))
	seen := map[int64]bool{}
	var mu sync.Mutex
	src := &changing{b: object, change: func(off int64, b []byte) {
		mu.Lock()
		defer mu.Unlock()
		if within := uint64(off) >= section.GetOffset() && uint64(off) < section.GetOffset()+section.GetLength()/2; within && seen[off] {
			b[len(b)-1] ^= 1
		}
		seen[off] = true
	}}
	meta, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(src, meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mergeAt(t, tight, 1, r); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), section.GetType().String()) {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
}

// changing is an object whose bytes are changed on their way.
type changing struct {
	b      []byte
	change func(off int64, b []byte)
}

func (c *changing) Size() int64 { return int64(len(c.b)) }

func (c *changing) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	b := bytes.Clone(c.b[off : off+n])
	c.change(off, b)
	return b, nil
}

// Whether the names of all sources are held together or those of one at a time, and whichever of them are equal or only
// partly used, the same bytes are written.
func TestMergeUnitesNamesTheSameWithinAnyBudget(t *testing.T) {
	block := func(from, to int, at int64) []byte {
		var h head
		var values [][2]int64
		var stacks [][]string
		for i := from; i < to; i++ {
			name := fmt.Sprintf("example.com/%04d/%x.(*Server).Handle", i*7919%10007, rand.New(rand.NewPCG(uint64(i), 1)).Uint64())
			values = append(values, [2]int64{int64(i - from), 1})
			stacks = append(stacks, []string{"main", name, fmt.Sprintf("@%x", 0x1000+i)})
		}
		h.push("acme", makeProfile("api", values, stacks...), at, profile.ID{byte(from)}, noLabels)
		h.push("acme", simple("tiny", 1, "main"), at, profile.ID{1, 2, 3}, noLabels)
		return merge(t, "acme", 1, h.segment(t, fmt.Sprint("X", from)))
	}
	sources := [][]byte{block(0, 2000, 1), block(1000, 1400, 2), block(0, 2000, 3), block(0, 2000, 1), block(2500, 2900, 5)}
	for at := range int64(10) {
		sources = append(sources, block(0, 2000-10*int(at), 10+at))
	}
	together := func(budget int64) bool {
		m := merger{w: NewWriter(io.Discard, Header{ID: "01OUT", Tenant: "acme", Level: 2}), tenant: "acme", memory: newLedger(budget), groups: map[*group]*mergeGroup{}}
		m.scratch = newScratch()
		for i, s := range sources {
			for _, d := range open(t, s).datasets {
				m.add(i, d)
			}
		}
		fit, err := m.namesFit(t.Context(), m.byName["api"].datasets)
		if err != nil {
			t.Fatal(err)
		}
		return fit
	}
	const little = 10 << 20
	if !together(DefaultBudget) || together(little) {
		t.Fatalf("names fit together into the default budget: %t, into %d bytes: %t", together(DefaultBudget), little, together(little))
	}
	for _, level := range []uint32{1, 2, 3} {
		var outs [2][]byte
		for i, budget := range []int64{DefaultBudget, little} {
			var readers []*Reader
			for _, s := range sources {
				readers = append(readers, open(t, s))
			}
			var err error
			if outs[i], err = mergeAt(t, budget, level, readers...); err != nil {
				t.Fatalf("to level %d within %d bytes: %v", level, budget, err)
			}
		}
		if !bytes.Equal(outs[0], outs[1]) {
			t.Errorf("to level %d: %d bytes, within a tight budget %d others", level, len(outs[0]), len(outs[1]))
		}
	}
}

// Spans, traces and times are read in ranges as values are, and each row keeps its own. Damage in their pages is found.
func TestMergeOfRequestsWithinATightBudget(t *testing.T) {
	blocks := [][]byte{noise{1, 2, 60, 1000, 2, true}.bytes(t), noise{2, 2, 60, 1001, 2, true}.bytes(t), noise{3, 2, 60, 9000, 1, true}.bytes(t), noise{4, 0, 40, 1000, 3, true}.bytes(t)}
	var readers []*Reader
	for _, b := range blocks {
		readers = append(readers, open(t, b))
	}
	want := content(t, readers, "acme")
	for level := uint32(1); level <= 3; level++ {
		merged, err := mergeAt(t, tightOfRequests, level, readers...)
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, merged)
		checkSorted(t, r)
		sameContent(t, fmt.Sprintf("level %d", level), content(t, []*Reader{r}, "acme"), want)
		if rows := r.Datasets()[0].Rows[0]; !rows.Has(samples.Spans) || !rows.Has(samples.Traces) || !rows.Has(samples.Times) {
			t.Errorf("level %d has columns %v", level, rows.meta.Columns)
		}
	}
	bad := open(t, blocks[0])
	rows := bad.Datasets()[0].Rows[0]
	section, err := bad.groups[0].loadSamples(t.Context(), rows.meta.GetSamplesSection(), 3, ExtrasOf(rows.meta)...)
	if err != nil {
		t.Fatal(err)
	}
	for e := range samples.Extra(samples.NumExtras) {
		c, ok := section.Extra(e)
		if !ok {
			t.Fatalf("no column of %s", e)
		}
		b := bytes.Clone(blocks[0])
		from, _ := section.Range(section.Pages() - 1)
		for before := range c {
			from += uint64(len(section.Stored(section.Pages()-1, before)))
		}
		b[samplesOf(t, bad).GetOffset()+from+uint64(len(section.Stored(section.Pages()-1, c)))/2] ^= 4
		if _, err := mergeAt(t, tightOfRequests, 2, open(t, b), readers[1]); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "01NOISY001") {
			t.Errorf("a damaged page of %s: error %v", e, err)
		}
	}
}
