package otlp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kilndb/kiln/distributor/otlp/otlptest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// ebpf returns a request like those of a profiler of a whole machine: stacks of 10 to 50 frames of which many share
// their root, every sample with a moment and the attributes of its thread.
func ebpf(samples int) *otlptest.Request {
	r := otlptest.New()
	m := r.MappingTable().AppendEmpty()
	m.SetFilenameStrindex(r.String("/usr/bin/server"))
	m.AttributeIndices().Append(r.Attribute("process.executable.build_id.gnu", "6162636465666768"))
	p := r.Profile(r.Resource("service.name", "checkout", "container.id", "c-1"), at, "samples:count", "cpu:nanoseconds", 50_000_000)
	var threads, ids []int32
	for i := range 20 {
		threads = append(threads, r.Attribute("thread.name", fmt.Sprint("worker-", i)))
		ids = append(ids, r.Attribute("thread.id", 1000+i))
	}
	for i := range samples {
		distinct := i % (samples/5 + 1)
		names := make([]string, 10+distinct%40)
		for j := range names {
			names[j] = fmt.Sprintf("github.com/example/server/internal/package%d.Function%d", j, distinct>>uint(max(0, 12-j))%50)
		}
		s := r.Sample(p, strings.Join(names, ";"))
		s.TimestampsUnixNano().Append(uint64(at.UnixNano()) + uint64(i)*1000)
		s.AttributeIndices().Append(threads[i%20], ids[i%20])
	}
	for i := range r.LocationTable().Len() - 1 {
		r.LocationTable().At(i + 1).SetMappingIndex(1)
		r.LocationTable().At(i + 1).SetAddress(uint64(0x400000 + 16*i))
	}
	return r
}

// BenchmarkDecode compares a request of 10,000 samples with the pprof that says the same.
func BenchmarkDecode(b *testing.B) {
	lim := tenant.DefaultLimits()
	lim.MaxProfileBytes = 64 << 20
	x := newExporter(&keeper{})
	fill := func(body []byte, isJSON bool, p *profile.Profile) {
		e, release, err := x.decode(b.Context(), "acme", body, lim, isJSON)
		if err != nil {
			b.Fatal(err)
		}
		defer release()
		uploads, _ := x.split(e, &identities{body: body}, lim)
		p.Reset()
		if err := uploads[0].Fill(p); err != nil {
			b.Fatal(err)
		}
	}
	r := ebpf(10_000)
	proto, json := r.Proto(), r.JSON()
	p := &profile.Profile{}
	fill(proto, false, p)
	asPprof := pprof.Append(nil, p)

	report := func(b *testing.B, body []byte) {
		b.ReportAllocs()
		b.ReportMetric(float64(len(body)), "bytes/request")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e4, "ns/sample")
	}
	b.Run("otlp", func(b *testing.B) {
		for b.Loop() {
			fill(proto, false, p)
		}
		report(b, proto)
	})
	b.Run("otlp fill alone", func(b *testing.B) {
		e, release, err := x.decode(b.Context(), "acme", proto, lim, false)
		if err != nil {
			b.Fatal(err)
		}
		defer release()
		uploads, _ := x.split(e, &identities{body: proto}, lim)
		for b.Loop() {
			p.Reset()
			if err := uploads[0].Fill(p); err != nil {
				b.Fatal(err)
			}
		}
		report(b, proto)
	})
	b.Run("otlp json", func(b *testing.B) {
		for b.Loop() {
			fill(json, true, p)
		}
		report(b, json)
	})
	b.Run("pprof", func(b *testing.B) {
		d := pprof.NewDecoder()
		for b.Loop() {
			if err := d.Decode(asPprof, pprof.LimitsOf(lim), p); err != nil {
				b.Fatal(err)
			}
		}
		report(b, asPprof)
	})
}

func BenchmarkGuard(b *testing.B) {
	body, s := ebpf(10_000).Proto(), newShape()
	for b.Loop() {
		if _, err := s.check(body, 64<<20); err != nil {
			b.Fatal(err)
		}
	}
}
