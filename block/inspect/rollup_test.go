package inspect

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/block/rollup"
)

// run is one run of a rollup.
type run struct {
	bucket int64
	series uint32
	nodes  []uint32
	sums   [][]int64
}

// decodeRollup reads the runs of a ROLLUP section of two sample types.
func decodeRollup(t *testing.T, b []byte) (runs []run) {
	t.Helper()
	section, err := rollup.Parse(b, 2)
	if err != nil {
		t.Fatal(err)
	}
	s := &sums{Section: section}
	if err := s.decode(1 << 20); err != nil {
		t.Fatal(err)
	}
	for i := range s.Rows {
		from, to := s.first[i], s.first[i+1]
		r := run{s.Buckets[i], s.Series[i], slices.Clone(s.nodes[from:to]), nil}
		for _, column := range s.values {
			r.sums = append(r.sums, slices.Clone(column[from:to]))
		}
		runs = append(runs, r)
	}
	return runs
}

func encodeRollup(t *testing.T, runs []run) []byte {
	t.Helper()
	var w rollup.Writer
	w.Reset(2, column.Default)
	for _, r := range runs {
		w.Append(r.bucket, r.series, r.nodes, r.sums)
	}
	b, err := w.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rollupLinesOf returns the rollups of the first rows: of all series, of each, of hours, and of five minutes if they pay.
func rollupLinesOf(t *testing.T, o inspecttest.Object) []*storagev1.Rollup {
	t.Helper()
	return inspecttest.Open(t, o).Meta().Datasets[0].Rows[0].Rollups
}

// Sums that are not those of the rows are found out, whatever is wrong with them.
func TestDamagedRollups(t *testing.T) {
	o := withRollups(t)
	lines := rollupLinesOf(t, o)
	if len(lines) < 3 || lines[0].PerSeries || !lines[1].PerSeries || lines[2].Bucket == 0 {
		t.Fatalf("rollups %v", lines)
	}
	const all, each, hours = 0, 1, 2
	for _, c := range []struct {
		which  int
		says   string
		change func(runs []run) []run
	}{
		{all, "is 1 more than the rows have", func(runs []run) []run { runs[0].sums[1][3]++; return runs }},
		{all, "is -5 more than the rows have", func(runs []run) []run { runs[0].sums[0][0] -= 5; return runs }},
		{all, "no sum of stack node", func(runs []run) []run {
			r := &runs[0]
			r.nodes = slices.Delete(r.nodes, 2, 3)
			for c := range r.sums {
				r.sums[c] = slices.Delete(r.sums[c], 2, 3)
			}
			return runs
		}},
		{all, "the sums of stack node 0 are all zero", func(runs []run) []run {
			r := &runs[0]
			if r.nodes[0] == 0 {
				t.Fatal("the root has samples")
			}
			r.nodes = slices.Insert(r.nodes, 0, 0)
			for c := range r.sums {
				r.sums[c] = slices.Insert(r.sums[c], 0, 0)
			}
			return runs
		}},
		{all, "a row names stack node", func(runs []run) []run { r := &runs[0]; r.nodes[len(r.nodes)-1] = 1 << 19; return runs }},
		{all, "where there is one", func(runs []run) []run { runs[0].bucket = 1; return runs }},
		{all, "no sums of series", func(runs []run) []run { return nil }},
		{all, "run 0 is of series 1 of 2", func(runs []run) []run { runs[0].series = 1; return runs }},
		{each, "run 1 is of series 2 of 2", func(runs []run) []run { runs[1].series = 2; return runs }},
		{each, "run 1 is of series 4294967295 of 2", func(runs []run) []run { runs[1].series = rollup.All; return runs }},
		{each, "no sums of series 1", func(runs []run) []run { return runs[:1] }},
		{each, "more than the rows have", func(runs []run) []run { // the total is right
			runs[0].sums[1][0]++
			runs[1].sums[1][0]--
			return runs
		}},
		{hours, "no sums of series", func(runs []run) []run { runs[0].bucket--; return runs }},
		{hours, "in which there is no profile", func(runs []run) []run {
			last := runs[len(runs)-1]
			last.bucket++
			return append(runs, last)
		}},
	} {
		section := int(lines[c.which].Section)
		meta := inspecttest.Open(t, o).Meta().Groups[0].Sections[section]
		runs := c.change(decodeRollup(t, o[meta.Offset:meta.Offset+meta.Length]))
		mustSayIn(t, inspecttest.Replace(t, o, 0, section, encodeRollup(t, runs)), fmt.Sprintf("ROLLUP (group 0, section %d, ", section), c.says)
	}
}

// mustSayIn wants one problem, in that section.
func mustSayIn(t *testing.T, o inspecttest.Object, section, says string) {
	t.Helper()
	problems, err := Verify(t.Context(), o)
	if err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Section, section) || !strings.Contains(problems[0].Text, says) {
		t.Errorf("%v, error %v, want one problem in %s that says %q", problems, err, section, says)
	}
}

