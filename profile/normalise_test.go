package profile_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// story builds a profile of one sample type by hand.
type story struct {
	profile.Profile
	numbers map[string]uint32
}

func tell(locations int) *story {
	s := &story{numbers: map[string]uint32{}}
	s.Reset()
	s.SampleTypes = []profile.ValueType{{Type: s.str("cpu"), Unit: s.str("ns")}}
	for i := range locations {
		s.Locations = append(s.Locations, profile.Location{Address: uint64(i)})
	}
	return s
}

func (s *story) str(text string) uint32 {
	if text == "" {
		return 0
	}
	if _, ok := s.numbers[text]; !ok {
		s.numbers[text] = uint32(len(s.Strings))
		s.Strings = append(s.Strings, profile.Span{Off: uint32(len(s.Data)), Len: uint32(len(text))})
		s.Data = append(s.Data, text...)
	}
	return s.numbers[text]
}

// sample adds a sample with labels given as name, value, name, value.
func (s *story) sample(value int64, stack []uint32, nameValue ...string) {
	s.Values = append(s.Values, value)
	s.Stacks = append(s.Stacks, stack...)
	s.StackEnds = append(s.StackEnds, uint32(len(s.Stacks)))
	for i := 0; i < len(nameValue); i += 2 {
		s.SampleLabels = append(s.SampleLabels, profile.SampleLabel{Key: s.str(nameValue[i]), Str: s.str(nameValue[i+1])})
	}
	s.LabelEnds = append(s.LabelEnds, uint32(len(s.SampleLabels)))
}

func (s *story) normalise(t *testing.T, lim profile.Limits) profile.Report {
	t.Helper()
	r, err := s.Normalise(lim)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var wide = profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65_535}

func TestNormaliseSumsAndSplits(t *testing.T) {
	s := tell(3)
	s.sample(5, []uint32{0, 1}, "pod", "a")
	s.sample(-5, []uint32{0, 1}, "pod", "a")
	s.sample(0, []uint32{2})
	s.sample(7, []uint32{2}, "span_id", "1", "trace_id", "2", "profile_id", "3")
	s.sample(2, []uint32{0, 1}, "pod", "a", "thread", "")
	s.sample(1, []uint32{2}, "span_id", "4")
	s.sample(1, nil, "pod", "a")
	s.sample(3, []uint32{0, 1}, "zone", "x", "pod", "a")
	s.sample(4, []uint32{0, 1}, "pod", "a", "zone", "x")
	s.SampleLabels[len(s.SampleLabels)-1].Num = 9

	r := s.normalise(t, wide)
	want := profile.Report{NegativeSamples: 1, ZeroSamples: 1, MergedSamples: 3, DroppedLabels: 1, MalformedIDs: 4}
	if r != want {
		t.Errorf("report %+v, want %+v", r, want)
	}
	type row struct {
		labels string
		stack  []uint32
		value  int64
	}
	rows := []row{{`{pod="a"}`, []uint32{0, 1}, 7}, {`{pod="a"}`, nil, 1}, {`{}`, []uint32{2}, 8}, {`{pod="a", zone="x"}`, []uint32{0, 1}, 7}}
	i := 0
	for _, series := range s.Series {
		for _, sample := range s.Order[series.First : series.First+series.Count] {
			got := row{series.Labels.String(), s.Stack(int(sample)), s.Row(int(sample))[0]}
			if i >= len(rows) || got.labels != rows[i].labels || got.value != rows[i].value || !slices.Equal(got.stack, rows[i].stack) {
				t.Errorf("row %d: %+v", i, got)
			}
			i++
		}
	}
	if i != len(rows) {
		t.Errorf("%d rows, want %d", i, len(rows))
	}
	// What only labels of single samples said is not kept for a table.
	for _, gone := range []string{"span_id", "trace_id", "1", "2", "3", "4", "thread"} {
		if got := s.String(s.numbers[gone]); len(got) != 0 {
			t.Errorf("string %q is still there", got)
		}
	}
	if got := s.String(s.numbers["cpu"]); string(got) != "cpu" {
		t.Errorf("the sample type became %q", got)
	}
}

// Samples of several requests stay apart, and what is no id is as if it were not there.
func TestNormaliseKeepsSpansAndTraces(t *testing.T) {
	const span1, span2, trace1 = "00f067aa0ba902b7", "00F067AA0BA902B8", "4bf92f3577b34da6a3ce929d0e0e4736"
	s := tell(2)
	s.sample(1, []uint32{0}, "pod", "a")
	s.sample(2, []uint32{0}, "span_id", span1, "pod", "a")
	s.sample(4, []uint32{0}, "pod", "a", "profile_id", span1)
	s.sample(8, []uint32{0}, "profile_id", span1, "span_id", span2, "pod", "a", "trace_id", trace1)
	s.sample(16, []uint32{0}, "span_id", span2, "pod", "a")
	s.sample(32, []uint32{0}, "span_id", span1[1:], "trace_id", trace1+"0", "pod", "a")
	s.sample(64, []uint32{0}, "span_id", "0000000000000000", "trace_id", "4bf92f3577b34da6a3ce929d0e0e473g", "pod", "a")
	s.sample(128, []uint32{1}, "span_id", span1)
	s.sample(256, []uint32{1}, "span_id", span1)

	r := s.normalise(t, wide)
	if want := (profile.Report{MergedSamples: 4, MalformedIDs: 4}); r != want {
		t.Errorf("report %+v, want %+v", r, want)
	}
	one, two := profile.SpanID{0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 2, 0xb7}, profile.SpanID{0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 2, 0xb8}
	trace := profile.TraceID{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36}
	if want := []int64{97, 6, 8, 16, 384}; !slices.Equal(s.Values, want) {
		t.Fatalf("values %d, want %d", s.Values, want)
	}
	if want := []profile.SpanID{{}, one, two, two, one}; !slices.Equal(s.Spans, want) {
		t.Errorf("spans %x, want %x", s.Spans, want)
	}
	if want := []profile.TraceID{{}, {}, trace, {}, {}}; !slices.Equal(s.Traces, want) {
		t.Errorf("traces %x, want %x", s.Traces, want)
	}
	if len(s.Series) != 2 || s.Series[0].Count != 4 {
		t.Errorf("series %+v, want two: spans are not labels", s.Series)
	}
	s.Reset()
	if len(s.Spans)+len(s.Traces) != 0 {
		t.Error("Reset keeps them")
	}
	s.SampleTypes = append(s.SampleTypes, profile.ValueType{})
	s.sample(1, []uint32{})
	if s.normalise(t, wide); len(s.Spans)+len(s.Traces) != 0 {
		t.Errorf("a profile without spans has %d and %d", len(s.Spans), len(s.Traces))
	}
}

