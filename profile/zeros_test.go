package profile_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// What DropZeros leaves is what Normalise leaves of a profile that had the zeros to begin with.
func TestDropZeros(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, want := tell(4), tell(4)
		times := rapid.Bool().Draw(rt, "times")
		zeros := rapid.SliceOfN(rapid.Bool(), 1, 20).Draw(rt, "zeros")
		for i, zero := range zeros {
			stack := rapid.SliceOfN(rapid.Uint32Range(0, 3), 0, 3).Draw(rt, "stack")
			ls := []string{"pod", rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "pod"), "n", fmt.Sprint(i)}
			if rapid.Bool().Draw(rt, "span") {
				ls = append(ls, "span_id", fmt.Sprintf("%016x", i+1), "trace_id", fmt.Sprintf("%032x", i+1))
			}
			s.sample(int64(i+1), stack, ls...)
			if !zero {
				want.sample(int64(i+1), stack, ls...)
			}
		}
		s.normalise(t, wide)
		want.normalise(t, wide)
		for i := range s.Samples() {
			if times {
				s.Times = append(s.Times, s.Row(i)[0], -s.Row(i)[0])
				s.TimeEnds = append(s.TimeEnds, uint32(len(s.Times)))
			}
			if zeros[s.Row(i)[0]-1] {
				s.Row(i)[0] = 0
			}
		}
		s.DropZeros()
		if got, want := written(&s.Profile), written(&want.Profile); !slices.Equal(got, want) {
			rt.Fatalf("left %v, want %v", got, want)
		}
		for i := range s.Samples() {
			if times && (s.TimeEnds[i] != uint32(2*i+2) || s.Times[2*i] != s.Row(i)[0] || s.Times[2*i+1] != -s.Row(i)[0]) {
				rt.Fatalf("sample %d of %v has times %v until %v", i, s.Values, s.Times, s.TimeEnds)
			}
		}
		if times && len(s.Times) != 2*s.Samples() {
			rt.Fatalf("%d times of %d samples", len(s.Times), s.Samples())
		}
	})
}

// written returns the samples of a normalised profile as text.
func written(p *profile.Profile) (all []string) {
	for _, s := range p.Series {
		if s.Count == 0 {
			all = append(all, "an empty series")
		}
		for _, i := range p.Order[s.First : s.First+s.Count] {
			text := fmt.Sprint(s.Labels, p.Stack(int(i)), p.Row(int(i)), len(p.LabelsOf(int(i))))
			if len(p.Spans) > 0 {
				text += fmt.Sprint(p.Spans[i], p.Traces[i])
			} else {
				text += fmt.Sprint(profile.SpanID{}, profile.TraceID{})
			}
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return all
}
