package profile_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// seen says when the last sample was seen.
func (s *story) seen(times ...int64) {
	s.Times = append(s.Times, times...)
	s.TimeEnds = append(s.TimeEnds, uint32(len(s.Times)))
}

// The moments of samples that become one are together, and those of dropped ones are gone.
func TestNormaliseMergesTimes(t *testing.T) {
	s := tell(2)
	s.sample(1, []uint32{0})
	s.seen(30, 10)
	s.sample(0, []uint32{1})
	s.seen(99)
	s.sample(2, []uint32{1})
	s.seen()
	s.sample(4, []uint32{0})
	s.seen(20, 10)
	s.sample(-1, []uint32{0})
	s.seen(98)
	s.sample(8, []uint32{0}, "span_id", "00f067aa0ba902b7")
	s.seen(5)
	s.normalise(t, wide)
	for i, want := range [][]int64{{10, 10, 20, 30}, {}, {5}} {
		if got := s.TimesOf(i); !slices.Equal(got, want) {
			t.Errorf("times of sample %d are %d, want %d", i, got, want)
		}
	}
	if s.Samples() != 3 || len(s.TimeEnds) != 3 || len(s.Times) != 5 {
		t.Errorf("%d samples, %d ends, times %d", s.Samples(), len(s.TimeEnds), s.Times)
	}
}

func TestColumnsThatSayNothingAreEmpty(t *testing.T) {
	s := tell(1)
	s.sample(1, []uint32{0})
	s.seen()
	s.sample(0, []uint32{0})
	s.seen(7)
	s.Spans, s.Traces = []profile.SpanID{{}, {1}}, []profile.TraceID{{}, {2}}
	s.normalise(t, wide)
	if len(s.TimeEnds)+len(s.Times)+len(s.Spans)+len(s.Traces) != 0 || s.TimesOf(0) != nil {
		t.Errorf("ends %d, times %d, spans %x, traces %x", s.TimeEnds, s.Times, s.Spans[:], s.Traces[:])
	}
}

// Whatever samples there are, every time and every id that came with a sample that counts is where its stack is.
func TestNormaliseKeepsEveryTime(t *testing.T) {
	s := tell(3)
	rapid.Check(t, func(rt *rapid.T) {
		s.Reset()
		s.SampleTypes = append(s.SampleTypes, profile.ValueType{})
		want, got := map[string][]int64{}, map[string][]int64{}
		for range rapid.IntRange(0, 20).Draw(rt, "samples") {
			value, stack := rapid.Int64Range(-1, 2).Draw(rt, "value"), []uint32{uint32(rapid.IntRange(0, 2).Draw(rt, "stack"))}
			span := profile.SpanID{7: byte(rapid.IntRange(0, 2).Draw(rt, "span"))}
			times := rapid.SliceOfN(rapid.Int64(), 0, 3).Draw(rt, "times")
			s.sample(value, stack)
			s.seen(times...)
			s.Spans = append(s.Spans, span)
			if key := fmt.Sprint(stack, span); value > 0 {
				want[key] = append(want[key], times...)
			}
		}
		s.normalise(t, wide)
		for i := range s.Samples() {
			var span profile.SpanID
			if len(s.Spans) > 0 {
				span = s.Spans[i]
			}
			got[fmt.Sprint(s.Stack(i), span)] = s.TimesOf(i)
		}
		if len(got) != len(want) {
			rt.Fatalf("%d samples, want %d", len(got), len(want))
		}
		for key, times := range want {
			if slices.Sort(times); !slices.Equal(got[key], times) {
				rt.Fatalf("%s was seen at %d, want %d", key, got[key], times)
			}
		}
	})
}