func TestNormaliseOverflow(t *testing.T) {
	s := tell(1)
	s.sample(math.MaxInt64-1, []uint32{0})
	s.sample(1, []uint32{0})
	s.normalise(t, wide)
	if got := s.Row(0)[0]; got != math.MaxInt64 {
		t.Errorf("sum %d, want the largest", got)
	}
	s = tell(1)
	s.sample(math.MaxInt64, []uint32{0})
	s.sample(1, []uint32{0})
	if _, err := s.Normalise(wide); !errors.Is(err, profile.ErrOverflow) || !strings.Contains(err.Error(), "cpu") {
		t.Errorf("error %v, want ErrOverflow that names the sample type", err)
	}
}

func TestNormaliseTruncates(t *testing.T) {
	s := tell(6)
	// Location 1 is five inlined calls.
	s.Locations[1].Lines = 5
	for range 5 {
		s.Lines = append(s.Lines, profile.Line{Function: 1})
	}
	s.Functions = append(s.Functions, profile.Function{Name: s.str("github.com/a/very/long/path.Func"), File: s.str("äöü.go")})
	s.sample(1, []uint32{5, 4, 3, 2})
	s.sample(2, []uint32{0, 4, 3, 2})
	s.sample(4, []uint32{4, 1, 2})
	s.sample(8, []uint32{3, 2})
	r := s.normalise(t, profile.Limits{MaxStackDepth: 3, MaxSymbolLength: 8})
	if want := (profile.Report{TruncatedStacks: 3, TruncatedSymbols: 2, MergedSamples: 1}); r != want {
		t.Errorf("report %+v, want %+v", r, want)
	}
	want := []struct {
		value int64
		stack []uint32
	}{{3, []uint32{4, 3, 2}}, {4, []uint32{2}}, {8, []uint32{3, 2}}}
	for i, w := range want {
		if i >= s.Samples() || s.Row(i)[0] != w.value || !slices.Equal(s.Stack(i), w.stack) {
			t.Fatalf("sample %d of %d: %d %v, want %+v", i, s.Samples(), s.Row(i), s.Stack(i), w)
		}
	}
	if got := string(s.String(s.Functions[1].Name)); got != "ath.Func" {
		t.Errorf("name %q", got)
	}
	// Eight bytes would begin in the middle of a rune.
	if got := string(s.String(s.Functions[1].File)); got != "öü.go" {
		t.Errorf("file %q", got)
	}
}

// The labels of a series do not change when the profile is used again.
func TestSeriesOutliveTheProfile(t *testing.T) {
	s := tell(1)
	s.sample(1, []uint32{0}, "pod", "first")
	s.normalise(t, wide)
	kept := s.Series[0].Labels
	s.Reset()
	s.numbers = map[string]uint32{}
	s.SampleTypes = append(s.SampleTypes, profile.ValueType{})
	s.Locations = append(s.Locations, profile.Location{})
	s.sample(1, []uint32{0}, "dop", "xxxxx")
	s.normalise(t, wide)
	if labels.Compare(kept, labels.FromStrings("pod", "first")) != 0 {
		t.Errorf("the labels became %s", kept)
	}
}

func TestResetForgetsEverything(t *testing.T) {
	s := tell(2)
	s.sample(1, []uint32{0}, "pod", "a")
	s.Period, s.TimeNanos, s.DurationNanos, s.PeriodType = 1, 2, 3, profile.ValueType{Type: 1}
	s.normalise(t, wide)
	held := s.Bytes()
	s.Reset()
	if s.Samples()+len(s.Values)+len(s.Locations)+len(s.Lines)+len(s.SampleTypes)+len(s.Series)+len(s.Order) != 0 ||
		len(s.Strings) != 1 || len(s.Mappings) != 1 || len(s.Functions) != 1 ||
		s.Period != 0 || s.TimeNanos != 0 || s.DurationNanos != 0 || s.PeriodType != (profile.ValueType{}) {
		t.Errorf("after Reset %+v", s.Profile)
	}
	if s.Bytes() != held {
		t.Errorf("Bytes() = %d, want %d: memory is kept", s.Bytes(), held)
	}
}
