package block

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
)

// sumRows is the answer of the rows alone.
func sumRows(t testing.TB, r *Rows, column int, span Span, selected func(series uint32) bool) []int64 {
	t.Helper()
	stack, _, err := r.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]int64, len(stack.Parents))
	addRows(t, r, column, []Span{span}, selected, sums)
	return sums
}

func addRows(t testing.TB, r *Rows, column int, spans []Span, selected func(series uint32) bool, sums []int64) {
	t.Helper()
	ps, err := r.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Samples(t.Context(), ps, column)
	if err != nil {
		t.Fatal(err)
	}
	for _, span := range spans {
		err := s.Sum(column, func(i int) bool {
			return ps.Times[i] >= span.From && ps.Times[i] < span.Until && (selected == nil || selected(ps.Series[i]))
		}, sums)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// day makes a segment of a service with n profiles of two kinds over some hours from a time on.
func day(t testing.TB, seed uint64, n int, from, length int64) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	var h head
	files := []corpus.File{corpus.Get("api-gateway-heap-0"), corpus.Get("api-gateway-cpu-1")}
	for i := range n {
		d := decode(t, files[i%2])
		for j := range d.p.Values {
			d.p.Values[j] += rng.Int64N(d.p.Values[j]/4 + 1)
		}
		at := from + rng.Int64N(length)
		h.push("acme", d, at, profile.ID{byte(seed), byte(i), byte(i >> 8)}, labels.FromStrings("pod", fmt.Sprint(rng.IntN(3))))
	}
	return h.segment(t, fmt.Sprint(seed))
}

// The blocks of a day: rows of level 1, rollups of rows at level 2, of rollups at level 4, and both at once.
func rollupBlocks(t testing.TB) map[string]*Reader {
	const start = int64(1_700_000_000) * 1e9 / anHour * anHour
	var l1, l2 [][]byte
	for i := range 4 {
		at := start + int64(i)*anHour
		segment := day(t, uint64(i+1), 40, at, anHour)
		l1 = append(l1, merge(t, "acme", 1, segment))
		l2 = append(l2, merge(t, "acme", 2, segment))
	}
	busyHour := merge(t, "acme", 1, day(t, 9, 700, start, anHour/4))
	return map[string]*Reader{
		"from rows":           open(t, merge(t, "acme", 4, l1...)),
		"from rollups":        open(t, merge(t, "acme", 4, l2...)),
		"from both":           open(t, merge(t, "acme", 4, l1[0], l2[1], l2[2], l1[3])),
		"from buckets":        open(t, merge(t, "acme", 5, merge(t, "acme", 4, l2...), day(t, 11, 20, start, 6*anHour))),
		"with duplicates":     open(t, merge(t, "acme", 4, l2[0], l2[0], l2[1], l1[2])),
		"of five minutes":     open(t, merge(t, "acme", 4, busyHour)),
		"of five minutes two": open(t, merge(t, "acme", 5, merge(t, "acme", 4, busyHour), l2[3])),
	}
}

func TestRollupsSayWhatRowsSay(t *testing.T) {
	kept := map[int64]int{}
	for name, r := range rollupBlocks(t) {
		for _, d := range r.Datasets() {
			for _, rows := range d.Rows {
				for _, m := range rows.Rollups() {
					kept[m.Bucket]++
				}
				checkRollups(t, name, d, rows)
			}
		}
	}
	for _, bucket := range []int64{0, anHour, fiveMinutes} {
		if kept[bucket] == 0 {
			t.Errorf("no rollup with buckets of %d was kept: %v", bucket, kept)
		}
	}
}

// checkRollups compares answers with and without rollups for random spans.
func checkRollups(t *testing.T, name string, d *Dataset, rows *Rows) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	length := d.MaxTime - d.MinTime + 2*anHour
	edge := func() int64 {
		at := d.MinTime - anHour + rng.Int64N(length)
		switch rng.IntN(4) {
		case 0:
			return floor(at, anHour) * anHour
		case 1:
			return floor(at, fiveMinutes) * fiveMinutes
		}
		return at
	}
	spans := []Span{{d.MinTime, d.MaxTime + 1}, {d.MinTime, d.MaxTime}, {d.MinTime + 1, d.MaxTime + 1}, {-1 << 63, 1<<63 - 1}, {5, 5}, {7, 6}}
	for range 25 {
		from, until := edge(), edge()
		spans = append(spans, Span{min(from, until), max(from, until)})
	}
	for i, span := range spans {
		var selected func(uint32) bool
		if i%3 == 2 {
			selected = func(series uint32) bool { return series%2 == 0 }
		}
		column := i % len(rows.Kind.SampleTypes)
		want := sumRows(t, rows, column, span, selected)
		got := make([]int64, len(want))
		rest, err := rows.SumRollups(t.Context(), column, span, selected, got)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && len(rows.Rollups()) > 0 && len(rest) > 0 {
			t.Errorf("%s, %s: of all rows rollups leave %v", name, rows.Kind.Name, rest)
		}
		addRows(t, rows, column, rest, selected, got)
		if !slices.Equal(got, want) {
			t.Fatalf("%s, %s, span %v: rollups and the rows of %v are not the rows of all", name, rows.Kind.Name, span, rest)
		}
	}
}

// What rollups answer is not read from rows.
func TestRollupsSpareTheRows(t *testing.T) {
	b := merge(t, "acme", 2, merge(t, "acme", 1, day(t, 1, 200, 1e18, anHour)))
	src := &object{b: b}
	meta, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(src, meta)
	if err != nil {
		t.Fatal(err)
	}
	rows := r.Datasets()[0].Rows[0]
	stack, _, err := rows.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := src.bytes.Load()
	rest, err := rows.SumRollups(context.Background(), 0, Span{0, 1<<63 - 1}, nil, make([]int64, len(stack.Parents)))
	if err != nil || len(rest) != 0 {
		t.Fatalf("rest %v, %v", rest, err)
	}
	if got, want := src.bytes.Load()-before, rows.Rollups()[0].Bytes; got != want {
		t.Errorf("read %d bytes for a rollup of %d", got, want)
	}
}

// A rollup takes at most a quarter of the bytes of its rows.
func TestRollupsAreSmall(t *testing.T) {
	for name, r := range rollupBlocks(t) {
		for _, d := range r.Datasets() {
			for _, rows := range d.Rows {
				size := int64(d.group.meta.Sections[rows.meta.GetSamplesSection()].GetLength())
				for _, m := range rows.Rollups() {
					if rollupShare*m.Bytes > size {
						t.Errorf("%s, %s: a rollup with buckets of %d takes %d bytes, the rows %d", name, rows.Kind.Name, m.Bucket, m.Bytes, size)
					}
				}
			}
		}
	}
}
