package block

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"

	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// The budget for memory is stated for 100 sources of 50 MB:
//
//	go test -run '^$' -bench Scale -benchtime 1x -sources 100 -megabytes 50 ./benchmarks/block
//
// which needs 5 GB of disk and a few minutes.
var (
	scaleSources   = flag.Int("sources", 40, "how many blocks BenchmarkScale merges")
	scaleMegabytes = flag.Int("megabytes", 3, "how large each of them is")
)

// BenchmarkScale merges large blocks of one service in files, whose profiles take turns or whose times follow each
// other, within the default budget. It reports the largest heap that a read has seen, garbage included.
func BenchmarkScale(b *testing.B) {
	for _, name := range []string{"interleaved", "consecutive"} {
		b.Run(name, func(b *testing.B) {
			var heap peak
			readers, stored, inflatedSize := bigBlocks(b, &heap, name == "interleaved")
			runtime.GC()
			b.ResetTimer()
			start := workload.CPU()
			for b.Loop() {
				merge(b, 3, io.Discard, readers)
			}
			seconds := (workload.CPU() - start).Seconds()
			b.ReportMetric(float64(inflatedSize)*float64(b.N)/seconds/1e6, "inflated-MB/cpu-s")
			b.ReportMetric(float64(stored)*float64(b.N)/seconds/1e6, "stored-MB/cpu-s")
			b.ReportMetric(float64(stored)/1e6, "stored-MB")
			b.ReportMetric(float64(heap.bytes.Load())/(1<<20), "peak-heap-MiB")
			if limit := int64(block.DefaultBudget); heap.bytes.Load() > limit {
				b.Errorf("the heap reached %d bytes, the budget is %d", heap.bytes.Load(), limit)
			}
		})
	}
}

// peak is the largest heap that was seen.
type peak struct{ bytes atomic.Int64 }

func (p *peak) look() {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	now := int64(sample[0].Value.Uint64())
	for {
		before := p.bytes.Load()
		if now <= before || p.bytes.CompareAndSwap(before, now) {
			return
		}
	}
}

// file is an object in a file.
type file struct {
	*os.File
	size int64
	heap *peak
}

func (f file) Size() int64 { return f.size }

func (f file) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	_, err := f.ReadAt(b, off)
	f.heap.look()
	return b, err
}

// bigBlocks writes the sources of BenchmarkScale.
func bigBlocks(b *testing.B, heap *peak, interleaved bool) (readers []*block.Reader, stored, inflatedSize int64) {
	b.Helper()
	dir := b.TempDir()
	for i := range *scaleSources {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		from, step := int64(i)<<32, int64(1000)
		if interleaved {
			from, step = int64(i), int64(*scaleSources)
		}
		if err := bigBlock(f, uint64(i), from, step); err != nil {
			b.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			b.Fatal(err)
		}
		src := file{f, info.Size(), heap}
		meta, err := block.ReadMeta(context.Background(), src)
		if err != nil {
			b.Fatal(err)
		}
		r, err := block.Open(src, meta)
		if err != nil {
			b.Fatal(err)
		}
		readers = append(readers, r)
		stored += info.Size()
		if i == 0 { // all are alike
			o := make(object, info.Size())
			if _, err := f.ReadAt(o, 0); err != nil {
				b.Fatal(err)
			}
			inflatedSize = int64(*scaleSources) * inflated(b, r, o)
		}
	}
	heap.bytes.Store(0)
	return readers, stored, inflatedSize
}

// bigBlock writes a block of one service with 20,000 stacks, and profiles of about 2,000 rows whose values hardly
// compress.
func bigBlock(out io.Writer, seed uint64, from, step int64) error {
	const stacks, every = 20_000, 10
	rng := rand.New(rand.NewPCG(seed, 9))
	w := block.NewWriter(out, block.Header{ID: ulid(seed), Tenant: "acme", Level: 2})
	g := w.Group("acme", true)
	sym := profile.Symbols{Strings: make([]profile.Span, 1), Mappings: make([]profile.Mapping, 1), Functions: make([]profile.Function, 1)}
	stack := profile.StackTree{Parents: make([]uint32, stacks+1), Locations: make([]uint32, stacks+1)}
	call := profile.CallTree{Parents: make([]uint32, stacks+1), Names: make([]uint32, stacks+1), OfStack: make([]uint32, stacks+1)}
	for i := range uint32(stacks) {
		name := fmt.Sprintf("github.com/example/service/package%03d.(*Type%d).Function%07d", i/100, i/10%10, i)
		sym.Strings = append(sym.Strings, profile.Span{Off: uint32(len(sym.Data)), Len: uint32(len(name))})
		sym.Data = append(sym.Data, name...)
		sym.Functions = append(sym.Functions, profile.Function{Name: i + 1, SystemName: i + 1})
		sym.Lines = append(sym.Lines, profile.Line{Function: i + 1, Line: int64(i)})
		sym.Locations = append(sym.Locations, profile.Location{FirstLine: i, Lines: 1})
		stack.Locations[i+1], call.Names[i+1], call.OfStack[i+1] = i, i+1, i+1
	}
	g.Symbols(&sym)
	var series []labels.Labels
	for i := range pods {
		series = append(series, labels.FromStrings("pod", fmt.Sprintf("pod-%03d", i), labels.ServiceName, "large"))
	}
	g.Series(series)
	kind := profile.Kind{Name: "memory", PeriodType: "space", PeriodUnit: "bytes",
		SampleTypes: []profile.SampleType{{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"}}}
	rows := g.Rows("large", kind, g.Trees(&stack, &call))
	var nodes []uint32
	values := make([][]int64, 2)
	for i, bytes := 0, 0; bytes < *scaleMegabytes<<20; i++ {
		nodes, values[0], values[1] = nodes[:0], values[0][:0], values[1][:0]
		for n := 1 + rng.IntN(every); n <= stacks; n += 1 + rng.IntN(2*every-1) {
			objects := 1 + rng.Int64N(127)
			nodes = append(nodes, uint32(n))
			values[0] = append(values[0], objects)
			values[1] = append(values[1], objects*rng.Int64N(1<<10))
		}
		p := block.Profile{Time: hour + from + step*int64(i), Series: uint32(rng.IntN(pods)), Duration: 10e9, Period: 512 << 10}
		for j := range p.ID {
			p.ID[j] = byte(rng.Uint32())
		}
		if err := rows.Append(p, nodes, values); err != nil {
			return err
		}
		bytes += 4 * len(nodes) // about
	}
	if err := g.Close(); err != nil {
		return err
	}
	_, err := w.Finish()
	return err
}
