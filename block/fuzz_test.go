package block

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/block/series"
	"github.com/kilndb/kiln/block/symbols"
	"github.com/kilndb/kiln/profile"
)

// seeds gives a fuzz target every section of a type of two small objects.
func seeds(f *testing.F, t storagev1.SectionType) {
	f.Helper()
	for _, b := range [][]byte{smallSegment(f), smallBlock(f), smallRollup(f), smallSeries(f), smallSpans(f), merge(f, "acme", 1, smallSpans(f))} {
		r := open(f, b)
		for _, g := range r.groups {
			for _, s := range g.meta.Sections {
				if s.Type == t {
					f.Add(b[s.Offset : s.Offset+s.Length])
				}
			}
		}
	}
}

// mustBeCorrupt fails on errors that are not ErrCorrupt, and on panics that were caught.
func mustBeCorrupt(t *testing.T, err error) {
	t.Helper()
	if err != nil && (!errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) || strings.Contains(err.Error(), "goroutine")) {
		t.Fatalf("error %v, want ErrCorrupt", err)
	}
}

func FuzzSymbols(f *testing.F) {
	seeds(f, storagev1.SectionType_SECTION_TYPE_SYMBOLS)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := symbols.DecodeSymbols(b)
		mustBeCorrupt(t, err)
		if err != nil {
			return
		}
		for i := range s.Locations {
			locationText(s, uint32(i)) // follows every reference
		}
		var e symbols.Encoder
		b, err = e.AppendSymbols(nil, s, 0)
		if err != nil {
			t.Fatal(err)
		}
		again, err := symbols.DecodeSymbols(b)
		if err != nil || len(again.Strings) != len(s.Strings) || len(again.Lines) != len(s.Lines) {
			t.Fatalf("encoded again: %v", err)
		}
	})
}

func FuzzTrees(f *testing.F) {
	seeds(f, storagev1.SectionType_SECTION_TYPE_TREES)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := symbols.Counts{Strings: 40, Mappings: 1, Functions: 20, Locations: 20}
		stack, call, err := symbols.DecodeTrees(b, n)
		mustBeCorrupt(t, err)
		if err != nil {
			return
		}
		for i := 1; i < len(stack.Parents); i++ {
			if int(stack.Parents[i]) >= i || int(stack.Locations[i]) >= n.Locations {
				t.Fatalf("node %d has parent %d and location %d", i, stack.Parents[i], stack.Locations[i])
			}
		}
		if call == nil {
			return
		}
		for i := 1; i < len(call.Parents); i++ {
			if int(call.Parents[i]) >= i || int(call.Names[i]) >= n.Strings {
				t.Fatalf("call node %d has parent %d and name %d", i, call.Parents[i], call.Names[i])
			}
		}
		for i, c := range call.OfStack {
			if int(c) >= len(call.Parents) {
				t.Fatalf("stack node %d is call node %d", i, c)
			}
		}
	})
}

func FuzzSeries(f *testing.F) {
	seeds(f, storagev1.SectionType_SECTION_TYPE_SERIES)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := series.Decode(b)
		mustBeCorrupt(t, err)
		for _, ls := range all {
			for i := 1; i < len(ls); i++ {
				if ls[i-1].Name >= ls[i].Name {
					t.Fatalf("labels %v are not sorted", ls)
				}
			}
		}
	})
}

func FuzzProfiles(f *testing.F) {
	seeds(f, storagev1.SectionType_SECTION_TYPE_PROFILES)
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := parseTable(b)
		mustBeCorrupt(t, err)
		if err != nil {
			return
		}
		for c := range table.columns {
			rows, err := table.read(nil, c, 0, min(table.rows, 1<<20))
			mustBeCorrupt(t, err)
			if err == nil && int64(len(rows)) != min(table.rows, 1<<20) {
				t.Fatalf("%d rows of %d", len(rows), table.rows)
			}
		}
	})
}

func FuzzSamples(f *testing.F) {
	seeds(f, storagev1.SectionType_SECTION_TYPE_SAMPLES)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := samples.Parse(b, 3, samples.Spans, samples.Traces, samples.Times); err == nil {
			fuzzExtras(t, s)
		}
		s, err := samples.Parse(b, 3)
		mustBeCorrupt(t, err)
		if err != nil {
			return
		}
		sums := make([]int64, 100)
		for p := range s.Pages() {
			stacks, err := s.Page(p, 0, nil)
			mustBeCorrupt(t, err)
			values, err2 := s.Page(p, 1, nil)
			mustBeCorrupt(t, err2)
			_, err3 := s.Page(p, 2, nil)
			mustBeCorrupt(t, err3)
			if err == nil && err2 == nil {
				mustBeCorrupt(t, samples.Sum(stacks, values, 3, 1, sums))
				mustBeCorrupt(t, samples.Stacks(make([]uint32, 3), stacks, 100))
				mustBeCorrupt(t, samples.Values(make([]int64, 3), values))
				mustBeCorrupt(t, samples.CheckRun(values, 3))
			}
		}
	})
}

