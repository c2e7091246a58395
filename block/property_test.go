package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// A model of what was pushed: per tenant and service, series, time, id, stack and sample type, the value.
type model map[string]int64

func stackName(stack []string) string {
	s := ""
	for _, f := range stack {
		s += "/" + f
	}
	return s
}

// push draws a profile, and tells heads and the model of it.
func (m model) push(t *rapid.T, h *head, n int) {
	tenant := rapid.SampledFrom([]string{"acme", "other"}).Draw(t, "tenant")
	service := rapid.SampledFrom([]string{"api", "db", "web"}).Draw(t, "service")
	pod := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pod")
	at := rapid.SampledFrom([]int64{1, 2, 3, math.MaxInt64, math.MinInt64}).Draw(t, "time")
	var stacks [][]string
	var values [][2]int64
	var x rowExtras
	has := [samples.NumExtras]bool{}
	for e := range has {
		has[e] = rapid.IntRange(0, 2).Draw(t, "has") == 0
	}
	seen := map[string]bool{}
	for range rapid.IntRange(0, 8).Draw(t, "stacks") {
		stack := rapid.SliceOfN(rapid.SampledFrom([]string{"f", "g", "h", "@10", "@1f"}), 0, 4).Draw(t, "stack")
		what, text := drawRow(t, has)
		if key := fmt.Sprint(stackName(stack), what.Spans, what.Traces); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		x.add(what)
		v := [2]int64{rapid.Int64Range(0, 5).Draw(t, "samples"), rapid.Int64Range(0, 1<<40).Draw(t, "cpu")}
		stacks, values = append(stacks, stack), append(values, v)
		for c := range v {
			m[fmt.Sprint(tenant, service, pod, at, n, stackName(stack), c)+text] += v[c]
		}
	}
	id := profile.ID{byte(n), byte(n >> 8)}
	d := makeProfile(service, values, stacks...)
	d.p.Spans, d.p.Traces, d.p.Times, d.p.TimeEnds = x.Spans, x.Traces, x.Times, x.TimeEnds
	h.push(tenant, d, at, id, labels.FromStrings("pod", pod))
}

// of adds what an object says to a model.
func (m model) of(t *testing.T, b []byte) {
	for _, d := range open(t, b).Datasets() {
		sym, err := d.Symbols(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		series, err := d.Series(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range d.Rows {
			m.ofRows(t, d, rows, sym, series)
		}
	}
}

func (m model) ofRows(t *testing.T, d *Dataset, rows *Rows, sym *profile.Symbols, series []labels.Labels) {
	stack, _, err := rows.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ps.Len() {
		nodes, values, err := s.Profile(i)
		if err != nil {
			t.Fatal(err)
		}
		x, err := s.Extras(i)
		if err != nil {
			t.Fatal(err)
		}
		n := int(ps.IDs[i][0]) | int(ps.IDs[i][1])<<8
		for j, node := range nodes {
			for c := range values {
				key := fmt.Sprint(d.Tenant, d.Service, series[ps.Series[i]].Get("pod"), ps.Times[i], n, pathOf(sym, stack, node), c) + extraText(x, j)
				m[key] += values[c][j]
			}
		}
	}
}

// pathOf spells a stack as stackName does.
func pathOf(s *profile.Symbols, t *profile.StackTree, node uint32) string {
	if node == 0 {
		return ""
	}
	l := t.Locations[node]
	name := fmt.Sprintf("@%x", s.Locations[l].Address)
	if lines := s.LinesOf(l); len(lines) > 0 {
		name = string(s.String(s.Functions[lines[0].Function].Name))
	}
	return pathOf(s, t, t.Parents[node]) + "/" + name
}

// However profiles are spread over segments, and segments merged, every value is where it was.
func TestAnySplitAndAnyMerge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := model{}
		heads := make([]head, rapid.IntRange(1, 4).Draw(rt, "segments"))
		for n := range rapid.IntRange(1, 30).Draw(rt, "profiles") {
			want.push(rt, &heads[rapid.IntRange(0, len(heads)-1).Draw(rt, "segment")], n)
		}
		got := model{}
		var objects [][]byte
		for i := range heads {
			objects = append(objects, heads[i].segment(t, fmt.Sprint(i)))
			got.of(t, objects[i])
		}
		sameContent(t, "segments", got, want)
		got = model{}
		for _, tenant := range []string{"acme", "other"} {
			parts := objects
			for level := uint32(1); ; level++ {
				n := rapid.IntRange(1, len(parts)).Draw(rt, "merge")
				merged := merge(t, tenant, level, parts[:n]...)
				checkSorted(t, open(t, merged))
				parts = append(append([][]byte{}, parts[n:]...), merged)
				if len(parts) == 1 {
					got.of(t, merged)
					break
				}
			}
		}
		sameContent(t, "merged", got, want)
	})
}

