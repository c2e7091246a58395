package samples

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/block/column"
)

// rows are those of one profile.
type rows struct {
	stacks []uint32
	values [][]int64
}

const nodes = 5000

func drawRows(t *rapid.T, types int) rows {
	n := rapid.SampledFrom([]int{0, 1, 2, 10, 300}).Draw(t, "rows")
	set := map[uint32]bool{}
	for range n {
		set[rapid.Uint32Range(0, nodes-1).Draw(t, "stack")] = true
	}
	r := rows{values: make([][]int64, types)}
	for s := range set {
		r.stacks = append(r.stacks, s)
	}
	slices.Sort(r.stacks)
	for c := range r.values {
		for range r.stacks {
			r.values[c] = append(r.values[c], rapid.OneOf(rapid.Int64Range(0, 300), rapid.Int64Range(0, math.MaxInt64/1024)).Draw(t, "value"))
		}
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	var w Writer
	rapid.Check(t, func(t *rapid.T) {
		types := rapid.IntRange(1, 4).Draw(t, "types")
		profiles := make([]rows, rapid.IntRange(0, 8).Draw(t, "profiles"))
		var streamed bytes.Buffer
		w.Reset(1+types, column.Fastest, nil)
		var s Writer
		s.Reset(1+types, column.Fastest, &streamed)
		var lengths []uint32
		for i := range profiles {
			profiles[i] = drawRows(t, types)
			lengths = w.Append(profiles[i].stacks, profiles[i].values, lengths)
			s.Append(profiles[i].stacks, profiles[i].values, nil)
		}
		b, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Finish(); err != nil || !bytes.Equal(streamed.Bytes(), b) {
			t.Fatalf("streamed %d bytes, kept %d, error %v", streamed.Len(), len(b), err)
		}
		section, err := Parse(b, 1+types)
		if err != nil {
			t.Fatal(err)
		}
		checkPages(t, section, profiles, lengths)
		if _, err := Parse(b, 2+types); !errors.Is(err, column.ErrCorrupt) {
			t.Fatalf("as another number of columns: error %v", err)
		}
	})
}

// checkPages reads every run back. All of these fit on one page.
func checkPages(t *rapid.T, s *Section, profiles []rows, lengths []uint32) {
	if s.Pages() == 0 {
		if s.Rows() != 0 {
			t.Fatalf("%d rows on no page", s.Rows())
		}
		return
	}
	at := make([]uint32, s.Columns())
	sums, want := make([][]int64, s.Columns()), make([][]int64, s.Columns())
	for c := range sums {
		sums[c], want[c] = make([]int64, nodes), make([]int64, nodes)
	}
	for _, p := range profiles {
		runs := make([][]byte, s.Columns())
		for c := range runs {
			page, err := s.Page(0, c, nil)
			if err != nil {
				t.Fatal(err)
			}
			runs[c] = page[at[c] : at[c]+lengths[c]]
			at[c] += lengths[c]
		}
		lengths = lengths[s.Columns():]
		stacks := make([]uint32, len(p.stacks))
		if err := Stacks(stacks, runs[0], nodes); err != nil || !slices.Equal(stacks, p.stacks) {
			t.Fatalf("stacks %v, want %v, error %v", stacks, p.stacks, err)
		}
		for c, values := range p.values {
			got := make([]int64, len(values))
			if err := Values(got, runs[1+c]); err != nil || !slices.Equal(got, values) {
				t.Fatalf("values %v, want %v, error %v", got, values, err)
			}
			if err := errors.Join(CheckRun(runs[1+c], len(values)), Sum(runs[0], runs[1+c], uint32(len(values)), 1, sums[c])); err != nil {
				t.Fatal(err)
			}
			for i, v := range values {
				want[c][p.stacks[i]] += v
			}
			if len(values) > 0 {
				for what, err := range map[string]error{
					"a row more": Sum(runs[0], runs[1+c], uint32(len(values))+1, 1, make([]int64, nodes)),
					"a row less": Sum(runs[0], runs[1+c], uint32(len(values))-1, 1, make([]int64, nodes)),
					"few nodes":  Sum(runs[0], runs[1+c], uint32(len(values)), 1, make([]int64, p.stacks[len(p.stacks)-1])),
					"check":      CheckRun(runs[1+c], len(values)-1),
				} {
					if !errors.Is(err, column.ErrCorrupt) {
						t.Fatalf("%s: error %v", what, err)
					}
				}
			}
		}
	}
	for c := range sums {
		if !slices.Equal(sums[c], want[c]) {
			t.Fatalf("sums of column %d differ", c)
		}
	}
}

// Pages are cut at profile borders, and a run is found by its offset.
func TestPages(t *testing.T) {
	var w Writer
	w.Reset(2, column.Fastest, nil)
	stacks := make([]uint32, 30_000)
	values := [][]int64{make([]int64, len(stacks))}
	for i := range stacks {
		stacks[i], values[0][i] = uint32(i*3), int64(i)
	}
	var starts [][]uint64
	var lengths []uint32
	for range 7 {
		starts = append(starts, w.Offsets(nil))
		lengths = w.Append(stacks, values, lengths)
	}
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(b, 2)
	if err != nil {
		t.Fatal(err)
	}
	if s.Pages() != 4 || s.Rows() != 210_000 {
		t.Errorf("%d pages with %d rows, want 4 with 210,000", s.Pages(), s.Rows())
	}
	for i, start := range starts {
		p := s.Find(start[0])
		if p != i/2 {
			t.Errorf("profile %d is on page %d, want %d", i, p, i/2)
		}
		from, to := s.Bounds(p, 1)
		if start[1] < from || start[1]+uint64(lengths[2*i+1]) > to {
			t.Errorf("run of profile %d at %d, page from %d to %d", i, start[1], from, to)
		}
	}
	if end := w.Offsets(nil)[0]; s.Find(end) != s.Pages() {
		t.Errorf("offset %d, the end, is on page %d", end, s.Find(end))
	}
}

func TestMalformedRuns(t *testing.T) {
	tooLong := bytes.Repeat([]byte{0x80}, 12)
	for what, err := range map[string]error{
		"stack twice":       Stacks(make([]uint32, 2), []byte{5, 0}, 9),
		"stack beyond":      Stacks(make([]uint32, 2), []byte{5, 4}, 9),
		"endless value":     Values(make([]int64, 1), tooLong),
		"value over int64":  Values(make([]int64, 1), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}),
		"endless sum":       Sum([]byte{1}, tooLong, 1, 1, make([]int64, 9)),
		"endless stack":     Sum(tooLong, []byte{1}, 1, 1, make([]int64, 9)),
		"unfinished number": CheckRun([]byte{1, 0x80}, 1),
	} {
		if !errors.Is(err, column.ErrCorrupt) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// A column that is a multiple of another is not stored, and reads as if it were.
func TestMultiple(t *testing.T) {
	stacks := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	counts, nanos, other := make([]int64, 20), make([]int64, 20), make([]int64, 20)
	for i := range counts {
		counts[i], other[i] = int64(i*i%7), int64(i*1000)
		nanos[i] = counts[i] * 10_000_000
	}
	var w Writer
	w.Reset(4, column.Default, nil)
	w.Append(stacks, [][]int64{counts, nanos, other}, nil)
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(b, 4)
	if err != nil {
		t.Fatal(err)
	}
	if base, times, ok := s.Multiple(0, 2); base != 1 || times != 10_000_000 || !ok {
		t.Errorf("column 2 is column %d times %d: %t", base, times, ok)
	}
	for c, want := range map[int][]int64{1: counts, 2: nanos, 3: other} {
		run, err := s.Page(0, c, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int64, 20)
		if err := Values(got, run); err != nil || !slices.Equal(got, want) {
			t.Errorf("column %d is %v, %v, want %v", c, got, err, want)
		}
		if _, _, ok := s.Multiple(0, c); ok != (c == 2) {
			t.Errorf("column %d is a multiple: %t", c, ok)
		}
	}
}

// Whatever columns have to do with each other, they are read as they were written.
func TestAnyColumnsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SliceOfN(rapid.SampledFrom([]int64{0, 1, 2, 127, 128, 1 << 30}), 16, 24).Draw(t, "base")
		stacks, columns := make([]uint32, len(base)), [][]int64{base}
		for i := range stacks {
			stacks[i] = uint32(i)
		}
		for range rapid.IntRange(1, 3).Draw(t, "others") {
			factor := rapid.SampledFrom([]int64{0, 1, 2, 10_000_000}).Draw(t, "factor")
			other := make([]int64, len(base))
			for i := range other {
				if rapid.IntRange(0, 15).Draw(t, "same") > 0 {
					other[i] = base[i] * factor
				}
			}
			columns = append(columns, other)
		}
		var w Writer
		w.Reset(1+len(columns), column.Fastest, nil)
		w.Append(stacks, columns, nil)
		b, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(b, 1+len(columns))
		if err != nil {
			t.Fatal(err)
		}
		for c, want := range columns {
			run, err := s.Page(0, 1+c, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]int64, len(want))
			if err := Values(got, run); err != nil || !slices.Equal(got, want) {
				t.Fatalf("column %d is %v, error %v, want %v", c, got, err, want)
			}
		}
	})
}

