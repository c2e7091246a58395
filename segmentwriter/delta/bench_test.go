package delta_test

import (
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

// BenchmarkTake compares taking differences of heap profiles with decoding them.
func BenchmarkTake(b *testing.B) {
	var bodies [][]byte
	for _, f := range corpus.All() {
		if f.Kind() == "memory" {
			bodies = append(bodies, f.Gzipped)
		}
	}
	d, p, tr := pprof.NewDecoder(), new(profile.Profile), track(b)
	for _, cumulative := range []string{"false", "true"} {
		of := memory.With("__delta__", cumulative)
		b.Run("delta="+cumulative, func(b *testing.B) {
			b.ReportAllocs()
			at := int64(0)
			for b.Loop() {
				at++
				for i, body := range bodies {
					if err := d.Decode(body, pprof.Limits{}, p); err != nil {
						b.Fatal(err)
					}
					p.TimeNanos = at * second
					if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 1 << 16}); err != nil {
						b.Fatal(err)
					}
					change, err := tr.Take("acme", of.With("n", string(rune('a'+i))), profile.ID{}, p, noon)
					if err != nil {
						b.Fatal(err)
					}
					change.Settle(true)
				}
			}
		})
	}
}
