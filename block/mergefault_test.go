package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/profile"
)

// tryMerge merges and says what Merge said.
func tryMerge(ctx context.Context, t *testing.T, objects ...[]byte) error {
	t.Helper()
	var readers []*Reader
	for _, b := range objects {
		readers = append(readers, open(t, b))
	}
	w := NewWriter(io.Discard, Header{ID: "01OUT", Tenant: "acme", Level: 2})
	err := Merge(ctx, "acme", readers, w)
	if err != nil {
		w.Abort()
		return err
	}
	_, err = w.Finish()
	return err
}

// A damaged source fails the merge, and the error names it and its section.
func TestMergeNamesTheDamagedSource(t *testing.T) {
	good := smallBlock(t)
	for name, bad := range map[string][]byte{"segment": smallSegment(t), "block": smallBlock(t)} {
		meta := open(t, bad).Meta()
		meta.Id = "01BAD"
		for _, s := range meta.Groups[0].Sections {
			b := withFooter(t, bad[:end(meta)], meta)
			b[s.Offset+s.Length/2] ^= 0xff
			err := tryMerge(t.Context(), t, good, b)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "01BAD") || !strings.Contains(err.Error(), s.Type.String()) {
				t.Errorf("%s, section %s: error %v", name, s.Type, err)
			}
		}
	}
}

// end is where the sections of an object end.
func end(m *storagev1.BlockMeta) (n uint64) {
	for _, g := range m.Groups {
		for _, s := range g.Sections {
			n = max(n, s.Offset+s.Length)
		}
	}
	return n
}

// A source whose footer or table does not agree with its contents fails the merge, however good its CRCs are.
func TestMergeChecksTheBooks(t *testing.T) {
	for name, cook := range map[string]func(r *storagev1.Rows){
		"sums":     func(r *storagev1.Rows) { r.Sums[0]++ },
		"samples":  func(r *storagev1.Rows) { r.Samples++ },
		"profiles": func(r *storagev1.Rows) { r.Profiles-- },
		"starts":   func(r *storagev1.Rows) { r.ColumnStarts[0]++ },
	} {
		b := smallSegment(t)
		meta := open(t, b).Meta()
		meta.Id = "01BAD"
		cook(meta.Datasets[0].Rows[0])
		err := tryMerge(t.Context(), t, withFooter(t, b[:end(meta)], meta))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "01BAD") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// A group that claims to be sorted and is not would give rows out of order: the merge refuses it.
func TestMergeRefusesAFalseOrder(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Header{ID: "01FALSE", Tenant: "acme", Level: 1})
	g := w.Group("acme", true)
	d := makeProfile("web", [][2]int64{{1, 1}, {2, 2}}, []string{"z"}, []string{"a"}) // z comes first
	table := profile.NewTable()
	var remap profile.Remap
	table.Add(&d.p.Symbols, &remap)
	g.Symbols(&table.Symbols)
	g.Series(seriesOf("web"))
	name := func(l uint32) uint32 { return table.Functions[table.LinesOf(l)[0].Function].Name }
	trees := g.Trees(
		&profile.StackTree{Parents: []uint32{0, 0, 0}, Locations: []uint32{0, 0, 1}},
		&profile.CallTree{Parents: []uint32{0, 0, 0}, Names: []uint32{0, name(0), name(1)}, OfStack: []uint32{0, 1, 2}},
	)
	if err := g.Rows("web", d.p.Kind("process_cpu"), trees).Append(Profile{Time: 1}, []uint32{1, 2}, [][]int64{{1, 2}, {1, 2}}); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := tryMerge(t.Context(), t, out.Bytes()); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "01FALSE") {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
}

func TestMergeStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := smallSegment(t)
	cancel()
	if err := tryMerge(ctx, t, b); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

// What a merge has read of a source is dropped when its last service is written.
func TestMergeForgets(t *testing.T) {
	var h head
	for i := range 20 {
		h.push("acme", simple(fmt.Sprintf("service-%02d", i), 1, "main"), int64(i), profile.ID{}, noLabels)
	}
	r := open(t, h.segment(t, "X"))
	w := NewWriter(io.Discard, Header{ID: "01OUT", Tenant: "acme", Level: 1})
	if err := Merge(t.Context(), "acme", []*Reader{r}, w); err != nil {
		t.Fatal(err)
	}
	g := r.groups[0]
	if g.symbols.done || g.series.done || g.profiles.done {
		t.Error("sections are kept after the merge")
	}
	if err := collect(t.Context(), map[string]int64{}, r.Datasets()[3], r.Datasets()[3].Rows[0]); err != nil {
		t.Errorf("read again: %v", err)
	}
}
