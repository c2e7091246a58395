package rollup

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
)

func section(t *testing.T) []byte {
	t.Helper()
	var w Writer
	w.Reset(2, column.Default)
	w.Append(-3, 7, []uint32{1, 4}, [][]int64{{5, 6}, {0, 1}})
	w.Append(2, 7, []uint32{4}, [][]int64{{9}, {1 << 60}})
	w.Append(-3, All, nil, [][]int64{nil, nil})
	w.Append(2, All, []uint32{0, 300}, [][]int64{{9, 8}, {3, 2}})
	b, err := w.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	s, err := Parse(section(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Buckets, []int64{-3, 2, -3, 2}) || !slices.Equal(s.Series, []uint32{7, 7, All, All}) || !slices.Equal(s.Rows, []uint32{2, 1, 0, 2}) {
		t.Errorf("runs %v %v %v", s.Buckets, s.Series, s.Rows)
	}
	stacks, err := s.Samples.Page(0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	values, err := s.Samples.Page(0, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]int64, 301)
	for i, n := range s.Rows {
		run := func(b []byte, c int) []byte { return b[s.Offsets[c][i]:s.Offsets[c][i+1]] }
		if err := samples.Sum(run(stacks, 0), run(values, 2), n, 1, sums); err != nil {
			t.Fatal(err)
		}
	}
	if sums[0] != 3 || sums[1] != 0 || sums[4] != 1+1<<60 || sums[300] != 2 {
		t.Errorf("sums %v", sums)
	}
}

func TestDamaged(t *testing.T) {
	whole := section(t)
	for i := range whole {
		for _, b := range [][]byte{whole[:i], append(bytes.Clone(whole[:i]), whole[i]^0x11)} {
			if _, err := Parse(b, 2); !errors.Is(err, column.ErrCorrupt) {
				t.Errorf("cut or damaged at byte %d: error %v", i, err)
			}
		}
	}
	if _, err := Parse(whole, 3); !errors.Is(err, column.ErrCorrupt) {
		t.Errorf("read for three sample types: error %v", err)
	}
}
