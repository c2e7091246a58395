package profile_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

func TestABuilderSumsWhatIsEqual(t *testing.T) {
	b := profile.NewBuilder()
	for range 2 { // the second time in the memory of the first
		b.Reset()
		b.AddSampleType("objects", "count")
		b.AddSampleType("space", "bytes")
		b.SetPeriod("space", "bytes", 512)
		main, work := b.Frame([]byte("main")), b.Frame([]byte("work"))
		if b.Frame([]byte("main")) != main || b.Location(b.Function(b.String([]byte("work")), 0), 7) == work {
			t.Fatal("names are not interned")
		}
		label := []profile.SampleLabel{{Key: b.String([]byte("pool")), Str: b.String([]byte("a"))}}
		for _, s := range []struct {
			stack  []uint32
			labels []profile.SampleLabel
			values [2]int64
		}{{[]uint32{work, main}, nil, [2]int64{1, 10}}, {[]uint32{main}, nil, [2]int64{2, 20}}, {[]uint32{work, main}, label, [2]int64{3, 30}}, {[]uint32{work, main}, nil, [2]int64{4, 40}}} {
			if err := b.Add(s.stack, s.labels, s.values[:]...); err != nil {
				t.Fatal(err)
			}
		}
		var p profile.Profile
		p.Reset()
		b.Fill(&p)
		if !slices.Equal(p.Values, []int64{5, 50, 2, 20, 3, 30}) || !slices.Equal(p.StackEnds, []uint32{2, 3, 5}) || !slices.Equal(p.LabelEnds, []uint32{0, 0, 1}) {
			t.Errorf("values %v, stacks end at %v, labels at %v", p.Values, p.StackEnds, p.LabelEnds)
		}
		if k := p.Kind("memory"); k.Type(1).String() != "memory:space:bytes:space:bytes" || p.Period != 512 {
			t.Errorf("kind %v, period %d", k, p.Period)
		}
		if p.Size() != b.Size() || b.Samples() != 3 {
			t.Errorf("size %d, the builder says %d, of %d samples", p.Size(), b.Size(), b.Samples())
		}
		// About as large as in wire form, and what was written can be read.
		wire := pprof.Append(nil, &p)
		if p.Size() < len(wire)/2 || p.Size() > 2*len(wire) {
			t.Errorf("size %d, in wire form %d", p.Size(), len(wire))
		}
		if err := pprof.NewDecoder().Decode(wire, pprof.Limits{MaxBytes: 1 << 20}, new(profile.Profile)); err != nil {
			t.Error(err)
		}
	}
}

func TestABuilderRefusesWhatOverflows(t *testing.T) {
	b := profile.NewBuilder()
	b.AddSampleType("samples", "count")
	if err := errors.Join(b.Add(nil, nil, math.MaxInt64), b.Add([]uint32{b.Frame([]byte("f"))}, nil, math.MaxInt64/10)); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(nil, nil, 1); !errors.Is(err, profile.ErrOverflow) {
		t.Errorf("error %v", err)
	}
	if err := b.Scale(10); !errors.Is(err, profile.ErrOverflow) {
		t.Errorf("error %v", err)
	}
}