// fuzzExtras reads the extra columns of a section as if each page had the rows of one profile.
func fuzzExtras(t *testing.T, s *samples.Section) {
	var d samples.Decoder
	for p := range s.Pages() {
		var x Extras
		rows := min(s.PageRows(p), 1<<16)
		sound := true
		for e := range samples.Extra(samples.NumExtras) {
			c, _ := s.Extra(e)
			run, err := s.Page(p, c, nil)
			mustBeCorrupt(t, err)
			err = d.Read(&x, e, run, rows, 7)
			mustBeCorrupt(t, err)
			sound = sound && err == nil
		}
		if problem := x.Check(rows); sound && problem != "" {
			t.Fatal(problem)
		}
	}
}

func FuzzExtras(f *testing.F) {
	x := testExtras()
	var w samples.Writer
	w.Reset(2, 0, nil)
	w.Append([]uint32{1, 1, 2}, [][]int64{{1, 2, 3}}, nil)
	lengths := w.AppendExtras(&x, 5)
	b, err := w.Finish()
	if err != nil {
		f.Fatal(err)
	}
	s, err := samples.Parse(b, 2, samples.Spans, samples.Traces, samples.Times)
	if err != nil {
		f.Fatal(err)
	}
	for e, n := range lengths {
		run, err := s.Page(0, 2+e, nil)
		if err != nil || len(run) != int(n) {
			f.Fatal(err, len(run), n)
		}
		f.Add(run, e, 3, int64(5))
	}
	f.Fuzz(func(t *testing.T, run []byte, e, rows int, base int64) {
		if e < 0 || e >= samples.NumExtras || rows < 0 || rows > 1<<20 {
			return
		}
		var x Extras
		var d samples.Decoder
		err := d.Read(&x, samples.Extra(e), run, rows, base)
		mustBeCorrupt(t, err)
		if err != nil || len(run) == 0 {
			return
		}
		if problem := x.Check(rows); problem != "" {
			t.Fatal(problem)
		}
		var w samples.Writer
		w.Reset(2, 0, nil)
		w.Append(make([]uint32, rows), [][]int64{make([]int64, rows)}, nil)
		w.AppendExtras(&x, base)
		if got := w.Extras(); len(got) != 1 || got[0] != samples.Extra(e) {
			t.Fatalf("column %d became %v", e, got)
		}
	})
}

func FuzzRollup(f *testing.F) {
	seeds(f, storagev1.SectionType_SECTION_TYPE_ROLLUP)
	f.Fuzz(func(t *testing.T, b []byte) {
		section, err := rollup.Parse(b, 2)
		mustBeCorrupt(t, err)
		if err != nil {
			return
		}
		kind := profile.Kind{SampleTypes: make([]profile.SampleType, 2)}
		r := &Reader{meta: &storagev1.BlockMeta{}}
		rows := &Rows{Kind: kind, dataset: &Dataset{group: &group{r: r}}, meta: &storagev1.Rows{}}
		for c := range 2 {
			mustBeCorrupt(t, rows.rollupSamples(section, 100).Sum(c, nil, make([]int64, 100)))
		}
	})
}

// FuzzFooter opens objects whose sections are good and whose footer is anything.
func FuzzFooter(f *testing.F) {
	bodies := [][]byte{smallSegment(f), smallBlock(f), smallRollup(f), smallSeries(f), smallSpans(f)}
	for i := range bodies {
		r := open(f, bodies[i])
		footer, err := proto.Marshal(r.meta)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(footer)
	}
	f.Fuzz(func(t *testing.T, footer []byte) {
		meta := &storagev1.BlockMeta{}
		if proto.Unmarshal(footer, meta) != nil || len(footer) > 1<<20 {
			return
		}
		Key(meta)
		for _, b := range bodies {
			// The sections of the body and what follows, then this footer, which gets the right size.
			src := withFooter(t, b, meta)
			_, err := everything(t.Context(), src)
			mustBeCorrupt(t, err)
		}
	})
}
