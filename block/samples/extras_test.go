package samples

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/profile"
)

// What is written of any rows is read again, and no shorter or longer run is taken for it.
func TestExtrasRoundTrip(t *testing.T) {
	var w Writer
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.IntRange(1, 30).Draw(t, "rows")
		base := rapid.Int64().Draw(t, "base")
		var x Extras
		for range rows {
			id := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 1, 255}), 16, 16).Draw(t, "id")
			x.Spans, x.Traces = append(x.Spans, profile.SpanID(id[:8])), append(x.Traces, profile.TraceID(id))
			times := rapid.SliceOfN(rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, base, math.MaxInt64})), 0, 5).Draw(t, "times")
			slices.Sort(times)
			x.Times = append(x.Times, times...)
			x.TimeEnds = append(x.TimeEnds, uint32(len(x.Times)))
		}
		w.Reset(1, column.Fastest, nil)
		lengths := w.AppendExtras(&x, base)
		var d Decoder
		var got Extras
		for e := range Extra(NumExtras) {
			run := w.extra.columns[e]
			if len(run) != int(lengths[e]) {
				t.Fatalf("a run of %d bytes is said to have %d", len(run), lengths[e])
			}
			if err := d.Read(&got, e, run, rows, base); err != nil {
				t.Fatal(err)
			}
			if len(run) == 0 {
				continue
			}
			for _, wrong := range [][]byte{run[:len(run)-1], append(slices.Clone(run), 0)} {
				if err := d.Read(&Extras{}, e, wrong, rows, base); len(wrong) > 0 && !errors.Is(err, column.ErrCorrupt) {
					t.Fatalf("%s: %d bytes instead of %d: error %v", e, len(wrong), len(run), err)
				}
			}
		}
		for i := range rows {
			if want, got := rowText(&x, i), rowText(&got, i); got != want {
				t.Fatalf("row %d is %s, want %s", i, got, want)
			}
		}
		if problem := got.Check(rows); problem != "" {
			t.Fatal(problem)
		}
	})
}

func rowText(x *Extras, i int) string {
	var span profile.SpanID
	var trace profile.TraceID
	if len(x.Spans) > 0 {
		span = x.Spans[i]
	}
	if len(x.Traces) > 0 {
		trace = x.Traces[i]
	}
	return fmt.Sprint(span, trace, len(x.TimesOf(i)), append([]int64{}, x.TimesOf(i)...))
}

// A page ends where its extra columns have grown large, however few rows it has.
func TestPagesOfManyTimes(t *testing.T) {
	var w Writer
	w.Reset(2, column.Fastest, nil)
	x := Extras{Times: make([]int64, 1<<17), TimeEnds: []uint32{1 << 17}}
	for i := range x.Times {
		x.Times[i] = int64(i) << 20
	}
	for range 5 {
		w.Append([]uint32{1}, [][]int64{{1}}, nil)
		w.AppendExtras(&x, 0)
	}
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(b, 2, Times)
	if err != nil {
		t.Fatal(err)
	}
	if s.Pages() != 3 || s.Rows() != 5 {
		t.Errorf("%d pages with %d rows, want 3 with 5", s.Pages(), s.Rows())
	}
}
