package series

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/labels"
)

func TestRoundTrip(t *testing.T) {
	var e Encoder
	rapid.Check(t, func(t *rapid.T) {
		all := make([]labels.Labels, rapid.IntRange(0, 20).Draw(t, "series"))
		for i := range all {
			var ls []labels.Label
			for range rapid.IntRange(0, 6).Draw(t, "labels") {
				ls = append(ls, labels.Label{Name: rapid.SampledFrom([]string{"pod", "zone", "endpoint", "é"}).Draw(t, "name"), Value: rapid.String().Draw(t, "value")})
			}
			all[i] = labels.New(ls...)
		}
		b, err := e.Append(nil, all, column.Fastest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(all) {
			t.Fatalf("%d series, want %d", len(got), len(all))
		}
		for i := range all {
			if labels.Compare(got[i], all[i]) != 0 {
				t.Fatalf("series %d is %v, want %v", i, got[i], all[i])
			}
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := Decode(b[:cut]); !errors.Is(err, column.ErrCorrupt) {
			t.Fatalf("first %d of %d bytes: error %v", cut, len(b), err)
		}
	})
}

func TestUnsortedLabels(t *testing.T) {
	var e Encoder
	for _, ls := range []labels.Labels{{{Name: "b"}, {Name: "a"}}, {{Name: "a"}, {Name: "a", Value: "2"}}} {
		b, err := e.Append(nil, []labels.Labels{ls}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, column.ErrCorrupt) {
			t.Errorf("%v: error %v", ls, err)
		}
	}
}
