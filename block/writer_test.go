package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

var cpu = profile.Kind{Name: "process_cpu", SampleTypes: []profile.SampleType{{Type: "cpu", Unit: "nanoseconds"}}}

// oneGroup begins an object with a group that has names, a series and a tree of three nodes.
func oneGroup(out io.Writer) (*Writer, *GroupWriter, int) {
	w := NewWriter(out, Header{ID: "01TEST"})
	g := w.Group("acme", false)
	s := profile.NewTable().Symbols
	s.Locations = []profile.Location{{Address: 1}, {Address: 2}}
	g.Symbols(&s)
	g.Series([]labels.Labels{labels.FromStrings("service_name", "web")})
	return w, g, g.Trees(&profile.StackTree{Parents: []uint32{0, 0, 1}, Locations: []uint32{0, 0, 1}}, nil)
}

func TestAppendRefuses(t *testing.T) {
	var out bytes.Buffer
	w, g, trees := oneGroup(&out)
	rw := g.Rows("web", cpu, trees)
	good := func(p Profile, v int64) error { return rw.Append(p, []uint32{0, 2}, [][]int64{{v, 1}}) }
	if err := good(Profile{Time: 5}, 7); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"a negative value":        good(Profile{Time: 6}, -1),
		"a total beyond int64":    good(Profile{Time: 6}, math.MaxInt64),
		"a sum beyond int64":      good(Profile{Time: 6}, math.MaxInt64-2),
		"an earlier profile":      good(Profile{Time: 4}, 1),
		"a series that is not":    good(Profile{Time: 6, Series: 1}, 1),
		"a column too few":        rw.Append(Profile{Time: 6}, []uint32{1}, nil),
		"a value too few":         rw.Append(Profile{Time: 6}, []uint32{1, 2}, [][]int64{{1}}),
		"descending stacks":       rw.Append(Profile{Time: 6}, []uint32{2, 1}, [][]int64{{1, 1}}),
		"a stack twice":           rw.Append(Profile{Time: 6}, []uint32{1, 1}, [][]int64{{1, 1}}),
		"a stack that is no node": rw.Append(Profile{Time: 6}, []uint32{3}, [][]int64{{1}}),
	} {
		if !errors.Is(err, ErrProfile) {
			t.Errorf("%s: error %v, want ErrProfile", name, err)
		}
	}
	if err := good(Profile{Time: 5, ID: profile.ID{1}}, math.MaxInt64-9); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, out.Bytes())
	rows := r.Datasets()[0].Rows[0]
	if rows.ProfileCount != 2 || rows.SampleCount != 4 || rows.Sums[0] != math.MaxInt64 {
		t.Errorf("%d profiles, %d samples, sum %d; want the two that were not refused", rows.ProfileCount, rows.SampleCount, rows.Sums[0])
	}
	if m.MinTime != 5 || m.MaxTime != 5 || m.Size != uint64(out.Len()) {
		t.Errorf("footer %v", m)
	}
	if _, err := w.Finish(); !errors.Is(err, ErrMisuse) {
		t.Errorf("finished twice: %v", err)
	}
}

func TestMisuse(t *testing.T) {
	stack := &profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}
	for name, use := range map[string]func(w *Writer, g *GroupWriter, trees int){
		"group left open":     func(*Writer, *GroupWriter, int) {},
		"second group":        func(w *Writer, _ *GroupWriter, _ int) { w.Group("b", false) },
		"symbols twice":       func(_ *Writer, g *GroupWriter, _ int) { g.Symbols(&profile.NewTable().Symbols) },
		"series twice":        func(_ *Writer, g *GroupWriter, _ int) { g.Series(nil) },
		"call tree, unsorted": func(_ *Writer, g *GroupWriter, _ int) { g.Trees(stack, &profile.CallTree{}) },
		"tree without a root": func(_ *Writer, g *GroupWriter, _ int) { g.Trees(&profile.StackTree{}, nil) },
		"child before parent": func(_ *Writer, g *GroupWriter, _ int) {
			g.Trees(&profile.StackTree{Parents: []uint32{0, 1}, Locations: []uint32{0, 0}}, nil)
		},
		"rows of no trees":     func(_ *Writer, g *GroupWriter, trees int) { g.Rows("web", cpu, trees+1) },
		"kind without columns": func(_ *Writer, g *GroupWriter, trees int) { g.Rows("web", profile.Kind{}, trees) },
		"services descending":  func(_ *Writer, g *GroupWriter, trees int) { g.Rows("web", cpu, trees); g.Rows("api", cpu, trees) },
		"a kind twice":         func(_ *Writer, g *GroupWriter, trees int) { g.Rows("web", cpu, trees); g.Rows("web", cpu, trees) },
	} {
		w, g, trees := oneGroup(io.Discard)
		use(w, g, trees)
		if name != "group left open" {
			if err := g.Close(); name != "second group" && !errors.Is(err, ErrMisuse) {
				t.Errorf("%s: Close says %v", name, err)
			}
		}
		if _, err := w.Finish(); !errors.Is(err, ErrMisuse) {
			t.Errorf("%s: Finish says %v", name, err)
		}
	}
}

