package pprof_test

import (
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/profile/pprof"
)

// One decoder and one profile for the whole corpus: what one file leaves behind must not show in the next.
func TestDecodeSaysWhatGoogleSays(t *testing.T) {
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for _, f := range corpus.All() {
		for _, body := range [][]byte{f.Gzipped, f.Raw()} {
			if err := d.Decode(body, limits, p); err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			sameText(t, f.Name, describe(p), describeGoogle(oracle.Parse(body)))
		}
	}
}

func TestAppendSaysWhatWasDecoded(t *testing.T) {
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for _, f := range corpus.All() {
		if err := d.Decode(f.Gzipped, limits, p); err != nil {
			t.Fatal(err)
		}
		written := pprof.Append(nil, p)
		sameText(t, f.Name, describeGoogle(oracle.Parse(written)), describeGoogle(oracle.Parse(f.Gzipped)))
	}
}

// The budget of a profile on its way in, once everything has its memory. What remains are the labels of
// its series.
func TestBodyToHeadAllocatesLittle(t *testing.T) {
	for _, f := range corpus.All() {
		var h head
		h.init()
		if n := testing.AllocsPerRun(10, func() { h.take(t, f.Gzipped) }); n > 10 {
			t.Errorf("%s: %v allocations, want at most 10", f.Name, n)
		}
	}
}
