package pprof_test

import (
	"testing"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

// Every benchmark goes once over the corpus per iteration; us/profile and MB/s compare across them.

func rawCorpus() (raw [][]byte, size int64) {
	for _, f := range corpus.All() {
		b := f.Raw()
		raw = append(raw, b)
		size += int64(len(b))
	}
	return raw, size
}

func perProfile(b *testing.B, profiles int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(b.N)/float64(profiles), "us/profile")
}

func BenchmarkDecode(b *testing.B) {
	raw, size := rawCorpus()
	b.SetBytes(size)
	b.ReportAllocs()
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for b.Loop() {
		for _, r := range raw {
			if err := d.Decode(r, limits, p); err != nil {
				b.Fatal(err)
			}
		}
	}
	perProfile(b, len(raw))
}

func BenchmarkDecodeGoogle(b *testing.B) {
	raw, size := rawCorpus()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range raw {
			if _, err := gprofile.ParseUncompressed(r); err != nil {
				b.Fatal(err)
			}
		}
	}
	perProfile(b, len(raw))
}

func BenchmarkDecodeGzip(b *testing.B) {
	files := corpus.All()
	b.ReportAllocs()
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for b.Loop() {
		for _, f := range files {
			if err := d.Decode(f.Gzipped, limits, p); err != nil {
				b.Fatal(err)
			}
		}
	}
	perProfile(b, len(files))
}

// BenchmarkBody is the whole way of a profile: gunzip, decode, normalise, intern into a table that has
// the names already.
func BenchmarkBody(b *testing.B) {
	files := corpus.All()
	b.ReportAllocs()
	var h head
	h.init()
	for b.Loop() {
		for _, f := range files {
			h.take(b, f.Gzipped)
		}
	}
	perProfile(b, len(files))
}

func BenchmarkNormalise(b *testing.B) {
	raw, _ := rawCorpus()
	b.ReportAllocs()
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for b.Loop() {
		for _, r := range raw {
			if err := d.Decode(r, limits, p); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Normalise(normal); err != nil {
				b.Fatal(err)
			}
		}
	}
	perProfile(b, len(raw))
}

func BenchmarkAppend(b *testing.B) {
	raw, size := rawCorpus()
	b.SetBytes(size)
	b.ReportAllocs()
	d := pprof.NewDecoder()
	profiles := make([]profile.Profile, len(raw))
	for i, r := range raw {
		if err := d.Decode(r, limits, &profiles[i]); err != nil {
			b.Fatal(err)
		}
	}
	var dst []byte
	for b.Loop() {
		for i := range profiles {
			dst = pprof.Append(dst[:0], &profiles[i])
		}
	}
	perProfile(b, len(raw))
}
