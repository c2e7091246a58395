package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
)

// inflated is the size of the sections of an object without compression.
func inflated(tb testing.TB, r *block.Reader, o object) (size int64) {
	tb.Helper()
	for _, g := range r.Meta().GetGroups() {
		for _, s := range g.GetSections() {
			b, err := o.ReadRange(context.Background(), int64(s.GetOffset()), int64(s.GetLength()))
			if err != nil {
				tb.Fatal(err)
			}
			size += rawSize(tb, s.GetType(), b)
		}
	}
	return size
}

func rawSize(tb testing.TB, t storagev1.SectionType, b []byte) (size int64) {
	tb.Helper()
	columns, counts := 0, 0 // counts are the uvarints before the set of columns
	switch t {
	case storagev1.SectionType_SECTION_TYPE_SYMBOLS:
		columns, counts = 13, 5
	case storagev1.SectionType_SECTION_TYPE_SERIES:
		columns, counts = 5, 3
	case storagev1.SectionType_SECTION_TYPE_TREES:
		columns, counts = 2, 2
		if b[0] != 0 {
			columns, counts = 5, 3
		}
	case storagev1.SectionType_SECTION_TYPE_SAMPLES:
		return samplesSize(tb, b)
	case storagev1.SectionType_SECTION_TYPE_ROLLUP:
		c := column.Cursor{Data: b}
		index := int(c.Uvarint())
		return int64(c.Pos+index) + samplesSize(tb, b[c.Pos+index:])
	default:
		return int64(len(b))
	}
	c := column.Cursor{Data: b}
	for range counts {
		c.Uvarint()
	}
	set, err := column.Parse(b[c.Pos:], columns)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range columns {
		size += int64(set.Raw(i))
	}
	return size
}

func samplesSize(tb testing.TB, b []byte) (size int64) {
	n := binary.LittleEndian.Uint32(b[len(b)-4:])
	c := column.Cursor{Data: b[len(b)-4-int(n):]}
	columns := int(c.Uvarint())
	s, err := samples.Parse(b, columns)
	if err != nil {
		tb.Fatal(err)
	}
	for p := range s.Pages() {
		for i := range columns {
			if _, _, multiple := s.Multiple(p, i); multiple {
				continue // not stored
			}
			from, to := s.Bounds(p, i)
			size += int64(to - from)
		}
	}
	return size
}

// ladder is the data of an hour at every level: 1,000 profiles of every service, as segments, blocks of 20 segments as
// the planner makes them, of half an hour and of the hour.
type ladder struct {
	t      *traffic
	levels [4][][]byte
}

const (
	perSegment = 5   // profiles of a service in a segment
	segments   = 200 // in the hour
	perL1      = 20  // segments in a block of level 1
	perL2      = 5   // of those in one of level 2
)

var hourOf = sync.OnceValue(func() *ladder { return makeLadder(nil) })

func makeLadder(names []string) *ladder {
	tb := &testing.B{}
	l := &ladder{t: newTraffic(tb, names...)}
	span := int64(3600e9) / segments
	for i := range segments {
		l.levels[0] = append(l.levels[0], l.t.segment(tb, perSegment, hour+int64(i)*span, span))
	}
	l.levels[1] = climb(tb, 1, l.levels[0], perL1)
	l.levels[2] = climb(tb, 2, l.levels[1], perL2)
	l.levels[3] = climb(tb, 3, l.levels[2], len(l.levels[2]))
	return l
}

func climb(tb testing.TB, level uint32, objects [][]byte, n int) (out [][]byte) {
	for i := 0; i < len(objects); i += n {
		out = append(out, merged(tb, level, objects[i:i+n]))
	}
	return out
}

// BenchmarkMerge merges from each level to the next, and reports inflated bytes of the sources by CPU time.
func BenchmarkMerge(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"L0-L1", perL1}, {"L1-L2", perL2}, {"L2-L3", segments / perL1 / perL2}} {
		b.Run(c.name, func(b *testing.B) {
			level := uint32(c.name[len(c.name)-1] - '0')
			objects := hourOf().levels[level-1][:c.n]
			size, stored := int64(0), 0
			for i, r := range openAll(b, objects) {
				size += inflated(b, r, objects[i])
				stored += len(objects[i])
			}
			merged(b, level, objects)
			b.ReportAllocs()
			b.ResetTimer()
			start := workload.CPU()
			for b.Loop() {
				merge(b, level, io.Discard, openAll(b, objects))
			}
			seconds := (workload.CPU() - start).Seconds()
			b.ReportMetric(float64(size)*float64(b.N)/seconds/1e6, "inflated-MB/cpu-s")
			b.ReportMetric(float64(stored)*float64(b.N)/seconds/1e6, "stored-MB/cpu-s")
		})
	}
}

// BenchmarkSizes reports what the hour takes at every level against the gzipped profiles that came in, and the parts
// of it.
func BenchmarkSizes(b *testing.B) {
	l := hourOf()
	for level, objects := range l.levels {
		b.Run(fmt.Sprint("L", level), func(b *testing.B) {
			size, parts := 0, map[string]float64{}
			for _, o := range objects {
				size += len(o)
				parts["footer"] += float64(len(o))
				for _, g := range open(b, o).Meta().GetGroups() {
					for _, s := range g.GetSections() {
						parts[strings.ToLower(strings.TrimPrefix(s.GetType().String(), "SECTION_TYPE_"))] += float64(s.GetLength())
						parts["footer"] -= float64(s.GetLength())
					}
				}
			}
			for b.Loop() {
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(size)/float64(l.t.gzipped), "x-gzip")
			for name, n := range parts {
				b.ReportMetric(n/float64(l.t.weighed), name+"-B/profile")
			}
		})
	}
}
