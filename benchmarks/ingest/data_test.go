package ingest

import (
	"slices"
	"testing"

	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

var (
	limits = pprof.Limits{MaxBytes: 4 << 20, MaxRatio: 200, MaxSamples: 16_000, MaxSampleTypes: 32, MaxSampleLabels: 100}
	normal = profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65_535}
)

func gunzip(tb testing.TB, g *workload.Gunzipper, profiles []workload.Sent) {
	if err := g.All(profiles); err != nil {
		tb.Fatal(err)
	}
}

// segments cuts profiles into lots of n; what is left over is not used.
func segments(all []workload.Sent, n int) (cut [][]workload.Sent) {
	for lot := range slices.Chunk(all, n) {
		if len(lot) == n {
			cut = append(cut, lot)
		}
	}
	return cut
}