// Bytes of a rollup that are damaged and sealed again are found, or mean the same.
func TestSealedFlipsInRollups(t *testing.T) {
	o := withRollups(t)
	found := 0
	for _, line := range rollupLinesOf(t, o) {
		s := inspecttest.Open(t, o).Meta().Groups[0].Sections[line.Section]
		for i := s.Offset; i < s.Offset+s.Length; i += 1 + s.Length/20 {
			b := inspecttest.Object(bytes.Clone(o))
			b[i] ^= 0x11
			problems, err := Verify(t.Context(), inspecttest.Reseal(t, b))
			if err != nil || len(problems) > 1 || len(problems) == 1 && !strings.HasPrefix(problems[0].Section, "ROLLUP") {
				t.Errorf("byte %d: %v, error %v", i, problems, err)
			}
			found += len(problems)
		}
	}
	if found < 40 {
		t.Errorf("%d flipped bytes were found", found)
	}
}

// What the footer says of rollups is checked against them.
func TestDamagedRollupLines(t *testing.T) {
	rows := func(m *storagev1.BlockMeta) *storagev1.Rows { return m.Datasets[0].Rows[0] }
	o := withRollups(t)
	for says, change := range map[string]func(m *storagev1.BlockMeta){
		"footer: service \"regexp\": rollup 1 is not after": func(m *storagev1.BlockMeta) { r := rows(m).Rollups; r[0], r[1] = r[1], r[0] },
		"each alone: true": func(m *storagev1.BlockMeta) {
			rows(m).Rollups[0].PerSeries = true
			rows(m).Rollups = rows(m).Rollups[:1]
		},
		"sums of 0 rows":    func(m *storagev1.BlockMeta) { rows(m).Rollups = rows(m).Rollups[:1] },
		"sums of 2 rows":    func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[1].Rollups = rows(m).Rollups },
		"no sums of series": func(m *storagev1.BlockMeta) { rows(m).Rollups[2].Bucket *= 2 },
	} {
		mustSay(t, inspecttest.Edit(t, o, change), says)
	}
}

// Sums that are right but take as many bytes as their rows should not be there.
func TestTooLargeRollup(t *testing.T) {
	o := withRollups(t)
	rows := inspecttest.Open(t, o).Datasets()[0].Rows[0]
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	var runs []run // one for each profile
	for i := range ps.Len() {
		stacks, values, err := read.Profile(i)
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, run{ps.Times[i], rollup.All, slices.Clone(stacks), [][]int64{slices.Clone(values[0]), slices.Clone(values[1])}})
	}
	lines := rollupLinesOf(t, o)
	last := len(lines) - 1
	o = inspecttest.Edit(t, o, func(m *storagev1.BlockMeta) { m.Datasets[0].Rows[0].Rollups[last].Bucket = 1 })
	o = inspecttest.Replace(t, o, 0, int(lines[last].Section), encodeRollup(t, runs))
	mustSayIn(t, o, fmt.Sprintf("ROLLUP (group 0, section %d, ", lines[last].Section), "bytes for rows of")
}

// A label filter lets every label of its dataset's series pass, and has the size that it should have.
func TestDamagedLabelFilter(t *testing.T) {
	o := withRollups(t)
	filter := func(m *storagev1.BlockMeta) *[]byte { return &m.Datasets[0].LabelFilter }
	for says, change := range map[string]func(m *storagev1.BlockMeta){
		"a label filter of 0 bytes, want 3":            func(m *storagev1.BlockMeta) { *filter(m) = nil },
		"a label filter of 2 bytes, want 3":            func(m *storagev1.BlockMeta) { *filter(m) = (*filter(m))[:2] },
		"the label filter denies pod=":                 func(m *storagev1.BlockMeta) { clear(*filter(m)) },
		"the label filter has bits that no label sets": func(m *storagev1.BlockMeta) { f := *filter(m); f[0], f[1], f[2] = 0xff, 0xff, 0xff },
	} {
		mustSayIn(t, inspecttest.Edit(t, o, change), "footer", says)
	}
}
