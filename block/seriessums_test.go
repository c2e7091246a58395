package block

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Sums of a series are those of a map.
func TestSeriesSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s seriesSums
		s.reset(2)
		want := map[uint32]int64{}
		total := uint64(0)
		for range rapid.IntRange(1, 12).Draw(t, "profiles") {
			stacks := rapid.SliceOf(rapid.Uint32Range(0, 40)).Draw(t, "stacks") // of spans, where one comes again
			slices.Sort(stacks)
			places := s.places(nil, stacks)
			values := make([]int64, len(stacks))
			for i, n := range stacks {
				values[i] = rapid.Int64Range(0, 3).Draw(t, "value")
				want[n] += values[i]
				total += uint64(values[i])
			}
			add(places, values, s.sums[1])
		}
		if nodes := slices.Sorted(maps.Keys(want)); !slices.Equal(s.nodes, nodes) {
			t.Fatalf("nodes %v, want %v", s.nodes, nodes)
		}
		maps.DeleteFunc(want, func(_ uint32, v int64) bool { return v == 0 })
		totals := make([]uint64, 2)
		s.trim(totals)
		got := map[uint32]int64{}
		for i, n := range s.nodes {
			got[n] = s.sums[1][i]
		}
		if !maps.Equal(got, want) || len(s.nodes) != len(want) || totals[0] != 0 || totals[1] != total {
			t.Fatalf("sums %v, totals %d, want %v", got, totals, want)
		}
	})
}

// What is gathered has a bound, above which there is nothing.
func TestGatheredSeriesAreBounded(t *testing.T) {
	e := seriesRollup{pays: true, types: 1, room: 5, at: map[uint32]int{}}
	for i, c := range []struct {
		series uint32
		stacks []uint32
		pays   bool
	}{{7, []uint32{1, 2, 9}, true}, {7, []uint32{1, 2}, true}, {3, []uint32{1, 2}, true}, {3, []uint32{3}, false}, {7, []uint32{1}, false}} {
		if s, places := e.places(c.series, c.stacks); (s != nil) != c.pays || (places != nil) != c.pays || e.pays != c.pays {
			t.Errorf("step %d: sums %v at %v, pays %t", i, s, places, e.pays)
		}
	}
}
