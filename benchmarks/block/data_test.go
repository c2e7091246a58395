// Package block measures the object format with the data set that its budgets are stated for: the corpus of real
// profiles, every value scaled by a random factor of 0.5 to 2 (CPU nanoseconds stay samples × period), a quarter of
// the samples dropped, a hundred series.
package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/segmentwriter/head"
)

// pods is how many series a service has.
const pods = 100

// hour is when the data begins.
const hour = int64(1_700_000_000) / 3600 * 3600 * 1e9

// source is a corpus file that perturbed copies are made of.
type source struct {
	file corpus.File
	base profile.Profile // decoded
}

// traffic draws profiles. It is deterministic.
type traffic struct {
	services map[string][]*source
	names    []string
	rng      *rand.Rand
	gzipped  int64 // of the profiles that were weighed
	weighed  int
	gz       *gzip.Writer
	scratch  profile.Profile
	ids      uint64
}

func newTraffic(tb testing.TB, names ...string) *traffic {
	tb.Helper()
	t := &traffic{services: map[string][]*source{}, rng: rand.New(rand.NewPCG(1, 2))}
	t.gz, _ = gzip.NewWriterLevel(io.Discard, gzip.DefaultCompression)
	d := pprof.NewDecoder()
	for _, f := range corpus.All() {
		if len(names) > 0 && !slices.Contains(names, f.Service()) {
			continue
		}
		s := &source{file: f}
		if err := d.Decode(f.Gzipped, pprof.Limits{MaxBytes: 64 << 20, MaxRatio: 10000}, &s.base); err != nil {
			tb.Fatal(err)
		}
		if t.services[f.Service()] == nil {
			t.names = append(t.names, f.Service())
		}
		t.services[f.Service()] = append(t.services[f.Service()], s)
	}
	slices.Sort(t.names)
	return t
}

// draw makes the next profile of a source in the traffic's scratch.
func (t *traffic) draw(s *source) *profile.Profile {
	b, p := &s.base, &t.scratch
	p.Reset()
	// The tables are shared but for what Normalise changes: it shortens or blanks strings, and gives functions other names.
	p.Symbols = b.Symbols
	p.Data, p.Strings, p.Functions = slices.Clip(b.Data), slices.Clone(b.Strings), slices.Clone(b.Functions)
	p.SampleTypes, p.PeriodType, p.Period, p.DurationNanos = b.SampleTypes, b.PeriodType, b.Period, b.DurationNanos
	w := len(b.SampleTypes)
	cpu := w == 2 && string(b.String(b.SampleTypes[1].Unit)) == "nanoseconds" && string(b.String(b.SampleTypes[0].Type)) == "samples"
	for i := range b.Samples() {
		if t.rng.IntN(4) == 0 {
			continue
		}
		factor := 0.5 + 1.5*t.rng.Float64()
		row := b.Row(i)
		for c, v := range row {
			switch {
			case cpu && c == 1:
				v = p.Values[len(p.Values)-1] * b.Period
			default:
				if v = int64(float64(v) * factor); v == 0 && row[c] > 0 {
					v = 1
				}
			}
			p.Values = append(p.Values, v)
		}
		p.Stacks = append(p.Stacks, b.Stack(i)...)
		p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
		p.SampleLabels = append(p.SampleLabels, b.LabelsOf(i)...)
		p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	}
	return p
}

// counter counts what is written.
type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// weigh takes one of 16 profiles as the clients send them, gzipped, and estimates the rest.
func (t *traffic) weigh(tb testing.TB, p *profile.Profile) {
	if t.weighed++; t.weighed%16 != 1 {
		return
	}
	var n counter
	t.gz.Reset(&n)
	if _, err := t.gz.Write(pprof.Append(nil, p)); err != nil {
		tb.Fatal(err)
	}
	if err := t.gz.Close(); err != nil {
		tb.Fatal(err)
	}
	t.gzipped += 16 * int64(n)
}

// segment makes a segment of n profiles of every service, from that time on, over that span.
func (t *traffic) segment(tb testing.TB, n int, from, span int64) []byte {
	tb.Helper()
	h := head.New()
	for _, name := range t.names {
		sources := t.services[name]
		for i := range n {
			s := sources[int(t.ids)%len(sources)]
			p := t.draw(s)
			t.weigh(tb, p)
			t.ids++
			p.TimeNanos = from + span*int64(i)/int64(n) + t.rng.Int64N(max(span/int64(n), 1))
			if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65535}); err != nil {
				tb.Fatal(err)
			}
			var id profile.ID
			binary.BigEndian.PutUint64(id[:8], t.rng.Uint64())
			binary.BigEndian.PutUint64(id[8:], t.rng.Uint64())
			ls := labels.FromStrings("__name__", s.file.Kind(), "service_name", name, "pod", fmt.Sprintf("%s-%03d", name, t.rng.IntN(pods)))
			if err := h.Append(p, ls, id); err != nil {
				tb.Fatal(err)
			}
		}
	}
	var out bytes.Buffer
	w := block.NewWriter(&out, block.Header{ID: ulid(t.ids), Writer: "bench"})
	if err := h.Write("acme", w); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func ulid(n uint64) string { return fmt.Sprintf("01ARZ3NDEKTSV4RRFF%08X", n) }

// object is an object in memory.
type object []byte

func (o object) Size() int64 { return int64(len(o)) }

func (o object) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	return o[off : off+n : off+n], nil
}

func open(tb testing.TB, b []byte) *block.Reader {
	tb.Helper()
	meta, err := block.ReadMeta(context.Background(), object(b))
	if err != nil {
		tb.Fatal(err)
	}
	r, err := block.Open(object(b), meta)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func openAll(tb testing.TB, objects [][]byte) (readers []*block.Reader) {
	for _, o := range objects {
		readers = append(readers, open(tb, o))
	}
	return readers
}

func merge(tb testing.TB, level uint32, out io.Writer, readers []*block.Reader) *storagev1.BlockMeta {
	tb.Helper()
	w := block.NewWriter(out, block.Header{ID: ulid(0), Tenant: "acme", Level: level})
	if err := block.Merge(context.Background(), "acme", readers, w); err != nil {
		tb.Fatal(err)
	}
	m, err := w.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func merged(tb testing.TB, level uint32, objects [][]byte) []byte {
	var out bytes.Buffer
	merge(tb, level, &out, openAll(tb, objects))
	return out.Bytes()
}
