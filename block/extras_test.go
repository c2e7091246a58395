package block

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// rowExtras gathers the extra columns of a profile row by row.
type rowExtras struct{ Extras }

// add adds rows. A column that they do not have must be missing everywhere.
func (x *rowExtras) add(o Extras) {
	x.Spans, x.Traces, x.Times = append(x.Spans, o.Spans...), append(x.Traces, o.Traces...), append(x.Times, o.Times...)
	for range o.TimeEnds {
		x.TimeEnds = append(x.TimeEnds, uint32(len(x.Times)))
	}
}

// addOf adds a sample of a profile.
func (x *rowExtras) addOf(p *profile.Profile, i int) {
	var o Extras
	if len(p.Spans) > 0 {
		o.Spans = p.Spans[i : i+1]
	}
	if len(p.Traces) > 0 {
		o.Traces = p.Traces[i : i+1]
	}
	if len(p.TimeEnds) > 0 {
		o.Times, o.TimeEnds = p.TimesOf(i), []uint32{1}
	}
	x.add(o)
}

// ordered returns the rows in another order.
func (x *rowExtras) ordered(order []int) (out rowExtras) {
	for _, i := range order {
		var o Extras
		if len(x.Spans) > 0 {
			o.Spans = x.Spans[i : i+1]
		}
		if len(x.Traces) > 0 {
			o.Traces = x.Traces[i : i+1]
		}
		if len(x.TimeEnds) > 0 {
			o.Times, o.TimeEnds = x.TimesOf(i), []uint32{1}
		}
		out.add(o)
	}
	return out
}

// extraText is what the extra columns say of a row, "" if nothing.
func extraText(x *Extras, row int) (text string) {
	if len(x.Spans) > 0 && x.Spans[row] != (profile.SpanID{}) {
		text += " span " + x.Spans[row].String()
	}
	if len(x.Traces) > 0 && x.Traces[row] != (profile.TraceID{}) {
		text += " trace " + x.Traces[row].String()
	}
	if times := x.TimesOf(row); len(times) > 0 {
		text += fmt.Sprint(" times ", times)
	}
	return text
}

// drawRow draws what the columns say of one row, and the text of it.
func drawRow(t *rapid.T, has [samples.NumExtras]bool) (x Extras, text string) {
	ids := []byte{0, 0, 1, 2, 0xff}
	if has[samples.Spans] {
		id := rapid.SampledFrom(ids).Draw(t, "span")
		x.Spans = []profile.SpanID{{id, id, id, id, id, id, id, id}}
	}
	if has[samples.Traces] {
		id := rapid.SampledFrom(ids).Draw(t, "trace")
		x.Traces = []profile.TraceID{{id, 15: id}}
	}
	if has[samples.Times] {
		times := rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, 2, 3, 4, math.MaxInt64})
		x.Times = rapid.SliceOfN(times, 0, 4).Draw(t, "times")
		slices.Sort(x.Times)
		x.TimeEnds = []uint32{uint32(len(x.Times))}
	}
	return x, extraText(&x, 0)
}

func testExtras() Extras {
	return Extras{
		Spans:    []profile.SpanID{{}, {1}, {255, 255, 255, 255, 255, 255, 255, 255}},
		Traces:   []profile.TraceID{{2}, {}, {2}},
		Times:    []int64{3, 5, 900, math.MaxInt64},
		TimeEnds: []uint32{2, 2, 4},
	}
}

// tagged is a profile of which everything is known.
func tagged(service string, v int64) decoded {
	d := makeProfile(service, [][2]int64{{v, 300}, {2, 70000}, {1, 0}}, []string{"main", "serve", "read"}, []string{"main", "serve", "read"}, nil)
	x := testExtras()
	d.p.Spans, d.p.Traces, d.p.Times, d.p.TimeEnds = x.Spans, x.Traces, x.Times, x.TimeEnds
	return d
}

// smallSpans is a segment of two services, some of whose profiles have extra columns.
func smallSpans(t testing.TB) []byte {
	t.Helper()
	var h head
	for i := range 6 {
		d := makeProfile("web", [][2]int64{{int64(i + 1), 300}, {2, 70000}}, []string{"main", "serve", "read"}, []string{"main", "@4a0"})
		if i%2 == 0 {
			d = tagged("api", int64(i+1))
		}
		h.push("acme", d, int64(100+i), profile.ID{byte(i)}, noLabels)
	}
	return h.segment(t, "01SPANS")
}