func TestOneServiceInTwoGroups(t *testing.T) {
	w, g, trees := oneGroup(io.Discard)
	if err := g.Rows("web", cpu, trees).Append(Profile{}, []uint32{1}, [][]int64{{1}}); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g = w.Group("acme", false)
	g.Symbols(&profile.NewTable().Symbols)
	g.Series([]labels.Labels{{}})
	trees = g.Trees(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil)
	if err := g.Rows("web", cpu, trees).Append(Profile{}, []uint32{0}, [][]int64{{1}}); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); !errors.Is(err, ErrMisuse) {
		t.Errorf("error %v, want ErrMisuse", err)
	}
}

// full is a disk that is full after n bytes.
type full struct{ n int }

var errFull = errors.New("disk full")

func (f *full) Write(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteErrorsStay(t *testing.T) {
	var h head
	h.push("acme", simple("web", 1, "main"), 1, profile.ID{}, noLabels)
	for n := 0; ; n++ {
		w := NewWriter(&full{n}, Header{ID: "X"})
		g := w.Group("acme", false)
		th := h.tenants["acme"]
		var tree profile.StackTree
		nodes := th.stacks.Tree(&tree, nil)
		g.Symbols(&th.table.Symbols)
		g.Series(th.series)
		rw := g.Rows("web", cpu, g.Trees(&tree, nil))
		appended := rw.Append(Profile{}, nodes, [][]int64{{1}})
		closed := g.Close()
		m, err := w.Finish()
		if err == nil {
			if uint64(n) != m.Size {
				t.Fatalf("finished an object of %d bytes on a disk of %d", m.Size, n)
			}
			return
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("%d bytes: Append %v, Close %v, Finish %v", n, appended, closed, err)
		}
	}
}

// A Writer that is reset writes the same bytes as a new one, whatever it wrote before and however that ended.
func TestReset(t *testing.T) {
	var large, small head
	d := makeProfile("web", [][2]int64{{1, 2}, {3, 4}}, []string{"main", "a"}, []string{"main", "b"})
	large.push("acme", d, 1, profile.ID{1}, noLabels)
	large.push("other", d, 2, profile.ID{1}, noLabels)
	small.push("acme", simple("api", 9, "main"), 3, profile.ID{1}, noLabels)
	want := small.segment(t, "SMALL")
	var out bytes.Buffer
	w := NewWriter(io.Discard, Header{ID: "LARGE"})
	large.write(t, w)
	for range 3 {
		out.Reset()
		w.Reset(&out, Header{ID: "SMALL", Shard: 3, Writer: "node-1"})
		small.write(t, w)
		if !bytes.Equal(out.Bytes(), want) {
			t.Fatal("a Writer that was used before writes other bytes")
		}
		w.Reset(io.Discard, Header{ID: "ABORTED"})
		w.Group("acme", false).Symbols(&profile.NewTable().Symbols)
		w.Abort()
	}
}

func TestKey(t *testing.T) {
	segment := &storagev1.BlockMeta{Id: "01A", Shard: 7}
	block := &storagev1.BlockMeta{Id: "01B", Shard: 7, Level: 2, Tenant: 1, Strings: []string{"", "acme"}, MinTime: 1_700_006_399_000_000_000}
	if got := Key(segment); got != "segments/7/01A" {
		t.Error(got)
	}
	if got := Key(block); got != "blocks/acme/2023-11-14/7/01B" {
		t.Error(got)
	}
}

// slow is a source that answers when it is told to, and can fail.
type slow struct {
	object
	gate chan error
}

func (s *slow) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	select {
	case err := <-s.gate:
		if err != nil {
			return nil, err
		}
		return s.object.ReadRange(ctx, off, n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestReaderIsSharedAndRetries(t *testing.T) {
	b := smallBlock(t)
	meta, err := ReadMeta(t.Context(), &object{b: b})
	if err != nil {
		t.Fatal(err)
	}
	src := &slow{object: object{b: b}, gate: make(chan error)}
	r, err := Open(src, meta)
	if err != nil {
		t.Fatal(err)
	}
	d := r.Datasets()[0]
	// Who waits for another's read leaves when its own context ends.
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := d.Series(t.Context()); first <- err }()
	cancel()
	if _, err := d.Series(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	// A failed read is not kept.
	src.gate <- errFull
	if err := <-first; !errors.Is(err, errFull) {
		t.Errorf("error %v, want the source's", err)
	}
	var wg sync.WaitGroup
	close(src.gate)
	for i := range 8 {
		wg.Go(func() {
			for _, d := range r.Datasets() {
				for _, rows := range d.Rows {
					if err := collect(t.Context(), map[string]int64{}, d, rows); err != nil {
						t.Errorf("reader %d: %v", i, err)
					}
				}
			}
		})
	}
	wg.Wait()
	sections := 0
	for _, g := range meta.Groups {
		sections += len(g.Sections)
	}
	if n := src.reads.Load(); n != int64(sections) {
		t.Errorf("%d reads of %d sections", n, sections)
	}
}

func TestOpenChecksReferences(t *testing.T) {
	b := smallBlock(t)
	for name, damage := range map[string]func(m *storagev1.BlockMeta){
		"size":            func(m *storagev1.BlockMeta) { m.Size++ },
		"strings":         func(m *storagev1.BlockMeta) { m.Strings = nil },
		"tenant":          func(m *storagev1.BlockMeta) { m.Tenant = 99 },
		"kind name":       func(m *storagev1.BlockMeta) { m.Kinds[0].Name = 99 },
		"no sample types": func(m *storagev1.BlockMeta) { m.Kinds[0].SampleTypes = nil },
		"section end":     func(m *storagev1.BlockMeta) { m.Groups[0].Sections[0].Length = math.MaxUint64 },
		"section start":   func(m *storagev1.BlockMeta) { m.Groups[0].Sections[0].Offset = math.MaxUint64 },
		"two symbols":     func(m *storagev1.BlockMeta) { m.Groups[0].Sections[1].Type = m.Groups[0].Sections[0].Type },
		"other's group":   func(m *storagev1.BlockMeta) { m.Groups[0].Tenant = 0 },
		"group":           func(m *storagev1.BlockMeta) { m.Datasets[0].Group = 99 },
		"service":         func(m *storagev1.BlockMeta) { m.Datasets[0].Service = 99 },
		"dataset order":   func(m *storagev1.BlockMeta) { m.Datasets[0], m.Datasets[1] = m.Datasets[1], m.Datasets[0] },
		"times":           func(m *storagev1.BlockMeta) { m.Datasets[0].MaxTime = 0 },
		"kind":            func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Kind = 99 },
		"sums":            func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Sums = nil },
		"negative sum":    func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Sums[0] = -1 },
		"column starts":   func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].ColumnStarts = nil },
		"trees section":   func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].TreesSection = 0 },
		"samples section": func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].SamplesSection = 99 },
		"no profiles":     func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Profiles = 0 },
	} {
		src := &object{b: b}
		meta, err := ReadMeta(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(src, meta); err != nil {
			t.Fatal(err)
		}
		damage(meta)
		if _, err := Open(src, meta); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
		if src.reads.Load() != 1 {
			t.Errorf("%s: Open reads", name)
		}
	}
}

// A footer that is longer than the first read is read in a second.
func TestLongFooter(t *testing.T) {
	var h head
	for i := range 3000 {
		h.push("acme", simple(fmt.Sprintf("service-with-a-long-name-%06d", i), 1, "main"), int64(i), profile.ID{}, noLabels)
	}
	src := &object{b: h.segment(t, "LONG")}
	m, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Datasets) != 3000 || src.reads.Load() != 2 {
		t.Errorf("%d datasets in %d reads", len(m.Datasets), src.reads.Load())
	}
}
