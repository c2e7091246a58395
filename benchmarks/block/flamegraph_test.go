package block

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/flamegraph"
)

// dataset is an hour of one service in blocks of level 3: so many profiles in a hundred series.
func dataset(tb testing.TB, service string, profiles int) []byte {
	const parts = 24
	t := newTraffic(tb, service)
	var blocks [][]byte
	span := int64(3600e9) / parts
	for i := range parts {
		blocks = append(blocks, merged(tb, 1, [][]byte{t.segment(tb, profiles/parts, hour+int64(i)*span, span)}))
	}
	return merged(tb, 3, blocks)
}

// maxNodes is how large a flame graph is for a browser.
const maxNodes = 8192

// everything is all of the time.
var everything = block.Span{From: 0, Until: math.MaxInt64}

// selections are what a question may want of the hundred series: all of them, or every tenth.
var selections = []struct {
	name string
	of   func(series uint32) bool
}{{"all series", nil}, {"10 series", func(series uint32) bool { return series%10 == 3 }}}

// flame makes the flame graph of a sample type of a kind of an object that is opened anew, with sums of its stack nodes
// that someone else provides.
func flame(tb testing.TB, object []byte, kind string, sum func(rows *block.Rows, sums []int64)) (*flamegraph.Tree, [][]int64) {
	d, rows, nodes := largest(tb, open(tb, object), kind)
	sums := make([]int64, nodes)
	sum(rows, sums)
	symbols, err := d.Symbols(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	_, call, err := rows.Trees(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tree, err := flamegraph.Build(call, symbols, sums)
	if err != nil {
		tb.Fatal(err)
	}
	_, levels, _, _ := flamegraph.FlameGraph(tree, maxNodes)
	return tree, levels
}

// fromRollup sums by rollups and nothing else.
func fromRollup(tb testing.TB, selected func(series uint32) bool) func(rows *block.Rows, sums []int64) {
	return func(rows *block.Rows, sums []int64) {
		rest, err := rows.SumRollups(tb.Context(), 1, everything, selected, sums)
		if err != nil || len(rest) > 0 {
			tb.Fatalf("%s: rollups leave %v, error %v", rows.Kind.Name, rest, err)
		}
	}
}

// fromRows sums row by row.
func fromRows(tb testing.TB, selected func(series uint32) bool) func(rows *block.Rows, sums []int64) {
	return func(rows *block.Rows, sums []int64) {
		ps, err := rows.Profiles(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		s, err := rows.Samples(tb.Context(), ps)
		if err != nil {
			tb.Fatal(err)
		}
		counts := func(i int) bool { return selected == nil || selected(ps.Series[i]) }
		if err := s.Sum(1, counts, sums); err != nil {
			tb.Fatal(err)
		}
	}
}

// hasRollup tells whether rollups answer for such a selection, which for some series they do where it pays.
func hasRollup(tb testing.TB, object []byte, kind string, perSeries bool) bool {
	_, rows, _ := largest(tb, open(tb, object), kind)
	for _, m := range rows.Rollups() {
		if m.Bucket == 0 && (m.PerSeries || !perSeries) {
			return true
		}
	}
	return false
}

func TestFlameGraphOfARollupIsThatOfItsRows(t *testing.T) {
	object := dataset(t, "api-gateway", 4800)
	tried := map[string]int{}
	for _, kind := range []string{"process_cpu", "memory"} {
		for _, selected := range selections {
			if !hasRollup(t, object, kind, selected.of != nil) {
				continue
			}
			tried[selected.name]++
			tree, levels := flame(t, object, kind, fromRollup(t, selected.of))
			wantTree, wantLevels := flame(t, object, kind, fromRows(t, selected.of))
			if !reflect.DeepEqual(tree, wantTree) || !reflect.DeepEqual(levels, wantLevels) || tree.Total() == 0 {
				t.Errorf("%s, %s: %d nodes that sum to %d, from rows %d that sum to %d", kind, selected.name, len(tree.Parents), tree.Total(), len(wantTree.Parents), wantTree.Total())
			}
		}
	}
	if tried["all series"] != 2 || tried["10 series"] == 0 {
		t.Errorf("rollups were there to be tried %v times", tried)
	}
}

// BenchmarkFlameGraph makes the flame graph of a dataset of 24,000 profiles from stored bytes in memory, by its rollup
// and by its rows: the object is opened, names, trees and sums are decoded, and the tree is truncated and laid out.
func BenchmarkFlameGraph(b *testing.B) {
	object := dataset(b, "api-gateway", 24_000)
	for _, kind := range []string{"process_cpu", "memory"} {
		for _, selected := range selections {
			if hasRollup(b, object, kind, selected.of != nil) {
				b.Run(fmt.Sprintf("%s/%s/rollup", kind, selected.name), func(b *testing.B) {
					benchmarkFlame(b, object, kind, fromRollup(b, selected.of))
				})
			}
			b.Run(fmt.Sprintf("%s/%s/rows", kind, selected.name), func(b *testing.B) {
				benchmarkFlame(b, object, kind, fromRows(b, selected.of))
			})
		}
	}
	for _, kind := range []string{"process_cpu", "memory"} { // of the services with the most stacks
		b.Run(kind+"/largest of the hour", func(b *testing.B) {
			benchmarkFlame(b, hourOf().levels[3][0], kind, fromRollup(b, nil))
		})
	}
}

func benchmarkFlame(b *testing.B, object []byte, kind string, sum func(rows *block.Rows, sums []int64)) {
	tree, _ := flame(b, object, kind, sum)
	_, rows, _ := largest(b, open(b, object), kind)
	b.ReportAllocs()
	b.ResetTimer()
	start := workload.CPU()
	for b.Loop() {
		flame(b, object, kind, sum)
	}
	b.ReportMetric(float64((workload.CPU()-start).Microseconds())/1000/float64(b.N), "cpu-ms")
	b.ReportMetric(float64(len(tree.Parents)), "nodes")
	b.ReportMetric(float64(rows.ProfileCount), "profiles")
}