// A footer names only columns that are there, and a group without them has none.
func TestColumnsAreThereWhereSomethingIsKnown(t *testing.T) {
	columns := func(b []byte) (all []string) {
		for _, d := range open(t, b).Datasets() {
			all = append(all, fmt.Sprint(d.Service, d.Rows[0].meta.Columns))
		}
		return all
	}
	var h head
	d := tagged("api", 1)
	d.p.Spans = nil
	d.p.Times, d.p.TimeEnds = nil, nil
	d.p.Traces[0][0] = 3
	h.push("acme", d, 1, profile.ID{1}, noLabels)
	h.push("acme", simple("web", 1, "main"), 1, profile.ID{2}, noLabels)
	b := h.segment(t, "01TRACES")
	if got, want := columns(b), []string{"api[ROW_COLUMN_TRACE]", "web[ROW_COLUMN_TRACE]"}; !slices.Equal(got, want) {
		t.Errorf("a segment has %q, want %q: services of a segment share pages", got, want)
	}
	table, err := open(t, b).groups[0].loadProfiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if names := table.shape.names(); names[len(names)-1] != "trace_bytes" || names[len(names)-2] != "value_bytes_1" {
		t.Errorf("columns of the profiles %q", names)
	}
	if rows := open(t, b).Datasets()[0].Rows[0]; !rows.Has(samples.Traces) || rows.Has(samples.Spans) || rows.Has(samples.Times) {
		t.Error("Has says something else")
	}
	if got := columns(merge(t, "acme", 1, b, smallSpans(t))); !slices.Equal(got, []string{
		"api[ROW_COLUMN_SPAN ROW_COLUMN_TRACE ROW_COLUMN_TIME]", "web[ROW_COLUMN_SPAN ROW_COLUMN_TRACE ROW_COLUMN_TIME]",
	}) {
		t.Errorf("a block has %q", got)
	}
	for _, b := range [][]byte{smallSegment(t), smallBlock(t)} {
		for _, d := range open(t, b).Datasets() {
			if rows := d.Rows[0]; len(rows.meta.Columns) != 0 || len(rows.meta.ColumnStarts) != 3 {
				t.Errorf("%s has columns %v that begin at %d", d.Service, rows.meta.Columns, rows.meta.ColumnStarts)
			}
		}
	}
}

func TestAppendRefusesExtras(t *testing.T) {
	var out bytes.Buffer
	w, g, trees := oneGroup(&out)
	rw := g.Rows("web", cpu, trees)
	for name, x := range map[string]Extras{
		"a span too few":          {Spans: make([]profile.SpanID, 2)},
		"a trace too many":        {Traces: make([]profile.TraceID, 4)},
		"a row without times":     {Times: []int64{1}, TimeEnds: []uint32{1, 1}},
		"times of no row":         {Times: []int64{1}},
		"times beyond the last":   {Times: []int64{1}, TimeEnds: []uint32{1, 1, 2}},
		"a time too many":         {Times: []int64{1, 2}, TimeEnds: []uint32{1, 1, 1}},
		"times that end earlier":  {Times: []int64{1}, TimeEnds: []uint32{1, 0, 1}},
		"descending times":        {Times: []int64{2, 1}, TimeEnds: []uint32{2, 2, 2}},
		"equal rows":              {Spans: []profile.SpanID{{1}, {1}, {1}}},
		"descending spans":        {Spans: []profile.SpanID{{2}, {1}, {1}}},
		"descending traces":       {Spans: []profile.SpanID{{1}, {1}, {1}}, Traces: []profile.TraceID{{2}, {1}, {1}}},
		"a stack twice by a time": {Times: []int64{1}, TimeEnds: []uint32{1, 1, 1}},
	} {
		if err := rw.AppendExtras(Profile{Time: 6}, []uint32{1, 1, 2}, [][]int64{{1, 1, 1}}, &x); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: error %v, want ErrProfile", name, err)
		}
	}
	x := Extras{Spans: []profile.SpanID{{1}, {1}, {0}}, Traces: []profile.TraceID{{1}, {2}, {0}}}
	if err := rw.AppendExtras(Profile{Time: 6}, []uint32{1, 1, 2}, [][]int64{{1, 1, 1}}, &x); err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

func TestFootersOfExtras(t *testing.T) {
	whole := smallSpans(t)
	for name, spoil := range map[string]func(m *storagev1.BlockMeta){
		"unknown":     func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Columns[2] = 4 },
		"unspecified": func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Columns[0] = 0 },
		"negative":    func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Columns[0] = -1 },
		"twice":       func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Columns[1] = 1 },
		"too few": func(m *storagev1.BlockMeta) {
			m.Datasets[0].Rows[0].Columns = m.Datasets[0].Rows[0].Columns[:2]
		},
		"others than the neighbour": func(m *storagev1.BlockMeta) {
			r := m.Datasets[1].Rows[0]
			r.Columns, r.ColumnStarts = r.Columns[:2], r.ColumnStarts[:len(r.ColumnStarts)-1]
		},
	} {
		meta := open(t, whole).Meta()
		spoil(meta)
		if _, err := Open(&object{b: whole}, meta); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	// Columns that the sections do not have.
	meta := open(t, smallSegment(t)).Meta()
	for _, d := range meta.Datasets {
		d.Rows[0].Columns, d.Rows[0].ColumnStarts = []storagev1.RowColumn{1}, append(d.Rows[0].ColumnStarts, 0)
	}
	r, err := Open(&object{b: smallSegment(t)}, meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Datasets()[0].Rows[0].Profiles(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a table without lengths: error %v", err)
	}
}

// Sums by request are those of a loop over all rows.
func TestSumRequests(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var h head
		m := model{}
		for n := range rapid.IntRange(1, 12).Draw(rt, "profiles") {
			m.push(rt, &h, n)
		}
		b := h.segment(t, "01REQUESTS")
		if rapid.Bool().Draw(rt, "merged") {
			b = merge(t, "acme", 2, b)
		}
		for _, d := range open(t, b).Datasets() {
			for _, rows := range d.Rows {
				checkRequests(t, rt, rows)
			}
		}
	})
}

