package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
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

// tiny makes a segment of three services that are small enough to share a group.
func tiny(t testing.TB, seed uint64, from int64) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	var h head
	for i := range 240 {
		service := []string{"api", "db", "web"}[i%3]
		var stacks [][]string
		var values [][2]int64
		for f := range 12 {
			stacks = append(stacks, []string{"main", service, fmt.Sprint("f", f*f%(7+i%2))}[:1+f%3])
			values = append(values, [2]int64{1 + rng.Int64N(1000), rng.Int64N(1 << 30)})
			if f >= 3 {
				stacks[f] = append([]string{fmt.Sprint("g", f)}, stacks[f]...)
			}
		}
		at := from + int64(i)*1e9 + int64(seed)
		h.push("acme", makeProfile(service, values, stacks...), at, profile.ID{byte(seed), byte(i)}, labels.FromStrings("pod", fmt.Sprint(rng.IntN(3), i%3)))
	}
	return h.segment(t, fmt.Sprint("tiny", seed))
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
		"of a shared group":   open(t, merge(t, "acme", 3, merge(t, "acme", 2, tiny(t, 1, start)), merge(t, "acme", 1, tiny(t, 2, start)), merge(t, "acme", 2, tiny(t, 3, start)))),
		"of five minutes two": open(t, merge(t, "acme", 5, merge(t, "acme", 4, busyHour), l2[3])),
	}
}

func TestRollupsSayWhatRowsSay(t *testing.T) {
	kept := map[Rollup]int{}
	shared := 0
	for name, r := range rollupBlocks(t) {
		for _, d := range r.Datasets() {
			for _, rows := range d.Rows {
				for _, m := range rows.Rollups() {
					kept[Rollup{Bucket: m.Bucket, PerSeries: m.PerSeries}]++
					if m.PerSeries && len(r.Datasets()) == 3 && len(r.Meta().Groups) == 1 {
						shared++
					}
				}
				checkRollups(t, name, d, rows)
			}
		}
	}
	if shared != 3 {
		t.Errorf("%d services of a shared group have sums of each series, want 3", shared)
	}
	for _, m := range []Rollup{{}, {PerSeries: true}, {Bucket: anHour}, {Bucket: fiveMinutes}} {
		if kept[m] == 0 {
			t.Errorf("no rollup such as %+v was kept: %v", m, kept)
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
	all := Span{d.MinTime, d.MaxTime + 1}
	spans := []Span{all, {d.MinTime, d.MaxTime}, all, {d.MinTime + 1, d.MaxTime + 1}, {-1 << 63, 1<<63 - 1}, {5, 5}, {7, 6}}
	for range 25 {
		from, until := edge(), edge()
		spans = append(spans, Span{min(from, until), max(from, until)})
	}
	for i, span := range spans {
		var selected func(uint32) bool
		if i%3 == 2 {
			some := rng.Uint32()
			selected = func(series uint32) bool { return some>>(series%32)&1 != 0 }
		}
		column := i % len(rows.Kind.SampleTypes)
		want := sumRows(t, rows, column, span, selected)
		got := make([]int64, len(want))
		rest, err := rows.SumRollups(t.Context(), column, span, selected, got)
		if err != nil {
			t.Fatal(err)
		}
		answers := slices.ContainsFunc(rows.Rollups(), func(m Rollup) bool { return m.PerSeries || selected == nil })
		if span == all && answers && len(rest) > 0 {
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
	d := r.Datasets()[0]
	rows := d.Rows[0]
	stack, _, err := rows.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Series(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, selected := range []func(uint32) bool{nil, func(series uint32) bool { return series == 1 }} {
		before := src.bytes.Load()
		rest, err := rows.SumRollups(context.Background(), 0, Span{0, 1<<63 - 1}, selected, make([]int64, len(stack.Parents)))
		if err != nil || len(rest) != 0 {
			t.Fatalf("rest %v, %v", rest, err)
		}
		if got, want := src.bytes.Load()-before, rows.Rollups()[i]; got != want.Bytes || want.PerSeries != (i == 1) {
			t.Errorf("read %d bytes for %+v", got, want)
		}
	}
}

// Whether sums are made of rows or of other sums, they are the same to the last byte.
func TestRollupsOfRollups(t *testing.T) {
	blocks := rollupBlocks(t)
	want := rollupSections(t, blocks["from rows"])
	for _, name := range []string{"from rollups", "from both"} {
		if got := rollupSections(t, blocks[name]); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d rollups, want the %d made of rows", name, len(got), len(want))
		}
	}
}

func rollupSections(t *testing.T, r *Reader) (all [][]byte) {
	t.Helper()
	for _, g := range r.Meta().Groups {
		for _, s := range g.Sections {
			if s.Type == storagev1.SectionType_SECTION_TYPE_ROLLUP {
				b, err := r.src.ReadRange(t.Context(), int64(s.Offset), int64(s.Length))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, b)
			}
		}
	}
	return all
}

// Of a kind with one series the sums are written once, as those of the series, and go on from there.
func TestOneSeries(t *testing.T) {
	segment := func(seed byte) []byte {
		var h head
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		for i := range 60 {
			d := decode(t, corpus.Get("regexp-mem-0"))
			for j := range d.p.Values {
				d.p.Values[j] += random.Int64N(d.p.Values[j]/4 + 1)
			}
			h.push("acme", d, 1e18+int64(seed)*anHour+int64(i), profile.ID{seed, byte(i)}, noLabels)
		}
		return h.segment(t, fmt.Sprint(seed))
	}
	first := merge(t, "acme", 2, segment(1))
	for name, b := range map[string][]byte{"of rows": first, "of rollups": merge(t, "acme", 3, first, merge(t, "acme", 2, segment(2)))} {
		d := open(t, b).Datasets()[0]
		if all := d.Rows[0].Rollups(); len(all) != 1 || !all[0].PerSeries {
			t.Errorf("%s: rollups %+v", name, all)
		}
		checkRollups(t, name, d, d.Rows[0])
	}
}

// Where each profile has other stacks than those before it, the sums of each series would be what the rows are.
func TestSeriesThatDoNotPay(t *testing.T) {
	var h head
	for i := range 40 {
		var stacks [][]string
		var values [][2]int64
		for f := range 50 {
			stacks, values = append(stacks, []string{"main", fmt.Sprint("f", f), fmt.Sprint("g", i/2*f)}), append(values, [2]int64{int64(f + 1), 7})
		}
		h.push("acme", makeProfile("api", values, stacks...), int64(i), profile.ID{byte(i)}, labels.FromStrings("pod", fmt.Sprint(i%2)))
	}
	for _, m := range open(t, merge(t, "acme", 2, h.segment(t, "A"))).Datasets()[0].Rows[0].Rollups() {
		if m.PerSeries {
			t.Errorf("kept %+v", m)
		}
	}
}

// A rollup that names series or stacks which no row has is the source's fault, whoever reads it.
func TestForeignSeriesInARollup(t *testing.T) {
	for says, runs := range map[string][]uint32{"sums of series 2 of 2": {0, 1, 2}, "sums of series 4294967295 of 2": {rollup.All}} {
		b := withRollup(t, func(w *rollup.Writer, total int64) {
			for _, series := range runs {
				w.Append(0, series, []uint32{1}, [][]int64{{5}, {5}})
			}
		})
		rows := open(t, b).Datasets()[0].Rows[0]
		_, err := rows.SumRollups(t.Context(), 0, Span{0, 1 << 62}, func(uint32) bool { return true }, make([]int64, 3))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "ROLLUP") || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v", says, err)
		}
	}
	for says, write := range map[string]func(w *rollup.Writer, total int64){
		"the sums of series 3 belong to no row": func(w *rollup.Writer, total int64) {
			w.Append(0, 0, []uint32{1}, [][]int64{{1000}, {0}})
			w.Append(0, 3, []uint32{2}, [][]int64{{0}, {total}})
		},
		"rollups and rows of kind": func(w *rollup.Writer, total int64) { w.Append(0, 0, []uint32{1}, [][]int64{{999}, {0}}) },
		"stack node 3 of 3":        func(w *rollup.Writer, total int64) { w.Append(0, 0, []uint32{3}, [][]int64{{1000}, {0}}) },
		"the sums of series 1 belong to no row": func(w *rollup.Writer, total int64) {
			w.Append(0, 0, []uint32{1}, [][]int64{{1000}, {0}})
			w.Append(0, 1, []uint32{2}, [][]int64{{0}, {total}})
			w.Append(1, 1, []uint32{1}, [][]int64{{500}, {0}})
		},
		"the sums of series 0 are not where they should be": func(w *rollup.Writer, total int64) {
			w.Append(-1, 0, []uint32{1}, [][]int64{{1}, {0}})
			w.Append(0, 0, []uint32{1}, [][]int64{{1000}, {0}})
			w.Append(0, 1, []uint32{2}, [][]int64{{0}, {total}})
		},
	} {
		w := NewWriter(io.Discard, Header{ID: "01OUT", Tenant: "acme", Level: 3})
		err := Merge(t.Context(), "acme", []*Reader{open(t, withRollup(t, write))}, w)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v", says, err)
		}
	}
}

