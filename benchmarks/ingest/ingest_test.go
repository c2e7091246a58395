package ingest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/internal/inflate"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/segmentwriter/head"
)

// BenchmarkGunzip compares the decoder for whole buffers with the yardstick of the others.
func BenchmarkGunzip(b *testing.B) {
	profiles := workload.Hard()
	var yardstick workload.Gunzipper
	var d inflate.Decoder
	var dst []byte
	size := 0
	var c contest
	c.run(b, func() { gunzip(b, &yardstick, profiles) }, func() {
		size = 0
		for _, p := range profiles {
			var err error
			if dst, err = d.Gunzip(dst, p.Body, limits.MaxBytes); err != nil {
				b.Fatal(err)
			}
			size += len(dst)
		}
	})
	b.ReportMetric(median(ratios(c.measured, c.yardstick)), "x-klauspost")
	b.ReportMetric(micros(c.yardstick, len(profiles)), "klauspost-µs/profile")
	b.ReportMetric(micros(c.measured, len(profiles)), "inflate-µs/profile")
	b.ReportMetric(float64(size)/median(c.measured).Seconds()/1e6, "MB/s")
}

// BenchmarkDecode compares decoding with every check, on bytes that are inflated already, with google/pprof. The ratio says
// how many times faster.
func BenchmarkDecode(b *testing.B) {
	var raw [][]byte
	for _, f := range corpus.All() {
		raw = append(raw, f.Raw())
	}
	raw = slices.Repeat(raw, 4) // a turn is long enough for caches and branches to settle
	d, p := pprof.NewDecoder(), new(profile.Profile)
	var c contest
	c.run(b, func() {
		for _, body := range raw {
			if _, err := gprofile.ParseUncompressed(body); err != nil {
				b.Fatal(err)
			}
		}
	}, func() {
		for _, body := range raw {
			if err := d.Decode(body, limits, p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(median(ratios(c.yardstick, c.measured)), "x-faster-than-google")
	b.ReportMetric(micros(c.yardstick, len(raw)), "google-µs/profile")
	b.ReportMetric(micros(c.measured, len(raw)), "decode-µs/profile")
}

// writer makes segments and says what each step took.
type writer struct {
	decoder *pprof.Decoder
	profile profile.Profile
	head    *head.Head
	block   *block.Writer
	object  bytes.Buffer

	decode, normalise, intern, encode time.Duration
}

func newWriter() *writer {
	w := &writer{decoder: pprof.NewDecoder(), head: head.New()}
	w.block = block.NewWriter(&w.object, block.Header{})
	return w
}

// segment takes profiles from the bytes that were sent to an object.
func (w *writer) segment(tb testing.TB, profiles []workload.Sent) {
	w.head.Reset()
	t0 := workload.CPU()
	for i, s := range profiles {
		if err := w.decoder.Decode(s.Body, limits, &w.profile); err != nil {
			tb.Fatal(err)
		}
		t1 := workload.CPU()
		if _, err := w.profile.Normalise(normal); err != nil {
			tb.Fatal(err)
		}
		t2 := workload.CPU()
		var id profile.ID
		binary.BigEndian.PutUint32(id[:], uint32(i))
		if err := w.head.Append(&w.profile, s.Series, id); err != nil {
			tb.Fatal(err)
		}
		t3 := workload.CPU()
		w.decode, w.normalise, w.intern = w.decode+t1-t0, w.normalise+t2-t1, w.intern+t3-t2
		t0 = t3
	}
	w.object.Reset()
	w.block.Reset(&w.object, block.Header{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
	if err := w.head.Write("acme", w.block); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.block.Finish(); err != nil {
		tb.Fatal(err)
	}
	w.encode += workload.CPU() - t0
}

// BenchmarkSegment takes gzipped profiles to encoded segments and compares that with only gunzipping them.
func BenchmarkSegment(b *testing.B) {
	for _, of := range []struct {
		name     string
		segments func() [][]workload.Sent
	}{
		{"profiles=100", func() [][]workload.Sent { return segments(workload.Perturbed(100), 100) }},
		{"profiles=10", func() [][]workload.Sent { return segments(workload.Perturbed(100), 10) }},
		{"hard", func() [][]workload.Sent { return [][]workload.Sent{workload.Hard()} }},
		{"hard,profiles=10", func() [][]workload.Sent { return segments(workload.Hard(), 10) }},
	} {
		b.Run(of.name, func(b *testing.B) { benchmarkSegment(b, of.segments()) })
	}
}

func benchmarkSegment(b *testing.B, lots [][]workload.Sent) {
	n := len(lots) * len(lots[0])
	var yardstick workload.Gunzipper
	w := newWriter()
	var decode, normalise, intern, encode []time.Duration
	size := 0
	var c contest
	c.run(b, func() {
		for _, lot := range lots {
			gunzip(b, &yardstick, lot)
		}
	}, func() {
		size, w.decode, w.normalise, w.intern, w.encode = 0, 0, 0, 0, 0
		for _, lot := range lots {
			w.segment(b, lot)
			size += w.object.Len()
		}
		decode, normalise = append(decode, w.decode), append(normalise, w.normalise)
		intern, encode = append(intern, w.intern), append(encode, w.encode)
	})
	b.ReportMetric(median(ratios(c.measured, c.yardstick)), "x-gunzip")
	b.ReportMetric(micros(c.yardstick, n), "gunzip-µs/profile")
	b.ReportMetric(micros(decode, n), "inflate+decode-µs/profile")
	b.ReportMetric(micros(normalise, n), "normalise-µs/profile")
	b.ReportMetric(micros(intern, n), "intern-µs/profile")
	b.ReportMetric(micros(encode, n), "encode-µs/profile")
	b.ReportMetric(float64(size)/float64(n), "B/profile")
}

// BenchmarkManyServices encodes a segment of 10,000 services with one small profile each.
func BenchmarkManyServices(b *testing.B) {
	const services = 10_000
	profiles := workload.Small(services)
	w := newWriter()
	var encode []time.Duration
	w.segment(b, profiles)
	for b.Loop() {
		w.encode = 0
		w.segment(b, profiles)
		encode = append(encode, w.encode)
	}
	b.ReportMetric(float64(median(encode).Microseconds())/1000, "encode-ms")
	b.ReportMetric(float64(slices.Max(encode).Microseconds())/1000, "slowest-ms")
	b.ReportMetric(float64(w.object.Len())/services, "B/profile")
}
