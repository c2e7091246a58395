package head_test

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/segmentwriter/head"
)

// BenchmarkSegment takes gzipped profiles to an encoded segment, and reports the CPU time per profile against that of
// only gunzipping the same bytes with a reader and a buffer that are reused, measured in turns. CPU is that of the
// process, garbage collection included. 52 profiles are the corpus, each file once; 104 and more repeat it; 10 are its
// first files.
func BenchmarkSegment(b *testing.B) {
	for _, profiles := range []int{10, 52, 104} {
		b.Run(fmt.Sprintf("profiles=%d", profiles), func(b *testing.B) { benchmarkSegment(b, profiles) })
	}
}

func benchmarkSegment(b *testing.B, profiles int) {
	var bodies [][]byte
	var series []labels.Labels
	for i := range profiles {
		f := corpus.All()[i%len(corpus.All())]
		bodies = append(bodies, f.Gzipped)
		series = append(series, labels.FromStrings("__name__", f.Kind(), "service_name", f.Service(), "__delta__", "false", "pod", fmt.Sprint(i/4)))
	}
	var inflater gzip.Reader
	var raw bytes.Buffer
	gunzip := func() {
		for _, body := range bodies {
			raw.Reset()
			if err := inflater.Reset(bytes.NewReader(body)); err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(&raw, &inflater); err != nil {
				b.Fatal(err)
			}
		}
	}
	h, d, p := head.New(), pprof.NewDecoder(), &profile.Profile{}
	var object bytes.Buffer
	w := block.NewWriter(&object, block.Header{})
	var decoding, appending, writing time.Duration
	segment := func() {
		h.Reset()
		for i, body := range bodies {
			t0 := cpu(b)
			if err := d.Decode(body, pprof.Limits{MaxBytes: 4 << 20, MaxRatio: 200}, p); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65535}); err != nil {
				b.Fatal(err)
			}
			t1 := cpu(b)
			if err := h.Append(p, series[i], profile.ID{byte(i), byte(i >> 8)}); err != nil {
				b.Fatal(err)
			}
			decoding += t1 - t0
			appending += cpu(b) - t1
		}
		t0 := cpu(b)
		object.Reset()
		w.Reset(&object, block.Header{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
		if err := h.Write("acme", w); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		writing += cpu(b) - t0
	}
	gunzip()
	segment() // with memory to reuse
	decoding, appending, writing = 0, 0, 0
	var base, all time.Duration
	for b.Loop() {
		t0 := cpu(b)
		gunzip()
		t1 := cpu(b)
		segment()
		base += t1 - t0
		all += cpu(b) - t1
	}
	n := float64(b.N * profiles)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / n }
	b.ReportMetric(us(base), "gunzip-µs/profile")
	b.ReportMetric(us(decoding), "decode-µs/profile")
	b.ReportMetric(us(appending), "intern-µs/profile")
	b.ReportMetric(us(writing), "encode-µs/profile")
	b.ReportMetric(float64(all)/float64(base), "x-gunzip")
	b.ReportMetric(float64(object.Len())/float64(profiles), "B/profile")
}

// cpu returns the CPU time of the process so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
