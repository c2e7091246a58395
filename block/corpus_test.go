package block

import (
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// A segment of all corpus files says of every file, sample type and stack what google/pprof says.
func TestSegmentSaysWhatTheOracleSays(t *testing.T) {
	files := corpus.All()
	var h head
	for i, f := range files {
		h.push("acme", decode(t, f), int64(1000+i), profile.ID{byte(i)}, labels.FromStrings("file", f.Name))
	}
	r := open(t, h.segment(t, "01SEGMENT"))
	seen := 0
	for _, d := range r.Datasets() {
		for _, rows := range d.Rows {
			seen += checkRows(t, d, rows)
		}
	}
	if seen != len(files) {
		t.Errorf("%d files found in the segment, want %d", seen, len(files))
	}
}

// checkRows compares the sums per stack of every file among the rows with the oracle's, and returns how many files
// it found.
func checkRows(t *testing.T, d *Dataset, rows *Rows) int {
	t.Helper()
	ctx := t.Context()
	series, err := d.Series(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sym, err := d.Symbols(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stack, _, err := rows.Trees(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := rows.Profiles(ctx)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, s := range ps.Series {
		files[series[s].Get("file")] = true
	}
	ss, err := rows.Samples(ctx, ps)
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		p := oracle.Parse(corpus.Get(name).Gzipped)
		selected := func(i int) bool { return series[ps.Series[i]].Get("file") == name }
		for c, st := range rows.Kind.SampleTypes {
			want := oracle.Sum(st.Type, p)
			sums := make([]int64, len(stack.Parents))
			if err := ss.Sum(c, selected, sums); err != nil {
				t.Fatal(err)
			}
			got := map[string]int64{}
			for node, v := range sums {
				if v != 0 {
					got[stackText(sym, stack, uint32(node))] += v
				}
			}
			sameContent(t, name+" "+st.Type, got, want.Locations)
			total := int64(0)
			for i := range ps.Len() {
				if selected(i) {
					total += ps.Totals[c][i]
				}
			}
			if total != want.Total {
				t.Errorf("%s %s: total %d, want %d", name, st.Type, total, want.Total)
			}
		}
	}
	return len(files)
}
