package block

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
)

// benchHead holds n corpus profiles of ten pods whose values vary from one to the next, as in life.
func benchHead(b *testing.B, n int, seed uint64) *head {
	b.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	files := corpus.All()
	h := &head{}
	for i := range n {
		d := decode(b, files[i%len(files)])
		for j := range d.p.Values {
			d.p.Values[j] += rng.Int64N(d.p.Values[j]/4 + 1)
		}
		h.push("acme", d, int64(seed)*1e9+int64(i)*1e6, profile.ID{byte(seed), byte(i), byte(i >> 8)}, labels.FromStrings("pod", fmt.Sprint(i%10)))
	}
	return h
}

// inflated is the size of all sections of an object without compression.
func inflated(b *testing.B, r *Reader) (size int64) {
	b.Helper()
	for _, g := range r.groups {
		for _, s := range g.meta.Sections {
			size += rawSize(b, g, s)
		}
	}
	return size
}

func BenchmarkEncodeSegment(b *testing.B) {
	h := benchHead(b, 100, 1)
	size := len(h.segment(b, "01SIZE"))
	w := NewWriter(io.Discard, Header{ID: "01BENCH"})
	b.ReportAllocs()
	start := workload.CPU()
	for b.Loop() {
		w.Reset(io.Discard, Header{ID: "01BENCH"})
		h.write(b, w)
	}
	b.ReportMetric(float64(size)/100, "B/profile")
	b.ReportMetric(float64((workload.CPU()-start).Microseconds())/float64(b.N)/100, "cpu-us/profile")
}

func BenchmarkScan(b *testing.B) {
	var segments [][]byte
	for i := range 4 {
		segments = append(segments, benchHead(b, 104, uint64(i+1)).segment(b, fmt.Sprint(i)))
	}
	r := open(b, merge(b, "acme", 1, segments...))
	type scan struct {
		s    *Samples
		sums []int64
		rows int
	}
	var scans []scan
	for _, d := range r.Datasets() {
		for _, rows := range d.Rows {
			if rows.Kind.Name != "process_cpu" && rows.Kind.Name != "memory" {
				continue
			}
			stack, _, err := rows.Trees(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			ps, err := rows.Profiles(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			s, err := rows.Samples(b.Context(), ps)
			if err != nil {
				b.Fatal(err)
			}
			scans = append(scans, scan{s, make([]int64, len(stack.Parents)), rows.SampleCount})
		}
	}
	total, start := 0, workload.CPU()
	for b.Loop() {
		for _, sc := range scans {
			sc.s.page.number = -1 // inflate again, as the first scan would
			if err := sc.s.Sum(1, nil, sc.sums); err != nil {
				b.Fatal(err)
			}
			total += sc.rows
		}
	}
	b.ReportMetric(float64(total)/(workload.CPU()-start).Seconds()/1e6, "Msamples/cpu-s")
}

func BenchmarkMerge(b *testing.B) {
	var segments, blocks [][]byte
	for i := range 8 {
		segments = append(segments, benchHead(b, 52, uint64(i+1)).segment(b, fmt.Sprint(i)))
	}
	for i := range 4 {
		blocks = append(blocks, merge(b, "acme", 1, segments[2*i:2*i+2]...))
	}
	for _, c := range []struct {
		name    string
		level   uint32
		objects [][]byte
	}{{"L0-L1", 1, segments}, {"L1-L2", 2, blocks}} {
		b.Run(c.name, func(b *testing.B) {
			size, stored := int64(0), 0
			for _, o := range c.objects {
				size += inflated(b, open(b, o))
				stored += len(o)
			}
			b.ReportAllocs()
			start := workload.CPU()
			for b.Loop() {
				var readers []*Reader
				for _, o := range c.objects {
					readers = append(readers, open(b, o))
				}
				w := NewWriter(io.Discard, Header{ID: "01BENCH", Tenant: "acme", Level: c.level})
				if err := Merge(b.Context(), "acme", readers, w); err != nil {
					b.Fatal(err)
				}
				if _, err := w.Finish(); err != nil {
					b.Fatal(err)
				}
			}
			cpu := (workload.CPU() - start).Seconds()
			b.ReportMetric(float64(size)*float64(b.N)/cpu/1e6, "inflated-MB/cpu-s")
			b.ReportMetric(float64(stored)*float64(b.N)/cpu/1e6, "stored-MB/cpu-s")
		})
	}
}

func BenchmarkTable(b *testing.B) {
	for _, rows := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			var buf rowBuffer
			for i := range rows {
				p := Profile{Time: int64(i) * 1e9, ID: profile.NewID(), Duration: 15e9, Period: 10e6}
				buf.append(0, &p, 300, []int64{int64(i) * 7, int64(i) * 9e6}, []uint32{300, 310, 1000 + uint32(i)}, &extraLengths{})
			}
			t := newTableWriter(tableShape{types: 2})
			b.ReportAllocs()
			start := workload.CPU()
			var table bytes.Buffer
			for b.Loop() {
				table.Reset()
				if err := t.write(&table, &buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((workload.CPU()-start).Microseconds())/float64(b.N), "cpu-us")
			b.ReportMetric(float64(table.Len()), "B")
		})
	}
}

// BenchmarkMergeTiny merges segments of many services with a profile each.
func BenchmarkMergeTiny(b *testing.B) {
	const services = 3000
	var segments [][]byte
	for s := range 4 {
		var h head
		for i := range services {
			service := fmt.Sprintf("service-%05d", i)
			d := makeProfile(service, [][2]int64{{int64(i + 1), 3}, {1, 4}}, []string{"main", "work", service}, []string{"main", "idle"})
			h.push("acme", d, int64(s)*1e9+int64(i), profile.ID{byte(i), byte(i >> 8), byte(s)}, noLabels)
		}
		segments = append(segments, h.segment(b, fmt.Sprint(s)))
	}
	start := workload.CPU()
	for b.Loop() {
		merge(b, "acme", 1, segments...)
	}
	b.ReportMetric(float64((workload.CPU()-start).Microseconds())/float64(b.N)/services/4, "cpu-us/profile")
}
