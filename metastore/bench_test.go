package metastore

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/metastore/fsm"
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

// BenchmarkApply measures what a member does with entries that the log has agreed on: 100,000 of two datasets each, 500 to a
// log entry and four log entries to a transaction, as they come when 64 callers register.
func BenchmarkApply(b *testing.B) {
	const commands, size, together = 200, 500, 4
	for range b.N {
		m := newMachine()
		state, err := fsm.Open(filepath.Join(b.TempDir(), "state"), m.commands(), m.components(), slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		logs := []*fsm.Log{logged(b, 1, &storagev1.Command{Version: 1, Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: "c"}}})}
		for i := range commands {
			add := &storagev1.AddSegments{}
			for n := range size {
				add.Segments = append(add.Segments, workload.Entry(i*size+n))
			}
			logs = append(logs, logged(b, uint64(i+2), &storagev1.Command{
				Version: 1, Cluster: "c", Time: time.Now().UnixNano(), Body: &storagev1.Command_AddSegments{AddSegments: add},
			}))
		}
		state.ApplyBatch(logs[:1])
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		spent := workload.CPU()
		for rest := logs[1:]; len(rest) > 0; rest = rest[together:] {
			for _, result := range state.ApplyBatch(rest[:together]) {
				if err, failed := result.(error); failed {
					b.Fatal(err)
				}
			}
		}
		spent = workload.CPU() - spent
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(spent.Nanoseconds())/1000/(commands*size), "cpu-us/entry")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/(commands*size), "B/entry")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/(commands*size), "allocs/entry")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(commands*size), "heap-B/entry")
		if err := state.Close(); err != nil {
			b.Fatal(err)
		}
		runtime.KeepAlive(logs)
	}
}

// logged returns the log entry of a command.
func logged(b *testing.B, index uint64, cmd *storagev1.Command) *fsm.Log {
	b.Helper()
	data, err := fsm.EncodeCommand(cmd)
	if err != nil {
		b.Fatal(err)
	}
	return &fsm.Log{Index: index, Term: 1, Data: data}
}