func TestMultipleIsExact(t *testing.T) {
	col := func(values ...uint64) (b []byte) {
		for _, v := range values {
			b = binary.AppendUvarint(b, v)
		}
		return b
	}
	for name, c := range map[string]struct{ base, values []byte }{
		"one is off":        {col(0, 1, 2, 3), col(0, 5, 10, 16)},
		"zero has one":      {col(0, 1), col(1, 5)},
		"all zero":          {col(1, 2), col(0, 0)},
		"nothing is zero":   {col(0, 0), col(0, 0)},
		"none of the first": {col(5, 1, 1), col(0, 1, 1)},
		"shorter":           {col(1, 2), col(5)},
		"begins with zero":  {col(3, 1, 2), col(0, 2, 4)},
		"wraps":             {col(1, 1<<62), col(4, 0)},
	} {
		if f, ok := multiple(c.base, c.values); ok {
			t.Errorf("%s: a multiple by %d", name, f)
		}
	}
	if _, err := multiply(nil, col(1, 2), 5, 3); err == nil {
		t.Error("a multiple of the wrong length is accepted")
	}
	if _, err := multiply(nil, col(1<<40), 1<<40, 10); err == nil {
		t.Error("a multiple beyond int64 is accepted")
	}
}

// What is a multiple is written without its bytes, on the fly, as it would be if all were there: runs of other pages that
// are multiples become the very same section, and where factors change the bytes are made after all.
func TestMultiplesPassThrough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factors := []int64{0, 1, 10, 10_000_000, 1 << 40}
		var all []rows
		var of []*Section // of each profile
		var lengths [][]uint32
		var want Writer
		want.Reset(4, column.Fastest, nil)
		for range rapid.IntRange(1, 4).Draw(t, "sections") {
			var w Writer
			w.Reset(4, column.Fastest, nil)
			f, g := rapid.SampledFrom(factors).Draw(t, "f"), rapid.SampledFrom(factors).Draw(t, "g")
			for range rapid.IntRange(1, 3).Draw(t, "profiles") {
				r := drawRows(t, 3)
				for i, v := range r.values[0] {
					v %= 1 << rapid.SampledFrom([]int{1, 7, 20}).Draw(t, "bits")
					r.values[0][i] = v
					if f > 0 {
						r.values[1][i] = v * f
					}
					if g > 0 && r.values[1][i] < 1<<22 {
						r.values[2][i] = r.values[1][i] * g
					}
				}
				all = append(all, r)
				lengths = append(lengths, w.Append(r.stacks, r.values, nil))
				want.Append(r.stacks, r.values, nil)
			}
			b, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(bytes.Clone(b), 4)
			if err != nil {
				t.Fatal(err)
			}
			for range len(all) - len(of) {
				of = append(of, s)
			}
		}
		var got Writer
		got.Reset(4, column.Fastest, nil)
		copyRuns(t, &got, of, all, lengths)
		a, errA := want.Finish()
		b, errB := got.Finish()
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Fatalf("%d bytes, want %d, errors %v, %v", len(b), len(a), errA, errB)
		}
	})
}