// The PROFILES section is a Parquet file that others can read, also the second one that a Writer writes.
func TestTableIsParquet(t *testing.T) {
	tw := newTableWriter(tableShape{types: 2})
	for round := range 3 {
		var buf rowBuffer
		for i := range 2500 {
			p := Profile{Time: int64(i), Series: uint32(i % 7), ID: profile.ID{1, 2, 3}, Duration: 15, Period: 10}
			buf.append(uint32(round), &p, 3, []int64{int64(i) * 2, int64(i) * 3}, []uint32{4, 5, 6}, &extraLengths{})
		}
		var b bytes.Buffer
		if err := tw.write(&b, &buf); err != nil {
			t.Fatal(err)
		}
		f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		names := (tableShape{types: 2}).names()
		for i, c := range f.Metadata().RowGroups[0].Columns {
			if path := c.MetaData.PathInSchema; len(path) != 1 || path[0] != names[i] {
				t.Errorf("file %d: column %d is called %q, want %q", round, i, path, names[i])
			}
		}
		rows := make([]parquet.Row, 2500)
		if n, _ := f.RowGroups()[0].Rows().ReadRows(rows); n == 0 {
			t.Fatal("no rows")
		}
		last := rows[1023]
		for i, want := range []int64{int64(round), 1023, 1023 % 7, 0x0102030000000000, 0, 15, 10, 3, 2046, 3069, 4, 5, 6} {
			if got := last[i].Int64(); got != want {
				t.Errorf("file %d: column %s of row 1023 is %d, want %d", round, names[i], got, want)
			}
		}
	}
}

// Any rows of a table are read back, from any row on, also those of kinds with fewer sample types than others.
func TestTableRoundTrip(t *testing.T) {
	shape := tableShape{types: 2}
	shape.extras[samples.Traces] = true
	tw := newTableWriter(shape)
	var buf rowBuffer
	rapid.Check(t, func(t *rapid.T) {
		buf.reset()
		n := rapid.SampledFrom([]int{1, 2, 33, 129, 1024, 1025, 2048, 3000}).Draw(t, "rows")
		wild := rapid.Int64().Draw(t, "wild")
		second := rapid.IntRange(0, n-1).Draw(t, "second type from row")
		traced := rapid.SampledFrom([]int{1, 2, 1500}).Draw(t, "traced")
		want := make([][]int64, len(shape.names()))
		for i := range n {
			p := Profile{Time: int64(i) * wild, Series: uint32(i), Duration: wild ^ int64(i), Period: -int64(i)}
			p.ID[i%16] = byte(i)
			var extras extraLengths
			totals, lengths := []int64{wild - int64(i)}, []uint32{uint32(i), uint32(wild)}
			row := []int64{7, p.Time, int64(i), int64(binary.BigEndian.Uint64(p.ID[:])), int64(binary.BigEndian.Uint64(p.ID[8:])),
				p.Duration, p.Period, int64(i), totals[0], 0, int64(lengths[0]), int64(lengths[1]), 0, 0}
			if i >= second {
				totals, lengths = append(totals, wild*3), append(lengths, 9)
				row[9], row[12] = wild*3, 9
			}
			if i%traced == 0 {
				extras[samples.Traces] = uint32(i + 1)
				row[13] = int64(i + 1)
			}
			buf.append(7, &p, i, totals, lengths, &extras)
			for c, v := range row {
				want[c] = append(want[c], v)
			}
		}
		var b bytes.Buffer
		if err := tw.write(&b, &buf); err != nil {
			t.Fatal(err)
		}
		table, err := parseTable(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		from := rapid.IntRange(0, n).Draw(t, "from")
		to := rapid.IntRange(from, n).Draw(t, "to")
		for c := range want {
			got, err := table.read(nil, c, int64(from), int64(to-from))
			if err != nil || !slices.Equal(got, want[c][from:to]) {
				t.Fatalf("rows %d to %d of column %d: %v, error %v", from, to, c, got, err)
			}
		}
		if _, err := table.read(nil, 0, int64(from), int64(n-from+1)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("a row too many: error %v", err)
		}
	})
}