// withRollup makes a block of level 2 whose rows, of two series, have sums of each that are as they should not be.
func withRollup(t *testing.T, write func(w *rollup.Writer, total int64)) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, Header{ID: "01BAD", Tenant: "acme", Level: 2})
	table := profile.NewTable()
	table.AddString([]byte("0x1"))
	table.Locations = append(table.Locations, profile.Location{Address: 1}, profile.Location{Address: 2})
	table.AddString([]byte("0x2"))
	g := w.Group("acme", true)
	g.Symbols(&table.Symbols)
	g.Series([]labels.Labels{labels.FromStrings("pod", "a", "service_name", "api"), labels.FromStrings("pod", "b", "service_name", "api")})
	tree := &profile.StackTree{Parents: []uint32{0, 0, 0}, Locations: []uint32{0, 0, 1}}
	rw := g.Rows("api", makeProfile("api", nil).p.Kind("cpu"), g.Trees(tree, &profile.CallTree{Parents: []uint32{0, 0, 0}, Names: []uint32{0, 1, 2}, OfStack: []uint32{0, 1, 2}}))
	random := rand.New(rand.NewPCG(1, 2))
	total := int64(0) // of node 2 and sample type 1; of node 1 and sample type 0 it is 1000
	for i := range 1000 {
		value := random.Int64N(1 << 40) // so that the rows take many bytes
		total += value
		if err := rw.Append(Profile{Time: int64(i), Series: uint32(i % 2)}, []uint32{1, 2}, [][]int64{{1, 0}, {0, value}}); err != nil {
			t.Fatal(err)
		}
	}
	sums := &rollup.Writer{}
	sums.Reset(2, w.level)
	write(sums, total)
	if err := rw.rollup(0, true, sums); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if rollups := open(t, out.Bytes()).Datasets()[0].Rows[0].Rollups(); len(rollups) != 1 {
		t.Fatalf("rollups %+v", rollups)
	}
	return out.Bytes()
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
