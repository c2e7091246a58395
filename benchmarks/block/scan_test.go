package block

import (
	"math"
	"testing"

	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/block"
)

// BenchmarkScan sums the rows of the hour per stack node, from sections in memory, and BenchmarkRollup gets the same
// sums from the rollup, opening the object anew each time.
func BenchmarkScan(b *testing.B) {
	for _, kind := range []string{"process_cpu", "memory"} {
		b.Run(kind, func(b *testing.B) {
			r := open(b, hourOf().levels[3][0])
			_, rows, nodes := largest(b, r, kind)
			ps, err := rows.Profiles(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			sums := make([]int64, nodes)
			b.ResetTimer()
			start := workload.CPU()
			for b.Loop() {
				s, err := rows.Samples(b.Context(), ps)
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Sum(1, nil, sums); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rows.SampleCount)*float64(b.N)/(workload.CPU()-start).Seconds()/1e6, "Msamples/cpu-s")
		})
	}
}

func BenchmarkRollup(b *testing.B) {
	for _, kind := range []string{"process_cpu", "memory"} {
		b.Run(kind, func(b *testing.B) {
			object := hourOf().levels[3][0]
			_, _, nodes := largest(b, open(b, object), kind)
			sums := make([]int64, nodes)
			b.ResetTimer()
			start := workload.CPU()
			for b.Loop() {
				_, rows, _ := largest(b, open(b, object), kind)
				rest, err := rows.SumRollups(b.Context(), 1, block.Span{From: 0, Until: math.MaxInt64}, nil, sums)
				if err != nil || len(rest) > 0 {
					b.Fatal(rest, err)
				}
			}
			b.ReportMetric(float64((workload.CPU()-start).Microseconds())/float64(b.N), "cpu-us")
		})
	}
}

// largest returns the rows of a kind of which there are most, whose they are, and how many stack nodes they have.
func largest(tb testing.TB, r *block.Reader, kind string) (dataset *block.Dataset, rows *block.Rows, nodes int) {
	tb.Helper()
	for _, d := range r.Datasets() {
		for _, rs := range d.Rows {
			if rs.Kind.Name == kind && (rows == nil || rs.SampleCount > rows.SampleCount) {
				dataset, rows = d, rs
			}
		}
	}
	if rows == nil {
		tb.Fatalf("no rows of kind %s", kind)
	}
	stack, _, err := rows.Trees(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return dataset, rows, len(stack.Parents)
}
