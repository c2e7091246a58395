package metastore

import (
	"fmt"
	"sync"
	"testing"
)

func BenchmarkAddSegments(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			r := serving(b, b.TempDir(), &deletions{})
			var left = make(chan struct{}, b.N)
			for range b.N {
				left <- struct{}{}
			}
			close(left)
			b.ResetTimer()
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for range left {
						if err := r.add(segment(newID(), 1, dataset{"a", "web", 1, 2}, dataset{"a", "db", 1, 2})); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			r.stop()
		})
	}
}