func checkRequests(t *testing.T, rt *rapid.T, rows *Rows) {
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, _, err := rows.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	var q Requests
	x, _ := drawRow(rt, [samples.NumExtras]bool{true, true, false})
	if q.Spans = (map[profile.SpanID]bool{x.Spans[0]: true}); rapid.Bool().Draw(rt, "traces") {
		q.Spans, q.Traces = nil, map[profile.TraceID]bool{x.Traces[0]: true, {7}: true}
	}
	if q.Spans[profile.SpanID{}] || q.Traces[profile.TraceID{}] {
		return // no id
	}
	var wantProfiles []int
	want, got := make([]int64, len(tree.Parents)), make([]int64, len(tree.Parents))
	for i := range ps.Len() {
		stacks, values, err := s.Profile(i)
		if err != nil {
			t.Fatal(err)
		}
		x, err := s.Extras(i)
		if err != nil {
			t.Fatal(err)
		}
		any := false
		for j, n := range stacks {
			if len(x.Spans) > 0 && q.Spans[x.Spans[j]] || len(x.Traces) > 0 && q.Traces[x.Traces[j]] {
				want[n] += values[1][j]
				any = true
			}
		}
		if any {
			wantProfiles = append(wantProfiles, i)
		}
	}
	gotProfiles, err := rows.FindRequests(t.Context(), ps, &q, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SumRequests(1, &q, gotProfiles, got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) || !slices.Equal(gotProfiles, wantProfiles) {
		rt.Fatalf("sums %d of profiles %d, want %d of %d", got, gotProfiles, want, wantProfiles)
	}
}

// wideSpans is wide with spans and times, so that pages fill.
func wideSpans(t testing.TB, seed uint64, from int64) []byte {
	t.Helper()
	var h head
	for i := range 12 {
		var values [][2]int64
		var stacks [][]string
		var x rowExtras
		for f := range 4000 {
			span := profile.SpanID{byte(f % 7), byte(seed), byte(i)}
			values, stacks = append(values, [2]int64{int64(f%5 + 1), int64(f * f)}), append(stacks, []string{"main", fmt.Sprint("f", f)})
			x.add(Extras{Spans: []profile.SpanID{span}, Times: []int64{from + int64(f)}, TimeEnds: []uint32{1}})
		}
		d := makeProfile("wide", values, stacks...)
		d.p.Spans, d.p.Times, d.p.TimeEnds = x.Spans, x.Times, x.TimeEnds
		h.push("acme", d, from+int64(i), profile.ID{byte(seed), byte(i)}, labels.FromStrings("pod", "a"))
	}
	return h.segment(t, fmt.Sprint(seed))
}

// Whole pages are copied with their extra columns, beside pages of sources that have none.
func TestMergeCopiesExtrasOfPages(t *testing.T) {
	a, b := merge(t, "acme", 1, wideSpans(t, 1, 1000)), merge(t, "acme", 1, wide(t, 2, 4, 2000))
	c := merge(t, "acme", 1, wideSpans(t, 3, 3000))
	want := content(t, []*Reader{open(t, a), open(t, b), open(t, c)}, "acme")
	out := merge(t, "acme", 2, b, c, a)
	sameContent(t, "merged", content(t, []*Reader{open(t, out)}, "acme"), want)
	again := merge(t, "acme", 3, out)
	sameContent(t, "merged again", content(t, []*Reader{open(t, again)}, "acme"), want)
	n := 0
	rows := open(t, again).Datasets()[0].Rows[0]
	section, err := rows.dataset.group.loadSamples(t.Context(), rows.meta.GetSamplesSection(), 3, ExtrasOf(rows.meta)...)
	if err != nil {
		t.Fatal(err)
	}
	for p := range section.Pages() {
		c, ok := section.Extra(samples.Times)
		if stored := section.Stored(p, c); ok && len(stored) > 0 && bytes.Contains(a, stored) {
			n++
		}
	}
	if n == 0 {
		t.Error("no page of times was copied as it is")
	}
}