// copyRuns copies profiles, each on the only page of a section, as runs.
func copyRuns(t *rapid.T, w *Writer, of []*Section, all []rows, lengths [][]uint32) {
	var m Multiplier
	var at [4]uint32
	for i, s := range of {
		if i > 0 && of[i-1] != s {
			at = [4]uint32{}
		}
		var runs []Run
		for c := 1; c < 4 && s.Pages() > 0; c++ {
			page, err := s.Page(0, c, nil)
			if err != nil {
				t.Fatal(err)
			}
			run := Run{Bytes: page[at[c] : at[c]+lengths[i][c]]}
			if base, times, ok := s.Multiple(0, c); ok {
				n, err := m.Length(runs[base-1].Bytes, len(all[i].stacks), times)
				if err != nil || n != len(run.Bytes) {
					t.Fatalf("a run of %d bytes times %d has %d, %v, want %d", len(runs[base-1].Bytes), times, n, err, len(run.Bytes))
				}
				run = Run{Base: base, Factor: times, Length: n}
			}
			runs = append(runs, run)
		}
		for c := range at {
			at[c] += lengths[i][c]
		}
		if got := w.AppendRuns(all[i].stacks, runs, nil); s.Pages() > 0 && !slices.Equal(got, lengths[i]) {
			t.Fatalf("lengths %v, want %v", got, lengths[i])
		}
	}
}
